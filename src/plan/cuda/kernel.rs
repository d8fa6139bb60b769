//! The kernels that presets name, and what each of them serves: which product, which loads, which
//! steps of a finish. All else a plan refuses by name.

use super::numbers::Tile;
use crate::plan::{Kernel, Serves};
use crate::product::{FinishStep, Kind, LoadKind};

/// A kernel, and what of it a preset fixes. The numbers of its tile are the text's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CudaKernel {
    /// The layer, tile by tile.
    Linear {
        tile: Tile,
        /// Loads 16 bytes at a time.
        aligned: bool,
    },
    /// The layer for few tokens: w streamed once.
    Decode,
    Shrink,
    Merge,
    Gradient,
    /// Sums over an adapter's factors.
    Contract,
}

impl Kernel for CudaKernel {
    fn serves(&self) -> Serves {
        use FinishStep::{Beta, Bias, Factor};
        let (product, finish): (_, &[FinishStep]) = match self {
            CudaKernel::Linear { .. } | CudaKernel::Decode => (Kind::Layer, &[Bias, Beta]),
            CudaKernel::Shrink => (Kind::Shrink, &[]),
            CudaKernel::Merge => (Kind::Merge, &[Factor, Beta]),
            CudaKernel::Gradient => (Kind::Gradients, &[Beta]),
            CudaKernel::Contract => (Kind::Factors, &[Beta]),
        };
        Serves { product, loads: &[LoadKind::Stored], finish }
    }
}

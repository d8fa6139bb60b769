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
    /// A magnitude over the norms of w's rows.
    Norm,
    /// dy times the gain, and the magnitude's gradient.
    BackwardGain,
}

impl Kernel for CudaKernel {
    fn serves(&self) -> Serves {
        use FinishStep::{Beta, Bias, Factor, Gain};
        let (product, finish): (_, &[FinishStep]) = match self {
            // Beside a gain its leader would spill.
            CudaKernel::Linear { tile: Tile::Tf32, .. } => (Kind::Layer, &[Bias, Beta]),
            CudaKernel::Linear { .. } | CudaKernel::Decode => (Kind::Layer, &[Gain, Bias, Beta]),
            CudaKernel::Shrink => (Kind::Shrink, &[]),
            CudaKernel::Merge => (Kind::Merge, &[Factor, Beta]),
            CudaKernel::Gradient => (Kind::Gradients, &[Beta]),
            CudaKernel::Contract => (Kind::Factors, &[Beta]),
            CudaKernel::Norm => (Kind::Norm, &[]),
            CudaKernel::BackwardGain => (Kind::GainGradient, &[]),
        };
        Serves { product, loads: &[LoadKind::Stored], finish }
    }
}

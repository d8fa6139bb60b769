//! The kernels that presets name, and what each of them serves: which product, which loads, which
//! steps of a finish. All else a plan refuses by name.

use super::numbers::Tile;
use crate::plan::{Kernel, Serves};
use crate::product::{FinishStep, Kind, LoadKind, Product};

/// A kernel, and what of it a preset fixes. The numbers of its tile are the text's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CudaKernel {
    /// The layer, tile by tile.
    Linear {
        tile: Tile,
        /// Loads 16 bytes at a time.
        aligned: bool,
    },
    /// The gradient of a convolution's input.
    Transposed {
        tile: Tile,
        aligned: bool,
    },
    /// The layer for few tokens: w streamed once.
    Decode,
    /// The layer of a LoKr with a whole w2: two products, and the sum that mixes them.
    Mixed {
        tile: Tile,
        aligned: bool,
    },
    /// The gradient of a convolution's input, of such a LoKr.
    MixedTransposed {
        tile: Tile,
        aligned: bool,
    },
    /// The plain layer on w with its adapter merged.
    Merged {
        tile: Tile,
        aligned: bool,
    },
    Shrink,
    Merge,
    Gradient,
    /// Sums over an adapter's factors.
    Contract,
    /// dw1 and dw2 of a LoKr with a whole w2.
    Kronecker,
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
            CudaKernel::Mixed { .. } | CudaKernel::Merged { .. } => {
                (Kind::Layer, &[Gain, Bias, Beta])
            }
            CudaKernel::Transposed { .. } | CudaKernel::MixedTransposed { .. } => {
                (Kind::Transposed, &[Beta])
            }
            CudaKernel::Shrink => (Kind::Shrink, &[]),
            CudaKernel::Merge => (Kind::Merge, &[Factor, Beta]),
            CudaKernel::Gradient => (Kind::Gradients, &[Beta]),
            CudaKernel::Contract => (Kind::Factors, &[Factor, Beta]),
            CudaKernel::Kronecker => (Kind::Kronecker, &[]),
            CudaKernel::Norm => (Kind::Norm, &[]),
            CudaKernel::BackwardGain => (Kind::GainGradient, &[]),
        };
        let loads: &[LoadKind] = match self {
            CudaKernel::Mixed { .. } | CudaKernel::MixedTransposed { .. } => {
                &[LoadKind::Stored, LoadKind::Summed, LoadKind::Gathered]
            }
            CudaKernel::Merged { .. } => &[LoadKind::Stored, LoadKind::Summed],
            CudaKernel::Norm => &[LoadKind::Stored, LoadKind::Summed],
            CudaKernel::Linear { tile: Tile::Medium | Tile::Small, .. }
            | CudaKernel::Transposed { .. }
            | CudaKernel::Shrink
            | CudaKernel::Gradient
            | CudaKernel::Kronecker => &[LoadKind::Stored, LoadKind::Gathered],
            _ => &[LoadKind::Stored],
        };
        Serves { product, loads, finish }
    }

    fn concerns(&self, product: &Product) -> bool {
        let has = |kind: LoadKind| product.loads().any(|of| of.kind == kind);
        match self {
            // The tile that gathers.
            CudaKernel::Mixed { tile: Tile::Medium, .. } => {
                has(LoadKind::Summed) && has(LoadKind::Gathered)
            }
            CudaKernel::Mixed { .. } | CudaKernel::MixedTransposed { .. } => has(LoadKind::Summed),
            _ => true,
        }
    }
}

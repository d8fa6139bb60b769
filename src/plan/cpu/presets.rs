//! The CPU's kernels with their tiles, and the presets that a plan picks from.

use core::ops::RangeInclusive;

use crate::plan::{ANY, Kernel, Preset, Serves, Strategy};
use crate::product::{FinishStep, Kind, LoadKind};

/// A kernel of `cpu`, and its largest tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CpuKernel {
    /// Blocks of the result through `gemm`.
    Linear(LinearTile),
    /// The gradient of a convolution's input.
    Transposed {
        rows: usize,
        columns: usize,
        depth: usize,
    },
    /// The same for the border's rows alone.
    Shrink {
        rows: usize,
        depth: usize,
    },
    /// w streamed once, for few tokens.
    Decode,
    Gradient {
        tokens: usize,
        columns: usize,
    },
    Merge {
        rows: usize,
        columns: usize,
    },
    /// The merge and the plain layer on what it has made.
    Merged(LinearTile),
    /// Sums over an adapter's factors.
    Contract,
    /// dw1 and dw2 of a LoKr with a whole w2.
    Kronecker {
        tokens: usize,
        columns: usize,
    },
    /// A magnitude over the norms of w's rows.
    Norm {
        rows: usize,
        columns: usize,
    },
    /// dy times the gain, and the magnitude's gradient.
    BackwardGain {
        tokens: usize,
        columns: usize,
    },
}

/// A tile of `linear`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinearTile {
    /// Rows of a band, and columns of the result that a worker finishes while they are in its
    /// cache; half as many columns where 16-bit operands are widened beside them.
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Steps of the sum between two widenings of 16-bit operands; the depth `gemm` packs, too.
    pub(crate) depth: usize,
    /// A worker takes whole bands, and computes their shrunk itself.
    pub(crate) by_band: bool,
}

/// 512 × 512 sums in f32 are half of a large L2.
const PANEL: LinearTile = LinearTile { rows: 512, columns: 512, depth: 256, by_band: false };
const BAND: LinearTile = LinearTile { by_band: true, ..PANEL };
/// Of 3 × 3 taps 32 channels, whose sums of 1024 pixels are in L2 beside it.
const TRANSPOSED: CpuKernel = CpuKernel::Transposed { rows: 512, columns: 288, depth: 256 };
/// So many rows of x or dy stay in L2 until every rank has met them, even a page apart.
const GRADIENT: CpuKernel = CpuKernel::Gradient { tokens: 256, columns: 256 };

/// Rows and columns of w.
pub(super) const MERGE: [usize; 2] = [64, 256];
const MERGE_KERNEL: CpuKernel = CpuKernel::Merge { rows: MERGE[0], columns: MERGE[1] };

/// Rows of dy that are multiplied with w1 while x stays in L2, and columns of dw2.
const KRONECKER: CpuKernel = CpuKernel::Kronecker { tokens: 128, columns: 256 };

impl CpuKernel {
    /// That of its file, and of its launch.
    pub(super) fn name(self) -> &'static str {
        match self {
            CpuKernel::Linear(_) => "linear",
            CpuKernel::Transposed { .. } => "transposed",
            CpuKernel::Shrink { .. } => "shrink",
            CpuKernel::Decode => "decode",
            CpuKernel::Gradient { .. } => "gradient",
            CpuKernel::Merge { .. } => "merge",
            CpuKernel::Merged(_) => "merged",
            CpuKernel::Contract => "contract",
            CpuKernel::Kronecker { .. } => "kronecker",
            CpuKernel::Norm { .. } => "norm",
            CpuKernel::BackwardGain { .. } => "backward_gain",
        }
    }
}

impl Kernel for CpuKernel {
    fn serves(&self) -> Serves {
        use FinishStep::{Beta, Bias, Factor, Gain};
        let (product, finish): (_, &[FinishStep]) = match self {
            CpuKernel::Linear(_) | CpuKernel::Merged(_) | CpuKernel::Decode => {
                (Kind::Layer, &[Gain, Bias, Beta])
            }
            CpuKernel::Transposed { .. } => (Kind::Transposed, &[Beta]),
            CpuKernel::Shrink { .. } => (Kind::Shrink, &[]),
            CpuKernel::Gradient { .. } => (Kind::Gradients, &[Beta]),
            CpuKernel::Merge { .. } => (Kind::Merge, &[Factor, Beta]),
            CpuKernel::Contract => (Kind::Factors, &[Factor, Beta]),
            CpuKernel::Kronecker { .. } => (Kind::Kronecker, &[]),
            CpuKernel::Norm { .. } => (Kind::Norm, &[]),
            CpuKernel::BackwardGain { .. } => (Kind::GainGradient, &[]),
        };
        use LoadKind::{Gathered, Stored, Summed};
        // What streams w past a few tokens reads x where it lies.
        let loads: &[LoadKind] = match self {
            CpuKernel::Linear(_) | CpuKernel::Merged(_) | CpuKernel::Transposed { .. } => {
                &[Stored, Gathered, Summed]
            }
            CpuKernel::Decode | CpuKernel::Norm { .. } => &[Stored, Summed],
            _ => &[Stored, Gathered],
        };
        Serves { product, loads, finish }
    }
}

/// Tokens that `decode` serves.
pub(super) const DECODE_TOKENS: usize = 16;

type Range = RangeInclusive<usize>;
const TOKENS: Range = 1..=ANY;
const FEW: Range = 1..=DECODE_TOKENS;
const PLAIN: Range = 0..=0;
const RANKS: Range = 1..=ANY;
const ALL: Range = 0..=ANY;

pub(crate) const PRESETS: &[Preset<CpuKernel>] = &[
    Preset::new(Strategy::Leader, "panel", CpuKernel::Linear(PANEL), TOKENS, RANKS),
    Preset::new(Strategy::Leader, "decode", CpuKernel::Decode, FEW, RANKS),
    Preset::new(Strategy::Recompute, "band", CpuKernel::Linear(BAND), TOKENS, RANKS),
    Preset::new(Strategy::Direct, "panel", CpuKernel::Linear(PANEL), TOKENS, PLAIN),
    Preset::new(Strategy::Direct, "decode", CpuKernel::Decode, FEW, PLAIN),
    Preset::new(Strategy::Direct, "band", CpuKernel::Linear(BAND), TOKENS, PLAIN),
    Preset::new(Strategy::Direct, "gradient", GRADIENT, ALL, RANKS),
    Preset::new(Strategy::TwoPass, "transposed", TRANSPOSED, TOKENS, RANKS),
    Preset::new(Strategy::Direct, "transposed", TRANSPOSED, TOKENS, PLAIN),
    Preset::new(
        Strategy::Direct,
        "shrink",
        CpuKernel::Shrink { rows: 128, depth: 256 },
        TOKENS,
        RANKS,
    ),
    Preset::new(Strategy::Direct, "merge", MERGE_KERNEL, ALL, RANKS),
    Preset::new(Strategy::Merged, "panel", CpuKernel::Merged(PANEL), TOKENS, ALL),
    Preset::new(Strategy::Direct, "contract", CpuKernel::Contract, ALL, ALL),
    Preset::new(Strategy::Direct, "kronecker", KRONECKER, ALL, PLAIN),
    Preset::new(Strategy::Direct, "norm", CpuKernel::Norm { rows: 64, columns: 256 }, ALL, ALL),
    Preset::new(
        Strategy::Direct,
        "backward_gain",
        CpuKernel::BackwardGain { tokens: 64, columns: 256 },
        ALL,
        ALL,
    ),
];

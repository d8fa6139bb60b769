//! What may run on a device of wgpu: rows of strategy, preset, and what the preset serves, each with
//! its kernel and that kernel's numbers. Data only.

use core::ops::RangeInclusive;

use super::decode::Sums;
use super::lanes::Shared;
use super::linear::Tile;
use super::machine::Sums::{EightByEight, EightByFour, FourByFour};
use super::{gradient, merge, subgroup};
use crate::plan::{ANY, Kernel, Preset, Serves, Strategy};
use crate::product::{FinishStep, Kind, LoadKind};

/// A kernel with the numbers that it is cut by; what runs before the layer follows from it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum WgpuKernel {
    Linear(Tile),
    /// Its matrices are the device's.
    Cooperative,
    Bordered(Tile),
    /// The gradient of a convolution's input.
    Transposed(Tile),
    Decode(Sums),
    Subgroup(subgroup::Most),
    /// Its one tile is its own.
    Shrink,
    Gradient(gradient::Most),
    Merge(merge::Tile),
    /// The merge into the workspace, and `linear` without an adapter on what it has made.
    Merged(Tile),
    /// Sums over an adapter's factors.
    Contract,
    /// dw1 and dw2 of a LoKr with a whole w2.
    Kronecker,
    /// A magnitude over the norms of w's rows.
    Norm,
    /// dy times the gain, and the magnitude's gradient.
    BackwardGain,
}

impl Kernel for WgpuKernel {
    fn serves(&self) -> Serves {
        use FinishStep::{Beta, Bias, Factor, Gain};
        let (product, finish): (_, &[FinishStep]) = match self {
            WgpuKernel::Linear(_) | WgpuKernel::Merged(_) | WgpuKernel::Bordered(_) => {
                (Kind::Layer, &[Gain, Bias, Beta])
            }
            WgpuKernel::Cooperative => (Kind::Layer, &[Gain, Bias, Beta]),
            WgpuKernel::Decode(_) | WgpuKernel::Subgroup(_) => (Kind::Layer, &[Gain, Bias, Beta]),
            WgpuKernel::Transposed(_) => (Kind::Transposed, &[Beta]),
            WgpuKernel::Shrink => (Kind::Shrink, &[]),
            WgpuKernel::Gradient(_) => (Kind::Gradients, &[Beta]),
            WgpuKernel::Merge(_) => (Kind::Merge, &[Factor, Beta]),
            WgpuKernel::Contract => (Kind::Factors, &[Factor, Beta]),
            WgpuKernel::Kronecker => (Kind::Kronecker, &[]),
            WgpuKernel::Norm => (Kind::Norm, &[]),
            WgpuKernel::BackwardGain => (Kind::GainGradient, &[]),
        };
        let loads: &[LoadKind] = match self {
            WgpuKernel::Linear(_)
            | WgpuKernel::Decode(_)
            | WgpuKernel::Merged(_)
            | WgpuKernel::Transposed(_) => {
                &[LoadKind::Stored, LoadKind::Gathered, LoadKind::Summed]
            }
            WgpuKernel::Subgroup(_) | WgpuKernel::Norm => &[LoadKind::Stored, LoadKind::Summed],
            WgpuKernel::Bordered(_) => &[LoadKind::Stored],
            _ => &[LoadKind::Stored, LoadKind::Gathered],
        };
        Serves { product, loads, finish }
    }
}

type Range = RangeInclusive<usize>;
const TOKENS: Range = 1..=ANY;
const SEVERAL: Range = 2..=ANY;
const NONE: Range = 0..=0;
const RANKS: Range = 1..=ANY;
const ALL: Range = 0..=ANY;
/// As many as have room in 16 KiB of workgroup memory beside the rest.
const WIDE_RANKS: Range = 1..=32;
const SMALL_RANKS: Range = 1..=64;

/// 16 × 16 threads.
const WIDE: Tile = Tile { tokens: 64, columns: 64, sums: FourByFour };
/// 8 × 8 threads.
const SMALL: Tile = Tile { tokens: 32, columns: 32, sums: FourByFour };
/// 8 along the tokens × 16.
const TALL: Tile = Tile { tokens: 64, columns: 64, sums: EightByFour };
/// 8 × 8 threads.
const LARGE: Tile = Tile { tokens: 64, columns: 64, sums: EightByEight };

const SHARED: Sums = Sums::Shared {
    most: Shared { tokens: 16, columns: 32, threads: 256 },
    k_major: Shared { tokens: 16, columns: 16, threads: 256 },
};
const APART: Sums = Sums::Apart { tokens: 16, columns: 256 };
// With 32 tokens Mesa keeps sums in memory where the host asks for bounds to be checked, as burn does.
const SUBGROUP: subgroup::Most = subgroup::Most { tokens: 24, columns: 256 };
const GRADIENTS: gradient::Most = gradient::Most { ranks: 8, columns: 128, shuffles: false };
const SHUFFLED: gradient::Most = gradient::Most { ranks: 16, columns: 128, shuffles: true };
pub(super) const MERGED: merge::Tile = merge::Tile { rows: 4, columns: 256 };

pub(crate) const PRESETS: &[Preset<WgpuKernel>] = &[
    // For GPUs; untimed.
    Preset::new(Strategy::Recompute, "wide", WgpuKernel::Bordered(WIDE), TOKENS, WIDE_RANKS),
    Preset::new(Strategy::Recompute, "small", WgpuKernel::Bordered(SMALL), TOKENS, SMALL_RANKS),
    Preset::new(Strategy::TwoPass, "large", WgpuKernel::Linear(LARGE), TOKENS, RANKS),
    Preset::new(Strategy::TwoPass, "tall", WgpuKernel::Linear(TALL), TOKENS, RANKS),
    Preset::new(Strategy::TwoPass, "wide", WgpuKernel::Linear(WIDE), TOKENS, RANKS),
    Preset::new(Strategy::TwoPass, "small", WgpuKernel::Linear(SMALL), TOKENS, RANKS),
    Preset::new(Strategy::TwoPass, "decode", WgpuKernel::Decode(SHARED), TOKENS, RANKS),
    Preset::new(Strategy::TwoPass, "cooperative", WgpuKernel::Cooperative, TOKENS, RANKS),
    Preset::new(Strategy::Direct, "cooperative", WgpuKernel::Cooperative, TOKENS, NONE),
    Preset::new(Strategy::Direct, "large", WgpuKernel::Linear(LARGE), TOKENS, NONE),
    Preset::new(Strategy::Direct, "tall", WgpuKernel::Linear(TALL), TOKENS, NONE),
    Preset::new(Strategy::Direct, "wide", WgpuKernel::Linear(WIDE), TOKENS, NONE),
    Preset::new(Strategy::Direct, "small", WgpuKernel::Linear(SMALL), TOKENS, NONE),
    Preset::new(Strategy::Direct, "decode", WgpuKernel::Decode(SHARED), TOKENS, NONE),
    // For software drivers, where barriers cost more than loads, and loads more than shuffles.
    Preset::new(Strategy::TwoPass, "registers", WgpuKernel::Decode(APART), TOKENS, RANKS),
    Preset::new(Strategy::Direct, "registers", WgpuKernel::Decode(APART), TOKENS, NONE),
    Preset::new(Strategy::TwoPass, "subgroup", WgpuKernel::Subgroup(SUBGROUP), SEVERAL, RANKS),
    Preset::new(Strategy::Direct, "subgroup", WgpuKernel::Subgroup(SUBGROUP), SEVERAL, NONE),
    Preset::new(Strategy::TwoPass, "transposed", WgpuKernel::Transposed(SMALL), TOKENS, RANKS),
    Preset::new(Strategy::Direct, "transposed", WgpuKernel::Transposed(SMALL), TOKENS, NONE),
    Preset::new(Strategy::Direct, "shrink", WgpuKernel::Shrink, ALL, ALL),
    Preset::new(Strategy::Direct, "gradient", WgpuKernel::Gradient(GRADIENTS), ALL, ALL),
    Preset::new(Strategy::Direct, "shuffled", WgpuKernel::Gradient(SHUFFLED), TOKENS, RANKS),
    Preset::new(Strategy::Direct, "merge", WgpuKernel::Merge(MERGED), ALL, ALL),
    Preset::new(Strategy::Merged, "wide", WgpuKernel::Merged(WIDE), TOKENS, ALL),
    Preset::new(Strategy::Merged, "small", WgpuKernel::Merged(SMALL), TOKENS, ALL),
    Preset::new(Strategy::Direct, "contract", WgpuKernel::Contract, ALL, ALL),
    Preset::new(Strategy::Direct, "kronecker", WgpuKernel::Kronecker, ALL, NONE),
    Preset::new(Strategy::Direct, "norm", WgpuKernel::Norm, ALL, ALL),
    Preset::new(Strategy::Direct, "backward_gain", WgpuKernel::BackwardGain, ALL, ALL),
];

//! Plans for wgpu: the presets, and for each the launches with their WGSL texts. `linear`,
//! `gradient` and `merge` lay their kernels out, `limits` cuts what is larger than a binding,
//! `text` assembles, and `cost` holds the model that picks.

mod cost;
mod gradient;
mod limits;
mod linear;
mod merge;
mod text;

use core::ops::RangeInclusive;

use self::cost::Cost;
use super::{ANY, AdapterKind, Build, Kernel, Launch, Refusal, Serves, Strategy, WgpuCapabilities};
use crate::Problem;
use crate::product::{FinishStep, Kind, LoadKind, Product};

/// A kernel of `shaders/`, and its tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WgpuKernel {
    name: &'static str,
    product: Kind,
    tile: [usize; 3],
}

type Preset = super::Preset<WgpuKernel>;

impl Kernel for WgpuKernel {
    fn serves(&self) -> Serves {
        use FinishStep::{Beta, Bias, Factor};
        let finish: &[FinishStep] = match self.product {
            Kind::Layer => &[Bias, Beta],
            Kind::Shrink => &[],
            Kind::Gradients => &[Beta],
            Kind::Merge => &[Factor, Beta],
        };
        Serves { product: self.product, loads: &[LoadKind::Stored], finish }
    }
}

const fn preset(
    strategy: Strategy,
    name: &'static str,
    kernel: &'static str,
    product: Kind,
    tokens: Range,
    ranks: Range,
    tile: [usize; 3],
) -> Preset {
    Preset::new(strategy, name, WgpuKernel { name: kernel, product, tile }, tokens, ranks)
}

const LINEAR: Kind = Kind::Layer;
const SHRINK: Kind = Kind::Shrink;
const GRADIENT: Kind = Kind::Gradients;
const MERGE: Kind = Kind::Merge;

type Range = RangeInclusive<usize>;
const TOKENS: Range = 1..=ANY;
const SEVERAL: Range = 2..=ANY;
const NONE: Range = 0..=0;
const RANKS: Range = 1..=ANY;
const ALL: Range = 0..=ANY;

const SMALL_RANKS: Range = 1..=64;

/// Tiles: of `linear` and `bordered` tokens, columns and steps of a workgroup; of the others
/// tokens (ranks, rows) of a thread, columns of a workgroup, and its threads, where several
/// share a sum.
pub(crate) const PRESETS: &[Preset] = &[
    // For GPUs; untimed. 4 × 4 in registers, 8 × 8 or 16 × 16 threads.
    preset(Strategy::Recompute, "wide", "bordered", LINEAR, TOKENS, SMALL_RANKS, [64, 64, 16]),
    preset(Strategy::TwoPass, "wide", "linear", LINEAR, TOKENS, RANKS, [64, 64, 16]),
    preset(Strategy::TwoPass, "small", "linear", LINEAR, TOKENS, RANKS, [32, 32, 16]),
    preset(Strategy::TwoPass, "decode", "decode", LINEAR, TOKENS, RANKS, [16, 64, 256]),
    preset(Strategy::Direct, "wide", "linear", LINEAR, TOKENS, NONE, [64, 64, 16]),
    preset(Strategy::Direct, "small", "linear", LINEAR, TOKENS, NONE, [32, 32, 16]),
    preset(Strategy::Direct, "decode", "decode", LINEAR, TOKENS, NONE, [16, 64, 256]),
    // For software drivers, where barriers cost more than loads, and loads more than shuffles.
    preset(Strategy::TwoPass, "registers", "decode", LINEAR, TOKENS, RANKS, [16, 256, 1]),
    preset(Strategy::Direct, "registers", "decode", LINEAR, ALL, NONE, [16, 256, 1]),
    preset(Strategy::TwoPass, "subgroup", "subgroup", LINEAR, SEVERAL, RANKS, [16, 256, 1]),
    preset(Strategy::Direct, "subgroup", "subgroup", LINEAR, SEVERAL, NONE, [16, 256, 1]),
    preset(Strategy::Direct, "shrink", "shrink", SHRINK, ALL, ALL, [8, 32, 128]),
    preset(Strategy::Direct, "gradient", "gradient", GRADIENT, ALL, ALL, [8, 128, 1]),
    preset(Strategy::Direct, "merge", "merge", MERGE, ALL, ALL, [4, 256, 1]),
];

/// Launches, and what they cost together.
struct Work {
    launches: Vec<Launch>,
    /// Bytes of workspace.
    scratch: usize,
    cost: Cost,
}

pub(crate) fn draft(
    preset: &Preset,
    problem: &Problem,
    _product: &Product,
    wgpu: &WgpuCapabilities,
) -> Result<Build, Refusal> {
    // No device is like this, but capabilities can be made by hand.
    let grants = [
        ("workgroups along one dimension", wgpu.workgroups),
        ("bytes of alignment of a binding", wgpu.binding_align),
    ];
    if let Some((what, _)) = grants.into_iter().find(|(_, grants)| *grants == 0) {
        return Err(Refusal::Reason(format!("the device grants 0 {what}")));
    }
    let work = match preset.kernel.product {
        Kind::Gradients => gradient::work(preset, problem, wgpu)?,
        Kind::Merge => merge::work(preset, problem, wgpu)?,
        Kind::Layer | Kind::Shrink => linear::work(preset, problem, wgpu)?,
    };
    for launch in &work.launches {
        limits::check(launch, wgpu)?;
    }
    Ok(Build {
        micros: work.cost.micros(wgpu.adapter),
        flops: work.cost.flops,
        bytes: work.cost.bytes,
        workspace_len: work.scratch,
        launches: work.launches,
        schedule: None,
    })
}

//! Plans for the CPU: the presets, and the schedule that `cpu` follows; `tiles` cuts the
//! problem and holds the model that picks.
//! Tiles depend on the problem and the number of workers the plan was made for, never on
//! the number of threads that happen to run it, so the bits of a result belong to the plan.

mod tiles;

use core::ops::RangeInclusive;

use self::tiles::{Tiles, tiles};
use super::strategy::preset;
use super::{Binding, CpuCapabilities, Draft, Launch, Preset, Strategy};
use crate::{Operand, Operation, Problem, Spec};

const LINEAR: &[Operation] = &[Operation::Forward, Operation::BackwardInput];
const SHRINK: &[Operation] = &[Operation::BackwardShrink];
const GRADIENT: &[Operation] = &[Operation::BackwardAdapter];
const MERGE: &[Operation] = &[Operation::Merge, Operation::Unmerge];
const ANY: usize = usize::MAX;
/// Most tokens of a band, and columns of the output that a worker finishes while they are in
/// its cache: 512 × 512 sums in f32 are half of a large L2. Half as many columns where 16-bit
/// operands are widened beside them.
const BAND: usize = 512;
const BLOCK: usize = 512;
/// Steps of the sum between two widenings of 16-bit operands; the depth `gemm` packs, too.
const DEPTH: usize = 256;
/// Tokens that `decode` serves.
const DECODE: usize = 16;
/// Stored rows of w that `decode` takes at a time, where the sum runs along them and where
/// it runs across.
pub(crate) const ROWS: usize = 8;
pub(crate) const COLUMNS: usize = 16;

/// f32 elements of a cache line, which no two workers should write into.
pub(crate) const LINE: usize = 16;

type Range = RangeInclusive<usize>;
const TOKENS: Range = 1..=ANY;
const FEW: Range = 1..=DECODE;
const NONE: Range = 0..=0;
const RANKS: Range = 1..=ANY;

pub(crate) const PRESETS: &[Preset] = &[
    preset(Strategy::Leader, "panel", "linear", LINEAR, TOKENS, RANKS, [BAND, BLOCK, DEPTH]),
    preset(Strategy::Leader, "decode", "decode", LINEAR, FEW, RANKS, [DECODE, BLOCK, ANY]),
    preset(Strategy::Recompute, "band", "linear", LINEAR, TOKENS, RANKS, [BAND, BLOCK, DEPTH]),
    preset(Strategy::Direct, "panel", "linear", LINEAR, 0..=ANY, NONE, [BAND, BLOCK, DEPTH]),
    preset(Strategy::Direct, "decode", "decode", LINEAR, FEW, NONE, [DECODE, BLOCK, ANY]),
    preset(Strategy::Direct, "band", "linear", LINEAR, TOKENS, NONE, [BAND, BLOCK, DEPTH]),
    preset(
        Strategy::Direct,
        "gradient",
        "gradient",
        GRADIENT,
        0..=ANY,
        0..=ANY,
        [BAND, BLOCK / 2, ANY],
    ),
    preset(Strategy::Direct, "shrink", "shrink", SHRINK, 0..=ANY, 0..=ANY, [128, 0, DEPTH]),
    preset(Strategy::Direct, "merge", "merge", MERGE, 0..=ANY, 0..=ANY, [64, BLOCK / 2, ANY]),
    // Nothing to do, but legal: no tokens beside an adapter.
    preset(Strategy::Direct, "empty", "linear", LINEAR, NONE, RANKS, [BAND, BLOCK, DEPTH]),
];

/// What `cpu` follows. Lengths of scratch are in f32 elements.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Schedule {
    /// Workers the scratch is laid out for.
    pub(crate) workers: usize,
    /// Tickets that the workers draw, in order.
    pub(crate) tickets: usize,
    /// Scratch that all workers share.
    pub(crate) shared: usize,
    /// Scratch of each worker.
    pub(crate) scratch: usize,
    pub(crate) kernel: Kernel,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kernel {
    Nothing,
    Linear(Linear),
    Decode(Decode),
    Gradient(Gradient),
    Merge(Merge),
}

/// Tiles of `linear`: a band of tokens is cut into tickets of `cols` columns, and each of
/// those into blocks that stay in the worker's cache until they are finished.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Linear {
    /// Tokens of a band.
    pub(crate) band: usize,
    /// Bands.
    pub(crate) bands: usize,
    /// Tokens of a leader's ticket.
    pub(crate) lead: usize,
    /// Leaders' tickets of a band; 0: every ticket computes the `shrunk` that it needs.
    pub(crate) leaders: usize,
    /// Columns of a ticket.
    pub(crate) cols: usize,
    /// Tickets of a band beside the leaders'.
    pub(crate) wide: usize,
    /// Columns of a block.
    pub(crate) block: usize,
    /// Steps of the sum between two widenings.
    pub(crate) depth: usize,
    /// Whether the output itself holds the sums, else a worker's scratch.
    pub(crate) in_place: bool,
}

/// Tiles of `decode`: leaders share the rank, the next ones, if any, the stored rows of w, the
/// others the columns.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Decode {
    /// Ranks of a leader's ticket.
    pub(crate) lead: usize,
    /// Leaders' tickets.
    pub(crate) leaders: usize,
    /// Stored rows of w in a ticket that forms a part of every sum.
    pub(crate) split: usize,
    /// Tickets of such; 0: no sum is split.
    pub(crate) splits: usize,
    /// Columns of a ticket.
    pub(crate) cols: usize,
}

/// Tiles of `gradient`: columns of `da` first, then rows of `db`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Gradient {
    /// Columns of `da` in a ticket.
    pub(crate) cols: usize,
    /// Tickets that `da` takes.
    pub(crate) tickets_a: usize,
    /// Tokens that are summed at a time.
    pub(crate) band: usize,
}

/// Tiles of `merge`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Merge {
    /// Rows of w in a ticket.
    pub(crate) rows: usize,
    /// Columns of a block.
    pub(crate) block: usize,
}

/// Columns and depth of the product that an operation is: what it makes, what it sums over.
pub(crate) fn wide_and_deep(problem: &Problem) -> (usize, usize) {
    match problem.operation() {
        Operation::BackwardInput => (problem.in_features(), problem.out_features()),
        Operation::BackwardShrink => (0, problem.out_features()),
        _ => (problem.out_features(), problem.in_features()),
    }
}

pub(crate) fn draft(preset: &Preset, problem: &Problem, cpu: &CpuCapabilities) -> Draft {
    let Tiles { kernel, workers, tickets, shared, scratch, reads_of_w, micros } =
        tiles(preset, problem, cpu.workers.clamp(1, 1 << 16));
    let nothing = kernel == Kernel::Nothing;
    let (shared, scratch) = (shared.next_multiple_of(LINE), scratch.next_multiple_of(LINE));
    let bind = |(operand, spec): (Operand, Spec)| Binding {
        operand: Some(operand),
        access: spec.access,
        rows: None,
        at: None,
    };
    let launch = (!nothing).then(|| Launch {
        kernel: preset.kernel,
        source: None,
        grid: [u32::try_from(tickets).unwrap_or(u32::MAX), 1, 1],
        block: [1, 1, 1],
        shared_bytes: 0,
        bindings: problem.specs().map(bind).collect(),
        params: Vec::new(),
    });
    let w = problem.spec(Operand::W).map_or(0, |spec| spec.bytes());
    let w_again = w.saturating_mul(reads_of_w.saturating_sub(1) as u64);
    Draft {
        launches: launch.into_iter().collect(),
        // Saturated where nobody has so much memory: the workspace is then refused.
        workspace_len: workers
            .saturating_mul(scratch)
            .saturating_add(shared)
            .saturating_mul(size_of::<f32>()),
        flops: if nothing { 0 } else { problem.flops() },
        bytes: if nothing { 0 } else { problem.bytes().saturating_add(w_again) },
        micros,
        schedule: super::Schedule::Cpu(Schedule { workers, tickets, shared, scratch, kernel }),
    }
}

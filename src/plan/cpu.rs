//! Plans for the CPU: presets, the schedule that `cpu` follows, and the model that picks.
//! Tiles depend on the problem and the number of workers the plan was made for, never on
//! the number of threads that happen to run it, so the bits of a result belong to the plan.

use core::ops::RangeInclusive;

use super::{Binding, CpuCapabilities, Draft, Launch, Preset, Strategy};
use crate::{DType, Major, Operand, Operation, Problem};

const LINEAR: &[Operation] = &[Operation::Forward, Operation::BackwardInput];
const SHRINK: &[Operation] = &[Operation::BackwardShrink];
const GRADIENT: &[Operation] = &[Operation::BackwardAdapter];
const MERGE: &[Operation] = &[Operation::Merge, Operation::Unmerge];
const ANY: usize = usize::MAX;
/// Most tokens of a band: its rows of an f32 output block (512 × 256) fill half of L2.
const BAND: usize = 512;
/// Columns of the output that a worker finishes while they are in its cache.
const BLOCK: usize = 256;
/// Steps of the sum between two widenings of 16-bit operands; the depth `gemm` packs, too.
const DEPTH: usize = 256;
/// Tokens that `decode` serves.
const DECODE: usize = 16;
/// Stored rows of w that `decode` takes at a time, where the sum runs along them and where
/// it runs across.
pub(crate) const ROWS: usize = 8;
pub(crate) const COLUMNS: usize = 16;

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
        [BAND, BLOCK, ANY],
    ),
    preset(Strategy::Direct, "shrink", "shrink", SHRINK, 0..=ANY, 0..=ANY, [128, 0, DEPTH]),
    preset(Strategy::Direct, "merge", "merge", MERGE, 0..=ANY, 0..=ANY, [64, BLOCK, ANY]),
    // Nothing to do, but legal: no tokens beside an adapter.
    preset(Strategy::Direct, "empty", "linear", LINEAR, NONE, RANKS, [BAND, BLOCK, DEPTH]),
];

const fn preset(
    strategy: Strategy,
    name: &'static str,
    kernel: &'static str,
    operations: &'static [Operation],
    tokens: Range,
    ranks: Range,
    tile: [usize; 3],
) -> Preset {
    Preset { strategy, name, kernel, operations, activations: &DType::ALL, tokens, ranks, tile }
}

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
}

/// Tiles of `decode`: leaders share the rank, the others the columns.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Decode {
    /// Ranks of a leader's ticket.
    pub(crate) lead: usize,
    /// Leaders' tickets.
    pub(crate) leaders: usize,
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
    /// Tokens between two widenings.
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

// The model: what one worker does in a microsecond. Measured on one core of a 2023 server
// CPU; only the ratios matter, they order the candidates.
/// Operations of `gemm` on packed panels.
const FLOPS: f64 = 80e3;
/// Operations of `decode`, which packs nothing: dot products, or scaled sums.
const DOTS: f64 = 30e3;
const SCALED_SUMS: f64 = 20e3;
/// Elements of w that `gemm` packs: across their storage, or along it.
const PACKED_ACROSS: f64 = 1e3;
const PACKED_ALONG: f64 = 4e3;
/// Elements widened.
const WIDENED: f64 = 3e3;
/// Bytes streamed from memory, or from the last cache where `CACHE` bytes stay there.
const BYTES: f64 = 20e3;
const CACHED: f64 = 40e3;
const CACHE: f64 = (16 << 20) as f64;
/// Microseconds to wake the other workers and to wait for the last.
const FORK: f64 = 25.0;

/// Columns and depth of the product that an operation is: what it makes, what it sums over.
pub(crate) fn wide_and_deep(problem: &Problem) -> (usize, usize) {
    match problem.operation() {
        Operation::BackwardInput => (problem.in_features(), problem.out_features()),
        Operation::BackwardShrink => (0, problem.out_features()),
        _ => (problem.out_features(), problem.in_features()),
    }
}

/// `total` cut into pieces of at most `most`, their number a multiple of `workers` and their
/// size one of `unit`, as even as that allows. Returns the size and the number of pieces.
fn cut(total: usize, most: usize, workers: usize, unit: usize) -> (usize, usize) {
    let pieces = total.div_ceil(most).next_multiple_of(workers);
    let size = total.div_ceil(pieces).next_multiple_of(unit).clamp(unit, most.max(unit));
    (size, total.div_ceil(size))
}

/// How much longer the last worker works than a fair share: whole tickets only.
fn imbalance(tickets: usize, workers: usize) -> f64 {
    (tickets.div_ceil(workers) * workers) as f64 / tickets.max(1) as f64
}

pub(crate) fn draft(preset: &Preset, problem: &Problem, cpu: &CpuCapabilities) -> Draft {
    let nothing = match problem.operation() {
        Operation::Forward | Operation::BackwardInput => problem.tokens() == 0,
        Operation::BackwardShrink => problem.tokens() == 0 || problem.rank() == 0,
        _ => problem.rank() == 0,
    };
    // A problem too small to be worth a second thread runs where it was called. Its bytes
    // count as if they came from memory: the weights of other layers were in the cache last.
    let alone = (problem.flops() as f64 / FLOPS).max(problem.bytes() as f64 / BYTES);
    let small = alone < 4.0 * FORK;
    let mut workers = if small || nothing { 1 } else { cpu.workers.clamp(1, 1 << 16) };
    let ([most_tokens, most_cols, depth], (wide, deep)) = (preset.tile, wide_and_deep(problem));
    let [tokens, rank] = [problem.tokens(), problem.rank()];
    let narrow = |dtype: DType, len: usize| if dtype == DType::F32 { 0 } else { len };
    let activation = |len| narrow(problem.activation(), len);
    let adapter = |len| narrow(problem.adapter(), len);
    let part = problem.shrunk_part();
    let (flops, share) = (problem.flops() as f64, workers as f64);
    // Whether the sum runs along stored rows of w.
    let by_rows = problem
        .spec(Operand::W)
        .is_some_and(|w| (w.major == Major::Row) == (problem.operation() == Operation::Forward));
    let w_bytes = (wide * deep * problem.activation().size()) as f64;
    let streamed = w_bytes / if w_bytes > CACHE { BYTES } else { CACHED };
    let widened = |len| activation(len) as f64 / WIDENED;

    let (kernel, tickets, shared, scratch, reads_of_w, micros) = if nothing {
        (Kernel::Nothing, 0, 0, 0, 1, 0.0)
    } else if preset.kernel == "decode" {
        // A ticket of contiguous rows of w is a stretch of memory whatever its size; one of
        // columns should be as wide as its tile may be in L2, to cross few pages.
        let narrow = 1;
        let (most, share_of_w) = match by_rows {
            true => (wide.div_ceil(4 * workers), workers),
            false => ((1 << 15) / tokens, workers.min((wide * tokens * narrow / 1024).max(1))),
        };
        let (cols, wide_tickets) = cut(wide, most.max(64), share_of_w, 8);
        workers = workers.min(wide_tickets);
        let (lead, leaders) = if rank == 0 { (1, 0) } else { cut(rank, rank, workers, 4) };
        let scratch = activation(tokens * deep + (ROWS * deep).max(COLUMNS * cols))
            + adapter((ROWS * deep).max(COLUMNS * lead) + cols * rank)
            + tokens * cols.max(lead);
        let rate = if by_rows { DOTS } else { SCALED_SUMS };
        let micros = (streamed + widened(wide * deep)).max(flops / rate) / share
            * imbalance(wide_tickets, workers);
        let kernel = Kernel::Decode(Decode { lead, leaders, cols });
        (kernel, leaders + wide_tickets, tokens * part + leaders.min(1), scratch, 1, micros)
    } else if preset.kernel == "linear" {
        let by_band = preset.name == "band";
        let (band, bands) = cut(tokens, most_tokens, if by_band { workers } else { 1 }, 8);
        let (cols, wide_tickets) =
            if by_band { (wide, 1) } else { cut(wide, most_cols, workers, 16) };
        let (block, _) = cut(cols, most_cols, 1, 16);
        let (lead, leaders) =
            if by_band || rank == 0 { (band, 0) } else { cut(band, 128, workers, 8) };
        let depth = depth.min(deep);
        let in_place = problem.activation() == DType::F32 && problem.beta() == 0.0;
        let scratch = activation(band * depth + block * depth)
            + if in_place { 0 } else { band * block }
            + adapter(rank * depth + block * rank)
            + if by_band { band * part } else { 0 };
        let shared = if leaders > 0 { tokens * part + bands } else { 0 };
        let (x_again, w_again) = (tokens * deep * wide.div_ceil(block), wide * deep * bands);
        let packed = x_again as f64 / PACKED_ALONG
            + w_again as f64 / if by_rows { PACKED_ACROSS } else { PACKED_ALONG };
        let micros =
            (flops / FLOPS + packed + widened(x_again + w_again) + streamed * bands as f64) / share
                * imbalance(bands * wide_tickets, workers);
        let kernel = Linear { band, bands, lead, leaders, cols, wide: wide_tickets, block, depth };
        let tickets = bands * (leaders + wide_tickets);
        (Kernel::Linear(kernel), tickets, shared, scratch, bands, micros)
    } else if preset.kernel == "shrink" {
        let (band, bands) = cut(tokens, most_tokens, workers, 8);
        let depth = depth.min(deep);
        let scratch = activation(band * depth) + adapter(rank * depth) + band * part;
        let micros = (flops / FLOPS + widened(tokens * deep)) / share;
        let (lead, leaders, cols, wide, block) = (band, 0, 0, 1, 0);
        let kernel = Linear { band, bands, lead, leaders, cols, wide, block, depth };
        (Kernel::Linear(kernel), bands, 0, scratch, 1, micros)
    } else if preset.kernel == "gradient" {
        let most = most_cols;
        let asked = |operand| problem.spec(operand).is_some();
        let (da, db) = (asked(Operand::Da), asked(Operand::Db));
        let (k, n) = (problem.in_features(), problem.out_features());
        let total = if da { k } else { 0 } + if db { n } else { 0 };
        let (cols, _) = cut(total, most, workers, 16);
        let tickets_a = if da { k.div_ceil(cols) } else { 0 };
        let tickets = tickets_a + if db { n.div_ceil(cols) } else { 0 };
        let band = most_tokens.min(tokens.max(1));
        let scratch = rank * cols + activation(band * cols + band * rank);
        let micros = (flops / FLOPS + widened(tokens * total)) / share;
        (Kernel::Gradient(Gradient { cols, tickets_a, band }), tickets, 0, scratch, 1, micros)
    } else {
        let (rows, tickets) = cut(problem.out_features(), most_tokens, workers, 8);
        let block = most_cols.min(problem.in_features());
        let scratch = rows * block + adapter(rank * block + rows * rank);
        let micros = flops / FLOPS / share;
        (Kernel::Merge(Merge { rows, block }), tickets, 0, scratch, 1, micros)
    };

    // A cache line each, so that no two workers write into one.
    let (shared, scratch) = (shared.next_multiple_of(16), scratch.next_multiple_of(16));
    let launches = (!nothing).then(|| Launch {
        kernel: preset.kernel,
        source: None,
        grid: [u32::try_from(tickets).unwrap_or(u32::MAX), 1, 1],
        block: [1, 1, 1],
        shared_bytes: 0,
        bindings: problem
            .specs()
            .map(|(operand, spec)| Binding {
                operand: Some(operand),
                access: spec.access,
                at: None,
            })
            .collect(),
        params: Vec::new(),
    });
    let w = problem.spec(Operand::W).map_or(0, |spec| spec.bytes());
    let w_again = w.saturating_mul(reads_of_w.saturating_sub(1) as u64);
    Draft {
        launches: launches.into_iter().collect(),
        // Saturated where nobody has so much memory: the workspace is then refused.
        workspace_len: workers
            .saturating_mul(scratch)
            .saturating_add(shared)
            .saturating_mul(size_of::<f32>()),
        flops: if nothing { 0 } else { problem.flops() },
        bytes: if nothing { 0 } else { problem.bytes().saturating_add(w_again) },
        micros: micros + if workers > 1 { FORK } else { 0.0 },
        schedule: super::Schedule::Cpu(Schedule { workers, tickets, shared, scratch, kernel }),
    }
}

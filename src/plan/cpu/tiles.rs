//! Cuts a problem into tickets and blocks, one function a kernel, and says what that costs
//! by a model. Called by `draft` for every preset that serves the problem.

use super::{COLUMNS, DECODE, Decode, Gradient, Kernel, LINE, Linear, Merge, ROWS, wide_and_deep};
use crate::plan::Preset;
use crate::{DType, Major, Operand, Operation, Problem, Spec};

// The model: what one worker does in a microsecond. Measured on one core of a 2023 server
// CPU; only the ratios matter, they order the candidates.
/// Operations of `gemm` on packed panels.
const FLOPS: f64 = 80e3;
/// Operations of `decode`, which packs nothing: dot products, or scaled sums.
const DOTS: f64 = 30e3;
const SCALED_SUMS: f64 = 24e3;
/// Elements of w that `gemm` packs: across their storage or from memory, and along their
/// storage from a cache.
const PACKED: f64 = 1e3;
const PACKED_ALONG: f64 = 4e3;
/// Elements widened.
const WIDENED: f64 = 3e3;
/// Bytes streamed from memory, or from the last cache where `CACHE` bytes stay there.
const BYTES: f64 = 20e3;
const CACHED: f64 = 40e3;
const CACHE: f64 = (8 << 20) as f64;
/// Columns that `gemm` multiplies at a time, three vectors of 8.
const PANEL: usize = 24;
/// Rows so many bytes apart, or a multiple of that, share a few sets of a cache.
const PAGE: usize = 4096;
/// Ranks from which on the border costs more in such rows than a copy of the tile.
const BORDER: usize = 16;
/// Microseconds to wake the other workers and to wait for the last.
const FORK: f64 = 25.0;

/// A kernel's tiles and what they cost. Lengths of scratch are in f32 elements.
pub(super) struct Tiles {
    pub(super) kernel: Kernel,
    pub(super) workers: usize,
    pub(super) tickets: usize,
    /// Scratch that all workers share.
    pub(super) shared: usize,
    /// Scratch of each worker.
    pub(super) scratch: usize,
    /// How often w is read from memory.
    pub(super) reads_of_w: usize,
    /// By the model.
    pub(super) micros: f64,
}

/// Tiles of the preset's kernel for `problem`, for at most so many workers.
pub(super) fn tiles(preset: &Preset, problem: &Problem, workers: usize) -> Tiles {
    let sizes = Sizes::new(problem);
    let nothing = match problem.operation() {
        Operation::Forward | Operation::BackwardInput => problem.tokens() == 0,
        Operation::BackwardShrink => problem.tokens() == 0 || problem.rank() == 0,
        _ => problem.rank() == 0,
    };
    if nothing {
        let (kernel, workers, tickets) = (Kernel::Nothing, 1, 0);
        return Tiles {
            kernel,
            workers,
            tickets,
            shared: 0,
            scratch: 0,
            reads_of_w: 0,
            micros: 0.0,
        };
    }
    // A problem too small to be worth a second thread runs where it was called. Its bytes
    // count as if they came from memory: the weights of other layers were in the cache last.
    let rate = if problem.tokens() <= DECODE { DOTS } else { FLOPS };
    let alone = (sizes.flops / rate).max(problem.bytes() as f64 / BYTES);
    let workers = if alone < 4.0 * FORK { 1 } else { workers };
    let tiles = match preset.kernel {
        "decode" => decode(&sizes, workers),
        "linear" => linear(&sizes, preset, workers),
        "shrink" => shrink(&sizes, preset, workers),
        "gradient" => gradient(&sizes, preset, workers),
        _ => merge(&sizes, preset, workers),
    };
    let fork = if tiles.workers > 1 { FORK } else { 0.0 };
    Tiles { micros: tiles.micros + fork, ..tiles }
}

/// What the kernels' tiles depend on.
struct Sizes<'a> {
    problem: &'a Problem,
    tokens: usize,
    rank: usize,
    /// Row length of shrunk's f32 copy.
    part: usize,
    /// Columns of the output.
    wide: usize,
    /// Length of the sums.
    deep: usize,
    /// Whether the sums run along stored rows of w.
    by_rows: bool,
    flops: f64,
    /// Whether w may be in the last cache still.
    cached: bool,
    /// Microseconds to read w once, by one worker.
    streamed: f64,
}

impl<'a> Sizes<'a> {
    fn new(problem: &'a Problem) -> Sizes<'a> {
        let (wide, deep) = wide_and_deep(problem);
        let forward = problem.operation() == Operation::Forward;
        let w = problem.spec(Operand::W);
        let w_bytes = w.map_or(0.0, |w| w.bytes() as f64);
        Sizes {
            problem,
            tokens: problem.tokens(),
            rank: problem.rank(),
            part: problem.shrunk_part(),
            wide,
            deep,
            by_rows: w.is_some_and(|w| (w.major == Major::Row) == forward),
            flops: problem.flops() as f64,
            cached: w_bytes <= CACHE,
            streamed: w_bytes / if w_bytes > CACHE { BYTES } else { CACHED },
        }
    }

    /// Room for `len` activations in f32: none where they are f32 already.
    fn activations(&self, len: usize) -> usize {
        if self.problem.activation() == DType::F32 { 0 } else { len }
    }

    /// Room for `len` elements of the adapter, likewise.
    fn adapter(&self, len: usize) -> usize {
        if self.problem.adapter() == DType::F32 { 0 } else { len }
    }

    /// Whether the sums of the output are formed where they belong: not in 16 bits, not onto old
    /// values, and not where a border comes back to rows that have pushed each other out of the
    /// caches meanwhile.
    fn in_place(&self) -> bool {
        let forward = self.problem.operation() == Operation::Forward;
        let y = self.problem.spec(if forward { Operand::Y } else { Operand::Dx });
        let collide = |y: Spec| y.major == Major::Row && (4 * y.stride).is_multiple_of(PAGE);
        let comes_back = self.rank >= BORDER && y.is_some_and(collide);
        self.problem.output() == DType::F32 && self.problem.beta() == 0.0 && !comes_back
    }

    /// Microseconds to widen `len` activations.
    fn widened(&self, len: usize) -> f64 {
        self.activations(len) as f64 / WIDENED
    }
}

/// `total` cut into pieces of at most `most`, their number a multiple of `workers` and their
/// size one of `unit`, as even as that allows. Returns the size and the number of pieces.
fn cut(total: usize, most: usize, workers: usize, unit: usize) -> (usize, usize) {
    let pieces = total.div_ceil(most).next_multiple_of(workers);
    let size = total.div_ceil(pieces).next_multiple_of(unit).clamp(unit, most.max(unit));
    (size, total.div_ceil(size))
}

/// `total` columns cut so that the busiest worker is done first, by the panels that `gemm`
/// multiplies at a time: into pieces of at most `most` columns, and no less than half of that
/// where there are enough for all. Returns the size and the number of pieces.
fn cut_evenly(total: usize, most: usize, workers: usize) -> (usize, usize) {
    // Tenths of a whole panel, by its vectors of 8: a smaller one keeps its sums less busy.
    let cost = |size: usize| 10 * (size / PANEL) + [0, 5, 8][size % PANEL / 8];
    let least = (most / 2).min(total.div_ceil(workers)).next_multiple_of(8);
    let busiest = |size: &usize| total.div_ceil(*size).div_ceil(workers) * cost(*size);
    let sizes = (least..=most.max(least)).rev().filter(|size| size.is_multiple_of(8));
    let size = sizes.min_by_key(busiest).unwrap_or(least);
    (size, total.div_ceil(size))
}

/// How much longer the last worker works than a fair share: whole tickets only.
fn imbalance(tickets: usize, workers: usize) -> f64 {
    (tickets.div_ceil(workers) * workers) as f64 / tickets.max(1) as f64
}

/// Sums of a split product, at most: its tile then fills an eighth of L2.
const SPLIT: usize = 1 << 15;

fn decode(sizes: &Sizes<'_>, workers: usize) -> Tiles {
    let Sizes { tokens, rank, part, wide, deep, by_rows, flops, streamed, .. } = *sizes;
    // A stretch of memory for each ticket is what counts: stored rows of w are one whatever
    // their number. Where the sums run across them, they are split, if the parts of all sums
    // fit a cache; else tickets of stored columns are as wide as their tile may be there.
    let (split, splits) = match !by_rows && workers > 1 && tokens * wide <= SPLIT {
        true => cut(deep, deep.div_ceil(4 * workers).max(32), workers, 4),
        false => (deep, 0),
    };
    let most = match by_rows || splits > 0 {
        true if workers > 1 => wide.div_ceil(4 * workers),
        // A worker alone reads w in one stretch, as far as its tile, and b where it is widened,
        // stay in a cache.
        true => SPLIT / tokens.max(sizes.adapter(rank)),
        false => SPLIT / tokens,
    };
    // Workers that share pages take them from each other.
    let enough = (wide * tokens / 1024).max(1);
    let workers = if by_rows || splits > 0 { workers } else { workers.min(enough) };
    let (cols, wide_tickets) = cut(wide, most.max(64), workers, 8);
    let workers = workers.min(wide_tickets.max(splits));
    let (lead, leaders) = if rank == 0 { (1, 0) } else { cut(rank, rank, workers, 4) };
    let rate = if by_rows { DOTS } else { SCALED_SUMS };
    Tiles {
        kernel: Kernel::Decode(Decode { lead, leaders, split, splits, cols }),
        workers,
        tickets: leaders + splits + wide_tickets,
        shared: (tokens * part).next_multiple_of(LINE)
            + splits * (tokens * wide).next_multiple_of(LINE)
            + 2,
        scratch: sizes.activations(
            tokens * deep + (ROWS * deep).max(COLUMNS * if splits > 0 { wide } else { cols }),
        ) + sizes.adapter((ROWS * deep).max(COLUMNS * lead) + cols * rank)
            + tokens * cols.max(lead),
        reads_of_w: 1,
        micros: (streamed + sizes.widened(wide * deep)).max(flops / rate) / workers as f64
            * imbalance(wide_tickets, workers),
    }
}

fn linear(sizes: &Sizes<'_>, preset: &Preset, workers: usize) -> Tiles {
    let Sizes { tokens, rank, part, wide, deep, by_rows, cached, flops, streamed, .. } = *sizes;
    let [most_tokens, most_cols, depth] = preset.tile;
    let most_cols = if sizes.activations(1) == 0 { most_cols } else { most_cols / 2 };
    let by_band = preset.name == "band";
    let (band, bands) = cut(tokens, most_tokens, if by_band { workers } else { 1 }, 8);
    let (cols, wide_tickets) = match by_band {
        true => (wide, 1),
        false => cut_evenly(wide, most_cols, workers),
    };
    let (block, _) = cut(cols, most_cols, 1, 16);
    let (lead, leaders) = match by_band || rank == 0 {
        true => (band, 0),
        false => cut(band, 256, workers, 8),
    };
    let depth = depth.min(deep);
    let workers = workers.min(bands * wide_tickets);
    let in_place = sizes.in_place();
    let (x_again, w_again) = (tokens * deep * wide.div_ceil(block), wide * deep * bands);
    // With few tokens other layers' weights were in the cache last, and w is packed from memory; what
    // was widened lies in a cache, though.
    let cached = cached && (tokens > DECODE || sizes.activations(1) > 0);
    let packed = x_again as f64 / PACKED_ALONG
        + w_again as f64 / if by_rows || !cached { PACKED } else { PACKED_ALONG };
    let work = flops / FLOPS + packed + sizes.widened(x_again + w_again) + streamed * bands as f64;
    let kernel =
        Linear { band, bands, lead, leaders, cols, wide: wide_tickets, block, depth, in_place };
    Tiles {
        kernel: Kernel::Linear(kernel),
        workers,
        tickets: bands * (leaders + wide_tickets),
        shared: if leaders > 0 { tokens * part + bands } else { 0 },
        scratch: sizes.activations(band * depth + block * depth)
            + if in_place { 0 } else { band * block }
            + sizes.adapter(rank * depth + block * rank)
            + if by_band { band * part } else { 0 },
        reads_of_w: bands,
        micros: work / workers as f64 * imbalance(bands * wide_tickets, workers),
    }
}

fn shrink(sizes: &Sizes<'_>, preset: &Preset, workers: usize) -> Tiles {
    let Sizes { tokens, rank, part, deep, flops, .. } = *sizes;
    let [most_tokens, _, depth] = preset.tile;
    let (band, bands) = cut(tokens, most_tokens, workers, 8);
    let depth = depth.min(deep);
    // Bands whose tickets have no columns to multiply.
    let (lead, leaders, cols, wide, block, in_place) = (band, 0, 0, 1, 0, false);
    let kernel = Linear { band, bands, lead, leaders, cols, wide, block, depth, in_place };
    Tiles {
        kernel: Kernel::Linear(kernel),
        workers,
        tickets: bands,
        shared: 0,
        scratch: sizes.activations(band * depth) + sizes.adapter(rank * depth) + band * part,
        reads_of_w: 0,
        micros: (flops / FLOPS + sizes.widened(tokens * deep)) / workers as f64,
    }
}

fn gradient(sizes: &Sizes<'_>, preset: &Preset, workers: usize) -> Tiles {
    let Sizes { problem, tokens, rank, flops, .. } = *sizes;
    let [most_tokens, most_cols, _] = preset.tile;
    let columns = |gradient, cols| if problem.spec(gradient).is_some() { cols } else { 0 };
    let of_a = columns(Operand::Da, problem.in_features());
    let of_b = columns(Operand::Db, problem.out_features());
    let (cols, _) = cut(of_a + of_b, most_cols, workers, 16);
    let tickets_a = of_a.div_ceil(cols);
    // So many rows of x or dy stay in L2 until every rank has met them, even a page apart.
    let band = (most_tokens / 2).min(tokens.max(1));
    Tiles {
        kernel: Kernel::Gradient(Gradient { cols, tickets_a, band }),
        workers,
        tickets: tickets_a + of_b.div_ceil(cols),
        shared: 0,
        scratch: rank * cols + sizes.activations(band * cols + band * rank),
        reads_of_w: 0,
        micros: (flops / FLOPS + sizes.widened(tokens * (of_a + of_b))) / workers as f64,
    }
}

fn merge(sizes: &Sizes<'_>, preset: &Preset, workers: usize) -> Tiles {
    let Sizes { problem, rank, flops, .. } = *sizes;
    let [most_rows, most_cols, _] = preset.tile;
    let (rows, tickets) = cut(problem.out_features(), most_rows, workers, 8);
    let block = most_cols.min(problem.in_features());
    Tiles {
        kernel: Kernel::Merge(Merge { rows, block }),
        workers,
        tickets,
        shared: 0,
        scratch: rows * block + sizes.adapter(rank * block + rows * rank),
        reads_of_w: 1,
        micros: flops / FLOPS / workers as f64,
    }
}

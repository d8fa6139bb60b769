//! The kernels of `kernels/sm80`, for compute capability 8.0 and later: the presets that a plan
//! picks from, and how long a launch takes, roughly: only the order of the candidates matters.
//! Constants are those of the vendor's tables and of the kernels' own arithmetic; none was measured.

use core::ops::RangeInclusive;

use super::CudaCapabilities;
use super::kernel::CudaKernel;
use super::numbers::{Kind, Numbers, Tile};
use crate::DType;
use crate::plan::{ANY, Preset, Strategy};

/// The least compute capability that has their instructions.
pub(super) const LEAST: (u32, u32) = (8, 0);

type Range = RangeInclusive<usize>;
const TOKENS: Range = 1..=ANY;
/// What `decode` multiplies as one fragment's columns, or two.
const FEW: Range = 1..=16;
const ALL: Range = 0..=ANY;
const NONE: Range = 0..=0;
/// Ranks that a main loop can carry beside its columns.
const CARRIED: Range = 1..=64;
/// Half as many warps hold the ranks of as many rows: beside their sums there are registers for those of 32.
const MEDIUM_CARRIED: Range = 1..=32;
const RANKS: Range = 1..=ANY;

const LARGE: CudaKernel = CudaKernel::Linear { tile: Tile::Large, aligned: true };
const MEDIUM: CudaKernel = CudaKernel::Linear { tile: Tile::Medium, aligned: true };
const SMALL: CudaKernel = CudaKernel::Linear { tile: Tile::Small, aligned: true };
const UNALIGNED: CudaKernel = CudaKernel::Linear { tile: Tile::Small, aligned: false };
const TF32: CudaKernel = CudaKernel::Linear { tile: Tile::Tf32, aligned: true };

const TRANSPOSED_MEDIUM: CudaKernel = CudaKernel::Transposed { tile: Tile::Medium, aligned: true };
const TRANSPOSED_SMALL: CudaKernel = CudaKernel::Transposed { tile: Tile::Small, aligned: true };
const TRANSPOSED_UNALIGNED: CudaKernel =
    CudaKernel::Transposed { tile: Tile::Small, aligned: false };

const MIXED_LARGE: CudaKernel = CudaKernel::Mixed { tile: Tile::Large, aligned: true };
const MIXED_MEDIUM: CudaKernel = CudaKernel::Mixed { tile: Tile::Medium, aligned: true };
const MIXED_SMALL: CudaKernel = CudaKernel::Mixed { tile: Tile::Small, aligned: true };
const MIXED_UNALIGNED: CudaKernel = CudaKernel::Mixed { tile: Tile::Small, aligned: false };
const BACK_MEDIUM: CudaKernel = CudaKernel::MixedTransposed { tile: Tile::Medium, aligned: true };
const BACK_SMALL: CudaKernel = CudaKernel::MixedTransposed { tile: Tile::Small, aligned: true };
const BACK_UNALIGNED: CudaKernel =
    CudaKernel::MixedTransposed { tile: Tile::Small, aligned: false };
const MERGED_LARGE: CudaKernel = CudaKernel::Merged { tile: Tile::Large, aligned: true };
const MERGED_SMALL: CudaKernel = CudaKernel::Merged { tile: Tile::Small, aligned: true };
const MERGED_UNALIGNED: CudaKernel = CudaKernel::Merged { tile: Tile::Small, aligned: false };

pub(crate) const PRESETS: &[Preset<CudaKernel>] = &[
    Preset::new(Strategy::Leader, "decode", CudaKernel::Decode, FEW, CARRIED),
    Preset::new(Strategy::Leader, "large", LARGE, TOKENS, CARRIED),
    Preset::new(Strategy::Leader, "medium", MEDIUM, TOKENS, MEDIUM_CARRIED),
    Preset::new(Strategy::Leader, "small", SMALL, TOKENS, CARRIED),
    Preset::new(Strategy::Recompute, "large", LARGE, TOKENS, CARRIED),
    Preset::new(Strategy::Recompute, "medium", MEDIUM, TOKENS, MEDIUM_CARRIED),
    Preset::new(Strategy::Recompute, "small", SMALL, TOKENS, CARRIED),
    Preset::new(Strategy::TwoPass, "large", LARGE, TOKENS, RANKS),
    Preset::new(Strategy::TwoPass, "medium", MEDIUM, TOKENS, RANKS),
    Preset::new(Strategy::TwoPass, "small", SMALL, TOKENS, RANKS),
    Preset::new(Strategy::TwoPass, "unaligned", UNALIGNED, TOKENS, RANKS),
    Preset::new(Strategy::Direct, "decode", CudaKernel::Decode, FEW, NONE),
    Preset::new(Strategy::Direct, "large", LARGE, TOKENS, NONE),
    Preset::new(Strategy::Direct, "medium", MEDIUM, TOKENS, NONE),
    Preset::new(Strategy::Direct, "small", SMALL, TOKENS, NONE),
    Preset::new(Strategy::Direct, "unaligned", UNALIGNED, TOKENS, NONE),
    Preset::new(Strategy::Direct, "shrink", CudaKernel::Shrink, TOKENS, RANKS),
    Preset::new(Strategy::Direct, "merge", CudaKernel::Merge, ALL, RANKS),
    Preset::new(Strategy::Direct, "gradient", CudaKernel::Gradient, ALL, RANKS),
    Preset::new(Strategy::Direct, "contract", CudaKernel::Contract, ALL, ALL),
    Preset::new(Strategy::TwoPass, "transposed_medium", TRANSPOSED_MEDIUM, TOKENS, RANKS),
    Preset::new(Strategy::TwoPass, "transposed_small", TRANSPOSED_SMALL, TOKENS, RANKS),
    Preset::new(Strategy::TwoPass, "transposed_unaligned", TRANSPOSED_UNALIGNED, TOKENS, RANKS),
    Preset::new(Strategy::Direct, "transposed_medium", TRANSPOSED_MEDIUM, TOKENS, NONE),
    Preset::new(Strategy::Direct, "transposed_small", TRANSPOSED_SMALL, TOKENS, NONE),
    Preset::new(Strategy::Direct, "transposed_unaligned", TRANSPOSED_UNALIGNED, TOKENS, NONE),
    Preset::new(Strategy::Direct, "mixed_large", MIXED_LARGE, TOKENS, NONE),
    Preset::new(Strategy::Direct, "mixed_medium", MIXED_MEDIUM, TOKENS, NONE),
    Preset::new(Strategy::Direct, "mixed_small", MIXED_SMALL, TOKENS, NONE),
    Preset::new(Strategy::Direct, "mixed_unaligned", MIXED_UNALIGNED, TOKENS, NONE),
    Preset::new(Strategy::Direct, "mixed_transposed_medium", BACK_MEDIUM, TOKENS, NONE),
    Preset::new(Strategy::Direct, "mixed_transposed_small", BACK_SMALL, TOKENS, NONE),
    Preset::new(Strategy::Direct, "mixed_transposed_unaligned", BACK_UNALIGNED, TOKENS, NONE),
    Preset::new(Strategy::Direct, "kronecker", CudaKernel::Kronecker, ALL, NONE),
    Preset::new(Strategy::Merged, "large", MERGED_LARGE, TOKENS, ALL),
    Preset::new(Strategy::Merged, "small", MERGED_SMALL, TOKENS, ALL),
    Preset::new(Strategy::Merged, "unaligned", MERGED_UNALIGNED, TOKENS, ALL),
    Preset::new(Strategy::Direct, "norm", CudaKernel::Norm, ALL, ALL),
    Preset::new(Strategy::Direct, "backward_gain", CudaKernel::BackwardGain, ALL, ALL),
    tf32(Strategy::Leader, 1..=16),
    tf32(Strategy::TwoPass, RANKS),
    tf32(Strategy::Direct, NONE),
];

const fn tf32(strategy: Strategy, ranks: Range) -> Preset<CudaKernel> {
    let mut preset = Preset::new(strategy, "tf32", TF32, TOKENS, ranks);
    preset.rounds_to_tf32 = true;
    preset
}

/// Microseconds from one launch to the next on a busy stream.
const LAUNCH: f64 = 3.0;
/// Microseconds from raising a flag to reading what it guards, on another multiprocessor.
const FLAG: f64 = 1.5;
/// Bytes that L2 brings to one multiprocessor in a cycle.
const L2: f64 = 64.0;
/// Cycles of a step below which no tile gets: the way of one load, less what the ring hides.
const STEP: f64 = 250.0;
/// Cycles of a step that a CTA waits for itself where nobody else has something to multiply: the barrier, and the first
/// fragments behind it.
const EXPOSED: f64 = 60.0;
/// Part of the tensor core's rate that the main loop reaches.
const EFFICIENCY: f64 = 0.85;
/// Columns that a carried rank costs: a warp multiplies the ranks of a few of its rows, so that each of its
/// fragments meets fewer others than those of w do.
const RANK: f64 = 1.2;
/// Part of memory's rate that tiles reach: they read rows in pieces of 64 bytes, and nothing while
/// they are finished. `decode` streams; where memory bounds both, it is to be taken.
const TILES: f64 = 0.9;

/// Waves in which CTAs still end together. Later on one multiprocessor draws twice where another draws not at
/// all (`tests/kernels/waves.rs`).
const TOGETHER: f64 = 3.0;

/// Multiply-adds with f32 sums of one multiprocessor in a cycle: of f32 in its own lanes, of tf32
/// and of 16 bits through `mma.sync`.
fn rate(of: &Numbers, cuda: &CudaCapabilities) -> f64 {
    let halves = match cuda.compute_capability {
        (8, 0) => 1024.0,
        // `mma.sync` reaches 65 % of what `wgmma` does.
        (9, 0) => 1330.0,
        (10, _) => 1024.0,
        _ if cuda.halved_f32_sums => 256.0,
        _ => 512.0,
    };
    match (of.dtype, of.tile) {
        (DType::F32, Tile::Tf32) => halves / 2.0,
        (DType::F32, _) if cuda.compute_capability == (8, 0) => 64.0,
        (DType::F32, _) => 128.0,
        _ => halves,
    }
}

/// One launch as the model sees it.
pub(super) struct Work<'a> {
    pub(super) of: &'a Numbers,
    pub(super) tiles: usize,
    /// Rows of tiles of a band.
    pub(super) band: usize,
    pub(super) steps: usize,
    /// Ranks that tiles which compute shrunk multiply beside their columns.
    pub(super) ranks: usize,
    pub(super) bytes: u64,
}

/// Cycles that CTAs of a text take, `share` of which have a multiprocessor among them.
struct Steps<'a> {
    of: &'a Numbers,
    /// Multiply-adds of a cycle that the main loop reaches.
    rate: f64,
    share: f64,
}

impl Steps<'_> {
    /// What bounds a step of so many columns and ranks, be it alone or not: it multiplies, loads from L2, and goes
    /// through shared memory `reads` bytes for each byte of the sum's depth.
    fn bound(&self, columns: f64, ranks: f64, loaded: f64, reads: f64) -> f64 {
        let (rows, depth) = (self.of.rows as f64, self.of.depth as f64);
        let size = self.of.dtype.size() as f64;
        let multiply = rows * (columns + RANK * ranks) * depth / self.rate;
        let bytes = (rows + loaded) * depth * size;
        // Element by element: as many loads as a chunk of 16 bytes has elements.
        let load = bytes / L2 * if self.of.aligned { 1.0 } else { 16.0 / size };
        // 128 bytes a cycle.
        let exchange = (bytes + reads * depth * size) / 128.0;
        // CTAs of a multiprocessor share all three.
        multiply.max(load).max(exchange) * self.share
    }

    /// One of a tile whose CTA has so many ranks beside its columns.
    fn tile(&self, ranks: f64) -> f64 {
        let [rows, columns] = [self.of.rows, self.of.columns].map(|size| size as f64);
        // The step is written once, x read by each column of warps, w by both rows of warps.
        let reads = rows * self.of.threads as f64 / 64.0 + columns * 2.0;
        // One warp a scheduler: nobody else has something to multiply at its barrier.
        let exposed = if self.of.threads as f64 * self.share > 128.0 { 0.0 } else { EXPOSED };
        (self.bound(columns, ranks, columns, reads) + exposed).max(STEP)
    }

    /// One of x and `down` alone: of few ranks the way of a load. Each warp reads the rows whose ranks it has, and all
    /// ranks. A warp's instructions, 91 to 112 with 16 ranks and 104 with 64, are fewer than the cycles of that way.
    fn walk(&self, ranks: f64) -> f64 {
        let (rows, warps) = (self.of.rows as f64, self.of.threads as f64 / 32.0);
        self.bound(0.0, ranks, ranks, rows + ranks * warps).max(STEP) + EXPOSED
    }
}

/// Rows of tiles, those of the first band or none, whose leaders work out shrunk from x and `down` alone before their
/// tile: where that ends the launch earlier.
pub(super) fn alone(work: &Work<'_>, cuda: &CudaCapabilities) -> usize {
    if saved(work, cuda) > 0.0 { work.band } else { 0 }
}

/// Cycles by which the launch ends earlier with [`alone`], or less than none.
///
/// Of the CTAs of the first wave followers of the first band wait for their leaders until these have carried the ranks
/// beside a tile; with a walk ahead they wait for nobody, and only the leaders are late, by the walk. From then on whoever
/// is free draws.
fn saved(work: &Work<'_>, cuda: &CudaCapabilities) -> f64 {
    let of = work.of;
    if of.kind != Kind::Leader || !of.walks {
        return 0.0;
    }
    let resident = resident(of, cuda);
    let slots = cuda.multiprocessors.max(1) as usize * resident;
    let steps = Steps { of, rate: rate(of, cuda) * EFFICIENCY, share: resident as f64 };
    let (ranks, all) = (work.ranks as f64, work.steps as f64);
    let tile = all * steps.tile(0.0);
    // Who waits leaves the multiprocessor to its neighbours,
    let carried = all * (steps.tile(ranks) - steps.tile(0.0)) / steps.share;
    // and so does who walks: most of that is the way of loads. The ring is filled once more.
    let walk = if resident > 1 { carried } else { (all + of.stages as f64) * steps.walk(ranks) };
    // The leaders of the second band carry theirs, and nobody waits for them yet.
    let followers = slots.saturating_sub(2 * work.band);
    let waves = work.tiles.div_ceil(slots);
    if followers == 0 || waves < 2 || walk > tile {
        return 0.0;
    }
    let (leaders, followers, slots) = (work.band as f64, followers as f64, slots as f64);
    if waves as f64 > TOGETHER {
        return (leaders * (carried - walk) + followers * carried) / slots;
    }
    // CTAs end together: who draws the last tiles, and is the walk's leader behind them all the same?
    let waves = waves as f64;
    let left = work.tiles as f64 - (waves - 1.0) * slots;
    let others = if left > slots - leaders {
        walk
    } else if left > followers {
        carried
    } else {
        0.0
    };
    carried - others.max(walk - tile)
}

pub(super) fn micros(work: &Work<'_>, cuda: &CudaCapabilities) -> f64 {
    let of = work.of;
    let sms = f64::from(cuda.multiprocessors.max(1));
    let resident = resident(of, cuda) as f64;
    let tiles = work.tiles as f64;
    let rate = rate(of, cuda) * EFFICIENCY;
    let tile = |ranks: f64, share: f64| work.steps as f64 * Steps { of, rate, share }.tile(ranks);
    let waves = (tiles / (sms * resident)).ceil();
    // A last wave of few tiles has a multiprocessor for each, as long as all CTAs end together.
    let left = tiles - (waves - 1.0) * sms * resident;
    let last = if waves > TOGETHER { resident } else { (left / sms).ceil().max(1.0) };
    let first = if waves > 1.0 { resident } else { last };
    let ranks = work.ranks as f64;
    // The first wave waits for its leaders; behind it they are ahead of those who do.
    let behind = if of.kind == Kind::Leader { 0.0 } else { ranks };
    let mut cycles = tile(ranks, first);
    if waves > 1.0 {
        cycles += (waves - 2.0) * tile(behind, resident) + tile(behind, last);
    }
    cycles -= saved(work, cuda).max(0.0);
    let compute = cycles / f64::from(cuda.clock_mhz.max(1));
    let memory = work.bytes as f64 / (TILES * 1e3 * f64::from(cuda.gigabytes_per_second.max(1)));
    let wait = if of.kind == Kind::Leader { FLAG } else { 0.0 };
    LAUNCH + wait + compute.max(memory)
}

/// CTAs of this text that one multiprocessor holds.
pub(super) fn resident(of: &Numbers, cuda: &CudaCapabilities) -> usize {
    // Each block costs 1 KiB that the system keeps.
    let shared = cuda.shared_bytes_per_multiprocessor as usize / (of.smem_bytes + 1024);
    shared.clamp(1, of.resident)
}

/// A launch that memory alone bounds, with one wait for others.
pub(super) fn streamed(bytes: u64, cuda: &CudaCapabilities) -> f64 {
    LAUNCH + FLAG + bytes as f64 / (1e3 * f64::from(cuda.gigabytes_per_second.max(1)))
}

/// Instructions of a thread of `contract`, and of each of its terms, roughly.
const THREAD: f64 = 120.0;
const TERM: f64 = 30.0;

/// `contract`: bound by memory, or by the instructions of its `threads` and of all their terms.
pub(super) fn contract(threads: u64, terms: u64, bytes: u64, cuda: &CudaCapabilities) -> f64 {
    let lanes = 128.0 * f64::from(cuda.multiprocessors.max(1));
    let cycles = (THREAD * threads as f64 + TERM * terms as f64) / lanes;
    let compute = cycles / f64::from(cuda.clock_mhz.max(1));
    streamed(bytes, cuda).max(LAUNCH + compute)
}

/// `decode`: bound by memory, or by what one multiprocessor takes from L2; the flags of shrunk
/// are up before w has been read, unless w is small.
pub(super) fn decode(bytes: u64, ctas: usize, adapts: bool, cuda: &CudaCapabilities) -> f64 {
    let memory = bytes as f64 / (1e3 * f64::from(cuda.gigabytes_per_second.max(1)));
    let load = bytes as f64 / (ctas as f64 * L2 * f64::from(cuda.clock_mhz.max(1)));
    let wait = if adapts { 2.0 * FLAG } else { 0.0 };
    LAUNCH + memory.max(load).max(wait)
}

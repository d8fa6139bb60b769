//! How long a launch of `linear` takes, roughly: only the order of the candidates matters.
//! Constants are those of the vendor's tables and of the kernel's own arithmetic; none was
//! measured. Called by `plan::cuda` for each candidate.

use super::CudaCapabilities;
use super::texts::Text;

/// Microseconds from one launch to the next on a busy stream.
const LAUNCH: f64 = 3.0;
/// Microseconds from raising a flag to reading what it guards, on another multiprocessor.
const FLAG: f64 = 1.5;
/// Bytes that L2 brings to one multiprocessor in a cycle.
const L2: f64 = 64.0;
/// Cycles of a step below which no tile gets: the way of one load, less what the ring hides.
const STEP: f64 = 250.0;
/// Part of the tensor core's rate that the main loop reaches.
const EFFICIENCY: f64 = 0.85;
/// Part of memory's rate that tiles reach: they read rows in pieces of 64 bytes, and nothing while
/// they are finished. `decode` streams; where memory bounds both, it is to be taken.
const TILES: f64 = 0.9;

/// Multiply-adds with f32 sums of one multiprocessor in a cycle: of f32 in its own lanes, of tf32
/// and of 16 bits through `mma.sync`.
fn rate(text: &Text, cuda: &CudaCapabilities) -> f64 {
    let halves = match cuda.compute_capability {
        (8, 0) => 1024.0,
        // `mma.sync` reaches 65 % of what `wgmma` does.
        (9, 0) => 1330.0,
        (10, _) => 1024.0,
        _ => 512.0,
    };
    match (text.dtype, text.tile_name) {
        ("f32", "tf32") => halves / 2.0,
        ("f32", _) if cuda.compute_capability == (8, 0) => 64.0,
        ("f32", _) => 128.0,
        _ => halves,
    }
}

/// One launch as the model sees it.
pub(super) struct Work<'a> {
    pub(super) text: &'a Text,
    pub(super) tiles: usize,
    pub(super) steps: usize,
    /// Ranks that tiles which compute shrunk multiply beside their columns.
    pub(super) ranks: usize,
    pub(super) bytes: u64,
}

pub(super) fn micros(work: &Work<'_>, cuda: &CudaCapabilities) -> f64 {
    let [tokens, columns, depth] = work.text.tile.map(|size| size as f64);
    let sms = f64::from(cuda.multiprocessors.max(1));
    let resident = resident(work.text, cuda) as f64;
    let tiles = work.tiles as f64;
    let share = (tiles / sms).ceil().clamp(1.0, resident);
    let rate = rate(work.text, cuda);
    let waves = (tiles / (sms * resident)).ceil();
    // Behind the first wave leaders are ahead of those who wait for them.
    let ranks = if work.text.kind == "leader" && waves > 1.0 { 0 } else { work.ranks };
    let multiply = tokens * (columns + ranks as f64) * depth / (rate * EFFICIENCY) * share;
    let size = if work.text.dtype == "f32" { 4.0 } else { 2.0 };
    let bytes = (tokens + columns) * depth * size;
    // Element by element: as many loads as a chunk of 16 bytes has elements.
    let load = bytes / L2 * share * if work.text.aligned { 1.0 } else { 16.0 / size };
    // 128 bytes a cycle: the step is written once, x read by each column of warps, w by both
    // rows of warps.
    let reads = (tokens * work.text.threads as f64 / 64.0 + columns * 2.0) * depth * size;
    let exchange = (bytes + reads) / 128.0 * share;
    let tile = work.steps as f64 * multiply.max(load).max(exchange).max(STEP);
    let cycles = waves * tile;
    let compute = cycles / f64::from(cuda.clock_mhz.max(1));
    let memory = work.bytes as f64 / (TILES * 1e3 * f64::from(cuda.gigabytes_per_second.max(1)));
    let wait = if work.text.kind == "leader" { FLAG } else { 0.0 };
    LAUNCH + wait + compute.max(memory)
}

/// CTAs of this text that one multiprocessor holds.
pub(super) fn resident(text: &Text, cuda: &CudaCapabilities) -> usize {
    // Each block costs 1 KiB that the system keeps.
    let shared = cuda.shared_bytes_per_multiprocessor as usize / (text.shared_bytes + 1024);
    shared.clamp(1, text.resident)
}

/// A launch that memory alone bounds, with one wait for others.
pub(super) fn streamed(bytes: u64, cuda: &CudaCapabilities) -> f64 {
    LAUNCH + FLAG + bytes as f64 / (1e3 * f64::from(cuda.gigabytes_per_second.max(1)))
}

/// `decode`: bound by memory, or by what one multiprocessor takes from L2; the flags of shrunk
/// are up before w has been read, unless w is small.
pub(super) fn decode(bytes: u64, ctas: usize, adapts: bool, cuda: &CudaCapabilities) -> f64 {
    let memory = bytes as f64 / (1e3 * f64::from(cuda.gigabytes_per_second.max(1)));
    let load = bytes as f64 / (ctas as f64 * L2 * f64::from(cuda.clock_mhz.max(1)));
    let wait = if adapts { 2.0 * FLAG } else { 0.0 };
    LAUNCH + memory.max(load).max(wait)
}

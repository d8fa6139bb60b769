//! What one worker does in a microsecond. Measured on one core of a 2023 server CPU; only the ratios
//! matter, they order the candidates. Read by every kernel's cut.

/// Operations of `gemm` on packed panels.
pub(super) const FLOPS: f64 = 80e3;
/// Operations of `decode`, which packs nothing: dot products, or scaled sums.
pub(super) const DOTS: f64 = 30e3;
pub(super) const SCALED_SUMS: f64 = 24e3;
/// Elements of w that `gemm` packs: across their storage or from memory, and along their
/// storage from a cache.
pub(super) const PACKED: f64 = 1e3;
pub(super) const PACKED_ALONG: f64 = 4e3;
/// Elements widened.
pub(super) const WIDENED: f64 = 3e3;
/// Bytes streamed from memory, or from the last cache where [`CACHE`] bytes stay there.
pub(super) const BYTES: f64 = 20e3;
const CACHED: f64 = 40e3;
const CACHE: f64 = (8 << 20) as f64;
/// Microseconds to wake the other workers and to wait for the last.
pub(super) const FORK: f64 = 25.0;

/// Whether a w of so many bytes may be in the last cache still.
pub(super) fn is_cached(bytes: u64) -> bool {
    bytes as f64 <= CACHE
}

/// Microseconds to read w once, by one worker.
pub(super) fn streaming(bytes: u64) -> f64 {
    bytes as f64 / if is_cached(bytes) { CACHED } else { BYTES }
}

/// How much longer the last worker works than a fair share: whole tickets only.
pub(super) fn imbalance(tickets: usize, workers: usize) -> f64 {
    (tickets.div_ceil(workers) * workers) as f64 / tickets.max(1) as f64
}

//! How lengths are cut into pieces for workers. Called by every kernel's file.

/// Columns that `gemm` multiplies at a time, three vectors of 8.
const PANEL: usize = 24;

/// `total` cut into pieces of at most `most`, their number a multiple of `workers` and their
/// size one of `unit`, as even as that allows. Returns the size and the number of pieces.
pub(super) fn evenly(total: usize, most: usize, workers: usize, unit: usize) -> (usize, usize) {
    let pieces = total.div_ceil(most).next_multiple_of(workers);
    let size = total.div_ceil(pieces).next_multiple_of(unit).clamp(unit, most.max(unit));
    (size, total.div_ceil(size))
}

/// `total` columns cut so that the busiest worker is done first, by the panels that `gemm`
/// multiplies at a time: into pieces of at most `most` columns, and no less than half of that
/// where there are enough for all. Returns the size and the number of pieces.
pub(super) fn by_panels(total: usize, most: usize, workers: usize) -> (usize, usize) {
    // Tenths of a whole panel, by its vectors of 8: a smaller one keeps its sums less busy.
    let cost = |size: usize| 10 * (size / PANEL) + [0, 5, 8][size % PANEL / 8];
    let least = (most / 2).min(total.div_ceil(workers)).next_multiple_of(8);
    let busiest = |size: &usize| total.div_ceil(*size).div_ceil(workers) * cost(*size);
    let sizes = (least..=most.max(least)).rev().filter(|size| size.is_multiple_of(8));
    let size = sizes.min_by_key(busiest).unwrap_or(least);
    (size, total.div_ceil(size))
}

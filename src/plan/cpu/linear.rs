//! Cuts a layer, or its shrink alone, for `linear`: bands of rows, tickets of columns, blocks that
//! stay in a worker's cache until they are finished.

use super::presets::{DECODE_TOKENS, LinearTile};
use super::{Cut, Schedule, Storage, Tiles, cut, model, widened_of};
use crate::product::{Body, Bordered, Old};
use crate::{DType, Major};

/// Rows so many bytes apart, or a multiple of that, share a few sets of a cache.
const PAGE: usize = 4096;
/// Ranks from which on the border costs more in such rows than a copy of the tile.
const BORDER: usize = 16;
/// Rows of a leader's ticket, at most.
const LEAD: usize = 256;

/// Steps of a sum that `gemm` forms one after the other, and are so formed at a time where the order
/// is fixed.
pub(crate) const STEPS: usize = 256;

/// Scratch to form sums of `steps` steps in one order: `left` once more, and the sums.
pub(crate) fn guard(rows: usize, columns: usize, steps: usize) -> usize {
    let [rows_of_left, columns] = [rows, columns].map(|of| of.div_ceil(8).saturating_mul(8));
    rows_of_left.saturating_mul(steps).saturating_add(rows.max(2).saturating_mul(columns))
}

/// The same of all tiles up to so many rows and columns that may need it: those of a row or a column,
/// and small ones, which have no more rows and columns than 256 in all.
pub(super) fn guard_of(rows: usize, columns: usize) -> usize {
    let small = guard(rows.min(256), 8, STEPS).max(guard(8, 256, STEPS));
    small.max(guard(1, columns, STEPS)).max(guard(rows, 1, STEPS))
}

/// A band of rows is cut into tickets of `columns` columns, and each of those into blocks.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct LinearTiles {
    /// Rows of a band.
    pub(crate) band: usize,
    /// Bands.
    pub(crate) bands: usize,
    /// Rows of a leader's ticket.
    pub(crate) lead: usize,
    /// Leaders' tickets of a band; 0: every ticket computes the `shrunk` that it needs.
    pub(crate) leaders: usize,
    /// Columns of a ticket.
    pub(crate) columns: usize,
    /// Tickets of a band beside the leaders'.
    pub(crate) followers: usize,
    /// Columns of a block.
    pub(crate) block: usize,
    /// Steps of the sum between two widenings.
    pub(crate) depth: usize,
    /// Whether the output itself holds the sums, else a worker's scratch.
    pub(crate) in_place: bool,
    /// Scratch with which sums are formed in one order, whatever the rows and columns are; 0: `gemm`
    /// may choose.
    pub(crate) guard: usize,
}

/// Whether the sums of the output are formed where they belong: not in 16 bits, not onto old
/// values, and not where a border comes back to rows that have pushed each other out of the
/// caches meanwhile.
fn in_place(body: &Body, rank: usize, storage: Storage) -> bool {
    let out = &body.finish.out;
    let collides = out.major == Major::Row && (4 * out.spec.stride).is_multiple_of(PAGE);
    let comes_back = rank >= BORDER && collides;
    let is_here = storage.output == DType::F32 && out.planes.is_none();
    is_here && body.finish.old == Old::Replaced && !comes_back
}

/// Scratch for so many rows of shrunk turned, as they come of images channels first.
fn turned(of: &Bordered, rows: usize) -> usize {
    if of.left.is_planar() { rows * of.rank() } else { 0 }
}

pub(super) fn layer(tile: LinearTile, of: &Bordered, storage: Storage, workers: usize) -> Cut {
    let (rows, rank, depth, columns) = (of.rows, of.rank(), of.depth, of.columns());
    let w = of.body.map(|body| body.right);
    let w_bytes = w.map_or(0, |w| w.spec.bytes());
    let padded_rank = of.border.map_or(0, |border| border.shrunk.padded_rank);
    let LinearTile { rows: most_rows, depth: step, by_band, .. } = tile;
    let most_columns = if storage.activations(1) == 0 { tile.columns } else { tile.columns / 2 };
    let (band, bands) = cut::evenly(rows, most_rows, if by_band { workers } else { 1 }, 8);
    let (piece, followers) = match by_band {
        true => (columns, 1),
        false => cut::by_panels(columns, most_columns, workers),
    };
    let (block, _) = cut::evenly(piece, most_columns, 1, 16);
    let (lead, leaders) = match by_band || rank == 0 {
        true => (band, 0),
        false => cut::evenly(band, LEAD, workers, 8),
    };
    let step = step.min(depth);
    let workers = workers.min(bands * followers);
    let in_place = of.body.is_some_and(|body| in_place(&body, rank, storage));
    let guard = if storage.is_invariant { guard_of(band, block.max(rank)) } else { 0 };
    let (x_again, w_again) = (rows * depth * columns.div_ceil(block), columns * depth * bands);
    // With few tokens other layers' weights were in the cache last, and w is packed from memory;
    // what was widened lies in a cache, though.
    let cached = model::is_cached(w_bytes) && (rows > DECODE_TOKENS || storage.activations(1) > 0);
    let from_cache = w.is_some_and(|w| !w.k_major) && cached;
    // Beside tokens that lie side by side it is read where it is.
    let is_packed = !(of.left.is_planar() && w.is_some_and(|w| w.k_major));
    let packed = x_again as f64 / model::PACKED_ALONG
        + match is_packed {
            true => w_again as f64 / if from_cache { model::PACKED_ALONG } else { model::PACKED },
            false => 0.0,
        };
    // What is gathered for shrunk and for the first block is so once in a ticket that has both.
    let of_leaders = if storage.gathers && leaders > 0 { rows * depth } else { 0 };
    let widened = if storage.activation == DType::F32 { 0 } else { w_again };
    let work = storage.flops() / model::FLOPS
        + packed
        + storage.widening(x_again + of_leaders + widened)
        + of.summand().map_or(0.0, |_| w_again as f64 / model::WIDENED)
        + model::streaming(w_bytes) * bands as f64;
    let tiles = LinearTiles {
        band,
        bands,
        lead,
        leaders,
        columns: piece,
        followers,
        block,
        depth: step,
        in_place,
        guard,
    };
    Cut {
        schedule: Schedule {
            workers,
            tickets: bands * (leaders + followers),
            common_scratch: if leaders > 0 { rows * padded_rank + bands } else { 0 }
                + widened_of(of.summand()),
            worker_scratch: guard
                + storage.activations(band * step)
                + storage.weights(block * step, of.summand())
                + if in_place { 0 } else { band * block }
                + storage.adapter(rank * step + block * rank)
                + if by_band { band * padded_rank } else { 0 }
                + turned(of, if by_band { band } else { lead }),
            tiles: Tiles::Linear(tiles),
        },
        reads_of_w: bands,
        micros: work / workers as f64 * model::imbalance(bands * followers, workers),
    }
}

/// Bands whose tickets have no columns to multiply.
pub(super) fn shrink(
    [most_rows, step]: [usize; 2],
    of: &Bordered,
    storage: Storage,
    workers: usize,
) -> Cut {
    let (rows, rank, depth) = (of.rows, of.rank(), of.depth);
    let padded_rank = of.border.map_or(0, |border| border.shrunk.padded_rank);
    let (band, bands) = cut::evenly(rows, most_rows, workers, 8);
    let step = step.min(depth);
    let guard = if storage.is_invariant { guard_of(band, rank) } else { 0 };
    let tiles = LinearTiles {
        band,
        bands,
        lead: band,
        leaders: 0,
        columns: 0,
        followers: 1,
        block: 0,
        depth: step,
        in_place: false,
        guard,
    };
    Cut {
        schedule: Schedule {
            workers,
            tickets: bands,
            common_scratch: 0,
            worker_scratch: guard
                + storage.activations(band * step)
                + storage.adapter(rank * step)
                + band * padded_rank
                + turned(of, band),
            tiles: Tiles::Linear(tiles),
        },
        reads_of_w: 0,
        micros: (storage.flops() / model::FLOPS + storage.widening(rows * depth)) / workers as f64,
    }
}

//! Cuts a layer of few tokens for `decode`: w is read once, in stretches as long as may be.

use super::{CACHE_LINE, Cut, Schedule, Storage, Tiles, cut, model, widened_of};
use crate::product::Bordered;

/// Stored rows of w that `decode` takes at a time, where the sum runs along them and where
/// it runs across.
pub(crate) const ROWS_AT_ONCE: usize = 8;
pub(crate) const COLUMNS_AT_ONCE: usize = 16;
/// Sums of a split product, at most: its tile then fills an eighth of L2.
const MOST_SUMS: usize = 1 << 15;

/// Leaders share the rank, the next tickets, if any, the stored rows of w, the others the columns.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DecodeTiles {
    /// Ranks of a leader's ticket.
    pub(crate) lead: usize,
    /// Leaders' tickets.
    pub(crate) leaders: usize,
    /// Stored rows of w in a ticket that forms a part of every sum.
    pub(crate) split: usize,
    /// Tickets of such; 0: no sum is split.
    pub(crate) splits: usize,
    /// Columns of a ticket.
    pub(crate) columns: usize,
}

pub(super) fn cut(of: &Bordered, storage: Storage, workers: usize) -> Cut {
    let (tokens, rank, depth, columns) = (of.rows, of.rank(), of.depth, of.columns());
    let w = of.body.map(|body| body.right);
    let k_major = w.is_some_and(|w| w.k_major);
    let w_bytes = w.map_or(0, |w| w.spec.bytes());
    let padded_rank = of.border.map_or(0, |border| border.shrunk.padded_rank);
    // A stretch of memory for each ticket is what counts: stored rows of w are one whatever
    // their number. Where the sums run across them, they are split, if the parts of all sums
    // fit a cache; else tickets of stored columns are as wide as their tile may be there.
    let (split, splits) = match !k_major && workers > 1 && tokens * columns <= MOST_SUMS {
        true => cut::evenly(depth, depth.div_ceil(4 * workers).max(32), workers, 4),
        false => (depth, 0),
    };
    let most = match k_major || splits > 0 {
        true if workers > 1 => columns.div_ceil(4 * workers),
        // A worker alone reads w in one stretch, as far as its tile, and b where it is widened,
        // stay in a cache.
        true => MOST_SUMS / tokens.max(storage.adapter(rank)),
        false => MOST_SUMS / tokens,
    };
    // Workers that share pages take them from each other.
    let enough = (columns * tokens / 1024).max(1);
    let workers = if k_major || splits > 0 { workers } else { workers.min(enough) };
    let (piece, pieces) = cut::evenly(columns, most.max(64), workers, 8);
    let workers = workers.min(pieces.max(splits));
    let (lead, leaders) = if rank == 0 { (1, 0) } else { cut::evenly(rank, rank, workers, 4) };
    let rate = if k_major { model::DOTS } else { model::SCALED_SUMS };
    let added = of.summand().map_or(0.0, |_| (columns * depth) as f64 / model::WIDENED);
    let streamed = model::streaming(w_bytes) + storage.widening(columns * depth) + added;
    let across = if splits > 0 { columns } else { piece };
    Cut {
        schedule: Schedule {
            workers,
            tickets: leaders + splits + pieces,
            common_scratch: (tokens * padded_rank).next_multiple_of(CACHE_LINE)
                + splits * (tokens * columns).next_multiple_of(CACHE_LINE)
                + 2
                + widened_of(of.summand()),
            worker_scratch: storage.activations(tokens * depth)
                + storage
                    .weights((ROWS_AT_ONCE * depth).max(COLUMNS_AT_ONCE * across), of.summand())
                + storage
                    .adapter((ROWS_AT_ONCE * depth).max(COLUMNS_AT_ONCE * lead) + piece * rank)
                + tokens * piece.max(lead),
            tiles: Tiles::Decode(DecodeTiles { lead, leaders, split, splits, columns: piece }),
        },
        reads_of_w: 1,
        micros: streamed.max(storage.flops() / rate) / workers as f64
            * model::imbalance(pieces, workers),
    }
}

//! Cuts a merge: tickets of stored rows of w, finished block by block.

use super::{Cut, Schedule, Storage, Tiles, cut, model};
use crate::product::Bordered;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MergeTiles {
    /// Rows of w in a ticket.
    pub(crate) rows: usize,
    /// Columns of a block.
    pub(crate) block: usize,
}

pub(super) fn cut(
    [most_rows, most_columns]: [usize; 2],
    of: &Bordered,
    storage: Storage,
    workers: usize,
) -> Cut {
    // The sum runs over the rank.
    let (rank, columns) = (of.depth, of.columns());
    let (rows, tickets) = cut::evenly(of.rows, most_rows, workers, 8);
    let block = most_columns.min(columns);
    Cut {
        schedule: Schedule {
            workers,
            tickets,
            common_scratch: 0,
            worker_scratch: rows * block + storage.adapter(rank * block + rows * rank),
            tiles: Tiles::Merge(MergeTiles { rows, block }),
        },
        reads_of_w: 1,
        micros: storage.flops() / model::FLOPS / workers as f64,
    }
}

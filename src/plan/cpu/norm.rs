//! Cuts the norms of w's rows: tickets of rows, block by block.

use super::{Cut, Schedule, Storage, Tiles, cut, model, widened_of};
use crate::product::Norm;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NormTiles {
    /// Rows of w in a ticket.
    pub(crate) rows: usize,
    /// Columns of a block.
    pub(crate) block: usize,
}

pub(super) fn cut(
    [most_rows, most_columns]: [usize; 2],
    of: &Norm,
    storage: Storage,
    workers: usize,
) -> Cut {
    let Norm { rank, columns, .. } = *of;
    let (rows, tickets) = cut::evenly(of.rows, most_rows, workers, 8);
    let block = most_columns.min(columns);
    let tile = rows * block;
    Cut {
        schedule: Schedule {
            workers,
            tickets,
            common_scratch: widened_of(of.summand),
            worker_scratch: rows
                + tile
                + storage.weights(tile, of.summand)
                + storage.adapter(rank * block + rows * rank),
            tiles: Tiles::Norm(NormTiles { rows, block }),
        },
        reads_of_w: 1,
        micros: (storage.flops() / model::FLOPS + storage.widening(of.rows * columns))
            / workers as f64,
    }
}

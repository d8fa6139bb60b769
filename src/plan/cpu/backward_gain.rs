//! Cuts the gradient of a magnitude: tickets of columns, each of which walks all tokens.

use super::{Cut, Schedule, Storage, Tiles, cut, model};
use crate::product::GainGradient;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BackwardGainTiles {
    /// Columns of a ticket.
    pub(crate) columns: usize,
    /// Tokens that are scaled at a time.
    pub(crate) band: usize,
}

pub(super) fn cut(
    [most_tokens, most_columns]: [usize; 2],
    of: &GainGradient,
    storage: Storage,
    workers: usize,
) -> Cut {
    let (columns, tickets) = cut::evenly(of.columns, most_columns, workers, 16);
    let band = most_tokens.min(of.tokens.max(1));
    let tile = band * columns;
    Cut {
        schedule: Schedule {
            workers,
            tickets,
            common_scratch: 0,
            // The sums, a bias widened, dy scaled; dy and y widened.
            // Gathered they are turned beside what is gathered.
            worker_scratch: 2 * columns
                + tile
                + 2 * (1 + usize::from(of.dy.is_planar())) * storage.activations(tile),
            tiles: Tiles::BackwardGain(BackwardGainTiles { columns, band }),
        },
        reads_of_w: 0,
        micros: storage.bytes as f64 / model::BYTES / workers as f64,
    }
}

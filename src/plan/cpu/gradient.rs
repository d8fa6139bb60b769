//! Cuts the gradients for `gradient`: tickets of columns, each of which walks all tokens.

use super::{Cut, Schedule, Storage, Tiles, cut, model};
use crate::product::Outer;

/// Columns of `da` first, then of the transpose of `db`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GradientTiles {
    /// Columns of a ticket.
    pub(crate) columns: usize,
    /// Tickets that `da` takes.
    pub(crate) tickets_a: usize,
    /// Tokens that are summed at a time.
    pub(crate) band: usize,
}

pub(super) fn cut(
    [most_tokens, most_columns]: [usize; 2],
    of: &[Option<Outer>; 2],
    storage: Storage,
    workers: usize,
) -> Cut {
    let [of_a, of_b] = of.each_ref().map(|of| of.as_ref().map_or(0, |of| of.columns));
    let some = of.iter().flatten().next();
    let (tokens, rank) = some.map_or((0, 0), |of| (of.tokens, of.rank));
    let (columns, _) = cut::evenly(of_a + of_b, most_columns, workers, 16);
    let tickets_a = of_a.div_ceil(columns);
    let band = most_tokens.min(tokens.max(1));
    let work = storage.flops() / model::FLOPS + storage.widening(tokens * (of_a + of_b));
    Cut {
        schedule: Schedule {
            workers,
            tickets: tickets_a + of_b.div_ceil(columns),
            common_scratch: 0,
            worker_scratch: rank * columns + storage.activations(band * columns + band * rank),
            tiles: Tiles::Gradient(GradientTiles { columns, tickets_a, band }),
        },
        reads_of_w: 0,
        micros: work / workers as f64,
    }
}

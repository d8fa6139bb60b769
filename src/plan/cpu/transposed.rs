//! Cuts the gradient of a convolution's input for `transposed`: what shrinks dy first, then bands of pixels and pieces of
//! their channels.

use super::linear::{LinearTiles, guard_of, shrink};
use super::{Cut, Schedule, Storage, Tiles, cut, model};
use crate::product::Transposed;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TransposedTiles {
    /// How dshrunk is made.
    pub(crate) shrink: LinearTiles,
    /// Tickets that make it; 0: there is no rank.
    pub(crate) leaders: usize,
    /// Pixels of a ticket.
    pub(crate) band: usize,
    /// Channels of a ticket.
    pub(crate) columns: usize,
    /// Tickets of a band.
    pub(crate) pieces: usize,
    /// Steps of the sum of a tap between two panels.
    pub(crate) depth: usize,
    /// Scratch with which sums are formed in one order; 0: `gemm` may choose.
    pub(crate) guard: usize,
}

pub(super) fn cut(
    [most_rows, most_columns, step]: [usize; 3],
    of: &Transposed,
    storage: Storage,
    workers: usize,
) -> Cut {
    let (rows, columns, rank) = (of.rows, of.columns, of.rank());
    let (band, bands) = cut::evenly(rows, most_rows, workers, 8);
    let (piece, pieces) = cut::evenly(columns, most_columns, 1, 16);
    let piece = piece.min(columns);
    let (leaders, first, common) = match &of.shrink {
        Some(of) => {
            let padded_rank = of.border.map_or(0, |border| border.shrunk.padded_rank);
            let cut = shrink([most_rows, step], of, storage, workers);
            (cut.schedule.tickets, Some(cut.schedule), of.rows * padded_rank)
        }
        None => (0, None, 0),
    };
    let (shrink, of_shrink) = match first {
        Some(Schedule { tiles: Tiles::Linear(tiles), worker_scratch, .. }) => {
            (tiles, worker_scratch)
        }
        _ => (LinearTiles::default(), 0),
    };
    let guard = if storage.is_invariant { guard_of(band, piece) } else { 0 };
    let step = step.min(of.depth.max(rank));
    let gathered = bands * pieces * band * of.taps * (of.depth + rank);
    let work = storage.flops() / model::FLOPS
        + gathered as f64 / model::WIDENED
        + (bands * of.taps * columns * of.depth) as f64 / model::PACKED;
    Cut {
        schedule: Schedule {
            workers,
            tickets: leaders + bands * pieces,
            common_scratch: common + 1,
            worker_scratch: of_shrink.max(guard + band * piece + (band + piece) * step),
            tiles: Tiles::Transposed(TransposedTiles {
                shrink,
                leaders,
                band,
                columns: piece,
                pieces,
                depth: step,
                guard,
            }),
        },
        reads_of_w: bands,
        micros: work / workers as f64 * model::imbalance(bands * pieces, workers),
    }
}

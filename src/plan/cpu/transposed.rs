//! Cuts the gradient of a convolution's input for `transposed`: what shrinks dy first, then bands of pixels and pieces of
//! their channels.

use super::linear::{LinearTiles, guard_of, shrink};
use super::{Cut, Schedule, Storage, Tiles, cut, model, widened_of};
use crate::product::Transposed;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TransposedTiles {
    /// How dshrunk is made.
    pub(crate) shrink: LinearTiles,
    /// Tickets that make it; 0: there is no rank.
    pub(crate) leaders: usize,
    /// Tickets of a phase.
    pub(crate) of_phase: usize,
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
    let (columns, rank) = (of.columns, of.rank());
    // The first phase has the most pixels.
    let phases = of.phases[0] * of.phases[1];
    let window = of.neighbours.of_phase([0, 0]);
    let images = of.rows / (of.size[0] * of.size[1]).max(1);
    let rows = images * window.pixels[0] * window.pixels[1];
    let (band, bands) = cut::evenly(rows, most_rows, workers.div_ceil(phases), 8);
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
    // Of every phase its own taps.
    let gathered = bands * pieces * band * of.taps * (of.depth + rank);
    let work = storage.flops() / model::FLOPS / phases as f64
        + gathered as f64 / model::WIDENED
        + (bands * of.taps * columns * of.depth) as f64 / model::PACKED;
    Cut {
        schedule: Schedule {
            workers,
            tickets: leaders + phases * bands * pieces,
            // What w has beside what is stored lies behind the counter.
            common_scratch: (common + 1).saturating_add(widened_of(of.summand)),
            worker_scratch: of_shrink.max(guard + band * piece + (band + piece) * step),
            tiles: Tiles::Transposed(TransposedTiles {
                shrink,
                leaders,
                of_phase: bands * pieces,
                band,
                columns: piece,
                pieces,
                depth: step,
                guard,
            }),
        },
        reads_of_w: bands,
        micros: work / workers as f64 * model::imbalance(phases * bands * pieces, workers),
    }
}

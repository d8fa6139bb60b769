//! Cuts the gradient of a convolution's input for `transposed`: what shrinks dy first, then images, or strips of one, and pieces
//! of their channels.

use super::linear::{LinearTiles, guard_of, shrink};
use super::{Cut, Schedule, Storage, Tiles, cut, model, widened_of};
use crate::product::Transposed;

/// Sums of pixels that a ticket has, at most: half of a large L2, beside its tile.
const MOST_SUMS: usize = 1 << 18;
/// Channels of a ticket are a multiple of these, where there are so many.
const CHANNELS: usize = 8;
/// Channels of a ticket, at most, where they lie side by side: eight panels of `gemm`.
const SIDE_BY_SIDE: usize = 192;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TransposedTiles {
    /// How dshrunk is made.
    pub(crate) shrink: LinearTiles,
    /// Tickets that make it; 0: there is no rank.
    pub(crate) leaders: usize,
    /// Images of a ticket; of one, as few rows of pixels as a strip has.
    pub(crate) images: usize,
    pub(crate) lines: usize,
    /// Tickets of an image.
    pub(crate) strips: usize,
    /// Tickets of all images and strips, which have the same channels.
    pub(crate) of_piece: usize,
    /// Channels of a ticket.
    pub(crate) columns: usize,
    /// Tokens that are multiplied at a time.
    pub(crate) band: usize,
    /// Steps of the sum between two panels.
    pub(crate) depth: usize,
    /// Sums of a ticket's pixels; 0: those of its tokens are these.
    pub(crate) sums: usize,
    /// Scratch with which sums are formed in one order; 0: `gemm` may choose.
    pub(crate) guard: usize,
}

pub(super) fn cut(
    [most_rows, most_columns, step]: [usize; 3],
    of: &Transposed,
    storage: Storage,
    workers: usize,
) -> Cut {
    let (rank, window) = (of.rank(), of.window);
    let [height, width] = of.size;
    let tokens = window.pixels[0] * window.pixels[1];
    let images = of.rows / (height * width).max(1);
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
    // As many whole images as are multiplied at once; of a large one strips. Where sums have one order, how an image is cut
    // depends on that image alone.
    let group = (most_rows / tokens.max(1)).clamp(1, images);
    let is_turned = of.of_tokens.is_planar();
    let most = if is_turned { (most_columns / of.taps).max(1) } else { SIDE_BY_SIDE };
    let unit = if most < CHANNELS || of.columns < CHANNELS { 1 } else { CHANNELS };
    let most = most / unit * unit;
    let fair = if storage.is_invariant { 1 } else { workers.div_ceil(images.div_ceil(group)) };
    let (piece, pieces) = cut::evenly(of.columns, most, fair.min(of.columns.div_ceil(unit)), unit);
    let piece = piece.min(of.columns);
    let is_plain = is_turned && window.is_plain();
    let most_lines = if is_plain { height } else { (MOST_SUMS / (width * piece)).clamp(1, height) };
    let group = if height > most_lines { 1 } else { group };
    let groups = images.div_ceil(group);
    let strips = height.div_ceil(most_lines).max(fair.div_ceil(pieces).min(height));
    let lines = height.div_ceil(if group > 1 { 1 } else { strips });
    let strips = height.div_ceil(lines);
    // Tokens at the ends of a strip belong to two of them.
    let reach = (window.kernel[0] - 1) * window.dilation[0];
    let rows = ((lines + reach).div_ceil(window.stride[0]) + 1).min(window.pixels[0]);
    let (band, _) = cut::evenly(group * rows * window.pixels[1], most_rows, 1, 8);
    let block = if is_turned { piece.saturating_mul(of.taps) } else { piece };
    let guard = if storage.is_invariant { guard_of(band, block) } else { 0 };
    let step = step.min(of.depth.max(rank));
    let all_sums = [lines, width, piece].into_iter().fold(group, usize::saturating_mul);
    let sums = if is_plain { 0 } else { all_sums };
    let again = (lines + reach) as f64 / lines as f64;
    let of_w = of.taps as f64 * of.columns as f64;
    let added = (images * tokens) as f64 * again * of_w;
    let work = storage.flops() / model::FLOPS * again
        + added / model::WIDENED
        + (groups * strips) as f64 * of_w * of.depth as f64 / model::PACKED_ALONG;
    let tickets = groups * strips * pieces;
    Cut {
        schedule: Schedule {
            workers,
            tickets: leaders + tickets,
            // What w has beside what is stored lies behind the counter.
            common_scratch: (common + 1).saturating_add(widened_of(of.summand)),
            worker_scratch: of_shrink.max(
                [
                    sums,
                    band.saturating_mul(block),
                    storage.activations(band * step),
                    storage.weights(block.saturating_mul(step), of.summand),
                    storage.adapter(block.saturating_mul(rank)),
                ]
                .into_iter()
                .fold(guard, usize::saturating_add),
            ),
            tiles: Tiles::Transposed(TransposedTiles {
                shrink,
                leaders,
                images: group,
                lines,
                strips,
                of_piece: groups * strips,
                columns: piece,
                band,
                depth: step,
                sums,
                guard,
            }),
        },
        reads_of_w: groups * strips,
        micros: work / workers as f64 * model::imbalance(tickets, workers),
    }
}

//! Cuts the gradients of a LoKr with a whole w2: tickets of dw2's columns, each of which walks all tokens, and of
//! tokens, each of which leaves its part of dw1.

use super::{CACHE_LINE, Cut, Schedule, Storage, Tiles, cut, model, widened_len};
use crate::product::{KroneckerGradients, Load};

/// Tokens of a slab, at least: so few parts of dw1 cost nothing to add.
const LEAST_SLAB: usize = 32;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct KroneckerTiles {
    /// Columns of a ticket of dw2.
    pub(crate) columns: usize,
    /// Its tickets, which come first.
    pub(crate) tickets: usize,
    /// Tokens of a ticket of dw1.
    pub(crate) slab: usize,
    /// Its tickets, each with a part of dw1 in the common scratch.
    pub(crate) slabs: usize,
    /// From one part to the next.
    pub(crate) part: usize,
    /// Tokens that are taken at a time.
    pub(crate) band: usize,
}

pub(super) fn cut(
    [most_tokens, most_columns]: [usize; 2],
    of: &KroneckerGradients,
    storage: Storage,
    workers: usize,
) -> Cut {
    let ([rows, columns_of_w1], [c, d]) = (of.outer, of.inner);
    let (columns, tickets) = match of.of_w2 {
        Some(_) => cut::evenly(d, most_columns, workers, 16),
        None => (0, 0),
    };
    let (slab, slabs) = match of.of_w1 {
        Some(_) if of.tokens > 0 => {
            let pieces = (4 * workers).min(of.tokens.div_ceil(LEAST_SLAB));
            let slab = of.tokens.div_ceil(pieces);
            (slab, of.tokens.div_ceil(slab))
        }
        _ => (0, 0),
    };
    let part = rows.saturating_mul(columns_of_w1).next_multiple_of(CACHE_LINE);
    let band = most_tokens.min(of.tokens.max(1));
    // The sums, what w1 leaves of dy, dy and x widened; what w2 leaves of dy, and both widened; the sums. What is gathered
    // column by column and wanted row by row is there twice.
    let twice = |load: &Load| 1 + usize::from(load.is_planar());
    let of_w2 = columns.saturating_mul(c)
        + band * c
        + storage.activations(twice(&of.dy) * band * rows * c + band * columns);
    let of_w1 = band * d + storage.activations(band * c + twice(&of.x) * band * columns_of_w1 * d);
    let others = [of.of_w1, of.of_w2].into_iter().flatten();
    let factors = others.map(|of| widened_len([&of.other])).fold(0, usize::saturating_add);
    let work = storage.flops() / model::FLOPS + storage.widening(of.tokens * (rows * c));
    Cut {
        schedule: Schedule {
            workers,
            tickets: tickets + slabs,
            common_scratch: slabs.saturating_mul(part).saturating_add(factors),
            worker_scratch: of_w1.max(of_w2).max(part),
            tiles: Tiles::Kronecker(KroneckerTiles { columns, tickets, slab, slabs, part, band }),
        },
        reads_of_w: 0,
        micros: work / workers as f64,
    }
}

//! transposed · CPU · f32, f16, bf16
//!
//! computes   dx[band × piece] = Σ over taps dy[neighbours]·w[tap] + dshrunk[neighbours]·a[tap]
//! serves     backward_input of a convolution
//! tile       a band of pixels of one phase of the input, which see the same taps, a piece of their channels; tap by tap,
//!            and of each tap the channels of the output in steps
//! two_pass   the first tickets compute all of dshrunk, which the others want of their pixels' neighbours, too: these
//!            multiply first, and wait for it only at their border
//! scratch    common: dshrunk in f32, a counter; a worker: the tile, panels gathered and widened

use super::bound::Bound;
use super::gather::Images;
use super::linear::{Linear, add};
use super::microkernels::Tile;
use super::source::Source;
use super::target::{Rounding, Target};
use super::tickets::{Publish, Team, wait};
use super::workspace::Scratch;
use super::{Slice, SliceMut};
use crate::plan::cpu::TransposedTiles;
use crate::problem::Scalars;
use crate::product::Transposed;
use crate::{Operands, Result};

pub(super) fn run<'a>(
    product: &Transposed,
    scalars: Scalars,
    tiles: &TransposedTiles,
    operands: &mut Operands<Slice<'a>, SliceMut<'a>>,
    team: Team<'_>,
    scratch: Scratch<'_>,
) -> Result<()> {
    let shrink = match &product.shrink {
        Some(of) => {
            let bound = Bound::take(of, scalars, operands, scratch)?;
            Some(Linear { product: of, tiles: &tiles.shrink, bound })
        }
        None => None,
    };
    let dy = Source::take(&product.dy, operands)?;
    let summand = product.summand.as_ref();
    let w = Source::take_summed(&product.w, summand, scalars.scale, operands, scratch)?;
    let a = product.a.map(|a| Source::take(&a, operands)).transpose()?;
    let out = Target::take(&product.finish.out, operands)?;
    let rounding = Rounding { beta: product.finish.old.value(scalars), ..Rounding::default() };
    let (rank, steps) = (product.rank(), product.steps);
    let images = product.rows / (product.size[0] * product.size[1]).max(1);
    let (tokens, padded_rank) = match &product.shrink {
        Some(of) => (of.rows, shrink.as_ref().map_or(0, |of| of.bound.padded_rank())),
        None => (0, 0),
    };
    // SAFETY: the counter lies behind dshrunk, and nothing else uses it.
    let done = unsafe { scratch.counters(tokens * padded_rank, 1) };
    let done = &done[0];
    team.run(
        // SAFETY: `Team::run` gives each worker's number out once.
        |worker| unsafe { scratch.of_worker(worker) },
        |own, at| {
            if at < tiles.leaders {
                let _done = Publish(done);
                let Some(shrink) = &shrink else { return };
                let band = tiles.shrink.band;
                let rows = at * band..tokens.min((at + 1) * band);
                // SAFETY: these rows are this ticket's alone until it publishes them.
                let t = unsafe {
                    let (start, len) = (rows.start * padded_rank, rows.len() * padded_rank);
                    core::slice::from_raw_parts_mut(scratch.common(start, len), len)
                };
                return shrink.shrink(rows, t, own);
            }
            let at = at - tiles.leaders;
            let (phase, at) = (at / tiles.of_phase, at % tiles.of_phase);
            let (band, piece) = (at / tiles.pieces, at % tiles.pieces);
            let phase = [phase / product.phases[1], phase % product.phases[1]];
            let (dy, neighbours) = (dy.of_phase(phase), product.neighbours.of_phase(phase));
            let pixels = images * neighbours.pixels[0] * neighbours.pixels[1];
            let rows = band * tiles.band..pixels.min((band + 1) * tiles.band);
            if rows.is_empty() {
                return;
            }
            let kernel = neighbours.kernel[1];
            let sees = |tap: &usize| {
                let taps = [(0, tap / kernel), (1, tap % kernel)];
                taps.into_iter().all(|(axis, tap)| neighbours.shift(axis, tap).is_some())
            };
            let cols = piece * tiles.columns..product.columns.min((piece + 1) * tiles.columns);
            let (guard, own) = own.split_at_mut(tiles.guard);
            let (sums, own) = own.split_at_mut(rows.len() * cols.len());
            let mut tile = Tile::in_scratch(sums, rows.len(), cols.len());
            // ── multiply ──────────────────────────────────────────────────────
            let mut keep = 0.0;
            for tap in (0..product.taps).filter(sees) {
                for start in (0..product.depth).step_by(tiles.depth) {
                    let sum = start..product.depth.min(start + tiles.depth);
                    let (of_left, of_right) = own.split_at_mut(rows.len() * sum.len());
                    let first = tap * product.depth;
                    let seen = first + sum.start..first + sum.end;
                    let left = dy.panel(rows.clone(), seen, of_left);
                    let right = w.tap(tap, steps, cols.clone(), sum, of_right);
                    add(&mut tile, keep, left, right, guard);
                    keep = 1.0;
                }
            }
            // ── border: dshrunk meets a ───────────────────────────────────────
            if let Some(a) = a {
                wait(done, tiles.leaders);
                // SAFETY: the leaders have written all rows and published them (acquired in `wait`); nobody writes
                // them again.
                let elements = unsafe {
                    let len = tokens * padded_rank;
                    core::slice::from_raw_parts(scratch.common(0, len), len)
                };
                let t = Images { elements, offset: 0, stride: padded_rank };
                for tap in (0..product.taps).filter(sees) {
                    for start in (0..rank).step_by(tiles.depth) {
                        let ranks = start..rank.min(start + tiles.depth);
                        let (of_left, of_right) = own.split_at_mut(rows.len() * ranks.len());
                        let seen = tap * rank + ranks.start..tap * rank + ranks.end;
                        let left = t.panel(&neighbours, rows.clone(), seen, of_left);
                        let right = a.tap(tap, steps, cols.clone(), ranks, of_right);
                        add(&mut tile, 1.0, left, right, guard);
                    }
                }
            }
            // ── finish: round once, store ─────────────────────────────────────
            if keep == 0.0 {
                // No tap sees them.
                sums.fill(0.0);
            }
            let step = cols.len();
            if product.phases == [1, 1] {
                // SAFETY: these pixels and channels are this ticket's.
                return unsafe { out.finish(rows, cols, sums, step, rounding) };
            }
            for (row, sums) in rows.zip(sums.chunks_exact_mut(step.max(1))) {
                let pixel = neighbours.whole(row, product.size);
                // SAFETY: as above; other phases have other pixels.
                unsafe { out.finish(pixel..pixel + 1, cols.clone(), sums, step, rounding) };
            }
        },
    );
    Ok(())
}

//! decode · CPU · f32, f16, bf16
//!
//! computes   y = gain∘(x·wᵀ + shrunk·bᵀ) (+ bias) for up to 16 tokens
//! serves     forward and, with the roles turned, backward_input
//! tile       a ticket is a range of columns; w is streamed once, row by row where its rows
//!            are contiguous (dot products, eight at a time), else one or four columns at a
//!            time (scaled sums)
//! split      where the sums run across the stored rows of an f32 w, tickets of whole rows come
//!            before those: each leaves its part of every sum in `parts`, and a ticket of
//!            columns adds the parts in their order. Memory is then read in long stretches
//! leader     the first tickets share the ranks of shrunk and count `led` up; the others
//!            wait for it only at their border
//! scratch    common: shrunk in f32, parts, two counters; a worker: x and pieces of w widened,
//!            its tile

use core::ops::Range;

use super::bound::Bound;
use super::microkernels::{
    NARROW, STREAMED, WIDENED, dots, dots_of_halves, narrow_sums, scaled_halves, scaled_sums,
    streamed_halves, streamed_sums,
};
use super::panel::Panel;
use super::source::Source;
use super::tickets::{Publish, Team, wait};
use super::workspace::Scratch;
use super::{Slice, SliceMut};
use crate::plan::cpu::{CACHE_LINE, COLUMNS_AT_ONCE, DecodeTiles, ROWS_AT_ONCE};
use crate::problem::Scalars;
use crate::product::Bordered;
use crate::{Operands, Result};

pub(super) fn run<'a>(
    product: &Bordered,
    scalars: Scalars,
    tiles: &DecodeTiles,
    operands: &mut Operands<Slice<'a>, SliceMut<'a>>,
    team: Team<'_>,
    scratch: Scratch<'_>,
) -> Result<()> {
    let bound = Bound::take(product, scalars, operands, scratch)?;
    let Some(body) = bound.body else { return Ok(()) };
    let (x, w, border) = (bound.left, body.right, bound.border);
    let (rank, padded_rank) = (bound.rank(), bound.padded_rank());
    let (tokens, columns, depth) = (product.rows, bound.columns(), product.depth);
    let splits = tiles.splits;
    // Each part begins a cache line, and is written by one worker alone.
    let (led_area, area) = (
        (tokens * padded_rank).next_multiple_of(CACHE_LINE),
        (tokens * columns).next_multiple_of(CACHE_LINE),
    );
    let common = || scratch.common(0, tokens * padded_rank);
    let parts = |at: usize, len: usize| scratch.common(led_area + at * area, len * area);
    // SAFETY: the counters lie behind the common shrunk and the parts, and nothing else uses
    // them. No worker runs yet, so shrunk, too, can be cleared: its pad stays zero.
    let done = unsafe {
        common().write_bytes(0, tokens * padded_rank);
        scratch.counters(led_area + splits * area, 2)
    };
    let (led, split) = (&done[0], &done[1]);
    team.run(
        |worker| {
            // SAFETY: `Team::run` gives each worker's number out once.
            let own = unsafe { scratch.of_worker(worker) };
            let (room, own) = own.split_at_mut(if x.is_f32() { 0 } else { tokens * depth });
            (x.panel(0..tokens, 0..depth, room), own)
        },
        |(x, own), at| {
            if at < tiles.leaders {
                let _done = Publish(led);
                let Some(border) = &border else { return };
                let ranks = at * tiles.lead..rank.min((at + 1) * tiles.lead);
                let (tile, own) = own.split_at_mut(tokens * ranks.len());
                stream(*x, border.down, ranks.clone(), 0..depth, tile, own);
                for (row, tile) in tile.chunks_exact_mut(ranks.len()).enumerate() {
                    tile.iter_mut().for_each(|value| *value *= border.scale);
                    border.round(tile);
                    // SAFETY: these ranks are this ticket's alone until it publishes them.
                    let t = unsafe {
                        let start = common().add(row * padded_rank + ranks.start);
                        core::slice::from_raw_parts_mut(start, ranks.len())
                    };
                    t.copy_from_slice(tile);
                }
                return;
            }
            // ── split: a part of every sum ────────────────────────────────────
            let at = at - tiles.leaders;
            if at < splits {
                let _done = Publish(split);
                let rows = at * tiles.split..depth.min((at + 1) * tiles.split);
                // SAFETY: this part is this ticket's alone until it publishes it.
                let tile =
                    unsafe { core::slice::from_raw_parts_mut(parts(at, 1), tokens * columns) };
                return stream(*x, w, 0..columns, rows, tile, own);
            }
            let piece = at - splits;
            let cols = piece * tiles.columns..columns.min((piece + 1) * tiles.columns);
            let (tile, own) = own.split_at_mut(tokens * cols.len());
            // ── multiply ──────────────────────────────────────────────────────
            if splits == 0 {
                stream(*x, w, cols.clone(), 0..depth, tile, own);
            } else {
                wait(split, splits);
                // SAFETY: the tickets of rows have written the parts and published them
                // (acquired in `wait`); nobody writes them again.
                let parts = unsafe { core::slice::from_raw_parts(parts(0, splits), splits * area) };
                add_parts(parts, area, columns, cols.clone(), tile);
            }
            // ── border: shrunk meets b ────────────────────────────────────────
            if let Some((border, up)) = border.and_then(|border| Some((border, border.up?))) {
                wait(led, tiles.leaders);
                // SAFETY: the leaders have written these elements and published them
                // (acquired in `wait`); nobody writes them again.
                let t = unsafe { core::slice::from_raw_parts(common(), tokens * padded_rank) };
                if piece == 0 {
                    // SAFETY: this ticket alone writes shrunk.
                    unsafe { border.keep(0..tokens, t) };
                }
                let t = Panel::new(t, tokens, rank, padded_rank);
                match up.is_k_major() {
                    true => dots(t, up.panel(cols.clone(), 0..rank, own), tile, cols.len(), true),
                    false => add_scaled(t, up, cols.clone(), 0..rank, tile, own),
                }
            }
            // ── finish: gain, bias, round once, store ─────────────────────────
            let (step, rounding) = (cols.len(), body.rounding(cols.clone(), own));
            // SAFETY: these columns are this ticket's.
            unsafe { body.out.finish(0..tokens, cols, tile, step, rounding) };
        },
    );
    Ok(())
}

/// `tile = Σ parts` in their order, for some columns of parts that are `[tokens, columns]` each and
/// begin `area` elements apart.
fn add_parts(parts: &[f32], area: usize, columns: usize, cols: Range<usize>, tile: &mut [f32]) {
    for (at, part) in parts.chunks_exact(area).enumerate() {
        for (tile, part) in tile.chunks_exact_mut(cols.len()).zip(part.chunks_exact(columns)) {
            let part = &part[cols.clone()];
            match at {
                0 => tile.copy_from_slice(part),
                _ => tile.iter_mut().zip(part).for_each(|(sum, part)| *sum += part),
            }
        }
    }
}

/// `tile[token][col] = Σ x[token][k]·w[cols.start + col][k]` over the k of `sum`, w read from
/// memory once.
fn stream(
    x: Panel<'_>,
    w: Source<'_>,
    cols: Range<usize>,
    sum: Range<usize>,
    tile: &mut [f32],
    own: &mut [f32],
) {
    let stride = cols.len();
    if !w.is_k_major() {
        if w.is_f32() && x.rows == 1 && STREAMED.contains(&stride) {
            return streamed_sums(part_of(x, &sum), w.panel(cols, sum, own), tile);
        }
        tile.fill(0.0);
        return add_scaled(x, w, cols, sum, tile, own);
    }
    if let (true, Some(w)) = (x.rows <= WIDENED, w.halves(&cols, &sum)) {
        return dots_of_halves(part_of(x, &sum), w, tile, stride);
    }
    // All at once where they are read in place for one token alone.
    let step = if w.is_f32() && x.rows == 1 { stride } else { ROWS_AT_ONCE };
    for start in cols.clone().step_by(step) {
        let rows = start..cols.end.min(start + step);
        let w = w.panel(rows, sum.clone(), own);
        dots(part_of(x, &sum), w, &mut tile[start - cols.start..], stride, false);
    }
}

/// `tile[token][col] += Σ x[token][k]·w[cols.start + col][k]` over the k of `sum`, where those of
/// one k are contiguous in w.
fn add_scaled(
    x: Panel<'_>,
    w: Source<'_>,
    cols: Range<usize>,
    sum: Range<usize>,
    tile: &mut [f32],
    own: &mut [f32],
) {
    let stride = cols.len();
    if let (true, Some(w)) = (x.rows <= WIDENED, w.halves(&cols, &sum)) {
        let x = part_of(x, &sum);
        return match STREAMED.contains(&stride) {
            true => streamed_halves(x, w, tile, stride),
            false => scaled_halves(x, w, tile, stride),
        };
    }
    if w.is_f32() && x.rows == 1 {
        let (x, w) = (part_of(x, &sum), w.panel(cols, sum, own));
        return match stride {
            ..=NARROW => narrow_sums(x, w, tile),
            _ => scaled_sums::<4>(x, w, tile, stride),
        };
    }
    // What is widened at a time stays in L1 where it can.
    let step = ((1 << 14) / stride).clamp(4, COLUMNS_AT_ONCE);
    for start in sum.clone().step_by(step) {
        let sum = start..sum.end.min(start + step);
        let w = w.panel(cols.clone(), sum.clone(), own);
        scaled_sums::<4>(part_of(x, &sum), w, tile, stride);
    }
}

/// The columns `sum` of x.
fn part_of<'a>(x: Panel<'a>, sum: &Range<usize>) -> Panel<'a> {
    Panel { elements: &x.elements[sum.start.min(x.elements.len())..], cols: sum.len(), ..x }
}

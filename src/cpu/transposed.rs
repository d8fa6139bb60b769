//! transposed · CPU · f32, f16, bf16
//!
//! computes   dx[images × piece] = Σ over tokens and taps of dy·w + dshrunk·a, where the token's tap sees the pixel
//! serves     backward_input of a convolution
//! tile       some images, or a strip of rows of pixels of one, and a piece of their channels; in it bands of the tokens that see
//!            them, multiplied with all taps of these channels in the order in which w is stored, and added to the pixels
//! two_pass   the first tickets compute all of dshrunk; the others multiply first, and wait for it only at their border
//! planes     of images channels first tokens lie side by side in tiles, as pixels do in planes
//! scratch    common: dshrunk in f32, a counter; a worker: its pixels' sums, the tile, panels gathered and widened

use core::ops::Range;

use super::bound::Bound;
use super::linear::{Linear, add};
use super::microkernels::Tile;
use super::panel::Panel;
use super::source::Source;
use super::taps::{EachRun, KERNEL, LIST, Lead, Taps};
use super::target::{Rounding, Target};
use super::tickets::{Publish, Team, wait};
use super::workspace::Scratch;
use super::{Slice, SliceMut};
use crate::plan::cpu::{STEPS, TransposedTiles};
use crate::problem::Scalars;
use crate::product::{Transposed, Window};
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
    let summand = product.summand.as_ref();
    let transposed = Back {
        product,
        tiles,
        dy: Source::take(&product.of_tokens, operands)?,
        w: Source::take_summed(&product.w, summand, scalars.scale, operands, scratch)?,
        a: product.a.map(|a| Source::take(&a, operands)).transpose()?,
        out: Target::take(&product.finish.out, operands)?,
        beta: product.finish.old.value(scalars),
    };
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
            let Some(at) = at.checked_sub(tiles.leaders) else {
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
            };
            let dshrunk = |rows: &Range<usize>| {
                wait(done, tiles.leaders);
                // SAFETY: the leaders have written all rows and published them (acquired in `wait`); nobody writes
                // them again.
                unsafe {
                    let (start, len) = (rows.start * padded_rank, rows.len() * padded_rank);
                    core::slice::from_raw_parts(scratch.common(start, len), len)
                }
            };
            transposed.ticket(at, padded_rank, dshrunk, own);
        },
    );
    Ok(())
}

struct Back<'a> {
    product: &'a Transposed,
    tiles: &'a TransposedTiles,
    /// `[tokens, depth]`.
    dy: Source<'a>,
    w: Source<'a>,
    a: Option<Source<'a>>,
    out: Target<'a>,
    beta: f32,
}

/// What a ticket has.
struct Part {
    images: Range<usize>,
    /// Rows of pixels of each.
    lines: Range<usize>,
    channels: Range<usize>,
}

impl Back<'_> {
    fn part(&self, at: usize) -> Part {
        let TransposedTiles { images, lines, strips, of_piece, columns, .. } = *self.tiles;
        let [height, width] = self.product.size;
        let all = self.product.rows / (height * width);
        let (piece, at) = (at / of_piece, at % of_piece);
        let (group, strip) = (at / strips, at % strips);
        Part {
            images: group * images..all.min((group + 1) * images),
            lines: strip * lines..height.min((strip + 1) * lines),
            channels: piece * columns..self.product.columns.min((piece + 1) * columns),
        }
    }

    /// `dshrunk` gives its rows of some tokens.
    fn ticket<'t>(
        &self,
        at: usize,
        padded_rank: usize,
        dshrunk: impl Fn(&Range<usize>) -> &'t [f32],
        own: &mut [f32],
    ) {
        let Back { product, tiles, dy, w, .. } = self;
        let Part { images, lines, channels } = self.part(at);
        let (window, width) = (&product.window, product.size[1]);
        let (is_turned, is_plain) = (dy.is_planar(), tiles.sums == 0);
        let pixels = images.len() * lines.len() * width;
        let (guard, own) = own.split_at_mut(tiles.guard);
        let (sums, own) = own.split_at_mut(if is_plain { 0 } else { pixels * channels.len() });
        sums.fill(0.0);
        let taps = Taps::new(window, lines.clone(), lines.len() * width);
        let taps = if is_turned { taps } else { taps.listed() };
        let tokens = tokens(window, &images, &lines);
        let first_token = images.start * window.pixels[0] * window.pixels[1];
        for start in tokens.clone().step_by(tiles.band) {
            let rows = start..tokens.end.min(start + tiles.band);
            // From this ticket's first image on.
            let seen = rows.start - first_token..rows.end - first_token;
            // Columns of w: all taps of a channel are side by side, or all channels of a tap.
            let blocks = if is_turned { 1 } else { product.taps };
            for tap in 0..blocks {
                let cols = match is_turned {
                    true => channels.start * product.taps..channels.end * product.taps,
                    false => {
                        let first = tap * product.columns;
                        first + channels.start..first + channels.end
                    }
                };
                let (room, own) = own.split_at_mut(rows.len() * cols.len());
                let mut tile = match is_turned {
                    true => Tile::turned(room, rows.len(), cols.len()),
                    false => Tile::in_scratch(room, rows.len(), cols.len()),
                };
                // ── multiply ──────────────────────────────────────────────────
                let mut keep = 0.0;
                for start in (0..product.depth).step_by(tiles.depth) {
                    let sum = start..product.depth.min(start + tiles.depth);
                    let of_left = if dy.is_f32() { 0 } else { rows.len() * sum.len() };
                    let (of_left, of_right) = own.split_at_mut(of_left);
                    let left = dy.panel(rows.clone(), sum.clone(), of_left);
                    let right = w.panel(cols.clone(), sum, of_right);
                    add(&mut tile, keep, left, right, guard);
                    keep = 1.0;
                }
                // ── border: dshrunk meets a ───────────────────────────────────
                if let Some(a) = &self.a {
                    let (t, rank) = (dshrunk(&rows), product.rank());
                    let t = Panel::new(t, rows.len(), rank, padded_rank);
                    let at_once = if guard.is_empty() { rank } else { STEPS };
                    for first in (0..rank).step_by(at_once) {
                        let ranks = first..rank.min(first + at_once);
                        let t = Panel { elements: &t.elements[first..], cols: ranks.len(), ..t };
                        let right = a.panel(cols.clone(), ranks, own);
                        add(&mut tile, 1.0, t, right, guard);
                    }
                }
                // ── to the pixels ─────────────────────────────────────────────
                match is_turned {
                    // SAFETY: these tokens are this ticket's pixels, and no other's.
                    true if is_plain => unsafe {
                        let (step, rounding) = (rows.len(), self.rounding());
                        self.out.finish_turned(rows.clone(), cols, room, step, rounding);
                    },
                    true => planes(&taps, seen.clone(), product.taps, room, sums, pixels),
                    false => side_by_side(&taps, seen.clone(), tap, room, sums, channels.len()),
                }
            }
        }
        if is_plain {
            return;
        }
        // ── finish: round once, store ─────────────────────────────────────────
        let [height, _] = product.size;
        let first = (images.start * height + lines.start) * width;
        let (rows, step) = (first..first + pixels, channels.len());
        // SAFETY: these pixels and channels are this ticket's.
        unsafe {
            match is_turned {
                true => self.out.finish_turned(rows, channels, sums, pixels, self.rounding()),
                false => self.out.finish(rows, channels, sums, step, self.rounding()),
            }
        }
    }

    fn rounding(&self) -> Rounding<'static> {
        Rounding { beta: self.beta, ..Rounding::default() }
    }
}

/// The tokens of some images that may see these rows of their pixels; of several images all.
fn tokens(window: &Window, images: &Range<usize>, lines: &Range<usize>) -> Range<usize> {
    let [height, width] = window.pixels;
    let (stride, padding) = (window.stride[0], window.padding[0]);
    let reach = (window.kernel[0] - 1) * window.dilation[0];
    let all = *lines == (0..window.image[0]);
    let top = (lines.start + padding).saturating_sub(reach).div_ceil(stride).min(height);
    let bottom = ((lines.end + padding - 1) / stride + 1).clamp(top, height);
    let [top, bottom] = if all { [0, height] } else { [top, bottom] };
    let last = images.end.max(images.start + 1) - 1;
    (images.start * height + top) * width..(last * height + bottom) * width
}

/// Adds a tile, column by column of which each is a channel's tap, to planes of so many pixels.
fn planes(
    taps: &Taps<'_>,
    rows: Range<usize>,
    of_channel: usize,
    tile: &mut [f32],
    sums: &mut [f32],
    pixels: usize,
) {
    let mut lists = [LIST; KERNEL];
    let mut start = rows.start;
    while start < rows.end {
        let some = taps.first_of(&(start..rows.end));
        let (first, len) = (some.start - rows.start, some.len());
        for tap in (0..of_channel).step_by(KERNEL) {
            let leads = taps.leads(&some, tap, of_channel, &mut lists);
            let channels = tile.chunks_exact_mut(of_channel * rows.len());
            // Tap after tap onto one plane, which is in the nearest cache then.
            for (channel, plane) in channels.zip(sums.chunks_exact_mut(pixels)) {
                let columns = channel.chunks_exact_mut(rows.len()).skip(tap);
                for (column, lead) in columns.zip(leads.iter().flatten()) {
                    let from = &mut column[first..first + len];
                    match lead {
                        Lead::Shifted(of) => {
                            // What is led past the end of a row would go to the next one.
                            of.gaps(|at| from[at] = 0.0);
                            let from = &from[of.inside.clone()];
                            let to = &mut plane[of.place..of.place + from.len()];
                            to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
                        }
                        Lead::Listed(runs) => runs.each(&mut Added { from, plane }),
                    }
                }
            }
        }
        start = some.end;
    }
}

/// Tokens of a column, added to a plane.
struct Added<'t, 'p> {
    from: &'t [f32],
    plane: &'p mut [f32],
}

impl EachRun for Added<'_, '_> {
    #[inline(always)]
    fn short<const LEN: usize, const STEP: usize>(&mut self, at: usize, place: usize) {
        let from = &self.from[at..][..LEN];
        let to = &mut self.plane[place..][..(LEN - 1) * STEP + 1];
        // All are read before one is written: what is written might be what is read next, for all that the compiler knows.
        let fours = if STEP == 2 { LEN / 4 } else { 0 };
        for (at, from) in from[..4 * fours].chunks_exact(4).enumerate() {
            let to = &mut to[8 * at..][..7];
            let near = [to[0] + from[0], to[1], to[2] + from[1], to[3]];
            let far = [to[3], to[4] + from[2], to[5], to[6] + from[3]];
            to[..4].copy_from_slice(&near);
            to[3..].copy_from_slice(&far);
        }
        let mut sums = [0.0; LEN];
        for at in 4 * fours..LEN {
            sums[at] = to[at * STEP] + from[at];
        }
        for at in 4 * fours..LEN {
            to[at * STEP] = sums[at];
        }
    }

    #[inline(always)]
    fn long(&mut self, at: usize, place: usize, len: usize, step: usize) {
        let (from, to) = (&self.from[at..][..len], &mut self.plane[place..]);
        to.iter_mut().step_by(step).zip(from).for_each(|(to, from)| *to += from);
    }
}

/// Rows of a tile, added to pixels whose channels lie side by side.
struct AddedTogether<'t, 'p> {
    from: &'t [f32],
    sums: &'p mut [f32],
    channels: usize,
}

impl EachRun for AddedTogether<'_, '_> {
    #[inline(always)]
    fn short<const LEN: usize, const STEP: usize>(&mut self, at: usize, place: usize) {
        self.long(at, place, LEN, STEP);
    }

    #[inline(always)]
    fn long(&mut self, at: usize, place: usize, len: usize, step: usize) {
        for of in 0..len {
            let from = &self.from[(at + of) * self.channels..][..self.channels];
            let to = &mut self.sums[(place + of * step) * self.channels..][..self.channels];
            to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        }
    }
}

/// Adds a tile, row by row of one tap, to pixels whose channels lie side by side.
fn side_by_side(
    taps: &Taps<'_>,
    rows: Range<usize>,
    tap: usize,
    tile: &[f32],
    sums: &mut [f32],
    channels: usize,
) {
    let mut list = LIST;
    let mut start = rows.start;
    while start < rows.end {
        let some = taps.first_of(&(start..rows.end));
        let from = &tile[(some.start - rows.start) * channels..];
        if let Lead::Listed(runs) = taps.lead(&some, tap, &mut list) {
            runs.each(&mut AddedTogether { from, sums, channels });
        }
        start = some.end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Convolution;

    /// The tokens of a strip are all that see it, and of what is not strided or spread no others.
    #[test]
    fn tokens_of_a_strip_are_those_that_see_it() {
        let of = Convolution::new(3, [9, 4], [3, 1]);
        for (of, is_dense) in [
            (of, true),
            (of.padding([1, 0]), true),
            (of.padding([1, 0]).stride([2, 1]), false),
            (of.padding([5, 0]).dilation([3, 1]), false),
            (of.stride([4, 1]), false),
        ] {
            let window = Window::of_input(&of, 1);
            let [height, width] = window.pixels;
            for lines in [0..9, 0..4, 4..8, 8..9] {
                let tokens = tokens(&window, &(1..2), &lines);
                for p in 0..height {
                    let rows = (height + p) * width..(height + p + 1) * width;
                    let sees = (0..window.kernel[0]).filter_map(|u| window.axis(0, p, u));
                    let sees = sees.into_iter().any(|row| lines.contains(&row));
                    let is_in = rows.start >= tokens.start && rows.end <= tokens.end;
                    assert!(is_in || !sees, "{of:?} {lines:?}: {p} is missing");
                    assert!(is_in == sees || !is_dense || lines == (0..9), "{of:?} {lines:?}: {p}");
                }
            }
            assert_eq!(super::tokens(&window, &(0..3), &(0..9)), 0..of.tokens());
        }
    }
}

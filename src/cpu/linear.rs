//! linear · CPU · f32, f16, bf16
//!
//! computes   y[band × ticket] = gain∘(x·wᵀ + shrunk·bᵀ) (+ bias); leaders also shrunk = s·x·aᵀ
//! serves     forward and, with the roles turned, backward_input; backward_shrink, where
//!            there are no columns to multiply
//! tile       a band of up to 512 tokens; in it tickets of columns; in those blocks of up
//!            to 512 columns, multiplied, bordered and finished while they are in the cache
//! leader     tickets of up to 256 tokens compute a band's shrunk and count `done` up; the others
//!            multiply first and wait for `done` only at their border. Leaders run one band
//!            ahead: leaders(0), leaders(1), rest(0), leaders(2), rest(1), …
//! recompute  a ticket is a whole band, and computes its own shrunk: x is read once, and what has to be gathered or widened
//!            of it is so once for shrunk and the first block
//! planes     of images channels first tokens lie side by side, and tiles lie as these do: neither x nor w is turned to be
//!            multiplied, nor y to be stored
//! scratch    common: shrunk in f32, one counter a band; a worker: panels widened to f32

use core::ops::Range;

use super::bound::{Bound, BoundBody, BoundBorder};
use super::microkernels::Tile;
use super::panel::Panel;
use super::source::Source;
use super::tickets::{Publish, Team, wait};
use super::workspace::Scratch;
use super::{Slice, SliceMut};
use crate::plan::cpu::{LinearTiles, STEPS};
use crate::problem::Scalars;
use crate::product::Bordered;
use crate::{Operands, Result};

enum Ticket {
    Leader { band: usize, piece: usize },
    Follower { band: usize, piece: usize },
}

/// Which ticket comes `at`-th: see the order above.
fn ticket(tiles: &LinearTiles, at: usize) -> Ticket {
    let LinearTiles { leaders, followers, bands, .. } = *tiles;
    if at < leaders {
        return Ticket::Leader { band: 0, piece: at };
    }
    let (band, at) =
        ((at - leaders) / (leaders + followers), (at - leaders) % (leaders + followers));
    let ahead = if band + 1 < bands { leaders } else { 0 };
    match at.checked_sub(ahead) {
        None => Ticket::Leader { band: band + 1, piece: at },
        Some(piece) => Ticket::Follower { band, piece },
    }
}

pub(super) fn run<'a>(
    product: &Bordered,
    scalars: Scalars,
    tiles: &LinearTiles,
    operands: &mut Operands<Slice<'a>, SliceMut<'a>>,
    team: Team<'_>,
    scratch: Scratch<'_>,
) -> Result<()> {
    let linear =
        Linear { product, tiles, bound: Bound::take(product, scalars, operands, scratch)? };
    let (rows, padded_rank) = (product.rows, linear.bound.padded_rank());
    let columns = linear.bound.columns();
    let led = tiles.leaders > 0;
    // SAFETY: the counters lie behind the common shrunk, and nothing else uses them.
    let done = unsafe {
        let behind = if led { rows * padded_rank } else { 0 };
        scratch.counters(behind, if led { tiles.bands } else { 0 })
    };
    let band_rows = |band: usize| band * tiles.band..rows.min((band + 1) * tiles.band);
    // Rows of the common shrunk.
    let common =
        |rows: &Range<usize>| scratch.common(rows.start * padded_rank, rows.len() * padded_rank);
    team.run(
        // SAFETY: `Team::run` gives each worker's number out once.
        |worker| unsafe { scratch.of_worker(worker) },
        |own, at| match ticket(tiles, at) {
            Ticket::Leader { band, piece } => {
                let _done = Publish(&done[band]);
                let of_band = band_rows(band);
                let start = of_band.start + piece * tiles.lead;
                let rows = start.min(of_band.end)..of_band.end.min(start + tiles.lead);
                // SAFETY: these rows are this ticket's alone until it publishes them.
                let t = unsafe {
                    core::slice::from_raw_parts_mut(common(&rows), rows.len() * padded_rank)
                };
                linear.shrink(rows, t, own);
            }
            Ticket::Follower { band, piece } => {
                let rows = band_rows(band);
                let cols = piece * tiles.columns..columns.min((piece + 1) * tiles.columns);
                if led {
                    let border = || {
                        wait(&done[band], tiles.leaders);
                        // SAFETY: the band's leaders have written these rows and published
                        // them (acquired in `wait`); nobody writes them again.
                        unsafe {
                            let len = rows.len() * padded_rank;
                            core::slice::from_raw_parts(common(&rows), len)
                        }
                    };
                    linear.multiply(rows.clone(), cols, border, own);
                } else {
                    let (t, own) = own.split_at_mut(tiles.band * padded_rank);
                    linear.whole_band(rows, cols, t, own);
                }
            }
        },
    );
    Ok(())
}

pub(super) struct Linear<'a> {
    pub(super) product: &'a Bordered,
    pub(super) tiles: &'a LinearTiles,
    pub(super) bound: Bound<'a>,
}

impl Linear<'_> {
    /// `t = s·x·aᵀ` for some rows, rounded as `shrunk` is stored; written there, too, if kept.
    pub(super) fn shrink(&self, rows: Range<usize>, t: &mut [f32], own: &mut [f32]) {
        let Some(border) = &self.bound.border else { return };
        if rows.is_empty() {
            return;
        }
        let (sums, own) = own.split_at_mut(self.turned_rank() * rows.len());
        let (guard, own) = own.split_at_mut(self.tiles.guard);
        let mut shrunk = Shrinking::new(border, rows.clone(), t, sums);
        self.steps(rows, border.down, 0..border.rank, own, |keep, x, a| {
            shrunk.add(keep, x, a, guard);
        });
        // SAFETY: each row of shrunk is one ticket's.
        unsafe { shrunk.finish(guard.is_empty()) };
    }

    /// Columns of what is turned for `t`.
    fn turned_rank(&self) -> usize {
        if self.bound.left.is_planar() { self.bound.rank() } else { 0 }
    }

    /// Some rows of y, all its columns, and what these rows have of shrunk into `t`.
    fn whole_band(&self, rows: Range<usize>, cols: Range<usize>, t: &mut [f32], own: &mut [f32]) {
        let shrinks = |body: &BoundBody<'_>, border: &BoundBorder<'_>| {
            // In place there is nothing that could be kept for both.
            let is_copied = !(self.bound.left.is_f32() && body.right.is_f32());
            (is_copied || self.tiles.guard > 0) && border.rank > 0
        };
        match (&self.bound.body, &self.bound.border) {
            (Some(body), Some(border)) if shrinks(body, border) && !rows.is_empty() => {
                let (sums, own) = own.split_at_mut(self.turned_rank() * rows.len());
                let first = cols.start..cols.end.min(cols.start + self.tiles.block);
                let rest = first.end..cols.end;
                let shrinking = Shrinking::new(border, rows.clone(), &mut *t, sums);
                self.block(body, rows.clone(), first, Some(shrinking), || &[], own);
                self.multiply(rows, rest, || &t[..], own);
            }
            _ => {
                self.shrink(rows.clone(), t, own);
                self.multiply(rows, cols, || &t[..], own);
            }
        }
    }

    /// Some rows and columns of y, block by block. `shrunk` gives the rows of shrunk.
    fn multiply<'t>(
        &self,
        rows: Range<usize>,
        cols: Range<usize>,
        shrunk: impl Fn() -> &'t [f32],
        own: &mut [f32],
    ) {
        let Some(body) = &self.bound.body else { return };
        let mut start = cols.start;
        while start < cols.end {
            let block = start..cols.end.min(start + self.tiles.block);
            start = block.end;
            self.block(body, rows.clone(), block, None, &shrunk, own);
        }
    }

    /// A block of them; with what is `shrinking` beside it, which is then the rows of shrunk.
    fn block<'t>(
        &self,
        body: &BoundBody<'_>,
        rows: Range<usize>,
        block: Range<usize>,
        mut shrinking: Option<Shrinking<'t, '_>>,
        shrunk: impl Fn() -> &'t [f32],
        own: &mut [f32],
    ) {
        let (guard, own) = own.split_at_mut(self.tiles.guard);
        let is_turned = self.bound.left.is_planar();
        // Onto old values it would round at their size in every step of the sum.
        let in_place = match self.tiles.in_place {
            true => body.out.in_place(&rows, &block),
            false => None,
        };
        let (sums, own) = own.split_at_mut(match in_place {
            Some(_) => 0,
            None => rows.len() * block.len(),
        });
        let mut tile = match in_place {
            // SAFETY: rows and columns of this ticket are no other ticket's.
            Some((start, down, right)) => unsafe {
                Tile::at(start, rows.len(), block.len(), (down, right))
            },
            None if is_turned => Tile::turned(sums, rows.len(), block.len()),
            None => Tile::in_scratch(sums, rows.len(), block.len()),
        };
        // ── multiply ──────────────────────────────────────────────────────────
        match &mut shrinking {
            None => self.steps(rows.clone(), body.right, block.clone(), own, |keep, x, w| {
                add(&mut tile, keep, x, w, guard);
            }),
            Some(shrinking) => {
                let border = shrinking.border;
                let of_a = if border.down.is_f32() { 0 } else { self.tiles.depth * border.rank };
                let (of_a, own) = own.split_at_mut(of_a);
                self.steps_at(rows.clone(), body.right, block.clone(), own, |sum, keep, x, w| {
                    add(&mut tile, keep, x, w, guard);
                    let a = border.down.panel(0..border.rank, sum, of_a);
                    shrinking.add(keep, x, a, guard);
                });
            }
        }
        let of_block = shrinking.map(|shrinking| {
            // SAFETY: each row of shrunk is one ticket's.
            unsafe { shrinking.finish(guard.is_empty()) }
        });
        // ── border: shrunk meets b ────────────────────────────────────────────
        if let Some(border) = &self.bound.border
            && let Some(up) = border.up
        {
            let (rank, padded_rank) = (border.rank, border.shrunk.padded_rank);
            let t = of_block.unwrap_or_else(&shrunk);
            let t = Panel::new(t, rows.len(), rank, padded_rank);
            let at_once = if guard.is_empty() { rank } else { STEPS };
            for first in (0..rank).step_by(at_once) {
                let ranks = first..rank.min(first + at_once);
                let t = Panel { elements: &t.elements[first..], cols: ranks.len(), ..t };
                let up = up.panel(block.clone(), ranks, own);
                add(&mut tile, 1.0, t, up, guard);
            }
        }
        // ── finish: gain, bias, round once, store ─────────────────────────────
        let rounding = body.rounding(block.clone(), own);
        match in_place {
            Some(_) => tile.finish(&rounding),
            // SAFETY: as above.
            None => unsafe {
                match is_turned {
                    true => {
                        let step = rows.len();
                        body.out.finish_turned(rows, block, sums, step, rounding);
                    }
                    false => {
                        let step = block.len();
                        body.out.finish(rows, block, sums, step, rounding);
                    }
                }
            },
        }
    }

    /// Calls `step(keep, lhs, rhs)` with f32 panels of left and `right` along the sum: at once
    /// where both are f32 in place, else widened `depth` at a time.
    fn steps(
        &self,
        rows: Range<usize>,
        right: Source<'_>,
        cols: Range<usize>,
        own: &mut [f32],
        mut step: impl FnMut(f32, Panel<'_>, Panel<'_>),
    ) {
        self.steps_at(rows, right, cols, own, |_, keep, lhs, rhs| step(keep, lhs, rhs));
    }

    /// The same with the part of the sum that it is.
    fn steps_at(
        &self,
        rows: Range<usize>,
        right: Source<'_>,
        cols: Range<usize>,
        own: &mut [f32],
        mut step: impl FnMut(Range<usize>, f32, Panel<'_>, Panel<'_>),
    ) {
        let (left, depth) = (self.bound.left, self.product.depth);
        let in_place = left.is_f32() && right.is_f32() && self.tiles.guard == 0;
        let at_once = if in_place { depth } else { self.tiles.depth.min(STEPS) };
        let mut start = 0;
        while start < depth {
            let sum = start..depth.min(start + at_once);
            let (of_left, of_right) =
                own.split_at_mut(if left.is_f32() { 0 } else { rows.len() * sum.len() });
            let lhs = left.panel(rows.clone(), sum.clone(), of_left);
            let rhs = right.panel(cols.clone(), sum.clone(), of_right);
            let keep = if start == 0 { 0.0 } else { 1.0 };
            start = sum.end;
            step(sum, keep, lhs, rhs);
        }
    }
}

/// Rows of shrunk while they are summed: `t`, or turned where what they are made of is.
struct Shrinking<'t, 'b> {
    border: &'b BoundBorder<'b>,
    rows: Range<usize>,
    t: &'t mut [f32],
    sums: &'t mut [f32],
}

impl<'t, 'b> Shrinking<'t, 'b> {
    /// `sums` has room for what is turned, or none.
    fn new(
        border: &'b BoundBorder<'b>,
        rows: Range<usize>,
        t: &'t mut [f32],
        sums: &'t mut [f32],
    ) -> Shrinking<'t, 'b> {
        let t = &mut t[..rows.len() * border.shrunk.padded_rank];
        t.fill(0.0);
        Shrinking { border, rows, t, sums }
    }

    fn add(&mut self, keep: f32, x: Panel<'_>, a: Panel<'_>, guard: &mut [f32]) {
        let BoundBorder { rank, scale, shrunk, .. } = *self.border;
        let rows = self.rows.len();
        let mut tile = match self.sums.is_empty() {
            // SAFETY: the tile lies in `t`, whose rows are `padded_rank ≥ rank` elements long.
            true => unsafe { Tile::at(self.t.as_mut_ptr(), rows, rank, (shrunk.padded_rank, 1)) },
            false => Tile::turned(self.sums, rows, rank),
        };
        match guard {
            [] => tile.accumulate(keep, scale, x, a),
            guard => tile.accumulate_ordered(keep, x, a, guard),
        }
    }

    /// Rounds them, and writes them to where they are kept. `is_scaled`: the scale is in the sums.
    ///
    /// # Safety
    /// Nobody else may use these rows of `shrunk` meanwhile.
    unsafe fn finish(self, is_scaled: bool) -> &'t [f32] {
        let Shrinking { border, rows, t, sums } = self;
        if !sums.is_empty() {
            turn(sums, rows.len(), t, border.shrunk.padded_rank);
        }
        if !is_scaled {
            t.iter_mut().for_each(|sum| *sum *= border.scale);
        }
        border.round(t);
        // SAFETY: the caller's.
        unsafe { border.keep_own(rows, t) };
        t
    }
}

/// Columns of so many rows, one behind the other, to rows `step` apart: square by square, which stay in the nearest cache.
fn turn(columns: &[f32], rows: usize, to: &mut [f32], step: usize) {
    const SQUARE: usize = 16;
    let all = columns.len() / rows;
    for first in (0..rows).step_by(SQUARE) {
        for start in (0..all).step_by(SQUARE) {
            let end = all.min(start + SQUARE);
            for row in first..rows.min(first + SQUARE) {
                let to = &mut to[row * step + start..row * step + end];
                for (to, col) in to.iter_mut().zip(start..end) {
                    *to = columns[col * rows + row];
                }
            }
        }
    }
}

/// `tile = keep·tile + left·rightᵀ`, in one order where there is a `guard` for it.
pub(super) fn add(
    tile: &mut Tile,
    keep: f32,
    left: Panel<'_>,
    right: Panel<'_>,
    guard: &mut [f32],
) {
    match guard {
        [] => tile.accumulate(keep, 1.0, left, right),
        guard => tile.accumulate_ordered(keep, left, right, guard),
    }
}

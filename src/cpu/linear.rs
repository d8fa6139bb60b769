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
//! recompute  a ticket is a whole band, and computes its own shrunk: x is read once
//! scratch    common: shrunk in f32, one counter a band; a worker: panels widened to f32

use core::ops::Range;

use super::bound::{Bound, BoundBorder};
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
                    linear.shrink(rows.clone(), t, own);
                    linear.multiply(rows, cols, || &t[..], own);
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
        let BoundBorder { rank, scale, down, .. } = *border;
        let padded_rank = border.shrunk.padded_rank;
        let t = &mut t[..rows.len() * padded_rank];
        t.fill(0.0);
        // SAFETY: the tile lies in `t`, whose rows are `padded_rank ≥ rank` elements long.
        let mut tile = unsafe { Tile::at(t.as_mut_ptr(), rows.len(), rank, (padded_rank, 1)) };
        let (guard, own) = own.split_at_mut(self.tiles.guard);
        if guard.is_empty() {
            self.steps(rows.clone(), down, 0..rank, own, |keep, x, a| {
                tile.accumulate(keep, scale, x, a);
            });
        } else {
            self.steps(rows.clone(), down, 0..rank, own, |keep, x, a| {
                tile.accumulate_ordered(keep, x, a, guard);
            });
            t.iter_mut().for_each(|sum| *sum *= scale);
        }
        border.round(t);
        // SAFETY: each row of shrunk is one ticket's.
        unsafe { border.keep(rows, t) };
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
        let (guard, own) = own.split_at_mut(self.tiles.guard);
        let mut start = cols.start;
        while start < cols.end {
            let block = start..cols.end.min(start + self.tiles.block);
            start = block.end;
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
                None => Tile::in_scratch(sums, rows.len(), block.len()),
            };
            // ── multiply ──────────────────────────────────────────────────────
            self.steps(rows.clone(), body.right, block.clone(), own, |keep, x, w| {
                add(&mut tile, keep, x, w, guard);
            });
            // ── border: shrunk meets b ────────────────────────────────────────
            if let Some(border) = &self.bound.border
                && let Some(up) = border.up
            {
                let (rank, padded_rank) = (border.rank, border.shrunk.padded_rank);
                let t = Panel::new(shrunk(), rows.len(), rank, padded_rank);
                let at_once = if guard.is_empty() { rank } else { STEPS };
                for first in (0..rank).step_by(at_once) {
                    let ranks = first..rank.min(first + at_once);
                    let t = Panel { elements: &t.elements[first..], cols: ranks.len(), ..t };
                    let up = up.panel(block.clone(), ranks, own);
                    add(&mut tile, 1.0, t, up, guard);
                }
            }
            // ── finish: gain, bias, round once, store ─────────────────────────
            let rounding = body.rounding(block.clone(), own);
            match in_place {
                Some(_) => tile.finish(&rounding),
                // SAFETY: as above.
                None => unsafe {
                    let step = block.len();
                    body.out.finish(rows.clone(), block, sums, step, rounding);
                },
            }
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
            step(if start == 0 { 0.0 } else { 1.0 }, lhs, rhs);
            start = sum.end;
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

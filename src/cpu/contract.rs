//! contract · CPU · f32, f16, bf16
//!
//! computes   out[x, y] = Σ left·right over two indices, by strides of seven, times a factor,
//!            β·old + new: rounds of sums, one round after another
//! serves     compose (no index is summed over) and chain; merge of a LoKr with a whole w2
//! tile       a ticket is some rows and columns of one result, so every sum has one order
//! scratch    common: w1 where it is stored as two factors, and its gradient, tap by tap; factors widened.
//!            A worker: its tile

use core::ops::Range;

use super::convert::widen_rows;
use super::microkernels::{Sums, Values, strided_sums};
use super::target::{Rounding, Target};
use super::tickets::Team;
use super::workspace::Scratch;
use super::{Slice, SliceMut};
use crate::plan::cpu::{ContractCut, ContractTiles, ROUND};
use crate::problem::{Scalars, extent, stored};
use crate::product::{INDICES, Indexed, Multiplier, Old, Place};
use crate::{Matrix, Operands, Result, Spec};

pub(super) fn run<'a>(
    scalars: Scalars,
    tiles: &ContractTiles,
    operands: &mut Operands<Slice<'a>, SliceMut<'a>>,
    team: Team<'_>,
    scratch: Scratch<'_>,
) -> Result<()> {
    let own = |place: Place, len: usize| match place {
        Place::Dw1 => scratch.common(tiles.w1, len),
        _ => scratch.common(0, len),
    };
    for round in &tiles.rounds {
        // ── read: f32 in place, 16 bits widened ───────────────────────────
        let mut widened = tiles.own;
        let mut all = [const { None }; ROUND];
        for (to, cut) in all.iter_mut().zip(round) {
            let mut values = |of: &Option<Indexed>| {
                let Some(of) = of else {
                    return Ok(Values { elements: &[1.0], strides: [0; INDICES] });
                };
                let Place::Operand(operand) = of.place else {
                    let len = of.spec.rows * of.spec.cols;
                    // SAFETY: `own` checked the bounds; the round that wrote it is done, and no sum of this one
                    // writes it.
                    let elements = unsafe { core::slice::from_raw_parts(own(of.place, len), len) };
                    return Ok(Values { elements, strides: of.strides(of.spec.stride) });
                };
                let Matrix { buffer, rows, cols, offset, stride, major } =
                    operands.get_read(operand)?;
                let (outer, inner) = stored(rows, cols, major);
                let len = extent(outer, inner, stride).expect("checked with the operands");
                let place = offset..offset + len;
                if let Slice::F32(of_f32) = buffer {
                    return Ok(Values { elements: &of_f32[place], strides: of.strides(stride) });
                }
                let len = rows * cols;
                // SAFETY: `common` checked the bounds. No worker runs, and each matrix has a part of its own.
                let room =
                    unsafe { core::slice::from_raw_parts_mut(scratch.common(widened, len), len) };
                widened += len;
                let elements = match buffer {
                    Slice::F16(of) => widen_rows(&of[place], stride, inner, room),
                    Slice::Bf16(of) => widen_rows(&of[place], stride, inner, room),
                    Slice::F32(of) => of,
                };
                Ok(Values { elements, strides: of.strides(inner) })
            };
            let sum = &cut.sum;
            let (left, right) = (values(&sum.left)?, values(&sum.right)?);
            let of = Sums { sizes: sum.sizes, diagonal: sum.diagonal, left, right };
            let target = sum.out.store().map(|out| Target::take(&out, operands)).transpose()?;
            let (factor, beta) = (sum.factor.value(scalars), sum.out.old.value(scalars));
            *to = Some(Bound { cut, of, target, factor, beta });
        }
        team.run_tickets(
            round.iter().map(|cut| cut.tickets).sum(),
            // SAFETY: `Team::run_tickets` gives each worker's number out once.
            |worker| unsafe { scratch.of_worker(worker) },
            |tile, mut at| {
                for bound in all.iter().flatten() {
                    if at < bound.cut.tickets {
                        let of_own = |len| own(bound.cut.sum.out.place, len);
                        // SAFETY: each ticket is drawn once, and nothing else writes its elements.
                        return unsafe { bound.ticket(at, tile, of_own) };
                    }
                    at -= bound.cut.tickets;
                }
            },
        );
    }
    Ok(())
}

/// Rows and columns of a ticket.
fn part(cut: &ContractCut, at: usize) -> (Range<usize>, Range<usize>) {
    let (rows, columns) = (cut.sum.out.spec.rows, cut.sum.out.spec.cols);
    let along = columns.div_ceil(cut.columns);
    let (row, col) = (at / along * cut.rows, at % along * cut.columns);
    (row..rows.min(row + cut.rows), col..columns.min(col + cut.columns))
}

/// A sum with its operands.
struct Bound<'a> {
    cut: &'a ContractCut,
    of: Sums<'a>,
    /// `None`: a place in the plan's own memory.
    target: Option<Target<'a>>,
    factor: f32,
    beta: f32,
}

impl Bound<'_> {
    /// `own` is the start of the result where it has no target, of so many elements.
    ///
    /// # Safety
    /// Nobody else reads or writes the ticket's elements meanwhile.
    unsafe fn ticket(&self, at: usize, tile: &mut [f32], own: impl Fn(usize) -> *mut f32) {
        let (rows, cols) = part(self.cut, at);
        let (of, sum, width) = (self.of, &self.cut.sum, cols.len());
        let is_final = sum.factor == Multiplier::One && sum.out.old == Old::Replaced;
        let in_place = match self.target {
            Some(target) if is_final => target.in_place(&rows, &cols),
            Some(_) => None,
            None => {
                let Spec { rows: height, cols: stride, .. } = sum.out.spec;
                // SAFETY: `own` checked the bounds.
                let start = unsafe { own(height * stride).add(rows.start * stride + cols.start) };
                Some((start, stride, 1))
            }
        };
        if let Some((start, step, 1)) = in_place {
            // SAFETY: the caller's; `in_place` and `own` checked the bounds.
            return unsafe { strided_sums(of, rows, cols, (start, step)) };
        }
        let tile = &mut tile[..rows.len() * width];
        // SAFETY: the tile is as long, and the caller's alone.
        unsafe { strided_sums(of, rows.clone(), cols.clone(), (tile.as_mut_ptr(), width)) };
        if sum.factor != Multiplier::One {
            tile.iter_mut().for_each(|sum| *sum *= self.factor);
        }
        let rounding = Rounding { beta: self.beta, ..Rounding::default() };
        if let Some(target) = self.target {
            // SAFETY: the caller's.
            unsafe { target.finish(rows, cols, tile, width, rounding) };
        }
    }
}

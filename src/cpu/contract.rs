//! contract · CPU · f32, f16, bf16
//!
//! computes   out[x, y] = Σ left·right over two indices, by strides, times a factor,
//!            β·old + new: one sum after another
//! serves     compose (no index is summed over) and chain; merge of a LoKr with a whole w2
//! tile       a ticket is some rows and columns of one result, so every sum has one order
//! scratch    common: w1 where it is stored as two factors, and its gradient; factors widened.
//!            A worker: its tile

use core::ops::Range;

use super::convert::widen_rows;
use super::target::{Rounding, Target};
use super::tickets::Team;
use super::workspace::Scratch;
use super::{Slice, SliceMut};
use crate::plan::cpu::{ContractCut, ContractTiles};
use crate::problem::{Scalars, extent, stored};
use crate::product::{Contraction, Factors, INDICES, Indexed, Multiplier, Place};
use crate::{Matrix, Operands, Result};

pub(super) fn run<'a>(
    product: &Factors,
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
    for (sum, cut) in product.sums.iter().zip(&tiles.cuts) {
        // ── read: f32 in place, 16 bits widened ───────────────────────────
        let mut widened = 2 * tiles.w1;
        let mut values = |of: &Option<Indexed>| {
            let Some(of) = of else {
                return Ok(Values { elements: &[1.0], strides: [0; INDICES] });
            };
            let Place::Operand(operand) = of.place else {
                let len = of.spec.rows * of.spec.cols;
                // SAFETY: `own` checked the bounds; the sum that wrote it is done, and this one writes
                // another place.
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
        let bound = Bound { sum, left: values(&sum.left)?, right: values(&sum.right)? };
        let target = sum.out.store().map(|out| Target::take(&out, operands)).transpose()?;
        let factor = sum.factor.value(scalars);
        let rounding = Rounding { beta: sum.out.old.value(scalars), ..Rounding::default() };
        let (height, width) = (sum.out.spec.rows, sum.out.spec.cols);
        team.run_tickets(
            cut.tickets,
            // SAFETY: `Team::run_tickets` gives each worker's number out once.
            |worker| unsafe { scratch.of_worker(worker) },
            |tile, at| {
                let (rows, cols) = part(cut, at, height, width);
                let tile = &mut tile[..rows.len() * cols.len()];
                bound.multiply(rows.clone(), cols.clone(), tile);
                if sum.factor != Multiplier::One {
                    tile.iter_mut().for_each(|sum| *sum *= factor);
                }
                let step = cols.len();
                match target {
                    // SAFETY: these elements are this ticket's.
                    Some(target) => unsafe { target.finish(rows, cols, tile, step, rounding) },
                    None => {
                        for (row, tile) in rows.zip(tile.chunks_exact(step.max(1))) {
                            // SAFETY: as above; `own` checked the bounds.
                            unsafe {
                                let start = own(sum.out.place, height * width);
                                let to = start.add(row * width + cols.start);
                                core::slice::from_raw_parts_mut(to, step).copy_from_slice(tile);
                            }
                        }
                    }
                }
            },
        );
    }
    Ok(())
}

/// Rows and columns of a ticket.
fn part(cut: &ContractCut, at: usize, rows: usize, columns: usize) -> (Range<usize>, Range<usize>) {
    let along = columns.div_ceil(cut.columns);
    let (row, col) = (at / along * cut.rows, at % along * cut.columns);
    (row..rows.min(row + cut.rows), col..columns.min(col + cut.columns))
}

/// A matrix in f32, and from one element to the next along each index.
#[derive(Clone, Copy)]
struct Values<'a> {
    elements: &'a [f32],
    strides: [usize; INDICES],
}

/// One element, and the steps to those behind it.
#[derive(Clone, Copy)]
struct Lane<'a> {
    elements: &'a [f32],
    step: usize,
}

impl<'a> Values<'a> {
    /// From the element of these indices on, along index `along`.
    #[inline(always)]
    fn lane(&self, at: [usize; INDICES], along: usize) -> Lane<'a> {
        let start: usize = at.iter().zip(&self.strides).map(|(at, stride)| at * stride).sum();
        Lane { elements: &self.elements[start..], step: self.strides[along] }
    }
}

/// A sum with its operands.
struct Bound<'a> {
    sum: &'a Contraction,
    left: Values<'a>,
    right: Values<'a>,
}

const ALONG_COLUMNS: usize = 3;
const ALONG_SUM: usize = 5;

impl Bound<'_> {
    fn multiply(&self, rows: Range<usize>, cols: Range<usize>, tile: &mut [f32]) {
        if cols.is_empty() {
            return;
        }
        pulp::Arch::new().dispatch(|| {
            for (row, sums) in rows.zip(tile.chunks_exact_mut(cols.len())) {
                self.row(row, cols.clone(), sums);
            }
        });
    }

    #[inline(always)]
    fn row(&self, row: usize, cols: Range<usize>, mut out: &mut [f32]) {
        let [_, rows, _, columns, depth, inner] = self.sum.sizes;
        let (x1, x2) = (row / rows, row % rows);
        // Where the sum runs along stored rows, and columns do not.
        let by_dots =
            inner > 1 && self.left.strides[ALONG_SUM] == 1 && self.left.strides[ALONG_COLUMNS] != 1;
        let mut col = cols.start;
        while col < cols.end {
            let (y1, y2) = (col / columns, col % columns);
            let (sums, rest) = out.split_at_mut((columns - y2).min(cols.end - col));
            (out, col) = (rest, col + sums.len());
            if self.sum.diagonal && x1 != y1 {
                sums.fill(0.0);
                continue;
            }
            if by_dots {
                for (at, sum) in sums.iter_mut().enumerate() {
                    *sum = 0.0;
                    for s in 0..depth {
                        let at = [x1, x2, y1, y2 + at, s, 0];
                        let [left, right] =
                            [&self.left, &self.right].map(|of| of.lane(at, ALONG_SUM));
                        *sum += dot(left, right, inner);
                    }
                }
                continue;
            }
            for s in 0..depth {
                for t in 0..inner {
                    let at = [x1, x2, y1, y2, s, t];
                    let [left, right] =
                        [&self.left, &self.right].map(|of| of.lane(at, ALONG_COLUMNS));
                    match s + t {
                        0 => add(left, right, sums, |_, product| product),
                        _ => add(left, right, sums, |sum, product| sum + product),
                    }
                }
            }
        }
    }
}

/// `sums = f(sums, left·right)`.
#[inline(always)]
fn add(left: Lane<'_>, right: Lane<'_>, sums: &mut [f32], f: impl Fn(f32, f32) -> f32) {
    let len = sums.len();
    match (left.step, right.step) {
        (1, 1) => {
            let factors = left.elements[..len].iter().zip(&right.elements[..len]);
            sums.iter_mut()
                .zip(factors)
                .for_each(|(sum, (left, right))| *sum = f(*sum, left * right));
        }
        (1, 0) | (0, 1) => {
            let (along, factor) = match left.step {
                1 => (left.elements, right.elements[0]),
                _ => (right.elements, left.elements[0]),
            };
            sums.iter_mut().zip(&along[..len]).for_each(|(sum, of)| *sum = f(*sum, of * factor));
        }
        (of_left, of_right) => {
            for (at, sum) in sums.iter_mut().enumerate() {
                *sum = f(*sum, left.elements[at * of_left] * right.elements[at * of_right]);
            }
        }
    }
}

/// `Σ left·right` over `len`, in one order.
#[inline(always)]
fn dot(left: Lane<'_>, right: Lane<'_>, len: usize) -> f32 {
    if (left.step, right.step) != (1, 1) {
        let product = |at: usize| left.elements[at * left.step] * right.elements[at * right.step];
        return (0..len).map(product).sum();
    }
    let (left, left_rest) = left.elements[..len].as_chunks::<16>();
    let (right, right_rest) = right.elements[..len].as_chunks::<16>();
    let mut lanes = [0.0f32; 16];
    for (left, right) in left.iter().zip(right) {
        for lane in 0..16 {
            lanes[lane] += left[lane] * right[lane];
        }
    }
    let rest: f32 = left_rest.iter().zip(right_rest).map(|(left, right)| left * right).sum();
    lanes.iter().sum::<f32>() + rest
}

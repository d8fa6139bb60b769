//! norm · CPU · f32, f16, bf16
//!
//! computes   gain = magnitude / ‖w + s·b·a‖, row by row; no element of the sum is kept
//! serves     norm, with an adapter and without
//! tile       a ticket is 64 rows of w, taken in blocks of 256 columns; a row's squares are added block
//!            after block, so every norm has one order
//! scratch    a worker: the rows' sums, the tile, w and the panels of a and b widened

use super::microkernels::Tile;
use super::source::Source;
use super::target::{Rounding, Target};
use super::tickets::Team;
use super::workspace::Scratch;
use super::{Slice, SliceMut};
use crate::plan::cpu::NormTiles;
use crate::problem::Scalars;
use crate::product::Norm;
use crate::{Error, Operand, Operands, Result};

pub(super) fn run<'a>(
    product: &Norm,
    scalars: Scalars,
    tiles: &NormTiles,
    operands: &mut Operands<Slice<'a>, SliceMut<'a>>,
    team: Team<'_>,
    scratch: Scratch<'_>,
) -> Result<()> {
    let (height, width, rank) = (product.rows, product.columns, product.rank);
    let (summand, scale) = (product.summand.as_ref(), scalars.scale);
    let w = Source::take_summed(&product.w, summand, scale, operands, scratch)?;
    let adapter = match &product.adapter {
        Some([b, a]) => Some((Source::take(b, operands)?, Source::take(a, operands)?)),
        None => None,
    };
    let magnitude = Source::take(&product.magnitude, operands)?;
    // It is f32, and lies where it is.
    let magnitude = magnitude.panel(0..1, 0..height, &mut []).row(0);
    check(magnitude)?;
    let factor = product.factor.value(scalars);
    let gain = Target::take(&product.out, operands)?;
    team.run(
        // SAFETY: `Team::run` gives each worker's number out once.
        |worker| unsafe { scratch.of_worker(worker) },
        |own, at| {
            let rows = at * tiles.rows..height.min((at + 1) * tiles.rows);
            let (squares, own) = own.split_at_mut(rows.len());
            squares.fill(0.0);
            for start in (0..width).step_by(tiles.block) {
                let cols = start..width.min(start + tiles.block);
                let len = rows.len() * cols.len();
                let (sums, own) = own.split_at_mut(len);
                let (of_w, own) = own.split_at_mut(if w.is_f32() { 0 } else { len });
                // ── multiply: the adapter's product ───────────────────────────
                match &adapter {
                    None => sums.fill(0.0),
                    Some((b, a)) => {
                        let (of_b, of_a) =
                            own.split_at_mut(if b.is_f32() { 0 } else { rows.len() * rank });
                        let lhs = b.panel(rows.clone(), 0..rank, of_b);
                        let rhs = a.panel(cols.clone(), 0..rank, of_a);
                        let mut tile = Tile::in_scratch(sums, rows.len(), cols.len());
                        tile.accumulate(0.0, factor, lhs, rhs);
                    }
                }
                // ── add w, square, add up ─────────────────────────────────────
                let w = w.panel(rows.clone(), cols.clone(), of_w);
                let w_step = w.col_step;
                for (row, sums) in sums.chunks_exact(cols.len()).enumerate() {
                    let w = &w.elements[row * w.row_step..];
                    squares[row] += sum_of_squares(sums, w, w_step);
                }
            }
            // ── finish ────────────────────────────────────────────────────────
            for (square, row) in squares.iter_mut().zip(rows.clone()) {
                *square = magnitude[row] / square.sqrt();
            }
            let step = rows.len();
            // SAFETY: these elements of the gain are this ticket's.
            unsafe { gain.finish(0..1, rows, squares, step, Rounding::default()) };
        },
    );
    Ok(())
}

/// A magnitude of zero has no direction to train, and one that is not finite no row.
fn check(magnitude: &[f32]) -> Result<()> {
    let bad = |of: &f32| *of == 0.0 || !of.is_finite();
    match magnitude.iter().position(bad) {
        None => Ok(()),
        Some(at) => {
            let operand = Operand::Magnitude;
            Err(Error::Value { operand, expected: "finite and not 0", at, got: magnitude[at] })
        }
    }
}

/// Lanes in which squares are added.
const LANES: usize = 16;

/// `Σ (sums + w)²`, in one order.
fn sum_of_squares(sums: &[f32], w: &[f32], step: usize) -> f32 {
    pulp::Arch::new().dispatch(|| {
        let mut lanes = [0.0f32; LANES];
        if step == 1 {
            let w = &w[..sums.len()];
            let (sums, sums_rest) = sums.as_chunks::<LANES>();
            let (w, w_rest) = w.as_chunks::<LANES>();
            for (sums, w) in sums.iter().zip(w) {
                for lane in 0..LANES {
                    let of = sums[lane] + w[lane];
                    lanes[lane] += of * of;
                }
            }
            for (lane, (sum, w)) in lanes.iter_mut().zip(sums_rest.iter().zip(w_rest)) {
                *lane += (sum + w) * (sum + w);
            }
        } else {
            for (at, sum) in sums.iter().enumerate() {
                let of = sum + w[at * step];
                lanes[at % LANES] += of * of;
            }
        }
        lanes.iter().sum()
    })
}

//! merge · CPU · f32, f16, bf16
//!
//! computes   w ± s·b·a, in place, rounded once
//! serves     merge and unmerge
//! tile       a ticket is 64 rows of w, finished in blocks of 256 columns
//! scratch    a worker: the tile, and 16-bit panels of a and b widened

use super::bound::Bound;
use super::microkernels::Tile;
use super::target::Rounding;
use super::tickets::Team;
use super::workspace::Scratch;
use super::{Slice, SliceMut};
use crate::plan::cpu::MergeTiles;
use crate::problem::Scalars;
use crate::product::Bordered;
use crate::{Operands, Result};

pub(super) fn run<'a>(
    product: &Bordered,
    scalars: Scalars,
    tiles: &MergeTiles,
    operands: &mut Operands<Slice<'a>, SliceMut<'a>>,
    team: Team<'_>,
    scratch: Scratch<'_>,
) -> Result<()> {
    let Bound { left, body, .. } = Bound::take(product, scalars, operands, scratch)?;
    let Some(body) = body else { return Ok(()) };
    // The sum runs over the rank.
    let (height, width, rank) = (product.rows, product.columns(), product.depth);
    team.run(
        // SAFETY: `Team::run` gives each worker's number out once.
        |worker| unsafe { scratch.of_worker(worker) },
        |own, at| {
            let rows = at * tiles.rows..height.min((at + 1) * tiles.rows);
            for start in (0..width).step_by(tiles.block) {
                let cols = start..width.min(start + tiles.block);
                let (sums, own) = own.split_at_mut(rows.len() * cols.len());
                let (of_left, of_right) =
                    own.split_at_mut(if left.is_f32() { 0 } else { rows.len() * rank });
                let lhs = left.panel(rows.clone(), 0..rank, of_left);
                let rhs = body.right.panel(cols.clone(), 0..rank, of_right);
                Tile::in_scratch(sums, rows.len(), cols.len()).accumulate(
                    0.0,
                    body.factor,
                    lhs,
                    rhs,
                );
                let (step, rounding) =
                    (cols.len(), Rounding { beta: body.beta, ..Rounding::default() });
                // SAFETY: these rows of w are this ticket's.
                unsafe { body.out.finish(rows.clone(), cols, sums, step, rounding) };
            }
        },
    );
    Ok(())
}

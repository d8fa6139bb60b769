//! gradient · CPU · f32, f16, bf16
//!
//! computes   da = dshrunkᵀ·x and db = dyᵀ·shrunk, each β·old + new
//! serves     backward_adapter
//! tile       a ticket is a range of columns of x (da) or of dy (db); it walks all tokens,
//!            so x and dy are read once and every sum has one order
//! planes     of images channels first tokens lie side by side, and so do the ranks of a column in its tile
//! scratch    a worker: the gradient's tile, 16-bit panels widened

use super::microkernels::Tile;
use super::source::Source;
use super::target::{Rounding, Target};
use super::tickets::Team;
use super::workspace::Scratch;
use super::{Slice, SliceMut};
use crate::plan::cpu::GradientTiles;
use crate::problem::Scalars;
use crate::product::{Old, Outer};
use crate::{Operands, Result};

/// One gradient with its operands: `out[rank, columns] = left·rightᵀ`, both `[·, tokens]`.
struct Bound<'a> {
    product: &'a Outer,
    scalars: Scalars,
    left: Source<'a>,
    right: Source<'a>,
    out: Target<'a>,
}

pub(super) fn run<'a>(
    products: &[Option<Outer>; 2],
    scalars: Scalars,
    tiles: &GradientTiles,
    operands: &mut Operands<Slice<'a>, SliceMut<'a>>,
    team: Team<'_>,
    scratch: Scratch<'_>,
) -> Result<()> {
    let mut bind = |product| {
        Ok(Bound {
            product,
            scalars,
            left: Source::take(&product.left, operands)?,
            right: Source::take(&product.right, operands)?,
            out: Target::take(&product.finish.out, operands)?,
        })
    };
    let [da, db] = products.each_ref().map(|of| of.as_ref().map(&mut bind).transpose());
    let (da, db) = (da?, db?);
    team.run(
        // SAFETY: `Team::run` gives each worker's number out once.
        |worker| unsafe { scratch.of_worker(worker) },
        |own, at| {
            let (bound, piece) = match at.checked_sub(tiles.tickets_a) {
                None => (&da, at),
                Some(piece) => (&db, piece),
            };
            if let Some(bound) = bound {
                bound.columns(tiles, piece, own);
            }
        },
    );
    Ok(())
}

impl Bound<'_> {
    fn columns(&self, tiles: &GradientTiles, piece: usize, own: &mut [f32]) {
        let Outer { tokens, rank, columns, padded_rank, precise, finish, .. } = *self.product;
        let cols = piece * tiles.columns..columns.min((piece + 1) * tiles.columns);
        // Old values are added once, at the end, and so not summed onto.
        let is_turned = self.right.is_planar();
        let in_place = match finish.old == Old::Replaced && tokens > 0 && !is_turned {
            true => self.out.in_place(&(0..rank), &cols),
            false => None,
        };
        let (sums, own) = own.split_at_mut(if in_place.is_some() { 0 } else { rank * cols.len() });
        let mut tile = match in_place {
            // SAFETY: these columns of the gradient are this ticket's.
            Some((start, down, right)) => unsafe {
                Tile::at(start, rank, cols.len(), (down, right))
            },
            None if is_turned => Tile::turned(sums, rank, cols.len()),
            None => Tile::in_scratch(sums, rank, cols.len()),
        };
        let rounding = Rounding { beta: finish.old.value(self.scalars), ..Rounding::default() };
        if tokens == 1 && !precise {
            let (of_left, of_right) = own.split_at_mut(if self.right.is_f32() { 0 } else { rank });
            let left = self.left.panel(0..rank, 0..1, of_left).transposed().row(0);
            let right = self.right.panel(cols.clone(), 0..1, of_right).transposed().row(0);
            if in_place.is_some() {
                return tile.outer(left, right);
            }
            // The tile lies as the gradient does, so that whole rows are stored.
            let (target, rows, cols, down, along) = match self.out.is_row_major() {
                true => (self.out, 0..rank, cols, left, right),
                false => (self.out.transposed(), cols, 0..rank, right, left),
            };
            Tile::in_scratch(sums, rows.len(), cols.len()).outer(down, along);
            // SAFETY: as above.
            return unsafe { target.finish(rows, cols, sums, along.len(), rounding) };
        }
        sums.fill(0.0);
        let mut keep = if in_place.is_some() { 0.0 } else { 1.0 };
        for start in (0..tokens).step_by(tiles.band) {
            let band = start..tokens.min(start + tiles.band);
            let (of_left, of_right) =
                own.split_at_mut(if self.right.is_f32() { 0 } else { band.len() * rank });
            let right = self.right.panel(cols.clone(), band.clone(), of_right);
            for first in (0..self.product.parts()).map(|part| part * padded_rank) {
                let left = self.left.panel(first..first + rank, band.clone(), of_left);
                tile.accumulate(keep, 1.0, left, right);
                keep = 1.0;
            }
        }
        let step = cols.len();
        // SAFETY: as above.
        unsafe {
            match in_place {
                Some(_) => {}
                None if is_turned => self.out.finish_turned(0..rank, cols, sums, rank, rounding),
                None => self.out.finish(0..rank, cols, sums, step, rounding),
            }
        }
    }
}

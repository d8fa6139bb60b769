//! gradient · CPU · f32, f16, bf16
//!
//! computes   da = dshrunkᵀ·x and db = dyᵀ·shrunk, each β·old + new
//! serves     backward_adapter
//! tile       a ticket is a range of columns of x (da) or of dy (db); it walks all tokens,
//!            so x and dy are read once and every sum has one order
//! scratch    a worker: the gradient's tile, 16-bit panels widened

use super::panel::{Finish, Source, Target};
use super::product::Tile;
use super::tickets::Team;
use super::workspace::Scratch;
use super::{Slice, SliceMut};
use crate::plan::cpu::Gradient;
use crate::{Operand, Operands, Problem, Result};

/// One gradient: `[rank, cols]` (db turned) `= narrowᵀ·wide`.
struct Half<'a> {
    /// x or dy, `[tokens, cols]`.
    wide: Source<'a>,
    /// dshrunk or shrunk, `[tokens, shrunk_stride]`.
    narrow: Source<'a>,
    /// da, or db turned.
    gradient: Target<'a>,
}

pub(super) fn run<'a>(
    problem: &Problem,
    tiles: &Gradient,
    operands: &mut Operands<Slice<'a>, SliceMut<'a>>,
    team: Team<'_>,
    scratch: Scratch<'_>,
) -> Result<()> {
    let mut half = |gradient: Operand, wide, narrow| {
        problem.spec(gradient).map(|_| {
            Ok(Half {
                wide: Source::new(operands.take_read(wide)?),
                narrow: Source::new(operands.take_read(narrow)?),
                gradient: Target::new(operands.take_written(gradient)?),
            })
        })
    };
    let da = half(Operand::Da, Operand::X, Operand::Dshrunk).transpose()?;
    let db = half(Operand::Db, Operand::Dy, Operand::Shrunk).transpose()?;
    let db = db.map(|half| Half { gradient: half.gradient.transposed(), ..half });
    team.run(
        // SAFETY: `Team::run` gives each worker's number out once.
        |worker| unsafe { scratch.of_worker(worker) },
        |own, at| {
            let (half, piece) = match at.checked_sub(tiles.tickets_a) {
                None => (&da, at),
                Some(piece) => (&db, piece),
            };
            if let Some(half) = half {
                half.columns(problem, tiles, piece, own);
            }
        },
    );
    Ok(())
}

impl Half<'_> {
    fn columns(&self, problem: &Problem, tiles: &Gradient, piece: usize, own: &mut [f32]) {
        let (tokens, rank, part) = (problem.tokens(), problem.rank(), problem.shrunk_part());
        let cols = piece * tiles.cols..self.wide.cols().min((piece + 1) * tiles.cols);
        // Old values are added once, at the end, and so not summed onto.
        let in_place = match problem.beta() == 0.0 && tokens > 0 {
            true => self.gradient.in_place(&(0..rank), &cols),
            false => None,
        };
        let (room, own) = own.split_at_mut(if in_place.is_some() { 0 } else { rank * cols.len() });
        let mut tile = match in_place {
            // SAFETY: these columns of the gradient are this ticket's.
            Some((start, down, right)) => unsafe {
                Tile::at(start, rank, cols.len(), (down, right))
            },
            None => Tile::in_scratch(room, rank, cols.len()),
        };
        let finish = Finish { beta: problem.beta(), bias: None };
        if tokens == 1 && !problem.is_precise() {
            let (left, right) = own.split_at_mut(if self.wide.is_f32() { 0 } else { rank });
            let narrow = self.narrow.panel(0..1, 0..rank, left).row(0);
            let wide = self.wide.panel(0..1, cols.clone(), right).row(0);
            if in_place.is_some() {
                return tile.outer(narrow, wide);
            }
            // The tile lies as the gradient does, so that whole rows are stored.
            let (target, rows, cols, down, along) = match self.gradient.is_row_major() {
                true => (self.gradient, 0..rank, cols, narrow, wide),
                false => (self.gradient.transposed(), cols, 0..rank, wide, narrow),
            };
            Tile::in_scratch(room, rows.len(), cols.len()).outer(down, along);
            // SAFETY: as above.
            return unsafe { target.finish(rows, cols, room, along.len(), finish) };
        }
        room.fill(0.0);
        let mut keep = if in_place.is_some() { 0.0 } else { 1.0 };
        for start in (0..tokens).step_by(tiles.band) {
            let rows = start..tokens.min(start + tiles.band);
            let (left, right) =
                own.split_at_mut(if self.wide.is_f32() { 0 } else { rows.len() * rank });
            let wide = self.wide.panel(rows.clone(), cols.clone(), right).transposed();
            let parts = if problem.is_precise() { 2 } else { 1 };
            for first in (0..parts).map(|at| at * part) {
                let narrow = self.narrow.panel(rows.clone(), first..first + rank, left);
                tile.accumulate(keep, 1.0, narrow.transposed(), wide);
                keep = 1.0;
            }
        }
        if in_place.is_none() {
            let step = cols.len();
            // SAFETY: as above.
            unsafe { self.gradient.finish(0..rank, cols, room, step, finish) };
        }
    }
}

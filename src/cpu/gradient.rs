//! gradient · CPU · f32, f16, bf16
//!
//! computes   da = dshrunkᵀ·x and db = dyᵀ·shrunk, each β·old + new
//! serves     backward_adapter
//! tile       a ticket is a range of columns of x (da) or of dy (db); it walks all tokens,
//!            so x and dy are read once and every sum has one order
//! scratch    a worker: the gradient's tile, 16-bit panels widened

use super::panel::{Finish, Panel, Source, Target};
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
    mut operands: Operands<Slice<'a>, SliceMut<'a>>,
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
        let (room, own) = own.split_at_mut(rank * cols.len());
        room.fill(0.0);
        let mut tile = Tile::in_scratch(room, rank, cols.len());
        // In place there is no reason to stop between bands.
        let band = if self.wide.is_f32() { tokens.max(1) } else { tiles.band };
        for start in (0..tokens).step_by(band) {
            let rows = start..tokens.min(start + band);
            let (left, right) =
                own.split_at_mut(if self.wide.is_f32() { 0 } else { rows.len() * rank });
            let wide = self.wide.panel(rows.clone(), cols.clone(), right).transposed();
            let narrow = if problem.is_precise() {
                let high = self.narrow.panel(rows.clone(), 0..rank, left);
                tile.accumulate(1.0, 1.0, high.transposed(), wide);
                self.narrow.panel(rows, part..part + rank, left)
            } else {
                self.narrow.panel(rows, 0..rank, left)
            };
            tile.accumulate(1.0, 1.0, Panel::transposed(narrow), wide);
        }
        let (step, finish) = (cols.len(), Finish { beta: problem.beta(), bias: None });
        // SAFETY: these columns of the gradient are this ticket's.
        unsafe { self.gradient.finish(0..rank, cols, room, step, finish) };
    }
}

//! merge · CPU · f32, f16, bf16
//!
//! computes   w ± s·b·a, in place, rounded once
//! serves     merge and unmerge
//! tile       a ticket is 64 rows of w, finished in blocks of 256 columns
//! scratch    a worker: the tile, and 16-bit panels of a and b widened

use super::panel::{Finish, Source, Target};
use super::product::Tile;
use super::tickets::Team;
use super::workspace::Scratch;
use super::{Slice, SliceMut};
use crate::plan::cpu::Merge;
use crate::{Operand, Operands, Operation, Problem, Result};

pub(super) fn run<'a>(
    problem: &Problem,
    tiles: &Merge,
    operands: &mut Operands<Slice<'a>, SliceMut<'a>>,
    team: Team<'_>,
    scratch: Scratch<'_>,
) -> Result<()> {
    let a = Source::new(operands.take_read(Operand::A)?);
    let b = Source::new(operands.take_read(Operand::B)?);
    let w = Target::new(operands.take_written(Operand::W)?);
    let [n, k, rank] = [problem.out_features(), problem.in_features(), problem.rank()];
    let factor = match problem.operation() {
        Operation::Unmerge => -problem.scale(),
        _ => problem.scale(),
    };
    team.run(
        // SAFETY: `Team::run` gives each worker's number out once.
        |worker| unsafe { scratch.of_worker(worker) },
        |own, at| {
            let rows = at * tiles.rows..n.min((at + 1) * tiles.rows);
            for start in (0..k).step_by(tiles.block) {
                let cols = start..k.min(start + tiles.block);
                let (room, own) = own.split_at_mut(rows.len() * cols.len());
                let (left, right) =
                    own.split_at_mut(if b.is_f32() { 0 } else { rows.len() * rank });
                let b = b.panel(rows.clone(), 0..rank, left);
                let a = a.panel(0..rank, cols.clone(), right).transposed();
                Tile::in_scratch(room, rows.len(), cols.len()).accumulate(0.0, factor, b, a);
                let (step, finish) = (cols.len(), Finish { beta: 1.0, bias: None });
                // SAFETY: these rows of w are this ticket's.
                unsafe { w.finish(rows.clone(), cols, room, step, finish) };
            }
        },
    );
    Ok(())
}

//! merged · CPU · f32, f16, bf16
//!
//! computes   w' = w + ΔW, rounded to w's type, and the plain layer on it
//! serves     forward and backward_input by name (strategy `merged`)
//! tile       those of `merge`, or `contract`, and of `linear`
//! scratch    common: w', stored as w is but without gaps, then what the two need, one after the other

use super::tickets::Team;
use super::workspace::Scratch;
use super::{Slice, SliceMut, contract, linear, merge};
use crate::plan::cpu::{MergedTiles, Tiles};
use crate::problem::{Scalars, stored};
use crate::product::Product;
use crate::{Matrix, Operand, Operands, Operation, Result};

pub(super) fn run<'a>(
    scalars: Scalars,
    tiles: &MergedTiles,
    operands: &mut Operands<Slice<'a>, SliceMut<'a>>,
    team: Team<'_>,
    scratch: Scratch<'_>,
) -> Result<()> {
    match operands.get_read(Operand::W)?.buffer {
        Slice::F32(w) => run_on(w, scalars, tiles, operands, team, scratch),
        Slice::F16(w) => run_on(w, scalars, tiles, operands, team, scratch),
        Slice::Bf16(w) => run_on(w, scalars, tiles, operands, team, scratch),
    }
}

fn run_on<'a, T: Copy>(
    from: &[T],
    scalars: Scalars,
    tiles: &MergedTiles,
    operands: &mut Operands<Slice<'a>, SliceMut<'a>>,
    team: Team<'_>,
    scratch: Scratch<'_>,
) -> Result<()>
where
    for<'s> Slice<'s>: From<&'s [T]>,
    for<'s> SliceMut<'s>: From<&'s mut [T]>,
{
    // ── copy ───────────────────────────────────────────────────────────────
    let Matrix { rows, cols, offset, stride, major, .. } = operands.get_read(Operand::W)?;
    let (outer, inner) = stored(rows, cols, major);
    let len = outer * inner;
    let room = scratch.common(0, (len * size_of::<T>()).div_ceil(size_of::<f32>()));
    // SAFETY: `common` checked that so many bytes are there, which are initialised and aligned for f32, and so for
    // each of the three types, of which any bits are one. What runs below has the scratch behind them.
    let merged = unsafe { core::slice::from_raw_parts_mut(room.cast::<T>(), len) };
    let scratch = scratch.behind(tiles.room);
    if inner > 0 {
        for (row, to) in merged.chunks_exact_mut(inner).enumerate() {
            to.copy_from_slice(&from[offset + row * stride..][..inner]);
        }
    }

    // ── merge ──────────────────────────────────────────────────────────────
    let team_of = |schedule| Team { schedule, ..team };
    let mut of_merge = Operands::new(Operation::Merge);
    for operand in [Operand::A, Operand::B, Operand::W1, Operand::W2] {
        of_merge = of_merge.read(operand, operands.get_read(operand).ok());
    }
    let place = Matrix { buffer: (), rows, cols, offset: 0, stride: inner, major };
    let mut of_merge = of_merge.written(Operand::W, place.map(|()| SliceMut::from(&mut *merged)));
    let schedule = &*tiles.merge.schedule;
    match (&schedule.tiles, &tiles.merge.product) {
        (Tiles::Merge(tiles), Product::Merge(of)) => {
            merge::run(of, scalars, tiles, &mut of_merge, team_of(schedule), scratch)?;
        }
        (Tiles::Contract(tiles), Product::Factors(_)) => {
            contract::run(scalars, tiles, &mut of_merge, team_of(schedule), scratch)?;
        }
        // A plan cuts its own products.
        _ => {}
    }

    // ── the plain layer ────────────────────────────────────────────────────
    let mut of_layer = Operands::new(operands.operation());
    for operand in [Operand::X, Operand::Dy, Operand::Gain, Operand::Bias] {
        of_layer = of_layer.read(operand, operands.get_read(operand).ok());
    }
    for operand in [Operand::Y, Operand::Dx] {
        of_layer = of_layer.written(operand, operands.take_written(operand).ok());
    }
    let mut of_layer = of_layer.read(Operand::W, place.map(|()| Slice::from(&*merged)));
    let schedule = &*tiles.layer.schedule;
    match (&schedule.tiles, &tiles.layer.product) {
        (Tiles::Linear(tiles), Product::Layer(of)) => {
            linear::run(of, scalars, tiles, &mut of_layer, team_of(schedule), scratch)
        }
        _ => Ok(()),
    }
}

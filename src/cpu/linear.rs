//! linear · CPU · f32, f16, bf16
//!
//! computes   y[band × ticket] = x·wᵀ + shrunk·bᵀ (+ bias); leaders also shrunk = s·x·aᵀ
//! serves     forward and, with the roles turned, backward_input; backward_shrink, where
//!            there are no columns to multiply
//! tile       a band of up to 512 tokens; in it tickets of columns; in those blocks of up
//!            to 512 columns, multiplied, bordered and finished while they are in the cache
//! leader     tickets of up to 256 tokens compute a band's shrunk and count `done` up; the others
//!            multiply first and wait for `done` only at their border. Leaders run one band
//!            ahead: leaders(0), leaders(1), rest(0), leaders(2), rest(1), …
//! recompute  a ticket is a whole band, and computes its own shrunk: x is read once
//! scratch    shared: shrunk in f32, one counter a band; a worker: panels widened to f32

use core::ops::Range;

use super::panel::{Finish, Panel, Source, Target};
use super::product::Tile;
use super::tickets::{Publish, Team, wait};
use super::workspace::Scratch;
use super::{Slice, SliceMut};
use crate::plan::cpu::Linear;
use crate::{DType, Error, Operand, Operands, Operation, Problem, Result};

/// The operands by their part in the product, whichever direction it is.
pub(super) struct Roles<'a> {
    /// `[tokens, deep]`.
    pub(super) x: Source<'a>,
    /// `[wide, deep]` and `[tokens, wide]`; neither where only shrunk is asked for.
    pub(super) layer: Option<(Source<'a>, Target<'a>)>,
    /// `[rank, deep]`: goes down to the rank.
    pub(super) down: Option<Source<'a>>,
    /// `[wide, rank]`: comes back up.
    pub(super) up: Option<Source<'a>>,
    /// `[1, wide]`.
    pub(super) bias: Option<Source<'a>>,
    /// `[tokens, shrunk_stride]`.
    pub(super) shrunk: Option<Target<'a>>,
}

impl<'a> Roles<'a> {
    pub(super) fn new(
        problem: &Problem,
        operands: &mut Operands<Slice<'a>, SliceMut<'a>>,
    ) -> Result<Roles<'a>> {
        let forward = problem.operation() == Operation::Forward;
        let (x, y, shrunk) = match forward {
            true => (Operand::X, Operand::Y, Operand::Shrunk),
            false => (Operand::Dy, Operand::Dx, Operand::Dshrunk),
        };
        let has = |operand| problem.spec(operand).is_some();
        let mut read = |operand| {
            has(operand).then(|| operands.take_read(operand).map(Source::new)).transpose()
        };
        let missing = Error::Missing { operand: x };
        let x = read(x)?.ok_or(missing)?;
        let [w, bias, a, b] = [Operand::W, Operand::Bias, Operand::A, Operand::B].map(&mut read);
        let (w, bias, a, b) = (w?, bias?, a?, b?);
        let mut written = |operand| {
            has(operand).then(|| operands.take_written(operand).map(Target::new)).transpose()
        };
        let (y, shrunk) = (written(y)?, written(shrunk)?);
        // backward_input is forward with w, a and b transposed, and a and b exchanged.
        let (w, down, up) = match forward {
            true => (w, a, b),
            false => {
                let turned = |of: Option<Source<'a>>| of.map(Source::transposed);
                (turned(w), turned(b), turned(a))
            }
        };
        Ok(Roles { x, layer: w.zip(y), down, up, bias, shrunk })
    }
}

enum Ticket {
    Leader { band: usize, piece: usize },
    Wide { band: usize, piece: usize },
}

/// Which ticket comes `at`-th: see the order above.
fn ticket(tiles: &Linear, at: usize) -> Ticket {
    let Linear { leaders, wide, bands, .. } = *tiles;
    if at < leaders {
        return Ticket::Leader { band: 0, piece: at };
    }
    let (band, at) = ((at - leaders) / (leaders + wide), (at - leaders) % (leaders + wide));
    let ahead = if band + 1 < bands { leaders } else { 0 };
    match at.checked_sub(ahead) {
        None => Ticket::Leader { band: band + 1, piece: at },
        Some(piece) => Ticket::Wide { band, piece },
    }
}

pub(super) fn run<'a>(
    problem: &Problem,
    tiles: &Linear,
    operands: &mut Operands<Slice<'a>, SliceMut<'a>>,
    team: Team<'_>,
    scratch: Scratch<'_>,
) -> Result<()> {
    let kernel = Kernel { problem, tiles, roles: Roles::new(problem, operands)? };
    let part = problem.shrunk_part();
    let tokens = problem.tokens();
    let led = tiles.leaders > 0;
    // SAFETY: the counters lie behind the shared shrunk, and nothing else uses them.
    let done = unsafe {
        scratch.counters(if led { tokens * part } else { 0 }, if led { tiles.bands } else { 0 })
    };
    let band_rows = |band: usize| band * tiles.band..tokens.min((band + 1) * tiles.band);
    // Rows of the shared shrunk.
    let shared = |rows: &Range<usize>| scratch.shared(rows.start * part, rows.len() * part);
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
                let t =
                    unsafe { core::slice::from_raw_parts_mut(shared(&rows), rows.len() * part) };
                kernel.shrink(rows, t, own);
            }
            Ticket::Wide { band, piece } => {
                let rows = band_rows(band);
                let wide = kernel.roles.layer.map_or(0, |(w, _)| w.rows());
                let cols = piece * tiles.cols..wide.min((piece + 1) * tiles.cols);
                if led {
                    let border = || {
                        wait(&done[band], tiles.leaders);
                        // SAFETY: the band's leaders have written these rows and published
                        // them (acquired in `wait`); nobody writes them again.
                        unsafe { core::slice::from_raw_parts(shared(&rows), rows.len() * part) }
                    };
                    kernel.multiply(rows.clone(), cols, border, own);
                } else {
                    let (t, own) =
                        own.split_at_mut(if problem.rank() > 0 { tiles.band * part } else { 0 });
                    kernel.shrink(rows.clone(), t, own);
                    kernel.multiply(rows, cols, || &t[..], own);
                }
            }
        },
    );
    Ok(())
}

struct Kernel<'a> {
    problem: &'a Problem,
    tiles: &'a Linear,
    roles: Roles<'a>,
}

impl Kernel<'_> {
    /// `t = s·x·aᵀ` for some rows, rounded as `shrunk` is stored; written there, too, if kept.
    fn shrink(&self, rows: Range<usize>, t: &mut [f32], own: &mut [f32]) {
        let Some(down) = self.roles.down else { return };
        if rows.is_empty() {
            return;
        }
        let (rank, part) = (self.problem.rank(), self.problem.shrunk_part());
        let t = &mut t[..rows.len() * part];
        t.fill(0.0);
        // SAFETY: the tile lies in `t`, whose rows are `part ≥ rank` elements long.
        let mut tile = unsafe { Tile::at(t.as_mut_ptr(), rows.len(), rank, (part, 1)) };
        self.steps(self.roles.x, rows.clone(), down, 0..rank, own, |keep, x, a| {
            tile.accumulate(keep, self.problem.scale(), x, a);
        });
        round_shrunk(self.problem, t);
        if let Some(shrunk) = self.roles.shrunk {
            // SAFETY: each row of shrunk is one ticket's.
            unsafe { store_shrunk(self.problem, shrunk, rows, t) };
        }
    }

    /// Some rows and columns of y, block by block. `border` gives the rows of shrunk.
    fn multiply<'t>(
        &self,
        rows: Range<usize>,
        cols: Range<usize>,
        border: impl Fn() -> &'t [f32],
        own: &mut [f32],
    ) {
        let Roles { x, layer, up, bias, .. } = &self.roles;
        let Some((w, y)) = layer else { return };
        let (beta, part) = (self.problem.beta(), self.problem.shrunk_part());
        let rank = self.problem.rank();
        let mut start = cols.start;
        while start < cols.end {
            let block = start..cols.end.min(start + self.tiles.block);
            start = block.end;
            // Onto old values it would round at their size in every step of the sum.
            let in_place = match self.tiles.in_place {
                true => y.in_place(&rows, &block),
                false => None,
            };
            let (room, own) = own.split_at_mut(match in_place {
                Some(_) => 0,
                None => rows.len() * block.len(),
            });
            let mut tile = match in_place {
                // SAFETY: rows and columns of this ticket are no other ticket's.
                Some((start, down, right)) => unsafe {
                    Tile::at(start, rows.len(), block.len(), (down, right))
                },
                None => Tile::in_scratch(room, rows.len(), block.len()),
            };
            // ── multiply ──────────────────────────────────────────────────────
            self.steps(*x, rows.clone(), *w, block.clone(), own, |keep, x, w| {
                tile.accumulate(keep, 1.0, x, w);
            });
            // ── border: shrunk meets b ────────────────────────────────────────
            if let Some(up) = up {
                let t = Panel::new(border(), rows.len(), rank, part);
                tile.accumulate(1.0, 1.0, t, up.panel(block.clone(), 0..rank, own));
            }
            // ── finish: bias, round once, store ───────────────────────────────
            let bias = bias.map(|bias| bias.panel(0..1, block.clone(), own).row(0));
            match in_place {
                Some(_) => bias.into_iter().for_each(|bias| tile.add_bias(bias)),
                // SAFETY: as above.
                None => unsafe {
                    let step = block.len();
                    y.finish(rows.clone(), block, room, step, Finish { beta, bias });
                },
            }
        }
    }

    /// Calls `step(keep, lhs, rhs)` with f32 panels of both along the sum: at once where
    /// both are f32 in place, else widened `depth` at a time.
    fn steps(
        &self,
        lhs: Source<'_>,
        rows: Range<usize>,
        rhs: Source<'_>,
        cols: Range<usize>,
        own: &mut [f32],
        mut step: impl FnMut(f32, Panel<'_>, Panel<'_>),
    ) {
        let deep = crate::plan::cpu::wide_and_deep(self.problem).1;
        let depth = if lhs.is_f32() && rhs.is_f32() { deep } else { self.tiles.depth };
        let mut start = 0;
        while start < deep {
            let sum = start..deep.min(start + depth);
            let (left, right) =
                own.split_at_mut(if lhs.is_f32() { 0 } else { rows.len() * sum.len() });
            let lhs = lhs.panel(rows.clone(), sum.clone(), left);
            let rhs = rhs.panel(cols.clone(), sum.clone(), right);
            step(if start == 0 { 0.0 } else { 1.0 }, lhs, rhs);
            start = sum.end;
        }
    }
}

/// Rounds `t` to what `shrunk` stores: one part, or the sum of the high and the low one.
pub(super) fn round_shrunk(problem: &Problem, t: &mut [f32]) {
    let dtype = problem.activation();
    if dtype == DType::F32 {
        return;
    }
    for value in t {
        let high = dtype.round(*value);
        *value = if problem.is_precise() { high + low_part(dtype, *value, high) } else { high };
    }
}

/// What is left of `value` beside its high part; 0 where that is not finite.
fn low_part(dtype: DType, value: f32, high: f32) -> f32 {
    if high.is_finite() { dtype.round(value - high) } else { 0.0 }
}

/// Writes rows of `t` to `shrunk`: the high part and its pad, then, if precise, the low one.
///
/// # Safety
/// Nobody else may use these rows of `shrunk` meanwhile.
pub(super) unsafe fn store_shrunk(
    problem: &Problem,
    shrunk: Target<'_>,
    rows: Range<usize>,
    t: &[f32],
) {
    let (part, dtype) = (problem.shrunk_part(), problem.activation());
    for (row, t) in rows.zip(t.chunks_exact(part)) {
        // One row at a time, eight elements at a time: parts are multiples of 8.
        for (at, t) in t.chunks_exact(8).enumerate() {
            let mut high: [f32; 8] = core::array::from_fn(|i| dtype.round(t[i]));
            let mut low: [f32; 8] = core::array::from_fn(|i| low_part(dtype, t[i], high[i]));
            let cols = 8 * at..8 * at + 8;
            let finish = Finish { beta: 0.0, bias: None };
            // SAFETY: the caller's.
            unsafe {
                shrunk.finish(row..row + 1, cols.clone(), &mut high, 8, finish);
                if problem.is_precise() {
                    let cols = part + cols.start..part + cols.end;
                    shrunk.finish(row..row + 1, cols, &mut low, 8, finish);
                }
            }
        }
    }
}

//! kronecker · CPU · f32, f16, bf16
//!
//! computes   dw1[i,j] = s·Σ u[m,i,e]·x[m,(j,e)] with u = dy_i·w2, and dw2[p,e] = s·Σ v[m,j,p]·x[m,(j,e)] with
//!            v_j = Σ w1[i,j]·dy_i, each β·old + new; u and v are f32, a band of tokens at a time; where columns
//!            count taps first, e is (t,e) and x's column (t,j,e)
//! serves     backward_adapter of a LoKr with a whole w2
//! tile       a ticket of dw2 is a range of its columns and walks all tokens; one of dw1 is a slab of
//!            tokens and leaves a part of each sum, which the last round adds in their order
//! scratch    common: dw1's parts, factors widened; a worker: the tile, u or v, 16-bit panels widened

use core::ops::Range;

use super::microkernels::Tile;
use super::panel::Panel;
use super::source::Source;
use super::target::{Rounding, Target};
use super::tickets::Team;
use super::workspace::Scratch;
use super::{Slice, SliceMut};
use crate::plan::cpu::{KroneckerTiles, widened_len};
use crate::problem::Scalars;
use crate::product::{FactorGradient, KroneckerGradients};
use crate::{Operands, Result};

/// A gradient with the factor that it needs, in f32.
struct Bound<'a> {
    other: Panel<'a>,
    out: Target<'a>,
    beta: f32,
}

struct Kronecker<'a> {
    product: &'a KroneckerGradients,
    tiles: &'a KroneckerTiles,
    scale: f32,
    /// `[tokens, ·]`, both.
    dy: Source<'a>,
    x: Source<'a>,
}

pub(super) fn run<'a>(
    product: &KroneckerGradients,
    scalars: Scalars,
    tiles: &KroneckerTiles,
    operands: &mut Operands<Slice<'a>, SliceMut<'a>>,
    team: Team<'_>,
    scratch: Scratch<'_>,
) -> Result<()> {
    let all = [product.of_w1, product.of_w2].map(|of| of.map(|of| of.other));
    let len = widened_len(all.iter().flatten());
    // SAFETY: the plan has laid out so much behind dw1's parts, for this alone.
    let mut room = unsafe { core::slice::from_raw_parts_mut(scratch.tail(len), len) };
    let mut bind = |of: &Option<FactorGradient>| {
        let Some(of) = of else { return Ok(None) };
        let other = Source::take(&of.other, operands)?;
        let len = widened_len([&of.other]);
        let (own, rest) = core::mem::take(&mut room).split_at_mut(len);
        room = rest;
        let other = other.whole(own);
        let out = Target::take(&of.out, operands)?;
        Ok(Some(Bound { other, out, beta: of.old.value(scalars) }))
    };
    let (of_w1, of_w2) = (bind(&product.of_w1)?, bind(&product.of_w2)?);
    let (dy, x) = (Source::take(&product.dy, operands)?, Source::take(&product.x, operands)?);
    let scale = product.factor.value(scalars);
    let kronecker = Kronecker { product, tiles, scale, dy, x };
    team.run(
        // SAFETY: `Team::run` gives each worker's number out once.
        |worker| unsafe { scratch.of_worker(worker) },
        |own, at| match (at.checked_sub(tiles.tickets), &of_w1, &of_w2) {
            (None, _, Some(of)) => kronecker.columns_of_w2(of, at, own),
            (Some(slab), Some(of), _) => {
                // SAFETY: this part is this ticket's alone.
                let part = unsafe {
                    let start = scratch.common(slab * tiles.part, tiles.part);
                    core::slice::from_raw_parts_mut(start, tiles.part)
                };
                kronecker.part_of_w1(of, slab, part, own);
            }
            _ => {}
        },
    );
    // ── finish: the parts of dw1 in their order ───────────────────────────────
    let Some(of) = of_w1 else { return Ok(()) };
    let [rows, columns] = product.outer;
    team.run_tickets(
        1,
        // SAFETY: as above.
        |worker| unsafe { scratch.of_worker(worker) },
        |own, _| {
            let sums = &mut own[..rows * columns];
            sums.fill(0.0);
            for slab in 0..tiles.slabs {
                // SAFETY: the round that wrote it is over.
                let part = unsafe {
                    let start = scratch.common(slab * tiles.part, tiles.part);
                    core::slice::from_raw_parts(start, rows * columns)
                };
                sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
            }
            sums.iter_mut().for_each(|sum| *sum *= scale);
            let rounding = Rounding { beta: of.beta, ..Rounding::default() };
            // SAFETY: no other ticket writes.
            unsafe { of.out.finish(0..rows, 0..columns, sums, columns, rounding) };
        },
    );
    Ok(())
}

impl Kronecker<'_> {
    fn bands(&self, tokens: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let (band, end) = (self.tiles.band, tokens.end);
        tokens.step_by(band).map(move |start| start..end.min(start + band))
    }

    /// Where columns of w2 lie in x beside a column of w1: the first of each stretch, and the stretch of x.
    fn stretches(
        &self,
        block: usize,
        cols: Range<usize>,
    ) -> impl Iterator<Item = (usize, Range<usize>)> + use<> {
        let of_tap = self.product.inner[1] / self.product.taps;
        let channels = self.product.outer[1] * of_tap;
        let taps = cols.start / of_tap..cols.end.div_ceil(of_tap);
        taps.map(move |tap| {
            let first = tap * of_tap;
            let [start, end] = [cols.start.max(first), cols.end.min(first + of_tap)];
            let x = tap * channels + block * of_tap;
            (start, x + start - first..x + end - first)
        })
    }

    /// Some columns of dw2, over all tokens.
    fn columns_of_w2(&self, of: &Bound<'_>, at: usize, own: &mut [f32]) {
        let ([rows, blocks], [c, d]) = (self.product.outer, self.product.inner);
        let cols = at * self.tiles.columns..d.min((at + 1) * self.tiles.columns);
        let (sums, own) = own.split_at_mut(c * cols.len());
        sums.fill(0.0);
        let mut tile = Tile::in_scratch(sums, c, cols.len());
        for band in self.bands(0..self.product.tokens) {
            let len = if self.dy.is_f32() { 0 } else { band.len() * rows * c };
            let len = if self.dy.is_planar() { 2 * len } else { len };
            let (of_dy, own) = own.split_at_mut(len);
            let dy = self.dy.row_by_row(band.clone(), 0..rows * c, of_dy);
            let (v, of_x) = own.split_at_mut(band.len() * c);
            for block in 0..blocks {
                // ── w1 meets dy ───────────────────────────────────────────────
                mixed(dy, c, |i| of.other.at(i, block), rows, v);
                // ── multiply: tap by tap ──────────────────────────────────────
                for (at, along) in self.stretches(block, cols.clone()) {
                    let mut tile = tile.columns(at - cols.start, along.len());
                    let x = self.x.panel(band.clone(), along, of_x);
                    let v = Panel::new(v, band.len(), c, c);
                    tile.accumulate(1.0, self.scale, v.transposed(), x.transposed());
                }
            }
        }
        let (step, rounding) = (cols.len(), Rounding { beta: of.beta, ..Rounding::default() });
        // SAFETY: these columns are this ticket's.
        unsafe { of.out.finish(0..c, cols, sums, step, rounding) };
    }

    /// What a slab of tokens gives to each element of dw1, without the scale.
    fn part_of_w1(&self, of: &Bound<'_>, slab: usize, part: &mut [f32], own: &mut [f32]) {
        let ([rows, blocks], [c, d]) = (self.product.outer, self.product.inner);
        let tokens = slab * self.tiles.slab;
        let tokens = tokens..self.product.tokens.min(tokens + self.tiles.slab);
        part.fill(0.0);
        for band in self.bands(tokens) {
            let (u, own) = own.split_at_mut(band.len() * d);
            let (of_dy, of_x) = own.split_at_mut(if self.dy.is_f32() { 0 } else { band.len() * c });
            let x = self.x.row_by_row(band.clone(), 0..blocks * d, of_x);
            for i in 0..rows {
                // ── w2 meets dy ───────────────────────────────────────────────
                let dy = self.dy.panel(band.clone(), i * c..(i + 1) * c, of_dy);
                let mut tile = Tile::in_scratch(u, band.len(), d);
                tile.accumulate(0.0, 1.0, dy, of.other.transposed());
                // ── and x ─────────────────────────────────────────────────────
                for (j, sum) in part[i * blocks..(i + 1) * blocks].iter_mut().enumerate() {
                    for (row, u) in u.chunks_exact(d).enumerate() {
                        for (at, along) in self.stretches(j, 0..d) {
                            *sum += dot(&u[at..at + along.len()], &x.row(row)[along]);
                        }
                    }
                }
            }
        }
    }
}

/// `v = Σ factor(i)·dy_i`, where dy_i is the i-th stretch of `c` columns.
fn mixed(dy: Panel<'_>, c: usize, factor: impl Fn(usize) -> f32, rows: usize, v: &mut [f32]) {
    pulp::Arch::new().dispatch(|| {
        for (row, v) in v.chunks_exact_mut(c).enumerate() {
            let dy = dy.row(row);
            for i in 0..rows {
                let (factor, dy) = (factor(i), &dy[i * c..(i + 1) * c]);
                match i {
                    0 => v.iter_mut().zip(dy).for_each(|(v, dy)| *v = factor * dy),
                    _ => v.iter_mut().zip(dy).for_each(|(v, dy)| *v += factor * dy),
                }
            }
        }
    });
}

/// `Σ one·other`, in one order.
fn dot(one: &[f32], other: &[f32]) -> f32 {
    pulp::Arch::new().dispatch(|| {
        let (one, one_rest) = one.as_chunks::<16>();
        let (other, other_rest) = other.as_chunks::<16>();
        let mut lanes = [0.0f32; 16];
        for (one, other) in one.iter().zip(other) {
            for lane in 0..16 {
                lanes[lane] += one[lane] * other[lane];
            }
        }
        let rest: f32 = one_rest.iter().zip(other_rest).map(|(one, other)| one * other).sum();
        lanes.iter().sum::<f32>() + rest
    })
}

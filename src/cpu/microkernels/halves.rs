//! Dot products and scaled sums of bf16 that is widened on its way to the registers.

use half::bf16;

use super::prefetch::ahead;
use crate::cpu::panel::{Halves, Panel};

/// Tokens up to which w is widened on its way to the registers; more share what is widened
/// once, in a cache.
pub(in crate::cpu) const WIDENED: usize = 2;
/// Sums that run side by side along one row of bf16: a cache line of it.
const LANES: usize = 32;

/// [`dots`](super::dots) of a row or two with rows of bf16. Plain loops, which become vector code; one row
/// at a time, since with several the compiler leaves the sums in memory.
pub(in crate::cpu) fn dots_of_halves(
    lhs: Panel<'_>,
    rhs: Halves<'_>,
    out: &mut [f32],
    stride: usize,
) {
    pulp::Arch::new().dispatch(|| {
        for col in 0..rhs.rows {
            let (right, right_rest) = rhs.row(col).as_chunks::<LANES>();
            for row in 0..lhs.rows {
                let (left, left_rest) = lhs.row(row).as_chunks::<LANES>();
                let mut sums = [0.0; LANES];
                for (left, right) in left.iter().zip(right) {
                    ahead(right);
                    for ((sum, left), right) in sums.iter_mut().zip(left).zip(right) {
                        // The product is exact: eight bits by eight.
                        *sum += left * widened(*right);
                    }
                }
                for ((sum, left), right) in sums.iter_mut().zip(left_rest).zip(right_rest) {
                    *sum += left * widened(*right);
                }
                let mut half = LANES / 2;
                while half > 0 {
                    for lane in 0..half {
                        sums[lane] += sums[lane + half];
                    }
                    half /= 2;
                }
                out[row * stride + col] = sums[0];
            }
        }
    });
}

/// [`scaled_sums`](super::scaled_sums) of a row or two with columns of bf16, those of fixed k contiguous.
pub(in crate::cpu) fn scaled_halves(
    lhs: Panel<'_>,
    columns: Halves<'_>,
    out: &mut [f32],
    stride: usize,
) {
    pulp::Arch::new().dispatch(|| {
        let whole = columns.rows - columns.rows % 4;
        for (row, out) in out.chunks_mut(stride).enumerate() {
            let (factors, out) = (lhs.row(row), &mut out[..columns.cols]);
            for k in (0..whole).step_by(4) {
                let [a, b, c, d] = [0, 1, 2, 3].map(|at| columns.row(k + at));
                let [fa, fb, fc, fd] = [0, 1, 2, 3].map(|at| factors[k + at]);
                for ((((out, a), b), c), d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                    *out += fa * widened(*a) + fb * widened(*b);
                    *out += fc * widened(*c) + fd * widened(*d);
                }
            }
            for (k, factor) in factors.iter().enumerate().skip(whole) {
                for (out, value) in out.iter_mut().zip(columns.row(k)) {
                    *out += factor * widened(*value);
                }
            }
        }
    });
}

/// [`scaled_halves`] of columns that are long, but not very: one after the other, as memory likes
/// them best.
pub(in crate::cpu) fn streamed_halves(
    lhs: Panel<'_>,
    columns: Halves<'_>,
    out: &mut [f32],
    stride: usize,
) {
    pulp::Arch::new().dispatch(|| {
        for k in 0..columns.rows {
            let (column, column_rest) = columns.row(k).as_chunks::<LANES>();
            for (row, out) in out.chunks_mut(stride).enumerate() {
                let factor = lhs.row(row)[k];
                let (out, out_rest) = out[..columns.cols].as_chunks_mut::<LANES>();
                for (out, column) in out.iter_mut().zip(column) {
                    ahead(column);
                    // A copy, which cannot overlap the column: vector code.
                    let mut sums = *out;
                    for (sum, value) in sums.iter_mut().zip(column) {
                        *sum += factor * widened(*value);
                    }
                    *out = sums;
                }
                for (out, value) in out_rest.iter_mut().zip(column_rest) {
                    *out += factor * widened(*value);
                }
            }
        }
    });
}

#[inline(always)]
fn widened(value: bf16) -> f32 {
    f32::from_bits(u32::from(value.to_bits()) << 16)
}

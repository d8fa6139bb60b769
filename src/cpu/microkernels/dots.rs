//! Dot products of rows: few tokens with a K-major w.

use pulp::{Simd, WithSimd};

use super::SHORT;
use super::prefetch::{ahead, vectors_of_line};
use crate::cpu::panel::Panel;

/// Rows shorter than this (b's, along the rank) do not fill eight sums.
const FEW: usize = 128;

/// `out[row][col] = lhs[row]·rhs[col]`, or onto what `out` holds, both row-major, in eight sums at
/// a time: of two rows of `lhs` with four of `rhs`, of one with eight, or all eight along one short
/// row.
pub(in crate::cpu) fn dots(
    lhs: Panel<'_>,
    rhs: Panel<'_>,
    out: &mut [f32],
    stride: usize,
    onto: bool,
) {
    let mut row = 0;
    while row < lhs.rows {
        let out = &mut out[row * stride..];
        if row + 1 < lhs.rows {
            dots_of_rows::<2, 4, 1>(lhs, row, rhs, out, stride, onto);
            row += 2;
        } else {
            match lhs.cols {
                FEW..=SHORT => dots_of_rows::<1, 1, 8>(lhs, row, rhs, out, stride, onto),
                _ => dots_of_rows::<1, 8, 1>(lhs, row, rhs, out, stride, onto),
            }
            row += 1;
        }
    }
}

/// Rows `row..row + M` of `lhs` with all of `rhs`, N at a time and then one at a time.
fn dots_of_rows<const M: usize, const N: usize, const CHAINS: usize>(
    lhs: Panel<'_>,
    row: usize,
    rhs: Panel<'_>,
    out: &mut [f32],
    stride: usize,
    onto: bool,
) {
    let lhs = core::array::from_fn(|i| lhs.row(row + i));
    pulp::Arch::new().dispatch(Dots::<M, N, CHAINS> { lhs, rhs, out, stride, onto });
}

/// M rows with all rows of `rhs`, each sum in `CHAINS` parts that are added last.
struct Dots<'a, const M: usize, const N: usize, const CHAINS: usize> {
    lhs: [&'a [f32]; M],
    rhs: Panel<'a>,
    out: &'a mut [f32],
    stride: usize,
    onto: bool,
}

impl<const M: usize, const N: usize, const CHAINS: usize> WithSimd for Dots<'_, M, N, CHAINS> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Dots { lhs, rhs, out, stride, onto } = self;
        let mut col = 0;
        while col + N <= rhs.rows {
            let mut rows = [&[][..]; N];
            for (j, row) in rows.iter_mut().enumerate() {
                *row = rhs.row(col + j);
            }
            let sums = dot_block::<S, M, N, CHAINS>(simd, &lhs, &rows);
            for (i, sums) in sums.iter().enumerate() {
                let out = &mut out[i * stride + col..][..N];
                for (out, sum) in out.iter_mut().zip(sums) {
                    *out = if onto { *out + sum } else { *sum };
                }
            }
            col += N;
        }
        while col < rhs.rows {
            let sums = dot_block::<S, M, 1, 4>(simd, &lhs, &[rhs.row(col)]);
            for (i, [sum]) in sums.iter().enumerate() {
                let out = &mut out[i * stride + col];
                *out = if onto { *out + sum } else { *sum };
            }
            col += 1;
        }
    }
}

/// M × N dot products of slices of one length.
// Plain loops: a closure would be compiled without the vector instructions.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "indices over two arrays at once")]
fn dot_block<S: Simd, const M: usize, const N: usize, const CHAINS: usize>(
    simd: S,
    left: &[&[f32]; M],
    right: &[&[f32]; N],
) -> [[f32; N]; M] {
    let vectors = S::as_simd_f32s(left[0]).0.len();
    let (mut lhs, mut rhs) = ([(&[][..], &[][..]); M], [(&[][..], &[][..]); N]);
    for (split, slice) in lhs.iter_mut().zip(left) {
        let (head, tail) = S::as_simd_f32s(slice);
        *split = (&head[..vectors], tail);
    }
    for (split, slice) in rhs.iter_mut().zip(right) {
        let (head, tail) = S::as_simd_f32s(slice);
        *split = (&head[..vectors], tail);
    }
    let mut sums = [[[simd.splat_f32s(0.0); CHAINS]; N]; M];
    let mut at = 0;
    while at + CHAINS <= vectors {
        // A row that is read alone comes from memory in one stream.
        if M * N == 1 {
            for line in (0..CHAINS).step_by(vectors_of_line::<S>()) {
                ahead(&rhs[0].0[at + line]);
            }
        }
        for chain in 0..CHAINS {
            for j in 0..N {
                let right = rhs[j].0[at + chain];
                for i in 0..M {
                    let left = lhs[i].0[at + chain];
                    sums[i][j][chain] = simd.mul_add_e_f32s(left, right, sums[i][j][chain]);
                }
            }
        }
        at += CHAINS;
    }
    let mut totals = [[0.0; N]; M];
    for i in 0..M {
        for j in 0..N {
            let mut sum = sums[i][j][0];
            for chain in 1..CHAINS {
                sum = simd.add_f32s(sum, sums[i][j][chain]);
            }
            for at in at..vectors {
                sum = simd.mul_add_e_f32s(lhs[i].0[at], rhs[j].0[at], sum);
            }
            if !rhs[j].1.is_empty() {
                let left = simd.partial_load_f32s(lhs[i].1);
                let right = simd.partial_load_f32s(rhs[j].1);
                sum = simd.mul_add_e_f32s(left, right, sum);
            }
            totals[i][j] = simd.reduce_sum_f32s(sum);
        }
    }
    totals
}

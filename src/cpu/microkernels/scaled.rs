//! Sums of scaled columns: few tokens with a w that is not K-major.

use pulp::{Simd, WithSimd};

use crate::cpu::panel::Panel;

/// `out[row][col] += Σ lhs[row][k]·rhs[col][k]` where the columns of `rhs` (fixed k) are
/// contiguous: each is scaled and added, `AT_ONCE` at a time, for two rows of `out` at once.
pub(in crate::cpu) fn scaled_sums<const AT_ONCE: usize>(
    lhs: Panel<'_>,
    rhs: Panel<'_>,
    out: &mut [f32],
    stride: usize,
) {
    let columns = rhs.transposed();
    pulp::Arch::new().dispatch(ScaledSums::<AT_ONCE> { lhs, columns, out, stride });
}

struct ScaledSums<'a, const AT_ONCE: usize> {
    lhs: Panel<'a>,
    /// Row k holds what k has for every column of `out`.
    columns: Panel<'a>,
    out: &'a mut [f32],
    stride: usize,
}

impl<const AT_ONCE: usize> WithSimd for ScaledSums<'_, AT_ONCE> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let ScaledSums { lhs, columns, out, stride } = self;
        let mut k = 0;
        while k < columns.rows {
            let all = columns.rows - k >= AT_ONCE;
            for (pair, out) in out.chunks_mut(2 * stride).enumerate() {
                let (out, next) = out.split_at_mut(stride.min(out.len()));
                let (row, two) = (2 * pair, 2 * pair + 1 < lhs.rows);
                match (all, two) {
                    (true, true) => scale::<S, AT_ONCE, 2>(simd, lhs, row, columns, k, [out, next]),
                    (true, false) => scale::<S, AT_ONCE, 1>(simd, lhs, row, columns, k, [out]),
                    (false, true) => scale::<S, 1, 2>(simd, lhs, row, columns, k, [out, next]),
                    (false, false) => scale::<S, 1, 1>(simd, lhs, row, columns, k, [out]),
                }
            }
            k += if all { AT_ONCE } else { 1 };
        }
    }
}

/// `out[i] += Σ lhs[row + i][k + j]·columns[k + j]` for J columns.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "indices over two arrays at once")]
fn scale<S: Simd, const J: usize, const M: usize>(
    simd: S,
    lhs: Panel<'_>,
    row: usize,
    columns: Panel<'_>,
    k: usize,
    out: [&mut [f32]; M],
) {
    let width = columns.cols;
    let mut sources = [(&[][..], &[][..]); J];
    for j in 0..J {
        sources[j] = S::as_simd_f32s(columns.row(k + j));
    }
    let vectors = sources[0].0.len();
    let mut factors = [[simd.splat_f32s(0.0); J]; M];
    for i in 0..M {
        let row = &lhs.row(row + i)[k..][..J];
        for j in 0..J {
            factors[i][j] = simd.splat_f32s(row[j]);
        }
    }
    let mut heads: [&mut [S::f32s]; M] = core::array::from_fn(|_| &mut [][..]);
    let mut tails: [&mut [f32]; M] = core::array::from_fn(|_| &mut [][..]);
    for (i, out) in out.into_iter().enumerate() {
        let (head, tail) = S::as_mut_simd_f32s(&mut out[..width]);
        (heads[i], tails[i]) = (&mut head[..vectors], tail);
    }
    for at in 0..vectors {
        for i in 0..M {
            let mut sum = heads[i][at];
            for j in 0..J {
                sum = simd.mul_add_e_f32s(factors[i][j], sources[j].0[at], sum);
            }
            heads[i][at] = sum;
        }
    }
    for i in 0..M {
        if !tails[i].is_empty() {
            let mut sum = simd.partial_load_f32s(tails[i]);
            for j in 0..J {
                let column = simd.partial_load_f32s(sources[j].1);
                sum = simd.mul_add_e_f32s(factors[i][j], column, sum);
            }
            simd.partial_store_f32s(tails[i], sum);
        }
    }
}

//! Sums for one token over long contiguous columns, one column after the other.

use pulp::{Simd, WithSimd};

use super::prefetch::{ahead, vectors_of_line};
use crate::cpu::panel::Panel;

/// `out[col] = Σ lhs[0][k]·rhs[col][k]` for a single token where the columns of `rhs` (fixed k)
/// are contiguous and long: one after the other, as memory likes them best.
pub(in crate::cpu) fn streamed_sums(lhs: Panel<'_>, rhs: Panel<'_>, out: &mut [f32]) {
    let (factors, columns) = (lhs.row(0), rhs.transposed());
    pulp::Arch::new().dispatch(StreamedSums { factors, columns, out: &mut out[..rhs.rows] });
}

struct StreamedSums<'a> {
    factors: &'a [f32],
    /// Row k holds what k has for every column of `out`.
    columns: Panel<'a>,
    out: &'a mut [f32],
}

impl WithSimd for StreamedSums<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let StreamedSums { factors, columns, out } = self;
        let line = vectors_of_line::<S>();
        out.fill(0.0);
        let (all, tail) = S::as_mut_simd_f32s(out);
        for (k, factor) in factors.iter().enumerate() {
            let factor = simd.splat_f32s(*factor);
            let (row, rest) = S::as_simd_f32s(columns.row(k));
            let (mut sums, mut row) = (all.chunks_exact_mut(2 * line), row.chunks_exact(2 * line));
            for (sums, row) in (&mut sums).zip(&mut row) {
                ahead(&row[0]);
                ahead(&row[line]);
                for (sum, value) in sums.iter_mut().zip(row) {
                    *sum = simd.mul_add_e_f32s(factor, *value, *sum);
                }
            }
            for (sum, value) in sums.into_remainder().iter_mut().zip(row.remainder()) {
                *sum = simd.mul_add_e_f32s(factor, *value, *sum);
            }
            if !rest.is_empty() {
                let value = simd.partial_load_f32s(rest);
                let sum = simd.mul_add_e_f32s(factor, value, simd.partial_load_f32s(tail));
                simd.partial_store_f32s(tail, sum);
            }
        }
    }
}

//! Sums for one token and few columns, in registers: a shrink.

use pulp::{Simd, WithSimd};

use crate::cpu::panel::Panel;

/// Columns of `out` that are few enough for [`narrow_sums`].
pub(in crate::cpu) const NARROW: usize = 128;

/// `out[col] += Σ lhs[0][k]·rhs[col][k]` for a single token and few columns, those of `rhs`
/// (fixed k) contiguous: a shrink. The sums stay in registers, up to eight vectors at a time.
pub(in crate::cpu) fn narrow_sums(lhs: Panel<'_>, rhs: Panel<'_>, out: &mut [f32]) {
    let (factors, columns) = (lhs.row(0), rhs.transposed());
    pulp::Arch::new().dispatch(NarrowSums { factors, columns, out: &mut out[..rhs.rows] });
}

struct NarrowSums<'a> {
    factors: &'a [f32],
    /// Row k holds what k has for every column of `out`.
    columns: Panel<'a>,
    out: &'a mut [f32],
}

impl WithSimd for NarrowSums<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let NarrowSums { factors, columns, out } = self;
        let lanes = size_of::<S::f32s>() / size_of::<f32>();
        let mut col = 0;
        while col < out.len() {
            let (left, out) = ((out.len() - col) / lanes, &mut out[col..]);
            let of = match left {
                8.. => narrow::<S, 8, 1>(simd, factors, columns, col, &mut out[..8 * lanes]),
                4.. => narrow::<S, 4, 2>(simd, factors, columns, col, &mut out[..4 * lanes]),
                2.. => narrow::<S, 2, 4>(simd, factors, columns, col, &mut out[..2 * lanes]),
                1 => narrow::<S, 1, 8>(simd, factors, columns, col, &mut out[..lanes]),
                _ => tail::<S, 8>(simd, factors, columns, col, out),
            };
            col += of;
        }
    }
}

/// V whole vectors of columns from `col` on, each sum in C parts that are added last.
/// Returns how many columns those are.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "indices over two arrays at once")]
fn narrow<S: Simd, const V: usize, const C: usize>(
    simd: S,
    factors: &[f32],
    columns: Panel<'_>,
    col: usize,
    out: &mut [f32],
) -> usize {
    let width = out.len();
    let mut sums = [[simd.splat_f32s(0.0); V]; C];
    let mut k = 0;
    while k < factors.len() {
        let chains = C.min(factors.len() - k);
        for c in 0..chains {
            let row = S::as_simd_f32s(&columns.row(k + c)[col..][..width]).0;
            let factor = simd.splat_f32s(factors[k + c]);
            for v in 0..V {
                sums[c][v] = simd.mul_add_e_f32s(factor, row[v], sums[c][v]);
            }
        }
        k += C;
    }
    let out = S::as_mut_simd_f32s(out).0;
    for v in 0..V {
        for c in 0..C {
            out[v] = simd.add_f32s(out[v], sums[c][v]);
        }
    }
    width
}

/// [`narrow`] for what is less than a vector.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "indices over two arrays at once")]
fn tail<S: Simd, const C: usize>(
    simd: S,
    factors: &[f32],
    columns: Panel<'_>,
    col: usize,
    out: &mut [f32],
) -> usize {
    let width = out.len();
    let mut sums = [simd.splat_f32s(0.0); C];
    let mut k = 0;
    while k < factors.len() {
        let chains = C.min(factors.len() - k);
        for c in 0..chains {
            let row = simd.partial_load_f32s(&columns.row(k + c)[col..][..width]);
            sums[c] = simd.mul_add_e_f32s(simd.splat_f32s(factors[k + c]), row, sums[c]);
        }
        k += C;
    }
    let mut total = simd.partial_load_f32s(out);
    for c in 0..C {
        total = simd.add_f32s(total, sums[c]);
    }
    simd.partial_store_f32s(out, total);
    width
}

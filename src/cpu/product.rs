//! The products that the kernels are made of: tiles by the `gemm` crate, single rows of
//! tokens by dot products and scaled sums of our own (`gemm` packs what is read but once).

use pulp::{Simd, WithSimd};

use super::panel::Panel;

/// An accumulator: f32 elements with a step along rows and one along columns.
pub(super) struct Tile {
    start: *mut f32,
    rows: usize,
    cols: usize,
    row_step: usize,
    col_step: usize,
}

impl Tile {
    /// In scratch, row-major without gaps.
    pub(super) fn in_scratch(scratch: &mut [f32], rows: usize, cols: usize) -> Tile {
        assert!(rows * cols <= scratch.len(), "tile larger than its scratch");
        Tile { start: scratch.as_mut_ptr(), rows, cols, row_step: cols, col_step: 1 }
    }

    /// At `start`, `steps` apart along rows and along columns.
    ///
    /// # Safety
    /// The elements must be there, and nobody else's while the tile is used.
    pub(super) unsafe fn at(
        start: *mut f32,
        rows: usize,
        cols: usize,
        steps: (usize, usize),
    ) -> Tile {
        Tile { start, rows, cols, row_step: steps.0, col_step: steps.1 }
    }

    /// `self = keep·self + factor·lhs·rhsᵀ`, with `lhs` `[rows, depth]` and `rhs`
    /// `[cols, depth]`. Where `keep` is 0 the old values are not read.
    pub(super) fn accumulate(&mut self, keep: f32, factor: f32, lhs: Panel<'_>, rhs: Panel<'_>) {
        assert!(lhs.rows == self.rows && rhs.rows == self.cols && lhs.cols == rhs.cols);
        if self.rows == 0 || self.cols == 0 {
            return;
        }
        for panel in [&lhs, &rhs] {
            let last =
                (panel.rows - 1) * panel.row_step + panel.cols.saturating_sub(1) * panel.col_step;
            assert!(panel.cols == 0 || last < panel.elements.len(), "panel outside its slice");
        }
        // SAFETY: both panels were just found inside their slices; the tile's elements are
        // there by the contract of its makers.
        unsafe {
            gemm::gemm(
                self.rows,
                self.cols,
                lhs.cols,
                self.start,
                self.col_step as isize,
                self.row_step as isize,
                keep != 0.0,
                lhs.elements.as_ptr(),
                lhs.col_step as isize,
                lhs.row_step as isize,
                rhs.elements.as_ptr(),
                rhs.row_step as isize,
                rhs.col_step as isize,
                keep,
                factor,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }

    /// Adds `bias[col]` to every row.
    pub(super) fn add_bias(&mut self, bias: &[f32]) {
        assert_eq!(bias.len(), self.cols);
        for row in 0..self.rows {
            for (col, bias) in bias.iter().enumerate() {
                // SAFETY: the element is the tile's, by the contract of its makers.
                unsafe { *self.start.add(row * self.row_step + col * self.col_step) += bias };
            }
        }
    }
}

/// Rows up to this length come from memory fastest one after the other; of longer ones
/// several side by side keep more of them on the way.
const SHORT: usize = 2048;

/// `out[row][col] = lhs[row]·rhs[col]`, both row-major, in eight sums at a time: of two rows
/// of `lhs` with four of `rhs`, of one with eight, or all eight along one short row.
pub(super) fn dots(lhs: Panel<'_>, rhs: Panel<'_>, out: &mut [f32], stride: usize) {
    let mut row = 0;
    while row < lhs.rows {
        let out = &mut out[row * stride..];
        if row + 1 < lhs.rows {
            dots_of_rows::<2, 4, 1>(lhs, row, rhs, out, stride);
            row += 2;
        } else {
            match lhs.cols {
                ..=SHORT => dots_of_rows::<1, 1, 8>(lhs, row, rhs, out, stride),
                _ => dots_of_rows::<1, 8, 1>(lhs, row, rhs, out, stride),
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
) {
    let whole = rhs.rows - rhs.rows % N;
    for col in (0..whole).step_by(N) {
        for (i, sums) in block::<M, N, CHAINS>(lhs, row, rhs, col).iter().enumerate() {
            out[i * stride + col..][..N].copy_from_slice(sums);
        }
    }
    for col in whole..rhs.rows {
        for (i, [sum]) in block::<M, 1, 4>(lhs, row, rhs, col).iter().enumerate() {
            out[i * stride + col] = *sum;
        }
    }
}

fn block<const M: usize, const N: usize, const CHAINS: usize>(
    lhs: Panel<'_>,
    row: usize,
    rhs: Panel<'_>,
    col: usize,
) -> [[f32; N]; M] {
    pulp::Arch::new().dispatch(Dots::<M, N, CHAINS> {
        lhs: core::array::from_fn(|i| lhs.row(row + i)),
        rhs: core::array::from_fn(|j| rhs.row(col + j)),
    })
}

/// M × N dot products of slices of one length, each in `CHAINS` sums that are added last.
struct Dots<'a, const M: usize, const N: usize, const CHAINS: usize> {
    lhs: [&'a [f32]; M],
    rhs: [&'a [f32]; N],
}

impl<const M: usize, const N: usize, const CHAINS: usize> WithSimd for Dots<'_, M, N, CHAINS> {
    type Output = [[f32; N]; M];

    // Plain loops: a closure would be compiled without the vector instructions.
    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "indices over two arrays at once")]
    fn with_simd<S: Simd>(self, simd: S) -> [[f32; N]; M] {
        let vectors = S::as_simd_f32s(self.lhs[0]).0.len();
        let (mut lhs, mut rhs) = ([(&[][..], &[][..]); M], [(&[][..], &[][..]); N]);
        for (split, slice) in lhs.iter_mut().zip(self.lhs) {
            let (head, tail) = S::as_simd_f32s(slice);
            *split = (&head[..vectors], tail);
        }
        for (split, slice) in rhs.iter_mut().zip(self.rhs) {
            let (head, tail) = S::as_simd_f32s(slice);
            *split = (&head[..vectors], tail);
        }
        let mut sums = [[[simd.splat_f32s(0.0); CHAINS]; N]; M];
        let mut at = 0;
        while at + CHAINS <= vectors {
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
                let left = simd.partial_load_f32s(lhs[i].1);
                let right = simd.partial_load_f32s(rhs[j].1);
                totals[i][j] = simd.reduce_sum_f32s(simd.mul_add_e_f32s(left, right, sum));
            }
        }
        totals
    }
}

/// `out[row][col] += Σ lhs[row][k]·rhs[col][k]` where the columns of `rhs` (fixed k) are
/// contiguous: each is scaled and added, four at a time, for two rows of `out` at once.
pub(super) fn scaled_sums(lhs: Panel<'_>, rhs: Panel<'_>, out: &mut [f32], stride: usize) {
    let columns = rhs.transposed();
    let mut k = 0;
    while k < columns.rows {
        let depth = if columns.rows - k >= 4 { 4 } else { 1 };
        for (pair, out) in out.chunks_mut(2 * stride).enumerate() {
            let row = 2 * pair;
            match (depth, out.split_at_mut_checked(stride).filter(|_| row + 1 < lhs.rows)) {
                (4, Some((out, next))) => scale::<4, 2>(lhs, row, columns, k, [out, next]),
                (_, Some((out, next))) => scale::<1, 2>(lhs, row, columns, k, [out, next]),
                (4, None) => scale::<4, 1>(lhs, row, columns, k, [out]),
                (_, None) => scale::<1, 1>(lhs, row, columns, k, [out]),
            }
        }
        k += depth;
    }
}

fn scale<const J: usize, const M: usize>(
    lhs: Panel<'_>,
    row: usize,
    columns: Panel<'_>,
    k: usize,
    out: [&mut [f32]; M],
) {
    let factors = core::array::from_fn(|i| core::array::from_fn(|j| lhs.row(row + i)[k + j]));
    let columns = core::array::from_fn::<_, J, _>(|j| columns.row(k + j));
    let out = out.map(|out| &mut out[..columns[0].len()]);
    pulp::Arch::new().dispatch(ScaledSums { factors, columns, out });
}

/// `out[i] += Σ factors[i][j]·columns[j]`.
struct ScaledSums<'a, const J: usize, const M: usize> {
    factors: [[f32; J]; M],
    columns: [&'a [f32]; J],
    out: [&'a mut [f32]; M],
}

impl<const J: usize, const M: usize> WithSimd for ScaledSums<'_, J, M> {
    type Output = ();

    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "as above: indices, not iterators")]
    fn with_simd<S: Simd>(self, simd: S) {
        let vectors = S::as_simd_f32s(self.columns[0]).0.len();
        let mut columns = [(&[][..], &[][..]); J];
        for (split, slice) in columns.iter_mut().zip(self.columns) {
            let (head, tail) = S::as_simd_f32s(slice);
            *split = (&head[..vectors], tail);
        }
        let mut factors = [[simd.splat_f32s(0.0); J]; M];
        for i in 0..M {
            for j in 0..J {
                factors[i][j] = simd.splat_f32s(self.factors[i][j]);
            }
        }
        let mut heads: [&mut [S::f32s]; M] = core::array::from_fn(|_| &mut [][..]);
        let mut tails: [&mut [f32]; M] = core::array::from_fn(|_| &mut [][..]);
        for (i, out) in self.out.into_iter().enumerate() {
            let (head, tail) = S::as_mut_simd_f32s(out);
            (heads[i], tails[i]) = (&mut head[..vectors], tail);
        }
        for at in 0..vectors {
            for i in 0..M {
                let mut sum = heads[i][at];
                for j in 0..J {
                    sum = simd.mul_add_e_f32s(factors[i][j], columns[j].0[at], sum);
                }
                heads[i][at] = sum;
            }
        }
        for i in 0..M {
            let mut sum = simd.partial_load_f32s(tails[i]);
            for j in 0..J {
                sum = simd.mul_add_e_f32s(factors[i][j], simd.partial_load_f32s(columns[j].1), sum);
            }
            simd.partial_store_f32s(tails[i], sum);
        }
    }
}

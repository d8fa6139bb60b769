//! The products that the kernels are made of: tiles by the `gemm` crate, single rows of
//! tokens by dot products and scaled sums of our own (`gemm` packs what is read but once).

use core::ops::RangeInclusive;

use half::bf16;
use pulp::{Simd, WithSimd};

use super::panel::{Halves, Panel};

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

    /// `self = lhs·rhsᵀ` of two single columns: one product an element, nothing is summed.
    pub(super) fn outer(&mut self, lhs: &[f32], rhs: &[f32]) {
        assert!(lhs.len() == self.rows && rhs.len() == self.cols);
        // Whichever index is contiguous runs inside.
        let (outer, inner, step) = match self.col_step {
            1 => (lhs, rhs, self.row_step),
            _ => (rhs, lhs, self.col_step),
        };
        assert!(self.col_step == 1 || self.row_step == 1, "a tile with gaps both ways");
        pulp::Arch::new().dispatch(|| {
            for (at, factor) in outer.iter().enumerate() {
                // SAFETY: the elements are the tile's, by the contract of its makers.
                let to = unsafe {
                    core::slice::from_raw_parts_mut(self.start.add(at * step), inner.len())
                };
                for (to, value) in to.iter_mut().zip(inner) {
                    *to = factor * value;
                }
            }
        });
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

/// Stored rows up to this length come from memory fastest one after the other; of longer ones
/// several side by side keep more of them on the way.
const SHORT: usize = 2048;
/// Rows shorter than this (b's, along the rank) do not fill eight sums.
const FEW: usize = 128;

/// `out[row][col] = lhs[row]·rhs[col]`, or onto what `out` holds, both row-major, in eight sums at a time: of two rows
/// of `lhs` with four of `rhs`, of one with eight, or all eight along one short row.
pub(super) fn dots(lhs: Panel<'_>, rhs: Panel<'_>, out: &mut [f32], stride: usize, onto: bool) {
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

/// Columns of `out` that are few enough for [`narrow_sums`].
pub(super) const NARROW: usize = 128;
/// Those that [`streamed_sums`] and [`streamed_halves`] are for.
pub(super) const STREAMED: RangeInclusive<usize> = NARROW + 1..=SHORT;

/// `out[col] += Σ lhs[0][k]·rhs[col][k]` for a single token and few columns, those of `rhs`
/// (fixed k) contiguous: a shrink. The sums stay in registers, up to eight vectors at a time.
pub(super) fn narrow_sums(lhs: Panel<'_>, rhs: Panel<'_>, out: &mut [f32]) {
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
#[allow(clippy::needless_range_loop, reason = "as above: indices, not iterators")]
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
#[allow(clippy::needless_range_loop, reason = "as above: indices, not iterators")]
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

/// Bytes between what a sum reads and what it asks the caches for: most of a page, so that the
/// next one is on its way, and found in the page tables, before the stream gets there.
const AHEAD: usize = 3072;
/// Bytes of a cache line. A stream asks once for each: asking twice was measured to be worth no
/// more than not asking.
const LINE: usize = 64;

/// Asks for what a stream of rows will read [`AHEAD`] bytes after `value`.
#[inline(always)]
fn ahead<T>(value: &T) {
    let address = core::ptr::from_ref(value).cast::<i8>().wrapping_add(AHEAD);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint: nothing is read that the program could see, and no address is wrong.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(address);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

#[inline(always)]
fn vectors_of_line<S: Simd>() -> usize {
    (LINE / size_of::<S::f32s>()).max(1)
}

/// `out[col] = Σ lhs[0][k]·rhs[col][k]` for a single token where the columns of `rhs` (fixed k)
/// are contiguous and long: one after the other, as memory likes them best.
pub(super) fn streamed_sums(lhs: Panel<'_>, rhs: Panel<'_>, out: &mut [f32]) {
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

/// `out[row][col] += Σ lhs[row][k]·rhs[col][k]` where the columns of `rhs` (fixed k) are
/// contiguous: each is scaled and added, `AT_ONCE` at a time, for two rows of `out` at once.
pub(super) fn scaled_sums<const AT_ONCE: usize>(
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
#[allow(clippy::needless_range_loop, reason = "as above: indices, not iterators")]
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

/// Tokens up to which w is widened on its way to the registers; more share what is widened
/// once, in a cache.
pub(super) const WIDENED: usize = 2;
/// Sums that run side by side along one row of bf16: a cache line of it.
const LANES: usize = 32;

/// [`dots`] of a row or two with rows of bf16. Plain loops, which become vector code; one row
/// at a time, since with several the compiler leaves the sums in memory.
pub(super) fn dots_of_halves(lhs: Panel<'_>, rhs: Halves<'_>, out: &mut [f32], stride: usize) {
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

/// [`scaled_sums`] of a row or two with columns of bf16, those of fixed k contiguous.
pub(super) fn scaled_halves(lhs: Panel<'_>, columns: Halves<'_>, out: &mut [f32], stride: usize) {
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
pub(super) fn streamed_halves(lhs: Panel<'_>, columns: Halves<'_>, out: &mut [f32], stride: usize) {
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

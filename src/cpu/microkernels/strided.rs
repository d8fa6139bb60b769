//! Rows of sums over seven indices, by strides: what an adapter's factors are composed and its gradients taken back by.

use core::ops::Range;

use pulp::{Simd, WithSimd};

use crate::product::INDICES;

/// A matrix in f32, and from one element to the next along each index.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Values<'a> {
    pub(in crate::cpu) elements: &'a [f32],
    pub(in crate::cpu) strides: [usize; INDICES],
}

/// `out[(x1, x2), (y1, y2, y3)] = Σ over s, t of left·right`, 0 where it is `diagonal` and x1 is not y2.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Sums<'a> {
    /// Of the indices, in their order.
    pub(in crate::cpu) sizes: [usize; INDICES],
    pub(in crate::cpu) diagonal: bool,
    pub(in crate::cpu) left: Values<'a>,
    pub(in crate::cpu) right: Values<'a>,
}

/// Rows and columns of `of`, to `start` and what lies behind it, rows `step` apart.
///
/// # Safety
/// The elements must be there, and nobody else's meanwhile.
pub(in crate::cpu) unsafe fn strided_sums(
    of: Sums<'_>,
    rows: Range<usize>,
    cols: Range<usize>,
    (start, step): (*mut f32, usize),
) {
    if !cols.is_empty() {
        pulp::Arch::new().dispatch(Block { of, rows, cols, start, step });
    }
}

struct Block<'a> {
    of: Sums<'a>,
    rows: Range<usize>,
    cols: Range<usize>,
    start: *mut f32,
    step: usize,
}

impl WithSimd for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Block { of, rows, cols, start, step } = self;
        let [_, height, _, blocks, width, ..] = of.sizes;
        let (mut x1, mut x2) = (rows.start / height, rows.start % height);
        let (block, y3) = (cols.start / width, cols.start % width);
        let from = [block / blocks, block % blocks, y3];
        for row in 0..rows.len() {
            // SAFETY: the caller's.
            let out = unsafe { core::slice::from_raw_parts_mut(start.add(row * step), cols.len()) };
            of.row(simd, [x1, x2], from, out);
            x2 += 1;
            if x2 == height {
                (x1, x2) = (x1 + 1, 0);
            }
        }
    }
}

impl<'a> Values<'a> {
    /// `len` elements side by side as vectors and what is left, or one element in all lanes.
    #[inline(always)]
    fn side<S: Simd, const ALONG: bool>(
        &self,
        simd: S,
        at: usize,
        len: usize,
    ) -> (&'a [S::f32s], &'a [f32], S::f32s) {
        match ALONG {
            true => {
                let (head, tail) = S::as_simd_f32s(&self.elements[at..][..len]);
                (head, tail, simd.splat_f32s(0.0))
            }
            false => (&[], &[], simd.splat_f32s(self.elements[at])),
        }
    }

    /// `len` elements side by side, no more than a vector has, or one element in all lanes.
    #[inline(always)]
    fn load<S: Simd, const ALONG: bool>(&self, simd: S, at: usize, len: usize) -> S::f32s {
        if !ALONG {
            return simd.splat_f32s(self.elements[at]);
        }
        let elements = &self.elements[at..][..len];
        match len == S::F32_LANES {
            true => S::as_simd_f32s(elements).0[0],
            false => simd.partial_load_f32s(elements),
        }
    }
}

impl Sums<'_> {
    /// Some columns of a row, from the one of these indices on, by those that are neighbours in both operands.
    #[inline(always)]
    fn row<S: Simd>(
        self,
        simd: S,
        [x1, x2]: [usize; 2],
        [mut y1, mut y2, mut y3]: [usize; 3],
        mut out: &mut [f32],
    ) {
        let [.., blocks, width, outer, inner] = self.sizes;
        let [of_x1, of_x2, of_y1, of_y2, of_left, _, of_sum] = self.left.strides;
        let [to_x1, to_x2, to_y1, to_y2, of_right, ..] = self.right.strides;
        let mut left = x1 * of_x1 + x2 * of_x2 + y1 * of_y1 + y2 * of_y2;
        let mut right = x1 * to_x1 + x2 * to_x2 + y1 * to_y1 + y2 * to_y2;
        // Where the sum runs along stored rows, and columns do not.
        let by_dots = inner > 1 && of_sum == 1 && of_left != 1;
        let is_product = outer == 1 && inner == 1;
        while !out.is_empty() {
            let (sums, rest) = out.split_at_mut((width - y3).min(out.len()));
            let at = [left + y3 * of_left, right + y3 * of_right];
            match (of_left, of_right) {
                _ if self.diagonal && x1 != y2 => sums.fill(0.0),
                _ if by_dots => self.dots(simd, at, sums),
                (1, 1) if is_product => self.products::<S, true, true>(simd, at, sums),
                (1, 0) if is_product => self.products::<S, true, false>(simd, at, sums),
                (0, 1) if is_product => self.products::<S, false, true>(simd, at, sums),
                (1, 1) => self.vectors::<S, true, true>(simd, at, sums),
                (1, 0) => self.vectors::<S, true, false>(simd, at, sums),
                (0, 1) => self.vectors::<S, false, true>(simd, at, sums),
                _ => self.apart(at, sums),
            }
            (out, y2, y3) = (rest, y2 + 1, 0);
            (left, right) = (left + of_y2, right + to_y2);
            if y2 == blocks {
                (y1, y2) = (y1 + 1, 0);
                (left, right) = (left + of_y1 - blocks * of_y2, right + to_y1 - blocks * to_y2);
            }
        }
    }

    /// Single products side by side, of elements that are so on those sides that are `LEFT` or `RIGHT`, and of one element on the
    /// others.
    #[inline(always)]
    fn products<S: Simd, const LEFT: bool, const RIGHT: bool>(
        self,
        simd: S,
        [left, right]: [usize; 2],
        out: &mut [f32],
    ) {
        let len = out.len();
        let (head, tail) = S::as_mut_simd_f32s(out);
        let of_left = self.left.side::<S, LEFT>(simd, left, len);
        let of_right = self.right.side::<S, RIGHT>(simd, right, len);
        match (LEFT, RIGHT) {
            (true, true) => {
                for (out, (left, right)) in head.iter_mut().zip(of_left.0.iter().zip(of_right.0)) {
                    *out = simd.mul_f32s(*left, *right);
                }
            }
            (true, false) => {
                for (out, left) in head.iter_mut().zip(of_left.0) {
                    *out = simd.mul_f32s(*left, of_right.2);
                }
            }
            _ => {
                for (out, right) in head.iter_mut().zip(of_right.0) {
                    *out = simd.mul_f32s(of_left.2, *right);
                }
            }
        }
        if !tail.is_empty() {
            let of_left = if LEFT { simd.partial_load_f32s(of_left.1) } else { of_left.2 };
            let of_right = if RIGHT { simd.partial_load_f32s(of_right.1) } else { of_right.2 };
            simd.partial_store_f32s(tail, simd.mul_f32s(of_left, of_right));
        }
    }

    /// Sums side by side, of elements that are so on those sides that are `LEFT` or `RIGHT`, and of one element on the others.
    #[inline(always)]
    fn vectors<S: Simd, const LEFT: bool, const RIGHT: bool>(
        self,
        simd: S,
        [mut left, mut right]: [usize; 2],
        out: &mut [f32],
    ) {
        let lanes = S::F32_LANES;
        let (head, tail) = S::as_mut_simd_f32s(out);
        for out in head {
            *out = self.vector::<S, LEFT, RIGHT>(simd, [left, right], lanes);
            (left, right) = (left + lanes * usize::from(LEFT), right + lanes * usize::from(RIGHT));
        }
        if !tail.is_empty() {
            let sums = self.vector::<S, LEFT, RIGHT>(simd, [left, right], tail.len());
            simd.partial_store_f32s(tail, sums);
        }
    }

    #[inline(always)]
    fn vector<S: Simd, const LEFT: bool, const RIGHT: bool>(
        self,
        simd: S,
        [left, right]: [usize; 2],
        len: usize,
    ) -> S::f32s {
        let [.., outer, inner] = self.sizes;
        let ([.., of_s, of_t], [.., to_s, to_t]) = (self.left.strides, self.right.strides);
        if outer == 0 || inner == 0 {
            return simd.splat_f32s(0.0);
        }
        let of_left = self.left.load::<S, LEFT>(simd, left, len);
        let of_right = self.right.load::<S, RIGHT>(simd, right, len);
        // A single product keeps its sign where it is 0.
        let mut sums = simd.mul_f32s(of_left, of_right);
        for s in 0..outer {
            for t in usize::from(s == 0)..inner {
                let of_left = self.left.load::<S, LEFT>(simd, left + s * of_s + t * of_t, len);
                let of_right = self.right.load::<S, RIGHT>(simd, right + s * to_s + t * to_t, len);
                sums = simd.mul_add_e_f32s(of_left, of_right, sums);
            }
        }
        sums
    }

    /// Dot products, one for each element of the result.
    #[inline(always)]
    fn dots<S: Simd>(self, simd: S, [mut left, mut right]: [usize; 2], out: &mut [f32]) {
        let [.., outer, inner] = self.sizes;
        let ([.., of_y, of_s, _], [.., to_y, to_s, to_t]) = (self.left.strides, self.right.strides);
        for out in out {
            *out = 0.0;
            for s in 0..outer {
                let of_left = &self.left.elements[left + s * of_s..][..inner];
                let of_right = &self.right.elements[right + s * to_s..];
                if to_t == 1 {
                    *out += dot(simd, of_left, &of_right[..inner]);
                } else {
                    for (at, left) in of_left.iter().enumerate() {
                        *out += left * of_right[at * to_t];
                    }
                }
            }
            (left, right) = (left + of_y, right + to_y);
        }
    }

    /// Sums of elements that are apart.
    #[inline(always)]
    fn apart(self, [mut left, mut right]: [usize; 2], out: &mut [f32]) {
        let [.., outer, inner] = self.sizes;
        let ([.., of_y, of_s, of_t], [.., to_y, to_s, to_t]) =
            (self.left.strides, self.right.strides);
        for out in out {
            *out = 0.0;
            for s in 0..outer {
                for t in 0..inner {
                    let of_left = self.left.elements[left + s * of_s + t * of_t];
                    *out += of_left * self.right.elements[right + s * to_s + t * to_t];
                }
            }
            (left, right) = (left + of_y, right + to_y);
        }
    }
}

/// `Σ left·right`, in one order.
#[inline(always)]
fn dot<S: Simd>(simd: S, left: &[f32], right: &[f32]) -> f32 {
    let ((left, of_left), (right, of_right)) = (S::as_simd_f32s(left), S::as_simd_f32s(right));
    let mut sums = [simd.splat_f32s(0.0); 2];
    for (at, (left, right)) in left.iter().zip(right).enumerate() {
        sums[at % 2] = simd.mul_add_e_f32s(*left, *right, sums[at % 2]);
    }
    if !of_left.is_empty() {
        let (left, right) = (simd.partial_load_f32s(of_left), simd.partial_load_f32s(of_right));
        sums[1] = simd.mul_add_e_f32s(left, right, sums[1]);
    }
    simd.reduce_sum_f32s(simd.add_f32s(sums[0], sums[1]))
}

//! Operands as the CPU kernels see them: a `Source` gives f32 panels of what is read, in
//! place or widened; a `Target` takes finished tiles of what is written, rounded once.
//! Used by every kernel of this executor.

use core::marker::PhantomData;
use core::ops::Range;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::{Slice, SliceMut};
use crate::problem::{extent, stored};
use crate::{Element, Major, Matrix};

/// Elements in f32 with a step along rows and one along columns.
#[derive(Clone, Copy)]
pub(super) struct Panel<'a> {
    pub(super) elements: &'a [f32],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_step: usize,
    pub(super) col_step: usize,
}

impl<'a> Panel<'a> {
    /// Row-major in `elements`, rows `stride` apart.
    pub(super) fn new(elements: &'a [f32], rows: usize, cols: usize, stride: usize) -> Panel<'a> {
        Panel { elements, rows, cols, row_step: stride, col_step: 1 }
    }

    pub(super) fn transposed(self) -> Panel<'a> {
        Panel {
            elements: self.elements,
            rows: self.cols,
            cols: self.rows,
            row_step: self.col_step,
            col_step: self.row_step,
        }
    }

    /// Elements of row `row`; the panel must be row-major.
    pub(super) fn row(&self, row: usize) -> &'a [f32] {
        debug_assert_eq!(self.col_step, 1);
        &self.elements[row * self.row_step..][..self.cols]
    }
}

/// Stored rows in bf16.
#[derive(Clone, Copy)]
pub(super) struct Halves<'a> {
    elements: &'a [bf16],
    pub(super) rows: usize,
    pub(super) cols: usize,
    stride: usize,
}

impl<'a> Halves<'a> {
    pub(super) fn row(&self, row: usize) -> &'a [bf16] {
        &self.elements[row * self.stride..][..self.cols]
    }
}

/// A matrix that is read.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    matrix: Matrix<Slice<'a>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(matrix: Matrix<Slice<'a>>) -> Source<'a> {
        Source { matrix }
    }

    /// The same elements, rows and columns exchanged.
    pub(super) fn transposed(self) -> Source<'a> {
        let Matrix { rows, cols, major, .. } = self.matrix;
        Source { matrix: Matrix { rows: cols, cols: rows, major: turned(major), ..self.matrix } }
    }

    pub(super) fn rows(&self) -> usize {
        self.matrix.rows
    }

    pub(super) fn cols(&self) -> usize {
        self.matrix.cols
    }

    pub(super) fn is_f32(&self) -> bool {
        matches!(self.matrix.buffer, Slice::F32(_))
    }

    pub(super) fn is_row_major(&self) -> bool {
        self.matrix.major == Major::Row
    }

    /// A part as it is stored, row by row, where that is bf16: for products that widen it on
    /// their way to the registers.
    pub(super) fn halves(&self, rows: &Range<usize>, cols: &Range<usize>) -> Option<Halves<'a>> {
        let Matrix { offset, stride, major, .. } = self.matrix;
        let (outer, inner) = if major == Major::Row { (rows, cols) } else { (cols, rows) };
        let Slice::Bf16(elements) = self.matrix.buffer else { return None };
        let start = offset + outer.start * stride + inner.start;
        let len = extent(outer.len(), inner.len(), stride).expect("checked with the operands");
        let elements = &elements[start..start + len];
        Some(Halves { elements, rows: outer.len(), cols: inner.len(), stride })
    }

    /// A part in f32: in place where it is stored so, else widened into `room`.
    pub(super) fn panel<'s>(
        &self,
        rows: Range<usize>,
        cols: Range<usize>,
        room: &'s mut [f32],
    ) -> Panel<'s>
    where
        'a: 's,
    {
        let Matrix { offset, stride, major, .. } = self.matrix;
        let ((height, width), (outer, inner)) = match major {
            Major::Row => ((rows.len(), cols.len()), (rows, cols)),
            Major::Col => ((cols.len(), rows.len()), (cols, rows)),
        };
        let start = offset + outer.start * stride + inner.start;
        let len = extent(height, width, stride).expect("checked with the operands");
        let elements = start..start + len;
        let (elements, step): (&'s [f32], usize) = match self.matrix.buffer {
            Slice::F32(of) => (&of[elements], stride),
            Slice::F16(of) => (widen_rows(&of[elements], stride, width, room), width),
            Slice::Bf16(of) => (widen_rows(&of[elements], stride, width, room), width),
        };
        let panel = Panel::new(elements, height, width, step);
        if major == Major::Row { panel } else { panel.transposed() }
    }
}

fn turned(major: Major) -> Major {
    match major {
        Major::Row => Major::Col,
        Major::Col => Major::Row,
    }
}

/// Conversions of whole slices, at the speed of the widest vectors there are.
trait Convert: Element {
    /// Stored rows of `width` elements, `stride` apart, without their gaps.
    fn widen(from: &[Self], stride: usize, width: usize, to: &mut [f32]);
    fn narrow(from: &[f32], to: &mut [Self]);
}

impl Convert for f32 {
    fn widen(from: &[f32], stride: usize, width: usize, to: &mut [f32]) {
        for (from, to) in from.chunks(stride).zip(to.chunks_exact_mut(width)) {
            to.copy_from_slice(&from[..width]);
        }
    }
    fn narrow(from: &[f32], to: &mut [f32]) {
        to.copy_from_slice(from);
    }
}

impl Convert for f16 {
    fn widen(from: &[f16], stride: usize, width: usize, to: &mut [f32]) {
        for (from, to) in from.chunks(stride).zip(to.chunks_exact_mut(width)) {
            from[..width].convert_to_f32_slice(to);
        }
    }
    fn narrow(from: &[f32], to: &mut [f16]) {
        to.convert_from_f32_slice(from);
    }
}

impl Convert for bf16 {
    fn widen(from: &[bf16], stride: usize, width: usize, to: &mut [f32]) {
        pulp::Arch::new().dispatch(|| {
            for (from, to) in from.chunks(stride).zip(to.chunks_exact_mut(width)) {
                for (to, from) in to.iter_mut().zip(&from[..width]) {
                    *to = f32::from_bits(u32::from(from.to_bits()) << 16);
                }
            }
        });
    }
    fn narrow(from: &[f32], to: &mut [bf16]) {
        // `bf16::from_f32` without its branch, so that it becomes vector code.
        pulp::Arch::new().dispatch(|| {
            for (to, from) in to.iter_mut().zip(from) {
                let bits = from.to_bits();
                let even = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
                let quiet = (bits >> 16) | 0x40;
                let rounded = if from.is_nan() { quiet } else { even };
                *to = bf16::from_bits(rounded as u16);
            }
        });
    }
}

/// Widens stored rows of `width` elements, `stride` apart, and closes the gaps.
fn widen_rows<'s, T: Convert>(
    from: &[T],
    stride: usize,
    width: usize,
    room: &'s mut [f32],
) -> &'s [f32] {
    if width == 0 || from.is_empty() {
        return &[];
    }
    // Without gaps it is one long row.
    let (stride, width) = if stride == width { (from.len(), from.len()) } else { (stride, width) };
    let room = &mut room[..from.len().div_ceil(stride) * width];
    T::widen(from, stride, width, room);
    room
}

/// Where the elements of a target lie.
#[derive(Clone, Copy)]
enum Elements {
    F32(*mut f32),
    F16(*mut f16),
    Bf16(*mut bf16),
}

/// A matrix that is written, by several workers at once, each its own tiles.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    elements: Elements,
    len: usize,
    rows: usize,
    cols: usize,
    offset: usize,
    stride: usize,
    major: Major,
    slice: PhantomData<&'a mut [f32]>,
}

// SAFETY: a target is an exclusive borrow of its slice for 'a; the methods that write are
// unsafe and leave it to the caller that tiles of different workers are disjoint.
unsafe impl Send for Target<'_> {}
// SAFETY: as above.
unsafe impl Sync for Target<'_> {}

/// What becomes of an accumulated tile on its way out: `beta·old + tile + bias`.
#[derive(Clone, Copy)]
pub(super) struct Finish<'a> {
    pub(super) beta: f32,
    pub(super) bias: Option<&'a [f32]>,
}

impl<'a> Target<'a> {
    pub(super) fn new(matrix: Matrix<SliceMut<'a>>) -> Target<'a> {
        let Matrix { buffer, rows, cols, offset, stride, major } = matrix;
        let (elements, len) = match buffer {
            SliceMut::F32(of) => (Elements::F32(of.as_mut_ptr()), of.len()),
            SliceMut::F16(of) => (Elements::F16(of.as_mut_ptr()), of.len()),
            SliceMut::Bf16(of) => (Elements::Bf16(of.as_mut_ptr()), of.len()),
        };
        Target { elements, len, rows, cols, offset, stride, major, slice: PhantomData }
    }

    /// The same elements, rows and columns exchanged.
    pub(super) fn transposed(self) -> Target<'a> {
        Target { rows: self.cols, cols: self.rows, major: turned(self.major), ..self }
    }

    pub(super) fn is_row_major(&self) -> bool {
        self.major == Major::Row
    }

    /// Start, row step and column step of an f32 target's tile, to accumulate in place.
    pub(super) fn in_place(
        &self,
        rows: &Range<usize>,
        cols: &Range<usize>,
    ) -> Option<(*mut f32, usize, usize)> {
        let Elements::F32(start) = self.elements else { return None };
        let ((outer, inner), steps) = match self.major {
            Major::Row => ((rows, cols), (self.stride, 1)),
            Major::Col => ((cols, rows), (1, self.stride)),
        };
        let first = self.stored_row(outer.start, inner).start;
        self.stored_row(outer.end.saturating_sub(1), inner);
        // SAFETY: `stored_row` found the first and the last stored row inside the slice.
        Some((unsafe { start.add(first) }, steps.0, steps.1))
    }

    /// Elements `inner` of stored row `row`, as a range of the slice that they lie in.
    fn stored_row(&self, row: usize, inner: &Range<usize>) -> Range<usize> {
        let (height, width) = stored(self.rows, self.cols, self.major);
        let start = self.offset + row * self.stride + inner.start;
        let end = start + inner.len();
        assert!(row < height && inner.end <= width && end <= self.len, "tile outside its target");
        start..end
    }

    /// Rounds `tile` (row-major, rows `step` apart; used up on the way) into rows `rows`
    /// and columns `cols`.
    ///
    /// # Safety
    /// Nobody else reads or writes these elements meanwhile.
    pub(super) unsafe fn finish(
        &self,
        rows: Range<usize>,
        cols: Range<usize>,
        tile: &mut [f32],
        step: usize,
        finish: Finish<'_>,
    ) {
        if let Some(bias) = finish.bias {
            for row in 0..rows.len() {
                for (value, bias) in tile[row * step..][..cols.len()].iter_mut().zip(bias) {
                    *value += bias;
                }
            }
        }
        // SAFETY: `elements` begins `len` elements of the type at hand, and the caller keeps
        // others out of this tile.
        unsafe {
            match self.elements {
                Elements::F32(start) => self.store(start, rows, cols, tile, step, finish.beta),
                Elements::F16(start) => self.store(start, rows, cols, tile, step, finish.beta),
                Elements::Bf16(start) => self.store(start, rows, cols, tile, step, finish.beta),
            }
        }
    }

    /// # Safety
    /// As [`Target::finish`]; `start` must be the target's own.
    unsafe fn store<T: Convert>(
        &self,
        start: *mut T,
        rows: Range<usize>,
        cols: Range<usize>,
        tile: &mut [f32],
        step: usize,
        beta: f32,
    ) {
        match self.major {
            Major::Row => {
                // Without gaps it is one long row.
                let gapless = step == cols.len() && step == self.stride;
                let at_once = if gapless { rows.len().max(1) } else { 1 };
                let tiles = tile.chunks_mut((at_once * step).max(1));
                for (row, tile) in rows.step_by(at_once).zip(tiles) {
                    let [first, last] =
                        [row, row + at_once - 1].map(|of| self.stored_row(of, &cols));
                    let place = first.start..last.end;
                    // SAFETY: `stored_row` found it inside the slice; the caller's contract.
                    let to = unsafe {
                        core::slice::from_raw_parts_mut(start.add(place.start), place.len())
                    };
                    let tile = &mut tile[..to.len()];
                    if beta != 0.0 {
                        for (value, old) in tile.iter_mut().zip(to.iter()) {
                            *value += beta * old.to_f32();
                        }
                    }
                    T::narrow(tile, to);
                }
            }
            Major::Col => {
                for (at, col) in cols.enumerate() {
                    let place = self.stored_row(col, &rows);
                    // SAFETY: as above.
                    let to = unsafe {
                        core::slice::from_raw_parts_mut(start.add(place.start), place.len())
                    };
                    for (row, to) in to.iter_mut().enumerate() {
                        let mut value = tile[row * step + at];
                        if beta != 0.0 {
                            value += beta * to.to_f32();
                        }
                        *to = T::from_f32(value);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The branchless conversions against `half`'s own, over every bf16 and its neighbours.
    #[test]
    fn bf16_conversions_are_those_of_half() {
        let mut floats = Vec::new();
        for upper in 0..=u16::MAX {
            let base = u32::from(upper) << 16;
            floats.extend(
                [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff].map(|low| f32::from_bits(base | low)),
            );
        }
        let mut narrowed = vec![bf16::ZERO; floats.len()];
        bf16::narrow(&floats, &mut narrowed);
        for (float, narrowed) in floats.iter().zip(&narrowed) {
            assert_eq!(
                narrowed.to_bits(),
                bf16::from_f32(*float).to_bits(),
                "{:#x}",
                float.to_bits()
            );
        }
        let mut widened = vec![0.0; narrowed.len()];
        bf16::widen(&narrowed, narrowed.len(), narrowed.len(), &mut widened);
        for (narrowed, widened) in narrowed.iter().zip(&widened) {
            assert_eq!(widened.to_bits(), narrowed.to_f32().to_bits());
        }
    }
}

//! Operands that are written: each takes finished tiles, rounded once, from several workers at a time.
//! Used by every kernel of this executor.

use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops::Range;

use half::{bf16, f16};

use super::convert::Convert;
use super::slice::ElementsMut;
use super::{Slice, SliceMut};
use crate::problem::stored;
use crate::product::{Planes, Store};
use crate::{Major, Matrix, Operands, Result};

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
    /// Where its columns are planes of images.
    planes: Option<Planes>,
    slice: PhantomData<&'a mut [f32]>,
}

// SAFETY: a target is an exclusive borrow of its slice for 'a; the methods that write are
// unsafe and leave it to the caller that tiles of different workers are disjoint.
unsafe impl Send for Target<'_> {}
// SAFETY: as above.
unsafe impl Sync for Target<'_> {}

/// What becomes of an accumulated tile on its way out: `beta·old + gain∘tile + bias`.
#[derive(Clone, Copy, Default)]
pub(super) struct Rounding<'a> {
    pub(super) beta: f32,
    pub(super) gain: Option<&'a [f32]>,
    pub(super) bias: Option<&'a [f32]>,
}

impl Rounding<'_> {
    /// What a row of sums is multiplied with, and what is added to it before its old values.
    pub(super) fn of_row(&self, sums: &mut [f32]) {
        if let Some(gain) = self.gain {
            assert_eq!(gain.len(), sums.len());
            for (sum, gain) in sums.iter_mut().zip(gain) {
                *sum *= gain;
            }
        }
        if let Some(bias) = self.bias {
            assert_eq!(bias.len(), sums.len());
            for (sum, bias) in sums.iter_mut().zip(bias) {
                *sum += bias;
            }
        }
    }

    /// The same of the sums of column `at`.
    fn of_column(&self, at: usize, sums: &mut [f32]) {
        if let Some(gain) = self.gain {
            let gain = gain[at];
            sums.iter_mut().for_each(|sum| *sum *= gain);
        }
        if let Some(bias) = self.bias {
            let bias = bias[at];
            sums.iter_mut().for_each(|sum| *sum += bias);
        }
    }
}

impl<'a> Target<'a> {
    /// Takes the operand of `store`.
    pub(super) fn take(
        store: &Store,
        operands: &mut Operands<Slice<'_>, SliceMut<'a>>,
    ) -> Result<Target<'a>> {
        let matrix = operands.take_written(store.operand)?;
        let Matrix { buffer, rows, cols, offset, stride, major } = matrix;
        let (outer, inner) = stored(rows, cols, major);
        let (rows, cols) = match store.major {
            Major::Row => (outer, inner),
            Major::Col => (inner, outer),
        };
        let (elements, len) = match buffer.into_elements() {
            ElementsMut::F32(of) => (Elements::F32(of.as_mut_ptr().cast()), of.len()),
            ElementsMut::F16(of) => (Elements::F16(of.as_mut_ptr().cast()), of.len()),
            ElementsMut::Bf16(of) => (Elements::Bf16(of.as_mut_ptr().cast()), of.len()),
        };
        let major = store.major;
        let planes = store.planes;
        Ok(Target { elements, len, rows, cols, offset, stride, major, planes, slice: PhantomData })
    }

    /// The same elements, rows and columns exchanged.
    pub(super) fn transposed(self) -> Target<'a> {
        let major = match self.major {
            Major::Row => Major::Col,
            Major::Col => Major::Row,
        };
        Target { rows: self.cols, cols: self.rows, major, ..self }
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
        if self.planes.is_some() {
            return None;
        }
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
        rounding: Rounding<'_>,
    ) {
        for row in 0..rows.len() {
            rounding.of_row(&mut tile[row * step..][..cols.len()]);
        }
        if let Some(planes) = self.planes {
            return self.images(planes, &rows, |of_image, pixels, first| {
                let tile = &mut tile[first * step..];
                // SAFETY: the caller's; other images have other elements.
                unsafe { of_image.store(pixels, cols.clone(), tile, step, rounding.beta) };
            });
        }
        // SAFETY: the caller's.
        unsafe { self.store(rows, cols, tile, step, rounding.beta) };
    }

    /// The same of a tile that lies column by column, columns `step` apart.
    ///
    /// # Safety
    /// As [`Target::finish`].
    pub(super) unsafe fn finish_turned(
        &self,
        rows: Range<usize>,
        cols: Range<usize>,
        tile: &mut [f32],
        step: usize,
        rounding: Rounding<'_>,
    ) {
        for col in 0..cols.len() {
            rounding.of_column(col, &mut tile[col * step..][..rows.len()]);
        }
        let beta = rounding.beta;
        let Some(planes) = self.planes else {
            // SAFETY: the caller's.
            return unsafe { self.transposed().store(cols, rows, tile, step, beta) };
        };
        self.images(planes, &rows, |of_image, pixels, first| {
            let tile = &mut tile[first..];
            // SAFETY: the caller's; other images have other elements.
            unsafe { of_image.transposed().store(cols.clone(), pixels, tile, step, beta) };
        });
    }

    /// Calls `each` for every image that has some of `rows`: with the matrix that it is, whose columns are stored rows, with these
    /// of its pixels, and with how many rows come before them.
    fn images(
        &self,
        Planes { pixels, columns }: Planes,
        rows: &Range<usize>,
        mut each: impl FnMut(Target<'a>, Range<usize>, usize),
    ) {
        let mut row = rows.start;
        while row < rows.end {
            let image = row / pixels;
            let first = image * pixels;
            let end = rows.end.min(first + pixels);
            let offset = self.offset + image * columns * self.stride;
            let of_image = Target {
                offset,
                rows: pixels,
                cols: columns,
                major: Major::Col,
                planes: None,
                ..*self
            };
            each(of_image, row - first..end - first, row - rows.start);
            row = end;
        }
    }

    /// Tiles without what else becomes of them.
    ///
    /// # Safety
    /// As [`Target::finish`].
    unsafe fn store(
        &self,
        rows: Range<usize>,
        cols: Range<usize>,
        tile: &mut [f32],
        step: usize,
        beta: f32,
    ) {
        // SAFETY: `elements` begins `len` elements of the type at hand, and the caller keeps
        // others out of this tile.
        unsafe {
            match self.elements {
                Elements::F32(start) => self.store_as(start, rows, cols, tile, step, beta),
                Elements::F16(start) => self.store_as(start, rows, cols, tile, step, beta),
                Elements::Bf16(start) => self.store_as(start, rows, cols, tile, step, beta),
            }
        }
    }

    /// # Safety
    /// As [`Target::finish`]; `start` must be the target's own.
    unsafe fn store_as<T: Convert>(
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
                        let start = start.add(place.start).cast::<MaybeUninit<T>>();
                        core::slice::from_raw_parts_mut(start, place.len())
                    };
                    let tile = &mut tile[..to.len()];
                    if beta != 0.0 {
                        for (value, old) in tile.iter_mut().zip(to.iter()) {
                            // SAFETY: where beta is not 0 the operand is checked to be initialised.
                            *value += beta * unsafe { old.assume_init() }.to_f32();
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
                        let start = start.add(place.start).cast::<MaybeUninit<T>>();
                        core::slice::from_raw_parts_mut(start, place.len())
                    };
                    for (row, to) in to.iter_mut().enumerate() {
                        let mut value = tile[row * step + at];
                        if beta != 0.0 {
                            // SAFETY: as above.
                            value += beta * unsafe { to.assume_init() }.to_f32();
                        }
                        to.write(T::from_f32(value));
                    }
                }
            }
        }
    }
}

//! Operands that are read, as products have them: each gives f32 panels of itself, in place where it
//! is f32, else widened. Used by every kernel of this executor.

use core::ops::Range;

use super::convert::widen_rows;
use super::gather::Images;
use super::panel::{Halves, Panel};
use super::workspace::Scratch;
use super::{Slice, SliceMut};
use crate::plan::cpu::widened_len;
use crate::problem::{extent, stored};
use crate::product::{Load, Summand, Window};
use crate::{Channels, Major, Matrix, Operands, Result};

/// A matrix that is read, as its product has it: `[rows, depth]`.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    matrix: Matrix<Slice<'a>>,
    /// Of one that is gathered; its matrix is then what is stored, but for the major.
    window: Option<Window>,
    /// What is added to it.
    summand: Option<BoundSummand<'a>>,
}

/// `s·w1 ⊗ w2` as its load has it.
#[derive(Clone, Copy)]
struct BoundSummand<'a> {
    w1: Panel<'a>,
    w2: Panel<'a>,
    /// Taps that rows and columns count first.
    taps: [usize; 2],
    scale: f32,
}

impl<'a> BoundSummand<'a> {
    fn transposed(&self) -> BoundSummand<'a> {
        let [rows, cols] = self.taps;
        BoundSummand {
            w1: self.w1.transposed(),
            w2: self.w2.transposed(),
            taps: [cols, rows],
            ..*self
        }
    }

    /// Adds the part of it that these rows and columns are to `sums`, row by row.
    fn add_to(&self, rows: Range<usize>, cols: Range<usize>, sums: &mut [f32]) {
        if cols.is_empty() {
            return;
        }
        let BoundSummand { w1, w2, taps, scale } = *self;
        // Rows and columns of w2 that a tap has.
        let [height, width] = [w2.rows / taps[0], w2.cols / taps[1]];
        pulp::Arch::new().dispatch(|| {
            for (row, sums) in rows.zip(sums.chunks_exact_mut(cols.len())) {
                let [outer, inner] = place(row, w1.rows, height);
                let mut col = cols.start;
                while col < cols.end {
                    let [block, first] = place(col, w1.cols, width);
                    let len = (width - first % width).min(cols.end - col);
                    let sums = &mut sums[col - cols.start..][..len];
                    let factor = scale * w1.at(outer, block);
                    let w2_row = &w2.elements[inner * w2.row_step + first * w2.col_step..];
                    if w2.col_step == 1 {
                        let pairs = sums.iter_mut().zip(&w2_row[..len]);
                        pairs.for_each(|(sum, w2)| *sum += factor * w2);
                    } else {
                        let pairs = sums.iter_mut().zip(w2_row.iter().step_by(w2.col_step));
                        pairs.for_each(|(sum, w2)| *sum += factor * w2);
                    }
                    col += len;
                }
            }
        });
    }
}

/// Of (tap, block, at), a row or a column of w: which of w1's it has, and which of w2's.
fn place(of_w: usize, blocks: usize, len: usize) -> [usize; 2] {
    let (tap, of_tap) = (of_w / (blocks * len), of_w % (blocks * len));
    [of_tap / len, tap * len + of_tap % len]
}

impl<'a> Source<'a> {
    /// Takes the operand of `load`.
    pub(super) fn take(
        load: &Load,
        operands: &mut Operands<Slice<'a>, SliceMut<'_>>,
    ) -> Result<Source<'a>> {
        let matrix = operands.get_read(load.operand)?;
        let window = load.window;
        let (outer, inner) = stored(matrix.rows, matrix.cols, matrix.major);
        let (rows, cols, major) = match load.k_major {
            true => (outer, inner, Major::Row),
            false => (inner, outer, Major::Col),
        };
        Ok(Source { matrix: Matrix { rows, cols, major, ..matrix }, window, summand: None })
    }

    /// The same with what is added to it; its factors are widened at the end of the common scratch.
    pub(super) fn take_summed<'o: 'a>(
        load: &Load,
        summand: Option<&Summand>,
        scale: f32,
        operands: &mut Operands<Slice<'o>, SliceMut<'_>>,
        scratch: Scratch<'a>,
    ) -> Result<Source<'a>> {
        let source = Source::take(load, operands)?;
        let Some(of) = summand else { return Ok(source) };
        let len = widened_len(of.loads());
        // SAFETY: the plan has laid out so much behind all else that is common, for this alone.
        let room = unsafe { core::slice::from_raw_parts_mut(scratch.tail(len), len) };
        let w1 = Source::take(&of.w1, operands)?;
        let w2 = Source::take(&of.w2, operands)?;
        let (for_w1, for_w2) = room.split_at_mut(if w1.is_f32() { 0 } else { w1.len() });
        let (w1, w2, taps) = (w1.whole(for_w1), w2.whole(for_w2), of.taps_along());
        let summand = BoundSummand { w1, w2, taps, scale };
        Ok(Source { summand: Some(summand), ..source })
    }

    fn len(&self) -> usize {
        self.matrix.rows * self.matrix.cols
    }

    /// All of it in f32.
    pub(super) fn whole<'s>(&self, room: &'s mut [f32]) -> Panel<'s>
    where
        'a: 's,
    {
        self.panel(0..self.matrix.rows, 0..self.matrix.cols, room)
    }

    pub(super) fn rows(&self) -> usize {
        self.matrix.rows
    }

    /// Whether its panels are where it is stored, in f32, without room to widen or to add.
    pub(super) fn is_f32(&self) -> bool {
        let is_stored = self.window.is_none() && self.summand.is_none();
        is_stored && matches!(self.matrix.buffer, Slice::F32(_))
    }

    /// Whether what is gathered lies column by column in its panels.
    pub(super) fn is_planar(&self) -> bool {
        self.window.is_some_and(|window| window.order == Channels::First)
    }

    /// [`Source::panel`] row by row, whichever way it is gathered; what is turned takes its room twice.
    pub(super) fn row_by_row<'s>(
        &self,
        rows: Range<usize>,
        cols: Range<usize>,
        room: &'s mut [f32],
    ) -> Panel<'s>
    where
        'a: 's,
    {
        if !self.is_planar() {
            return self.panel(rows, cols, room);
        }
        let (height, width) = (rows.len(), cols.len());
        let (to, room) = room.split_at_mut(height * width);
        let panel = self.panel(rows, cols, room);
        for (row, to) in to.chunks_exact_mut(width.max(1)).enumerate() {
            for (col, to) in to.iter_mut().enumerate() {
                *to = panel.at(row, col);
            }
        }
        Panel::new(to, height, width, width)
    }

    /// Whether the sum runs along its stored rows.
    pub(super) fn is_k_major(&self) -> bool {
        self.matrix.major == Major::Row
    }

    /// A part as it is stored, row by row, where that is bf16: for products that widen it on
    /// their way to the registers.
    pub(super) fn halves(&self, rows: &Range<usize>, cols: &Range<usize>) -> Option<Halves<'a>> {
        let Matrix { offset, stride, major, .. } = self.matrix;
        let (outer, inner) = if major == Major::Row { (rows, cols) } else { (cols, rows) };
        if self.summand.is_some() {
            return None;
        }
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
        if let Some(window) = &self.window {
            let (rows, columns) = if major == Major::Row { (rows, cols) } else { (cols, rows) };
            let panel = match self.matrix.buffer {
                Slice::F32(elements) if window.is_plane(&rows) => {
                    let [image, pixel] = window.place(rows.start);
                    let first = offset + (image * window.channels + columns.start) * stride + pixel;
                    let len = extent(columns.len(), rows.len(), stride);
                    let elements =
                        &elements[first..first + len.expect("checked with the operands")];
                    Panel::new(elements, columns.len(), rows.len(), stride).transposed()
                }
                Slice::F32(elements) => {
                    Images { elements, offset, stride }.panel(window, rows, columns, room)
                }
                Slice::F16(elements) => {
                    Images { elements, offset, stride }.panel(window, rows, columns, room)
                }
                Slice::Bf16(elements) => {
                    Images { elements, offset, stride }.panel(window, rows, columns, room)
                }
            };
            return if major == Major::Row { panel } else { panel.transposed() };
        }
        let ((height, width), (outer, inner)) = match major {
            Major::Row => ((rows.len(), cols.len()), (rows, cols)),
            Major::Col => ((cols.len(), rows.len()), (cols, rows)),
        };
        let start = offset + outer.start * stride + inner.start;
        let len = extent(height, width, stride).expect("checked with the operands");
        let elements = start..start + len;
        if let Some(summand) = &self.summand {
            let room = &mut room[..height * width];
            match self.matrix.buffer {
                Slice::F32(of) => widen_rows(&of[elements], stride, width, room),
                Slice::F16(of) => widen_rows(&of[elements], stride, width, room),
                Slice::Bf16(of) => widen_rows(&of[elements], stride, width, room),
            };
            let summand = match major {
                Major::Row => *summand,
                Major::Col => summand.transposed(),
            };
            summand.add_to(outer, inner, room);
            let panel = Panel::new(room, height, width, width);
            return if major == Major::Row { panel } else { panel.transposed() };
        }
        let (elements, step): (&'s [f32], usize) = match self.matrix.buffer {
            Slice::F32(of) => (&of[elements], stride),
            Slice::F16(of) => (widen_rows(&of[elements], stride, width, room), width),
            Slice::Bf16(of) => (widen_rows(&of[elements], stride, width, room), width),
        };
        let panel = Panel::new(elements, height, width, step);
        if major == Major::Row { panel } else { panel.transposed() }
    }
}

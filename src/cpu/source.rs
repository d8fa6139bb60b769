//! Operands that are read, as products have them: each gives f32 panels of itself, in place where it
//! is f32, else widened. Used by every kernel of this executor.

use core::ops::Range;

use super::convert::{Convert, widen_rows};
use super::gather::Images;
use super::panel::{Halves, Panel};
use super::{Slice, SliceMut};
use crate::problem::{extent, stored};
use crate::product::{Load, Window};
use crate::{Major, Matrix, Operands, Result};

/// A matrix that is read, as its product has it: `[rows, depth]`.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    matrix: Matrix<Slice<'a>>,
    /// Of one that is gathered; its matrix is then what is stored, but for the major.
    window: Option<Window>,
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
        Ok(Source { matrix: Matrix { rows, cols, major, ..matrix }, window })
    }

    pub(super) fn rows(&self) -> usize {
        self.matrix.rows
    }

    /// Seen from the pixels of one phase alone.
    pub(super) fn of_phase(self, phase: [usize; 2]) -> Source<'a> {
        Source { window: self.window.map(|window| window.of_phase(phase)), ..self }
    }

    /// Whether its panels are where it is stored, in f32.
    pub(super) fn is_f32(&self) -> bool {
        self.window.is_none() && matches!(self.matrix.buffer, Slice::F32(_))
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
        let (elements, step): (&'s [f32], usize) = match self.matrix.buffer {
            Slice::F32(of) => (&of[elements], stride),
            Slice::F16(of) => (widen_rows(&of[elements], stride, width, room), width),
            Slice::Bf16(of) => (widen_rows(&of[elements], stride, width, room), width),
        };
        let panel = Panel::new(elements, height, width, step);
        if major == Major::Row { panel } else { panel.transposed() }
    }

    /// Of a matrix with a row for each channel and tap of a convolution: the rows of one tap, `steps` from one channel to the
    /// next and from one tap to the next, in f32 as [`Source::panel`].
    pub(super) fn tap<'s>(
        &self,
        tap: usize,
        [of_channel, of_tap]: [usize; 2],
        channels: Range<usize>,
        cols: Range<usize>,
        room: &'s mut [f32],
    ) -> Panel<'s>
    where
        'a: 's,
    {
        let Matrix { offset, stride, major, .. } = self.matrix;
        let (of_row, of_col) = if major == Major::Row { (stride, 1) } else { (1, stride) };
        let first = channels.start * of_channel + tap * of_tap;
        let start = offset + first * of_row + cols.start * of_col;
        let (rows, cols, row_step) = (channels.len(), cols.len(), of_channel * of_row);
        let end = start + rows.saturating_sub(1) * row_step + cols.saturating_sub(1) * of_col + 1;
        match self.matrix.buffer {
            Slice::F32(of) => {
                Panel { elements: &of[start..end], rows, cols, row_step, col_step: of_col }
            }
            Slice::F16(of) => widened(&of[start..end], [rows, cols], [row_step, of_col], room),
            Slice::Bf16(of) => widened(&of[start..end], [rows, cols], [row_step, of_col], room),
        }
    }
}

/// Elements `steps` apart along rows and along columns, widened; rows lie side by side where they did.
fn widened<'s, T: Convert>(
    from: &[T],
    [rows, cols]: [usize; 2],
    [row_step, col_step]: [usize; 2],
    room: &'s mut [f32],
) -> Panel<'s> {
    if row_step < col_step {
        return widened(from, [cols, rows], [col_step, row_step], room).transposed();
    }
    let room = &mut room[..rows * cols];
    for (row, to) in room.chunks_exact_mut(cols.max(1)).enumerate() {
        let from = &from[row * row_step..];
        match col_step {
            1 => T::widen(&from[..cols], cols, cols, to),
            _ => {
                for (to, from) in to.iter_mut().zip(from.iter().step_by(col_step)) {
                    *to = from.to_f32();
                }
            }
        }
    }
    Panel::new(room, rows, cols, cols)
}

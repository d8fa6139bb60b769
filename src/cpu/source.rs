//! Operands that are read, as products have them: each gives f32 panels of itself, in place where it
//! is f32, else widened. Used by every kernel of this executor.

use core::ops::Range;

use super::convert::widen_rows;
use super::panel::{Halves, Panel};
use super::{Slice, SliceMut};
use crate::problem::{extent, stored};
use crate::product::Load;
use crate::{Major, Matrix, Operands, Result};

/// A matrix that is read, as its product has it: `[rows, depth]`.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    matrix: Matrix<Slice<'a>>,
}

impl<'a> Source<'a> {
    /// Takes the operand of `load`.
    pub(super) fn take(
        load: &Load,
        operands: &mut Operands<Slice<'a>, SliceMut<'_>>,
    ) -> Result<Source<'a>> {
        let matrix = operands.take_read(load.operand)?;
        let (outer, inner) = stored(matrix.rows, matrix.cols, matrix.major);
        let (rows, cols, major) = match load.k_major {
            true => (outer, inner, Major::Row),
            false => (inner, outer, Major::Col),
        };
        Ok(Source { matrix: Matrix { rows, cols, major, ..matrix } })
    }

    pub(super) fn rows(&self) -> usize {
        self.matrix.rows
    }

    pub(super) fn is_f32(&self) -> bool {
        matches!(self.matrix.buffer, Slice::F32(_))
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

//! Operands that are read, as products have them: each gives f32 panels of itself, in place where it
//! is f32, else widened. Used by every kernel of this executor.

use core::ops::Range;

use super::convert::{Convert, widen_rows};
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
    scale: f32,
}

impl<'a> BoundSummand<'a> {
    fn transposed(&self) -> BoundSummand<'a> {
        BoundSummand { w1: self.w1.transposed(), w2: self.w2.transposed(), ..*self }
    }

    /// Adds the part of it that these rows and columns are to `sums`, row by row.
    fn add_to(&self, rows: Range<usize>, cols: Range<usize>, sums: &mut [f32]) {
        if cols.is_empty() {
            return;
        }
        let BoundSummand { w1, w2, scale } = *self;
        pulp::Arch::new().dispatch(|| {
            for (row, sums) in rows.zip(sums.chunks_exact_mut(cols.len())) {
                let (outer, inner) = (row / w2.rows, row % w2.rows);
                let mut col = cols.start;
                while col < cols.end {
                    let (block, first) = (col / w2.cols, col % w2.cols);
                    let len = (w2.cols - first).min(cols.end - col);
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

impl BoundSummand<'_> {
    /// Adds rows `step` apart, from `first` on, of these columns to `sums`, column by column: of what a tap sees of w.
    fn add_turned(&self, first: usize, step: usize, cols: Range<usize>, sums: &mut [f32]) {
        let BoundSummand { w1, w2, scale } = *self;
        let rows = sums.len() / cols.len().max(1);
        for (col, sums) in cols.zip(sums.chunks_exact_mut(rows.max(1))) {
            let (of_w1, of_w2) = (col / w2.cols, col % w2.cols);
            let (mut block, mut inner) = (first / w2.rows, first % w2.rows);
            let mut factor = scale * w1.at(block.min(w1.rows - 1), of_w1);
            for sum in sums {
                if inner >= w2.rows {
                    (block, inner) = (block + inner / w2.rows, inner % w2.rows);
                    factor = scale * w1.at(block, of_w1);
                }
                *sum += factor * w2.at(inner, of_w2);
                inner += step;
            }
        }
    }
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
        let summand = BoundSummand { w1: w1.whole(for_w1), w2: w2.whole(for_w2), scale };
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

    /// Seen from the pixels of one phase alone.
    pub(super) fn of_phase(self, phase: [usize; 2]) -> Source<'a> {
        Source { window: self.window.map(|window| window.of_phase(phase)), ..self }
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
        let cols_of = cols.clone();
        let (rows, cols, row_step) = (channels.len(), cols.len(), of_channel * of_row);
        let end = start + rows.saturating_sub(1) * row_step + cols.saturating_sub(1) * of_col + 1;
        if let Some(summand) = &self.summand {
            let room = &mut room[..rows * cols];
            let (shape, steps) = ([rows, cols], [row_step, of_col]);
            let is_turned = match self.matrix.buffer {
                Slice::F32(of) => widen(&of[start..end], shape, steps, room),
                Slice::F16(of) => widen(&of[start..end], shape, steps, room),
                Slice::Bf16(of) => widen(&of[start..end], shape, steps, room),
            };
            return match is_turned {
                true => {
                    summand.add_turned(first, of_channel, cols_of, room);
                    Panel::new(room, cols, rows, rows).transposed()
                }
                false => {
                    for (at, row) in room.chunks_exact_mut(cols.max(1)).enumerate() {
                        let row_of_w = first + at * of_channel;
                        summand.add_to(row_of_w..row_of_w + 1, cols_of.clone(), row);
                    }
                    Panel::new(room, rows, cols, cols)
                }
            };
        }
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
    steps: [usize; 2],
    room: &'s mut [f32],
) -> Panel<'s> {
    match widen(from, [rows, cols], steps, room) {
        true => Panel::new(room, cols, rows, rows).transposed(),
        false => Panel::new(room, rows, cols, cols),
    }
}

/// The same into `room`, row by row, or where rows lie side by side column by column, which is what it says.
fn widen<T: Convert>(
    from: &[T],
    [rows, cols]: [usize; 2],
    [row_step, col_step]: [usize; 2],
    room: &mut [f32],
) -> bool {
    if row_step < col_step {
        widen(from, [cols, rows], [col_step, row_step], room);
        return true;
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
    false
}

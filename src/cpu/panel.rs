//! Parts of operands as the microkernels take them: f32 with steps both ways, or stored rows of bf16.
//! Made by `source`.

use half::bf16;

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

    pub(super) fn at(&self, row: usize, col: usize) -> f32 {
        self.elements[row * self.row_step + col * self.col_step]
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
    pub(super) elements: &'a [bf16],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) stride: usize,
}

impl<'a> Halves<'a> {
    pub(super) fn row(&self, row: usize) -> &'a [bf16] {
        &self.elements[row * self.stride..][..self.cols]
    }
}

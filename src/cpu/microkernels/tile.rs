//! Tiles of f32 sums that the `gemm` crate accumulates into.

use crate::cpu::panel::Panel;
use crate::cpu::target::Rounding;

/// An accumulator: f32 elements with a step along rows and one along columns.
pub(in crate::cpu) struct Tile {
    pub(super) start: *mut f32,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_step: usize,
    pub(super) col_step: usize,
}

impl Tile {
    /// In scratch, row-major without gaps.
    pub(in crate::cpu) fn in_scratch(scratch: &mut [f32], rows: usize, cols: usize) -> Tile {
        assert!(rows * cols <= scratch.len(), "tile larger than its scratch");
        Tile { start: scratch.as_mut_ptr(), rows, cols, row_step: cols, col_step: 1 }
    }

    /// The same column by column.
    pub(in crate::cpu) fn turned(scratch: &mut [f32], rows: usize, cols: usize) -> Tile {
        assert!(rows * cols <= scratch.len(), "tile larger than its scratch");
        Tile { start: scratch.as_mut_ptr(), rows, cols, row_step: 1, col_step: rows }
    }

    /// At `start`, `steps` apart along rows and along columns.
    ///
    /// # Safety
    /// The elements must be there, and nobody else's while the tile is used.
    pub(in crate::cpu) unsafe fn at(
        start: *mut f32,
        rows: usize,
        cols: usize,
        steps: (usize, usize),
    ) -> Tile {
        Tile { start, rows, cols, row_step: steps.0, col_step: steps.1 }
    }

    /// Some of its columns.
    pub(in crate::cpu) fn columns(&mut self, first: usize, cols: usize) -> Tile {
        assert!(first + cols <= self.cols, "columns behind the tile's last");
        // SAFETY: an element of the tile, or the one behind it where there are none.
        let start = unsafe { self.start.add(first * self.col_step) };
        Tile { start, cols, ..*self }
    }

    /// `self = keep·self + factor·lhs·rhsᵀ`, with `lhs` `[rows, depth]` and `rhs`
    /// `[cols, depth]`. Where `keep` is 0 the old values are not read.
    pub(in crate::cpu) fn accumulate(
        &mut self,
        keep: f32,
        factor: f32,
        lhs: Panel<'_>,
        rhs: Panel<'_>,
    ) {
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
    pub(in crate::cpu) fn outer(&mut self, lhs: &[f32], rhs: &[f32]) {
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

    /// What becomes of sums that lie where they belong: in rows of f32, without old values.
    pub(in crate::cpu) fn finish(&mut self, rounding: &Rounding<'_>) {
        assert_eq!(self.col_step, 1, "results lie row by row");
        for row in 0..self.rows {
            // SAFETY: the elements are the tile's, by the contract of its makers.
            let sums = unsafe {
                core::slice::from_raw_parts_mut(self.start.add(row * self.row_step), self.cols)
            };
            rounding.of_row(sums);
        }
    }
}

//! Sums whose order depends on nothing but their length, for rows whose bits must not depend on other
//! rows. `gemm` forms a sum of up to [`STEPS`] steps one step after the other, except where a matrix
//! is small or a vector: it then has ways of its own, and these are avoided here.

use super::tile::Tile;
use crate::cpu::panel::Panel;
use crate::plan::cpu::{STEPS, guard};

/// Elements of a result up to which `gemm` may form dot products instead.
const SMALL: usize = 256;

impl Tile {
    /// [`Tile::accumulate`] with a factor of 1, in that one order. `room` has what
    /// [`guard`] says.
    pub(in crate::cpu) fn accumulate_ordered(
        &mut self,
        keep: f32,
        lhs: Panel<'_>,
        rhs: Panel<'_>,
        room: &mut [f32],
    ) {
        assert!(lhs.cols <= STEPS, "a longer sum is formed in parts");
        let (rows, cols) = (self.rows, self.cols);
        if rows >= 2 && cols >= 2 && rows * cols > SMALL {
            return self.accumulate(keep, 1.0, lhs, rhs);
        }
        if rows == 0 || cols == 0 {
            return;
        }
        // Nothing is a vector here, and lhs does not lie along the sum.
        let (pitch, row_step) = (rows.next_multiple_of(8), cols.next_multiple_of(8));
        debug_assert!(room.len() >= guard(rows, cols, lhs.cols));
        let (left, sums) = room.split_at_mut(pitch * lhs.cols);
        left.fill(0.0);
        for (k, left) in left.chunks_exact_mut(pitch).enumerate() {
            for (row, to) in left[..rows].iter_mut().enumerate() {
                *to = lhs.elements[row * lhs.row_step + k * lhs.col_step];
            }
        }
        let rows_of_tile = rows.max(2);
        let sums = &mut sums[..rows_of_tile * row_step];
        sums.fill(0.0);
        let at = |row: usize, col: usize| row * self.row_step + col * self.col_step;
        for row in (0..rows).filter(|_| keep != 0.0) {
            for col in 0..cols {
                // SAFETY: the element is the tile's, by the contract of its makers.
                sums[row * row_step + col] = unsafe { *self.start.add(at(row, col)) };
            }
        }
        let left = Panel {
            elements: left,
            rows: rows_of_tile,
            cols: lhs.cols,
            row_step: 1,
            col_step: pitch,
        };
        // SAFETY: the tile lies in `sums`, which nobody else uses.
        let mut tile = unsafe { Tile::at(sums.as_mut_ptr(), rows_of_tile, cols, (row_step, 1)) };
        tile.accumulate(keep, 1.0, left, rhs);
        for row in 0..rows {
            for col in 0..cols {
                // SAFETY: as above.
                unsafe { *self.start.add(at(row, col)) = sums[row * row_step + col] };
            }
        }
    }
}

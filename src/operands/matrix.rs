//! A matrix in a caller's buffer: what is asked of the buffer, and how the matrix lies in it.

use crate::{DType, Major, Result};

/// Where a buffer lies, as far as the checks for overlap need to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Places in different allocations never overlap. Host memory and CUDA's unified
    /// addresses are one allocation each; every wgpu buffer is one of its own.
    pub allocation: u64,
    /// Address of the buffer's first byte within the allocation.
    pub byte: u64,
}

/// What the checks ask of a caller's buffer.
pub trait Buffer {
    /// Storage type of the elements.
    fn dtype(&self) -> DType;
    /// Elements that may be addressed.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Where the first element lies.
    fn place(&self) -> Place;
    /// Whether its elements hold values. Where they may not, it serves as an output that is overwritten.
    fn is_initialised(&self) -> bool {
        true
    }
}

/// A matrix in a caller's buffer.
///
/// Shapes are those of [`Operand`](crate::Operand)'s table, whatever the [`Major`]: a transposed weight is
/// still `[out_features, in_features]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Matrix<B> {
    /// The buffer.
    pub buffer: B,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Elements from the start of the buffer to the first element of the matrix.
    pub offset: usize,
    /// Elements from one stored row to the next.
    pub stride: usize,
    /// Which index is contiguous.
    pub major: Major,
}

impl<B> Matrix<B> {
    /// Row-major `[rows, cols]` at the start of `buffer`, without gaps.
    pub fn new(buffer: B, rows: usize, cols: usize) -> Matrix<B> {
        Matrix { buffer, rows, cols, offset: 0, stride: cols, major: Major::Row }
    }

    /// `[rows, cols]` whose columns are contiguous, without gaps: the buffer holds the
    /// transpose, row by row.
    pub fn transposed(buffer: B, rows: usize, cols: usize) -> Matrix<B> {
        Matrix { buffer, rows, cols, offset: 0, stride: rows, major: Major::Col }
    }

    /// A bias of `len` elements: one row.
    pub fn vector(buffer: B, len: usize) -> Matrix<B> {
        Matrix::new(buffer, 1, len)
    }

    /// A tensor of any dimensions as a matrix: the last dimension is its columns, all others together are its
    /// rows. `None` where it has no such form, and a copy is needed: rows without one stride from each to
    /// the next (a dimension in the middle narrowed, two exchanged), rows that lie over each other (broadcast),
    /// no dimension at all.
    ///
    /// ```
    /// use fused_lora::{Major, Matrix};
    ///
    /// // Columns 2 to 7 of a [2, 3, 8] tensor.
    /// let x = Matrix::from_strides((), &[2, 3, 5], &[24, 8, 1]).unwrap().at(2);
    /// assert_eq!((x.rows, x.cols, x.stride), (6, 5, 8));
    /// // The transpose of a [4, 8] weight is read where it lies; an activation has to be of Major::Row.
    /// let w = Matrix::from_strides((), &[8, 4], &[1, 8]).unwrap();
    /// assert_eq!((w.rows, w.cols, w.stride, w.major), (8, 4, 8, Major::Col));
    /// assert!(Matrix::from_strides((), &[3, 2, 5], &[5, 15, 1]).is_none());
    /// ```
    pub fn from_strides(buffer: B, dims: &[usize], strides: &[usize]) -> Option<Matrix<B>> {
        let ((&cols, front), (&of_col, of_front)) = (dims.split_last()?, strides.split_last()?);
        if front.len() != of_front.len() {
            return None;
        }
        let rows = front.iter().try_fold(1usize, |rows, &dim| rows.checked_mul(dim))?;
        // Nobody looks at the strides of nothing.
        if rows == 0 || cols == 0 {
            return Some(Matrix::new(buffer, rows, cols));
        }
        // Of the innermost dimension that has any; the others have to continue it.
        let (mut met, mut of_row) = (1usize, cols);
        for (&dim, &stride) in front.iter().zip(of_front).rev().filter(|(dim, _)| **dim != 1) {
            match met {
                1 => of_row = stride,
                _ if Some(stride) != of_row.checked_mul(met) => return None,
                _ => {}
            }
            met *= dim;
        }
        if of_col == 1 || cols == 1 {
            let matrix = Matrix::new(buffer, rows, cols).strided(of_row);
            (of_row >= cols).then_some(matrix)
        } else if of_row == 1 || rows == 1 {
            (of_col >= rows).then(|| Matrix::transposed(buffer, rows, cols).strided(of_col))
        } else {
            None
        }
    }

    /// The transpose, of the same elements where they lie: for libraries that store weights as
    /// `[in_features, out_features]` and factors likewise.
    ///
    /// ```
    /// use fused_lora::{Major, Matrix};
    ///
    /// let w = Matrix::new((), 64, 32).transpose();
    /// assert_eq!((w.rows, w.cols, w.stride, w.major), (32, 64, 32, Major::Col));
    /// ```
    pub fn transpose(self) -> Matrix<B> {
        let Matrix { buffer, rows, cols, offset, stride, major } = self;
        let major = match major {
            Major::Row => Major::Col,
            Major::Col => Major::Row,
        };
        Matrix { buffer, rows: cols, cols: rows, offset, stride, major }
    }

    /// The same matrix, its first element `offset` elements into the buffer.
    pub fn at(self, offset: usize) -> Matrix<B> {
        Matrix { offset, ..self }
    }

    /// The same matrix, its stored rows `stride` elements apart.
    pub fn strided(self, stride: usize) -> Matrix<B> {
        Matrix { stride, ..self }
    }

    /// The same matrix over another handle to its buffer.
    pub fn map<C>(self, f: impl FnOnce(B) -> C) -> Matrix<C> {
        let Matrix { buffer, rows, cols, offset, stride, major } = self;
        Matrix { buffer: f(buffer), rows, cols, offset, stride, major }
    }

    /// [`Matrix::map`] with a handle that may not be had.
    pub fn try_map<C, E>(self, f: impl FnOnce(B) -> Result<C, E>) -> Result<Matrix<C>, E> {
        let Matrix { buffer, rows, cols, offset, stride, major } = self;
        Ok(Matrix { buffer: f(buffer)?, rows, cols, offset, stride, major })
    }
}

#[cfg(test)]
mod tests {
    use super::{Major, Matrix};

    /// Every element where the strides say, for every tensor of few dimensions that is a matrix; and those
    /// that are none have no two numbers that would say it.
    #[test]
    fn strides_are_those_of_the_tensor() {
        let (sizes, steps) = ([1usize, 2, 3], [0usize, 1, 2, 3, 4, 6, 9]);
        let mut matrices = 0;
        for at in 0..(sizes.len() * steps.len()).pow(3) {
            let digit = |base: usize, place: u32| at / base.pow(place) % base;
            let both = |place| digit(sizes.len() * steps.len(), place);
            let dims = [0, 1, 2].map(|place| sizes[both(place) % sizes.len()]);
            let strides = [0, 1, 2].map(|place| steps[both(place) / sizes.len()]);
            let [outer, inner, cols] = dims;
            let address = |row: usize, col: usize| {
                row / inner * strides[0] + row % inner * strides[1] + col * strides[2]
            };
            let all = || (0..outer * inner).flat_map(|row| (0..cols).map(move |col| (row, col)));
            let fits = |of_row: usize, of_col: usize, (long, stride)| {
                stride >= long
                    && all().all(|(row, col)| address(row, col) == row * of_row + col * of_col)
            };
            let rows = outer * inner;
            match Matrix::from_strides((), &dims, &strides) {
                Some(of) => {
                    matrices += 1;
                    assert_eq!((of.rows, of.cols, of.offset), (rows, cols, 0));
                    let fits = match of.major {
                        Major::Row => fits(of.stride, 1, (cols, of.stride)),
                        Major::Col => fits(1, of.stride, (rows, of.stride)),
                    };
                    assert!(fits, "{dims:?} {strides:?}: {of:?}");
                }
                None => {
                    let found =
                        (1..=40).any(|of| fits(of, 1, (cols, of)) || fits(1, of, (rows, of)));
                    assert!(!found, "{dims:?} {strides:?} is a matrix");
                }
            }
        }
        assert!(matrices > 1000, "{matrices}");
        for dims in [[2, 0, 3], [2, 3, 0]] {
            let of = Matrix::from_strides((), &dims, &[0, 0, 0]).unwrap();
            assert_eq!((of.rows, of.cols, of.stride), (2 * dims[1], dims[2], dims[2]));
        }
        assert!(Matrix::from_strides((), &[], &[]).is_none());
        assert!(Matrix::from_strides((), &[2, 3], &[1]).is_none());
        assert!(Matrix::from_strides((), &[usize::MAX, 2, 1], &[0, 1, 1]).is_none());
    }
}

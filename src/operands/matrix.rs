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

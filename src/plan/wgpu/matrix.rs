//! A stored matrix as kernels see it: what limits, costs and renderings are worked out from.

use crate::{DType, Spec};

/// A stored matrix, or some stored rows of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoredMatrix {
    pub(super) dtype: DType,
    /// Stored rows and columns.
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// Elements from one stored row to the next.
    pub(super) stride: usize,
    /// Bytes of which the first element's address is a multiple; 0, which stands for 16, is one of each.
    pub(super) align: usize,
    /// The stored rows that are bound, first and count; `None`: all.
    pub(super) window: Option<(usize, usize)>,
}

impl StoredMatrix {
    /// All of an operand.
    pub(super) fn new(spec: &Spec) -> StoredMatrix {
        let (rows, cols) = spec.stored();
        StoredMatrix {
            dtype: spec.dtype,
            rows,
            cols,
            // Of a single row it means nothing, and may be any number.
            stride: if rows > 1 { spec.stride } else { cols },
            align: spec.align,
            window: None,
        }
    }

    /// f32 in the workspace: rows without gaps, aligned.
    pub(super) fn scratch(rows: usize, cols: usize) -> StoredMatrix {
        StoredMatrix { dtype: DType::F32, rows, cols, stride: cols, align: 16, window: None }
    }

    /// `count` stored rows from `first` on.
    pub(super) fn window(self, (first, count): (usize, usize)) -> StoredMatrix {
        match (first, count) == (0, self.rows) {
            true => self,
            false => StoredMatrix { window: Some((first, count)), ..self },
        }
    }

    /// Stored rows that are bound.
    pub(super) fn bound_rows(&self) -> usize {
        self.window.map_or(self.rows, |(_, count)| count)
    }

    /// Bytes that `rows` stored rows span.
    pub(super) fn bytes_of_rows(&self, rows: usize) -> u64 {
        let elements = rows.saturating_sub(1) as u64 * self.stride as u64 + self.cols as u64;
        elements * self.dtype.size() as u64
    }

    /// Bytes of the elements themselves.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes_of(self.rows)
    }

    /// Of those in `rows` stored rows.
    pub(super) fn bytes_of(&self, rows: usize) -> u64 {
        (rows as u64 * self.cols as u64).saturating_mul(self.dtype.size() as u64)
    }

    /// How many stored rows at most span `bytes`.
    pub(super) fn rows_in(&self, bytes: u64) -> usize {
        let elements = bytes / self.dtype.size() as u64;
        match elements.checked_sub(self.cols as u64) {
            None => 0,
            Some(rest) => (rest / self.stride.max(1) as u64) as usize + 1,
        }
    }

    /// Whether rows begin at multiples of `of` elements, and hold a multiple of as many.
    pub(super) fn groups(&self, of: usize) -> bool {
        let bytes = of * self.dtype.size();
        let begins =
            self.align.is_multiple_of(bytes) && (self.rows <= 1 || self.stride.is_multiple_of(of));
        begins && self.cols.is_multiple_of(of)
    }
}

//! How a matrix lies in its buffer, and how far it reaches. Part of a [`Problem`](super::Problem).

use core::fmt;

/// Which index of a matrix runs contiguously in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Major {
    /// The rows of the shape in [`Operand`](crate::Operand)'s table lie contiguously: PEFT, candle.
    #[default]
    Row,
    /// The columns do; what is stored is the transpose: burn.
    Col,
}

impl fmt::Display for Major {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Major::Row => "row-major",
            Major::Col => "column-major",
        })
    }
}

/// How an operand lies in its buffer. Write it with
/// `..Layout::default()`: a later version may have another field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Layout {
    /// Which index is contiguous.
    pub major: Major,
    /// Elements from one stored row to the next; `None`: stored without gaps.
    pub stride: Option<usize>,
    /// Bytes of which the first element's address is a multiple. 0, the default, stands for 16, as every
    /// allocation has it: kernels read vectors then. Less has to be said, and takes other, slower texts;
    /// [`Operands::problem`](crate::Operands::problem) reads it off. The CPU runs either on any address.
    pub align: usize,
}

/// What an alignment of 0 stands for, in bytes: the longest vector that a kernel reads.
pub(crate) const ALIGN: usize = 16;

impl Layout {
    /// Stored as the transpose of the shape in [`Operand`](crate::Operand)'s table.
    pub const TRANSPOSED: Layout = Layout { major: Major::Col, stride: None, align: 0 };
}

pub(crate) fn stored(rows: usize, cols: usize, major: Major) -> (usize, usize) {
    match major {
        Major::Row => (rows, cols),
        Major::Col => (cols, rows),
    }
}

pub(crate) fn extent(stored_rows: usize, stored_cols: usize, stride: usize) -> Option<usize> {
    if stored_rows == 0 || stored_cols == 0 {
        return Some(0);
    }
    (stored_rows - 1).checked_mul(stride)?.checked_add(stored_cols)
}

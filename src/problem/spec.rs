//! What a problem says of each of its operands: the table of shapes, types and accesses. Read by
//! the checks and by `product`; it is worked out once a plan.

use super::cost::saturating_product;
use super::layout::{extent, stored};
use super::{Access, Gradients, Layout, Major, Operand, Operation, Problem};
use crate::DType;

/// All that is known of one operand of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Spec {
    /// Rows of the shape in [`Operand`]'s table.
    pub rows: usize,
    /// Columns of that shape.
    pub cols: usize,
    /// Storage type.
    pub dtype: DType,
    /// Which index is contiguous.
    pub major: Major,
    /// Elements from one stored row to the next.
    pub stride: usize,
    /// Promised alignment in bytes; 0: none.
    pub align: usize,
    /// What the operation does with it.
    pub access: Access,
}

impl Spec {
    /// Rows and columns as stored: swapped for [`Major::Col`].
    pub fn stored(&self) -> (usize, usize) {
        stored(self.rows, self.cols, self.major)
    }

    /// Elements from the first to the last, gaps included; `None` where that leaves `usize`.
    pub fn extent(&self) -> Option<usize> {
        let (rows, cols) = self.stored();
        extent(rows, cols, self.stride)
    }

    /// Bytes of the elements themselves, without gaps.
    pub fn bytes(&self) -> u64 {
        saturating_product([self.rows as u64, self.cols as u64, self.dtype.size() as u64])
    }
}

/// What is known of each operand, by its number; `None`: the problem does not have it.
pub(crate) type Specs = [Option<Spec>; Operand::COUNT];

impl Problem {
    /// Shape, storage and layout of `operand`, or `None` where this problem does not have it.
    pub fn spec(&self, operand: Operand) -> Option<Spec> {
        use Operand::*;
        let (m, k, n, r) = (self.tokens, self.in_features, self.out_features, self.rank);
        let result = if self.beta() == 0.0 { Access::Write } else { Access::Update };
        let (da, db) = match self.gradients {
            Gradients::Both => (true, true),
            Gradients::A => (true, false),
            Gradients::B => (false, true),
        };
        // Read it as a table: which operands each operation has, and what it does with them.
        let access = match (self.operation, operand) {
            (Operation::Forward, X | W) => Some(Access::Read),
            (Operation::Forward, Bias) => self.bias.then_some(Access::Read),
            (Operation::Forward, Y) => Some(result),
            (Operation::Forward, Shrunk) => (self.keep_shrunk && r > 0).then_some(Access::Write),
            (Operation::BackwardInput, Dy | W) => Some(Access::Read),
            (Operation::BackwardInput, Dx) => Some(result),
            (Operation::BackwardInput, Dshrunk) => {
                (self.keep_shrunk && r > 0).then_some(Access::Write)
            }
            (Operation::BackwardAdapter, X | Dshrunk) => (da && r > 0).then_some(Access::Read),
            (Operation::BackwardAdapter, Dy | Shrunk) => (db && r > 0).then_some(Access::Read),
            (Operation::BackwardAdapter, Da) => (da && r > 0).then_some(result),
            (Operation::BackwardAdapter, Db) => (db && r > 0).then_some(result),
            (Operation::BackwardShrink, Dy) => (r > 0).then_some(Access::Read),
            (Operation::BackwardShrink, Dshrunk) => (r > 0).then_some(Access::Write),
            (Operation::BackwardShrink, A) | (Operation::BackwardAdapter, A | B) => None,
            (Operation::Merge | Operation::Unmerge, W) => Some(Access::Update),
            (_, A | B) => (r > 0).then_some(Access::Read),
            _ => None,
        }?;
        let (rows, cols, dtype) = match operand {
            X => (m, k, self.activation),
            Dx => (m, k, self.output()),
            W => (n, k, self.activation),
            Bias => (1, n, self.activation),
            A => (r, k, self.adapter),
            B => (n, r, self.adapter),
            Y => (m, n, self.output()),
            Dy => (m, n, self.activation),
            Shrunk | Dshrunk => (m, self.shrunk_stride(), self.activation),
            Da => (r, k, self.gradient),
            Db => (n, r, self.gradient),
        };
        let Layout { major, stride, align } = self.layouts[operand as usize];
        let stride = stride.unwrap_or(stored(rows, cols, major).1);
        Some(Spec { rows, cols, dtype, major, stride, align, access })
    }

    /// [`Problem::spec`] of every operand, for who needs them at every run.
    pub(crate) fn all_specs(&self) -> Specs {
        core::array::from_fn(|at| self.spec(Operand::ALL[at]))
    }

    /// Every operand that this problem has, in the order of [`Operand::ALL`].
    pub fn specs(&self) -> impl Iterator<Item = (Operand, Spec)> + '_ {
        Operand::ALL.iter().copied().filter_map(|operand| Some((operand, self.spec(operand)?)))
    }
}

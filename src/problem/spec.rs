//! What a problem says of each of its operands: the table of shapes, types and accesses. Read by
//! the checks and by `product`; it is worked out once a plan.

use super::cost::saturating_product;
use super::layout::{extent, stored};
use super::{
    Access, Channels, Gradients, Kronecker, Layout, Major, Method, Operand, Operation, Problem,
    Taps,
};
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
        if self.operation == Operation::Compose || self.operation == Operation::Chain {
            return self.spec_of_factor(operand);
        }
        if let Some(of) = self.method.kronecker()
            && (self.operation == Operation::BackwardAdapter
                || matches!(operand, W1 | W2 | Dw1 | Dw2))
        {
            return self.spec_of_kronecker(operand, of);
        }
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
            (Operation::Forward, Gain) => self.gain.then_some(Access::Read),
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
            (Operation::Norm, W | Magnitude) => Some(Access::Read),
            (Operation::Norm, Gain) => Some(Access::Write),
            (Operation::BackwardGain, Dy | Y | Gain | Magnitude) => Some(Access::Read),
            (Operation::BackwardGain, Bias) => self.bias.then_some(Access::Read),
            (Operation::BackwardGain, ScaledDy) => Some(Access::Write),
            (Operation::BackwardGain, Dmagnitude) => Some(result),
            (Operation::BackwardGain, A | B) => None,
            (_, A | B) => (r > 0).then_some(Access::Read),
            _ => None,
        }?;
        let [x, y] = self.shapes_of_activations();
        let (rows, cols, dtype) = match operand {
            X => (x[0], x[1], self.activation),
            Dx => (x[0], x[1], self.output()),
            W => (n, k, self.activation),
            Bias => (1, n, self.activation),
            Gain | Magnitude => (1, n, DType::F32),
            ScaledDy => (y[0], y[1], self.activation),
            Dmagnitude => (1, n, self.gradient),
            A => (r, k, self.adapter),
            B => (n, r, self.adapter),
            Y => (y[0], y[1], self.output()),
            // Of a shrink of the input, what is shrunk is stored as x is.
            Dy if self.of_input => (x[0], x[1], self.activation),
            Dy => (y[0], y[1], self.activation),
            Shrunk | Dshrunk => (m, self.shrunk_stride(), self.activation),
            Da => (r, k, self.gradient),
            Db => (n, r, self.gradient),
            W1 | W1a | W1b | W2 | W2a | W2b => return None,
            Dw1 | Dw1a | Dw1b | Dw2 | Dw2a | Dw2b => return None,
            Down | Core | Up | Ddown | Dcore | Dup => return None,
        };
        Some(self.spec_with(operand, rows, cols, dtype, access))
    }

    /// What a layer has of a LoKr with a whole w2, and all of its gradients.
    fn spec_of_kronecker(&self, operand: Operand, of: Kronecker) -> Option<Spec> {
        use Operand::*;
        let (k, n) = (self.in_features, self.out_features);
        let result = if self.beta() == 0.0 { Access::Write } else { Access::Update };
        let (of_w1, of_w2) = match self.gradients {
            Gradients::Both => (true, true),
            Gradients::A => (true, false),
            Gradients::B => (false, true),
        };
        let access = match (self.operation, operand) {
            (Operation::BackwardAdapter, X | Dy) => Some(Access::Read),
            (Operation::BackwardAdapter, W1) => of_w2.then_some(Access::Read),
            (Operation::BackwardAdapter, W2) => of_w1.then_some(Access::Read),
            (Operation::BackwardAdapter, Dw1) => of_w1.then_some(result),
            (Operation::BackwardAdapter, Dw2) => of_w2.then_some(result),
            (Operation::BackwardAdapter | Operation::BackwardShrink, _) => None,
            (Operation::BackwardGain, _) | (_, Dw1 | Dw2) => None,
            _ => Some(Access::Read),
        }?;
        let [x, y] = self.shapes_of_activations();
        let w1 = |dtype| (of.rows, of.columns, if of.low { DType::F32 } else { dtype });
        let w2 = |dtype| (n / of.rows.max(1), k / of.columns.max(1), dtype);
        let (rows, cols, dtype) = match operand {
            X => (x[0], x[1], self.activation),
            Dy => (y[0], y[1], self.activation),
            W1 => w1(self.adapter),
            W2 => w2(self.adapter),
            Dw1 => (of.rows, of.columns, self.gradient),
            Dw2 => w2(self.gradient),
            _ => return None,
        };
        Some(self.spec_with(operand, rows, cols, dtype, access))
    }

    /// Rows and columns of `x` and of `y`, and so of their gradients.
    fn shapes_of_activations(&self) -> [[usize; 2]; 2] {
        let (m, k, n) = (self.tokens, self.in_features, self.out_features);
        let Some(of) = self.window() else { return [[m, k], [m, n]] };
        // Of a shrink of the input, which is the other way round, the rows of b are w's columns.
        let channels = if self.of_input { n } else { k } / of.taps().max(1);
        match of.channels {
            Channels::First => {
                let [image, output] = of.planes();
                let planes = |channels| of.images.saturating_mul(channels);
                [[planes(channels), image], [planes(n), output]]
            }
            Channels::Last => [[of.pixels(), channels], [m, n]],
        }
    }

    /// [`Problem::spec`] of the operations on factors.
    fn spec_of_factor(&self, operand: Operand) -> Option<Spec> {
        use Operand::*;
        let (k, n, r, inner) = (self.in_features, self.out_features, self.rank, self.inner_rank());
        let composes = self.operation == Operation::Compose;
        let is_whole = self.method.kronecker().is_some();
        let result = if self.beta() == 0.0 { Access::Write } else { Access::Update };
        // Rows and columns of each half of w1 and of w2; validated, so that they divide.
        let (w1, is_low, [c, d]) = match self.method {
            Method::Lora => return None,
            Method::Tucker(of) => return self.spec_beside_core(operand, of),
            Method::Loha => ([n, k], true, [n, k]),
            Method::Lokr(of) => {
                let [rows, columns] = [of.rows, of.columns].map(|of| of.max(1));
                ([of.rows, of.columns], of.low, [n / rows, k / columns])
            }
        };
        let is_kronecker = self.method != Method::Loha;
        // What belongs to a, and to b: w1 of LoKr is all in a.
        let (of_a, of_b) = match self.gradients {
            Gradients::Both => (true, true),
            Gradients::A => (true, false),
            Gradients::B => (false, true),
        };
        let (of_a, of_b) = (composes || of_a, composes || of_b);
        let of_w1a = if is_kronecker { of_a } else { of_b };
        // Of LoKr's w2a the gradient is a sum of db alone.
        let reads_w2a = of_b && (composes || !is_kronecker);
        let (there, rows, cols) = match operand {
            // Beside a whole w2 what is composed is w1.
            W1 if is_whole => (composes, w1[0], w1[1]),
            Dw1 if is_whole => (of_a, w1[0], w1[1]),
            A | Da => (of_a && !is_whole, inner, k),
            B | Db => (of_b && !is_whole, n, inner),
            W1 | Dw1 => (of_a && !is_low, w1[0], w1[1]),
            W1a | Dw1a => (of_w1a && is_low, w1[0], r),
            W1b | Dw1b => (of_a && is_low, r, w1[1]),
            W2a => (reads_w2a && !is_whole, c, r),
            Dw2a => (of_b && !is_whole, c, r),
            W2b | Dw2b => (of_a && !is_whole, r, d),
            _ => (false, 0, 0),
        };
        let (access, dtype) = match operand {
            W1 if is_whole => (Some(Access::Write), DType::F32),
            Dw1 if is_whole => ((!composes).then_some(Access::Read), DType::F32),
            A | B => (composes.then_some(Access::Write), DType::F32),
            Da | Db => ((!composes).then_some(Access::Read), DType::F32),
            Dw1 | Dw1a | Dw1b | Dw2a | Dw2b => ((!composes).then_some(result), self.gradient),
            _ => (Some(Access::Read), self.adapter),
        };
        let access = access.filter(|_| there && r > 0)?;
        Some(self.spec_with(operand, rows, cols, dtype, access))
    }

    /// [`Problem::spec`] of the operations on LoCon's factors beside a core.
    fn spec_beside_core(&self, operand: Operand, of: Taps) -> Option<Spec> {
        use Operand::*;
        let (k, n, r) = (self.in_features, self.out_features, self.rank);
        let composes = self.operation == Operation::Compose;
        let (of_a, of_b) = match self.gradients {
            Gradients::Both => (true, true),
            Gradients::A => (true, false),
            Gradients::B => (false, true),
        };
        let (of_a, of_b) = (composes || of_a, composes || of_b);
        let (there, rows, cols) = match operand {
            A | Da => (of_a, r, k),
            B | Db => (of_b, n, r),
            Down | Ddown => (of_a, r, k / of.count.max(1)),
            Core | Dcore => (of_a, r, r.saturating_mul(of.count)),
            // Its gradient is db.
            Up => (composes, n, r),
            Dup => (of_b, n, r),
            _ => (false, 0, 0),
        };
        let result = if self.beta() == 0.0 { Access::Write } else { Access::Update };
        let (access, dtype) = match operand {
            A | B => (composes.then_some(Access::Write), DType::F32),
            Da | Db => ((!composes).then_some(Access::Read), DType::F32),
            Ddown | Dcore | Dup => ((!composes).then_some(result), self.gradient),
            _ => (Some(Access::Read), self.adapter),
        };
        let access = access.filter(|_| there && r > 0)?;
        Some(self.spec_with(operand, rows, cols, dtype, access))
    }

    fn spec_with(
        &self,
        operand: Operand,
        rows: usize,
        cols: usize,
        dtype: DType,
        access: Access,
    ) -> Spec {
        let Layout { major, stride, align } = self.layouts[operand as usize];
        let stride = stride.unwrap_or(stored(rows, cols, major).1);
        Spec { rows, cols, dtype, major, stride, align, access }
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

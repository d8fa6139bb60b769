//! What can be wrong with a problem by itself, before there are operands or a device.

use super::{Kronecker, MOST_INNER_RANK, Major, Method, Problem, Scalars, Taps};
use crate::{DType, Error, Operand, Operation, Result};

impl Problem {
    /// The checks that need nothing but the problem; [`Plan::new`](crate::Plan::new) calls it.
    pub fn validate(&self) -> Result<()> {
        for (what, got) in [("in_features", self.in_features), ("out_features", self.out_features)]
        {
            if got == 0 {
                return Err(Error::Size { what, expected: "at least 1", got });
            }
        }
        Scalars::of(self).validate()?;
        if ![self.activation, DType::F32].contains(&self.output()) {
            let (activation, got) = (self.activation, self.output());
            return Err(Error::OutputType { activation, got });
        }
        self.validate_method()?;
        self.validate_convolution()?;
        // flops() and bytes() are then far from overflow.
        if self.magnitude() > (1u64 << 60) as f64 {
            return Err(Error::Size {
                what: "tokens, in_features, out_features and rank together",
                expected: "fewer than 2^60 operations and bytes",
                got: self.tokens,
            });
        }
        for (operand, spec) in self.specs() {
            if spec.major == Major::Col && !operand.either_major() {
                return Err(Error::RowMajorOnly { operand });
            }
            let (_, cols) = spec.stored();
            if spec.stride < cols {
                return Err(Error::StrideTooSmall { operand, expected: cols, got: spec.stride });
            }
            let bytes = spec.extent().and_then(|len| len.checked_mul(spec.dtype.size()));
            if bytes.is_none_or(|bytes| isize::try_from(bytes).is_err()) {
                return Err(Error::Overflow { operand });
            }
        }
        Ok(())
    }

    /// Factors and the operations on them belong together, and make an `a` and a `b` that fit the layer.
    fn validate_method(&self) -> Result<()> {
        let (operation, method) = (self.operation, self.method);
        let is_of_factors = Operation::FACTORS.contains(&operation);
        let is_right = match method.kronecker() {
            None => is_of_factors == (method != Method::Lora),
            // Beside a whole w2 there is a w1 to compose, or none.
            Some(of) if is_of_factors => of.low,
            Some(_) => !matches!(operation, Operation::BackwardShrink | Operation::BackwardGain),
        };
        if !is_right {
            return Err(Error::Method { operation, method: method.name() });
        }
        if let Method::Lokr(of) = method {
            use Operation::{BackwardAdapter, BackwardInput, Forward};
            let is_layer = matches!(operation, Forward | BackwardInput | BackwardAdapter);
            // Where no image is seen, a weight may be of some all the same; of w1 alone they have no part.
            let expected = match self.convolution {
                Some(_) if is_of_factors && of.whole => None,
                Some(images) => Some(images.taps_first()),
                None => is_layer.then_some(1),
            };
            if let Some(taps) = expected.filter(|taps| *taps != of.taps) {
                let what =
                    "taps that columns of LoKr's factors count first, and those of the images";
                let (expected, got) = ("the same number", [of.taps, taps]);
                return Err(Error::Convolution { what, expected, got });
            }
        }
        if method.kronecker().is_some() && !is_of_factors && self.rank != 0 {
            let got = self.rank;
            return Err(Error::Size { what: "rank", expected: "0 beside a whole w2", got });
        }
        if let Method::Lokr(Kronecker { rows, columns, taps, .. }) = method {
            let divides = |part: usize, whole: usize| part > 0 && whole.is_multiple_of(part);
            if !divides(rows, self.out_features) || !divides(columns, self.in_features) {
                let expected = "rows that divide out_features, and columns that divide in_features";
                return Err(Error::Factor { operand: Operand::W1, expected, got: [rows, columns] });
            }
            if !divides(taps, self.in_features / columns) {
                let (expected, got) =
                    ("taps that divide its columns", [taps, self.in_features / columns]);
                return Err(Error::Factor { operand: Operand::W2, expected, got });
            }
        }
        if let Method::Tucker(Taps { count, .. }) = method
            && (count == 0 || !self.in_features.is_multiple_of(count))
        {
            let (expected, got) = ("taps that divide in_features", [count, self.in_features]);
            return Err(Error::Factor { operand: Operand::Core, expected, got });
        }
        let got = self.inner_rank();
        if method != Method::Lora && got > MOST_INNER_RANK {
            return Err(Error::Size { what: "inner rank", expected: "at most 4096", got });
        }
        Ok(())
    }

    /// The images and the weight are those of the convolution.
    pub(crate) fn validate_convolution(&self) -> Result<()> {
        let Some(of) = self.convolution else { return Ok(()) };
        of.validate()?;
        let layer = (Operation::ALL.contains(&self.operation)
            || self.operation == Operation::BackwardGain)
            && !matches!(self.operation, Operation::Merge | Operation::Unmerge);
        let refused = |what, expected, got| Err(Error::Convolution { what, expected, got });
        if layer && self.tokens != of.tokens() {
            let got = [self.tokens, of.tokens()];
            return refused("tokens and pixels of all outputs", "the same number", got);
        }
        if !self.in_features.is_multiple_of(of.taps()) {
            let expected = "columns of w that elements of the kernel divide";
            return refused("in_features and kernel", expected, [self.in_features, of.taps()]);
        }
        Ok(())
    }

    /// At least the operations and the bytes of every operation on these sizes.
    fn magnitude(&self) -> f64 {
        let pixels = self.convolution.map_or(0, |of| of.pixels());
        let [m, k, n, r] =
            [self.tokens.max(pixels), self.in_features, self.out_features, self.inner_rank()]
                .map(|size| size as f64 + 8.0);
        16.0 * (m * (n * k + r * (n + k)) + n * k * r)
    }
}

//! A call whose adapter is stored in the factors of a method: what composes `a` and `b` of them before the
//! layer runs, and takes `da` and `db` back to them behind it. Called by the executors, which bring memory for
//! what lies between.

use super::{Adapter, Buffer, Factor, Forward, Matrix, Merge, Norm, Operands};
use crate::{Channels, Convolution, Error, Kronecker, Method, Operand, Operation, Problem, Result};

impl<I> Adapter<I> {
    /// Of rank 0 it is as good as none.
    pub(super) fn is_nothing(&self) -> bool {
        match self {
            Adapter::Lora { a, b } => a.rows == 0 && b.cols == 0,
            Adapter::Loha { w1a, w1b, w2a, w2b } => {
                [w1a.cols, w1b.rows, w2a.cols, w2b.rows] == [0; 4]
            }
            Adapter::Lokr { w2: Factor::Low(w2a, w2b), .. } => w2a.cols == 0 && w2b.rows == 0,
            Adapter::Lokr { .. } => false,
        }
    }

    /// Its factors by name.
    pub(super) fn into_operands(self) -> [(Operand, Option<Matrix<I>>); 4] {
        use Operand::*;
        let halves = |of: Factor<I>, [whole, a, b]: [Operand; 3]| match of {
            Factor::Whole(of) => [(whole, Some(of)), (b, None)],
            Factor::Low(of_a, of_b) => [(a, Some(of_a)), (b, Some(of_b))],
        };
        match self {
            Adapter::Lora { a, b } => [(A, Some(a)), (B, Some(b)), (W1, None), (W2, None)],
            Adapter::Loha { w1a, w1b, w2a, w2b } => {
                [(W1a, Some(w1a)), (W1b, Some(w1b)), (W2a, Some(w2a)), (W2b, Some(w2b))]
            }
            Adapter::Lokr { w1, w2 } => {
                let ([w1, other], [w2, last]) =
                    (halves(w1, [W1, W1a, W1b]), halves(w2, [W2, W2a, W2b]));
                [w1, other, w2, last]
            }
        }
    }
}

impl<I: Buffer> Adapter<I> {
    /// Its inner rank, as far as that is known.
    pub(super) fn inner_rank(&self) -> usize {
        match self {
            Adapter::Lora { a, .. } => a.rows,
            Adapter::Loha { w1b, .. } => Method::Loha.inner_rank(w1b.rows),
            Adapter::Lokr { w1, w2: Factor::Low(_, w2b) } => {
                let rows = match w1 {
                    Factor::Whole(of) | Factor::Low(of, _) => of.rows,
                };
                rows.saturating_mul(w2b.rows)
            }
            Adapter::Lokr { .. } => 0,
        }
    }

    /// Whether the columns of its factors are those of a weight on such images: LoKr's are blocks of whole kernels, which
    /// channels that lie last have apart.
    ///
    /// # Errors
    /// [`Error::Convolution`] where they are not.
    pub(super) fn check_order(&self, convolution: Option<Convolution>) -> Result<()> {
        let Some(of) = convolution else { return Ok(()) };
        let is_apart = of.channels == Channels::Last && of.taps() != 1;
        if is_apart && matches!(self, Adapter::Lokr { .. }) {
            let (what, expected) = ("LoKr", "channels first, in whose order its factors are");
            return Err(Error::Convolution { what, expected, got: of.kernel });
        }
        Ok(())
    }

    /// What composes it for a weight `[out_features, in_features]`; `None` where it is LoRA's a and b.
    fn composition(&self, [out_features, in_features]: [usize; 2]) -> Result<Option<Problem>> {
        let (method, last) = match self {
            Adapter::Lora { .. } => return Ok(None),
            Adapter::Loha { w1b, .. } => (Method::Loha, w1b),
            Adapter::Lokr { w2: Factor::Whole(of), .. } => {
                let (expected, got) = ("factors of low rank", [of.rows, of.cols]);
                return Err(Error::Factor { operand: Operand::W2, expected, got });
            }
            Adapter::Lokr { w1: Factor::Whole(w1), w2: Factor::Low(_, w2b) } => {
                (Method::Lokr(Kronecker::new(w1.rows, w1.cols)), w2b)
            }
            Adapter::Lokr { w1: Factor::Low(w1a, w1b), w2: Factor::Low(_, w2b) } => {
                (Method::Lokr(Kronecker::low(w1a.rows, w1b.cols)), w2b)
            }
        };
        let problem = Problem::new(Operation::Compose, 0, in_features, out_features, last.rows)
            .with_method(method)
            .with_adapter(last.buffer.dtype());
        // Before anything is worked out of shapes that do not fit each other.
        problem.validate()?;
        Ok(Some(problem))
    }

    /// Takes the factors apart from the call, where there are some.
    pub(super) fn composed(self, w: [usize; 2]) -> Result<Composed<I>> {
        let Some(problem) = self.composition(w)? else { return Ok(Composed::No(self)) };
        let factors = self.into_operands();
        // Here the method is known, which below is read off their shapes.
        for (operand, matrix) in &factors {
            let Some((spec, of)) = problem.spec(*operand).zip(matrix.as_ref()) else { continue };
            let (expected, got) = ([spec.rows, spec.cols], [of.rows, of.cols]);
            if expected != got {
                return Err(Error::Shape { operand: *operand, expected, got });
            }
        }
        Ok(Composed::By(Compose { problem, factors }))
    }
}

/// An adapter as kernels take it, or what makes that.
#[expect(clippy::large_enum_variant, reason = "moved once a call, on which nothing is allocated")]
pub(super) enum Composed<I> {
    No(Adapter<I>),
    By(Compose<I>),
}

/// `a` and `b` of factors: the first step of a call.
#[derive(Debug)]
pub(crate) struct Compose<I> {
    /// Without layouts.
    pub(super) problem: Problem,
    pub(super) factors: [(Operand, Option<Matrix<I>>); 4],
}

impl<I> Compose<I> {
    /// Shapes of `a` and `b`, which are f32 without gaps.
    pub(crate) fn shapes(&self) -> [[usize; 2]; 2] {
        shapes(&self.problem)
    }

    /// The same over other handles to its buffers.
    #[cfg(feature = "cuda")]
    pub(crate) fn try_map<J>(
        self,
        mut read: impl FnMut(Operand, I) -> Result<J>,
    ) -> Result<Compose<J>> {
        let mut factors = self.factors.each_ref().map(|(operand, _)| (*operand, None));
        for (to, (operand, matrix)) in factors.iter_mut().zip(self.factors) {
            to.1 = matrix.map(|of| of.try_map(|of| read(operand, of))).transpose()?;
        }
        Ok(Compose { problem: self.problem, factors })
    }

    pub(crate) fn with<O>(self, a: Matrix<O>, b: Matrix<O>) -> Operands<I, O> {
        let mut operands = Operands::new(Operation::Compose);
        for (operand, matrix) in self.factors {
            operands.set_read(operand, matrix);
        }
        operands.set_written(Operand::A, Some(a));
        operands.set_written(Operand::B, Some(b));
        operands
    }
}

impl<I, O> Operands<I, O> {
    /// With what was composed for them.
    pub(crate) fn on_composed(mut self, [a, b]: [Option<Matrix<I>>; 2]) -> Operands<I, O> {
        self.set_read(Operand::A, a);
        self.set_read(Operand::B, b);
        self
    }
}

/// `[R, in_features]` and `[out_features, R]`.
pub(super) fn shapes(problem: &Problem) -> [[usize; 2]; 2] {
    let inner = problem.inner_rank();
    [[inner, problem.in_features()], [problem.out_features(), inner]]
}

macro_rules! layers {
    ($($type:ident)*) => {$(
        impl<I: Buffer, O> $type<I, O> {
            /// Takes an adapter out that has to be composed first.
            ///
            /// # Errors
            /// Factors that no layer of this weight has.
            pub(crate) fn take_compose(&mut self) -> Result<Option<Compose<I>>> {
                let w = [self.w.rows, self.w.cols];
                // LoRA stays where it is: this is on the way to every call.
                if !matches!(self.adapter, Some(Adapter::Loha { .. } | Adapter::Lokr { .. })) {
                    return Ok(None);
                }
                let taken = self.adapter.take().filter(|of| !of.is_nothing());
                if let Some(of) = &taken {
                    of.check_order(self.options.convolution)?;
                }
                Ok(match taken.map(|of| of.composed(w)).transpose()? {
                    Some(Composed::By(compose)) => Some(compose),
                    _ => None,
                })
            }
        }
    )*};
}

layers!(Forward Merge Norm);

//! A call whose adapter is stored in the factors of a method: what composes `a` and `b` of them before the
//! layer runs, and takes `da` and `db` back to them behind it. Called by the executors, which bring memory for
//! what lies between.

use super::options::Options;
use super::{Adapter, Buffer, Factor, Forward, Matrix, Merge, Norm, Operands};
use crate::{
    Convolution, DType, Error, Kronecker, Method, Operand, Operation, Problem, Result, Taps,
};

impl<I> Adapter<I> {
    /// Of rank 0 it is as good as none.
    pub(super) fn is_nothing(&self) -> bool {
        match self {
            Adapter::Lora { a, b } => a.rows == 0 && b.cols == 0,
            Adapter::Loha { w1a, w1b, w2a, w2b } => {
                [w1a.cols, w1b.rows, w2a.cols, w2b.rows] == [0; 4]
            }
            Adapter::Tucker { down, core, up } => [down.rows, core.rows, up.cols] == [0; 3],
            Adapter::Lokr { w2: Factor::Low(w2a, w2b), .. } => w2a.cols == 0 && w2b.rows == 0,
            Adapter::Lokr { w1: Factor::Low(w1a, w1b), .. } => w1a.cols == 0 && w1b.rows == 0,
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
            Adapter::Tucker { down, core, up } => {
                [(Down, Some(down)), (Core, Some(core)), (Up, Some(up)), (W2, None)]
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
            Adapter::Tucker { down, .. } => down.rows,
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

    /// The factors that layers on such images take as they are, and w2's type.
    pub(super) fn kronecker(&self, convolution: Option<Convolution>) -> Option<(Kronecker, DType)> {
        let Adapter::Lokr { w1, w2: Factor::Whole(w2) } = self else { return None };
        let of = match w1 {
            Factor::Whole(w1) => {
                let of = Kronecker::new(w1.rows, w1.cols);
                Kronecker { low: is_wider(w1.buffer.dtype(), w2.buffer.dtype()), ..of }
            }
            Factor::Low(w1a, w1b) => Kronecker::low(w1a.rows, w1b.cols),
        };
        Some((in_order_of(convolution, of).whole(), w2.buffer.dtype()))
    }

    /// What composes it for a weight `[out_features, in_features]`, on such images; `None` where it is LoRA's a and b, or
    /// layers take the factors.
    fn composition(
        &self,
        [out_features, in_features]: [usize; 2],
        convolution: Option<Convolution>,
    ) -> Result<Option<Problem>> {
        let low_rank = |of: Kronecker| Method::Lokr(in_order_of(convolution, of));
        let (method, last) = match self {
            Adapter::Lora { .. } => return Ok(None),
            Adapter::Loha { w1b, .. } => (Method::Loha, w1b),
            Adapter::Tucker { down, core, .. } => {
                // Whose order is an option of what is run; no shape tells it.
                let taps = Taps::new(core.cols / down.rows.max(1));
                (Method::Tucker(taps), down)
            }
            // Layers take them as they are.
            Adapter::Lokr { w1: Factor::Whole(_), w2: Factor::Whole(_) } => return Ok(None),
            Adapter::Lokr { w1: Factor::Low(w1a, w1b), w2: Factor::Whole(_) } => {
                (Method::Lokr(Kronecker::low(w1a.rows, w1b.cols).whole()), w1b)
            }
            Adapter::Lokr { w1: Factor::Whole(w1), w2: Factor::Low(_, w2b) } => {
                (low_rank(Kronecker::new(w1.rows, w1.cols)), w2b)
            }
            Adapter::Lokr { w1: Factor::Low(w1a, w1b), w2: Factor::Low(_, w2b) } => {
                (low_rank(Kronecker::low(w1a.rows, w1b.cols)), w2b)
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
    pub(super) fn composed(
        self,
        w: [usize; 2],
        convolution: Option<Convolution>,
    ) -> Result<Composed<I>> {
        let Some(problem) = self.composition(w, convolution)? else {
            return Ok(Composed::No(self));
        };
        let factors = self.into_operands();
        // Here the method is known, which below is read off their shapes.
        for (operand, matrix) in &factors {
            let Some((spec, of)) = problem.spec(*operand).zip(matrix.as_ref()) else { continue };
            let (expected, got) = ([spec.rows, spec.cols], [of.rows, of.cols]);
            if expected != got {
                return Err(Error::Shape { operand: *operand, expected, got });
            }
        }
        // Whose columns are in the order of the images.
        let of = convolution.filter(|_| match problem.method() {
            Method::Tucker(_) => true,
            Method::Lokr(of) => !of.whole,
            Method::Lora | Method::Loha => false,
        });
        let options = Options { convolution: of, ..Options::default() };
        Ok(Composed::By(Compose { problem: problem.with_convolution(of), factors, options }))
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
    pub(super) options: Options,
}

impl<I> Compose<I> {
    /// Shapes of what is composed, `a` and `b` or w1 alone, which are f32 without gaps.
    pub(crate) fn shapes(&self) -> [Option<[usize; 2]>; 2] {
        shapes(&self.problem, COMPOSED)
    }

    /// The factor that is no part of it: w2, where w1 is composed.
    pub(crate) fn take_rest(&mut self) -> Option<Matrix<I>> {
        let mut factors = self.factors.iter_mut();
        factors.find(|of| of.0 == Operand::W2).and_then(|of| of.1.take())
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
        Ok(Compose { problem: self.problem, factors, options: self.options })
    }

    /// With what becomes of it.
    pub(crate) fn with<O>(self, composed: [Option<Matrix<O>>; 2]) -> Operands<I, O> {
        let mut operands = Operands::with(Operation::Compose, self.options);
        for (operand, matrix) in self.factors {
            operands.set_read(operand, matrix.filter(|_| self.problem.spec(operand).is_some()));
        }
        for (operand, matrix) in names(&self.problem, COMPOSED).into_iter().zip(composed) {
            operands.set_written(operand, matrix);
        }
        operands
    }
}

impl<I, O> Operands<I, O> {
    /// With what was composed for them, and the factor that was not.
    pub(crate) fn on_composed(
        mut self,
        [a, b]: [Option<Matrix<I>>; 2],
        w2: Option<Matrix<I>>,
    ) -> Operands<I, O> {
        let (first, second, b) = match w2 {
            None => (Operand::A, Operand::B, b),
            Some(w2) => (Operand::W1, Operand::W2, Some(w2)),
        };
        self.set_read(first, a);
        self.set_read(second, b);
        self
    }
}

/// LoKr's factors for columns in the order of a weight on such images.
pub(super) fn in_order_of(convolution: Option<Convolution>, of: Kronecker) -> Kronecker {
    of.taps_first(convolution.map_or(1, |of| of.taps_first()))
}

/// Whether a w1 is f32 beside a w2 in 16 bits.
pub(super) fn is_wider(w1: DType, w2: DType) -> bool {
    w1 == DType::F32 && w2 != DType::F32
}

/// What is composed, and of what gradients are taken back: of low rank, and beside a whole w2.
pub(super) const COMPOSED: [[Operand; 2]; 2] =
    [[Operand::A, Operand::B], [Operand::W1, Operand::W2]];
pub(super) const GRADIENTS: [[Operand; 2]; 2] =
    [[Operand::Da, Operand::Db], [Operand::Dw1, Operand::Dw2]];

/// Which of these `problem` has.
pub(super) fn names(problem: &Problem, of: [[Operand; 2]; 2]) -> [Operand; 2] {
    of[usize::from(problem.method().kronecker().is_some())]
}

/// Their shapes, of those that are there.
pub(super) fn shapes(problem: &Problem, of: [[Operand; 2]; 2]) -> [Option<[usize; 2]>; 2] {
    names(problem, of).map(|of| problem.spec(of).map(|of| [of.rows, of.cols]))
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
                if matches!(self.adapter, None | Some(Adapter::Lora { .. })) {
                    return Ok(None);
                }
                let taken = self.adapter.take().filter(|of| !of.is_nothing());
                let of = self.options.convolution;
                Ok(match taken.map(|taken| taken.composed(w, of)).transpose()? {
                    Some(Composed::By(compose)) => Some(compose),
                    Some(Composed::No(whole)) => {
                        self.adapter = Some(whole);
                        None
                    }
                    None => None,
                })
            }
        }
    )*};
}

layers!(Forward Merge Norm);

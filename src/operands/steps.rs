//! A whole backward pass as the operations that it consists of: at most `shrunk` worked out anew, `dx`
//! with `dshrunk` (or one of them alone), and the adapter's gradients; where it is stored in the factors of a method,
//! between what composes `a` and `b` of them and what takes `da` and `db` back. All operands are checked together
//! before the first one runs; each executor brings memory for what goes from one to the next.

use super::factored::{self, Compose, Composed, names, shapes};
use super::kronecker::OfFactor;
use super::named;
use super::options::Options;
use super::problem::output;
use super::{
    Adapter, Backward, BackwardAdapter, BackwardInput, BackwardShrink, Buffer, Factor, GradientA,
    GradientB, Matrix, Operands,
};
use crate::problem::Specs;
use crate::{Access, DType, Error, Gradients, Method, Operand, Operation, Problem, Result};

/// The operations of a backward pass, in the order in which they run.
#[derive(Debug)]
pub(crate) struct Steps<I, O> {
    pub(crate) temporaries: Temporaries,
    pub(crate) compose: Option<Compose<I>>,
    pub(crate) recompute: Option<Recompute<I>>,
    pub(crate) down: Option<Down<I, O>>,
    pub(crate) gradients: Option<Wanted<I, O>>,
    /// In its place, of w1 and of a whole w2.
    pub(crate) of_factors: [Option<OfFactor<I, O>>; 2],
    pub(crate) chain: Option<Chain<I, O>>,
}

/// What a backward pass needs beside its operands: matrices `[rows, cols]` without gaps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Temporaries {
    pub(crate) dtype: DType,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Whether there is one for `shrunk`, and one for `dshrunk`.
    pub(crate) shrunk: bool,
    pub(crate) dshrunk: bool,
}

impl Temporaries {
    /// Elements of one of them.
    pub(crate) fn len(&self) -> Result<usize> {
        let bytes = || self.rows.checked_mul(self.cols)?.checked_mul(2 * self.dtype.size());
        match bytes() {
            Some(_) => Ok(self.rows * self.cols),
            None => Err(Error::OutOfMemory { bytes: usize::MAX }),
        }
    }

    pub(crate) fn matrix<B>(&self, buffer: B) -> Matrix<B> {
        Matrix::new(buffer, self.rows, self.cols)
    }
}

/// `shrunk = s·x·aᵀ`: backward_shrink with `x` for `dy` and `aᵀ` for `b`.
#[derive(Debug)]
pub(crate) struct Recompute<I> {
    x: Matrix<I>,
    /// `None` where it is composed.
    a: Option<Matrix<I>>,
    options: Options,
}

impl<I> Recompute<I> {
    pub(crate) fn with<O>(
        self,
        [composed, _]: [Option<Matrix<I>>; 2],
        shrunk: Matrix<O>,
    ) -> Operands<I, O> {
        let Some(a) = composed.or(self.a) else {
            // `Backward::steps` makes no such step.
            return Operands::new(Operation::BackwardShrink);
        };
        BackwardShrink { dy: self.x, b: a.transpose(), dshrunk: shrunk, options: self.options }
            .into()
    }
}

/// `dx`, and `dshrunk` where the gradients want it; without `dx` that alone.
#[derive(Debug)]
pub(crate) struct Down<I, O> {
    dy: Matrix<I>,
    w: Matrix<I>,
    adapter: Option<Adapter<I>>,
    /// Beside a w1 that is composed.
    w2: Option<Matrix<I>>,
    dx: Option<Matrix<O>>,
    options: Options,
}

impl<I, O> Down<I, O> {
    pub(crate) fn with(
        self,
        [first, second]: [Option<Matrix<I>>; 2],
        dshrunk: Option<Matrix<O>>,
    ) -> Operands<I, O> {
        let Down { dy, w, adapter, w2, dx, options } = self;
        let adapter = match (first, second, w2) {
            (Some(a), Some(b), _) => Some(Adapter::Lora { a, b }),
            (Some(w1), _, Some(w2)) => {
                Some(Adapter::Lokr { w1: Factor::Whole(w1), w2: Factor::Whole(w2) })
            }
            _ => adapter,
        };
        match (dx, adapter, dshrunk) {
            (Some(dx), adapter, dshrunk) => {
                BackwardInput { dy, w, adapter, dx, dshrunk, options }.into()
            }
            (None, Some(Adapter::Lora { b, .. }), Some(dshrunk)) => {
                BackwardShrink { dy, b, dshrunk, options }.into()
            }
            // `Backward::steps` makes no such step.
            _ => Operands::new(Operation::BackwardShrink),
        }
    }
}

/// `da` and `db`, those that are wanted.
#[derive(Debug)]
pub(crate) struct Wanted<I, O> {
    x: Matrix<I>,
    dy: Matrix<I>,
    shrunk: Option<Matrix<I>>,
    da: Option<Matrix<O>>,
    db: Option<Matrix<O>>,
    options: Options,
}

impl<I, O> Wanted<I, O> {
    /// With what the steps before have left, where they were asked for it, and where the gradients go that are
    /// taken on to factors.
    pub(crate) fn with(
        self,
        shrunk: Option<Matrix<I>>,
        dshrunk: Option<Matrix<I>>,
        [for_da, for_db]: [Option<Matrix<O>>; 2],
    ) -> Operands<I, O> {
        let Wanted { x, dy, shrunk: kept, da, db, options } = self;
        let (da, db) = (da.or(for_da), db.or(for_db));
        let a = da.zip(dshrunk).map(|(da, dshrunk)| GradientA { x, dshrunk, da });
        let b = db.zip(kept.or(shrunk)).map(|(db, shrunk)| GradientB { dy, shrunk, db });
        BackwardAdapter { a, b, options }.into()
    }
}

/// The gradients of factors, of `da` and `db`.
#[derive(Debug)]
pub(crate) struct Chain<I, O> {
    problem: Problem,
    factors: [(Operand, Option<Matrix<I>>); 4],
    gradients: [(Operand, Option<Matrix<O>>); named::GRADIENTS],
    options: Options,
}

impl<I, O> Chain<I, O> {
    /// Shapes of `da` and `db`, or of dw1, which are f32 without gaps; `None` where it is not wanted.
    pub(crate) fn shapes(&self) -> [Option<[usize; 2]>; 2] {
        shapes(&self.problem, factored::GRADIENTS)
    }

    pub(crate) fn with(self, between: [Option<Matrix<I>>; 2]) -> Operands<I, O> {
        let Chain { problem, factors, gradients, options } = self;
        let mut operands = Operands::with(Operation::Chain, options);
        for (operand, matrix) in factors {
            operands.set_read(operand, matrix.filter(|_| problem.spec(operand).is_some()));
        }
        for (operand, matrix) in names(&problem, factored::GRADIENTS).into_iter().zip(between) {
            operands.set_read(operand, matrix);
        }
        for (operand, matrix) in gradients {
            operands.set_written(operand, matrix);
        }
        operands
    }
}

impl<I: Buffer + Clone, O: Buffer> Backward<I, O> {
    /// Checks everything, and takes the pass apart.
    ///
    /// # Errors
    /// As [`Operands::check`], over all operands at once; a gradient of an adapter that is not there.
    pub(crate) fn steps(self) -> Result<Steps<I, O>> {
        let Backward { x, w, dy, adapter, shrunk, dx, da, db, factors, options } = self;
        // Without a rank there is nothing to train, and the rest is the plain layer.
        let adapter = adapter.filter(|of| !of.is_nothing());
        let rank = adapter.as_ref().map_or(0, Adapter::inner_rank);
        let something = |of: &Matrix<O>| rank > 0 || of.rows.saturating_mul(of.cols) > 0;
        let (da, db) = (da.filter(something), db.filter(something));
        let shrunk = shrunk.filter(|of| rank > 0 || of.cols > 0);
        if adapter.is_none() && (da.is_some() || db.is_some()) {
            return Err(Error::Missing { operand: Operand::A });
        }
        let convolution = options.convolution;
        let kronecker = adapter.as_ref().and_then(|of| of.kronecker(convolution));
        let (tokens, in_features) =
            convolution.map_or((x.rows, x.cols), |of| (of.tokens(), w.cols));
        let mut problem = Problem::new(Operation::BackwardInput, tokens, in_features, w.rows, rank)
            .with_activation(x.buffer.dtype())
            .with_precise(options.precise)
            .with_convolution(convolution);
        problem.validate_convolution()?;
        if let Some(Adapter::Lora { a, .. }) = &adapter {
            problem = problem.with_adapter(a.buffer.dtype());
        }
        if let Some((of, dtype)) = kronecker {
            problem = problem.with_method(Method::Lokr(of)).with_adapter(dtype);
            // Before anything is worked out of shapes that do not divide each other.
            problem.validate()?;
        }
        let (activation, got) = (x.buffer.dtype(), w.buffer.dtype());
        if got != activation {
            return Err(Error::DType { operand: Operand::W, expected: activation, got });
        }
        if let Some(dx) = &dx {
            problem = problem.with_output(output(activation, Operand::Dx, dx.buffer.dtype())?);
        }
        if let Some(of) = [&da, &db, &factors.dw2, &factors.dw1].into_iter().flatten().next() {
            problem = problem.with_gradient(of.buffer.dtype());
        }
        let gradients = factors.into_operands();
        let (adapter, compose) = match adapter {
            None => (None, None),
            Some(of) => match of.composed([w.rows, in_features], convolution)? {
                Composed::No(lora) => (Some(lora), None),
                Composed::By(compose) => (None, Some(compose)),
            },
        };
        let beta = options.beta.unwrap_or(0.0);
        let chain = compose.as_ref().map(|of| chain_of(&of.problem, &gradients, beta));
        let [wants_a, wants_b] = match &chain {
            None => [da.is_some(), db.is_some()],
            Some(None) => [false; 2],
            Some(Some(chain)) => [Operand::Da, Operand::Db].map(|of| chain.spec(of).is_some()),
        };
        let chain = chain.flatten();
        let temporaries = Temporaries {
            dtype: problem.activation(),
            rows: problem.tokens(),
            cols: problem.shrunk_stride(),
            shrunk: wants_b && shrunk.is_none() && rank > 0,
            dshrunk: wants_a && rank > 0,
        };

        let mut all = Operands::with(Operation::BackwardInput, options);
        for (operand, matrix) in [
            (Operand::X, Some(x)),
            (Operand::W, Some(w)),
            (Operand::Dy, Some(dy)),
            (Operand::Shrunk, shrunk),
        ] {
            all.set_read(operand, matrix);
        }
        let stored = match (adapter, &compose) {
            (Some(lora), _) => lora.into_operands(),
            (None, Some(compose)) => compose.factors.clone(),
            (None, None) => {
                [(Operand::A, None), (Operand::B, None), (Operand::W1, None), (Operand::W2, None)]
            }
        };
        for (operand, matrix) in stored {
            all.set_read(operand, matrix);
        }
        for (operand, matrix) in [(Operand::Dx, dx), (Operand::Da, da), (Operand::Db, db)] {
            all.set_written(operand, matrix);
        }
        for (operand, matrix) in gradients {
            all.set_written(operand, matrix);
        }
        all.check_wanted(chain.as_ref())?;
        let composition = compose.as_ref().map(|of| &of.problem);
        all.checked_against(&all.specs_of_pass(problem, composition, chain.as_ref()))?;

        let dx = all.take_written(Operand::Dx).ok();
        let (da, db) = (all.take_written(Operand::Da).ok(), all.take_written(Operand::Db).ok());
        let shrunk = all.take_read(Operand::Shrunk).ok();
        let (x, w) = (all.take_read(Operand::X)?, all.take_read(Operand::W)?);
        let dy = all.take_read(Operand::Dy)?;
        let of_factors = match kronecker {
            None => [None, None],
            Some(_) => super::kronecker::of_factors(&mut all, &x, &dy, chain.is_some(), options),
        };
        let factors = all.take_read(Operand::A).ok().zip(all.take_read(Operand::B).ok());
        let [w1, w2] = match kronecker {
            None => [None, None],
            Some(_) => [Operand::W1, Operand::W2].map(|of| all.take_read(of).ok()),
        };
        let (adapter, w2) = match (factors, w1, w2) {
            (Some((a, b)), ..) => (Some(Adapter::Lora { a, b }), None),
            (None, Some(w1), Some(w2)) => {
                (Some(Adapter::Lokr { w1: Factor::Whole(w1), w2: Factor::Whole(w2) }), None)
            }
            (None, _, w2) => (None, w2),
        };
        let overwrite = Options { beta: None, ..options };
        let recompute = temporaries.shrunk.then(|| Recompute {
            x: x.clone(),
            a: match &adapter {
                Some(Adapter::Lora { a, .. }) => Some(a.clone()),
                _ => None,
            },
            options: Options { of_input: problem.window().is_some(), ..overwrite },
        });
        let of_gradients = Options { scale: None, batch_invariant: false, ..options };
        let wanted = (rank > 0 && (wants_a || wants_b)).then(|| Wanted {
            x,
            dy: dy.clone(),
            shrunk,
            da,
            db,
            // Old values are those of the factors.
            options: if chain.is_some() {
                Options { beta: None, ..of_gradients }
            } else {
                of_gradients
            },
        });
        let down = (dx.is_some() || temporaries.dshrunk).then_some(Down {
            dy,
            w,
            adapter,
            w2,
            dx,
            options: overwrite,
        });
        let chain = chain.zip(compose.as_ref()).map(|(problem, compose)| {
            let take = |operand| (operand, all.take_written(operand).ok());
            Chain {
                problem,
                factors: compose.factors.clone(),
                gradients: GRADIENTS.map(take),
                options: Options { beta: options.beta, ..compose.options },
            }
        });
        // Without a step that takes a or b there is nothing to compose.
        let takes_w1 = of_factors[1].is_some();
        let compose = compose.filter(|_| recompute.is_some() || down.is_some() || takes_w1);
        Ok(Steps { temporaries, compose, recompute, down, gradients: wanted, of_factors, chain })
    }
}

/// The gradients of factors, whichever method has them.
const GRADIENTS: [Operand; named::GRADIENTS] = {
    use Operand::*;
    [Dw1, Dw1a, Dw1b, Dw2, Dw2a, Dw2b, Ddown, Dcore, Dup]
};

/// What takes the gradients back to the factors of `compose`; `None` where none is wanted.
fn chain_of<O: Buffer>(
    compose: &Problem,
    gradients: &[(Operand, Option<Matrix<O>>); named::GRADIENTS],
    beta: f32,
) -> Option<Problem> {
    let all = compose.with_operation(Operation::Chain).with_beta(beta);
    let wants = |of: Gradients| {
        let of = all.with_gradients(of);
        gradients.iter().any(|(operand, matrix)| matrix.is_some() && of.spec(*operand).is_some())
    };
    let of = match (wants(Gradients::A), wants(Gradients::B)) {
        (true, true) => Gradients::Both,
        (true, false) => Gradients::A,
        (false, true) => Gradients::B,
        (false, false) => return None,
    };
    let dtype = gradients.iter().find_map(|(_, matrix)| Some(matrix.as_ref()?.buffer.dtype()));
    Some(all.with_gradients(of).with_gradient(dtype.unwrap_or(DType::F32)))
}

impl<I: Buffer, O: Buffer> Operands<I, O> {
    /// Of the gradients that are formed together, all are there.
    fn check_wanted(&self, chain: Option<&Problem>) -> Result<()> {
        let Some(chain) = chain else { return Ok(()) };
        let wanted =
            |operand: Operand| chain.spec(operand).is_some_and(|of| of.access != Access::Read);
        let missing =
            GRADIENTS.into_iter().find(|&of| wanted(of) && self.written.get(of).is_none());
        missing.map_or(Ok(()), |operand| Err(Error::Missing { operand }))
    }

    /// What is expected of each of these operands, taken together as one backward pass.
    fn specs_of_pass(
        &self,
        problem: Problem,
        compose: Option<&Problem>,
        chain: Option<&Problem>,
    ) -> Specs {
        use Operand::*;
        let problem = self.problem_with_layouts(problem);
        let beta = self.options.beta.unwrap_or(0.0);
        let gradients = problem.with_operation(Operation::BackwardAdapter).with_beta(beta);
        let compose = compose.map(|of| self.problem_with_layouts(*of));
        let chain = chain.map(|of| self.problem_with_layouts(*of));
        let is_kronecker = problem.method().kronecker().is_some();
        core::array::from_fn(|at| {
            let operand = Operand::ALL[at];
            self.read.get(operand).map(drop).or(self.written.get(operand).map(drop))?;
            match operand {
                X => problem.with_operation(Operation::Forward).spec(operand),
                A | B | Da | Db if compose.is_some() => None,
                Shrunk | Da | Db => gradients.spec(operand),
                W2 if is_kronecker => problem.spec(operand),
                W1 if is_kronecker && compose.is_none() => problem.spec(operand),
                Dw2 if is_kronecker => gradients.spec(operand),
                Dw1 if is_kronecker && compose.is_none() => gradients.spec(operand),
                W1 | W1a | W1b | W2 | W2a | W2b | Down | Core | Up => compose?.spec(operand),
                Dw1 | Dw1a | Dw1b | Dw2 | Dw2a | Dw2b => chain?.spec(operand),
                Ddown | Dcore | Dup => chain?.spec(operand),
                _ => problem.spec(operand),
            }
        })
    }
}

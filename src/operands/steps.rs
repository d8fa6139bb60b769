//! A whole backward pass as the operations that it consists of: at most `shrunk` worked out anew, `dx`
//! with `dshrunk` (or one of them alone), and the adapter's gradients. All operands are checked together
//! before the first one runs; each executor brings memory for what goes from one to the next.

use super::options::Options;
use super::problem::output;
use super::{
    Adapter, Backward, BackwardAdapter, BackwardInput, BackwardShrink, Buffer, GradientA,
    GradientB, Matrix, Operands,
};
use crate::problem::Specs;
use crate::{DType, Error, Operand, Operation, Problem, Result};

/// The operations of a backward pass, in the order in which they run.
#[derive(Debug)]
pub(crate) struct Steps<I, O> {
    pub(crate) temporaries: Temporaries,
    pub(crate) recompute: Option<Recompute<I>>,
    pub(crate) down: Option<Down<I, O>>,
    pub(crate) gradients: Option<Wanted<I, O>>,
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
    a: Matrix<I>,
    options: Options,
}

impl<I> Recompute<I> {
    pub(crate) fn with<O>(self, shrunk: Matrix<O>) -> Operands<I, O> {
        BackwardShrink { dy: self.x, b: self.a.transpose(), dshrunk: shrunk, options: self.options }
            .into()
    }
}

/// `dx`, and `dshrunk` where the gradients want it; without `dx` that alone.
#[derive(Debug)]
pub(crate) struct Down<I, O> {
    dy: Matrix<I>,
    w: Matrix<I>,
    adapter: Option<Adapter<I>>,
    dx: Option<Matrix<O>>,
    options: Options,
}

impl<I, O> Down<I, O> {
    pub(crate) fn with(self, dshrunk: Option<Matrix<O>>) -> Operands<I, O> {
        let Down { dy, w, adapter, dx, options } = self;
        match (dx, adapter, dshrunk) {
            (Some(dx), adapter, dshrunk) => {
                BackwardInput { dy, w, adapter, dx, dshrunk, options }.into()
            }
            (None, Some(Adapter { b, .. }), Some(dshrunk)) => {
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
    /// With what the steps before have left, where they were asked for it.
    pub(crate) fn with(
        self,
        shrunk: Option<Matrix<I>>,
        dshrunk: Option<Matrix<I>>,
    ) -> Operands<I, O> {
        let Wanted { x, dy, shrunk: kept, da, db, options } = self;
        let a = da.zip(dshrunk).map(|(da, dshrunk)| GradientA { x, dshrunk, da });
        let b = db.zip(kept.or(shrunk)).map(|(db, shrunk)| GradientB { dy, shrunk, db });
        BackwardAdapter { a, b, options }.into()
    }
}

impl<I: Buffer + Clone, O: Buffer> Backward<I, O> {
    /// Checks everything, and takes the pass apart.
    ///
    /// # Errors
    /// As [`Operands::check`], over all operands at once; a gradient of an adapter that is not there.
    pub(crate) fn steps(self) -> Result<Steps<I, O>> {
        let Backward { x, w, dy, adapter, shrunk, dx, da, db, options } = self;
        // Without a rank there is nothing to train, and the rest is the plain layer.
        let adapter = adapter.filter(|of| of.a.rows > 0 || of.b.cols > 0);
        let rank = adapter.as_ref().map_or(0, |of| of.a.rows);
        let something = |of: &Matrix<O>| rank > 0 || of.rows.saturating_mul(of.cols) > 0;
        let (da, db) = (da.filter(something), db.filter(something));
        let shrunk = shrunk.filter(|of| rank > 0 || of.cols > 0);
        if adapter.is_none() && (da.is_some() || db.is_some()) {
            return Err(Error::Missing { operand: Operand::A });
        }
        let mut problem = Problem::new(Operation::BackwardInput, x.rows, x.cols, w.rows, rank)
            .with_activation(x.buffer.dtype())
            .with_precise(options.precise);
        if let Some(of) = &adapter {
            problem = problem.with_adapter(of.a.buffer.dtype());
        }
        let (activation, got) = (x.buffer.dtype(), w.buffer.dtype());
        if got != activation {
            return Err(Error::DType { operand: Operand::W, expected: activation, got });
        }
        if let Some(dx) = &dx {
            problem = problem.with_output(output(activation, Operand::Dx, dx.buffer.dtype())?);
        }
        if let Some(of) = da.as_ref().or(db.as_ref()) {
            problem = problem.with_gradient(of.buffer.dtype());
        }
        let temporaries = Temporaries {
            dtype: problem.activation(),
            rows: problem.tokens(),
            cols: problem.shrunk_stride(),
            shrunk: db.is_some() && shrunk.is_none() && rank > 0,
            dshrunk: da.is_some() && rank > 0,
        };

        let mut all = Operands::with(Operation::BackwardInput, options);
        let (a, b) = adapter.map(|Adapter { a, b }| (a, b)).unzip();
        for (operand, matrix) in [
            (Operand::X, Some(x)),
            (Operand::W, Some(w)),
            (Operand::Dy, Some(dy)),
            (Operand::A, a),
            (Operand::B, b),
            (Operand::Shrunk, shrunk),
        ] {
            all.set_read(operand, matrix);
        }
        for (operand, matrix) in [(Operand::Dx, dx), (Operand::Da, da), (Operand::Db, db)] {
            all.set_written(operand, matrix);
        }
        all.checked_against(&all.specs_of_pass(problem))?;

        let dx = all.take_written(Operand::Dx).ok();
        let (da, db) = (all.take_written(Operand::Da).ok(), all.take_written(Operand::Db).ok());
        let shrunk = all.take_read(Operand::Shrunk).ok();
        let (x, w) = (all.take_read(Operand::X)?, all.take_read(Operand::W)?);
        let dy = all.take_read(Operand::Dy)?;
        let factors = all.take_read(Operand::A).ok().zip(all.take_read(Operand::B).ok());
        let adapter = factors.map(|(a, b)| Adapter { a, b });
        let overwrite = Options { beta: None, ..options };
        let recompute = adapter.as_ref().filter(|_| temporaries.shrunk).map(|of| Recompute {
            x: x.clone(),
            a: of.a.clone(),
            options: overwrite,
        });
        let gradients = (rank > 0 && (da.is_some() || db.is_some())).then(|| {
            let (x, dy) = (x, dy.clone());
            Wanted {
                x,
                dy,
                shrunk,
                da,
                db,
                options: Options { scale: None, batch_invariant: false, ..options },
            }
        });
        let down = (dx.is_some() || temporaries.dshrunk).then_some(Down {
            dy,
            w,
            adapter,
            dx,
            options: overwrite,
        });
        Ok(Steps { temporaries, recompute, down, gradients })
    }
}

impl<I: Buffer, O: Buffer> Operands<I, O> {
    /// What is expected of each of these operands, taken together as one backward pass.
    fn specs_of_pass(&self, problem: Problem) -> Specs {
        let problem = self.problem_with_layouts(problem);
        let beta = self.options.beta.unwrap_or(0.0);
        let gradients = problem.with_operation(Operation::BackwardAdapter).with_beta(beta);
        core::array::from_fn(|at| {
            let operand = Operand::ALL[at];
            self.read[at].as_ref().map(drop).or(self.written[at].as_ref().map(drop))?;
            match operand {
                Operand::X => problem.with_operation(Operation::Forward).spec(operand),
                Operand::Shrunk | Operand::Da | Operand::Db => gradients.spec(operand),
                _ => problem.spec(operand),
            }
        })
    }
}

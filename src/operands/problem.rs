//! The problem that operands are: sizes, types, layouts and presence are read off them, and what is left
//! to say stands in their options. Called by the executors' `forward`, `backward`, `merge` and `unmerge`.

use super::factored::{in_order_of, is_wider};
use super::{Buffer, Matrix, Operands};
use crate::{
    Channels, DType, Error, Gradients, Kronecker, Method, Operand, Operation, Problem, Result, Taps,
};

/// What is asked of an operand here, whichever its buffer.
#[derive(Clone, Copy)]
struct Given {
    rows: usize,
    cols: usize,
    dtype: DType,
}

impl Given {
    fn new<B: Buffer>(matrix: &Matrix<B>) -> Given {
        Given { rows: matrix.rows, cols: matrix.cols, dtype: matrix.buffer.dtype() }
    }
}

/// Named before what follows from it.
fn same_type(expected: DType, operand: Operand, got: DType) -> Result<()> {
    if got == expected { Ok(()) } else { Err(Error::DType { operand, expected, got }) }
}

/// The type of `y` or `dx`, where it is not that of the activations.
pub(super) fn output(activation: DType, operand: Operand, got: DType) -> Result<Option<DType>> {
    match got {
        _ if got == activation => Ok(None),
        DType::F32 => Ok(Some(got)),
        _ => Err(Error::DType { operand, expected: activation, got }),
    }
}

impl<I: Buffer, O: Buffer> Operands<I, O> {
    /// The problem that these operands are, with the layouts that they have. Sizes that two operands share
    /// are taken from one of them; that the other agrees is left to [`Operands::check`], which every
    /// executor does.
    ///
    /// # Errors
    /// [`Error::Missing`] where an operand is not there from which a size would be known, [`Error::DType`]
    /// where types do not go together.
    ///
    /// ```
    /// use fused_lora::cpu::{Slice, SliceMut};
    /// use fused_lora::{Forward, Matrix, Operands, Problem};
    ///
    /// let (x, w, mut y) = ([1.0f32; 6], [1.0f32; 12], [0.0f32; 8]);
    /// let forward = Forward::new(Matrix::new(&x, 2, 3), Matrix::new(&w, 4, 3), Matrix::new(&mut y, 2, 4));
    /// let operands: Operands<Slice, SliceMut> = forward.into();
    /// assert_eq!(operands.problem()?.tokens(), 2);
    /// # Ok::<(), fused_lora::Error>(())
    /// ```
    pub fn problem(&self) -> Result<Problem> {
        use Operation::{BackwardInput, Forward, Merge, Norm, Unmerge};
        let operation = self.operation;
        let convolution = self.options.convolution;
        let sized = |tokens, in_features, out_features, rank| {
            let tokens = convolution.map_or(tokens, |of| of.tokens());
            Problem::new(operation, tokens, in_features, out_features, rank)
        };
        let rank = |operand| self.read_of(operand).map_or(0, |a| a.rows);
        let problem = match operation {
            Operation::Forward => {
                let (x, w, y) =
                    (self.reads(Operand::X)?, self.reads(Operand::W)?, self.writes(Operand::Y)?);
                same_type(x.dtype, Operand::W, w.dtype)?;
                let in_features = convolution.map_or(x.cols, |_| w.cols);
                sized(x.rows, in_features, w.rows, rank(Operand::A))
                    .with_activation(x.dtype)
                    .with_output(output(x.dtype, Operand::Y, y.dtype)?)
                    .with_bias(self.read_of(Operand::Bias).is_some())
                    .with_gain(self.read_of(Operand::Gain).is_some())
                    .with_keep_shrunk(self.written_of(Operand::Shrunk).is_some())
            }
            Operation::BackwardInput => {
                let (dy, w, dx) =
                    (self.reads(Operand::Dy)?, self.reads(Operand::W)?, self.writes(Operand::Dx)?);
                same_type(dy.dtype, Operand::W, w.dtype)?;
                let out_features = convolution.map_or(dy.cols, |_| w.rows);
                sized(dy.rows, w.cols, out_features, rank(Operand::A))
                    .with_activation(dy.dtype)
                    .with_output(output(dy.dtype, Operand::Dx, dx.dtype)?)
                    .with_keep_shrunk(self.written_of(Operand::Dshrunk).is_some())
            }
            Operation::BackwardShrink => {
                let (dy, b) = (self.reads(Operand::Dy)?, self.reads(Operand::B)?);
                // The other side of the layer has no part in it.
                let in_features = convolution.map_or(1, |of| of.taps());
                let out_features = convolution.map_or(dy.cols, |_| b.rows);
                sized(dy.rows, in_features, out_features, b.cols).with_activation(dy.dtype)
            }
            Operation::BackwardAdapter
                if [Operand::Dw1, Operand::Dw2]
                    .map(|of| self.written_of(of))
                    .iter()
                    .any(Option::is_some) =>
            {
                return Ok(self.with_options(self.gradients_of_factors()?));
            }
            Operation::BackwardAdapter => self.gradients()?,
            Operation::Compose => self.composition()?,
            Operation::Chain => self.chain()?,
            Operation::Norm => {
                let w = self.reads(Operand::W)?;
                sized(0, w.cols, w.rows, rank(Operand::A)).with_activation(w.dtype)
            }
            Operation::BackwardGain => {
                let (dy, y) = (self.reads(Operand::Dy)?, self.reads(Operand::Y)?);
                let gradient = self.writes(Operand::Dmagnitude)?;
                // The other side of the layer has no part in it.
                let in_features = convolution.map_or(1, |of| of.taps());
                let out_features = convolution.map_or(dy.cols, |_| gradient.cols);
                sized(dy.rows, in_features, out_features, 0)
                    .with_activation(dy.dtype)
                    .with_output(output(dy.dtype, Operand::Y, y.dtype)?)
                    .with_bias(self.read_of(Operand::Bias).is_some())
                    .with_gradient(gradient.dtype)
            }
            Operation::Merge | Operation::Unmerge => {
                let w = self.writes(Operand::W)?;
                sized(0, w.cols, w.rows, rank(Operand::A)).with_activation(w.dtype)
            }
        };
        if matches!(operation, Forward | BackwardInput | Merge | Unmerge | Norm)
            && let Some((of, adapter)) = self.kronecker()?
        {
            return Ok(
                self.with_options(problem.with_method(Method::Lokr(of)).with_adapter(adapter))
            );
        }
        let factor = self.read_of(Operand::A).or(self.read_of(Operand::B));
        let problem = match factor {
            Some(of) => problem.with_adapter(of.dtype),
            None => problem,
        };
        Ok(self.with_options(problem))
    }

    fn with_options(&self, problem: Problem) -> Problem {
        let options = &self.options;
        let problem = problem
            .with_scale(options.scale.unwrap_or(1.0))
            .with_beta(options.beta.unwrap_or(0.0))
            .with_precise(options.precise)
            .with_tf32(options.tf32)
            .with_batch_invariant(options.batch_invariant)
            .with_convolution(options.convolution)
            .with_input_shrunk(options.of_input);
        self.problem_with_layouts(problem)
    }

    /// The factors of a LoKr with a whole w2 as a layer takes them, and w2's type.
    fn kronecker(&self) -> Result<Option<(Kronecker, DType)>> {
        let (w1, w2) = match (self.read_of(Operand::W1), self.read_of(Operand::W2)) {
            (None, None) => return Ok(None),
            _ => (self.reads(Operand::W1)?, self.reads(Operand::W2)?),
        };
        let low = is_wider(w1.dtype, w2.dtype);
        let of = Kronecker { low, ..Kronecker::new(w1.rows, w1.cols) };
        Ok(Some((in_order_of(self.options.convolution, of).whole(), w2.dtype)))
    }

    /// [`Operation::BackwardAdapter`] of such a layer.
    fn gradients_of_factors(&self) -> Result<Problem> {
        use Operand::*;
        let (dw1, dw2) = (self.written_of(Dw1), self.written_of(Dw2));
        let (x, dy) = (self.reads(X)?, self.reads(Dy)?);
        let (gradients, shape) = match (dw1, dw2) {
            (Some(dw1), Some(_)) => (Gradients::Both, dw1),
            (Some(dw1), None) => (Gradients::A, dw1),
            _ => (Gradients::B, self.reads(W1)?),
        };
        let (w1, w2) = (self.read_of(W1), self.read_of(W2));
        let Some(adapter) = w2.or(w1) else { return Err(Error::Missing { operand: W2 }) };
        let low = w1.is_some_and(|w1| is_wider(w1.dtype, adapter.dtype));
        let of = Kronecker { low, ..Kronecker::new(shape.rows, shape.cols) };
        let of = in_order_of(self.options.convolution, of);
        let gradient = dw2.or(dw1).map_or(DType::F32, |of| of.dtype);
        let (tokens, k, n) = match (self.options.convolution, w2.or(dw2)) {
            // Images do not have the layer's features; the factors do.
            (Some(images), Some(w2)) => {
                let [k, n] = [(of.columns, w2.cols), (of.rows, w2.rows)]
                    .map(|(outer, inner)| outer.saturating_mul(inner));
                (images.tokens(), k, n)
            }
            _ => (x.rows, x.cols, dy.cols),
        };
        Ok(Problem::new(self.operation, tokens, k, n, 0)
            .with_method(Method::Lokr(of.whole()))
            .with_activation(x.dtype)
            .with_adapter(adapter.dtype)
            .with_gradient(gradient)
            .with_gradients(gradients))
    }

    /// [`Operation::BackwardAdapter`]; the side of the layer whose gradient is not wanted has no part in it.
    fn gradients(&self) -> Result<Problem> {
        let (da, db) = (self.written_of(Operand::Da), self.written_of(Operand::Db));
        let x = da.map(|_| self.reads(Operand::X)).transpose()?;
        let dy = db.map(|_| self.reads(Operand::Dy)).transpose()?;
        let (gradients, rank) = match (da, db) {
            (Some(da), Some(_)) => (Gradients::Both, da.rows),
            (Some(da), None) => (Gradients::A, da.rows),
            (None, Some(db)) => (Gradients::B, db.cols),
            (None, None) => return Err(Error::Missing { operand: Operand::Da }),
        };
        let (Some(any), Some(gradient)) = (x.or(dy), da.or(db)) else {
            return Err(Error::Missing { operand: Operand::X });
        };
        let (tokens, in_features, out_features) = match self.options.convolution {
            None => (any.rows, x.map_or(1, |x| x.cols), dy.map_or(1, |dy| dy.cols)),
            Some(of) => {
                (of.tokens(), da.map_or(of.taps(), |da| da.cols), db.map_or(1, |db| db.rows))
            }
        };
        Ok(Problem::new(self.operation, tokens, in_features, out_features, rank)
            .with_activation(any.dtype)
            .with_gradient(gradient.dtype)
            .with_gradients(gradients))
    }

    /// [`Operation::Compose`]: with a core LoCon's; four factors are LoHa's where each has a side of w.
    fn composition(&self) -> Result<Problem> {
        use Operand::*;
        if let Some(w1) = self.written_of(W1) {
            let w1b = self.reads(W1b)?;
            let of = Kronecker::low(w1.rows, w1.cols).whole();
            return Ok(Problem::new(self.operation, 0, w1.cols, w1.rows, w1b.rows)
                .with_method(Method::Lokr(of))
                .with_adapter(w1b.dtype));
        }
        let (a, b) = (self.writes(A)?, self.writes(B)?);
        if let Some(core) = self.read_of(Core) {
            let down = self.reads(Down)?;
            let taps = self.taps(core.cols / down.rows.max(1));
            return Ok(Problem::new(self.operation, 0, a.cols, b.rows, down.rows)
                .with_method(Method::Tucker(taps))
                .with_adapter(down.dtype));
        }
        let (w2a, w2b) = (self.reads(W2a)?, self.reads(W2b)?);
        let method = match self.read_of(W1) {
            Some(w1) => self.lokr(Kronecker::new(w1.rows, w1.cols)),
            None => {
                let (w1a, w1b) = (self.reads(W1a)?, self.reads(W1b)?);
                // LoKr's have them only where w is one element, and then it is the same.
                let sides = [w1a.rows, w2a.rows, w1b.cols, w2b.cols];
                match sides == [b.rows, b.rows, a.cols, a.cols] {
                    true => Method::Loha,
                    false => self.lokr(Kronecker::low(w1a.rows, w1b.cols)),
                }
            }
        };
        Ok(Problem::new(self.operation, 0, a.cols, b.rows, w2b.rows)
            .with_method(method)
            .with_adapter(w2b.dtype))
    }

    /// LoKr with a low-rank w2, in the order of the weight on these images.
    fn lokr(&self, of: Kronecker) -> Method {
        Method::Lokr(in_order_of(self.options.convolution, of))
    }

    /// So many elements of a kernel, in the order of the weight on these images.
    fn taps(&self, count: usize) -> Taps {
        let is_last = |of: crate::Convolution| of.channels == Channels::Last;
        let of = Taps::new(count);
        if self.options.convolution.is_some_and(is_last) { of.first() } else { of }
    }

    /// [`Operation::Chain`] beside a core.
    fn chain_beside_core(&self) -> Result<Problem> {
        use Operand::*;
        let (da, db) = (self.read_of(Da), self.read_of(Db));
        // Without da there is none of w's columns.
        let one = self.options.convolution.map_or(1, |of| of.taps());
        let (in_features, taps, factor, gradients) = match da {
            Some(da) => {
                let (core, down) = (self.reads(Core)?, self.reads(Down)?);
                let gradients = if db.is_some() { Gradients::Both } else { Gradients::A };
                (da.cols, core.cols / down.rows.max(1), Some(down), gradients)
            }
            None => (one, one, None, Gradients::B),
        };
        let (rank, gradient) = match (da, db) {
            (Some(da), _) => (da.rows, self.writes(Ddown)?),
            (None, Some(db)) => (db.cols, self.writes(Dup)?),
            (None, None) => return Err(Error::Missing { operand: Da }),
        };
        let problem =
            Problem::new(self.operation, 0, in_features, db.map_or(1, |db| db.rows), rank)
                .with_method(Method::Tucker(self.taps(taps)))
                .with_gradients(gradients)
                .with_gradient(gradient.dtype);
        Ok(factor.map_or(problem, |of| problem.with_adapter(of.dtype)))
    }

    /// [`Operation::Chain`]; the side of the layer whose gradient is not there has no part in it.
    fn chain(&self) -> Result<Problem> {
        use Operand::*;
        if let Some(dw1) = self.read_of(Dw1) {
            let (w1b, dw1a) = (self.reads(W1b)?, self.writes(Dw1a)?);
            let of = Kronecker::low(dw1.rows, dw1.cols).whole();
            return Ok(Problem::new(self.operation, 0, dw1.cols, dw1.rows, w1b.rows)
                .with_method(Method::Lokr(of))
                .with_gradients(Gradients::A)
                .with_gradient(dw1a.dtype)
                .with_adapter(w1b.dtype));
        }
        if [Ddown, Dcore, Dup].into_iter().any(|of| self.written_of(of).is_some()) {
            return self.chain_beside_core();
        }
        let (da, db) = (self.read_of(Da), self.read_of(Db));
        // Without da there is none of w's columns.
        let one = self.options.convolution.map_or(1, |of| of.taps_first());
        let in_features = da.map_or(one, |da| da.cols);
        let (out_features, inner) = match (da, db) {
            (_, Some(db)) => (db.rows, db.cols),
            (Some(da), None) => (1, da.rows),
            (None, None) => return Err(Error::Missing { operand: Da }),
        };
        let gradients = match (da, db) {
            (Some(_), Some(_)) => Gradients::Both,
            (Some(_), None) => Gradients::A,
            _ => Gradients::B,
        };
        let (method, rank, gradient) = match gradients {
            Gradients::B => {
                let dw2a = self.writes(Dw2a)?;
                // LoHa's has the rows of w, and there is another one beside it.
                let method = match self.written_of(Dw1a) {
                    Some(_) => Method::Loha,
                    None => self.lokr(Kronecker::new(out_features / dw2a.rows.max(1), 1)),
                };
                (method, dw2a.cols, dw2a.dtype)
            }
            Gradients::Both | Gradients::A => {
                let dw2b = self.writes(Dw2b)?;
                let is_loha = match gradients {
                    Gradients::Both => self.read_of(W2a).is_some(),
                    _ => self.read_of(W1a).is_none(),
                };
                let method = match (self.written_of(Dw1), is_loha) {
                    (Some(w1), _) => self.lokr(Kronecker::new(w1.rows, w1.cols)),
                    (None, true) => Method::Loha,
                    (None, false) => {
                        let (w1a, w1b) = (self.reads(W1a)?, self.reads(W1b)?);
                        self.lokr(Kronecker::low(w1a.rows, w1b.cols))
                    }
                };
                (method, dw2b.rows, dw2b.dtype)
            }
        };
        // Of a w1 whose rows a is made of, those of w are a multiple; without db it is one of one.
        let out_features = match method {
            Method::Lokr(of) if db.is_none() => of.rows,
            _ => out_features,
        };
        let factor = [W2b, W2a].into_iter().find_map(|of| self.read_of(of));
        let problem = Problem::new(self.operation, 0, in_features, out_features, rank)
            .with_method(method)
            .with_gradients(gradients)
            .with_gradient(gradient);
        if problem.inner_rank() != inner {
            let operand = if db.is_some() { Db } else { Da };
            let (cols, got) = (problem.inner_rank(), db.or(da));
            let got = got.map_or([0; 2], |of| [of.rows, of.cols]);
            let expected = if db.is_some() { [out_features, cols] } else { [cols, in_features] };
            return Err(Error::Shape { operand, expected, got });
        }
        Ok(factor.map_or(problem, |of| problem.with_adapter(of.dtype)))
    }

    fn read_of(&self, operand: Operand) -> Option<Given> {
        self.read.get(operand).map(Given::new)
    }

    fn written_of(&self, operand: Operand) -> Option<Given> {
        self.written.get(operand).map(Given::new)
    }

    fn reads(&self, operand: Operand) -> Result<Given> {
        self.read_of(operand).ok_or(Error::Missing { operand })
    }

    fn writes(&self, operand: Operand) -> Result<Given> {
        self.written_of(operand).ok_or(Error::Missing { operand })
    }
}

//! The problem that operands are: sizes, types, layouts and presence are read off them, and what is left
//! to say stands in their options. Called by the executors' `forward`, `backward`, `merge` and `unmerge`.

use super::{Buffer, Matrix, Operands};
use crate::{DType, Error, Gradients, Operand, Operation, Problem, Result};

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
        let operation = self.operation;
        let sized = |tokens, in_features, out_features, rank| {
            Problem::new(operation, tokens, in_features, out_features, rank)
        };
        let rank = |operand| self.read_of(operand).map_or(0, |a| a.rows);
        let problem = match operation {
            Operation::Forward => {
                let (x, w, y) =
                    (self.reads(Operand::X)?, self.reads(Operand::W)?, self.writes(Operand::Y)?);
                same_type(x.dtype, Operand::W, w.dtype)?;
                sized(x.rows, x.cols, w.rows, rank(Operand::A))
                    .with_activation(x.dtype)
                    .with_output(output(x.dtype, Operand::Y, y.dtype)?)
                    .with_bias(self.read_of(Operand::Bias).is_some())
                    .with_keep_shrunk(self.written_of(Operand::Shrunk).is_some())
            }
            Operation::BackwardInput => {
                let (dy, w, dx) =
                    (self.reads(Operand::Dy)?, self.reads(Operand::W)?, self.writes(Operand::Dx)?);
                same_type(dy.dtype, Operand::W, w.dtype)?;
                sized(dy.rows, w.cols, dy.cols, rank(Operand::A))
                    .with_activation(dy.dtype)
                    .with_output(output(dy.dtype, Operand::Dx, dx.dtype)?)
                    .with_keep_shrunk(self.written_of(Operand::Dshrunk).is_some())
            }
            Operation::BackwardShrink => {
                let (dy, b) = (self.reads(Operand::Dy)?, self.reads(Operand::B)?);
                // The other side of the layer has no part in it.
                sized(dy.rows, 1, dy.cols, b.cols).with_activation(dy.dtype)
            }
            Operation::BackwardAdapter => self.gradients()?,
            Operation::Merge | Operation::Unmerge => {
                let w = self.writes(Operand::W)?;
                sized(0, w.cols, w.rows, rank(Operand::A)).with_activation(w.dtype)
            }
        };
        let factor = self.read_of(Operand::A).or(self.read_of(Operand::B));
        let problem = match factor {
            Some(of) => problem.with_adapter(of.dtype),
            None => problem,
        };
        let options = &self.options;
        let problem = problem
            .with_scale(options.scale.unwrap_or(1.0))
            .with_beta(options.beta.unwrap_or(0.0))
            .with_precise(options.precise)
            .with_tf32(options.tf32)
            .with_batch_invariant(options.batch_invariant);
        Ok(self.problem_with_layouts(problem))
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
        let (in_features, out_features) = (x.map_or(1, |x| x.cols), dy.map_or(1, |dy| dy.cols));
        Ok(Problem::new(self.operation, any.rows, in_features, out_features, rank)
            .with_activation(any.dtype)
            .with_gradient(gradient.dtype)
            .with_gradients(gradients))
    }

    fn read_of(&self, operand: Operand) -> Option<Given> {
        self.read[operand as usize].as_ref().map(Given::new)
    }

    fn written_of(&self, operand: Operand) -> Option<Given> {
        self.written[operand as usize].as_ref().map(Given::new)
    }

    fn reads(&self, operand: Operand) -> Result<Given> {
        self.read_of(operand).ok_or(Error::Missing { operand })
    }

    fn writes(&self, operand: Operand) -> Result<Given> {
        self.written_of(operand).ok_or(Error::Missing { operand })
    }
}

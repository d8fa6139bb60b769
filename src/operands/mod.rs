//! Where the bytes are: the caller's buffers, each with its shape, offset, stride and major, and
//! the checks against a [`Problem`](crate::Problem). Generic over the buffer, so that slices, device
//! pointers and wgpu buffers are checked by the same lines.

mod builders;
mod call;
mod check;
mod factored;
mod kronecker;
mod matrix;
mod named;
mod options;
mod problem;
mod sequence;
mod steps;
mod table;

pub(crate) use call::{Call, call};
#[cfg(any(feature = "cuda", feature = "wgpu"))]
pub(crate) use check::Checked;
#[cfg(feature = "wgpu")]
pub(crate) use check::CheckedOperand;
pub(crate) use factored::Compose;
pub use matrix::{Buffer, Matrix, Place};
pub use named::{
    Adapter, Backward, BackwardAdapter, BackwardGain, BackwardInput, BackwardShrink, Factor,
    FactorGradients, Forward, GradientA, GradientB, Merge, Norm,
};
#[cfg(feature = "cuda")]
pub(crate) use sequence::Between;
pub(crate) use sequence::{BETWEEN, MOST_STEPS, Sequence};
pub(crate) use steps::Steps;

use self::options::Options;
use self::table::Table;
use crate::{Error, Operand, Operation, Result};

/// The operands of one operation, by name. `I` is a buffer that is read, `O` one that is
/// written. Made from [`Forward`], [`BackwardInput`], [`BackwardShrink`], [`BackwardAdapter`] or
/// [`Merge`], or operand by operand. Two tables, so that nothing is allocated on the way to a kernel.
#[derive(Debug)]
pub struct Operands<I, O> {
    operation: Operation,
    options: Options,
    read: Table<I>,
    written: Table<O>,
}

impl<I, O> Operands<I, O> {
    /// No operands yet, for `operation`.
    pub fn new(operation: Operation) -> Operands<I, O> {
        Operands::with(operation, Options::default())
    }

    fn with(operation: Operation, options: Options) -> Operands<I, O> {
        Operands { operation, options, read: Table::new(), written: Table::new() }
    }

    /// With `matrix` as an operand that is read.
    pub fn read(mut self, operand: Operand, matrix: impl Into<Option<Matrix<I>>>) -> Self {
        self.set_read(operand, matrix.into());
        self
    }

    /// With `matrix` as an operand that is written.
    pub fn written(mut self, operand: Operand, matrix: impl Into<Option<Matrix<O>>>) -> Self {
        self.set_written(operand, matrix.into());
        self
    }

    // In place, for the way to a kernel: the builders above move all operands every time.
    fn set_read(&mut self, operand: Operand, matrix: Option<Matrix<I>>) {
        self.read.set(operand, matrix);
    }

    fn set_written(&mut self, operand: Operand, matrix: Option<Matrix<O>>) {
        self.written.set(operand, matrix);
    }

    fn set_adapter(&mut self, adapter: Option<Adapter<I>>) {
        let Some(adapter) = adapter.filter(|of| !of.is_nothing()) else { return };
        for (operand, matrix) in adapter.into_operands() {
            self.set_read(operand, matrix);
        }
    }

    /// The same operands for the other direction of merge.
    pub(crate) fn of_operation(self, operation: Operation) -> Operands<I, O> {
        Operands { operation, ..self }
    }

    /// The operation these operands belong to; [`Operation::Merge`] serves both directions.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// An operand that is read, which several parts of one run may want.
    pub(crate) fn get_read(&self, operand: Operand) -> Result<Matrix<I>>
    where
        I: Clone,
    {
        self.read.get(operand).cloned().ok_or(Error::Missing { operand })
    }

    /// An operand that is read, taken out.
    pub fn take_read(&mut self, operand: Operand) -> Result<Matrix<I>> {
        self.read.take(operand).ok_or(Error::Missing { operand })
    }

    /// An operand that is written, taken out.
    pub fn take_written(&mut self, operand: Operand) -> Result<Matrix<O>> {
        self.written.take(operand).ok_or(Error::Missing { operand })
    }

    /// The same operands over other handles to their buffers.
    pub fn try_map<J, P, E>(
        mut self,
        mut read: impl FnMut(Operand, I) -> Result<J, E>,
        mut written: impl FnMut(Operand, O) -> Result<P, E>,
    ) -> Result<Operands<J, P>, E> {
        let mut mapped = Operands::with(self.operation, self.options);
        // Taken one by one: most places are empty, and none of those is moved.
        for &operand in Operand::ALL {
            if let Some(matrix) = self.read.take(operand) {
                let matrix = matrix.try_map(|buffer| read(operand, buffer))?;
                mapped.set_read(operand, Some(matrix));
            }
            if let Some(matrix) = self.written.take(operand) {
                let matrix = matrix.try_map(|buffer| written(operand, buffer))?;
                mapped.set_written(operand, Some(matrix));
            }
        }
        Ok(mapped)
    }
}

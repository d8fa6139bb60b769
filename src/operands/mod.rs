//! Where the bytes are: the caller's buffers, each with its shape, offset, stride and major, and
//! the checks against a [`Problem`](crate::Problem). Generic over the buffer, so that slices, device
//! pointers and wgpu buffers are checked by the same lines.

mod builders;
mod call;
mod check;
mod matrix;
mod named;
mod options;
mod problem;
mod steps;

pub(crate) use call::{Call, call};
#[cfg(any(feature = "cuda", feature = "wgpu"))]
pub(crate) use check::Checked;
#[cfg(feature = "wgpu")]
pub(crate) use check::CheckedOperand;
pub use matrix::{Buffer, Matrix, Place};
pub use named::{
    Adapter, Backward, BackwardAdapter, BackwardInput, BackwardShrink, Forward, GradientA,
    GradientB, Merge,
};
pub(crate) use steps::Steps;

use self::options::Options;
use crate::{Error, Operand, Operation, Result};

/// The operands of one operation, by name. `I` is a buffer that is read, `O` one that is
/// written. Made from [`Forward`], [`BackwardInput`], [`BackwardShrink`], [`BackwardAdapter`] or
/// [`Merge`], or operand by operand. Two arrays, so that nothing is allocated on the way to a kernel.
#[derive(Debug)]
pub struct Operands<I, O> {
    operation: Operation,
    options: Options,
    read: [Option<Matrix<I>>; Operand::COUNT],
    written: [Option<Matrix<O>>; Operand::COUNT],
}

impl<I, O> Operands<I, O> {
    /// No operands yet, for `operation`.
    pub fn new(operation: Operation) -> Operands<I, O> {
        Operands::with(operation, Options::default())
    }

    fn with(operation: Operation, options: Options) -> Operands<I, O> {
        Operands {
            operation,
            options,
            read: [const { None }; Operand::COUNT],
            written: [const { None }; Operand::COUNT],
        }
    }

    /// With `matrix` as an operand that is read.
    pub fn read(mut self, operand: Operand, matrix: impl Into<Option<Matrix<I>>>) -> Self {
        self.read[operand as usize] = matrix.into();
        self
    }

    /// With `matrix` as an operand that is written.
    pub fn written(mut self, operand: Operand, matrix: impl Into<Option<Matrix<O>>>) -> Self {
        self.written[operand as usize] = matrix.into();
        self
    }

    // In place, for the way to a kernel: the builders above move all operands every time.
    fn set_read(&mut self, operand: Operand, matrix: Option<Matrix<I>>) {
        self.read[operand as usize] = matrix;
    }

    fn set_written(&mut self, operand: Operand, matrix: Option<Matrix<O>>) {
        self.written[operand as usize] = matrix;
    }

    fn set_adapter(&mut self, adapter: Option<Adapter<I>>) {
        // Of rank 0 it is as good as none.
        let adapter = adapter.filter(|of| of.a.rows > 0 || of.b.cols > 0);
        let (a, b) = adapter.map(|Adapter { a, b }| (a, b)).unzip();
        self.set_read(Operand::A, a);
        self.set_read(Operand::B, b);
    }

    /// The same operands for the other direction of merge.
    pub(crate) fn of_operation(self, operation: Operation) -> Operands<I, O> {
        Operands { operation, ..self }
    }

    /// The operation these operands belong to; [`Operation::Merge`] serves both directions.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// An operand that is read, taken out.
    pub fn take_read(&mut self, operand: Operand) -> Result<Matrix<I>> {
        self.read[operand as usize].take().ok_or(Error::Missing { operand })
    }

    /// An operand that is written, taken out.
    pub fn take_written(&mut self, operand: Operand) -> Result<Matrix<O>> {
        self.written[operand as usize].take().ok_or(Error::Missing { operand })
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
            if let Some(matrix) = self.read[operand as usize].take() {
                let matrix = matrix.try_map(|buffer| read(operand, buffer))?;
                mapped.set_read(operand, Some(matrix));
            }
            if let Some(matrix) = self.written[operand as usize].take() {
                let matrix = matrix.try_map(|buffer| written(operand, buffer))?;
                mapped.set_written(operand, Some(matrix));
            }
        }
        Ok(mapped)
    }
}

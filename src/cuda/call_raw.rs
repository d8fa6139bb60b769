//! Operands in, done, at bare addresses on a stream that is known by its handle. Called by hosts; one level
//! above [`Cuda::run_raw`].

use cudarc::driver::sys::CUstream;

use super::launch::Current;
use super::memory::RawMemory;
use super::steps::{Memory, Planned, Step, check_not_captured, workspace_len};
use super::{Cuda, Raw, is_captured};
use crate::executor::Taken;
use crate::operands::Sequence;
use crate::{Backward, BackwardGain, Error, Forward, Merge, Norm, Operands, Operation, Result};

/// The raw tier: operands at bare addresses, on a stream by its handle.
impl Cuda {
    /// [`Cuda::forward`] with operands at bare addresses. Records no event and waits for none; the context
    /// that is current on this thread is the same before and after.
    ///
    /// # Safety
    /// * `stream` is a stream of this executor's context, and its work is done when it is destroyed.
    /// * Every operand's elements lie in memory of its device until the launches are done, and no other work
    ///   touches what they write, or writes what they read, meanwhile: the caller orders streams.
    ///
    /// # Errors
    /// As [`Cuda::forward`], as far as addresses and lengths show it.
    pub unsafe fn forward_raw(&self, stream: CUstream, of: Forward<Raw, Raw>) -> Result<()> {
        self.layer_raw(stream, of).map_err(Error::of("forward"))
    }

    /// Called under the contract of the function above.
    fn layer_raw(&self, stream: CUstream, mut of: Forward<Raw, Raw>) -> Result<()> {
        match of.take_compose()? {
            None => self.call_raw(stream, of.into()),
            Some(compose) => self.all_raw(stream, Sequence::Composed(compose, of.into())),
        }
    }

    /// [`Cuda::backward`] with operands at bare addresses.
    ///
    /// # Safety
    /// As [`Cuda::forward_raw`].
    ///
    /// # Errors
    /// As there.
    pub unsafe fn backward_raw(&self, stream: CUstream, of: Backward<Raw, Raw>) -> Result<()> {
        self.pass_raw(stream, of).map_err(Error::of("backward"))
    }

    /// Called under the contract of the function above.
    fn pass_raw(&self, stream: CUstream, of: Backward<Raw, Raw>) -> Result<()> {
        self.all_raw(stream, Sequence::Pass(of.steps()?))
    }

    /// Likewise.
    fn all_raw(&self, stream: CUstream, sequence: Sequence<Raw>) -> Result<()> {
        let planned = Planned::new(sequence)?;
        let _current = Current::enter(&self.inner.context)?;
        check_not_captured(is_captured(stream)?)?;
        let mut memory = self.raw_memory(stream)?;
        memory.between.grow(stream, planned.bytes())?;
        let steps = planned.steps(self, memory.between.workspace().address)?;
        memory.workspace.grow(stream, workspace_len(&steps))?;
        self.launch_all(stream, &steps, memory.workspace.workspace())
    }

    /// [`Cuda::merge`] with operands at bare addresses.
    ///
    /// # Safety
    /// As [`Cuda::forward_raw`].
    ///
    /// # Errors
    /// As there.
    pub unsafe fn merge_raw(&self, stream: CUstream, of: Merge<Raw, Raw>) -> Result<()> {
        self.onto_raw(stream, of, Operation::Merge).map_err(Error::of("merge"))
    }

    /// [`Cuda::unmerge`] with operands at bare addresses.
    ///
    /// # Safety
    /// As [`Cuda::forward_raw`].
    ///
    /// # Errors
    /// As there.
    pub unsafe fn unmerge_raw(&self, stream: CUstream, of: Merge<Raw, Raw>) -> Result<()> {
        self.onto_raw(stream, of, Operation::Unmerge).map_err(Error::of("unmerge"))
    }

    /// [`Cuda::norm`] with operands at bare addresses.
    ///
    /// # Safety
    /// As [`Cuda::forward_raw`].
    ///
    /// # Errors
    /// As there.
    pub unsafe fn norm_raw(&self, stream: CUstream, of: Norm<Raw, Raw>) -> Result<()> {
        self.gain_raw(stream, of).map_err(Error::of("norm"))
    }

    /// Called under the contract of the function above.
    fn gain_raw(&self, stream: CUstream, mut of: Norm<Raw, Raw>) -> Result<()> {
        match of.take_compose()? {
            None => self.call_raw(stream, of.into()),
            Some(compose) => self.all_raw(stream, Sequence::Composed(compose, of.into())),
        }
    }

    /// [`Cuda::backward_gain`] with operands at bare addresses.
    ///
    /// # Safety
    /// As [`Cuda::forward_raw`].
    ///
    /// # Errors
    /// As there.
    pub unsafe fn backward_gain_raw(
        &self,
        stream: CUstream,
        of: BackwardGain<Raw, Raw>,
    ) -> Result<()> {
        self.call_raw(stream, of.into()).map_err(Error::of("backward_gain"))
    }

    /// Called under the contract of the functions above.
    fn onto_raw(
        &self,
        stream: CUstream,
        mut of: Merge<Raw, Raw>,
        operation: Operation,
    ) -> Result<()> {
        let compose = of.take_compose()?;
        let operands = Operands::from(of).of_operation(operation);
        match compose {
            None => self.call_raw(stream, operands),
            Some(compose) => self.all_raw(stream, Sequence::Composed(compose, operands)),
        }
    }

    /// Called under the contract of the functions above.
    fn call_raw(&self, stream: CUstream, operands: Operands<Raw, Raw>) -> Result<()> {
        let steps = [Some(Step::new(self, operands)?), None, None, None, None];
        let _current = Current::enter(&self.inner.context)?;
        check_not_captured(is_captured(stream)?)?;
        let mut memory = self.raw_memory(stream)?;
        memory.workspace.grow(stream, workspace_len(&steps))?;
        self.launch_all(stream, &steps, memory.workspace.workspace())
    }

    fn raw_memory(&self, stream: CUstream) -> Result<Taken<'_, Memory<RawMemory>>> {
        let make = || RawMemory::new(&self.inner.context, stream);
        self.inner.kept.raw.take(
            |of| of.workspace.is_of(stream),
            || Ok(Memory { workspace: make(), between: make() }),
        )
    }
}

//! Operands in, done, on a stream: the problem is read off the operands; plans are kept, and for each stream
//! a workspace. Called by hosts; one level above [`Cuda::run`].

use core::cell::RefCell;
use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::steps::{Memory, Planned, check_not_captured, workspace_len};
use super::{Cuda, Guarded, Raw, Slice, SliceMut, Workspace, check_context, fault, is_capturing};
use crate::executor::Taken;
use crate::operands::{Compose, Sequence};
use crate::{
    Backward, BackwardGain, Capabilities, Error, Executor, Forward, Merge, Norm, Operand, Operands,
    Operation, Plan, Problem, Result, Scaled,
};

impl Cuda {
    /// The plan of `problem`, made now if it is not kept from before.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn plan(&self, problem: &Problem) -> Result<Arc<Plan>> {
        self.inner.plans.get(problem, &self.capabilities())
    }

    /// Launches `y = x·wᵀ + shrunk·bᵀ (+ bias)`, `shrunk = s·x·aᵀ`, on `stream`: behind what other streams of
    /// this context did with the operands, as far as cudarc tracks that. The mathematics: Hu et al., 2021,
    /// arXiv:2106.09685, eq. 3.
    ///
    /// See [`Forward`] for operands and shapes. `y` and `shrunk` overlap no other operand. Any thread
    /// may call it, on any stream. The first call of a problem has the driver compile its kernels.
    ///
    /// # Errors
    /// An operand that does not fit the others or is not of this context; what the driver says to a kernel;
    /// a stream that is captured, because graphs need a workspace of their own ([`Cuda::run`]). Nothing
    /// has been launched then, unless the driver itself failed in the middle.
    pub fn forward<'a>(
        &self,
        stream: &Arc<CudaStream>,
        of: Forward<Slice<'a>, SliceMut<'a>>,
    ) -> Result<()> {
        self.layer(stream, of).map_err(Error::of("forward"))
    }

    fn layer(
        &self,
        stream: &Arc<CudaStream>,
        mut of: Forward<Slice<'_>, SliceMut<'_>>,
    ) -> Result<()> {
        match of.take_compose()? {
            None => self.call(stream, of.into()),
            Some(compose) => self.composed(stream, compose, of.into()),
        }
    }

    /// Launches `dx`, `da` and `db`, those that are wanted, on `stream`. See [`Backward`] for operands.
    ///
    /// # Errors
    /// As [`Cuda::forward`].
    pub fn backward<'a>(
        &self,
        stream: &Arc<CudaStream>,
        of: Backward<Slice<'a>, SliceMut<'a>>,
    ) -> Result<()> {
        self.pass(stream, of).map_err(Error::of("backward"))
    }

    fn pass(&self, stream: &Arc<CudaStream>, of: Backward<Slice<'_>, SliceMut<'_>>) -> Result<()> {
        // The guards live until everything is launched.
        let guards = Guards::new(self, stream)?;
        let of = of.try_map(
            |operand, slice| guards.read(operand, slice),
            |operand, slice| guards.write(operand, slice),
        )?;
        self.all(stream, Sequence::Pass(of.steps()?))
    }

    fn composed(
        &self,
        stream: &Arc<CudaStream>,
        compose: Compose<Slice<'_>>,
        operands: Operands<Slice<'_>, SliceMut<'_>>,
    ) -> Result<()> {
        let guards = Guards::new(self, stream)?;
        let compose = compose.try_map(|operand, slice| guards.read(operand, slice))?;
        let operands = operands.try_map(
            |operand, slice| guards.read(operand, slice),
            |operand, slice| guards.write(operand, slice),
        )?;
        self.all(stream, Sequence::Composed(compose, operands))
    }

    /// Behind what `Guards` wait for.
    fn all(&self, stream: &Arc<CudaStream>, sequence: Sequence<Raw>) -> Result<()> {
        stream.context().check_err().map_err(|error| fault::of("event", error))?;
        let planned = Planned::new(sequence)?;
        let mut memory = self.memory(stream)?;
        let Memory { workspace, between } = &mut *memory;
        between.grow(stream, planned.bytes())?;
        let steps = planned.steps(self, between.raw().address)?;
        workspace.grow(stream, workspace_len(&steps))?;
        between.enter(stream)?;
        workspace.enter(stream)?;
        self.launch_all(stream.cu_stream(), &steps, workspace.raw())?;
        workspace.leave(stream)?;
        between.leave(stream)
    }

    /// Launches `w += s·b·a`, in place, each element rounded once, on `stream`.
    ///
    /// # Errors
    /// As [`Cuda::forward`].
    pub fn merge<'a>(
        &self,
        stream: &Arc<CudaStream>,
        of: Merge<Slice<'a>, SliceMut<'a>>,
    ) -> Result<()> {
        self.onto(stream, of, Operation::Merge).map_err(Error::of("merge"))
    }

    /// Launches `w -= s·b·a`, in place: [`Cuda::merge`] taken back, but for rounding.
    ///
    /// # Errors
    /// As [`Cuda::forward`].
    pub fn unmerge<'a>(
        &self,
        stream: &Arc<CudaStream>,
        of: Merge<Slice<'a>, SliceMut<'a>>,
    ) -> Result<()> {
        self.onto(stream, of, Operation::Unmerge).map_err(Error::of("unmerge"))
    }

    fn onto(
        &self,
        stream: &Arc<CudaStream>,
        mut of: Merge<Slice<'_>, SliceMut<'_>>,
        operation: Operation,
    ) -> Result<()> {
        let compose = of.take_compose()?;
        let operands = Operands::from(of).of_operation(operation);
        match compose {
            None => self.call(stream, operands),
            Some(compose) => self.composed(stream, compose, operands),
        }
    }

    /// Launches `gain = magnitude / ‖w + s·b·a‖`, row by row, on `stream`. See [`Norm`] for operands.
    ///
    /// # Errors
    /// As [`Cuda::forward`].
    pub fn norm<'a>(
        &self,
        stream: &Arc<CudaStream>,
        of: Norm<Slice<'a>, SliceMut<'a>>,
    ) -> Result<()> {
        self.gain(stream, of).map_err(Error::of("norm"))
    }

    fn gain(&self, stream: &Arc<CudaStream>, mut of: Norm<Slice<'_>, SliceMut<'_>>) -> Result<()> {
        match of.take_compose()? {
            None => self.call(stream, of.into()),
            Some(compose) => self.composed(stream, compose, of.into()),
        }
    }

    /// Launches `scaled_dy = gain∘dy` and `dmagnitude` on `stream`. See [`BackwardGain`] for operands.
    ///
    /// # Errors
    /// As [`Cuda::forward`].
    pub fn backward_gain<'a>(
        &self,
        stream: &Arc<CudaStream>,
        of: BackwardGain<Slice<'a>, SliceMut<'a>>,
    ) -> Result<()> {
        self.call(stream, of.into()).map_err(Error::of("backward_gain"))
    }

    fn call(
        &self,
        stream: &Arc<CudaStream>,
        operands: Operands<Slice<'_>, SliceMut<'_>>,
    ) -> Result<()> {
        check_context("stream", stream.context(), &self.inner.context)?;
        check_not_captured(is_capturing(stream)?)?;
        let plan = self.plan(&operands.problem()?)?;
        self.run_kept(stream, &plan, operands)
    }

    /// [`Cuda::run`] with a workspace that is kept.
    pub(crate) fn run_kept<'a, 'p>(
        &self,
        stream: &Arc<CudaStream>,
        plan: impl Into<Scaled<'p>>,
        operands: Operands<Slice<'a>, SliceMut<'a>>,
    ) -> Result<()> {
        let scaled = plan.into();
        let mut memory = self.memory(stream)?;
        let Memory { workspace, .. } = &mut *memory;
        workspace.grow(stream, scaled.plan().workspace_len())?;
        self.run(stream, scaled, operands, workspace)
    }

    /// The memory of a stream: its own, or that of a stream that nobody has any more.
    fn memory(&self, stream: &Arc<CudaStream>) -> Result<Taken<'_, Memory<Workspace>>> {
        let pool = &self.inner.kept.safe;
        if let Some(own) = pool.find(|of| of.workspace.is_of(stream)) {
            return Ok(own);
        }
        pool.take(Memory::is_orphaned, || {
            let [workspace, between] = [Workspace::new(stream, 0)?, Workspace::new(stream, 0)?];
            Ok(Memory { workspace, between })
        })
    }
}

/// What a call over several launches holds of cudarc's slices until all are made.
struct Guards<'a, 's> {
    cuda: &'a Cuda,
    stream: &'s Arc<CudaStream>,
    held: RefCell<[Option<Guarded<'s>>; Operand::COUNT]>,
}

impl<'a, 's> Guards<'a, 's> {
    fn new(cuda: &'a Cuda, stream: &'s Arc<CudaStream>) -> Result<Guards<'a, 's>> {
        check_context("stream", stream.context(), &cuda.inner.context)?;
        cuda.inner.bind()?;
        check_not_captured(is_capturing(stream)?)?;
        Ok(Guards { cuda, stream, held: RefCell::new([const { None }; Operand::COUNT]) })
    }

    fn read(&self, operand: Operand, slice: Slice<'s>) -> Result<Raw> {
        check_context(operand, slice.context(), &self.cuda.inner.context)?;
        Ok(self.hold(operand, slice.guard(self.stream)))
    }

    fn write(&self, operand: Operand, slice: SliceMut<'s>) -> Result<Raw> {
        check_context(operand, slice.context(), &self.cuda.inner.context)?;
        Ok(self.hold(operand, slice.guard(self.stream)))
    }

    fn hold(&self, operand: Operand, guarded: Guarded<'s>) -> Raw {
        self.held.borrow_mut()[operand as usize].insert(guarded).raw()
    }
}

impl Executor for Cuda {
    type Slice<'a> = Slice<'a>;
    type SliceMut<'a> = SliceMut<'a>;
    type Queue<'a> = &'a Arc<CudaStream>;

    fn capabilities(&self) -> Capabilities {
        Cuda::capabilities(self)
    }
    fn plan(&self, problem: &Problem) -> Result<Arc<Plan>> {
        Cuda::plan(self, problem)
    }
    fn forward<'a>(
        &self,
        stream: Self::Queue<'_>,
        of: Forward<Slice<'a>, SliceMut<'a>>,
    ) -> Result<()> {
        Cuda::forward(self, stream, of)
    }
    fn backward<'a>(
        &self,
        stream: Self::Queue<'_>,
        of: Backward<Slice<'a>, SliceMut<'a>>,
    ) -> Result<()> {
        Cuda::backward(self, stream, of)
    }
    fn merge<'a>(&self, stream: Self::Queue<'_>, of: Merge<Slice<'a>, SliceMut<'a>>) -> Result<()> {
        Cuda::merge(self, stream, of)
    }
    fn unmerge<'a>(
        &self,
        stream: Self::Queue<'_>,
        of: Merge<Slice<'a>, SliceMut<'a>>,
    ) -> Result<()> {
        Cuda::unmerge(self, stream, of)
    }
    fn norm<'a>(&self, stream: Self::Queue<'_>, of: Norm<Slice<'a>, SliceMut<'a>>) -> Result<()> {
        Cuda::norm(self, stream, of)
    }
    fn backward_gain<'a>(
        &self,
        stream: Self::Queue<'_>,
        of: BackwardGain<Slice<'a>, SliceMut<'a>>,
    ) -> Result<()> {
        Cuda::backward_gain(self, stream, of)
    }
}

//! Operands in, done, on a stream: the problem is read off the operands; plans are kept, and for each stream
//! a workspace. Called by hosts; one level above [`Cuda::run`].

use core::cell::RefCell;
use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::steps::{Memory, Pass, check_not_captured, workspace_len};
use super::{Cuda, Guarded, Slice, SliceMut, Workspace, check_context, fault, is_capturing};
use crate::executor::Taken;
use crate::{
    Backward, Capabilities, Error, Executor, Forward, Merge, Operand, Operands, Operation, Plan,
    Problem, Result, Scaled,
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
        self.call(stream, of.into()).map_err(Error::of("forward"))
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
        let inner = &*self.inner;
        let context = &*inner.context;
        check_context("stream", stream.context(), context)?;
        inner.bind()?;
        check_not_captured(is_capturing(stream)?)?;
        // The guards live until everything is launched.
        let guards = RefCell::new([const { None }; Operand::COUNT]);
        let keep = |operand, guarded| {
            let mut guards = guards.borrow_mut();
            let place: &mut Option<Guarded<'_>> = &mut guards[operand as usize];
            place.insert(guarded).raw()
        };
        let of = of.try_map(
            |operand, slice| {
                check_context(operand, slice.context(), context)?;
                Ok(keep(operand, slice.guard(stream)))
            },
            |operand, slice| {
                check_context(operand, slice.context(), context)?;
                Ok(keep(operand, slice.guard(stream)))
            },
        )?;
        stream.context().check_err().map_err(|error| fault::of("event", error))?;
        let pass = Pass::new(of)?;
        let mut memory = self.memory(stream)?;
        let Memory { workspace, between } = &mut *memory;
        between.grow(stream, pass.bytes())?;
        let steps = pass.planned(self, between.raw().address)?;
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
        self.call(stream, of.into()).map_err(Error::of("merge"))
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
        let operands = Operands::from(of).of_operation(Operation::Unmerge);
        self.call(stream, operands).map_err(Error::of("unmerge"))
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
}

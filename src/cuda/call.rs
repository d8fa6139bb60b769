//! Operands in, done, on a stream: the problem is read off the operands; plans are kept, and for each stream
//! a workspace. Called by hosts; one level above [`Cuda::run`] and [`Cuda::run_raw`].

use core::cell::RefCell;
use std::sync::Arc;

use cudarc::driver::CudaStream;
use cudarc::driver::sys::CUstream;

use super::launch::{self, Addresses, Current};
use super::memory::RawMemory;
use super::{
    Cuda, Guarded, Raw, RawWorkspace, Slice, SliceMut, Workspace, check_context, fault,
    is_captured, is_capturing,
};
use crate::executor::{Pool, Taken};
use crate::operands::Steps;
use crate::{
    Backward, Capabilities, Error, Executor, Forward, Merge, Operand, Operands, Operation, Plan,
    Problem, Result, Scaled,
};

/// Memory of the streams that were met.
#[derive(Debug, Default)]
pub(super) struct Kept {
    safe: Pool<Memory<Workspace>>,
    raw: Pool<Memory<RawMemory>>,
}

/// What calls on one stream share.
#[derive(Debug)]
struct Memory<W> {
    /// Of the plans.
    workspace: W,
    /// What goes from one step of a backward pass to the next.
    between: W,
}

impl Memory<Workspace> {
    /// Whether nobody else has the stream any more that it was used on.
    fn is_orphaned(&self) -> bool {
        let stream = self.workspace.last();
        let own = self.workspace.holds(stream) + self.between.holds(stream);
        Arc::strong_count(stream) == own
    }
}

/// One launch sequence of a call.
struct Step {
    plan: Arc<Plan>,
    operands: Operands<Raw, Raw>,
}

impl Step {
    fn new(cuda: &Cuda, operands: Operands<Raw, Raw>) -> Result<Step> {
        Ok(Step { plan: cuda.plan(&operands.problem()?)?, operands })
    }

    fn check(&self, workspace: RawWorkspace) -> Result<Addresses<'_>> {
        launch::check(&self.plan, &self.operands, workspace)
    }
}

/// The steps of a backward pass over addresses, given those of what goes from one to the next.
struct Pass {
    steps: Steps<Raw, Raw>,
    /// Bytes of each of the two matrices that go on.
    each: usize,
}

impl Pass {
    fn new(of: Backward<Raw, Raw>) -> Result<Pass> {
        let steps = of.steps()?;
        let bytes = steps.temporaries.len()?.saturating_mul(steps.temporaries.dtype.size());
        let each = bytes.checked_next_multiple_of(super::WORKSPACE_ALIGN);
        Ok(Pass { each: each.ok_or(Error::OutOfMemory { bytes })?, steps })
    }

    fn bytes(&self) -> usize {
        let temporaries = &self.steps.temporaries;
        match temporaries.shrunk || temporaries.dshrunk {
            true => self.each.saturating_mul(2),
            false => 0,
        }
    }

    /// Everything that can be refused is refused here, before the first launch.
    fn planned(self, cuda: &Cuda, between: u64) -> Result<[Option<Step>; 3]> {
        let Steps { temporaries, recompute, down, gradients } = self.steps;
        let matrix = |wanted: bool, address| {
            let len = temporaries.rows * temporaries.cols;
            wanted.then(|| temporaries.matrix(Raw::new(address, len, temporaries.dtype)))
        };
        let shrunk = matrix(temporaries.shrunk, between);
        let dshrunk = matrix(temporaries.dshrunk, between + self.each as u64);
        let recompute = recompute.zip(shrunk).map(|(step, shrunk)| step.with(shrunk));
        let down = down.map(|step| step.with(dshrunk));
        let gradients = gradients.map(|step| step.with(shrunk, dshrunk));
        let step = |of: Option<_>| of.map(|of| Step::new(cuda, of)).transpose();
        Ok([step(recompute)?, step(down)?, step(gradients)?])
    }
}

/// The longest workspace that the steps ask for.
fn workspace_len(steps: &[Option<Step>]) -> usize {
    steps.iter().flatten().map(|step| step.plan.workspace_len()).max().unwrap_or(0)
}

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

    /// Launches `steps`, after all that could be refused was.
    fn launch_all(
        &self,
        stream: CUstream,
        steps: &[Option<Step>],
        workspace: RawWorkspace,
    ) -> Result<()> {
        let inner = &*self.inner;
        for step in steps.iter().flatten() {
            step.check(workspace)?;
            step.operands.on(&step.plan)?;
            inner.load(&step.plan)?;
        }
        for step in steps.iter().flatten() {
            inner.launch(stream, step.operands.on(&step.plan)?, &step.check(workspace)?)?;
        }
        Ok(())
    }
}

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
        self.call_raw(stream, of.into()).map_err(Error::of("forward"))
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
        let pass = Pass::new(of)?;
        let _current = Current::enter(&self.inner.context)?;
        check_not_captured(is_captured(stream)?)?;
        let mut memory = self.raw_memory(stream)?;
        memory.between.grow(stream, pass.bytes())?;
        let steps = pass.planned(self, memory.between.workspace().address)?;
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
        self.call_raw(stream, of.into()).map_err(Error::of("merge"))
    }

    /// [`Cuda::unmerge`] with operands at bare addresses.
    ///
    /// # Safety
    /// As [`Cuda::forward_raw`].
    ///
    /// # Errors
    /// As there.
    pub unsafe fn unmerge_raw(&self, stream: CUstream, of: Merge<Raw, Raw>) -> Result<()> {
        let operands = Operands::from(of).of_operation(Operation::Unmerge);
        self.call_raw(stream, operands).map_err(Error::of("unmerge"))
    }

    /// Called under the contract of the functions above.
    fn call_raw(&self, stream: CUstream, operands: Operands<Raw, Raw>) -> Result<()> {
        let steps = [Some(Step::new(self, operands)?)];
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

/// What a graph replays may not be handed to other launches meanwhile.
fn check_not_captured(captured: bool) -> Result<()> {
    if captured {
        let reason = "a graph needs a workspace of its own for as long as it lives: plan, and capture \
                      Cuda::run or Cuda::run_raw with one";
        return Err(Error::Capture { reason: reason.to_owned() });
    }
    Ok(())
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

//! Operands in, done: the problem is read off the operands, plans and scratch memory are kept. Called by
//! hosts; one level above [`Cpu::run`].

use std::sync::Arc;

use super::{Cpu, Slice, SliceMut, Workspace};
use crate::executor::Taken;
use crate::operands::Steps;
use crate::{
    Backward, Capabilities, Error, Executor, Forward, Merge, Operand, Operands, Operation, Plan,
    Problem, Result, Scaled,
};

/// What one call takes and leaves for the next.
#[derive(Debug, Default)]
pub(super) struct Kept {
    workspace: Workspace,
    /// What goes from one step of a backward pass to the next.
    between: Workspace,
}

impl Cpu {
    /// The plan of `problem`, made now if it is not kept from before.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn plan(&self, problem: &Problem) -> Result<Arc<Plan>> {
        self.inner.plans.get(problem, &self.capabilities())
    }

    /// `y = x·wᵀ + shrunk·bᵀ (+ bias)`, `shrunk = s·x·aᵀ`, and returns when it is done. The mathematics:
    /// Hu et al., 2021, arXiv:2106.09685, eq. 3.
    ///
    /// See [`Forward`] for operands and shapes. `y` and `shrunk` overlap no other operand, and need
    /// not be initialised where β is 0. Any thread may call it, and any number at once.
    ///
    /// # Errors
    /// An operand that does not fit the others; memory that cannot be had. Nothing has been written then.
    pub fn forward<'a>(&self, of: Forward<Slice<'a>, SliceMut<'a>>) -> Result<()> {
        self.call(of.into()).map_err(Error::of("forward"))
    }

    /// `dx`, `da` and `db`, those that are wanted, and returns when they are there. See
    /// [`Backward`] for operands and an example.
    ///
    /// # Errors
    /// As [`Cpu::forward`].
    pub fn backward<'a>(&self, of: Backward<Slice<'a>, SliceMut<'a>>) -> Result<()> {
        self.pass(of).map_err(Error::of("backward"))
    }

    fn pass(&self, of: Backward<Slice<'_>, SliceMut<'_>>) -> Result<()> {
        let Steps { temporaries, recompute, down, gradients } = of.steps()?;
        let mut kept = self.take();
        let Kept { workspace, between } = &mut *kept;
        let mut memory = between.elements(temporaries.dtype, temporaries.len()?, 2)?;
        let missing = |operand| move || Error::Missing { operand };
        let mut shrunk = memory.next().ok_or_else(missing(Operand::Shrunk))?;
        let mut dshrunk = memory.next().ok_or_else(missing(Operand::Dshrunk))?;
        if let Some(step) = recompute {
            let shrunk = temporaries.matrix((&mut shrunk).into());
            self.step(step.with(shrunk), workspace)?;
        }
        if let Some(step) = down {
            let dshrunk = temporaries.dshrunk.then(|| temporaries.matrix((&mut dshrunk).into()));
            self.step(step.with(dshrunk), workspace)?;
        }
        if let Some(step) = gradients {
            let shrunk = shrunk.as_slice().filter(|_| temporaries.shrunk);
            let dshrunk = dshrunk.as_slice().filter(|_| temporaries.dshrunk);
            let [shrunk, dshrunk] = [shrunk, dshrunk].map(|of| of.map(|of| temporaries.matrix(of)));
            self.step(step.with(shrunk, dshrunk), workspace)?;
        }
        Ok(())
    }

    /// `w += s·b·a`, in place, each element rounded once. `w` overlaps neither factor.
    ///
    /// # Errors
    /// As [`Cpu::forward`].
    pub fn merge<'a>(&self, of: Merge<Slice<'a>, SliceMut<'a>>) -> Result<()> {
        self.call(of.into()).map_err(Error::of("merge"))
    }

    /// `w -= s·b·a`, in place: [`Cpu::merge`] taken back, but for rounding.
    ///
    /// # Errors
    /// As [`Cpu::forward`].
    pub fn unmerge<'a>(&self, of: Merge<Slice<'a>, SliceMut<'a>>) -> Result<()> {
        let operands = Operands::from(of).of_operation(Operation::Unmerge);
        self.call(operands).map_err(Error::of("unmerge"))
    }

    /// [`Cpu::run`] with a workspace that is kept.
    pub(crate) fn run_kept<'a, 'p>(
        &self,
        plan: impl Into<Scaled<'p>>,
        operands: Operands<Slice<'a>, SliceMut<'a>>,
    ) -> Result<()> {
        let scaled = plan.into();
        let workspace = &mut self.take().workspace;
        workspace.grow(scaled.plan().workspace_len())?;
        self.run(scaled, operands, workspace)
    }

    fn take(&self) -> Taken<'_, Kept> {
        let taken = self.inner.kept.take(|_| true, || Ok::<_, Error>(Kept::default()));
        taken.expect("it makes one where there is none")
    }

    fn call(&self, operands: Operands<Slice<'_>, SliceMut<'_>>) -> Result<()> {
        self.step(operands, &mut self.take().workspace)
    }

    fn step(
        &self,
        operands: Operands<Slice<'_>, SliceMut<'_>>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        let plan = self.plan(&operands.problem()?)?;
        workspace.grow(plan.workspace_len())?;
        self.run(&plan, operands, workspace)
    }
}

impl Executor for Cpu {
    type Slice<'a> = Slice<'a>;
    type SliceMut<'a> = SliceMut<'a>;
    type Queue<'a> = ();

    fn capabilities(&self) -> Capabilities {
        Cpu::capabilities(self)
    }
    fn plan(&self, problem: &Problem) -> Result<Arc<Plan>> {
        Cpu::plan(self, problem)
    }
    fn forward<'a>(&self, (): (), of: Forward<Slice<'a>, SliceMut<'a>>) -> Result<()> {
        Cpu::forward(self, of)
    }
    fn backward<'a>(&self, (): (), of: Backward<Slice<'a>, SliceMut<'a>>) -> Result<()> {
        Cpu::backward(self, of)
    }
    fn merge<'a>(&self, (): (), of: Merge<Slice<'a>, SliceMut<'a>>) -> Result<()> {
        Cpu::merge(self, of)
    }
    fn unmerge<'a>(&self, (): (), of: Merge<Slice<'a>, SliceMut<'a>>) -> Result<()> {
        Cpu::unmerge(self, of)
    }
}

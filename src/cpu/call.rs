//! Operands in, done: the problem is read off the operands, plans and scratch memory are kept. Called by
//! hosts; one level above [`Cpu::run`].

use std::sync::Arc;

use super::{Cpu, Slice, SliceMut, Workspace};
use crate::executor::Taken;
use crate::operands::{Compose, Steps};
use crate::{
    Backward, BackwardGain, Capabilities, DType, Error, Executor, Forward, Matrix, Merge, Norm,
    Operand, Operands, Operation, Plan, Problem, Result, Scaled,
};

/// What one call takes and leaves for the next.
#[derive(Debug, Default)]
pub(super) struct Kept {
    workspace: Workspace,
    /// What goes from one step of a backward pass to the next.
    between: Workspace,
    /// `a` and `b` of an adapter that is composed, and their gradients.
    composed: [Workspace; 2],
    gradients: [Workspace; 2],
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
        self.layer(of).map_err(Error::of("forward"))
    }

    fn layer(&self, mut of: Forward<Slice<'_>, SliceMut<'_>>) -> Result<()> {
        match of.take_compose()? {
            None => self.call(of.into()),
            Some(compose) => self.composed(compose, of.into()),
        }
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
        let Steps { temporaries, compose, recompute, down, gradients, of_factors, chain } =
            of.steps()?;
        let mut kept = self.take();
        let Kept { workspace, between, composed, gradients: of_composed } = &mut *kept;
        let mut memory = between.elements(temporaries.dtype, temporaries.len()?, 2)?;
        let missing = |operand| move || Error::Missing { operand };
        let mut shrunk = memory.next().ok_or_else(missing(Operand::Shrunk))?;
        let mut dshrunk = memory.next().ok_or_else(missing(Operand::Dshrunk))?;
        let shapes = compose.as_ref().map_or([None; 2], |of| of.shapes());
        let shapes_of_chain = chain.as_ref().map_or([None; 2], |of| of.shapes());
        let mut composed = pair(composed, shapes)?;
        let mut of_composed = pair(of_composed, shapes_of_chain)?;
        if let Some(step) = compose {
            self.step(step.with(to_write(&mut composed, shapes)), workspace)?;
        }
        let composed = || to_read(&composed, shapes);
        if let Some(step) = recompute {
            let shrunk = temporaries.matrix((&mut shrunk).into());
            self.step(step.with(composed(), shrunk), workspace)?;
        }
        if let Some(step) = down {
            let dshrunk = temporaries.dshrunk.then(|| temporaries.matrix((&mut dshrunk).into()));
            self.step(step.with(composed(), dshrunk), workspace)?;
        }
        if let Some(step) = gradients {
            let shrunk = shrunk.as_slice().filter(|_| temporaries.shrunk);
            let dshrunk = dshrunk.as_slice().filter(|_| temporaries.dshrunk);
            let [shrunk, dshrunk] = [shrunk, dshrunk].map(|of| of.map(|of| temporaries.matrix(of)));
            let onward = to_write(&mut of_composed, shapes_of_chain);
            self.step(step.with(shrunk, dshrunk, onward), workspace)?;
        }
        for (step, is_w1) in of_factors.into_iter().zip([true, false]) {
            let Some(step) = step else { continue };
            let [w1, _] = composed();
            let [dw1, _] = to_write(&mut of_composed, shapes_of_chain);
            self.step(step.with(w1, dw1.filter(|_| is_w1)), workspace)?;
        }
        if let Some(step) = chain {
            self.step(step.with(to_read(&of_composed, shapes_of_chain)), workspace)?;
        }
        Ok(())
    }

    /// `w += s·b·a`, in place, each element rounded once. `w` overlaps neither factor.
    ///
    /// # Errors
    /// As [`Cpu::forward`].
    pub fn merge<'a>(&self, of: Merge<Slice<'a>, SliceMut<'a>>) -> Result<()> {
        self.onto(of, Operation::Merge).map_err(Error::of("merge"))
    }

    /// `w -= s·b·a`, in place: [`Cpu::merge`] taken back, but for rounding.
    ///
    /// # Errors
    /// As [`Cpu::forward`].
    pub fn unmerge<'a>(&self, of: Merge<Slice<'a>, SliceMut<'a>>) -> Result<()> {
        self.onto(of, Operation::Unmerge).map_err(Error::of("unmerge"))
    }

    fn onto(&self, mut of: Merge<Slice<'_>, SliceMut<'_>>, operation: Operation) -> Result<()> {
        let compose = of.take_compose()?;
        let operands = Operands::from(of).of_operation(operation);
        match compose {
            None => self.call(operands),
            Some(compose) => self.composed(compose, operands),
        }
    }

    /// `gain = magnitude / ‖w + s·b·a‖`, row by row, and returns when it is done. See [`Norm`] for operands.
    ///
    /// # Errors
    /// As [`Cpu::forward`]; [`Error::Value`] for a magnitude of 0, or one that is not finite.
    pub fn norm<'a>(&self, of: Norm<Slice<'a>, SliceMut<'a>>) -> Result<()> {
        self.gain(of).map_err(Error::of("norm"))
    }

    fn gain(&self, mut of: Norm<Slice<'_>, SliceMut<'_>>) -> Result<()> {
        match of.take_compose()? {
            None => self.call(of.into()),
            Some(compose) => self.composed(compose, of.into()),
        }
    }

    /// `scaled_dy = gain∘dy` and `dmagnitude`, and returns when they are there. See [`BackwardGain`] for operands.
    ///
    /// # Errors
    /// As [`Cpu::norm`].
    pub fn backward_gain<'a>(&self, of: BackwardGain<Slice<'a>, SliceMut<'a>>) -> Result<()> {
        self.call(of.into()).map_err(Error::of("backward_gain"))
    }

    /// `a` and `b` into memory that is kept, and then the call on them.
    fn composed(
        &self,
        mut compose: Compose<Slice<'_>>,
        operands: Operands<Slice<'_>, SliceMut<'_>>,
    ) -> Result<()> {
        let mut kept = self.take();
        let Kept { workspace, composed, .. } = &mut *kept;
        let (shapes, rest) = (compose.shapes(), compose.take_rest());
        let mut memory = pair(composed, shapes)?;
        self.step(compose.with(to_write(&mut memory, shapes)), workspace)?;
        self.step(operands.on_composed(to_read(&memory, shapes), rest), workspace)
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

/// Rows and columns of two matrices, those that are wanted.
type Shapes = [Option<[usize; 2]>; 2];

/// f32 for two matrices, of which what is not wanted is empty.
fn pair(of: &mut [Workspace; 2], shapes: Shapes) -> Result<[SliceMut<'_>; 2]> {
    fn elements(of: &mut Workspace, shape: Option<[usize; 2]>) -> Result<SliceMut<'_>> {
        let [rows, cols] = shape.unwrap_or_default();
        let out_of_memory = Error::OutOfMemory { bytes: usize::MAX };
        let Some(len) = rows.checked_mul(cols) else { return Err(out_of_memory) };
        of.elements(DType::F32, len, 1)?.next().ok_or(out_of_memory)
    }
    let [first, second] = of;
    Ok([elements(first, shapes[0])?, elements(second, shapes[1])?])
}

fn to_write<'s>(
    of: &'s mut [SliceMut<'_>; 2],
    shapes: Shapes,
) -> [Option<Matrix<SliceMut<'s>>>; 2] {
    let [first, second] = of;
    let matrix = |of: &'s mut SliceMut<'_>, shape: Option<[usize; 2]>| {
        shape.map(|[rows, cols]| Matrix::new(SliceMut::from(of), rows, cols))
    };
    [matrix(first, shapes[0]), matrix(second, shapes[1])]
}

fn to_read<'s>(of: &'s [SliceMut<'_>; 2], shapes: Shapes) -> [Option<Matrix<Slice<'s>>>; 2] {
    core::array::from_fn(|at| {
        let [rows, cols] = shapes[at]?;
        Some(Matrix::new(of[at].as_slice()?, rows, cols))
    })
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
    fn norm<'a>(&self, (): (), of: Norm<Slice<'a>, SliceMut<'a>>) -> Result<()> {
        Cpu::norm(self, of)
    }
    fn backward_gain<'a>(&self, (): (), of: BackwardGain<Slice<'a>, SliceMut<'a>>) -> Result<()> {
        Cpu::backward_gain(self, of)
    }
}

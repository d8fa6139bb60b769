//! Operands in, done, into an open pass: the problem is read off the operands, plans and scratch memory
//! are kept. Called by hosts; one level above [`Wgpu::encode`].

use std::sync::{Arc, Mutex, PoisonError};

use super::{Inner, Prepared, Slice, Wgpu, Workspace, wgpu};
use crate::operands::Sequence;
use crate::{
    Backward, BackwardGain, Capabilities, Error, Executor, Forward, Matrix, Merge, Norm, Operands,
    Operation, Plan, Problem, Result, Scaled,
};

/// Buffers for the passes to come, each as long as was ever asked for. One of a kind is enough: on the
/// one queue of a device passes run one behind the other, and what is recorded keeps what it uses.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// By their use.
    buffers: Mutex<[Option<wgpu::Buffer>; Use::Db as usize + 1]>,
}

#[derive(Clone, Copy)]
enum Use {
    /// What launches of one plan share.
    Workspace,
    /// What goes from one operation of a call to the next.
    Shrunk,
    Dshrunk,
    A,
    B,
    Da,
    Db,
}

/// In the order of [`Between`](crate::operands::Between).
const BETWEEN: [Use; 6] = [Use::Shrunk, Use::Dshrunk, Use::A, Use::B, Use::Da, Use::Db];

impl Inner {
    /// A buffer of at least `bytes`, which hold anything.
    fn kept(&self, of: Use, bytes: usize) -> Result<wgpu::Buffer> {
        let lock = || self.kept.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = bytes.max(16) as u64;
        let long_enough = |buffer: &&wgpu::Buffer| buffer.size() >= bytes;
        if let Some(buffer) = lock()[of as usize].as_ref().filter(long_enough) {
            return Ok(buffer.clone());
        }
        let size = bytes.checked_next_multiple_of(256);
        let size = size.filter(|&size| size <= self.device.limits().max_buffer_size);
        let size =
            size.ok_or(Error::OutOfMemory { bytes: usize::try_from(bytes).unwrap_or(usize::MAX) })?;
        let buffer = self.scoped("scratch memory", size, |device| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("fused-lora scratch"),
                size,
                usage: wgpu::BufferUsages::STORAGE,
                mapped_at_creation: false,
            })
        })?;
        let mut buffers = lock();
        let place = &mut buffers[of as usize];
        // Another thread may have made a longer one.
        if place.as_ref().is_none_or(|kept| kept.size() < size) {
            *place = Some(buffer.clone());
        }
        Ok(buffer)
    }
}

impl Wgpu {
    /// The plan of `problem`, made now if it is not kept from before.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn plan(&self, problem: &Problem) -> Result<Arc<Plan>> {
        self.inner.plans.get(problem, &self.capabilities())
    }

    /// Records `y = x·wᵀ + shrunk·bᵀ (+ bias)`, `shrunk = s·x·aᵀ`, into an open pass. The mathematics: Hu et
    /// al., 2021, arXiv:2106.09685, eq. 3.
    ///
    /// See [`Forward`] for operands and shapes. `y` and `shrunk` overlap no other operand; unless
    /// [`Wgpu::with_shared_buffers`] says so, they lie in other buffers. Any thread may call it, with a pass
    /// of its own. The passes of a device go to its one queue, in the order in which they are submitted.
    ///
    /// # Errors
    /// An operand that does not fit the others, buffers that WebGPU would not bind, what the driver says to
    /// a kernel, a lost device. Nothing has been recorded then.
    pub fn forward<'a>(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        of: Forward<Slice<'a>, Slice<'a>>,
    ) -> Result<()> {
        self.layer(pass, of).map_err(Error::of("forward"))
    }

    fn layer(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        mut of: Forward<Slice<'_>, Slice<'_>>,
    ) -> Result<()> {
        match of.take_compose()? {
            None => self.step(of.into())?.encode(pass),
            Some(compose) => self.composed(pass, Sequence::Composed(compose, of.into())),
        }
    }

    fn composed(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        sequence: Sequence<Slice<'_>>,
    ) -> Result<()> {
        self.steps(sequence)?.iter().try_for_each(|step| step.encode(pass))
    }

    /// Records `dx`, `da` and `db`, those that are wanted, into an open pass. See [`Backward`] for operands.
    ///
    /// # Errors
    /// As [`Wgpu::forward`].
    pub fn backward<'a>(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        of: Backward<Slice<'a>, Slice<'a>>,
    ) -> Result<()> {
        let steps = of.steps().and_then(|steps| self.steps(Sequence::Pass(steps)));
        let steps = steps.map_err(Error::of("backward"))?;
        steps.iter().try_for_each(|step| step.encode(pass))
    }

    /// Everything that can be refused is, before anything is recorded.
    fn steps(&self, sequence: Sequence<Slice<'_>>) -> Result<Vec<Prepared>> {
        let mut buffers = [const { None }; BETWEEN.len()];
        let between = sequence.between();
        for (of, (buffer, wanted)) in BETWEEN.into_iter().zip(buffers.iter_mut().zip(between)) {
            let Some((shape @ [rows, cols], dtype)) = wanted else { continue };
            let bytes = rows.checked_mul(cols).and_then(|of| of.checked_mul(dtype.size()));
            let bytes = bytes.ok_or(Error::OutOfMemory { bytes: usize::MAX })?;
            *buffer = Some((self.inner.kept(of, bytes)?, bytes as u64, shape, dtype));
        }
        let matrices = buffers.each_ref().map(|of: &Option<_>| {
            let (buffer, bytes, [rows, cols], dtype) = of.as_ref()?;
            Some(Matrix::new(Slice::part(buffer, *dtype, 0..*bytes), *rows, *cols))
        });
        let operands = sequence.with(matrices);
        operands.into_iter().flatten().map(|of| self.step(of)).collect()
    }

    /// Records `w += s·b·a`, in place, each element rounded once, into an open pass.
    ///
    /// # Errors
    /// As [`Wgpu::forward`].
    pub fn merge<'a>(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        of: Merge<Slice<'a>, Slice<'a>>,
    ) -> Result<()> {
        self.onto(pass, of, Operation::Merge).map_err(Error::of("merge"))
    }

    /// Records `w -= s·b·a`, in place: [`Wgpu::merge`] taken back, but for rounding.
    ///
    /// # Errors
    /// As [`Wgpu::forward`].
    pub fn unmerge<'a>(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        of: Merge<Slice<'a>, Slice<'a>>,
    ) -> Result<()> {
        self.onto(pass, of, Operation::Unmerge).map_err(Error::of("unmerge"))
    }

    fn onto(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        mut of: Merge<Slice<'_>, Slice<'_>>,
        operation: Operation,
    ) -> Result<()> {
        let compose = of.take_compose()?;
        let operands = Operands::from(of).of_operation(operation);
        match compose {
            None => self.step(operands)?.encode(pass),
            Some(compose) => self.composed(pass, Sequence::Composed(compose, operands)),
        }
    }

    /// Records `gain = magnitude / ‖w + s·b·a‖`, row by row, into an open pass. See [`Norm`] for operands.
    ///
    /// # Errors
    /// As [`Wgpu::forward`].
    pub fn norm<'a>(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        of: Norm<Slice<'a>, Slice<'a>>,
    ) -> Result<()> {
        self.gain(pass, of).map_err(Error::of("norm"))
    }

    fn gain(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        mut of: Norm<Slice<'_>, Slice<'_>>,
    ) -> Result<()> {
        match of.take_compose()? {
            None => self.step(of.into())?.encode(pass),
            Some(compose) => self.composed(pass, Sequence::Composed(compose, of.into())),
        }
    }

    /// Records `scaled_dy = gain∘dy` and `dmagnitude` into an open pass. See [`BackwardGain`] for operands.
    ///
    /// # Errors
    /// As [`Wgpu::forward`].
    pub fn backward_gain<'a>(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        of: BackwardGain<Slice<'a>, Slice<'a>>,
    ) -> Result<()> {
        let step = self.step(of.into()).and_then(|step| step.encode(pass));
        step.map_err(Error::of("backward_gain"))
    }

    fn step(&self, operands: Operands<Slice<'_>, Slice<'_>>) -> Result<Prepared> {
        let plan = self.plan(&operands.problem()?)?;
        self.prepare_kept(&plan, operands)
    }

    /// [`Wgpu::prepare`] with a workspace that is kept.
    pub(crate) fn prepare_kept<'a, 'p>(
        &self,
        plan: impl Into<Scaled<'p>>,
        operands: Operands<Slice<'a>, Slice<'a>>,
    ) -> Result<Prepared> {
        let scaled = plan.into();
        let workspace = match scaled.plan().workspace_len() {
            0 => None,
            bytes => Some(self.inner.kept(Use::Workspace, bytes)?),
        };
        let workspace = workspace.as_ref().map_or(Workspace::none(), Workspace::new);
        self.prepare(scaled, operands, workspace)
    }
}

impl Executor for Wgpu {
    type Slice<'a> = Slice<'a>;
    type SliceMut<'a> = Slice<'a>;
    /// With its lifetime forgotten (`forget_lifetime`).
    type Queue<'a> = &'a mut wgpu::ComputePass<'static>;

    fn capabilities(&self) -> Capabilities {
        Wgpu::capabilities(self)
    }
    fn plan(&self, problem: &Problem) -> Result<Arc<Plan>> {
        Wgpu::plan(self, problem)
    }
    fn forward<'a>(&self, pass: Self::Queue<'_>, of: Forward<Slice<'a>, Slice<'a>>) -> Result<()> {
        Wgpu::forward(self, pass, of)
    }
    fn backward<'a>(
        &self,
        pass: Self::Queue<'_>,
        of: Backward<Slice<'a>, Slice<'a>>,
    ) -> Result<()> {
        Wgpu::backward(self, pass, of)
    }
    fn merge<'a>(&self, pass: Self::Queue<'_>, of: Merge<Slice<'a>, Slice<'a>>) -> Result<()> {
        Wgpu::merge(self, pass, of)
    }
    fn unmerge<'a>(&self, pass: Self::Queue<'_>, of: Merge<Slice<'a>, Slice<'a>>) -> Result<()> {
        Wgpu::unmerge(self, pass, of)
    }
    fn norm<'a>(&self, pass: Self::Queue<'_>, of: Norm<Slice<'a>, Slice<'a>>) -> Result<()> {
        Wgpu::norm(self, pass, of)
    }
    fn backward_gain<'a>(
        &self,
        pass: Self::Queue<'_>,
        of: BackwardGain<Slice<'a>, Slice<'a>>,
    ) -> Result<()> {
        Wgpu::backward_gain(self, pass, of)
    }
}

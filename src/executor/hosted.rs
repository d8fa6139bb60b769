//! The executor of a host that launches kernels itself, as tensor libraries with a compiler, memory and a stream
//! of their own do: it brings two functions, and gets operands in, done. Plans are kept here, everything is
//! checked here, and a backward pass is taken apart here. Knows no device type; for WGSL.

use core::fmt;
use core::marker::PhantomData;
use core::ops::Range;
use std::sync::Arc;

use super::{Executor, Plans};
use crate::operands::{BETWEEN, MOST_STEPS, Sequence};
use crate::{
    Access, Backward, BackwardGain, BoundBinding, Buffer, Capabilities, DType, Error, Forward,
    Launch, Matrix, Merge, Norm, Operand, Operands, Operation, Plan, Problem, Result,
    WgpuCapabilities,
};

/// A host that launches kernels itself. [`Hosted`] is the executor over it.
pub trait Host {
    /// A part of the host's memory. Clones are handles to the same bytes.
    type Memory: Buffer + Clone;

    /// Memory for `len` elements, which hold anything. It begins at a multiple of
    /// [`WgpuCapabilities::binding_align`].
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    fn memory(&self, dtype: DType, len: usize) -> Result<Self::Memory>;

    /// Launches a kernel behind all that was launched before: `launch.source` on `launch.grid`. Bind group 0 has
    /// `bindings` in their order, then `params`: a uniform buffer, or with
    /// [`WgpuCapabilities::storage_params`] a storage buffer.
    ///
    /// # Errors
    /// What the device says; the launches before may have run then.
    fn launch(
        &self,
        launch: &Launch,
        params: &[u8],
        bindings: &[HostBinding<'_, Self::Memory>],
    ) -> Result<()>;
}

/// What a host binds: some bytes of a memory.
#[derive(Debug)]
#[non_exhaustive]
pub struct HostBinding<'a, M> {
    /// The operand's, or the workspace's.
    pub memory: &'a M,
    /// From a multiple of [`WgpuCapabilities::binding_align`] to whole words, 16 bytes at least; counted as
    /// [`Place::byte`](crate::Place::byte) of the memory is. What lies behind the end of its allocation is left out.
    pub bytes: Range<u64>,
    /// Whether the kernel declares it `storage, read_write`, else `storage, read`.
    pub read_write: bool,
}

/// The executor of a host that launches kernels itself. Its queue is the host.
///
/// ```
/// use fused_lora::{
///     Buffer, DType, Executor, Forward, Host, HostBinding, Hosted, Launch, Matrix, Place, Result,
///     WgpuCapabilities,
/// };
///
/// /// A handle of the host's to f32 elements.
/// #[derive(Clone)]
/// struct Handle {
///     number: u64,
///     len: usize,
/// }
/// impl Buffer for Handle {
///     fn dtype(&self) -> DType {
///         DType::F32
///     }
///     fn len(&self) -> usize {
///         self.len
///     }
///     fn place(&self) -> Place {
///         Place { allocation: self.number, byte: 0 }
///     }
/// }
///
/// struct Library;
/// impl Host for Library {
///     type Memory = Handle;
///     fn memory(&self, dtype: DType, len: usize) -> Result<Handle> {
///         Ok(Handle { number: 99, len })
///     }
///     fn launch(&self, launch: &Launch, params: &[u8], bindings: &[HostBinding<Handle>]) -> Result<()> {
///         let source = launch.source.as_ref().expect("WGSL");
///         assert!(source.text.contains(source.entry));
///         // Compile source.text, bind `bindings` and `params`, dispatch launch.grid.
///         Ok(())
///     }
/// }
///
/// let executor = Hosted::new(WgpuCapabilities::default());
/// let matrix = |number, rows, cols| Matrix::new(Handle { number, len: rows * cols }, rows, cols);
/// let forward = Forward::new(matrix(0, 8, 64), matrix(1, 32, 64), matrix(2, 8, 32));
/// executor.forward(&Library, forward.adapter(matrix(3, 4, 64), matrix(4, 32, 4)).scale(2.0))?;
/// # Ok::<(), fused_lora::Error>(())
/// ```
pub struct Hosted<H> {
    plans: Plans,
    capabilities: Capabilities,
    host: PhantomData<fn(&H)>,
}

impl<H> fmt::Debug for Hosted<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hosted { plans, capabilities, .. } = self;
        f.debug_struct("Hosted").field("capabilities", capabilities).field("plans", plans).finish()
    }
}

impl<H> Hosted<H> {
    /// For hosts whose device is as `capabilities` say.
    pub fn new(capabilities: WgpuCapabilities) -> Hosted<H> {
        let capabilities = Capabilities::Wgpu(capabilities);
        Hosted { plans: Plans::default(), capabilities, host: PhantomData }
    }
}

/// A plan, and the memory that its launches run on.
struct Step<M> {
    plan: Arc<Plan>,
    scale: f32,
    beta: f32,
    /// Of each operand, with the byte of its first element.
    operands: [Option<(M, u64)>; Operand::COUNT],
    /// 16 bytes at least: what operands without elements are bound to.
    workspace: M,
}

impl<H: Host> Hosted<H> {
    /// Everything that can be refused is, before anything is launched.
    fn step(
        &self,
        host: &H,
        mut operands: Operands<H::Memory, H::Memory>,
    ) -> Result<Option<Step<H::Memory>>> {
        let plan = self.plans.get(&operands.problem()?, &self.capabilities)?;
        let scaled = operands.on(&plan)?;
        let (scale, beta) = (scaled.scale(), scaled.beta());
        let checked = operands.checked(plan.problem().operation(), plan.specs())?;
        if plan.launches().is_empty() {
            return Ok(None);
        }
        let mut parts = [const { None }; Operand::COUNT];
        for (operand, of) in checked.iter() {
            let matrix = match of.spec.access {
                Access::Read => operands.take_read(operand)?,
                Access::Write | Access::Update => operands.take_written(operand)?,
            };
            parts[operand as usize] = Some((matrix.buffer, of.address));
        }
        let workspace = host.memory(DType::F32, plan.workspace_len().div_ceil(4).max(4))?;
        Ok(Some(Step { plan, scale, beta, operands: parts, workspace }))
    }

    fn run(&self, host: &H, operands: Operands<H::Memory, H::Memory>) -> Result<()> {
        self.step(host, operands)?.map_or(Ok(()), |step| step.launch(host))
    }

    /// All operations of a call, each ready to be launched.
    fn steps(
        &self,
        host: &H,
        sequence: Sequence<H::Memory>,
    ) -> Result<[Option<Step<H::Memory>>; MOST_STEPS]> {
        let mut memory = [const { None }; BETWEEN];
        for (place, wanted) in memory.iter_mut().zip(sequence.between()) {
            let Some(([rows, cols], dtype)) = wanted else { continue };
            let bytes = rows.checked_mul(cols).and_then(|len| len.checked_mul(dtype.size()));
            bytes.ok_or(Error::OutOfMemory { bytes: usize::MAX })?;
            *place = Some(Matrix::new(host.memory(dtype, rows * cols)?, rows, cols));
        }
        let mut steps = [const { None }; MOST_STEPS];
        for (step, operands) in steps.iter_mut().zip(sequence.with(memory)) {
            if let Some(operands) = operands {
                *step = self.step(host, operands)?;
            }
        }
        Ok(steps)
    }

    fn all(&self, host: &H, sequence: Sequence<H::Memory>) -> Result<()> {
        let steps = self.steps(host, sequence)?;
        steps.iter().flatten().try_for_each(|step| step.launch(host))
    }

    fn onto(
        &self,
        host: &H,
        mut of: Merge<H::Memory, H::Memory>,
        operation: Operation,
    ) -> Result<()> {
        let compose = of.take_compose()?;
        let operands = Operands::from(of).of_operation(operation);
        match compose {
            None => self.run(host, operands),
            Some(compose) => self.all(host, Sequence::Composed(compose, operands)),
        }
    }

    fn gain(&self, host: &H, mut of: Norm<H::Memory, H::Memory>) -> Result<()> {
        match of.take_compose()? {
            None => self.run(host, of.into()),
            Some(compose) => self.all(host, Sequence::Composed(compose, of.into())),
        }
    }

    fn layer(&self, host: &H, mut of: Forward<H::Memory, H::Memory>) -> Result<()> {
        match of.take_compose()? {
            None => self.run(host, of.into()),
            Some(compose) => self.all(host, Sequence::Composed(compose, of.into())),
        }
    }
}

impl<M> Step<M> {
    fn launch<H: Host<Memory = M>>(&self, host: &H) -> Result<()>
    where
        M: Buffer,
    {
        let scaled = self.plan.with_scalars(self.scale, self.beta)?;
        let free = self.workspace.place().byte;
        let begin = |operand: Option<Operand>| match operand {
            Some(operand) => self.operands[operand as usize].as_ref().map_or(0, |(_, at)| *at),
            None => free,
        };
        let memory = |of: &BoundBinding| match of.operand {
            None => Ok((&self.workspace, of.bytes.clone())),
            // Without elements: bytes that nobody looks at.
            Some(_) if of.bytes.is_empty() => Ok((&self.workspace, free..free + 16)),
            Some(operand) => match &self.operands[operand as usize] {
                Some((memory, _)) => Ok((memory, of.bytes.clone())),
                None => Err(Error::Missing { operand }),
            },
        };
        let (mut params, mut bound) = (Vec::new(), Vec::new());
        for launch in self.plan.launches() {
            scaled.bind(launch, begin, &mut params, &mut bound);
            let bindings = bound.iter().map(|of| {
                let (memory, bytes) = memory(of)?;
                Ok(HostBinding { memory, bytes, read_write: of.read_write })
            });
            let bindings = bindings.collect::<Result<Vec<_>>>()?;
            host.launch(launch, &params, &bindings)?;
        }
        Ok(())
    }
}

impl<H: Host + 'static> Executor for Hosted<H> {
    type Slice<'a> = H::Memory;
    type SliceMut<'a> = H::Memory;
    type Queue<'a> = &'a H;

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn plan(&self, problem: &Problem) -> Result<Arc<Plan>> {
        self.plans.get(problem, &self.capabilities)
    }

    fn forward<'a>(&self, host: &H, of: Forward<H::Memory, H::Memory>) -> Result<()> {
        self.layer(host, of).map_err(Error::of("forward"))
    }

    fn backward<'a>(&self, host: &H, of: Backward<H::Memory, H::Memory>) -> Result<()> {
        let all = of.steps().and_then(|steps| self.all(host, Sequence::Pass(steps)));
        all.map_err(Error::of("backward"))
    }

    fn merge<'a>(&self, host: &H, of: Merge<H::Memory, H::Memory>) -> Result<()> {
        self.onto(host, of, Operation::Merge).map_err(Error::of("merge"))
    }

    fn unmerge<'a>(&self, host: &H, of: Merge<H::Memory, H::Memory>) -> Result<()> {
        self.onto(host, of, Operation::Unmerge).map_err(Error::of("unmerge"))
    }

    fn norm<'a>(&self, host: &H, of: Norm<H::Memory, H::Memory>) -> Result<()> {
        self.gain(host, of).map_err(Error::of("norm"))
    }

    fn backward_gain<'a>(&self, host: &H, of: BackwardGain<H::Memory, H::Memory>) -> Result<()> {
        self.run(host, of.into()).map_err(Error::of("backward_gain"))
    }
}

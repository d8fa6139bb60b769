//! One run of a plan: every check that needs no driver, then the launches, each with the
//! addresses of its bindings written into its parameter block. Called by both tiers.

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr;

use cudarc::driver::sys::{self, CUstream};
use cudarc::driver::{CudaContext, result};

use super::workspace::WORKSPACE_ALIGN;
use super::{Inner, RawWorkspace, fault};
use crate::operands::Checked;
use crate::problem::ALIGN;
use crate::{Binding, Buffer, Error, Launch, Operands, Plan, Result, Scaled};

/// Words of eight bytes that CUDA passes to a kernel at most: blocks are made of them, and
/// addresses lie on them.
const MOST_WORDS: usize = 4096 / 8;

/// A launch's parameter block with its addresses in place. Behind it nothing is written.
struct Params([MaybeUninit<u64>; MOST_WORDS]);

impl Params {
    fn empty() -> Params {
        Params([const { MaybeUninit::uninit() }; MOST_WORDS])
    }

    /// In place: moved, all of it would be copied.
    fn fill(&mut self, launch: &Launch, plan: Scaled<'_>, addresses: &Addresses<'_>) -> Result<()> {
        let rejected = |reason| Error::Rejected { what: launch.kernel.to_owned(), reason };
        let (words, rest) = launch.params.as_chunks::<8>();
        let Some(params) = self.0.get_mut(..words.len()).filter(|_| rest.is_empty()) else {
            return Err(rejected(format!("{} bytes of parameters", launch.params.len())));
        };
        for (to, from) in params.iter_mut().zip(words) {
            to.write(u64::from_ne_bytes(*from));
        }
        let numbers = plan.numbers(launch);
        for (at, _) in numbers.into_iter().flatten() {
            // Both may lie in one word.
            let Some(mut word) = words.get(at / 8).copied() else {
                return Err(rejected("a number without a place in the parameters".to_owned()));
            };
            for (other, number) in numbers.into_iter().flatten().filter(|of| of.0 / 8 == at / 8) {
                word[other % 8..][..4].copy_from_slice(&number);
            }
            params[at / 8].write(u64::from_ne_bytes(word));
        }
        for binding in &launch.bindings {
            // A plan for CUDA binds whole operands, each by its address.
            let at = binding.at.filter(|at| at.is_multiple_of(8));
            let place = at.and_then(|at| params.get_mut(at as usize / 8));
            let Some((place, address)) = place.zip(addresses.of(binding)) else {
                return Err(rejected("a binding without a place in the parameters".to_owned()));
            };
            place.write(address.to_le());
        }
        Ok(())
    }
}

/// Where each operand lies, and the workspace.
pub(super) struct Addresses<'a> {
    operands: Checked<'a>,
    workspace: u64,
}

impl Addresses<'_> {
    /// What a binding is bound to; the workspace where it names no operand.
    fn of(&self, binding: &Binding) -> Option<u64> {
        match binding.operand {
            Some(operand) => self.operands.get(operand).map(|of| of.address),
            None => Some(self.workspace),
        }
    }
}

/// Checks operands and workspace against `plan`; where they are.
pub(super) fn check<'a, I: Buffer, O: Buffer>(
    plan: &'a Plan,
    operands: &Operands<I, O>,
    workspace: RawWorkspace,
) -> Result<Addresses<'a>> {
    let operands = operands.checked(plan.problem().operation(), plan.specs())?;
    let expected = plan.workspace_len();
    let RawWorkspace { address, len } = workspace;
    if len < expected {
        return Err(Error::WorkspaceTooSmall { expected, got: len });
    }
    if expected > 0 && !address.is_multiple_of(WORKSPACE_ALIGN as u64) {
        return Err(Error::WorkspaceMisaligned { expected: WORKSPACE_ALIGN, got: address });
    }
    for (operand, of) in operands.iter() {
        let (start, bytes) = (of.address, of.bytes);
        if bytes == 0 {
            continue;
        }
        let align = if of.spec.align == 0 { ALIGN } else { of.spec.dtype.size() };
        if !start.is_multiple_of(align as u64) {
            return Err(Error::Misaligned { operand, expected: align, got: start });
        }
        let ends = |start: u64, bytes: u64| start.saturating_add(bytes);
        if start < ends(address, expected as u64) && address < ends(start, bytes) && expected > 0 {
            return Err(Error::WorkspaceOverlap { operand });
        }
    }
    Ok(Addresses { operands, workspace: address })
}

impl Inner {
    /// Launches `plan`, whose kernels are loaded. The context is current.
    pub(super) fn launch(
        &self,
        stream: CUstream,
        plan: Scaled<'_>,
        addresses: &Addresses<'_>,
    ) -> Result<()> {
        let mut launches = plan.plan().launches().iter();
        launches.try_for_each(|launch| self.launch_one(stream, launch, plan, addresses))
    }

    fn launch_one(
        &self,
        stream: CUstream,
        launch: &Launch,
        plan: Scaled<'_>,
        addresses: &Addresses<'_>,
    ) -> Result<()> {
        let function = self.kernels.get(launch)?;
        let mut block = Params::empty();
        block.fill(launch, plan, addresses)?;
        let ([grid_x, grid_y, grid_z], [x, y, z]) = (launch.grid, launch.block);
        let mut entries = [block.0.as_mut_ptr().cast::<c_void>()];
        // Not `cuLaunchKernelEx`: it says nothing more where a launch has no attributes, drivers
        // before CUDA 11.8 lack it, and cudarc panics on a symbol that is not there. Clusters will
        // need it.
        // SAFETY: the function is loaded and its context current. The kernel takes one parameter,
        // the block, which the driver copies before it returns; it reads as many bytes of it as
        // it declares, and so many the plan's block has, all written by `Params::fill`. Grid, block
        // and shared memory are the plan's. That the addresses are good for as long as the kernel
        // runs is what `run`'s guards and `run_raw`'s contract say.
        let code = unsafe {
            sys::cuLaunchKernel(
                function,
                grid_x,
                grid_y,
                grid_z,
                x,
                y,
                z,
                launch.shared_bytes,
                stream,
                entries.as_mut_ptr(),
                ptr::null_mut(),
            )
        };
        code.result().map_err(|error| fault::of_kernel(launch.kernel, error, ""))
    }
}

/// Makes a context current for a while, and leaves the thread as it was: the caller of the raw
/// tier may use another library that relies on it.
pub(super) struct Current {
    pushed: bool,
}

impl Current {
    pub(super) fn enter(context: &CudaContext) -> Result<Current> {
        let failed = |error| fault::of("context", error);
        if result::ctx::get_current().map_err(failed)? == Some(context.cu_ctx()) {
            return Ok(Current { pushed: false });
        }
        // SAFETY: the context lives as long as the executor that holds it.
        unsafe { sys::cuCtxPushCurrent_v2(context.cu_ctx()) }.result().map_err(failed)?;
        Ok(Current { pushed: true })
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        if self.pushed {
            let mut popped = ptr::null_mut();
            // SAFETY: it takes off what `enter` put there; an error leaves nothing to be done.
            let _ = unsafe { sys::cuCtxPopCurrent_v2(&mut popped) };
        }
    }
}

//! What calls of both tiers share: the memory that is kept for a stream, and the launches of a call, all of
//! which are checked before the first one goes. Called by `call` and `call_raw`.

use std::sync::Arc;

use cudarc::driver::sys::CUstream;

use super::launch::{self, Addresses};
use super::memory::RawMemory;
use super::{Cuda, Raw, RawWorkspace, WORKSPACE_ALIGN, Workspace};
use crate::executor::Pool;
use crate::operands::Steps;
use crate::{Backward, Error, Operands, Plan, Result};

/// Memory of the streams that were met.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) safe: Pool<Memory<Workspace>>,
    pub(super) raw: Pool<Memory<RawMemory>>,
}

/// What calls on one stream share.
#[derive(Debug)]
pub(super) struct Memory<W> {
    /// Of the plans.
    pub(super) workspace: W,
    /// What goes from one step of a backward pass to the next.
    pub(super) between: W,
}

impl Memory<Workspace> {
    /// Whether nobody else has the stream any more that it was used on.
    pub(super) fn is_orphaned(&self) -> bool {
        let stream = self.workspace.last();
        let own = self.workspace.holds(stream) + self.between.holds(stream);
        Arc::strong_count(stream) == own
    }
}

/// One launch sequence of a call.
pub(super) struct Step {
    pub(super) plan: Arc<Plan>,
    operands: Operands<Raw, Raw>,
}

impl Step {
    pub(super) fn new(cuda: &Cuda, operands: Operands<Raw, Raw>) -> Result<Step> {
        Ok(Step { plan: cuda.plan(&operands.problem()?)?, operands })
    }

    fn check(&self, workspace: RawWorkspace) -> Result<Addresses<'_>> {
        launch::check(&self.plan, &self.operands, workspace)
    }
}

/// The steps of a backward pass over addresses, given those of what goes from one to the next.
pub(super) struct Pass {
    steps: Steps<Raw, Raw>,
    /// Bytes of each of the two matrices that go on.
    each: usize,
}

impl Pass {
    pub(super) fn new(of: Backward<Raw, Raw>) -> Result<Pass> {
        let steps = of.steps()?;
        let bytes = steps.temporaries.len()?.saturating_mul(steps.temporaries.dtype.size());
        let each = bytes.checked_next_multiple_of(WORKSPACE_ALIGN);
        Ok(Pass { each: each.ok_or(Error::OutOfMemory { bytes })?, steps })
    }

    pub(super) fn bytes(&self) -> usize {
        let temporaries = &self.steps.temporaries;
        match temporaries.shrunk || temporaries.dshrunk {
            true => self.each.saturating_mul(2),
            false => 0,
        }
    }

    /// Everything that can be refused is refused here, before the first launch.
    pub(super) fn planned(self, cuda: &Cuda, between: u64) -> Result<[Option<Step>; 3]> {
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
pub(super) fn workspace_len(steps: &[Option<Step>]) -> usize {
    steps.iter().flatten().map(|step| step.plan.workspace_len()).max().unwrap_or(0)
}

impl Cuda {
    /// Launches `steps`, after all that could be refused was.
    pub(super) fn launch_all(
        &self,
        stream: CUstream,
        steps: &[Option<Step>; 3],
        workspace: RawWorkspace,
    ) -> Result<()> {
        let inner = &*self.inner;
        // A call has three steps at most.
        let mut ready = [const { None }; 3];
        for (place, step) in ready.iter_mut().zip(steps.iter().flatten()) {
            *place = Some((step.operands.on(&step.plan)?, step.check(workspace)?));
            inner.load(&step.plan)?;
        }
        for (scaled, addresses) in ready.iter().flatten() {
            inner.launch(stream, *scaled, addresses)?;
        }
        Ok(())
    }
}

/// What a graph replays may not be handed to other launches meanwhile.
pub(super) fn check_not_captured(captured: bool) -> Result<()> {
    if captured {
        let reason = "a graph needs a workspace of its own for as long as it lives: plan, and capture \
                      Cuda::run or Cuda::run_raw with one";
        return Err(Error::Capture { reason: reason.to_owned() });
    }
    Ok(())
}

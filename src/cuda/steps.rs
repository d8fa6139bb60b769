//! What calls of both tiers share: the memory that is kept for a stream, and the launches of a call, all of
//! which are checked before the first one goes. Called by `call` and `call_raw`.

use std::sync::Arc;

use cudarc::driver::sys::CUstream;

use super::launch::{self, Addresses};
use super::memory::RawMemory;
use super::{Cuda, Raw, RawWorkspace, WORKSPACE_ALIGN, Workspace};
use crate::executor::Pool;
use crate::operands::{BETWEEN, Between, MOST_STEPS, Sequence};
use crate::{DType, Error, Matrix, Operands, Plan, Result};

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
    /// What goes from one operation of a call to the next.
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

/// The operations of a call over addresses, given those of what goes from one to the next.
pub(super) struct Planned {
    sequence: Sequence<Raw>,
    /// Where each of those matrices begins, its shape and its type.
    places: Between<(usize, [usize; 2], DType)>,
    bytes: usize,
}

impl Planned {
    pub(super) fn new(sequence: Sequence<Raw>) -> Result<Planned> {
        let mut bytes = 0usize;
        let mut places = [None; BETWEEN];
        for (place, of) in places.iter_mut().zip(sequence.between()) {
            let Some((shape @ [rows, cols], dtype)) = of else { continue };
            let begin = bytes;
            let len = rows.checked_mul(cols).and_then(|len| len.checked_mul(dtype.size()));
            let end = len
                .and_then(|len| begin.checked_add(len)?.checked_next_multiple_of(WORKSPACE_ALIGN));
            bytes = end.ok_or(Error::OutOfMemory { bytes: usize::MAX })?;
            *place = Some((begin, shape, dtype));
        }
        Ok(Planned { sequence, places, bytes })
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Everything that can be refused is refused here, before the first launch.
    pub(super) fn steps(self, cuda: &Cuda, between: u64) -> Result<AllSteps> {
        let matrix = |(begin, [rows, cols], dtype): (usize, [usize; 2], DType)| {
            Matrix::new(Raw::new(between + begin as u64, rows * cols, dtype), rows, cols)
        };
        let mut steps = [const { None }; MOST_STEPS];
        let operands = self.sequence.with(self.places.map(|of| of.map(matrix)));
        for (step, operands) in steps.iter_mut().zip(operands) {
            *step = operands.map(|of| Step::new(cuda, of)).transpose()?;
        }
        Ok(steps)
    }
}

/// Those of a call, in order.
pub(super) type AllSteps = [Option<Step>; MOST_STEPS];

/// The longest workspace that the steps ask for.
pub(super) fn workspace_len(steps: &[Option<Step>]) -> usize {
    steps.iter().flatten().map(|step| step.plan.workspace_len()).max().unwrap_or(0)
}

impl Cuda {
    /// Launches `steps`, after all that could be refused was.
    pub(super) fn launch_all(
        &self,
        stream: CUstream,
        steps: &AllSteps,
        workspace: RawWorkspace,
    ) -> Result<()> {
        let inner = &*self.inner;
        let mut ready = [const { None }; MOST_STEPS];
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

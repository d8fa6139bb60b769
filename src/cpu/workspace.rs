//! Scratch memory of the CPU executor: one part that all workers have together, one for each.

use core::marker::PhantomData;
use core::sync::atomic::AtomicU32;

use half::{bf16, f16};

use super::SliceMut;
use crate::plan::cpu::Schedule;
use crate::{DType, Error, Plan, Result};

/// A cache line, so that scratch begins on one.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

// SAFETY: all of its 64 bytes are those of an array of floats, and zero is a float.
unsafe impl bytemuck::Zeroable for Line {}
// SAFETY: as above; every pattern of bits is a float.
unsafe impl bytemuck::Pod for Line {}

/// Scratch memory for [`Cpu::run`](super::Cpu::run). One serves any number of plans, one
/// run at a time; what it holds between runs means nothing.
#[derive(Debug, Default)]
pub struct Workspace {
    lines: Vec<Line>,
}

impl Workspace {
    /// Of at least `bytes`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(bytes: usize) -> Result<Workspace> {
        let mut workspace = Workspace::default();
        workspace.grow(bytes)?;
        Ok(workspace)
    }

    /// Of the size that `plan` asks for.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn for_plan(plan: &Plan) -> Result<Workspace> {
        Workspace::new(plan.workspace_len())
    }

    /// Makes it at least `bytes` long.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; it keeps its old size then.
    pub fn grow(&mut self, bytes: usize) -> Result<()> {
        let lines = bytes.div_ceil(size_of::<Line>());
        let more = lines.saturating_sub(self.lines.len());
        self.lines.try_reserve_exact(more).map_err(|_| Error::OutOfMemory { bytes })?;
        if more > 0 {
            self.lines.resize(lines, Line([0.0; 16]));
        }
        Ok(())
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.lines.len() * size_of::<Line>()
    }

    /// Whether it has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Fills it with `value`: for tests that show that its contents do not matter.
    pub fn fill(&mut self, value: f32) {
        self.lines.fill(Line([value; 16]));
    }

    /// `count` times `len` elements of `dtype`, which hold anything, each from a cache line on.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(super) fn elements(
        &mut self,
        dtype: DType,
        len: usize,
        count: usize,
    ) -> Result<impl Iterator<Item = SliceMut<'_>>> {
        // At least one, so that there are as many chunks as are asked for.
        let lines = len.saturating_mul(dtype.size()).div_ceil(size_of::<Line>()).max(1);
        let bytes = lines.checked_mul(count).and_then(|of| of.checked_mul(size_of::<Line>()));
        self.grow(bytes.ok_or(Error::OutOfMemory { bytes: usize::MAX })?)?;
        Ok(self.lines.chunks_mut(lines).take(count).map(move |lines| match dtype {
            DType::F32 => SliceMut::from(&mut bytemuck::cast_slice_mut::<_, f32>(lines)[..len]),
            DType::F16 => SliceMut::from(&mut bytemuck::cast_slice_mut::<_, f16>(lines)[..len]),
            DType::Bf16 => SliceMut::from(&mut bytemuck::cast_slice_mut::<_, bf16>(lines)[..len]),
        }))
    }

    pub(super) fn split(&mut self, expected: usize, schedule: &Schedule) -> Result<Scratch<'_>> {
        let got = self.len();
        // What is cut below, by its own numbers: soundness does not rest on another's sum.
        let cut = schedule.workers.saturating_mul(schedule.worker_scratch);
        let cut = cut.saturating_add(schedule.common_scratch);
        let expected = expected.max(cut.saturating_mul(size_of::<f32>()));
        if got < expected {
            return Err(Error::WorkspaceTooSmall { expected, got });
        }
        Ok(Scratch {
            start: self.lines.as_mut_ptr().cast(),
            common: schedule.common_scratch,
            each: schedule.worker_scratch,
            workers: schedule.workers,
            lines: PhantomData,
        })
    }
}

/// A workspace cut up for one run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scratch<'a> {
    start: *mut f32,
    common: usize,
    each: usize,
    workers: usize,
    lines: PhantomData<&'a mut [Line]>,
}

// SAFETY: the pointer stands for an exclusive borrow of the lines for 'a; who may touch
// which part of them is the contract of the unsafe methods below.
unsafe impl Send for Scratch<'_> {}
// SAFETY: as above.
unsafe impl Sync for Scratch<'_> {}

impl<'a> Scratch<'a> {
    /// The part of one worker.
    ///
    /// # Safety
    /// At most one slice per worker may be alive at a time.
    pub(super) unsafe fn of_worker(&self, worker: usize) -> &'a mut [f32] {
        assert!(worker < self.workers, "a worker without scratch");
        // SAFETY: `split` checked that common + workers · each elements are there; parts of
        // different workers are disjoint, and the caller keeps to one slice per worker.
        unsafe {
            let start = self.start.add(self.common + worker * self.each);
            core::slice::from_raw_parts_mut(start, self.each)
        }
    }

    /// The start of `len` elements of the common part, `offset` elements into it.
    pub(super) fn common(&self, offset: usize, len: usize) -> *mut f32 {
        assert!(offset + len <= self.common, "common scratch exceeded");
        // SAFETY: `split` checked that the common elements are there.
        unsafe { self.start.add(offset) }
    }

    /// The same without the first `len` elements of the common part.
    pub(super) fn behind(self, len: usize) -> Scratch<'a> {
        let start = self.common(0, len);
        // SAFETY: `common` checked that `len` elements are there.
        Scratch { start: unsafe { start.add(len) }, common: self.common - len, ..self }
    }

    /// The last `len` elements of the common part.
    pub(super) fn tail(&self, len: usize) -> *mut f32 {
        assert!(len <= self.common, "common scratch exceeded");
        self.common(self.common - len, len)
    }

    /// `len` counters in the common part, set to zero.
    ///
    /// # Safety
    /// Nothing else may use these elements while the counters live.
    pub(super) unsafe fn counters(&self, offset: usize, len: usize) -> &'a [AtomicU32] {
        let start = self.common(offset, len);
        // SAFETY: f32 and AtomicU32 have one size and one alignment, every bit pattern is
        // valid for both, `common` checked the bounds, and the caller keeps others out.
        unsafe {
            start.write_bytes(0, len);
            core::slice::from_raw_parts(start.cast::<AtomicU32>(), len)
        }
    }
}

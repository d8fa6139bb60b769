//! The workspace of the safe tier: memory whose header was zeroed once, and the event after
//! which another stream may use it.

use std::sync::Arc;
use std::thread::{self, ThreadId};

use cudarc::driver::sys::CUdeviceptr;
use cudarc::driver::{CudaContext, CudaEvent, CudaSlice, CudaStream, DevicePtr};

use super::{fault, is_per_thread};
use crate::plan::cuda::HEADER;
use crate::{Error, Plan, Result};

/// Bytes at the start of a workspace that must be zero before its first use, and that nobody
/// but the kernels touches from then on.
pub const WORKSPACE_HEADER: usize = HEADER;

/// Bytes of which a workspace's address is a multiple.
pub const WORKSPACE_ALIGN: usize = 256;

/// Memory for [`Cuda::run`](super::Cuda::run). One serves any number of plans and streams, one
/// run at a time: a run on another stream than the last one waits, on the device, for that one.
///
/// Runs that shall overlap need a workspace each.
#[derive(Debug)]
pub struct Workspace {
    memory: Option<CudaSlice<u8>>,
    raw: RawWorkspace,
    /// Recorded behind the last run.
    event: CudaEvent,
    last: Stream,
}

/// A stream, told apart from all others. In per-thread mode one handle is another stream on
/// each host thread. The `Arc` keeps the handle from being given to a new stream.
#[derive(Debug)]
struct Stream {
    stream: Arc<CudaStream>,
    thread: Option<ThreadId>,
}

impl Stream {
    fn new(stream: &Arc<CudaStream>) -> Stream {
        Stream { stream: stream.clone(), thread: thread_of(stream) }
    }

    fn is(&self, stream: &Arc<CudaStream>) -> bool {
        *self.stream == **stream && self.thread == thread_of(stream)
    }
}

fn thread_of(stream: &CudaStream) -> Option<ThreadId> {
    is_per_thread(stream.cu_stream()).then(|| thread::current().id())
}

/// A workspace of the raw tier: memory on the device that the caller owns. It serves one launch at a time
/// ([`Cuda::run_raw`](super::Cuda::run_raw)); shared by two it gives wrong results and no error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawWorkspace {
    /// A multiple of [`WORKSPACE_ALIGN`].
    pub address: CUdeviceptr,
    /// Bytes, [`WORKSPACE_HEADER`] included.
    pub len: usize,
}

impl RawWorkspace {
    /// For plans that need none.
    pub const NONE: RawWorkspace = RawWorkspace { address: 0, len: 0 };
}

impl Workspace {
    /// Of at least `bytes`, made on `stream`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], and what else the driver says.
    pub fn new(stream: &Arc<CudaStream>, bytes: usize) -> Result<Workspace> {
        let failed = |error| fault::of_alloc(bytes, error);
        let (memory, raw) = match bytes {
            0 => (None, RawWorkspace::NONE),
            _ => {
                // cudarc multiplies without a check, and the driver takes what fits.
                let len = bytes.max(HEADER).checked_next_multiple_of(WORKSPACE_ALIGN);
                let len = len.ok_or(Error::OutOfMemory { bytes })?;
                // SAFETY: the kernels write scratch before they read it; the header is zeroed
                // below.
                let mut memory = unsafe { stream.alloc::<u8>(len) }.map_err(failed)?;
                stream.memset_zeros(&mut memory.slice_mut(0..HEADER)).map_err(failed)?;
                let (address, guard) = memory.device_ptr(stream);
                // Nothing is read, so nothing is to be recorded.
                core::mem::forget(guard);
                (Some(memory), RawWorkspace { address, len })
            }
        };
        let event = stream.record_event(None).map_err(failed)?;
        Ok(Workspace { memory, raw, event, last: Stream::new(stream) })
    }

    /// Of the size that `plan` asks for, made on `stream`.
    ///
    /// # Errors
    /// As [`Workspace::new`].
    pub fn for_plan(stream: &Arc<CudaStream>, plan: &Plan) -> Result<Workspace> {
        Workspace::new(stream, plan.workspace_len())
    }

    /// Makes it at least `bytes` long, on `stream`. What ran on the old memory ends before that
    /// is freed.
    ///
    /// # Errors
    /// As [`Workspace::new`]; it keeps its old size then.
    pub fn grow(&mut self, stream: &Arc<CudaStream>, bytes: usize) -> Result<()> {
        if bytes > self.len() {
            *self = Workspace::new(stream, bytes)?;
        }
        Ok(())
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.raw.len
    }

    /// Whether it has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its memory, for the raw tier. Who uses it there orders those launches and the runs on
    /// this workspace himself.
    pub fn raw(&self) -> RawWorkspace {
        self.raw
    }

    pub(super) fn context(&self) -> &CudaContext {
        self.event.context()
    }

    /// Whether the last run on it was on `stream`.
    pub(super) fn is_of(&self, stream: &Arc<CudaStream>) -> bool {
        self.last.is(stream)
    }

    /// The stream of the last run.
    pub(super) fn last(&self) -> &Arc<CudaStream> {
        &self.last.stream
    }

    /// How many handles of `stream` are kept in here.
    pub(super) fn holds(&self, stream: &Arc<CudaStream>) -> usize {
        let memory = self.memory.as_ref().map(CudaSlice::stream);
        memory.into_iter().chain([self.last()]).filter(|of| Arc::ptr_eq(of, stream)).count()
    }

    /// Makes `stream` come after the last run.
    pub(super) fn enter(&self, stream: &Arc<CudaStream>) -> Result<()> {
        if self.memory.is_some() && !self.last.is(stream) {
            stream.wait(&self.event).map_err(|error| fault::of("event", error))?;
        }
        Ok(())
    }

    /// Notes that `stream` has used it.
    pub(super) fn leave(&mut self, stream: &Arc<CudaStream>) -> Result<()> {
        if self.memory.is_some() {
            if !self.last.is(stream) {
                self.last = Stream::new(stream);
            }
            self.event.record(stream).map_err(|error| fault::of("event", error))?;
        }
        Ok(())
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if let Some(memory) = &self.memory {
            // The memory is freed in the order of this stream. An error shows in cudarc's next
            // call.
            let stream = memory.stream();
            stream.context().record_err(stream.wait(&self.event));
        }
    }
}

//! Device memory of the raw tier's calls, kept for a stream that is known by its handle alone. Called by
//! `call`.

use std::sync::Arc;
use std::thread::{self, ThreadId};

use cudarc::driver::sys::{CUdeviceptr, CUstream};
use cudarc::driver::{CudaContext, result};

use super::workspace::WORKSPACE_ALIGN;
use super::{RawWorkspace, fault, is_per_thread};
use crate::plan::cuda::HEADER;
use crate::{Error, Result};

/// Memory that work on one stream uses, one launch behind the other.
#[derive(Debug)]
pub(super) struct RawMemory {
    /// In per-thread mode a handle is another stream on each host thread.
    stream: (usize, Option<ThreadId>),
    workspace: RawWorkspace,
    /// What was outgrown, and may still be in use on the device.
    outgrown: Vec<CUdeviceptr>,
    context: Arc<CudaContext>,
}

fn key(stream: CUstream) -> (usize, Option<ThreadId>) {
    (stream.addr(), is_per_thread(stream).then(|| thread::current().id()))
}

impl RawMemory {
    /// Of no bytes yet.
    pub(super) fn new(context: &Arc<CudaContext>, stream: CUstream) -> RawMemory {
        let context = context.clone();
        let (workspace, outgrown) = (RawWorkspace::NONE, Vec::new());
        RawMemory { stream: key(stream), workspace, outgrown, context }
    }

    pub(super) fn is_of(&self, stream: CUstream) -> bool {
        self.stream == key(stream)
    }

    pub(super) fn workspace(&self) -> RawWorkspace {
        self.workspace
    }

    /// Makes it at least `bytes` long, its header zeroed on `stream`, whose context is current.
    pub(super) fn grow(&mut self, stream: CUstream, bytes: usize) -> Result<()> {
        let RawWorkspace { address: outgrown, len } = self.workspace;
        if bytes <= len {
            return Ok(());
        }
        // Twice as long each time, so that what is outgrown is never more than what is used.
        let bytes = bytes.max(len.saturating_mul(2)).max(HEADER);
        let bytes = bytes.checked_next_multiple_of(WORKSPACE_ALIGN);
        let bytes = bytes.ok_or(Error::OutOfMemory { bytes: usize::MAX })?;
        let failed = |error| fault::of_alloc(bytes, error);
        // SAFETY: the context is current.
        let address = unsafe { result::malloc_sync(bytes) }.map_err(failed)?;
        // SAFETY: the header lies in what was allocated just now; the stream is of this context.
        if let Err(error) = unsafe { result::memset_d8_async(address, 0, HEADER, stream) } {
            // SAFETY: nobody has seen the address.
            let _ = unsafe { result::free_sync(address) };
            return Err(failed(error));
        }
        if len > 0 {
            self.outgrown.push(outgrown);
        }
        self.workspace = RawWorkspace { address, len: bytes };
        Ok(())
    }
}

impl Drop for RawMemory {
    fn drop(&mut self) {
        // If the context cannot be waited for, its end frees what may still be in use.
        if self.workspace.len == 0 || self.context.synchronize().is_err() {
            return;
        }
        for address in self.outgrown.drain(..).chain([self.workspace.address]) {
            // SAFETY: `grow` allocated it, and all work of the context is done. An error leaves it to the
            // end of the context.
            let _ = unsafe { result::free_sync(address) };
        }
    }
}

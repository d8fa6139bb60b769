//! Modules of one context, each compiled by the driver when it is first needed and then kept.

use core::ffi::{CStr, c_void};
use core::ptr;
use std::collections::HashMap;
use std::ffi::CString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use cudarc::driver::CudaContext;
use cudarc::driver::sys::{self, CUfunction, CUmodule};

use super::fault;
use crate::{Error, Launch, Result, Source};

/// Bytes of the compiler's log that are kept.
const LOG: usize = 8 << 10;

#[derive(Debug)]
pub(super) struct Kernels {
    context: Arc<CudaContext>,
    loaded: RwLock<HashMap<Source, Loaded>>,
    /// A graph may hold functions longer than this lives.
    kept: AtomicBool,
}

#[derive(Debug)]
struct Loaded {
    module: CUmodule,
    function: CUfunction,
    /// Bytes of shared memory that launches may ask for.
    smem_bytes: u32,
}

// SAFETY: the handles of a module and its function may be used by any thread that has made
// their context current.
unsafe impl Send for Loaded {}
// SAFETY: as above; what changes does so under the lock around all of them.
unsafe impl Sync for Loaded {}

impl Kernels {
    pub(super) fn new(context: &Arc<CudaContext>) -> Kernels {
        Kernels {
            context: context.clone(),
            loaded: RwLock::default(),
            kept: AtomicBool::new(false),
        }
    }

    /// Leaves the modules to the end of the context.
    pub(super) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// How many modules are loaded.
    pub(super) fn len(&self) -> usize {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether `launch` needs nothing more of the driver.
    pub(super) fn has(&self, launch: &Launch) -> bool {
        launch.source.as_ref().is_some_and(|source| self.find(launch, source).is_some())
    }

    /// The function, if it is there and may have as much shared memory as `launch` asks for.
    fn find(&self, launch: &Launch, source: &Source) -> Option<CUfunction> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        let of = loaded.get(source)?;
        (launch.shared_bytes <= of.smem_bytes).then_some(of.function)
    }

    /// The function, if it is there; it may have that much from now on.
    fn announced(&self, launch: &Launch, source: &Source) -> Option<Result<CUfunction>> {
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        let of = loaded.get_mut(source)?;
        if launch.shared_bytes > of.smem_bytes {
            if let Err(error) = announce(launch, of.function) {
                return Some(Err(error));
            }
            of.smem_bytes = launch.shared_bytes;
        }
        Some(Ok(of.function))
    }

    /// The function of `launch`, compiled now if it was not before. The context is current.
    pub(super) fn get(&self, launch: &Launch) -> Result<CUfunction> {
        let Some(source) = &launch.source else {
            let reason = "the plan has no text for it".to_owned();
            return Err(Error::Rejected { what: launch.kernel.to_owned(), reason });
        };
        if let Some(function) = self.find(launch, source) {
            return Ok(function);
        }
        if let Some(function) = self.announced(launch, source) {
            return function;
        }
        let mut fresh = load(launch, source)?;
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        loaded.entry(source.clone()).or_insert_with(|| Loaded {
            module: fresh.take(),
            function: fresh.function,
            smem_bytes: 0,
        });
        drop(loaded);
        // Where another thread was faster, `fresh` unloads its own.
        let missing = || Error::Rejected {
            what: launch.kernel.to_owned(),
            reason: "its module is gone".to_owned(),
        };
        self.announced(launch, source).ok_or_else(missing)?
    }
}

impl Drop for Kernels {
    fn drop(&mut self) {
        let loaded = self.loaded.get_mut().unwrap_or_else(PoisonError::into_inner);
        // What may still run keeps its code: if the context cannot be waited for (a capture is
        // on, or it is lost), the modules stay until the context goes.
        let kept = *self.kept.get_mut();
        if !kept && !loaded.is_empty() && self.context.synchronize().is_ok() {
            for of in loaded.values() {
                unload(of.module);
            }
        }
    }
}

fn unload(module: CUmodule) {
    // SAFETY: the module is ours, nothing runs in it, and nobody has a handle to its function.
    // An error leaves it to the end of the context.
    let _ = unsafe { sys::cuModuleUnload(module) };
}

/// A module that nobody has taken over yet.
struct Fresh {
    module: CUmodule,
    function: CUfunction,
}

impl Fresh {
    fn take(&mut self) -> CUmodule {
        core::mem::replace(&mut self.module, ptr::null_mut())
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if !self.module.is_null() {
            unload(self.module);
        }
    }
}

/// Lets this thread load modules while a stream is captured, here or elsewhere: that records
/// nothing and is no part of the graph.
struct Relaxed {
    before: sys::CUstreamCaptureMode,
}

impl Relaxed {
    fn enter() -> Relaxed {
        let mut before = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: it points to a mode. Where the driver refuses, loading says why.
        let _ = unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut before) };
        Relaxed { before }
    }
}

impl Drop for Relaxed {
    fn drop(&mut self) {
        // SAFETY: as in `enter`.
        let _ = unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut self.before) };
    }
}

fn load(launch: &Launch, source: &Source) -> Result<Fresh> {
    let _relaxed = Relaxed::enter();
    let nul = |_| Error::Rejected {
        what: launch.kernel.to_owned(),
        reason: "its text has a zero in it".to_owned(),
    };
    let (text, entry) = (CString::new(&*source.text).map_err(nul)?, CString::new(source.entry));
    let entry = entry.map_err(nul)?;
    let mut log = vec![0u8; LOG];
    let mut options = [
        sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
        sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
    ];
    // The driver takes numbers in place of pointers.
    let mut values = [log.as_mut_ptr().cast::<c_void>(), ptr::without_provenance_mut(LOG)];
    let mut fresh = Fresh { module: ptr::null_mut(), function: ptr::null_mut() };
    // SAFETY: the context is current, the text ends with a zero, and there are as many values as
    // options, of the kinds that these options take: a buffer that outlives the call, its size.
    let code = unsafe {
        sys::cuModuleLoadDataEx(
            &mut fresh.module,
            text.as_ptr().cast(),
            options.len() as u32,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    let log = CStr::from_bytes_until_nul(&log).map_or("".into(), CStr::to_string_lossy);
    let failed = |error| fault::of_kernel(launch.kernel, error, log.trim());
    if let Err(error) = code.result() {
        // A failed load gives no module.
        fresh.take();
        return Err(failed(error));
    }
    // SAFETY: the module was loaded just now, and the name ends with a zero.
    let code =
        unsafe { sys::cuModuleGetFunction(&mut fresh.function, fresh.module, entry.as_ptr()) };
    code.result().map_err(failed)?;
    Ok(fresh)
}

/// Lets `function` be launched with as much shared memory as `launch` asks for: beyond 48 KiB, a
/// kernel's own variables included, the driver wants to know before.
fn announce(launch: &Launch, function: CUfunction) -> Result<()> {
    let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    let bytes = i32::try_from(launch.shared_bytes).unwrap_or(i32::MAX);
    // Where drivers load lazily, this may be what loads the function.
    let _relaxed = Relaxed::enter();
    // SAFETY: the function is of a module that is loaded, in the current context.
    let code = unsafe { sys::cuFuncSetAttribute(function, most, bytes) };
    code.result().map_err(|error| fault::of_kernel(launch.kernel, error, ""))
}

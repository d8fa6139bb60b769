//! cuBLAS and cuBLASLt: whether they can be loaded, and their handles. cudarc panics where a
//! library or a function is missing, so nothing of it is called before [`probe`] has looked.

use core::ffi::c_void;
use core::ptr;
use std::sync::Arc;

use fused_lora::cuda::cudarc;
use fused_lora::cuda::cudarc::cublas::sys as ex;
use fused_lora::cuda::cudarc::cublaslt::sys as lt;
use fused_lora::cuda::cudarc::driver::{CudaSlice, CudaStream, DevicePtr};

use super::super::common::{Error, Result};

/// Bytes that a product may use: twice what NVIDIA proposes for Hopper.
pub const WORKSPACE: usize = 64 << 20;

/// What is called of each library.
const FUNCTIONS: [(&str, &[&str]); 2] = [
    (
        "cublas",
        &[
            "cublasCreate_v2",
            "cublasDestroy_v2",
            "cublasSetStream_v2",
            "cublasSetWorkspace_v2",
            "cublasGetVersion_v2",
            "cublasGemmEx",
        ],
    ),
    (
        "cublasLt",
        &[
            "cublasLtCreate",
            "cublasLtDestroy",
            "cublasLtMatmul",
            "cublasLtMatmulAlgoGetHeuristic",
            "cublasLtMatmulDescCreate",
            "cublasLtMatmulDescDestroy",
            "cublasLtMatmulDescSetAttribute",
            "cublasLtMatmulPreferenceCreate",
            "cublasLtMatmulPreferenceDestroy",
            "cublasLtMatmulPreferenceSetAttribute",
            "cublasLtMatrixLayoutCreate",
            "cublasLtMatrixLayoutDestroy",
        ],
    ),
];

/// Whether the libraries are there, under the names that cudarc looks for and in its order, with
/// all that is called here; else what is missing.
fn probe() -> Result<(), String> {
    for (library, functions) in FUNCTIONS {
        let names = cudarc::get_lib_name_candidates(library);
        // SAFETY: what a library does when it is loaded is its own business; cudarc would load
        // the same file under the same name.
        let open = |name: &String| unsafe { libloading::Library::new(name) }.ok();
        let Some(loaded) = names.iter().find_map(open) else {
            let (Some(first), Some(last)) = (names.first(), names.last()) else { continue };
            return Err(format!("none of {} names, {first} to {last}, can be loaded", names.len()));
        };
        for function in functions {
            // SAFETY: only whether the symbol is there is looked at; it is not called.
            let found = unsafe { loaded.get::<unsafe extern "C" fn()>(function.as_bytes()) };
            found.map_err(|error| format!("{library} has no {function}: {error}"))?;
        }
        // Loading it twice would cost a second.
        core::mem::forget(loaded);
    }
    Ok(())
}

/// The handles, on one stream.
pub struct Library {
    pub lt: lt::cublasLtHandle_t,
    pub ex: ex::cublasHandle_t,
    pub stream: Arc<CudaStream>,
    /// Kept for its bytes.
    _workspace: CudaSlice<u8>,
    /// The address of [`WORKSPACE`] bytes.
    pub workspace: u64,
    /// Whether f32 may be rounded to tf32.
    pub tf32: bool,
}

/// The error of a failed call.
fn failed(call: &str, status: impl core::fmt::Debug) -> Error {
    format!("{call}: {status:?}").into()
}

pub fn check_lt(call: &str, status: lt::cublasStatus_t) -> Result<()> {
    if status == lt::cublasStatus_t::CUBLAS_STATUS_SUCCESS {
        Ok(())
    } else {
        Err(failed(call, status))
    }
}

pub fn check_ex(call: &str, status: ex::cublasStatus_t) -> Result<()> {
    if status == ex::cublasStatus_t::CUBLAS_STATUS_SUCCESS {
        Ok(())
    } else {
        Err(failed(call, status))
    }
}

impl Library {
    /// On `stream`, after [`probe`] has found the libraries.
    pub fn new(stream: &Arc<CudaStream>, tf32: bool) -> Result<Library> {
        probe()?;
        stream.context().bind_to_thread()?;
        let memory = stream.alloc_zeros::<u8>(WORKSPACE)?;
        let (workspace, guard) = memory.device_ptr(stream);
        // One stream does everything, so there is nothing to be recorded.
        core::mem::forget(guard);
        let mut library = Library {
            lt: ptr::null_mut(),
            ex: ptr::null_mut(),
            stream: stream.clone(),
            _workspace: memory,
            workspace,
            tf32,
        };
        // SAFETY: each call is given handles that the calls before it made, in the primary
        // context, which is current; the workspace lives as long as the handle. What is left of
        // a failure is dropped with `library`.
        unsafe {
            check_lt("cublasLtCreate", lt::cublasLtCreate(&mut library.lt))?;
            check_ex("cublasCreate", ex::cublasCreate_v2(&mut library.ex))?;
            let stream = stream.cu_stream().cast();
            check_ex("cublasSetStream", ex::cublasSetStream_v2(library.ex, stream))?;
            let memory = library.workspace as *mut c_void;
            check_ex(
                "cublasSetWorkspace",
                ex::cublasSetWorkspace_v2(library.ex, memory, WORKSPACE),
            )?;
        }
        Ok(library)
    }

    /// As `12.4.5`.
    pub fn version(&self) -> String {
        let mut version = 0;
        // SAFETY: the handle is alive, and the pointer to a number.
        let status = unsafe { ex::cublasGetVersion_v2(self.ex, &mut version) };
        match check_ex("cublasGetVersion", status) {
            // Since 11 as 10000·major + 100·minor + patch.
            Ok(()) => format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100),
            Err(error) => error.to_string(),
        }
    }

    pub fn wait(&self) -> Result<()> {
        Ok(self.stream.synchronize()?)
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // What still runs uses the workspace. An error leaves nothing to be done.
        let _ = self.stream.synchronize();
        // SAFETY: the handles are ours and used by nobody from here on: kernels borrow this.
        unsafe {
            if !self.ex.is_null() {
                let _ = ex::cublasDestroy_v2(self.ex);
            }
            if !self.lt.is_null() {
                let _ = lt::cublasLtDestroy(self.lt);
            }
        }
    }
}

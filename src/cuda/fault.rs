//! What the driver's codes mean to a caller. Called wherever the driver is.

use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult as Code;

use crate::Error;

/// The error of a failed `call`.
pub(crate) fn of(call: &'static str, error: DriverError) -> Error {
    let reason = words(error);
    match error.0 {
        Code::CUDA_ERROR_OUT_OF_MEMORY => Error::OutOfMemory { bytes: 0 },
        code if is_lost(code) => Error::DeviceLost { reason: format!("{call}: {reason}") },
        code if is_capture(code) => Error::Capture { reason: format!("{call}: {reason}") },
        _ => Error::Driver { call, reason },
    }
}

/// [`of`] for a call that asks for memory.
pub(crate) fn of_alloc(bytes: usize, error: DriverError) -> Error {
    match of("allocation", error) {
        Error::OutOfMemory { .. } => Error::OutOfMemory { bytes },
        other => other,
    }
}

/// [`of`] for a kernel that is loaded or launched; `log` is the compiler's.
pub(super) fn of_kernel(kernel: &str, error: DriverError, log: &str) -> Error {
    let mut reason = words(error);
    if !log.is_empty() {
        reason = format!("{reason}: {log}");
    }
    match (error.0, of("kernel", error)) {
        (Code::CUDA_ERROR_UNSUPPORTED_PTX_VERSION, _) => {
            Error::DriverTooOld { kernel: kernel.to_owned(), reason }
        }
        (_, Error::Driver { .. }) => Error::Rejected { what: kernel.to_owned(), reason },
        (_, Error::DeviceLost { .. }) => {
            Error::DeviceLost { reason: format!("{kernel}: {reason}") }
        }
        (_, other) => other,
    }
}

/// The driver's name for a code, and its sentence.
fn words(error: DriverError) -> String {
    match (error.error_name(), error.error_string()) {
        (Ok(name), Ok(text)) => format!("{} ({})", name.to_string_lossy(), text.to_string_lossy()),
        (Ok(name), Err(_)) => name.to_string_lossy().into_owned(),
        _ => format!("code {}", error.0 as u32),
    }
}

/// Codes after which every call of the context fails.
fn is_lost(code: Code) -> bool {
    matches!(
        code,
        Code::CUDA_ERROR_ASSERT
            | Code::CUDA_ERROR_CONTEXT_IS_DESTROYED
            | Code::CUDA_ERROR_DEINITIALIZED
            | Code::CUDA_ERROR_ECC_UNCORRECTABLE
            | Code::CUDA_ERROR_HARDWARE_STACK_ERROR
            | Code::CUDA_ERROR_ILLEGAL_ADDRESS
            | Code::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | Code::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | Code::CUDA_ERROR_INVALID_PC
            | Code::CUDA_ERROR_LAUNCH_FAILED
            | Code::CUDA_ERROR_LAUNCH_TIMEOUT
            | Code::CUDA_ERROR_MISALIGNED_ADDRESS
            | Code::CUDA_ERROR_NVLINK_UNCORRECTABLE
            | Code::CUDA_ERROR_UNKNOWN
    )
}

fn is_capture(code: Code) -> bool {
    matches!(
        code,
        Code::CUDA_ERROR_CAPTURED_EVENT
            | Code::CUDA_ERROR_STREAM_CAPTURE_IMPLICIT
            | Code::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
            | Code::CUDA_ERROR_STREAM_CAPTURE_ISOLATION
            | Code::CUDA_ERROR_STREAM_CAPTURE_MERGE
            | Code::CUDA_ERROR_STREAM_CAPTURE_UNJOINED
            | Code::CUDA_ERROR_STREAM_CAPTURE_UNMATCHED
            | Code::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
            | Code::CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD
    )
}

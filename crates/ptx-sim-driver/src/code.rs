//! The driver's error codes with their names, and the error that every call inside the stand-in
//! returns.

/// A `CUresult`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) i32);

macro_rules! codes {
    ($($name:ident = $value:literal: $text:literal,)*) => {
        // Some are there to be named only: by the environment, or for cuGetErrorName.
        #[allow(dead_code)]
        impl Code {
            $(pub(crate) const $name: Code = Code($value);)*

            /// Value, name and description, each of the last two ended by NUL.
            const TABLE: &[(i32, &str, &str)] = &[
                (0, "CUDA_SUCCESS\0", "no error\0"),
                $(($value, concat!("CUDA_ERROR_", stringify!($name), "\0"), concat!($text, "\0")),)*
            ];
        }
    };
}

codes! {
    INVALID_VALUE = 1: "invalid argument",
    OUT_OF_MEMORY = 2: "out of memory",
    NOT_INITIALIZED = 3: "initialization error",
    DEINITIALIZED = 4: "driver shutting down",
    DEVICE_UNAVAILABLE = 46: "CUDA-capable device(s) is/are busy or unavailable",
    NO_DEVICE = 100: "no CUDA-capable device is detected",
    INVALID_DEVICE = 101: "invalid device ordinal",
    INVALID_IMAGE = 200: "device kernel image is invalid",
    INVALID_CONTEXT = 201: "invalid device context",
    NO_BINARY_FOR_GPU = 209: "no kernel image is available for execution on the device",
    ECC_UNCORRECTABLE = 214: "uncorrectable ECC error encountered",
    UNSUPPORTED_LIMIT = 215: "limit is not supported on this architecture",
    INVALID_PTX = 218: "a PTX JIT compilation failed",
    UNSUPPORTED_PTX_VERSION = 222: "the provided PTX was compiled with an unsupported toolchain",
    FILE_NOT_FOUND = 301: "file not found",
    OPERATING_SYSTEM = 304: "OS call failed or operation not supported on this OS",
    INVALID_HANDLE = 400: "invalid resource handle",
    ILLEGAL_STATE = 401: "the operation cannot be performed in the present state",
    NOT_FOUND = 500: "named symbol not found",
    NOT_READY = 600: "device not ready",
    ILLEGAL_ADDRESS = 700: "an illegal memory access was encountered",
    LAUNCH_OUT_OF_RESOURCES = 701: "too many resources requested for launch",
    LAUNCH_TIMEOUT = 702: "the launch timed out and was terminated",
    PRIMARY_CONTEXT_ACTIVE = 708: "cannot set while device is active in this process",
    CONTEXT_IS_DESTROYED = 709: "context is destroyed",
    ILLEGAL_INSTRUCTION = 715: "an illegal instruction was encountered",
    MISALIGNED_ADDRESS = 716: "misaligned address",
    LAUNCH_FAILED = 719: "unspecified launch failure",
    COOPERATIVE_LAUNCH_TOO_LARGE = 720: "too many blocks in cooperative launch",
    INVALID_CLUSTER_SIZE = 912: "cluster misconfiguration",
    NOT_PERMITTED = 800: "operation not permitted",
    NOT_SUPPORTED = 801: "operation not supported",
    SYSTEM_NOT_READY = 802: "system not yet initialized",
    SYSTEM_DRIVER_MISMATCH = 803: "system has unsupported display driver / cuda driver combination",
    STREAM_CAPTURE_UNSUPPORTED = 900: "operation not permitted when stream is capturing",
    STREAM_CAPTURE_INVALIDATED = 901: "operation failed due to a previous error during capture",
    STREAM_CAPTURE_MERGE = 902: "operation would result in a merge of separate capture sequences",
    STREAM_CAPTURE_UNMATCHED = 903: "capture was not ended in the same stream as it began",
    STREAM_CAPTURE_UNJOINED = 904: "capturing stream has unjoined work",
    STREAM_CAPTURE_ISOLATION = 905: "dependency created on uncaptured work in another stream",
    STREAM_CAPTURE_IMPLICIT = 906: "operation would make the legacy stream depend on a capturing blocking stream",
    CAPTURED_EVENT = 907: "operation not permitted on an event last recorded in a capturing stream",
    STREAM_CAPTURE_WRONG_THREAD = 908: "attempt to terminate a thread-local capture sequence from another thread",
    UNKNOWN = 999: "unknown error",
}

impl Code {
    pub(crate) const SUCCESS: Code = Code(0);

    /// Name and description, both ended by NUL; none for a value that is no code of this driver.
    pub(crate) fn texts(self) -> Option<(&'static str, &'static str)> {
        Self::TABLE.iter().find(|row| row.0 == self.0).map(|row| (row.1, row.2))
    }

    /// By number, or by name with or without prefix.
    pub(crate) fn parse(text: &str) -> Option<Code> {
        let matches = |name: &str| {
            let name = name.trim_end_matches('\0');
            name == text || name.strip_prefix("CUDA_ERROR_") == Some(text)
        };
        let row = Self::TABLE.iter().find(|row| matches(row.1) || text.parse() == Ok(row.0))?;
        Some(Code(row.0))
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.texts() {
            Some((name, _)) => f.write_str(name.trim_end_matches('\0')),
            None => write!(f, "CUresult {}", self.0),
        }
    }
}

/// Why a call fails: what the caller gets, and the line that says more.
#[derive(Debug)]
pub(crate) struct Error {
    pub(crate) code: Code,
    /// Nothing when it was said before, or when there is nothing to say.
    pub(crate) message: String,
}

pub(crate) type Res<T> = Result<T, Error>;

impl Error {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Error { code, message: message.into() }
    }

    /// Without a line on stderr.
    pub(crate) fn silent(code: Code) -> Self {
        Error { code, message: String::new() }
    }
}

/// An error as a result, for the end of a check.
pub(crate) fn fail<T>(code: Code, message: impl Into<String>) -> Res<T> {
    Err(Error::new(code, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_names_of_the_driver() {
        assert_eq!(Code::INVALID_VALUE.to_string(), "CUDA_ERROR_INVALID_VALUE");
        assert_eq!(Code::SUCCESS.to_string(), "CUDA_SUCCESS");
        assert_eq!(Code(12345).to_string(), "CUresult 12345");
        assert_eq!(Code::parse("100"), Some(Code::NO_DEVICE));
        assert_eq!(Code::parse("CUDA_ERROR_NO_DEVICE"), Some(Code::NO_DEVICE));
        assert_eq!(Code::parse("NO_DEVICE"), Some(Code::NO_DEVICE));
        assert_eq!(Code::parse("12345"), None);
    }
}

//! What a layer refuses.

use burn::tensor::DType;

/// What was asked for and is not served: what was expected, and what came.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A device that launches none of the core's kernels.
    #[error("lora: no layer on {device}: {why}")]
    Device {
        /// The device, or the compiler that burn has for it.
        device: String,
        /// What it lacks, and what to do.
        why: &'static str,
    },
    /// Sizes that do not fit.
    #[error("lora: {what}: expected {expected:?}, got {got:?}")]
    Shape {
        /// The tensor.
        what: String,
        /// The shape that fits.
        expected: Vec<usize>,
        /// The shape that came.
        got: Vec<usize>,
    },
    /// A type of elements that is not served, or not beside the weight's.
    #[error("lora: {what}: expected {expected}, got {got:?}")]
    DType {
        /// The tensor.
        what: String,
        /// The types that are served.
        expected: String,
        /// The type that came.
        got: DType,
    },
    /// Tensors on two devices.
    #[error("lora: {what} is on {got}, the weight on {expected}")]
    OtherDevice {
        /// The tensor.
        what: String,
        /// The weight's device.
        expected: String,
        /// The tensor's.
        got: String,
    },
    /// A scale that is not a finite number.
    #[error("lora: the scale is {0}")]
    Scale(f64),
    /// No adapter of this name.
    #[error("lora: no adapter `{name}`, but {there:?}")]
    Name {
        /// What was asked for.
        name: String,
        /// The adapters that there are.
        there: Vec<String>,
    },
    /// Merging without an adapter.
    #[error("lora: no adapter is active")]
    NoAdapter,
    /// A merged adapter can neither change nor go.
    #[error("lora: `{0}` is merged; unmerge first")]
    Merged(String),
    /// What the core says, of files above all.
    #[error(transparent)]
    Core(#[from] fused_lora::Error),
}

/// A result whose error is this crate's.
pub type Result<T> = std::result::Result<T, Error>;

//! A frozen linear layer and its LoRA adapter in one fused pass, forward and backward.

pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod device;
mod dtype;
mod error;
mod operands;
#[cfg(feature = "peft")]
pub mod peft;
mod plan;
mod problem;
pub mod reference;
#[cfg(feature = "wgpu")]
pub mod wgpu;

pub use device::{DEVICE_VARIABLE, Device, Tensor};
pub use dtype::{DType, Element};
pub use error::{Error, Result};
pub use operands::{
    Adapter, BackwardAdapter, BackwardInput, Buffer, Forward, GradientA, GradientB, Matrix, Merge,
    Operands, Place,
};
pub use plan::{
    Binding, Candidate, Capabilities, Choice, CpuCapabilities, Language, Launch, Outcome, Plan,
    Source, Strategy,
};
pub use problem::{Access, Gradients, Layout, Major, Operand, Operation, Problem, Spec};

#![doc = include_str!("../README.md")]

#[cfg(any(feature = "flex", feature = "ndarray"))]
mod cpu;
#[cfg(feature = "wgpu")]
mod cube;
mod device;
mod error;
mod linear;
#[allow(deprecated)] // By burn, of its ndarray backend, which the macro in it names.
mod op;
mod peft;

pub use burn::module::LoraAdapter;
pub use error::{Error, Result};
pub use fused_lora;
pub use linear::{DEFAULT, LoraConfig, LoraLinear};
pub use peft::{AdapterConfig, AdapterFile, PeftAdapter, TargetModules, save_peft};

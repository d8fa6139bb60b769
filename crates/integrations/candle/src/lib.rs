#![doc = include_str!("../README.md")]

mod adapter;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod linear;
mod merge;
mod op;
mod peft;
mod store;

pub use adapter::{Adapter, LoraConfig};
pub use fused_lora;
pub use linear::{DEFAULT, LoraLinear};
pub use peft::{AdapterConfig, AdapterFile, PeftAdapter, TargetModules, save_peft};

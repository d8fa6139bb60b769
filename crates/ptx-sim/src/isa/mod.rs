//! Syntax tree to dense form: registers become slots, labels become pcs, every modifier is
//! accounted for. Decoded once per module; `exec` reads nothing else.

mod call;
mod context;
mod decode_alu;
mod decode_bulk;
mod decode_cluster;
mod decode_float;
mod decode_integer;
mod decode_mbarrier;
mod decode_mem;
mod decode_narrow;
mod decode_test;
mod decode_warp;
mod decode_wgmma;
pub(crate) mod hopper;
pub(crate) mod inst;
mod mods;
mod module;
mod operand;
mod slots;
pub(crate) mod types;

pub use module::Module;
pub(crate) use module::{ConstInit, Kernel, Special};

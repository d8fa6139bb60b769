//! What the benches `ratios`, `layer`, `share` and `cuda_layer` have in common: the shapes, the paths through a
//! layer, and how two of them are compared.
//!
//! A new backend comes with [`fused_lora::Device`]: `fused`, `plain` and `calls` then run on
//! it as they are. `cuda_layer` has its own paths, over bare memory, beside cuBLAS.

// Each bench uses its part of this module.
#![allow(dead_code, missing_docs, unused_imports)]

mod calls;
mod fused;
mod gemm_calls;
mod host;
mod layer;
pub mod machine;
pub mod measure;
pub mod records;
pub mod shapes;
pub mod share;
pub mod statistics;

use fused_lora::Plan;

pub use fused::Fused;
pub use layer::{Layer, Weights, random};

pub type Error = Box<dyn std::error::Error>;
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a path asks of the machine, by its plans.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// Kernels launched: on the CPU, times that all threads are started.
    pub launches: usize,
    /// Bytes read and written.
    pub bytes: u64,
    /// Multiplications and additions.
    pub flops: u64,
    /// The least bytes that any kernels for the same operations could move.
    pub least: u64,
    /// The operations without what a plan does twice.
    pub least_flops: u64,
}

impl Cost {
    pub fn of<'a>(plans: impl IntoIterator<Item = &'a Plan>) -> Cost {
        plans.into_iter().fold(Cost::default(), |sum, plan| Cost {
            launches: sum.launches + plan.launches().len(),
            bytes: sum.bytes + plan.bytes(),
            flops: sum.flops + plan.flops(),
            least: sum.least + plan.problem().bytes(),
            least_flops: sum.least_flops + plan.problem().flops(),
        })
    }
}

/// One way through a layer. Plans, outputs and workspaces are made with it, so that
/// [`Path::run`] is all that is timed.
pub trait Path {
    /// Its name in the tables.
    fn name(&self) -> &'static str;
    /// What it costs by its plans.
    fn cost(&self) -> Cost;
    /// Goes through it once, with the weight of this turn. A GPU may still be at work when
    /// it returns.
    fn run(&mut self, turn: usize) -> Result<()>;
    /// Returns when the device is done.
    fn wait(&self) -> Result<()>;
    /// What the last run left: y, or dx, da and db.
    fn outputs(&self) -> Result<measure::Outputs>;
}

/// The fused path.
pub fn fused<'a>(layer: &'a Layer<'a>) -> Result<Box<dyn Path + 'a>> {
    Ok(Box::new(Fused::new(layer, "fused", layer.problem())?))
}

/// The layer without its adapter: the floor. Backward it is `backward_input` alone.
pub fn plain<'a>(layer: &'a Layer<'a>) -> Result<Box<dyn Path + 'a>> {
    Ok(Box::new(Fused::new(layer, "plain", layer.problem().plain())?))
}

/// Every way to go without fusion; who compares takes the fastest.
pub fn naive<'a>(layer: &'a Layer<'a>) -> Result<Vec<Box<dyn Path + 'a>>> {
    let mut paths: Vec<Box<dyn Path + 'a>> = vec![Box::new(calls::Calls::new(layer)?)];
    if layer.device.name() == "cpu" {
        paths.push(Box::new(gemm_calls::GemmCalls::new(layer)?));
    }
    Ok(paths)
}

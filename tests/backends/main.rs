//! What only one executor can get wrong, with its own API around it: streams, graphs and contexts,
//! passes and buffers, drivers that are missing, old or lost.
//!
//! CUDA runs on a card where there is one, else in a process of its own for each simulated machine
//! (`test_support::machine`): one process is one driver.

#[cfg(all(feature = "cuda", unix))]
mod allocations;
mod awaited;
#[cfg(feature = "wgpu")]
mod cooperative;
#[cfg(all(feature = "cuda", unix))]
mod cuda;
#[cfg(all(feature = "cuda", unix))]
mod cuda_calls;
#[cfg(all(feature = "cuda", unix))]
mod cuda_errors;
#[cfg(all(feature = "cuda", unix))]
mod cuda_plans;
#[cfg(feature = "wgpu")]
mod faults;
#[cfg(feature = "wgpu")]
mod hosted;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod hosts;
#[cfg(feature = "wgpu")]
mod launches;
#[cfg(feature = "wgpu")]
mod recording;
#[cfg(feature = "wgpu")]
mod wgpu;

use test_support::counting::Counting;

// Counts for each thread alone, for `allocations` and `recording`; the others pay an addition.
#[global_allocator]
static COUNTING: Counting = Counting;

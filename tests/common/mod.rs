//! What every test file shares: cases and their data, guarded buffers, the seam that
//! executors stand behind, and the comparison with the reference. A new executor is one
//! more implementation in `executor`; a new kernel is reached by itself, because tests
//! walk the candidates of the plan.

// Each test binary uses its own part of this, and none exports it.
#![allow(dead_code, unused_imports, unreachable_pub)]

pub mod arbitrary;
mod bits;
mod buffers;
mod case;
mod compare;
#[cfg(feature = "cuda")]
pub mod cuda;
mod executor;
#[cfg(feature = "wgpu")]
pub mod gpu;
mod harness;
#[cfg(all(feature = "cuda", unix))]
pub mod machine;
pub mod pairs;

pub use buffers::{Buffers, Data, Stored};
pub use case::{Case, Fill, RANKS, draw};
pub use compare::{
    Reference, Usage, assert_exact, assert_pads_are_zero, largest_part, results, shrunk_is_exact,
    value,
};
pub use executor::{Alter, Executor, Rows, Scratch, executors};
pub use harness::{Harness, WORKSPACE_GARBAGE, feasible, launch, takes};

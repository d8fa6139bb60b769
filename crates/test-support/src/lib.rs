//! What the tests share: cases and their data, guarded buffers, the seam that executors stand
//! behind, and the comparison with the reference. A new executor is one more implementation in
//! `executor`; a new kernel is reached by itself, because tests walk the candidates of the plan.
//!
//! Of `tests/` and the tools beside it alone: it is not published.

pub mod arbitrary;
mod bits;
mod buffers;
mod case;
mod compare;
pub mod counting;
#[cfg(feature = "cuda")]
pub mod cuda;
mod executor;
#[cfg(feature = "wgpu")]
pub mod gpu;
mod harness;
#[cfg(all(feature = "cuda", unix))]
pub mod machine;
pub mod pairwise;
pub mod probes;
pub mod sim;

pub use buffers::{Buffers, Data, Stored, lead};
pub use case::{
    Case, Fill, RANKS, draw, draw_aligned_images, draw_factors, draw_gain, draw_gain_images,
    draw_images, draw_kronecker, draw_kronecker_images, odd,
};
pub use compare::{
    Reference, Usage, assert_exact, assert_pads_are_zero, largest_part, results, shrunk_is_exact,
    value,
};
pub use executor::{Alter, Executor, Rows, Scratch, executors};
pub use harness::{Harness, WORKSPACE_GARBAGE, feasible, launch, takes, wants_matrices};

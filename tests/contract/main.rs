//! What the crate promises to callers whatever they ask: every error, no panic, plans that are pure.
//!
//! ```text
//! errors      one test for each error of the core and the CPU
//! messages    what errors say, word for word
//! overlap     operands that share memory
//! hostile     sizes up to `usize::MAX`, any text, any tensor: an error at worst
//! limits      every legal problem up to each limit of each device has a strategy
//! plan        plans: what is chosen, why, and what they say of themselves
//! plan_cuda   the same for CUDA, without a card
//! properties  random operands at every executor's entry: the result, or the error that says what is wrong
//! readme      what README says of itself
//! serialize   plans as data for hosts in other languages
//! ```

mod errors;
mod hostile;
mod limits;
mod messages;
mod overlap;
mod plan;
mod plan_cuda;
mod plan_wgpu;
mod properties;
mod readme;
#[cfg(feature = "serde")]
mod serialize;

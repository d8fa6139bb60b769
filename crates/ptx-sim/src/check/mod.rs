//! Who may touch what: vector clocks, shadow cells, and the one checked path to memory.
//! Sees accesses only, never opcodes.

pub(crate) mod agents;
pub(crate) mod clock;
pub(crate) mod past;
pub(crate) mod region;
pub(crate) mod shadow;
pub(crate) mod warp_clock;

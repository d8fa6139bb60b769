//! What a warp keeps for Hopper's engines: its bulk groups, arrivals that wait for copies, the state of
//! its matrix registers, its part in the cluster's barrier.

use super::hazards::Hazards;

/// Bulk groups of each lane: committed, read, and wholly done.
#[derive(Debug, Default)]
pub(crate) struct BulkGroups {
    pub(crate) committed: [u32; 32],
    /// The group of the last copy, 0 if there was none.
    pub(crate) last: [u32; 32],
    pub(crate) read: [u32; 32],
    pub(crate) done: [u32; 32],
}

/// An arrival that comes when a lane's copies up to `batch` have landed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) lane: u8,
    pub(crate) batch: u32,
    pub(crate) at: u32,
    pub(crate) rank: usize,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) bulk: BulkGroups,
    pub(crate) arrivals: Vec<Arrival>,
    pub(crate) hazards: Hazards,
    /// The mbarrier and phase that a `try_wait` has looked for in vain: it returns at once the first
    /// time, as it may, and is suspended the next.
    pub(crate) tried: Option<(u32, u32)>,
    /// `try_wait` has been suspended for as long as it may be.
    pub(crate) timed_out: bool,
    /// The phase of the cluster's barrier that the warp has arrived at and not waited for.
    pub(crate) arrived: Option<u32>,
}

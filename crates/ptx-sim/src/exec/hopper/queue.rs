//! The queue of `wgmma` of one warpgroup: what its warps have issued and committed. [`matrix`](super::matrix)
//! works on it.

use std::collections::VecDeque;

/// What a warp asks of its queue.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    Issue { a: u64, b: u64, add: bool },
    Commit,
    Wait { left: u32 },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) pc: u32,
    pub(super) a: u64,
    pub(super) b: u64,
    pub(super) add: bool,
    pub(super) group: u32,
    /// Warps that have issued it, one bit each.
    pub(super) by: u32,
    pub(super) done: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(super) entries: VecDeque<Entry>,
    /// Number of the first of `entries`, and how many each warp has issued.
    pub(super) first: u64,
    pub(super) issued: [u64; 4],
    /// Groups each warp has committed.
    pub(super) committed: [u32; 4],
}

impl Queue {
    /// The queue has nothing to wait for, as far as this warp is concerned.
    pub(super) fn settled(&self, member: usize, upto: u32) -> bool {
        let there = self.committed.iter().all(|&c| c >= upto);
        there && self.committed[member] >= upto
    }

    /// Groups that a warp has committed.
    pub(super) fn committed_by(&self, member: usize) -> u32 {
        self.committed[member]
    }

    pub(crate) fn describe(&self, member: usize) -> String {
        format!(
            "waits for the other warps of its warpgroup to commit wgmma groups (committed {:?}, itself {})",
            self.committed, self.committed[member]
        )
    }
}

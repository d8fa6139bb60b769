//! How the agents of a CTA are numbered: its warps, and the engines that work beside them. A kernel
//! without Hopper's instructions has two agents a warp and no others, so that its clocks stay small.
//! Used by the clocks, which hold an epoch for each, and by reports, which name them.

/// mbarriers that a CTA may hold at once.
pub(crate) const BARRIERS: u32 = 64;

/// The numbering within one CTA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agents {
    warps: u32,
    engines: bool,
}

/// What an agent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Warp(u32),
    /// The `cp.async` queue of a warp.
    Copies(u32),
    /// What the proxy fences of a warp have covered; nothing is stamped with it.
    Proxied(u32),
    /// `mbarrier.init` by a warp: a fence of its own publishes these.
    Inits(u32),
    /// A warp's bulk copies out of shared memory: their reads.
    BulkReads(u32),
    /// And their writes.
    BulkWrites(u32),
    /// The matrix queue of four warps.
    Matrix(u32),
    /// What completes on an mbarrier.
    Barrier(u32),
}

impl Agents {
    pub(crate) fn new(warps: u32, engines: bool) -> Self {
        Agents { warps, engines }
    }

    /// Agents of a CTA; even, so that CTAs tell parity apart alike.
    pub(crate) fn count(self) -> u32 {
        if !self.engines {
            return 2 * self.warps;
        }
        (7 * self.warps + self.warps.div_ceil(4) + BARRIERS).next_multiple_of(2)
    }

    pub(crate) fn warp(self, warp: u32) -> u32 {
        2 * warp
    }

    /// From a warp, or its copies, to what its fences covered.
    pub(crate) fn proxied(self) -> u32 {
        if self.engines { 2 * self.warps } else { 0 }
    }

    pub(crate) fn inits(self, warp: u32) -> u32 {
        if self.engines { 4 * self.warps + warp } else { 2 * warp }
    }

    pub(crate) fn bulk_reads(self, warp: u32) -> u32 {
        5 * self.warps + warp
    }

    pub(crate) fn bulk_writes(self, warp: u32) -> u32 {
        6 * self.warps + warp
    }

    pub(crate) fn matrix(self, group: u32) -> u32 {
        7 * self.warps + group
    }

    pub(crate) fn barrier(self, slot: u32) -> u32 {
        7 * self.warps + self.warps.div_ceil(4) + slot
    }

    /// Warps and their `cp.async` queues work through the generic proxy.
    pub(crate) fn is_generic(self, at: u32) -> bool {
        at < 2 * self.warps
    }

    pub(crate) fn is_copies(self, at: u32) -> bool {
        at < 2 * self.warps && at % 2 == 1
    }

    pub(crate) fn kind(self, at: u32) -> Kind {
        let w = self.warps;
        match at {
            _ if at < 2 * w && at.is_multiple_of(2) => Kind::Warp(at / 2),
            _ if at < 2 * w => Kind::Copies(at / 2),
            _ if at < 4 * w => Kind::Proxied((at - 2 * w) / 2),
            _ if at < 5 * w => Kind::Inits(at - 4 * w),
            _ if at < 6 * w => Kind::BulkReads(at - 5 * w),
            _ if at < 7 * w => Kind::BulkWrites(at - 6 * w),
            _ if at < 7 * w + w.div_ceil(4) => Kind::Matrix(at - 7 * w),
            _ => Kind::Barrier(at - 7 * w - w.div_ceil(4)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_means_one_agent() {
        let a = Agents::new(5, true);
        assert_eq!(a.kind(a.warp(3)), Kind::Warp(3));
        assert_eq!(a.kind(a.warp(3) + 1), Kind::Copies(3));
        assert_eq!(a.kind(a.warp(3) + 1 + a.proxied()), Kind::Proxied(3));
        assert_eq!(a.kind(a.inits(4)), Kind::Inits(4));
        assert_eq!(a.kind(a.bulk_reads(0)), Kind::BulkReads(0));
        assert_eq!(a.kind(a.bulk_writes(4)), Kind::BulkWrites(4));
        assert_eq!(a.kind(a.matrix(1)), Kind::Matrix(1));
        assert_eq!(a.kind(a.barrier(63)), Kind::Barrier(63));
        assert_eq!(a.count(), 102);
        assert_eq!(Agents::new(5, false).count(), 10);
    }
}

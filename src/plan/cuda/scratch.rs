//! The workspace as a plan lays it out: the header, then scratch on 256-byte boundaries.

use super::abi::HEADER;
use super::address::Address;
use super::factor::Factor;
use super::pack::{Job, Packed};

pub(super) struct ScratchLayout {
    len: usize,
    used: bool,
}

impl ScratchLayout {
    /// Nothing but the header, where the launches use that.
    pub(super) fn new(header: bool) -> ScratchLayout {
        ScratchLayout { len: HEADER, used: header }
    }

    /// `bytes` of scratch; where they begin.
    pub(super) fn take(&mut self, bytes: usize) -> u64 {
        let at = self.len;
        self.used = true;
        // Saturated where nobody has so much memory: the workspace is then refused.
        self.len = at.saturating_add(bytes.saturating_add(255) & !255);
        at as u64
    }

    /// Whether there is one.
    pub(super) fn is_used(&self) -> bool {
        self.used
    }

    /// Room for one matrix of the adapter, and what fills it.
    pub(super) fn pack(&mut self, factor: &Factor, k_major: bool) -> (Job, Packed) {
        let job = Job::new(factor, k_major);
        let bytes = job.rows.saturating_mul(job.pitch).saturating_mul(factor.packed_size());
        let stride = job.stride(factor.packed_size());
        let mut part = || Address::in_scratch(self.take(bytes), stride);
        let high = part();
        let low = factor.is_pair().then(part);
        (job, Packed { high, low })
    }

    /// Room for `down` as a pair that a main loop carries: one matrix of `ranks` ranks, the low
    /// part in their upper half, what no rank fills zero.
    pub(super) fn pack_as_ranks(
        &mut self,
        factor: &Factor,
        k_major: bool,
        ranks: usize,
    ) -> (Job, Packed) {
        let half = ranks / 2;
        let mut job = Job::new(factor, k_major);
        // Not along the sum, ranks are columns.
        let low = if k_major {
            job.rows = half;
            half.saturating_mul(job.pitch)
        } else {
            (job.padded, job.pitch) = (half, ranks);
            half
        };
        let all = if k_major { ranks } else { job.rows };
        let offset = self.take(all.saturating_mul(job.pitch).saturating_mul(2));
        let high = Address::in_scratch(offset, job.stride(2));
        (job, Packed { high, low: Some(high.later(low)) })
    }

    /// Bytes in all: none where neither header nor scratch is used.
    pub(super) fn finish(self) -> usize {
        if self.used { self.len } else { 0 }
    }
}

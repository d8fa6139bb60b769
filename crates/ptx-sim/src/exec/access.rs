//! The one way of an executor to memory: where an address leads, whose shared memory it is, and what
//! a refused access is called. Loads, stores, atomics, copies and fragments of every engine come
//! through [`Reach::bytes`], which hands them to [`Region::access`](crate::check::region::Region).

use super::bank::Bank;
use super::env::Reach;
use super::sync::Strong;
use super::trouble::{Res, Trouble, trouble};
use super::warp::Warp;
use crate::check::clock::Stamp;
use crate::check::region::{Mode, Refusal};
use crate::check::shadow::{Clash, Who};
use crate::isa::inst::Space;
use crate::mem::{
    CONST_WINDOW, LOCAL_WINDOW, OFFSET_BITS, PARAM_WINDOW, RANK_BITS, RANK_MASK, SHARED_BASE,
    SHARED_WINDOW, split,
};
use crate::report::FaultKind;

/// A generic or cluster address as the space it lies in.
#[inline]
pub(super) fn resolve(space: Space, address: u64) -> (Space, u64) {
    let shared = |at: u64| {
        if at >> RANK_BITS == 0 { (Space::Shared, at) } else { (Space::Cluster, at) }
    };
    match space {
        Space::Cluster => shared(address),
        Space::Generic if address >> 32 == SHARED_WINDOW >> 32 => shared(address - SHARED_WINDOW),
        Space::Generic if address >> 32 == LOCAL_WINDOW >> 32 => {
            (Space::Local, address - LOCAL_WINDOW)
        }
        Space::Generic if address >> 32 == CONST_WINDOW >> 32 => {
            (Space::Const, address - CONST_WINDOW)
        }
        Space::Generic if address >> 32 == PARAM_WINDOW >> 32 => {
            (Space::Param, address - PARAM_WINDOW)
        }
        Space::Generic => (Space::Global, address),
        _ => (space, address),
    }
}

#[cold]
pub(super) fn refuse(
    refusal: Refusal,
    space: Space,
    address: u64,
    at: u64,
    size: u32,
    mode: Mode,
    lanes: u32,
) -> Box<Trouble> {
    let place = match space {
        Space::Shared => format!("shared address {address:#x} (byte {})", at as i64),
        Space::Cluster => {
            let rank = (address >> RANK_BITS).wrapping_sub(1);
            format!("shared address {address:#x} (byte {} of CTA rank {rank})", at as i64)
        }
        Space::Local => format!("local address {address:#x} (byte {})", at as i64),
        _ => format!(
            "global address {address:#x} (allocation {}, byte {at})",
            address >> OFFSET_BITS
        ),
    };
    let verb = match mode {
        Mode::Read => "read",
        Mode::Write => "write",
        Mode::Atomic => "atomic",
    };
    let mut other = None;
    let (kind, message) = match refusal {
        Refusal::Bounds(len) => (
            FaultKind::OutOfBounds,
            format!("{verb} of {size} bytes at {place} leaves its {len} bytes"),
        ),
        Refusal::Misaligned => {
            (FaultKind::Misaligned, format!("{verb} of {size} bytes at {place} is not aligned"))
        }
        Refusal::Uninitialised(byte) => (
            FaultKind::UninitialisedMemory,
            format!("{verb} of {size} bytes at {place}: byte {byte} was never written"),
        ),
        Refusal::Clash(Clash::Race(stamp, write)) => {
            other = Some((stamp, write));
            (FaultKind::Race, format!("{verb} of {size} bytes at {place} races"))
        }
        Refusal::Clash(Clash::Proxy(stamp)) => {
            other = Some((stamp, true));
            let message = format!(
                "{verb} of {size} bytes at {place} through the asynchronous proxy: no proxy fence \
                 stands between it and a generic write"
            );
            (FaultKind::Proxy, message)
        }
        Refusal::Clash(Clash::NonCoherent(stamp, write)) => {
            other = Some((stamp, write));
            let what = if write { "was written" } else { "was read through .nc" };
            (
                FaultKind::NonCoherent,
                format!("{verb} of {size} bytes at {place}, which {what} in this launch"),
            )
        }
    };
    Box::new(Trouble { kind, message, lanes, other })
}

impl Reach<'_, '_> {
    pub(super) fn who<'w>(&self, warp: &'w Warp, lane: usize, packed: u32) -> Who<'w> {
        let stamp =
            Stamp { agent: warp.clock.agent, epoch: warp.clock.epoch, lanes: 1 << lane, packed };
        Who { clock: &warp.clock, lane: lane as u8, stamp, proxy: None, wide: None }
    }

    /// The checked bytes at `address` of global or shared memory: every access of every engine.
    #[inline]
    pub(super) fn bytes(
        &mut self,
        space: Space,
        address: u64,
        (size, align): (u32, u32),
        mode: Mode,
        who: &Who<'_>,
    ) -> Res<&mut [u8]> {
        let lanes = who.stamp.lanes;
        let checks = self.env.checks;
        let (found, at) = match space {
            Space::Shared => {
                let at = address.wrapping_sub(SHARED_BASE);
                let bank = &mut self.banks[self.rank];
                if bank.barriers.covers(at, size) {
                    return opaque(lanes, address);
                }
                (Some(&mut bank.shared), at)
            }
            Space::Cluster => {
                let bank = peer(self.banks, address, lanes)?;
                let at = (address & RANK_MASK).wrapping_sub(SHARED_BASE);
                if bank.barriers.covers(at, size) {
                    return opaque(lanes, address);
                }
                (Some(&mut bank.shared), at)
            }
            _ => {
                let (index, at) = split(address);
                (self.env.memory.region(index), at)
            }
        };
        let Some(region) = found else {
            return trouble(
                FaultKind::OutOfBounds,
                lanes,
                format!("{address:#x} lies in no live allocation"),
            );
        };
        region
            .access(at, size, align, mode, checks, who)
            .map_err(|r| refuse(r, space, address, at, size, mode, lanes))
    }

    /// The location's name in the flags' table, and who is at it.
    pub(super) fn flag(
        &self,
        warp: &Warp,
        space: Space,
        address: u64,
        strength: u32,
    ) -> (u64, Strong) {
        let by = Strong { strength, cta: warp.clock.cta(), cluster: warp.clock.cta_of(0) };
        (self.key(warp, space, address), by)
    }

    /// Names a location for the flags' table; shared addresses are told apart by CTA.
    fn key(&self, warp: &Warp, space: Space, address: u64) -> u64 {
        let shared = |cta: u32, at: u64| 1 << 63 | u64::from(cta) << 32 | at;
        match space {
            Space::Shared => shared(warp.clock.cta(), address),
            Space::Cluster => {
                let rank = (address >> RANK_BITS) as u32 - 1;
                shared(warp.clock.cta_of(rank), address & RANK_MASK)
            }
            _ => address,
        }
    }

    /// Addresses of the lanes, all in one space, for counting.
    pub(super) fn count(&mut self, space: Space, addresses: &[u64; 32], mask: u32, size: u32) {
        match space {
            Space::Shared | Space::Cluster => {
                self.env.counters.shared(self.pc, addresses, mask, size)
            }
            _ => {
                let touched = &mut *self.env.touched;
                self.env.counters.global(self.pc, addresses, mask, size, |s| touched.first(s));
            }
        }
    }
}

fn opaque<T>(lanes: u32, address: u64) -> Res<T> {
    trouble(
        FaultKind::Mbarrier,
        lanes,
        format!("{address:#x} lies in an mbarrier: its bytes are opaque until mbarrier.inval"),
    )
}

/// The bank of the CTA whose rank an address holds.
pub(super) fn peer(banks: &mut [Bank], address: u64, lanes: u32) -> Res<&mut Bank> {
    let (rank, n) = ((address >> RANK_BITS).wrapping_sub(1), banks.len());
    match banks.get_mut(usize::try_from(rank).unwrap_or(usize::MAX)) {
        Some(bank) if bank.ended => trouble(
            FaultKind::Cluster,
            lanes,
            format!("{address:#x}: the CTA of rank {rank} has ended, its shared memory is gone"),
        ),
        Some(bank) => Ok(bank),
        None => trouble(
            FaultKind::OutOfBounds,
            lanes,
            format!("{address:#x} names rank {rank}, the cluster has {n} CTAs"),
        ),
    }
}

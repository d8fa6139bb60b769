//! Which addresses of device and page-locked memory were given out. Bookkeeping alone: the bytes are the
//! queue's. Used by the memory calls.

use std::collections::BTreeMap;

use crate::code::{Code, Res, fail};
use crate::objects::Handle;

/// What the caller was told of memory; what it holds is the queue's.
#[derive(Default)]
pub(crate) struct Allocations {
    pub(crate) device: BTreeMap<u64, Allocation>,
    /// Context, flags and bytes.
    pub(crate) pinned: BTreeMap<usize, (Handle, u32, usize)>,
    pub(crate) used: u64,
}

/// An allocation, for who asks after a pointer.
pub(crate) struct Known {
    pub(crate) ctx: Handle,
    /// Or else page-locked memory of the host.
    pub(crate) device: bool,
    pub(crate) base: u64,
    pub(crate) bytes: usize,
}

pub(crate) struct Allocation {
    pub(crate) ctx: Handle,
    pub(crate) bytes: usize,
    /// Its free was asked for. Addresses are never used again, so it is remembered.
    pub(crate) freed: bool,
}

impl Allocations {
    pub(crate) fn add(&mut self, ctx: Handle, address: u64, bytes: usize) {
        self.used += bytes as u64;
        self.device.insert(address, Allocation { ctx, bytes, freed: false });
    }

    /// Ends the allocations of a context; their addresses come back.
    pub(crate) fn end(&mut self, ctx: Handle) -> Vec<u64> {
        let live = self.device.iter_mut().filter(|(_, a)| a.ctx == ctx && !a.freed);
        let ended = live.map(|(&address, a)| {
            a.freed = true;
            self.used -= a.bytes as u64;
            address
        });
        ended.collect()
    }

    pub(crate) fn end_pinned(&mut self, ctx: Handle) -> Vec<usize> {
        let ended = self.pinned.iter().filter(|(_, p)| p.0 == ctx).map(|(&at, _)| at).collect();
        self.pinned.retain(|_, p| p.0 != ctx);
        ended
    }

    /// The allocation that an address lies in: where it begins, and its bytes.
    pub(crate) fn find(&self, address: u64) -> Res<(u64, usize)> {
        match self.device.range(..=address).next_back() {
            Some((base, a)) if address - base < a.bytes as u64 => {
                if a.freed {
                    return fail(Code::INVALID_VALUE, format!("{address:#x} was freed"));
                }
                Ok((*base, a.bytes))
            }
            _ => fail(Code::INVALID_VALUE, format!("{address:#x} lies in no device memory")),
        }
    }

    /// What an address of device or page-locked memory lies in.
    pub(crate) fn known(&self, address: u64) -> Option<Known> {
        if let Ok((base, bytes)) = self.find(address) {
            let ctx = self.device.get(&base)?.ctx;
            return Some(Known { ctx, device: true, base, bytes });
        }
        let (&base, &(ctx, _, bytes)) = self.pinned.range(..=address as usize).next_back()?;
        let inside = (address as usize - base) < bytes;
        inside.then_some(Known { ctx, device: false, base: base as u64, bytes })
    }

    /// Whether a range lies in one live allocation.
    pub(crate) fn range(&self, address: u64, len: usize) -> Res<()> {
        let (base, bytes) = self.find(address)?;
        let offset = address - base;
        if bytes as u64 - offset < len as u64 {
            return fail(
                Code::INVALID_VALUE,
                format!("{len} bytes at byte {offset} of the {bytes} at {base:#x}: out of bounds"),
            );
        }
        Ok(())
    }

    /// Takes an allocation's first address for freeing.
    pub(crate) fn take(&mut self, address: u64) -> Res<()> {
        match self.device.get_mut(&address) {
            Some(a) if !a.freed => {
                a.freed = true;
                self.used -= a.bytes as u64;
                Ok(())
            }
            Some(_) => fail(Code::INVALID_VALUE, format!("{address:#x} was freed before")),
            None => fail(Code::INVALID_VALUE, format!("{address:#x} is no allocation")),
        }
    }
}

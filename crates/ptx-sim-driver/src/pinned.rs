//! Page-locked host memory: what `cuMemHostAlloc` gives out. Copies to and from it are
//! asynchronous, so the driver reads and writes it at times of its own.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::BTreeMap;

const PAGE: usize = 4096;

/// All live allocations, by first address.
#[derive(Default)]
pub(crate) struct Pinned {
    blocks: BTreeMap<usize, Layout>,
}

impl Pinned {
    /// `bytes` of memory that hold noise; nothing when the host has no more.
    pub(crate) fn alloc(&mut self, bytes: usize, seed: u64) -> Option<usize> {
        let layout = Layout::from_size_align(bytes.max(1), PAGE).ok()?;
        // SAFETY: the layout's size is not zero.
        let at = unsafe { alloc(layout) } as usize;
        if at == 0 {
            return None;
        }
        self.blocks.insert(at, layout);
        self.scribble(at, layout.size(), seed);
        Some(at)
    }

    /// Frees an allocation by its first address; false when it is none.
    pub(crate) fn free(&mut self, at: usize) -> bool {
        let Some(layout) = self.blocks.remove(&at) else { return false };
        // SAFETY: the block was allocated with this layout and was in the table until now.
        unsafe { dealloc(at as *mut u8, layout) };
        true
    }

    /// Whether all of a range lies in one live allocation.
    pub(crate) fn holds(&self, at: usize, len: usize) -> bool {
        let block = self.blocks.range(..=at).next_back();
        block.is_some_and(|(&base, layout)| {
            let offset = at - base;
            offset < layout.size() && layout.size() - offset >= len
        })
    }

    /// The bytes of a range, if it is live.
    pub(crate) fn read(&self, at: usize, len: usize) -> Option<Vec<u8>> {
        if !self.holds(at, len) {
            return None;
        }
        let mut bytes = vec![0; len];
        // SAFETY: the range lies in a live block and was written when it was allocated. The caller
        // of the driver must leave a source alone until the copy is over; that is the API's contract.
        unsafe { std::ptr::copy_nonoverlapping(at as *const u8, bytes.as_mut_ptr(), len) };
        Some(bytes)
    }

    /// Writes a range; false when it is not live.
    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) -> bool {
        if !self.holds(at, bytes.len()) {
            return false;
        }
        // SAFETY: the range lies in a live block. The caller of the driver must not touch a
        // destination until the copy is over; that is the API's contract.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len()) };
        true
    }

    /// Fills a range with noise: what it holds means nothing until somebody writes it.
    pub(crate) fn scribble(&mut self, at: usize, len: usize, seed: u64) {
        let noise: Vec<u8> = (0..len as u64)
            .map(|i| {
                (seed ^ i.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xBF58_476D_1CE4_E5B9)
            })
            .map(|word| (word >> 56) as u8)
            .collect();
        self.write(at, &noise);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_live_ranges_are_touched() {
        let mut pinned = Pinned::default();
        let at = pinned.alloc(100, 1).unwrap();
        assert!(at.is_multiple_of(PAGE));
        assert!(pinned.write(at + 96, &[1, 2, 3, 4]));
        assert_eq!(pinned.read(at + 96, 4).unwrap(), [1, 2, 3, 4]);
        assert!(!pinned.write(at + 97, &[1, 2, 3, 4]), "one byte too far");
        assert!(pinned.read(at - 1, 1).is_none());
        assert!(!pinned.free(at + 1), "not the first address");
        assert!(pinned.free(at) && !pinned.free(at));
        assert!(pinned.read(at, 1).is_none());
    }
}

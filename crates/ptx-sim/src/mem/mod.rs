//! Global memory as the host sees it: allocations with exact bounds, never reused addresses.

use std::collections::HashMap;

use thiserror::Error;

use crate::check::region::Region;

/// Bits of an address that are the offset in an allocation; the number of the allocation is above.
pub(crate) const OFFSET_BITS: u32 = 40;
/// Start of a CTA's shared memory in its own space: 1,024-aligned and not zero, so that a null
/// address is never valid.
pub(crate) const SHARED_BASE: u64 = 0x400;
/// Where shared memory lies among generic addresses; no allocation reaches it.
pub(crate) const SHARED_WINDOW: u64 = 0x7E00_0000_0000_0000;
/// Start of the constants and of each thread's own memory in their spaces, and where these lie
/// among generic addresses.
pub(crate) const SMALL_BASE: u64 = 0x400;
pub(crate) const LOCAL_WINDOW: u64 = 0x7D00_0000_0000_0000;
pub(crate) const CONST_WINDOW: u64 = 0x7C00_0000_0000_0000;
/// Where parameters lie among generic addresses: a tensor map's address leads there.
pub(crate) const PARAM_WINDOW: u64 = 0x7B00_0000_0000_0000;
/// A shared address of another CTA of the cluster has its rank, plus one, above these bits.
pub(crate) const RANK_BITS: u32 = 24;
pub(crate) const RANK_MASK: u64 = (1 << RANK_BITS) - 1;
const MAX_ALLOCATIONS: usize = 1 << 22;

/// What the host asked of memory that memory cannot do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MemoryError {
    /// The address lies in no allocation, or in one that was freed.
    #[error("address {0:#x} lies in no live allocation")]
    BadAddress(u64),
    /// The range leaves its allocation.
    #[error("{len} bytes at offset {offset} leave an allocation of {size} bytes")]
    OutOfBounds {
        /// Offset in the allocation.
        offset: u64,
        /// Bytes asked for.
        len: u64,
        /// Bytes there are.
        size: u64,
    },
    /// An allocation of zero bytes, or more than the simulator holds.
    #[error("cannot allocate {0} bytes")]
    Size(u64),
    /// The host reads bytes that nobody wrote.
    #[error("byte {offset} of the allocation at {base:#x} was never written")]
    Uninitialised {
        /// First such byte.
        offset: u64,
        /// The allocation.
        base: u64,
    },
}

/// Global memory.
///
/// ```
/// let mut memory = ptx_sim::Memory::new();
/// let x = memory.alloc(8).unwrap();
/// memory.write(x, &[1, 2, 3, 4]).unwrap();
/// assert_eq!(memory.read(x, 4).unwrap(), [1, 2, 3, 4]);
/// assert!(memory.read(x, 8).is_err(), "four bytes were never written");
/// memory.free(x).unwrap();
/// assert!(memory.write(x, &[0]).is_err());
/// ```
#[derive(Debug, Default)]
pub struct Memory {
    regions: Vec<Option<Region>>,
    /// Where each module's global variables lie, by the module's id.
    modules: HashMap<u64, u64>,
}

impl Memory {
    /// Empty memory.
    pub fn new() -> Self {
        Memory::default()
    }

    /// `bytes` of uninitialised memory. Addresses are never used again, so use after free is seen.
    ///
    /// # Errors
    /// Zero bytes, or more than 16 GiB.
    pub fn alloc(&mut self, bytes: usize) -> Result<u64, MemoryError> {
        if bytes == 0 || bytes as u64 > 1 << 34 || self.regions.len() >= MAX_ALLOCATIONS {
            return Err(MemoryError::Size(bytes as u64));
        }
        self.regions.push(Some(Region::new(bytes)));
        Ok((self.regions.len() as u64) << OFFSET_BITS)
    }

    /// [`alloc`](Self::alloc) of which the host keeps only what is touched: for rows that lie
    /// gigabytes apart. Checks know its bytes as unwritten, code that leans on cleared memory may not
    /// notice.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    pub fn alloc_sparse(&mut self, bytes: usize) -> Result<u64, MemoryError> {
        let address = self.reserve(bytes)?;
        self.born(address, Region::sparse(bytes));
        Ok(address)
    }

    /// An address for `bytes` that [`born`](Self::born) will give memory.
    pub(crate) fn reserve(&mut self, bytes: usize) -> Result<u64, MemoryError> {
        if bytes == 0 || bytes as u64 > 1 << 34 || self.regions.len() >= MAX_ALLOCATIONS {
            return Err(MemoryError::Size(bytes as u64));
        }
        self.regions.push(None);
        Ok((self.regions.len() as u64) << OFFSET_BITS)
    }

    pub(crate) fn born(&mut self, address: u64, region: Region) {
        if let Some(slot) = self.regions.get_mut(split(address).0) {
            *slot = Some(region);
        }
    }

    /// Frees an allocation by its first address.
    ///
    /// # Errors
    /// The address is not the start of a live allocation.
    pub fn free(&mut self, address: u64) -> Result<(), MemoryError> {
        let (index, offset) = split(address);
        match self.regions.get_mut(index) {
            Some(slot @ Some(_)) if offset == 0 => {
                *slot = None;
                Ok(())
            }
            _ => Err(MemoryError::BadAddress(address)),
        }
    }

    pub(crate) fn range(
        &mut self,
        address: u64,
        len: usize,
    ) -> Result<(&mut Region, usize), MemoryError> {
        let (index, offset) = split(address);
        let region = self.region(index).ok_or(MemoryError::BadAddress(address))?;
        let size = region.len() as u64;
        if offset > size || size - offset < len as u64 {
            return Err(MemoryError::OutOfBounds { offset, len: len as u64, size });
        }
        Ok((region, offset as usize))
    }

    /// Writes from the host.
    ///
    /// # Errors
    /// The range is not inside one live allocation.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let (region, at) = self.range(address, bytes.len())?;
        region.mark_init(at, bytes.len());
        if let Some(to) = region.host(at, bytes.len()) {
            to.copy_from_slice(bytes);
        }
        Ok(())
    }

    /// Reads by the host.
    ///
    /// # Errors
    /// The range is not inside one live allocation, or holds bytes nobody wrote.
    pub fn read(&mut self, address: u64, len: usize) -> Result<Vec<u8>, MemoryError> {
        let (region, at) = self.range(address, len)?;
        if let Some(byte) = region.unwritten(at, len) {
            let base = address >> OFFSET_BITS << OFFSET_BITS;
            return Err(MemoryError::Uninitialised { offset: byte as u64, base });
        }
        Ok(region.host(at, len).map(|b| b.to_vec()).unwrap_or_default())
    }

    /// The address of a module's global variables, which are laid out when they are first asked for.
    pub(crate) fn globals(&mut self, module: u64, bytes: &[u8]) -> Result<u64, MemoryError> {
        if bytes.is_empty() {
            return Ok(0);
        }
        if let Some(&at) = self.modules.get(&module) {
            return Ok(at);
        }
        let at = self.alloc(bytes.len())?;
        self.write(at, bytes)?;
        self.modules.insert(module, at);
        Ok(at)
    }

    pub(crate) fn region(&mut self, index: usize) -> Option<&mut Region> {
        self.regions.get_mut(index)?.as_mut()
    }

    /// Forgets all accesses.
    pub(crate) fn forget(&mut self) {
        self.regions.iter_mut().flatten().for_each(Region::forget);
    }
}

/// Sectors of 32 bytes that one launch has touched, one bit each, by allocation.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    regions: Vec<(usize, Vec<u64>)>,
    /// The one found last: neighbouring accesses mostly go to the same.
    last: usize,
}

impl Touched {
    /// Marks a sector of all memory; true when it is the first touch.
    #[inline]
    pub(crate) fn first(&mut self, sector: u64) -> bool {
        let (index, at) = split(sector * 32);
        let sector = at as usize / 32;
        if self.regions.get(self.last).is_none_or(|r| r.0 != index) {
            self.last = self.regions.iter().position(|r| r.0 == index).unwrap_or_else(|| {
                self.regions.push((index, Vec::new()));
                self.regions.len() - 1
            });
        }
        let bits = &mut self.regions[self.last].1;
        let word = sector / 64;
        if bits.len() <= word {
            bits.resize(word + 1, 0);
        }
        let fresh = bits[word] >> (sector % 64) & 1 == 0;
        bits[word] |= 1 << (sector % 64);
        fresh
    }
}

/// Index of the allocation (0-based; far out of range for addresses below the first) and offset.
#[inline]
pub(crate) fn split(address: u64) -> (usize, u64) {
    (((address >> OFFSET_BITS) as usize).wrapping_sub(1), address & ((1 << OFFSET_BITS) - 1))
}

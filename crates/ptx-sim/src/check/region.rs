//! The one path to memory: a run of bytes with their bounds, alignment, initialised-ness and
//! shadow. Loads, stores, atomics, copies and fragments of every engine come through [`Region::access`].

use super::shadow::{Clash, Shadow, Who};

/// What is done to the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Read,
    Write,
    /// Reads and writes at once.
    Atomic,
}

#[derive(Debug)]
pub(crate) enum Refusal {
    /// The region's size.
    Bounds(u64),
    Misaligned,
    /// First byte that was never written.
    Uninitialised(u64),
    Clash(Clash),
}

/// Which checks are on. Bounds and alignment always are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checks {
    pub(crate) init: bool,
    pub(crate) races: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Region {
    data: Vec<u8>,
    /// One bit a byte.
    init: Vec<u8>,
    shadow: Shadow,
    /// Sectors of 32 bytes touched in this launch, one bit each.
    sectors: Vec<u64>,
}

impl Region {
    pub(crate) fn new(bytes: usize) -> Self {
        // A fixed pattern, not zero: code that leans on cleared memory must not look right even
        // with the check off.
        Region { data: vec![0xA5; bytes], init: vec![0; bytes.div_ceil(8)], ..Region::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.data.len()
    }

    /// Forgets a launch's accesses; contents and initialised-ness stay.
    pub(crate) fn end_launch(&mut self) {
        self.shadow.clear();
        self.sectors.clear();
    }

    /// The bytes, for the host.
    pub(crate) fn host(&mut self, at: usize, len: usize) -> Option<&mut [u8]> {
        self.data.get_mut(at..at.checked_add(len)?)
    }

    pub(crate) fn mark_init(&mut self, at: usize, size: usize) {
        let mut i = at;
        while i < at + size {
            if i.is_multiple_of(8) && i + 8 <= at + size {
                self.init[i / 8] = 0xFF;
                i += 8;
            } else {
                self.init[i / 8] |= 1 << (i % 8);
                i += 1;
            }
        }
    }

    /// First uninitialised byte of a range.
    pub(crate) fn unwritten(&self, at: usize, size: usize) -> Option<usize> {
        let mut i = at;
        while i < at + size {
            if i.is_multiple_of(8) && i + 8 <= at + size && self.init[i / 8] == 0xFF {
                i += 8;
            } else if self.init[i / 8] >> (i % 8) & 1 == 1 {
                i += 1;
            } else {
                return Some(i);
            }
        }
        None
    }

    /// Checks an access of `size` bytes (aligned to `align`) and records it; the bytes come back.
    #[inline]
    pub(crate) fn access(
        &mut self,
        at: u64,
        size: u32,
        align: u32,
        mode: Mode,
        checks: Checks,
        who: &Who<'_>,
    ) -> Result<&mut [u8], Refusal> {
        let len = self.data.len() as u64;
        if at >= len || len - at < u64::from(size) {
            return Err(Refusal::Bounds(len));
        }
        if !at.is_multiple_of(u64::from(align)) {
            return Err(Refusal::Misaligned);
        }
        let (at, size) = (at as usize, size as usize);
        // Races before initialised-ness: a byte still in flight is a race, not a forgotten store.
        if checks.races && size > 0 {
            self.shadow.touch(at, size, mode != Mode::Read, who).map_err(Refusal::Clash)?;
        }
        self.initialised(at, size, mode, checks)
    }

    /// An access to bytes that only one thread can name: everything but races.
    pub(crate) fn private(
        &mut self,
        at: u64,
        size: u32,
        align: u32,
        mode: Mode,
        checks: Checks,
    ) -> Result<&mut [u8], Refusal> {
        let len = self.data.len() as u64;
        if at >= len || len - at < u64::from(size) {
            return Err(Refusal::Bounds(len));
        }
        if !at.is_multiple_of(u64::from(align)) {
            return Err(Refusal::Misaligned);
        }
        self.initialised(at as usize, size as usize, mode, checks)
    }

    fn initialised(
        &mut self,
        at: usize,
        size: usize,
        mode: Mode,
        checks: Checks,
    ) -> Result<&mut [u8], Refusal> {
        if mode != Mode::Write
            && checks.init
            && let Some(byte) = self.unwritten(at, size)
        {
            return Err(Refusal::Uninitialised(byte as u64));
        }
        if mode == Mode::Write {
            self.mark_init(at, size);
        }
        Ok(&mut self.data[at..at + size])
    }

    /// Bytes of an access already checked, when an asynchronous copy lands.
    pub(crate) fn landed(&mut self, at: usize, size: usize) -> &mut [u8] {
        &mut self.data[at..at + size]
    }

    /// Marks a 32-byte sector; true when it is the first touch of the launch.
    pub(crate) fn first_touch(&mut self, sector: usize) -> bool {
        let word = sector / 64;
        if self.sectors.len() <= word {
            self.sectors.resize(word + 1, 0);
        }
        let fresh = self.sectors[word] >> (sector % 64) & 1 == 0;
        self.sectors[word] |= 1 << (sector % 64);
        fresh
    }
}

//! The one path to memory: a run of bytes with their bounds, alignment, initialised-ness and
//! shadow. Loads, stores, atomics, copies and fragments of every engine come through [`Region::access`].

use super::clock::Stamp;
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
}

impl Region {
    pub(crate) fn new(bytes: usize) -> Self {
        // A fixed pattern, not zero: code that leans on cleared memory must not look right even
        // with the check off.
        Region { data: vec![0xA5; bytes], init: vec![0; bytes.div_ceil(8)], ..Region::default() }
    }

    /// The same with zeros, which cost the host no memory until they are touched.
    pub(crate) fn sparse(bytes: usize) -> Self {
        Region { data: vec![0; bytes], init: vec![0; bytes.div_ceil(8)], ..Region::default() }
    }

    /// The same with bytes that depend on `seed`.
    pub(crate) fn seeded(bytes: usize, seed: u64) -> Self {
        let mut region = Region::new(bytes);
        for (i, word) in region.data.chunks_mut(8).enumerate() {
            let noise = crate::num::mix(seed, i as u64).to_le_bytes();
            word.copy_from_slice(&noise[..word.len()]);
        }
        region
    }

    /// Allocated in stream order: see [`Shadow::born`].
    pub(crate) fn born(&mut self, birth: Stamp) {
        self.shadow.born(birth);
    }

    /// Whether the region may be freed by `who`.
    pub(crate) fn settled(&self, who: &Who<'_>) -> Result<(), Clash> {
        self.shadow.settled(who)
    }

    /// An access that `known` does not hold: see [`Shadow::unknown`].
    pub(crate) fn unknown(&self, known: impl Fn(&Stamp) -> bool) -> Option<(Stamp, bool)> {
        self.shadow.unknown(known)
    }

    pub(crate) fn len(&self) -> usize {
        self.data.len()
    }

    /// Forgets all accesses; contents and initialised-ness stay.
    pub(crate) fn forget(&mut self) {
        self.shadow.clear();
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

    /// Checks and records an access to a run of bytes by a copy, a fill or the host. Bounds and
    /// initialised-ness are the caller's to look at.
    pub(crate) fn touch(
        &mut self,
        at: usize,
        size: usize,
        write: bool,
        who: &Who<'_>,
    ) -> Result<(), Clash> {
        if size == 0 { Ok(()) } else { self.shadow.touch(at, size, write, who) }
    }

    /// Which bytes of a run were written.
    pub(crate) fn written(&self, at: usize, size: usize) -> Vec<bool> {
        (at..at + size).map(|i| self.init[i / 8] >> (i % 8) & 1 == 1).collect()
    }

    /// The bytes became copies of bytes of which `written` were written.
    pub(crate) fn set_written(&mut self, at: usize, written: &[bool]) {
        for (i, &w) in (at..).zip(written) {
            let bit = 1 << (i % 8);
            if w { self.init[i / 8] |= bit } else { self.init[i / 8] &= !bit }
        }
    }
}

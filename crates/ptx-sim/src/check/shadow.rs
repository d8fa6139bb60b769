//! Shadow cells: the last write and the reads since, for every four bytes, and for single bytes
//! where an access was narrower. Pages appear when first touched.

use super::clock::{MARK_NC, Stamp, WarpClock};

/// Who accesses now.
pub(crate) struct Who<'a> {
    pub(crate) clock: &'a WarpClock,
    pub(crate) lane: u8,
    /// What is left in the cells.
    pub(crate) stamp: Stamp,
    /// Agents of a CTA, to tell whose CTA a stamp's agent belongs to.
    pub(crate) agents: u32,
}

impl Who<'_> {
    /// Two strong accesses whose scopes include each other do not race.
    fn both_strong(&self, other: &Stamp) -> bool {
        let (a, b) = (self.stamp.strength(), other.strength());
        a > 0
            && b > 0
            && ((a == 2 && b == 2) || self.stamp.agent / self.agents == other.agent / self.agents)
    }

    fn ordered(&self, other: &Stamp) -> bool {
        other.epoch == 0 || self.clock.knows(self.lane, other)
    }
}

/// What the shadow found wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Clash {
    /// The access conflicts with an unordered write (`true`) or read.
    Race(Stamp, bool),
    /// `.nc` meets a write of the same launch, in either order.
    NonCoherent(Stamp, bool),
}

#[derive(Clone, Copy, Default)]
struct Cell {
    write: Stamp,
    read: Stamp,
    /// Further unordered readers: index + 1 into `Shadow::more`.
    more: u32,
    /// Cells of single bytes: index + 1 into `Shadow::bytes`.
    split: u32,
}

const PAGE: usize = 1024;

#[derive(Default)]
pub(crate) struct Shadow {
    pages: Vec<Option<Box<[Cell; PAGE]>>>,
    more: Vec<Vec<Stamp>>,
    bytes: Vec<[Cell; 4]>,
}

impl std::fmt::Debug for Shadow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shadow({} pages)", self.pages.len())
    }
}

impl Shadow {
    pub(crate) fn clear(&mut self) {
        self.pages.clear();
        self.more.clear();
        self.bytes.clear();
    }

    /// Checks and records an access to `size` bytes at `at`.
    #[inline]
    pub(crate) fn touch(
        &mut self,
        at: usize,
        size: usize,
        write: bool,
        who: &Who<'_>,
    ) -> Result<(), Clash> {
        let last = (at + size - 1) / 4;
        if self.pages.len() <= last / PAGE {
            self.pages.resize_with(last / PAGE + 1, || None);
        }
        for granule in at / 4..=last {
            let Shadow { pages, more, bytes } = self;
            let page =
                pages[granule / PAGE].get_or_insert_with(|| Box::new([Cell::default(); PAGE]));
            let cell = &mut page[granule % PAGE];
            let (from, to) = (at.max(granule * 4), (at + size).min(granule * 4 + 4));
            if cell.split == 0 {
                if to - from == 4 {
                    touch(cell, more, write, who)?;
                    continue;
                }
                // The four bytes part ways: each starts from what was known of all.
                let mut parts = [*cell; 4];
                for part in &mut parts {
                    if part.more > 0 {
                        more.push(more[cell.more as usize - 1].clone());
                        part.more = more.len() as u32;
                    }
                }
                bytes.push(parts);
                *cell = Cell { split: bytes.len() as u32, ..Cell::default() };
            }
            let parts = &mut bytes[cell.split as usize - 1];
            for byte in from..to {
                touch(&mut parts[byte % 4], more, write, who)?;
            }
        }
        Ok(())
    }
}

#[inline]
fn touch(
    cell: &mut Cell,
    more: &mut Vec<Vec<Stamp>>,
    write: bool,
    who: &Who<'_>,
) -> Result<(), Clash> {
    if write { touch_write(cell, more, who) } else { touch_read(cell, more, who) }
}

#[inline]
fn touch_write(cell: &mut Cell, more: &mut [Vec<Stamp>], who: &Who<'_>) -> Result<(), Clash> {
    let fine = |s: &Stamp| who.ordered(s) || who.both_strong(s);
    if !fine(&cell.write) {
        return Err(Clash::Race(cell.write, true));
    }
    if cell.read.epoch != 0 {
        let others = if cell.more > 0 { more[cell.more as usize - 1].as_slice() } else { &[] };
        for read in std::iter::once(&cell.read).chain(others) {
            if read.packed & MARK_NC != 0 {
                return Err(Clash::NonCoherent(*read, false));
            }
            if !fine(read) {
                return Err(Clash::Race(*read, false));
            }
        }
        if cell.more > 0 {
            more[cell.more as usize - 1].clear();
        }
        cell.read = Stamp::default();
    }
    cell.write = who.stamp;
    Ok(())
}

#[inline]
fn touch_read(cell: &mut Cell, more: &mut Vec<Vec<Stamp>>, who: &Who<'_>) -> Result<(), Clash> {
    if cell.write.epoch != 0 {
        if who.stamp.packed & MARK_NC != 0 {
            return Err(Clash::NonCoherent(cell.write, true));
        }
        if !who.ordered(&cell.write) && !who.both_strong(&cell.write) {
            return Err(Clash::Race(cell.write, true));
        }
    }
    if note(&mut cell.read, who) {
        return Ok(());
    }
    if cell.more == 0 {
        more.push(Vec::new());
        cell.more = more.len() as u32;
    }
    let others = &mut more[cell.more as usize - 1];
    if !others.iter_mut().any(|old| note(old, who)) {
        others.push(who.stamp);
    }
    Ok(())
}

/// Puts the read into `old` if that loses nothing: the place is free, or holds the same agent's
/// read of the same epoch, or one that happened before.
#[inline]
fn note(old: &mut Stamp, who: &Who<'_>) -> bool {
    let new = who.stamp;
    if old.epoch == 0 {
        *old = new;
        return true;
    }
    // A strong read excuses more than a weak one, so they stay apart.
    let kin = old.strength() == new.strength();
    if old.agent == new.agent && old.epoch == new.epoch && kin {
        old.lanes |= new.lanes;
        old.packed |= new.packed & MARK_NC;
        return true;
    }
    if who.clock.knows(who.lane, old) {
        let nc = old.packed & MARK_NC;
        *old = new;
        old.packed |= nc;
        return true;
    }
    false
}

//! Shadow cells: the last write and the reads since, precise to the byte. Pages appear when first
//! touched.

use super::clock::{MARK_ALIKE, MARK_NC, MARK_WRITE, Stamp, WHOLE_WARP};
use super::warp_clock::WarpClock;

/// Who accesses now.
pub(crate) struct Who<'a> {
    pub(crate) clock: &'a WarpClock,
    pub(crate) lane: u8,
    /// What is left in the cells.
    pub(crate) stamp: Stamp,
    /// The access goes through the asynchronous proxy, to shared memory or else to global.
    pub(crate) proxy: Option<bool>,
    /// What an engine brings that touches many cells at once.
    pub(crate) wide: Option<&'a Wide<'a>>,
}

/// An access of many cells, whose neighbours mostly hold the same.
#[derive(Default)]
pub(crate) struct Wide<'a> {
    /// Who else must know: the other warps of a group that acts as one.
    pub(crate) others: &'a [&'a WarpClock],
    /// The last stamps that were found to be ordered before.
    found: [std::cell::Cell<(u32, u32, u32)>; 4],
    next: std::cell::Cell<usize>,
}

impl<'a> Wide<'a> {
    pub(crate) fn with(others: &'a [&'a WarpClock]) -> Self {
        Wide { others, ..Wide::default() }
    }

    #[inline]
    fn has(&self, s: &Stamp) -> bool {
        let key = (s.agent, s.epoch, s.lanes);
        self.found.iter().any(|k| k.get() == key)
    }

    fn add(&self, s: &Stamp) {
        let at = self.next.get();
        self.found[at].set((s.agent, s.epoch, s.lanes));
        self.next.set((at + 1) % self.found.len());
    }
}

impl Who<'_> {
    /// Two strong accesses whose scopes include each other do not race.
    fn both_strong(&self, other: &Stamp) -> bool {
        let mine = self.stamp.strength();
        mine > 0 && self.clock.includes(mine, other)
    }

    fn ordered(&self, other: &Stamp) -> bool {
        other.epoch == 0 || self.knows(other)
    }

    #[inline]
    fn knows(&self, other: &Stamp) -> bool {
        let Some(wide) = self.wide else { return self.clock.knows(self.lane, other) };
        if wide.has(other) {
            return true;
        }
        let known = self.clock.knows(self.lane, other)
            && wide.others.iter().all(|c| c.knows(WHOLE_WARP, other));
        if known {
            wide.add(other);
        }
        known
    }

    /// Whether the asynchronous proxy may see what was written.
    fn fenced(&self, write: &Stamp) -> bool {
        let Some(shared) = self.proxy else { return true };
        let others = self.wide.map_or(&[][..], |w| w.others);
        write.epoch == 0
            || (self.clock.fenced_for_proxy(self.lane, write, shared)
                && others.iter().all(|c| c.fenced_for_proxy(WHOLE_WARP, write, shared)))
    }
}

/// What the shadow found wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Clash {
    /// The access conflicts with an unordered write (`true`) or read.
    Race(Stamp, bool),
    /// `.nc` meets a write of the same launch, in either order.
    NonCoherent(Stamp, bool),
    /// The asynchronous proxy meets a generic write that no proxy fence covers.
    Proxy(Stamp),
}

#[derive(Clone, Copy, Default)]
struct Cell {
    write: Stamp,
    read: Stamp,
    /// Further unordered readers: index + 1 into `Shadow::more`.
    more: u32,
    /// The cells of the four parts: index + 1 into `Shadow::words` or `Shadow::bytes`.
    split: u32,
}

impl Cell {
    /// The four parts go their own ways; each starts from what was known of all.
    #[cold]
    fn part(&mut self, into: &mut Vec<[Cell; 4]>, more: &mut Vec<Vec<Stamp>>) {
        let mut parts = [*self; 4];
        if self.more > 0 {
            for part in &mut parts {
                more.push(more[self.more as usize - 1].clone());
                part.more = more.len() as u32;
            }
        }
        into.push(parts);
        *self = Cell { split: into.len() as u32, ..Cell::default() };
    }
}

/// Cells of a page, 16 bytes each.
const PAGE: usize = 256;

/// 16 bytes share a cell as long as accesses cover all of them, as fragments and vectors do; a
/// narrower access parts it into words, and one narrower still into bytes.
#[derive(Default)]
pub(crate) struct Shadow {
    /// What a cell says before anybody touched it: nothing, or the allocation.
    birth: Stamp,
    pages: Vec<Option<Box<[Cell; PAGE]>>>,
    more: Vec<Vec<Stamp>>,
    words: Vec<[Cell; 4]>,
    bytes: Vec<[Cell; 4]>,
}

impl std::fmt::Debug for Shadow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shadow({} pages)", self.pages.len())
    }
}

impl Shadow {
    pub(crate) fn clear(&mut self) {
        *self = Shadow::default();
    }

    /// An allocation in stream order: who is not ordered after it may not touch the bytes.
    pub(crate) fn born(&mut self, birth: Stamp) {
        self.birth = birth;
    }

    /// Checks that every access so far happened before `who`, as freeing the bytes demands.
    pub(crate) fn settled(&self, who: &Who<'_>) -> Result<(), Clash> {
        let fine = |s: &Stamp, write| {
            if who.ordered(s) { Ok(()) } else { Err(Clash::Race(*s, write)) }
        };
        fine(&self.birth, true)?;
        let parts = self.words.iter().chain(&self.bytes).flatten();
        for cell in self.pages.iter().flatten().flat_map(|p| p.iter()).chain(parts) {
            fine(&cell.write, true)?;
            fine(&cell.read, cell.read.packed & MARK_WRITE != 0)?;
        }
        for old in self.more.iter().flatten() {
            fine(old, old.packed & MARK_WRITE != 0)?;
        }
        Ok(())
    }

    /// The first access by another CTA that `known` does not hold: somebody may still be at the bytes
    /// of a CTA that ends.
    pub(crate) fn unknown(&self, known: impl Fn(&Stamp) -> bool) -> Option<(Stamp, bool)> {
        let open = |s: &Stamp| s.epoch != 0 && !known(s);
        let parts = self.words.iter().chain(&self.bytes).flatten();
        for cell in self.pages.iter().flatten().flat_map(|p| p.iter()).chain(parts) {
            for (stamp, write) in [(cell.write, true), (cell.read, false)] {
                if open(&stamp) {
                    return Some((stamp, write));
                }
            }
        }
        self.more.iter().flatten().find(|s| open(s)).map(|s| (*s, s.packed & MARK_WRITE != 0))
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
        let end = at + size;
        let last = (end - 1) / 16;
        if self.pages.len() <= last / PAGE {
            self.pages.resize_with(last / PAGE + 1, || None);
        }
        let Shadow { birth, pages, more, words, bytes } = self;
        let fresh = Cell { write: *birth, ..Cell::default() };
        for unit in at / 16..=last {
            let page = pages[unit / PAGE].get_or_insert_with(|| Box::new([fresh; PAGE]));
            let cell = &mut page[unit % PAGE];
            let (from, to) = (at.max(unit * 16), end.min(unit * 16 + 16));
            if cell.split == 0 {
                if to - from == 16 {
                    touch(cell, more, write, who)?;
                    continue;
                }
                cell.part(words, more);
            }
            let parts = &mut words[cell.split as usize - 1];
            for word in from / 4..=(to - 1) / 4 {
                let cell = &mut parts[word % 4];
                let (from, to) = (from.max(word * 4), to.min(word * 4 + 4));
                if cell.split == 0 {
                    if to - from == 4 {
                        touch(cell, more, write, who)?;
                        continue;
                    }
                    cell.part(bytes, more);
                }
                for byte in from..to {
                    touch(&mut bytes[cell.split as usize - 1][byte % 4], more, write, who)?;
                }
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
fn touch_write(cell: &mut Cell, more: &mut Vec<Vec<Stamp>>, who: &Who<'_>) -> Result<(), Clash> {
    let fine = |s: &Stamp| who.ordered(s) || who.both_strong(s);
    // Lanes that store the same at once leave the same stamp.
    let alike = who.stamp.packed & MARK_ALIKE != 0 && cell.write == who.stamp;
    if !alike && !fine(&cell.write) {
        return Err(Clash::Race(cell.write, true));
    }
    if !who.fenced(&cell.write) {
        return Err(Clash::Proxy(cell.write));
    }
    if cell.read.epoch != 0 {
        let others = if cell.more > 0 { more[cell.more as usize - 1].as_slice() } else { &[] };
        for old in std::iter::once(&cell.read).chain(others) {
            if old.packed & MARK_NC != 0 && !who.clock.earlier(old) {
                return Err(Clash::NonCoherent(*old, false));
            }
            if !fine(old) {
                return Err(Clash::Race(*old, old.packed & MARK_WRITE != 0));
            }
        }
    }
    if who.stamp.strength() > 0 {
        overtake(cell, more, who);
    } else {
        cell.read = Stamp::default();
        if cell.more > 0 {
            more[cell.more as usize - 1].clear();
        }
    }
    cell.write = who.stamp;
    Ok(())
}

/// A strong write may pass others that it is not ordered with; they stay known, so that a later
/// plain access is still held against them.
fn overtake(cell: &mut Cell, more: &mut Vec<Vec<Stamp>>, who: &Who<'_>) {
    let mut left = Vec::new();
    if cell.more > 0 {
        left = std::mem::take(&mut more[cell.more as usize - 1]);
    }
    left.push(cell.read);
    left.push(Stamp { packed: cell.write.packed | MARK_WRITE, ..cell.write });
    left.retain(|s| !who.ordered(s));
    cell.read = left.pop().unwrap_or_default();
    if cell.more == 0 {
        if left.is_empty() {
            return;
        }
        more.push(Vec::new());
        cell.more = more.len() as u32;
    }
    more[cell.more as usize - 1] = left;
}

#[inline]
fn touch_read(cell: &mut Cell, more: &mut Vec<Vec<Stamp>>, who: &Who<'_>) -> Result<(), Clash> {
    let weighed = |s: &Stamp| who.ordered(s) || who.both_strong(s);
    if cell.write.epoch != 0 {
        if who.stamp.packed & MARK_NC != 0 && !who.clock.earlier(&cell.write) {
            return Err(Clash::NonCoherent(cell.write, true));
        }
        if !weighed(&cell.write) {
            return Err(Clash::Race(cell.write, true));
        }
        if !who.fenced(&cell.write) {
            return Err(Clash::Proxy(cell.write));
        }
    }
    if cell.read.packed & MARK_WRITE != 0 && !weighed(&cell.read) {
        return Err(Clash::Race(cell.read, true));
    }
    if cell.more > 0 {
        let mut writes = more[cell.more as usize - 1].iter().filter(|s| s.packed & MARK_WRITE != 0);
        if let Some(write) = writes.find(|s| !weighed(s)) {
            return Err(Clash::Race(*write, true));
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
    let kin = old.strength() == new.strength() && old.packed & MARK_WRITE == 0;
    if old.agent == new.agent && old.epoch == new.epoch && kin {
        old.lanes |= new.lanes;
        old.packed |= new.packed & MARK_NC;
        return true;
    }
    if who.knows(old) {
        let nc = if who.clock.earlier(old) { 0 } else { old.packed & MARK_NC };
        *old = new;
        old.packed |= nc;
        return true;
    }
    false
}

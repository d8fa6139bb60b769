//! The mbarriers of a CTA: counts, phases, and what each phase publishes. Arrivals hand in what their
//! thread knows; a phase that completes hands it on to whoever waits for it. Copies that complete
//! here are stamped with the number of the phase they belong to, which nobody knows before the wait.

use std::collections::BTreeMap;

use crate::check::agents::BARRIERS;
use crate::check::clock::{Clock, Stamp};

/// Arrivals and transactions are counted in 20 bits.
pub(crate) const MOST: u64 = (1 << 20) - 1;

#[derive(Debug)]
pub(crate) struct Mbarrier {
    /// Arrivals of each phase; `arrive_drop` lowers it.
    expected: u32,
    pending: u32,
    tx: i64,
    /// Phases completed since the init.
    pub(crate) phase: u32,
    /// Number of its agent in the CTA, and the epoch of phase 0.
    pub(crate) agent: u32,
    base: u32,
    /// What all arrivals so far know, and what those of the completed phases knew.
    gathered: Clock,
    published: Clock,
    /// Arrivals from other CTAs in the phase that runs and the one before.
    remote: Vec<Stamp>,
    /// Copies that will signal this phase and have not landed.
    flying: u32,
    /// The init, and whether a fence has shown it to the asynchronous proxy.
    pub(crate) init: Stamp,
    pub(crate) visible: bool,
    /// Lanes that looked for a phase in vain, by parity: (rank of the warp, lane) and the phase.
    looked: Vec<((u32, u8), u32)>,
}

#[derive(Debug, Default)]
pub(crate) struct Mbarriers {
    live: BTreeMap<u32, Mbarrier>,
    /// Bytes between the first and the end of the last.
    span: (u64, u64),
    /// Agents given out, and the epoch that the next mbarrier on each begins with.
    slots: Vec<(u32, u32)>,
    /// Some phase has completed since the scheduler last looked.
    pub(crate) woken: bool,
}

/// A refused operation, in words.
pub(crate) type Said<T> = Result<T, String>;

impl Mbarriers {
    /// Whether bytes of shared memory belong to an mbarrier.
    #[inline]
    pub(crate) fn covers(&self, at: u64, size: u32) -> bool {
        at < self.span.1 && at + u64::from(size) > self.span.0 && self.hits(at, size)
    }

    fn hits(&self, at: u64, size: u32) -> bool {
        let end = (at + u64::from(size)).min(u64::from(u32::MAX)) as u32;
        let from = at.saturating_sub(7) as u32;
        self.live.range(from..end).next().is_some()
    }

    fn measure(&mut self) {
        let first = self.live.keys().next().map_or(0, |&k| u64::from(k));
        let last = self.live.keys().next_back().map_or(0, |&k| u64::from(k) + 8);
        self.span = (first, last);
    }

    pub(crate) fn get(&self, at: u32) -> Said<&Mbarrier> {
        self.live.get(&at).ok_or_else(|| format!("there is no mbarrier at byte {at}"))
    }

    pub(crate) fn get_mut(&mut self, at: u32) -> Said<&mut Mbarrier> {
        self.live.get_mut(&at).ok_or_else(|| format!("there is no mbarrier at byte {at}"))
    }

    /// `agent` numbers an engine of the CTA by its slot; `clean` is a clock of the CTA.
    pub(crate) fn init(
        &mut self,
        at: u32,
        count: u64,
        init: Stamp,
        clean: Clock,
        agent: impl Fn(u32) -> u32,
    ) -> Said<()> {
        if count == 0 || count > MOST {
            return Err(format!("a count of {count} is outside 1..={MOST}"));
        }
        if self.hits(u64::from(at), 8) {
            return Err(format!("byte {at} holds an mbarrier already: mbarrier.inval first"));
        }
        let slot = match self.slots.iter().position(|s| s.0 == at) {
            Some(slot) => slot,
            None if self.slots.len() as u32 == BARRIERS => {
                return Err(format!("more than {BARRIERS} mbarriers in a CTA are not simulated"));
            }
            None => {
                self.slots.push((at, 0));
                self.slots.len() - 1
            }
        };
        let barrier = Mbarrier {
            expected: count as u32,
            pending: count as u32,
            tx: 0,
            phase: 0,
            agent: agent(slot as u32),
            base: self.slots[slot].1,
            gathered: clean.clone(),
            published: clean,
            remote: Vec::new(),
            flying: 0,
            init,
            visible: false,
            looked: Vec::new(),
        };
        self.live.insert(at, barrier);
        self.measure();
        Ok(())
    }

    pub(crate) fn inval(&mut self, at: u32) -> Said<()> {
        let barrier = self.get(at)?;
        if barrier.flying > 0 || barrier.tx != 0 {
            return Err(format!(
                "invalidated with {} copies and {} bytes under way",
                barrier.flying, barrier.tx
            ));
        }
        let next = barrier.base + barrier.phase + 1;
        if let Some(slot) = self.slots.iter_mut().find(|s| s.0 == at) {
            slot.1 = next;
        }
        self.live.remove(&at);
        self.measure();
        Ok(())
    }

    /// Arrivals by a thread, which hands in what it knows; a phase that completes says so.
    pub(crate) fn arrive(&mut self, at: u32, count: u64, known: &Clock, drop: bool) -> Said<()> {
        let barrier = self.get_mut(at)?;
        if count == 0 || count > u64::from(barrier.pending) {
            return Err(format!(
                "{count} arrivals where phase {} waits for {} more",
                barrier.phase, barrier.pending
            ));
        }
        barrier.gathered.join(known);
        barrier.pending -= count as u32;
        if drop {
            barrier.expected = barrier.expected.saturating_sub(count as u32);
        }
        let done = barrier.settle()?;
        self.woken |= done;
        Ok(())
    }

    /// One more arrival is needed in this phase.
    pub(crate) fn raise(&mut self, at: u32) -> Said<()> {
        let barrier = self.get_mut(at)?;
        if u64::from(barrier.pending) >= MOST {
            return Err("the count of pending arrivals overflows".into());
        }
        barrier.pending += 1;
        Ok(())
    }

    /// Bytes that are announced (positive) or have come.
    pub(crate) fn transfer(&mut self, at: u32, bytes: i64) -> Said<()> {
        let barrier = self.get_mut(at)?;
        barrier.tx += bytes;
        if barrier.tx.unsigned_abs() > MOST {
            return Err(format!("a transaction count of {} leaves ±{MOST}", barrier.tx));
        }
        let done = if bytes < 0 { barrier.settle()? } else { false };
        self.woken |= done;
        Ok(())
    }

    /// A copy will complete here; the number that its accesses are stamped with, and the phase.
    pub(crate) fn depart(&mut self, at: u32) -> Said<(u32, u32, u32)> {
        let barrier = self.get_mut(at)?;
        barrier.flying += 1;
        Ok((barrier.agent, barrier.base + barrier.phase + 1, barrier.phase))
    }

    /// A copy of `bytes` that belongs to this phase has landed.
    pub(crate) fn land(&mut self, at: u32, bytes: u32) -> Said<()> {
        let barrier = self.get_mut(at)?;
        barrier.flying -= 1;
        self.transfer(at, -i64::from(bytes))
    }

    /// What must not be left when the CTA ends.
    pub(crate) fn unfinished(&self) -> Option<String> {
        self.live.iter().find(|(_, b)| b.flying > 0 || b.tx != 0).map(|(at, b)| {
            format!(
                "the CTA ends, and phase {} of the mbarrier at byte {at} has {} copies under way and a \
                 transaction count of {}",
                b.phase, b.flying, b.tx
            )
        })
    }

    /// An arrival from another CTA that nobody here can know to have happened.
    pub(crate) fn stray(&self, known: impl Fn(&Stamp) -> bool) -> Option<(u32, Stamp)> {
        let strays = self.live.iter().flat_map(|(at, b)| b.remote.iter().map(move |s| (*at, *s)));
        strays.into_iter().find(|(_, s)| !known(s))
    }

    pub(crate) fn describe(&self, at: u32) -> String {
        match self.live.get(&at) {
            Some(b) => format!(
                "waits for phase {} of the mbarrier at byte {at} ({} arrivals and {} bytes to come, {} \
                 copies under way)",
                b.phase, b.pending, b.tx, b.flying
            ),
            None => format!("waits for an mbarrier at byte {at} that is gone"),
        }
    }

    /// An init that its thread has fenced is seen by the asynchronous proxy and by other CTAs.
    pub(crate) fn show(&mut self, agent: u32, mask: u32) {
        for barrier in self.live.values_mut() {
            barrier.visible |= barrier.init.agent == agent && barrier.init.lanes & mask != 0;
        }
    }
}

impl Mbarrier {
    fn settle(&mut self) -> Said<bool> {
        if self.pending > 0 || self.tx != 0 {
            return Ok(false);
        }
        if self.flying > 0 {
            return Err(format!(
                "phase {} completes while {} copies that signal it are under way: fewer bytes are \
                 expected than come",
                self.phase, self.flying
            ));
        }
        self.phase += 1;
        self.pending = self.expected;
        self.gathered.raise(self.agent, self.base + self.phase);
        self.published = self.gathered.clone();
        Ok(true)
    }

    /// What the completed phases have handed on.
    pub(crate) fn published(&self) -> &Clock {
        &self.published
    }

    pub(crate) fn pending(&self) -> u32 {
        self.pending
    }

    /// The last arrival from each lane of another CTA stands for its earlier ones.
    pub(crate) fn note_remote(&mut self, stamp: Stamp) {
        self.remote.retain(|s| (s.agent, s.lanes) != (stamp.agent, stamp.lanes));
        self.remote.push(stamp);
    }

    /// Whether the phase of this parity is over; what it published.
    pub(crate) fn by_parity(&mut self, parity: u64, who: (u32, u8)) -> Said<Option<&Clock>> {
        if parity > 1 {
            return Err(format!("a parity of {parity}"));
        }
        let before =
            self.looked.iter().position(|l| l.0 == who).map(|i| self.looked.swap_remove(i).1);
        if let Some(phase) = before
            && self.phase >= phase + 2
            && u64::from(phase & 1) == parity
        {
            return Err(format!(
                "phases {phase} and {} completed while a thread waited for phase {phase}: by parity it \
                 cannot tell",
                phase + 1
            ));
        }
        if u64::from(self.phase & 1) != parity {
            return Ok(Some(&self.published));
        }
        self.looked.push((who, self.phase));
        Ok(None)
    }

    /// Whether the phase that returned `state` is over.
    pub(crate) fn by_state(&self, state: u64) -> Said<Option<&Clock>> {
        let phase = state as u32 ^ self.agent << 20;
        match self.phase.wrapping_sub(phase) {
            0 => Ok(None),
            1 => Ok(Some(&self.published)),
            _ => Err(format!(
                "the state {state:#x} is of no phase that can be waited for: {} runs",
                self.phase
            )),
        }
    }

    /// The state that an arrival returns, before it counted.
    pub(crate) fn state(&self) -> u64 {
        u64::from(self.phase ^ self.agent << 20) | u64::from(self.pending) << 32
    }
}

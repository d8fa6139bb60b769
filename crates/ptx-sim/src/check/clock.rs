//! Happens-before. An *agent* is a warp or its queue of asynchronous copies (room is left for more
//! engines: [`ENGINES`]). Every access is stamped with its agent's epoch; a clock says up to which
//! epoch an agent's accesses are known to have happened.
//!
//! A release by one lane publishes that lane's accesses only, so a clock keeps, beside the epochs
//! of whole warps, single lanes. A copy's stamp carries the *future* number of its group: nobody
//! knows it before a wait, its issuer included, so "in flight" needs no state of its own.
//!
//! Several launches share the numbers of agents. What is over before a launch begins is its
//! [`Past`]; launches that overlap learn of each other only through flags.

use std::sync::Arc;

use super::past::Past;

/// Agents of one warp: itself and its `cp.async` queue.
pub(crate) const ENGINES: u32 = 2;

/// Who did something, when, and where in the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) agent: u32,
    /// 0: nobody.
    pub(crate) epoch: u32,
    pub(crate) lanes: u32,
    /// pc in the low 24 bits, [`Strength`] and marks above.
    pub(crate) packed: u32,
}

/// Stands for a lane where an instruction reads for the whole warp: only what every lane knows counts.
pub(crate) const WHOLE_WARP: u8 = 32;

/// Mark of a read through `.nc`.
pub(crate) const MARK_NC: u32 = 1 << 28;

/// Mark of a write that was overtaken by an atomic or flag store it is not ordered with.
pub(crate) const MARK_WRITE: u32 = 1 << 29;

impl Stamp {
    pub(crate) fn pc(&self) -> u32 {
        self.packed & 0xFF_FFFF
    }

    /// 0 weak, 1 strong at CTA scope, 2 at GPU scope or wider.
    pub(crate) fn strength(&self) -> u32 {
        self.packed >> 24 & 3
    }

    pub(crate) fn pack(pc: u32, strength: u32) -> u32 {
        pc & 0xFF_FFFF | strength << 24
    }
}

/// What is known of everybody.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    /// First agent of the CTA that owns this clock.
    first: u32,
    local: Vec<u32>,
    /// Agents of other CTAs, sorted.
    remote: Vec<(u32, u32)>,
    /// Single lanes beyond what `local` and `remote` say of their warp.
    lanes: Vec<(u32, u8, u32)>,
    /// What was over before another launch that this one has heard of; mostly empty.
    pasts: Vec<Arc<Past>>,
}

impl Clock {
    pub(crate) fn new(first: u32, agents: u32) -> Self {
        Clock { first, local: vec![0; agents as usize], ..Clock::default() }
    }

    fn raise_past(&mut self, past: &Arc<Past>) {
        if !self.pasts.iter().any(|p| Arc::ptr_eq(p, past)) {
            self.pasts.push(Arc::clone(past));
        }
    }

    fn get(&self, agent: u32) -> u32 {
        match self.local.get(agent.wrapping_sub(self.first) as usize) {
            Some(&e) => e,
            None => match self.remote.binary_search_by_key(&agent, |r| r.0) {
                Ok(i) => self.remote[i].1,
                Err(_) => 0,
            },
        }
    }

    pub(crate) fn raise(&mut self, agent: u32, epoch: u32) {
        if epoch == 0 {
            return;
        }
        if let Some(e) = self.local.get_mut(agent.wrapping_sub(self.first) as usize) {
            *e = (*e).max(epoch);
            return;
        }
        match self.remote.binary_search_by_key(&agent, |r| r.0) {
            Ok(i) => self.remote[i].1 = self.remote[i].1.max(epoch),
            Err(i) => self.remote.insert(i, (agent, epoch)),
        }
    }

    pub(crate) fn raise_lane(&mut self, agent: u32, lane: u8, epoch: u32) {
        if epoch <= self.get(agent) {
            return;
        }
        match self.lanes.iter_mut().find(|l| l.0 == agent && l.1 == lane) {
            Some(l) => l.2 = l.2.max(epoch),
            None => self.lanes.push((agent, lane, epoch)),
        }
    }

    pub(crate) fn join(&mut self, other: &Clock) {
        if self.first == other.first && self.local.len() == other.local.len() {
            for (a, b) in self.local.iter_mut().zip(&other.local) {
                *a = (*a).max(*b);
            }
        } else {
            for (i, &e) in other.local.iter().enumerate() {
                self.raise(other.first + i as u32, e);
            }
        }
        for &(agent, e) in &other.remote {
            self.raise(agent, e);
        }
        for &(agent, lane, e) in &other.lanes {
            self.raise_lane(agent, lane, e);
        }
        for past in &other.pasts {
            self.raise_past(past);
        }
    }

    /// Whether all of `lanes` of the stamp's agent are known up to its epoch.
    fn covers(&self, stamp: &Stamp, lanes: u32) -> bool {
        if self.get(stamp.agent) >= stamp.epoch {
            return true;
        }
        if self.pasts.iter().any(|p| p.covers(stamp.agent)) {
            return true;
        }
        if self.lanes.is_empty() {
            return false;
        }
        (0..32u8).filter(|l| lanes >> l & 1 == 1).all(|lane| {
            self.lanes.iter().any(|l| l.0 == stamp.agent && l.1 == lane && l.2 >= stamp.epoch)
        })
    }
}

/// A warp's view: what all of its lanes know, and what single lanes learnt since the last warp-wide
/// synchronisation.
#[derive(Debug)]
pub(crate) struct WarpClock {
    pub(crate) agent: u32,
    pub(crate) epoch: u32,
    /// All agents below are over; `past` knows more.
    floor: u32,
    past: Arc<Past>,
    base: Clock,
    extra: [Option<Box<Clock>>; 32],
    /// Last group of asynchronous copies each lane has waited for.
    pub(crate) done: [u32; 32],
    /// Groups each lane has committed.
    pub(crate) committed: [u32; 32],
    /// What each lane had published at its last fence, and at which scope.
    fenced: [Option<Box<(Clock, u32)>>; 32],
    /// What each lane has read with relaxed loads since its last fence.
    seen: [Option<Box<Clock>>; 32],
}

impl WarpClock {
    pub(crate) fn new(past: &Arc<Past>, first: u32, agents: u32, agent: u32) -> Self {
        WarpClock {
            agent,
            epoch: 1,
            floor: past.floor(),
            past: Arc::clone(past),
            base: Clock::new(first, agents),
            extra: [const { None }; 32],
            done: [0; 32],
            committed: [0; 32],
            fenced: [const { None }; 32],
            seen: [const { None }; 32],
        }
    }

    /// Whether the stamped access belongs to something that was over before this launch began.
    #[inline]
    pub(crate) fn earlier(&self, stamp: &Stamp) -> bool {
        self.over(stamp.agent)
    }

    #[inline]
    fn over(&self, agent: u32) -> bool {
        agent < self.floor || self.past.covers(agent)
    }

    /// Names the warp's CTA among all CTAs of all launches: its first agent.
    pub(crate) fn cta(&self) -> u32 {
        self.base.first
    }

    pub(crate) fn same_cta(&self, stamp: &Stamp) -> bool {
        (stamp.agent.wrapping_sub(self.base.first) as usize) < self.base.local.len()
    }

    /// Whether `lane` knows that the stamped access has happened.
    #[inline]
    pub(crate) fn knows(&self, lane: u8, stamp: &Stamp) -> bool {
        if stamp.agent < self.floor {
            return true;
        }
        if lane == WHOLE_WARP {
            return self.base.covers(stamp, stamp.lanes) || (0..32).all(|l| self.knows(l, stamp));
        }
        let mut lanes = stamp.lanes;
        if stamp.agent == self.agent {
            // Program order.
            lanes &= !(1 << lane);
        } else if stamp.agent == self.agent + 1 && stamp.epoch <= self.done[lane as usize] {
            lanes &= !(1 << lane);
        }
        if lanes == 0 || self.base.covers(stamp, lanes) {
            return true;
        }
        self.extra[lane as usize].as_ref().is_some_and(|c| c.covers(stamp, lanes))
            || self.past.covers(stamp.agent)
    }

    /// All that one lane may hand on: what it knows, and its own accesses up to now.
    pub(crate) fn release(&mut self, lane: u8) -> Clock {
        let mut out = self.base.clone();
        if let Some(extra) = &self.extra[lane as usize] {
            out.join(extra);
        }
        out.raise_lane(self.agent, lane, self.epoch);
        out.raise_lane(self.agent + 1, lane, self.done[lane as usize]);
        out.raise_past(&self.past);
        self.epoch += 1;
        out
    }

    pub(crate) fn acquire(&mut self, lane: u8, clock: &Clock) {
        if self.over(clock.first) {
            // Published by an earlier launch: it and all that it knew are over.
            return;
        }
        let (first, agents) = (self.base.first, self.base.local.len() as u32);
        let extra =
            self.extra[lane as usize].get_or_insert_with(|| Box::new(Clock::new(first, agents)));
        extra.join(clock);
        extra.pasts.retain(|p| !Arc::ptr_eq(p, &self.past));
    }

    /// All lanes of the warp have met: what one knows or did, all know.
    pub(crate) fn meet(&mut self) {
        for lane in 0..32 {
            if let Some(extra) = self.extra[lane].take() {
                self.base.join(&extra);
            }
        }
        self.base.raise(self.agent, self.epoch);
        let least = self.done.iter().copied().min().unwrap_or(0);
        self.base.raise(self.agent + 1, least);
        for lane in 0..32 {
            if self.done[lane] > least {
                self.base.raise_lane(self.agent + 1, lane as u8, self.done[lane]);
            }
        }
        // Lanes that this raised above are no longer exceptions.
        let Clock { local, lanes, first, .. } = &mut self.base;
        lanes.retain(|l| local.get(l.0.wrapping_sub(*first) as usize).is_none_or(|&e| e < l.2));
        self.epoch += 1;
    }

    /// Some lanes have met (`bar.warp.sync` with a mask).
    pub(crate) fn meet_some(&mut self, mask: u32) {
        let mut all = Clock::new(self.base.first, self.base.local.len() as u32);
        for lane in (0..32u8).filter(|l| mask >> l & 1 == 1) {
            if let Some(extra) = &self.extra[lane as usize] {
                all.join(extra);
            }
            all.raise_lane(self.agent, lane, self.epoch);
            all.raise_lane(self.agent + 1, lane, self.done[lane as usize]);
        }
        for lane in (0..32u8).filter(|l| mask >> l & 1 == 1) {
            self.acquire(lane, &all);
        }
        self.epoch += 1;
    }

    pub(crate) fn base(&self) -> &Clock {
        &self.base
    }

    /// Takes over what a barrier gathered.
    pub(crate) fn learn(&mut self, all: &Clock) {
        self.base.join(all);
    }

    pub(crate) fn fence(&mut self, lane: u8, strength: u32) {
        if let Some(seen) = self.seen[lane as usize].take() {
            self.acquire(lane, &seen);
        }
        let published = self.release(lane);
        self.fenced[lane as usize] = Some(Box::new((published, strength)));
    }

    /// What a relaxed store hands on: everything before the lane's last fence of that scope.
    pub(crate) fn fenced(&self, lane: u8) -> Option<&(Clock, u32)> {
        self.fenced[lane as usize].as_deref()
    }

    /// A relaxed load saw what `clock` published; it counts from the lane's next fence on.
    pub(crate) fn see(&mut self, lane: u8, clock: &Clock) {
        if self.over(clock.first) {
            return;
        }
        let (first, agents) = (self.base.first, self.base.local.len() as u32);
        self.seen[lane as usize]
            .get_or_insert_with(|| Box::new(Clock::new(first, agents)))
            .join(clock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(agent: u32, epoch: u32, lanes: u32) -> Stamp {
        Stamp { agent, epoch, lanes, packed: 0 }
    }

    fn none() -> Arc<Past> {
        Arc::new(Past::new())
    }

    fn until(end: u32) -> Arc<Past> {
        let mut past = Past::new();
        past.add(0..end);
        Arc::new(past)
    }

    #[test]
    fn an_earlier_launch_is_over() {
        let w = WarpClock::new(&until(8), 8, 4, 8);
        assert!(w.knows(0, &stamp(7, 900, u32::MAX)));
        assert!(!w.knows(0, &stamp(10, 1, 1)), "another warp of its own launch");
        assert!(!w.knows(0, &stamp(12, 1, 1)), "a launch it does not know");
        assert!(w.earlier(&stamp(7, 900, 1)) && !w.earlier(&stamp(8, 1, 1)));
    }

    #[test]
    fn a_flag_between_launches_hands_on_what_came_before_the_writer() {
        // The writer's launch came after agents 0..8, the reader's after nothing.
        let mut writer = WarpClock::new(&until(8), 8, 4, 8);
        let mut reader = WarpClock::new(&none(), 20, 4, 20);
        let published = writer.release(0);
        reader.acquire(3, &published);
        assert!(reader.knows(3, &stamp(8, 1, 1)), "the writer's own access");
        assert!(reader.knows(3, &stamp(2, 5, u32::MAX)), "what the writer's launch came after");
        assert!(!reader.knows(4, &stamp(2, 5, u32::MAX)), "lane 4 did not acquire");
    }

    #[test]
    fn a_lane_releases_only_itself() {
        let mut writer = WarpClock::new(&none(), 0, 4, 0);
        let mut reader = WarpClock::new(&none(), 0, 4, 2);
        let published = writer.release(5);
        reader.acquire(7, &published);
        assert!(reader.knows(7, &stamp(0, 1, 1 << 5)));
        assert!(!reader.knows(7, &stamp(0, 1, 1 << 4)), "lane 4 did not release");
        assert!(!reader.knows(6, &stamp(0, 1, 1 << 5)), "lane 6 did not acquire");
        assert!(!reader.knows(7, &stamp(0, 2, 1 << 5)), "what came after the release");
    }

    #[test]
    fn a_meeting_makes_it_common() {
        let mut w = WarpClock::new(&none(), 0, 4, 0);
        assert!(!w.knows(1, &stamp(0, 1, 1)));
        w.meet();
        assert!(w.knows(1, &stamp(0, 1, 1)));
        let published = w.release(0);
        let mut far = WarpClock::new(&none(), 100, 4, 100);
        far.acquire(0, &published);
        far.meet();
        assert!(far.knows(31, &stamp(0, 1, u32::MAX)));
    }

    #[test]
    fn copies_belong_to_the_lane_that_waited() {
        let mut w = WarpClock::new(&none(), 0, 4, 0);
        w.done[3] = 1;
        assert!(w.knows(3, &stamp(1, 1, 1 << 3)));
        assert!(!w.knows(4, &stamp(1, 1, 1 << 3)));
        w.meet();
        assert!(w.knows(4, &stamp(1, 1, 1 << 3)));
        assert!(!w.knows(4, &stamp(1, 1, 1 << 2)));
    }

    #[test]
    fn partial_meetings_stay_partial() {
        let mut w = WarpClock::new(&none(), 0, 4, 0);
        w.meet_some(0b11);
        assert!(w.knows(0, &stamp(0, 1, 0b10)));
        assert!(!w.knows(2, &stamp(0, 1, 0b10)));
        assert!(!w.knows(0, &stamp(0, 1, 0b100)));
    }
}

//! What one warp knows: what all of its lanes do, and what single lanes learnt since they last met.
//! Barriers, flags, mbarriers and fences move it through [`Clock`]s; the shadow asks it.

use std::sync::Arc;

use super::agents::{Agents, Kind};
use super::clock::{CLUSTER, CTA, Clock, MARK_ASYNC, Stamp, WHOLE_WARP};
use super::past::Past;

/// A warp's view: what all of its lanes know, and what single lanes learnt since the last warp-wide
/// synchronisation.
#[derive(Debug)]
pub(crate) struct WarpClock {
    pub(crate) agent: u32,
    pub(crate) epoch: u32,
    /// First agent of its CTA, and how these are numbered.
    cta: u32,
    pub(crate) agents: Agents,
    /// The agent of this warp's `mbarrier.init`; its own number where there is none.
    inits: u32,
    /// All agents below are over; `past` knows more.
    floor: u32,
    past: Arc<Past>,
    base: Clock,
    extra: [Option<Box<Clock>>; 32],
    /// Last group of asynchronous copies each lane has waited for.
    pub(crate) done: [u32; 32],
    /// Groups each lane has committed.
    pub(crate) committed: [u32; 32],
    /// Numbers among these that an mbarrier took and no commit did: lane and number.
    pub(crate) phantoms: Vec<(u8, u32)>,
    /// Up to which epoch each lane's proxy fences have covered its own writes to shared memory, and up
    /// to which group its copies.
    proxied: [[u32; 2]; 32],
    /// What each lane had published at its last fence, and at which scope.
    fenced: [Option<Box<(Clock, u32)>>; 32],
    /// What each lane has read with relaxed loads since its last fence.
    seen: [Option<Box<Clock>>; 32],
}

/// Where a warp stands among all agents.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// First agent of the cluster, and its CTAs.
    pub(crate) first: u32,
    pub(crate) ctas: u32,
    /// The CTA's rank.
    pub(crate) rank: u32,
    pub(crate) agents: Agents,
}

impl Place {
    pub(crate) fn cta(&self) -> u32 {
        self.first + self.rank * self.agents.count()
    }

    pub(crate) fn clock(&self) -> Clock {
        Clock::new(self.first, self.ctas * self.agents.count(), self.cta())
    }
}

impl WarpClock {
    pub(crate) fn new(past: &Arc<Past>, place: Place, warp: u32) -> Self {
        let (cta, agents) = (place.cta(), place.agents);
        WarpClock {
            agent: cta + agents.warp(warp),
            epoch: 1,
            cta,
            agents,
            inits: cta + agents.inits(warp),
            floor: past.floor(),
            past: Arc::clone(past),
            base: place.clock(),
            extra: [const { None }; 32],
            done: [0; 32],
            committed: [0; 32],
            phantoms: Vec::new(),
            proxied: [[0; 2]; 32],
            fenced: [const { None }; 32],
            seen: [const { None }; 32],
        }
    }

    /// Something with one agent and no lanes: a copy, the host.
    pub(crate) fn single(past: &Arc<Past>, agent: u32) -> Self {
        let place = Place { first: agent, ctas: 1, rank: 0, agents: Agents::new(1, false) };
        WarpClock::new(past, place, 0)
    }

    /// The number up to which a lane's copies are done when all but the last `left` committed groups
    /// are: numbers that an mbarrier took are no groups, and belong to the next one.
    pub(crate) fn waited(&self, lane: u8, left: u32) -> u32 {
        let mut number = self.committed[lane as usize];
        let phantom = |number: u32| self.phantoms.contains(&(lane, number));
        for _ in 0..left {
            while phantom(number) {
                number -= 1;
            }
            number = number.saturating_sub(1);
        }
        // What no commit has taken yet is not waited for.
        while phantom(number) {
            number -= 1;
        }
        number
    }

    /// Where the engine `at` of this CTA stands.
    pub(crate) fn engine(&self, at: u32) -> u32 {
        self.cta + at
    }

    /// The number that `mbarrier.init` leaves in the cells.
    pub(crate) fn inits(&self) -> u32 {
        self.inits
    }

    /// A clock of this CTA that knows nothing.
    pub(crate) fn clean(&self) -> Clock {
        Clock::new(self.base.first, self.base.local.len() as u32, self.cta)
    }

    /// The launches that this one waited for while it ran (`griddepcontrol.wait`).
    pub(crate) fn follow(&mut self, past: &Arc<Past>) {
        (self.floor, self.past) = (past.floor(), Arc::clone(past));
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
        self.cta
    }

    /// The CTA of a rank of this cluster.
    pub(crate) fn cta_of(&self, rank: u32) -> u32 {
        self.base.first + rank * self.agents.count()
    }

    pub(crate) fn same_cta(&self, stamp: &Stamp) -> bool {
        stamp.agent.wrapping_sub(self.cta) < self.agents.count()
    }

    fn same_cluster(&self, stamp: &Stamp) -> bool {
        (stamp.agent.wrapping_sub(self.base.first) as usize) < self.base.local.len()
    }

    /// Whether two strengths, mine and that of `stamp`, include each other's threads.
    pub(crate) fn includes(&self, mine: u32, stamp: &Stamp) -> bool {
        match mine.min(stamp.strength()) {
            0 => false,
            CTA => self.same_cta(stamp),
            CLUSTER => self.same_cluster(stamp),
            _ => true,
        }
    }

    /// Whether the stamped access was made through the generic proxy.
    pub(crate) fn generic(&self, stamp: &Stamp) -> bool {
        if !self.same_cluster(stamp) {
            return stamp.packed & MARK_ASYNC == 0;
        }
        self.agents.is_generic(self.within(stamp))
    }

    fn within(&self, stamp: &Stamp) -> u32 {
        (stamp.agent - self.base.first) % self.agents.count()
    }

    /// Whether the asynchronous proxy may follow a generic write that happened before: in shared
    /// memory its writer has fenced, in global memory somebody of this CTA has since.
    pub(crate) fn fenced_for_proxy(&self, lane: u8, stamp: &Stamp, shared: bool) -> bool {
        if !self.generic(stamp) || self.over(stamp.agent) {
            return true;
        }
        if lane == WHOLE_WARP {
            return (0..32).all(|l| self.fenced_for_proxy(l, stamp, shared));
        }
        let extra = self.extra[lane as usize].as_deref();
        if shared && self.same_cluster(stamp) {
            let proxy = Stamp { agent: stamp.agent + self.agents.proxied(), ..*stamp };
            let mut lanes = stamp.lanes;
            let own = stamp.agent.wrapping_sub(self.agent) as usize;
            if own < 2 && stamp.epoch <= self.proxied[lane as usize][own] {
                lanes &= !(1 << lane);
            }
            return lanes == 0
                || self.base.covers(&proxy, lanes)
                || extra.is_some_and(|c| c.covers(&proxy, lanes));
        }
        let view = |c: &Clock| c.view.as_ref().is_some_and(|v| v.covers(stamp, stamp.lanes));
        view(&self.base) || extra.is_some_and(view)
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
        if stamp.agent == self.agent || stamp.agent == self.inits {
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
        if self.inits != self.agent {
            out.raise_lane(self.inits, lane, self.epoch);
            self.hand_on_fences(&mut out, lane);
        }
        out.raise_past(&self.past);
        self.epoch += 1;
        out
    }

    /// [`release`](Self::release) by all of `mask` at once.
    pub(crate) fn release_all(&mut self, mask: u32) -> Clock {
        let mut out = self.base.clone();
        for lane in (0..32u8).filter(|l| mask >> l & 1 == 1) {
            if let Some(extra) = &self.extra[lane as usize] {
                out.join(extra);
            }
        }
        if mask == u32::MAX {
            out.raise(self.agent, self.epoch);
            out.raise(self.inits, self.epoch);
        }
        for lane in (0..32u8).filter(|l| mask >> l & 1 == 1) {
            out.raise_lane(self.agent, lane, self.epoch);
            out.raise_lane(self.inits, lane, self.epoch);
            out.raise_lane(self.agent + 1, lane, self.done[lane as usize]);
            self.hand_on_fences(&mut out, lane);
        }
        out.raise_past(&self.past);
        self.epoch += 1;
        out
    }

    /// What a lane's proxy fences have covered goes with what it hands on.
    fn hand_on_fences(&self, out: &mut Clock, lane: u8) {
        if self.inits != self.agent {
            let by = self.agents.proxied();
            let [writes, copies] = self.proxied[lane as usize];
            out.raise_lane(self.agent + by, lane, writes);
            out.raise_lane(self.agent + 1 + by, lane, copies);
        }
    }

    /// What a relaxed arrival at a cluster's barrier may hand on after `fence.mbarrier_init`: the
    /// initialisations alone.
    pub(crate) fn release_inits(&mut self, lane: u8) {
        let mut published = self.clean();
        published.raise_lane(self.inits, lane, self.epoch);
        self.epoch += 1;
        match &mut self.fenced[lane as usize] {
            Some(old) => old.0.join(&published),
            none => *none = Some(Box::new((published, CLUSTER))),
        }
    }

    /// A proxy fence by `mask`: own writes to shared memory, and those of other CTAs that the lane
    /// knows; in global memory all that it knows.
    pub(crate) fn fence_proxy(&mut self, mask: u32, shared: bool, global: bool) {
        let epoch = self.epoch;
        let whole = mask == u32::MAX;
        let least = self.done.iter().copied().min().unwrap_or(0);
        if shared {
            for lane in (0..32).filter(|l| mask >> l & 1 == 1) {
                self.proxied[lane] = [epoch, self.done[lane]];
            }
        }
        if whole && shared {
            let known = self.base.clone();
            self.base.fence_others(&known, self.agents);
        }
        if whole && global {
            let mut seen = self.base.clone();
            seen.raise(self.agent, epoch);
            seen.raise(self.agent + 1, least);
            seen.raise_past(&self.past);
            self.base.add_view(seen);
        }
        for lane in (0..32u8).filter(|l| mask >> l & 1 == 1) {
            if whole && self.extra[lane as usize].is_none() {
                continue;
            }
            let mut extra =
                self.extra[lane as usize].take().unwrap_or_else(|| Box::new(self.clean()));
            let mut known = self.base.clone();
            known.join(&extra);
            let done = self.done[lane as usize];
            if shared {
                extra.fence_others(&known, self.agents);
            }
            if global {
                known.raise_lane(self.agent, lane, epoch);
                known.raise_lane(self.agent + 1, lane, done);
                known.raise_past(&self.past);
                extra.add_view(known);
            }
            self.extra[lane as usize] = Some(extra);
        }
        self.epoch += 1;
    }

    /// Of its own CTA's warps and their queues, whose ends are looked at elsewhere; or of something that
    /// was over before.
    pub(crate) fn own_or_over(&self, stamp: &Stamp) -> bool {
        let waited = self.same_cta(stamp)
            && !matches!(self.agents.kind(stamp.agent - self.cta), Kind::Barrier(_));
        waited || self.over(stamp.agent)
    }

    /// Whether somebody whose knowledge is `clock` knows the stamped access.
    pub(crate) fn known_to(clock: &Clock, stamp: &Stamp) -> bool {
        clock.covers(stamp, stamp.lanes)
    }

    pub(crate) fn acquire(&mut self, lane: u8, clock: &Clock) {
        if self.over(clock.first) {
            // Published by an earlier launch: it and all that it knew are over.
            return;
        }
        let (first, agents) = (self.base.first, self.base.local.len() as u32);
        let cta = self.cta;
        let extra = self.extra[lane as usize]
            .get_or_insert_with(|| Box::new(Clock::new(first, agents, cta)));
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
        self.base.raise(self.inits, self.epoch);
        let least = self.done.iter().copied().min().unwrap_or(0);
        self.base.raise(self.agent + 1, least);
        for lane in 0..32 {
            if self.done[lane] > least {
                self.base.raise_lane(self.agent + 1, lane as u8, self.done[lane]);
            }
        }
        if self.inits != self.agent {
            let by = self.agents.proxied();
            for (i, agent) in [self.agent + by, self.agent + 1 + by].into_iter().enumerate() {
                let least = self.proxied.iter().map(|p| p[i]).min().unwrap_or(0);
                self.base.raise(agent, least);
                for lane in 0..32 {
                    self.base.raise_lane(agent, lane as u8, self.proxied[lane][i]);
                }
            }
        }
        // Lanes that this raised above are no longer exceptions.
        let Clock { local, lanes, first, .. } = &mut self.base;
        lanes.retain(|l| local.get(l.0.wrapping_sub(*first) as usize).is_none_or(|&e| e < l.2));
        self.epoch += 1;
    }

    /// Some lanes have met (`bar.warp.sync` with a mask).
    pub(crate) fn meet_some(&mut self, mask: u32) {
        let mut all = self.clean();
        for lane in (0..32u8).filter(|l| mask >> l & 1 == 1) {
            if let Some(extra) = &self.extra[lane as usize] {
                all.join(extra);
            }
            all.raise_lane(self.agent, lane, self.epoch);
            all.raise_lane(self.inits, lane, self.epoch);
            all.raise_lane(self.agent + 1, lane, self.done[lane as usize]);
            self.hand_on_fences(&mut all, lane);
        }
        for lane in (0..32u8).filter(|l| mask >> l & 1 == 1) {
            self.acquire(lane, &all);
        }
        self.epoch += 1;
    }

    /// All lanes know an engine of their CTA up to an epoch.
    pub(crate) fn know(&mut self, engine: u32, epoch: u32) {
        self.base.raise(self.cta + engine, epoch);
    }

    pub(crate) fn base(&self) -> &Clock {
        &self.base
    }

    /// Takes over what a barrier gathered.
    pub(crate) fn learn(&mut self, all: &Clock) {
        self.base.join(all);
    }

    pub(crate) fn fence(&mut self, lane: u8, strength: u32, sc: bool) {
        if let Some(seen) = self.seen[lane as usize].take() {
            self.acquire(lane, &seen);
        }
        if let Some(others) = self.sc(lane).filter(|_| sc) {
            self.acquire(lane, &others);
        }
        let mut published = self.release(lane);
        if sc {
            let known = published.sc.take();
            let mut all = self.clean();
            all.add_sc(&published);
            published.sc = known;
            self.acquire(lane, &all);
        }
        self.fenced[lane as usize] = Some(Box::new((published, strength)));
    }

    /// What `fence.sc` has published, as far as the lane has seen.
    fn sc(&self, lane: u8) -> Option<Clock> {
        let extra = self.extra[lane as usize].as_ref().and_then(|c| c.sc.as_deref());
        let mut known = self.base.sc.as_deref().or(extra)?.clone();
        if let Some(extra) = extra {
            known.join(extra);
        }
        Some(known)
    }

    /// The same as a clock that knows nothing else.
    pub(crate) fn sc_alone(&self, lane: u8) -> Option<Clock> {
        let known = self.sc(lane)?;
        let mut clock = self.clean();
        clock.add_sc(&known);
        Some(clock)
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
        let cta = self.cta;
        self.seen[lane as usize]
            .get_or_insert_with(|| Box::new(Clock::new(first, agents, cta)))
            .join(clock);
        if let Some(sc) = &clock.sc {
            self.extra[lane as usize]
                .get_or_insert_with(|| Box::new(Clock::new(first, agents, cta)))
                .add_sc(sc);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(agent: u32, epoch: u32, lanes: u32) -> Stamp {
        Stamp { agent, epoch, lanes, packed: 0 }
    }

    /// One of two warps of a CTA.
    fn warp(past: &Arc<Past>, first: u32, warp: u32) -> WarpClock {
        let agents = Agents::new(2, false);
        WarpClock::new(past, Place { first, ctas: 1, rank: 0, agents }, warp)
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
        let w = warp(&until(8), 8, 0);
        assert!(w.knows(0, &stamp(7, 900, u32::MAX)));
        assert!(!w.knows(0, &stamp(10, 1, 1)), "another warp of its own launch");
        assert!(!w.knows(0, &stamp(12, 1, 1)), "a launch it does not know");
        assert!(w.earlier(&stamp(7, 900, 1)) && !w.earlier(&stamp(8, 1, 1)));
    }

    #[test]
    fn a_flag_between_launches_hands_on_what_came_before_the_writer() {
        // The writer's launch came after agents 0..8, the reader's after nothing.
        let mut writer = warp(&until(8), 8, 0);
        let mut reader = warp(&none(), 20, 0);
        let published = writer.release(0);
        reader.acquire(3, &published);
        assert!(reader.knows(3, &stamp(8, 1, 1)), "the writer's own access");
        assert!(reader.knows(3, &stamp(2, 5, u32::MAX)), "what the writer's launch came after");
        assert!(!reader.knows(4, &stamp(2, 5, u32::MAX)), "lane 4 did not acquire");
    }

    #[test]
    fn a_lane_releases_only_itself() {
        let mut writer = warp(&none(), 0, 0);
        let mut reader = warp(&none(), 0, 1);
        let published = writer.release(5);
        reader.acquire(7, &published);
        assert!(reader.knows(7, &stamp(0, 1, 1 << 5)));
        assert!(!reader.knows(7, &stamp(0, 1, 1 << 4)), "lane 4 did not release");
        assert!(!reader.knows(6, &stamp(0, 1, 1 << 5)), "lane 6 did not acquire");
        assert!(!reader.knows(7, &stamp(0, 2, 1 << 5)), "what came after the release");
    }

    #[test]
    fn a_meeting_makes_it_common() {
        let mut w = warp(&none(), 0, 0);
        assert!(!w.knows(1, &stamp(0, 1, 1)));
        w.meet();
        assert!(w.knows(1, &stamp(0, 1, 1)));
        let published = w.release(0);
        let mut far = warp(&none(), 100, 0);
        far.acquire(0, &published);
        far.meet();
        assert!(far.knows(31, &stamp(0, 1, u32::MAX)));
    }

    #[test]
    fn copies_belong_to_the_lane_that_waited() {
        let mut w = warp(&none(), 0, 0);
        w.done[3] = 1;
        assert!(w.knows(3, &stamp(1, 1, 1 << 3)));
        assert!(!w.knows(4, &stamp(1, 1, 1 << 3)));
        w.meet();
        assert!(w.knows(4, &stamp(1, 1, 1 << 3)));
        assert!(!w.knows(4, &stamp(1, 1, 1 << 2)));
    }

    #[test]
    fn partial_meetings_stay_partial() {
        let mut w = warp(&none(), 0, 0);
        w.meet_some(0b11);
        assert!(w.knows(0, &stamp(0, 1, 0b10)));
        assert!(!w.knows(2, &stamp(0, 1, 0b10)));
        assert!(!w.knows(0, &stamp(0, 1, 0b100)));
    }
}

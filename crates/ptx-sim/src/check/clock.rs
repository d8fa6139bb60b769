//! Happens-before. An *agent* is a warp or an engine that works beside it (see [`Agents`]). Every access is stamped with its agent's epoch; a clock says up to which
//! epoch an agent's accesses are known to have happened.
//!
//! A release by one lane publishes that lane's accesses only, so a clock keeps, beside the epochs
//! of whole warps, single lanes. A copy's stamp carries the *future* number of its group: nobody
//! knows it before a wait, its issuer included, so "in flight" needs no state of its own.
//!
//! Several launches share the numbers of agents. What is over before a launch begins is its
//! [`Past`]; launches that overlap learn of each other only through flags.

use std::sync::Arc;

use super::agents::Agents;
use super::past::Past;

/// Who did something, when, and where in the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) agent: u32,
    /// 0: nobody.
    pub(crate) epoch: u32,
    pub(crate) lanes: u32,
    /// pc in the low 24 bits, strength and marks above.
    pub(crate) packed: u32,
}

/// Stands for a lane where an instruction reads for the whole warp: only what every lane knows counts.
pub(crate) const WHOLE_WARP: u8 = 32;

/// Strengths of an access, as its scope gives them.
pub(crate) const CTA: u32 = 1;
pub(crate) const CLUSTER: u32 = 2;
pub(crate) const GPU: u32 = 3;

/// Mark of a read through `.nc`.
pub(crate) const MARK_NC: u32 = 1 << 28;

/// Mark of a write that was overtaken by an atomic or flag store it is not ordered with.
pub(crate) const MARK_WRITE: u32 = 1 << 29;

/// Mark of an access through the asynchronous proxy.
pub(crate) const MARK_ASYNC: u32 = 1 << 30;

/// Mark of a store in which several lanes write the same to one place at once.
pub(crate) const MARK_ALIKE: u32 = 1 << 31;

impl Stamp {
    pub(crate) fn pc(&self) -> u32 {
        self.packed & 0xFF_FFFF
    }

    /// 0 weak, 1 strong at CTA scope, 2 at cluster scope, [`GPU`] at GPU scope or wider.
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
    /// First agent of the cluster whose agents `local` holds.
    pub(super) first: u32,
    /// First agent of the CTA that owns this clock.
    pub(super) cta: u32,
    pub(super) local: Vec<u32>,
    /// Agents of other clusters, sorted.
    pub(super) remote: Vec<(u32, u32)>,
    /// Single lanes beyond what `local` and `remote` say of their warp.
    pub(super) lanes: Vec<(u32, u8, u32)>,
    /// What was over before another launch that this one has heard of; mostly empty.
    pub(super) pasts: Vec<Arc<Past>>,
    /// What had happened before a proxy fence for global memory in this CTA: what its asynchronous
    /// proxy may read there. Other CTAs fence for themselves, so it never leaves the CTA.
    pub(super) view: Option<Box<Clock>>,
    /// What `fence.sc` has published, by whomever: it counts for who fences so himself, when he has seen, in
    /// any strong way, that it happened. So a thread may fence, and another one of its CTA raise the flag.
    pub(super) sc: Option<Box<Clock>>,
}

impl Clock {
    /// Of a CTA whose first agent is `cta`, in a cluster of `agents` agents from `first` on.
    pub(crate) fn new(first: u32, agents: u32, cta: u32) -> Self {
        Clock { first, cta, local: vec![0; agents as usize], ..Clock::default() }
    }

    pub(super) fn raise_past(&mut self, past: &Arc<Past>) {
        if !self.pasts.iter().any(|p| Arc::ptr_eq(p, past)) {
            self.pasts.push(Arc::clone(past));
        }
    }

    pub(super) fn get(&self, agent: u32) -> u32 {
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
        if let Some(theirs) = &other.sc {
            self.add_sc(theirs);
        }
        if let Some(theirs) = other.view.as_ref().filter(|_| other.cta == self.cta) {
            match &mut self.view {
                Some(mine) => mine.join(theirs),
                None => self.view = Some(theirs.clone()),
            }
        }
    }

    /// `published` was by `fence.sc`.
    pub(super) fn add_sc(&mut self, published: &Clock) {
        match &mut self.sc {
            Some(mine) => mine.join(published),
            None => self.sc = Some(Box::new(published.clone())),
        }
    }

    /// `seen` has happened before a proxy fence for global memory.
    pub(super) fn add_view(&mut self, mut seen: Clock) {
        if let Some(old) = seen.view.take() {
            seen.join(&old);
        }
        match &mut self.view {
            Some(view) => view.join(&seen),
            none => *none = Some(Box::new(seen)),
        }
    }

    /// What `known` says of the generic writes of other CTAs of the cluster, and of `cp.async`, whose
    /// issuer may be gone when they are done, counts as fenced.
    pub(super) fn fence_others(&mut self, known: &Clock, agents: Agents) {
        let n = agents.count();
        for at in 0..known.local.len() as u32 {
            let (engine, owner) = (at % n, known.first + at / n * n);
            let counts =
                agents.is_copies(engine) || (owner != self.cta && agents.is_generic(engine));
            if !counts {
                continue;
            }
            let agent = known.first + at;
            self.raise(agent + agents.proxied(), known.local[at as usize]);
            for &(_, lane, epoch) in known.lanes.iter().filter(|l| l.0 == agent) {
                self.raise_lane(agent + agents.proxied(), lane, epoch);
            }
        }
    }

    /// The same as another CTA of the cluster would hold it.
    pub(crate) fn of(mut self, cta: u32) -> Self {
        if self.cta != cta {
            (self.cta, self.view) = (cta, None);
        }
        self
    }

    /// Whether all of `lanes` of the stamp's agent are known up to its epoch.
    pub(super) fn covers(&self, stamp: &Stamp, lanes: u32) -> bool {
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

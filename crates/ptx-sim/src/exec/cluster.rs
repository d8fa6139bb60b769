//! A cluster while it runs: its CTAs with their warps, their shared memories, the copies under way among
//! them. The unit that is placed, and that ends as one; a launch without clusters has clusters of one.

use std::sync::Arc;

use super::bank::Bank;
use super::barrier::Barriers;
use super::hopper::barrier::ClusterBarrier;
use super::hopper::flight::Flights;
use super::hopper::mbarrier::Mbarriers;
use super::hopper::queue::Queue;
use super::hopper::registers::Registers;
use super::start::{Standing, fill};
use super::trouble::{Res, Trouble, trouble};
use super::warp::{Files, Waiting, Warp};
use crate::check::agents::Agents;
use crate::check::clock::{Clock, Stamp};
use crate::check::past::Past;
use crate::check::region::Region;
use crate::check::warp_clock::{Place, WarpClock};
use crate::isa::Kernel;
use crate::options::Options;
use crate::plan::Plan;
use crate::report::FaultKind;

pub(super) struct Cta {
    pub(super) id: [u32; 3],
    pub(super) linear: u32,
    pub(super) warps: Vec<Warp>,
    pub(super) barriers: Barriers,
    pub(super) sm: u32,
    /// What its ended warps knew.
    known: Option<Clock>,
    /// It has let dependent launches begin.
    pub(super) released: bool,
}

impl Cta {
    pub(super) fn over(&self) -> bool {
        self.warps.iter().all(|w| w.fragments.is_empty())
    }
}

pub(super) struct Cluster {
    pub(super) ctas: Vec<Cta>,
    pub(super) banks: Vec<Bank>,
    pub(super) flights: Flights,
    pub(super) barrier: ClusterBarrier,
}

/// What every cluster of a launch is made of.
pub(super) struct Maker<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) plan: &'a Plan,
    pub(super) options: &'a Options,
    pub(super) past: &'a Arc<Past>,
    /// The launch's first agent.
    pub(super) first: u32,
    pub(super) agents: Agents,
}

impl Maker<'_> {
    pub(super) fn cluster(&self, number: u32, sms: &[u32]) -> Cluster {
        let size = self.plan.cluster_size();
        let first = self.first + number * size * self.agents.count();
        let (mut ctas, mut banks) = (Vec::new(), Vec::new());
        for rank in 0..size {
            let place = Place { first, ctas: size, rank, agents: self.agents };
            ctas.push(self.cta(number, place, sms[rank as usize]));
            banks.push(self.bank());
        }
        Cluster { ctas, banks, flights: Flights::default(), barrier: ClusterBarrier::default() }
    }

    fn bank(&self) -> Bank {
        let warps = self.plan.warps();
        let threads = self.plan.block.iter().product();
        let engines = self.kernel.engines;
        Bank {
            shared: Region::new(self.plan.shared as usize),
            barriers: Mbarriers::default(),
            queues: if engines {
                (0..warps.div_ceil(4)).map(|_| Queue::default()).collect()
            } else {
                Vec::new()
            },
            registers: if engines {
                Registers::new(warps, Registers::at_entry(self.kernel, threads))
            } else {
                Registers::default()
            },
            ended: false,
        }
    }

    fn cta(&self, cluster: u32, place: Place, sm: u32) -> Cta {
        let id = self.plan.cta(cluster, place.rank);
        let threads: u32 = self.plan.block.iter().product();
        let standing = Standing { ctaid: id, cluster, rank: place.rank, sm };
        let warps = (0..self.plan.warps())
            .map(|w| {
                let left = threads - 32 * w;
                let mask = if left >= 32 { u32::MAX } else { (1 << left) - 1 };
                let mut files = Files::new(self.kernel.slots, self.kernel.preds);
                fill(&mut files, self.kernel, self.plan, &standing, w, self.options);
                let clock = WarpClock::new(self.past, place, w);
                let local = Region::new(32 * self.kernel.local_stride() as usize);
                Warp::new(w, mask, files, clock, local)
            })
            .collect();
        Cta {
            id,
            linear: self.plan.linear(id),
            warps,
            barriers: Barriers::default(),
            sm,
            known: None,
            released: false,
        }
    }
}

impl Cluster {
    pub(super) fn over(&self) -> bool {
        self.ctas.iter().all(Cta::over)
    }

    fn live_warps(&self) -> u32 {
        self.ctas.iter().flat_map(|c| &c.warps).filter(|w| !w.fragments.is_empty()).count() as u32
    }

    /// Wakes the warps whose wait has ended since the last look; true when there was a reason to look.
    pub(super) fn wake(&mut self) -> bool {
        let woken = self.banks.iter_mut().fold(false, |any, b| {
            let woken = std::mem::take(&mut b.barriers.woken);
            any | woken
        });
        if !woken {
            return false;
        }
        let phase = self.barrier.phase;
        for (cta, bank) in self.ctas.iter_mut().zip(&self.banks) {
            for warp in &mut cta.warps {
                let over = match warp.waiting {
                    Some(Waiting::Mbarrier { at, phase }) => {
                        bank.barriers.get(at).map_or(true, |b| b.phase != phase)
                    }
                    Some(Waiting::Matrix | Waiting::Registers(_)) => true,
                    Some(Waiting::Cluster(waited)) => waited != phase,
                    _ => false,
                };
                if over {
                    warp.waiting = None;
                }
            }
        }
        true
    }

    /// A warp's half of the cluster's barrier; false when it has to wait.
    pub(super) fn meet(
        &mut self,
        (c, w): (usize, usize),
        arrive: bool,
        relaxed: bool,
        mask: u32,
    ) -> Res<bool> {
        let warp = &mut self.ctas[c].warps[w];
        if !arrive {
            return self.barrier.wait(warp, mask);
        }
        self.barrier.arrive(warp, c, relaxed, mask)?;
        self.settle();
        Ok(true)
    }

    fn settle(&mut self) {
        let live = self.live_warps();
        if self.barrier.settle(live) {
            self.banks[0].barriers.woken = true;
        }
    }

    /// A warp has ended.
    pub(super) fn ended(&mut self, (c, w): (usize, usize), races: bool) -> Res<()> {
        let cta = &mut self.ctas[c];
        let warp = &mut cta.warps[w];
        self.barrier.ended(warp);
        let known = warp.clock.release_all(u32::MAX);
        match &mut cta.known {
            Some(all) => all.join(&known),
            none => *none = Some(known),
        }
        if cta.over() {
            self.leave(c, races)?;
        }
        self.settle();
        Ok(())
    }

    /// A CTA has ended: nobody may still be at its shared memory, nor on the way to it.
    fn leave(&mut self, c: usize, races: bool) -> Res<()> {
        let (cta, bank) = (&self.ctas[c], &mut self.banks[c]);
        bank.ended = true;
        if let Some(message) = bank.barriers.unfinished() {
            return trouble(FaultKind::InFlight, u32::MAX, message);
        }
        let (Some(known), true) = (&cta.known, races) else { return Ok(()) };
        let clock = &cta.warps[0].clock;
        let seen = |s: &Stamp| clock.own_or_over(s) || WarpClock::known_to(known, s);
        if let Some((stamp, write)) = bank.shared.unknown(seen) {
            let (kind, message) = if clock.same_cta(&stamp) {
                (
                    FaultKind::InFlight,
                    "the CTA ends, and nobody in it has waited for a copy into its shared memory",
                )
            } else {
                (
                    FaultKind::Cluster,
                    "the CTA ends, and another one of its cluster may still be at its shared memory",
                )
            };
            return Err(Box::new(Trouble {
                kind,
                message: message.into(),
                lanes: u32::MAX,
                other: Some((stamp, write)),
            }));
        }
        if let Some((at, stamp)) = bank.barriers.stray(seen) {
            return Err(Box::new(Trouble {
                kind: FaultKind::Cluster,
                message: format!(
                    "the CTA ends, and an arrival from another CTA at its mbarrier at byte {at} has not \
                     been waited for"
                ),
                lanes: u32::MAX,
                other: Some((stamp, true)),
            }));
        }
        Ok(())
    }
}

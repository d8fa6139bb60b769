//! `barrier.cluster`: all warps of all CTAs of a cluster, in two halves. Those that have ended count as
//! arrived.

use super::super::trouble::{Res, trouble};
use super::super::warp::Warp;
use crate::check::clock::Clock;
use crate::report::FaultKind;

#[derive(Debug, Default)]
pub(crate) struct ClusterBarrier {
    pub(crate) phase: u32,
    /// Warps that have arrived in this phase.
    arrived: u32,
    /// What they hand in, and what the last phase handed on, by CTA.
    gathered: Vec<Option<Clock>>,
    published: Vec<Option<Clock>>,
}

/// Half a warp cannot take part.
pub(super) fn whole(warp: &Warp, aligned: bool, mask: u32) -> Res<()> {
    if aligned || mask == warp.live() {
        return Ok(());
    }
    let message = "barrier.cluster without .aligned in a part of a warp is not simulated";
    trouble(FaultKind::NotSimulated, mask, message)
}

fn join(all: &mut Vec<Option<Clock>>, rank: usize, clock: Clock) {
    if all.len() <= rank {
        all.resize_with(rank + 1, || None);
    }
    match &mut all[rank] {
        Some(known) => known.join(&clock),
        none => *none = Some(clock),
    }
}

impl ClusterBarrier {
    /// A warp arrives; relaxed, it hands in only what fences have published.
    pub(crate) fn arrive(
        &mut self,
        warp: &mut Warp,
        rank: usize,
        relaxed: bool,
        mask: u32,
    ) -> Res<()> {
        if warp.hopper.arrived.is_some() {
            let message = "barrier.cluster.arrive twice without a barrier.cluster.wait";
            return trouble(FaultKind::Cluster, mask, message);
        }
        warp.hopper.arrived = Some(self.phase);
        self.arrived += 1;
        if !relaxed {
            join(&mut self.gathered, rank, warp.clock.release_all(mask));
            return Ok(());
        }
        for lane in crate::lanes::lanes(mask) {
            if let Some((published, _)) = warp.clock.fenced(lane as u8) {
                join(&mut self.gathered, rank, published.clone());
            }
        }
        Ok(())
    }

    pub(crate) fn describe(&self) -> String {
        format!("waits at the cluster's barrier ({} warps have arrived)", self.arrived)
    }

    /// Completes the phase when all that live have arrived.
    pub(crate) fn settle(&mut self, live: u32) -> bool {
        if self.arrived == 0 || self.arrived < live {
            return false;
        }
        self.arrived = 0;
        self.phase += 1;
        self.published = std::mem::take(&mut self.gathered);
        true
    }

    /// A warp that has arrived ends: it is missing in both counts.
    pub(crate) fn ended(&mut self, warp: &Warp) {
        if warp.hopper.arrived == Some(self.phase) {
            self.arrived -= 1;
        }
    }

    /// A warp waits; false when the phase it has arrived at is not over.
    pub(crate) fn wait(&self, warp: &mut Warp, mask: u32) -> Res<bool> {
        let Some(phase) = warp.hopper.arrived else {
            let message = "barrier.cluster.wait without a barrier.cluster.arrive before it";
            return trouble(FaultKind::Cluster, mask, message);
        };
        if phase == self.phase {
            return Ok(false);
        }
        warp.hopper.arrived = None;
        self.published.iter().flatten().for_each(|known| warp.clock.learn(known));
        Ok(true)
    }
}

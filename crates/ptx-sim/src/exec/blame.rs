//! How a failed check, a deadlock or a spent budget of a launch is told: who, where, and where all the others
//! stand. Called by `run` and `several`.

use super::book::Book;
use super::run::{At, Common, Job};
use super::trouble::Trouble;
use super::warp::{Waiting, Warp};
use crate::report::{Fault, FaultKind, WarpState};

impl Job {
    pub(super) fn fault(&self, at: At, pc: u32, t: Trouble, book: &Book) -> Box<Fault> {
        let other = t.other.map(|(stamp, write)| book.other(&stamp, write, self.first));
        let cta = &self.clusters[at.cluster].ctas[at.rank];
        Box::new(Fault {
            kind: t.kind,
            file: self.kernel.file.clone(),
            entry: self.kernel.name.clone(),
            line: self.line(pc),
            cta: cta.id,
            warp: cta.warps[at.warp].index,
            lanes: t.lanes,
            message: t.message,
            other,
            warps: Vec::new(),
            seed: self.options.seed,
        })
    }

    pub(super) fn pc(&self, at: At) -> u32 {
        let warp = self.clusters.get(at.cluster).map(|c| &c.ctas[at.rank].warps[at.warp]);
        warp.and_then(|w| w.fragments.first()).map_or(0, |f| f.pc)
    }

    fn line(&self, pc: u32) -> u32 {
        self.kernel.insts.get(pc as usize).map_or(0, |i| i.line)
    }

    /// A deadlock or a spent budget: where every live warp stands. Nobody's when no CTA is resident.
    pub(crate) fn stuck(&self, kind: FaultKind, message: &str, common: &Common) -> Box<Fault> {
        let mut warps = Vec::new();
        for (cluster, cta, bank) in self
            .clusters
            .iter()
            .flat_map(|c| c.ctas.iter().zip(&c.banks).map(move |(a, b)| (c, a, b)))
        {
            let live = cta.warps.iter().filter(|w| !w.fragments.is_empty()).count();
            for warp in &cta.warps {
                for f in &warp.fragments {
                    let waits = match warp.waiting {
                        Some(Waiting::Barrier(id)) => cta.barriers.describe(id, live),
                        Some(Waiting::Mbarrier { at, .. }) => bank.barriers.describe(at),
                        Some(Waiting::Matrix) => {
                            bank.queues[warp.index as usize / 4].describe(warp.index as usize % 4)
                        }
                        Some(Waiting::Registers(n)) => {
                            bank.registers.describe(warp.index as usize, n)
                        }
                        Some(Waiting::Cluster(_)) => cluster.barrier.describe(),
                        Some(Waiting::Grids) => "waits for the launches before this one".into(),
                        None if warp.spins_at == Some(common.progress) => {
                            "loops and nothing it reads can change".into()
                        }
                        None => "runs".into(),
                    };
                    let pc = f.pc - u32::from(warp.waiting.is_some_and(Waiting::passed));
                    warps.push(WarpState {
                        cta: cta.linear,
                        warp: warp.index,
                        line: self.line(pc),
                        lanes: f.mask,
                        waits,
                    });
                }
            }
        }
        let at = self.stuck_at;
        let pc = self.pc(at);
        let cta = self.clusters.get(at.cluster).map(|c| &c.ctas[at.rank]);
        let standing = cta.map(|cta| &cta.warps[at.warp]);
        let first = warps.first().filter(|_| kind == FaultKind::Deadlock);
        Box::new(Fault {
            kind,
            file: self.kernel.file.clone(),
            entry: self.kernel.name.clone(),
            line: first.map_or_else(|| self.line(pc), |w| w.line),
            cta: cta.map_or([0; 3], |cta| cta.id),
            warp: standing.map_or(0, |w| w.index),
            lanes: standing.map_or(0, Warp::live),
            message: message.into(),
            other: None,
            warps,
            seed: self.options.seed,
        })
    }
}

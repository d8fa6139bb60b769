//! The scheduler: CTAs are values that any order may interleave; no warp owns a host stack.

use super::barrier::Barriers;
use super::step::{Flow, step};
use super::sync::SyncTable;
use super::trouble::Trouble;
use super::warp::{Files, Warp};
use super::{Env, Reach};
use crate::check::clock::{ENGINES, Stamp, WarpClock};
use crate::check::region::{Checks, Region};
use crate::counters::Counters;
use crate::isa::Kernel;
use crate::launch::{Options, Plan, Schedule};
use crate::mem::Memory;
use crate::report::{Fault, FaultKind, Other, WarpState};

use super::start::fill;

/// Instructions a warp gets in turn; one that goes far still lets the others look in sometimes,
/// or a loop that waits for them would use up the budget.
const QUANTUM: u64 = 32;
const FAR: u64 = 4096;

pub(super) struct Cta {
    pub(super) id: [u32; 3],
    pub(super) linear: u32,
    pub(super) warps: Vec<Warp>,
    pub(super) shared: Region,
    barriers: Barriers,
}

struct Run<'a> {
    env: Env<'a>,
    plan: &'a Plan,
    /// Resident CTAs; a finished one is replaced in its place.
    ctas: Vec<Cta>,
    /// CTAs not yet started, the next one last.
    pending: Vec<u32>,
    /// Next (CTA, warp) in the flat order.
    cursor: usize,
    warps_per_cta: u32,
    stuck_at: FaultSite,
}

/// Where a fault is placed when no instruction is to blame.
#[derive(Clone, Copy, Default)]
struct FaultSite {
    cta: usize,
    warp: usize,
}

/// Runs `kernel` to its end.
pub(crate) fn run(
    kernel: &Kernel,
    memory: &mut Memory,
    plan: &Plan,
    options: &Options,
    checks: Checks,
) -> Result<Counters, Box<Fault>> {
    let threads: u32 = plan.block.iter().product();
    let warps_per_cta = threads.div_ceil(32);
    let lines = kernel.insts.iter().map(|i| i.line).collect();
    let mut env = Env {
        kernel,
        memory,
        options,
        checks,
        params: plan.params.clone(),
        counters: Counters::new(lines, options.count),
        sync: SyncTable::default(),
        agents: warps_per_cta * ENGINES,
        ticks: 0,
        progress: 0,
        random: crate::num::mix(options.seed, 7),
    };
    let total: u32 = plan.grid.iter().product();
    let mut pending: Vec<u32> = (0..total).rev().collect();
    match options.schedule {
        Schedule::Reverse => pending.reverse(),
        Schedule::Random => {
            for i in (1..pending.len()).rev() {
                let j = env.draw() as usize % (i + 1);
                pending.swap(i, j);
            }
        }
        _ => {}
    }
    let mut run = Run {
        env,
        plan,
        ctas: Vec::new(),
        pending,
        cursor: 0,
        warps_per_cta,
        stuck_at: FaultSite::default(),
    };
    for slot in 0..plan.resident {
        match run.pending.pop() {
            Some(linear) => {
                let cta = run.start(linear, slot);
                run.ctas.push(cta);
            }
            None => break,
        }
    }
    run.all()?;
    Ok(run.env.counters)
}

impl Run<'_> {
    fn start(&self, linear: u32, sm: u32) -> Cta {
        let [gx, gy, _] = self.plan.grid;
        let id = [linear % gx, linear / gx % gy, linear / gx / gy];
        let threads: u32 = self.plan.block.iter().product();
        let agents = self.env.agents;
        let warps = (0..self.warps_per_cta)
            .map(|w| {
                let left = threads - 32 * w;
                let mask = if left >= 32 { u32::MAX } else { (1 << left) - 1 };
                let mut files = Files::new(self.env.kernel.slots, self.env.kernel.preds);
                fill(&mut files, self.env.kernel, self.plan, id, w, sm, self.env.options);
                let clock = WarpClock::new(linear * agents, agents, linear * agents + w * ENGINES);
                let local = Region::new(32 * self.env.kernel.local as usize);
                Warp::new(w, mask, files, clock, local)
            })
            .collect();
        Cta {
            id,
            linear,
            warps,
            shared: Region::new(self.plan.shared as usize),
            barriers: Barriers::default(),
        }
    }

    fn all(&mut self) -> Result<(), Box<Fault>> {
        while let Some((c, w)) = self.next() {
            let quantum = match self.env.options.schedule {
                Schedule::RoundRobin => QUANTUM,
                Schedule::Random => 1 + self.env.draw() % 64,
                Schedule::OneFar | Schedule::Reverse => FAR,
            };
            self.turn(c, w, quantum)?;
        }
        if self.ctas.is_empty() {
            return Ok(());
        }
        Err(self.stuck(FaultKind::Deadlock, "no warp can go on"))
    }

    /// The next warp that may run; nobody when all wait, or go round without any change.
    fn next(&mut self) -> Option<(usize, usize)> {
        let per = self.warps_per_cta as usize;
        let n = self.ctas.len() * per;
        if n == 0 {
            return None;
        }
        if self.env.options.schedule == Schedule::Random {
            self.cursor = self.env.draw() as usize % n;
        }
        let mut spinner = None;
        let reverse = self.env.options.schedule == Schedule::Reverse;
        for i in 0..n {
            let flat = if reverse { (self.cursor + n - i) % n } else { (self.cursor + i) % n };
            let warp = &self.ctas[flat / per].warps[flat % per];
            if !warp.runnable() {
                continue;
            }
            let spins = warp.spins_at == Some(self.env.progress);
            if spins && spinner.is_some() {
                continue;
            }
            if spins {
                // Only if all the others are as stuck is this one's loop hopeless.
                spinner = Some(flat);
                continue;
            }
            self.cursor = if reverse { (flat + n - 1) % n } else { (flat + 1) % n };
            return Some((flat / per, flat % per));
        }
        if let Some(flat) = spinner {
            self.stuck_at = FaultSite { cta: flat / per, warp: flat % per };
        }
        None
    }

    fn turn(&mut self, c: usize, w: usize, quantum: u64) -> Result<(), Box<Fault>> {
        for _ in 0..quantum {
            let cta = &mut self.ctas[c];
            let mut reach = Reach { env: &mut self.env, shared: &mut cta.shared, pc: 0 };
            let flow = match step(&mut cta.warps[w], &mut reach) {
                Ok(flow) => flow,
                Err(t) => {
                    let pc = reach.pc;
                    return Err(self.fault(c, w, pc, *t));
                }
            };
            let pc = reach.pc;
            if self.env.ticks >= self.env.options.budget {
                self.stuck_at = FaultSite { cta: c, warp: w };
                return Err(self.stuck(FaultKind::Budget, "the instruction budget is spent"));
            }
            match flow {
                Flow::Next => {}
                Flow::Yield => return Ok(()),
                Flow::Barrier(arrival) => {
                    let cta = &mut self.ctas[c];
                    match cta.barriers.enter(&mut cta.warps, w, &arrival) {
                        Ok(done) => self.env.progress += u64::from(done),
                        Err(t) => return Err(self.fault(c, w, pc, *t)),
                    }
                    if self.ctas[c].warps[w].waiting.is_some() {
                        return Ok(());
                    }
                }
                Flow::Done => {
                    let cta = &mut self.ctas[c];
                    self.env.progress += u64::from(cta.barriers.warp_ended(&mut cta.warps));
                    if cta.warps.iter().all(|w| w.fragments.is_empty()) {
                        match self.pending.pop() {
                            Some(linear) => self.ctas[c] = self.start(linear, c as u32),
                            None => {
                                self.ctas.swap_remove(c);
                                self.cursor = 0;
                            }
                        }
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn fault(&self, c: usize, w: usize, pc: u32, t: Trouble) -> Box<Fault> {
        let other = t.other.map(|(stamp, write)| self.other(&stamp, write));
        let cta = &self.ctas[c];
        Box::new(Fault {
            kind: t.kind,
            file: self.env.kernel.file.clone(),
            entry: self.env.kernel.name.clone(),
            line: self.line(pc),
            cta: cta.id,
            warp: cta.warps[w].index,
            lanes: t.lanes,
            message: t.message,
            other,
            warps: Vec::new(),
            seed: self.env.options.seed,
        })
    }

    fn line(&self, pc: u32) -> u32 {
        self.env.kernel.insts.get(pc as usize).map_or(0, |i| i.line)
    }

    fn other(&self, stamp: &Stamp, write: bool) -> Other {
        Other {
            line: self.line(stamp.pc()),
            cta: stamp.agent / self.env.agents,
            warp: stamp.agent % self.env.agents / ENGINES,
            lanes: stamp.lanes,
            asynchronous: stamp.agent % ENGINES == 1,
            write,
        }
    }

    /// A deadlock or a spent budget: where every live warp stands.
    fn stuck(&self, kind: FaultKind, message: &str) -> Box<Fault> {
        let mut warps = Vec::new();
        for cta in &self.ctas {
            let live = cta.warps.iter().filter(|w| !w.fragments.is_empty()).count();
            for warp in &cta.warps {
                for f in &warp.fragments {
                    let waits = match warp.waiting {
                        Some(wait) => cta.barriers.describe(wait.id, live),
                        None if warp.spins_at == Some(self.env.progress) => {
                            "loops and nothing it reads can change".into()
                        }
                        None => "runs".into(),
                    };
                    // A warp at a barrier stands behind it already.
                    let pc = f.pc - u32::from(warp.waiting.is_some());
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
        let FaultSite { cta, warp } = self.stuck_at;
        let message = message.into();
        let t = Trouble { kind, message, lanes: 0, other: None };
        let pc = self.ctas[cta].warps[warp].fragments.first().map_or(0, |f| f.pc);
        let mut fault = self.fault(cta, warp, pc, t);
        if let Some(first) = warps.first().filter(|_| kind == FaultKind::Deadlock) {
            fault.line = first.line;
        }
        fault.lanes = self.ctas[cta].warps[warp].live();
        fault.warps = warps;
        fault
    }
}

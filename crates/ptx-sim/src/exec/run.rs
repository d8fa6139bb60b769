//! One launch while it runs: its CTAs are values that any order may interleave; no warp owns a
//! host stack. [`several`](super::several) gives it its turns.

use std::sync::Arc;

use super::barrier::Barriers;
use super::book::Book;
use super::start::fill;
use super::step::{Flow, step};
use super::sync::SyncTable;
use super::trouble::Trouble;
use super::warp::{Files, Warp};
use super::{Env, Reach};
use crate::check::clock::{ENGINES, WarpClock};
use crate::check::past::Past;
use crate::check::region::{Checks, Region};
use crate::counters::Counters;
use crate::isa::Kernel;
use crate::launch::{Options, Plan, Schedule};
use crate::mem::{Memory, Touched};
use crate::report::{Fault, FaultKind, WarpState};

/// Instructions a warp gets in turn; one that goes far still lets the others look in sometimes,
/// or a loop that waits for them would use up the budget.
const QUANTUM: u64 = 32;
const FAR: u64 = 4096;

struct Cta {
    id: [u32; 3],
    linear: u32,
    warps: Vec<Warp>,
    shared: Region,
    barriers: Barriers,
    sm: u32,
}

/// What all launches have in common beside the memory.
#[derive(Default)]
pub(crate) struct Common {
    pub(crate) sync: SyncTable,
    /// Counts everything that could let a waiting loop go on: changed bytes, barriers, exits.
    pub(crate) progress: u64,
    pub(crate) book: Book,
}

/// A launch that runs.
pub(crate) struct Job {
    kernel: Arc<Kernel>,
    plan: Plan,
    options: Options,
    past: Arc<Past>,
    /// Its first agent, and the agents of one CTA.
    first: u32,
    agents: u32,
    counters: Counters,
    touched: Touched,
    /// Resident CTAs.
    ctas: Vec<Cta>,
    /// CTAs not yet started, the next one last.
    pending: Vec<u32>,
    /// Next (CTA, warp) in the flat order.
    cursor: usize,
    warps_per_cta: u32,
    ticks: u64,
    random: u64,
    /// The (CTA, warp) to name when no instruction is to blame.
    stuck_at: (usize, usize),
}

/// What came of a turn.
pub(crate) enum Turn {
    Ran,
    /// A CTA has ended; its place on the multiprocessor is free.
    Ended {
        at: usize,
        sm: u32,
    },
    /// No warp can go on before something changes.
    Idle,
}

impl Job {
    /// Agents that a launch needs.
    pub(crate) fn agents(plan: &Plan) -> u64 {
        let ctas: u32 = plan.grid.iter().product();
        u64::from(ctas) * u64::from(Job::agents_per_cta(plan))
    }

    pub(crate) fn agents_per_cta(plan: &Plan) -> u32 {
        plan.block.iter().product::<u32>().div_ceil(32) * ENGINES
    }

    pub(crate) fn new(
        kernel: Arc<Kernel>,
        plan: Plan,
        options: Options,
        past: Arc<Past>,
        first: u32,
    ) -> Self {
        let lines = kernel.insts.iter().map(|i| i.line).collect();
        let total: u32 = plan.grid.iter().product();
        let mut job = Job {
            past,
            first,
            agents: Job::agents_per_cta(&plan),
            counters: Counters::new(lines, options.count),
            touched: Touched::default(),
            ctas: Vec::new(),
            pending: (0..total).rev().collect(),
            cursor: 0,
            warps_per_cta: plan.block.iter().product::<u32>().div_ceil(32),
            ticks: 0,
            random: crate::num::mix(options.seed, 7),
            stuck_at: (0, 0),
            kernel,
            plan,
            options,
        };
        match job.options.schedule {
            Schedule::Reverse => job.pending.reverse(),
            Schedule::Random => {
                for i in (1..job.pending.len()).rev() {
                    let j = job.draw() as usize % (i + 1);
                    job.pending.swap(i, j);
                }
            }
            _ => {}
        }
        job
    }

    fn draw(&mut self) -> u64 {
        self.random = crate::num::mix(self.random, 1);
        self.random
    }

    /// CTAs that one multiprocessor holds.
    pub(crate) fn per_sm(&self) -> u32 {
        self.plan.per_sm
    }

    pub(crate) fn waits_for_a_place(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(crate) fn finished(&self) -> bool {
        self.ctas.is_empty() && self.pending.is_empty()
    }

    pub(crate) fn first(&self) -> u32 {
        self.first
    }

    /// The agents of all its CTAs.
    pub(crate) fn range(&self) -> std::ops::Range<u32> {
        self.first..self.first + Job::agents(&self.plan) as u32
    }

    pub(crate) fn past(&self) -> &Past {
        &self.past
    }

    pub(crate) fn into_counters(self) -> Counters {
        self.counters
    }

    /// Starts the next CTA on a multiprocessor, in the place of one that has ended.
    pub(crate) fn start(&mut self, sm: u32, place: Option<usize>) {
        let Some(linear) = self.pending.pop() else { return };
        let cta = self.cta(linear, sm);
        match place.and_then(|at| self.ctas.get_mut(at)) {
            Some(ended) => *ended = cta,
            None => self.ctas.push(cta),
        }
    }

    /// Gives up the place of a CTA that has ended.
    pub(crate) fn leave(&mut self, at: usize) {
        self.ctas.swap_remove(at);
        self.cursor = 0;
    }

    fn cta(&self, linear: u32, sm: u32) -> Cta {
        let [gx, gy, _] = self.plan.grid;
        let id = [linear % gx, linear / gx % gy, linear / gx / gy];
        let threads: u32 = self.plan.block.iter().product();
        let first = self.first + linear * self.agents;
        let warps = (0..self.warps_per_cta)
            .map(|w| {
                let left = threads - 32 * w;
                let mask = if left >= 32 { u32::MAX } else { (1 << left) - 1 };
                let mut files = Files::new(self.kernel.slots, self.kernel.preds);
                fill(&mut files, &self.kernel, &self.plan, id, w, sm, &self.options);
                let clock = WarpClock::new(&self.past, first, self.agents, first + w * ENGINES);
                let local = Region::new(32 * self.kernel.local as usize);
                Warp::new(w, mask, files, clock, local)
            })
            .collect();
        Cta {
            id,
            linear,
            warps,
            shared: Region::new(self.plan.shared as usize),
            barriers: Barriers::default(),
            sm,
        }
    }

    /// Lets one warp run for a while.
    pub(crate) fn turn(
        &mut self,
        memory: &mut Memory,
        common: &mut Common,
    ) -> Result<Turn, Box<Fault>> {
        let Some((c, w)) = self.next(common.progress) else { return Ok(Turn::Idle) };
        let quantum = match self.options.schedule {
            Schedule::RoundRobin => QUANTUM,
            Schedule::Random => 1 + self.draw() % 64,
            Schedule::OneFar | Schedule::Reverse => FAR,
        };
        self.run(memory, common, (c, w), quantum)
    }

    /// The next warp that may run; nobody when all wait, or go round without any change.
    fn next(&mut self, progress: u64) -> Option<(usize, usize)> {
        let per = self.warps_per_cta as usize;
        let n = self.ctas.len() * per;
        if n == 0 {
            return None;
        }
        if self.options.schedule == Schedule::Random {
            self.cursor = self.draw() as usize % n;
        }
        let mut spinner = None;
        let reverse = self.options.schedule == Schedule::Reverse;
        for i in 0..n {
            let flat = if reverse { (self.cursor + n - i) % n } else { (self.cursor + i) % n };
            let warp = &self.ctas[flat / per].warps[flat % per];
            if !warp.runnable() {
                continue;
            }
            if warp.spins_at == Some(progress) {
                // Only if all the others are as stuck is this one's loop hopeless.
                spinner = spinner.or(Some(flat));
                continue;
            }
            self.cursor = if reverse { (flat + n - 1) % n } else { (flat + 1) % n };
            return Some((flat / per, flat % per));
        }
        if let Some(flat) = spinner {
            self.stuck_at = (flat / per, flat % per);
        }
        None
    }

    fn run(
        &mut self,
        memory: &mut Memory,
        common: &mut Common,
        (c, w): (usize, usize),
        quantum: u64,
    ) -> Result<Turn, Box<Fault>> {
        let Job { kernel, plan, options, counters, touched, ctas, .. } = self;
        let checks = Checks { init: options.check_init, races: options.check_races };
        let mut env = Env {
            kernel,
            memory,
            options,
            checks,
            params: &plan.params,
            counters,
            touched,
            sync: &mut common.sync,
            ticks: self.ticks,
            progress: common.progress,
            random: self.random,
        };
        let cta = &mut ctas[c];
        let mut outcome = Ok(Turn::Ran);
        for _ in 0..quantum {
            let mut reach = Reach { env: &mut env, shared: &mut cta.shared, pc: 0 };
            let flow = step(&mut cta.warps[w], &mut reach);
            let pc = reach.pc;
            if env.ticks >= options.budget {
                outcome = Err((pc, None));
                break;
            }
            match flow {
                Ok(Flow::Next) => {}
                Ok(Flow::Yield) => break,
                Ok(Flow::Barrier(arrival)) => {
                    match cta.barriers.enter(&mut cta.warps, w, &arrival) {
                        Ok(done) => env.progress += u64::from(done),
                        Err(t) => {
                            outcome = Err((pc, Some(t)));
                            break;
                        }
                    }
                    if cta.warps[w].waiting.is_some() {
                        break;
                    }
                }
                Ok(Flow::Done) => {
                    env.progress += u64::from(cta.barriers.warp_ended(&mut cta.warps));
                    if cta.warps.iter().all(|w| w.fragments.is_empty()) {
                        outcome = Ok(Turn::Ended { at: c, sm: cta.sm });
                    }
                    break;
                }
                Err(t) => {
                    outcome = Err((pc, Some(t)));
                    break;
                }
            }
        }
        let Env { ticks, progress, random, .. } = env;
        (self.ticks, common.progress, self.random) = (ticks, progress, random);
        outcome.map_err(|(pc, t)| match t {
            Some(t) => self.fault((c, w), pc, *t, &common.book),
            None => {
                self.stuck_at = (c, w);
                self.stuck(FaultKind::Budget, "the instruction budget is spent", common)
            }
        })
    }

    fn fault(&self, (c, w): (usize, usize), pc: u32, t: Trouble, book: &Book) -> Box<Fault> {
        let other = t.other.map(|(stamp, write)| book.other(&stamp, write, self.first));
        let cta = &self.ctas[c];
        Box::new(Fault {
            kind: t.kind,
            file: self.kernel.file.clone(),
            entry: self.kernel.name.clone(),
            line: self.line(pc),
            cta: cta.id,
            warp: cta.warps[w].index,
            lanes: t.lanes,
            message: t.message,
            other,
            warps: Vec::new(),
            seed: self.options.seed,
        })
    }

    fn line(&self, pc: u32) -> u32 {
        self.kernel.insts.get(pc as usize).map_or(0, |i| i.line)
    }

    /// A deadlock or a spent budget: where every live warp stands. Nobody's when no CTA is resident.
    pub(crate) fn stuck(&self, kind: FaultKind, message: &str, common: &Common) -> Box<Fault> {
        let mut warps = Vec::new();
        for cta in &self.ctas {
            let live = cta.warps.iter().filter(|w| !w.fragments.is_empty()).count();
            for warp in &cta.warps {
                for f in &warp.fragments {
                    let waits = match warp.waiting {
                        Some(wait) => cta.barriers.describe(wait.id, live),
                        None if warp.spins_at == Some(common.progress) => {
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
        let (c, w) = self.stuck_at;
        let standing = self.ctas.get(c).and_then(|cta| cta.warps.get(w));
        let pc = standing.and_then(|w| w.fragments.first()).map_or(0, |f| f.pc);
        let first = warps.first().filter(|_| kind == FaultKind::Deadlock);
        Box::new(Fault {
            kind,
            file: self.kernel.file.clone(),
            entry: self.kernel.name.clone(),
            line: first.map_or_else(|| self.line(pc), |w| w.line),
            cta: self.ctas.get(c).map_or([0; 3], |cta| cta.id),
            warp: standing.map_or(0, |w| w.index),
            lanes: standing.map_or(0, Warp::live),
            message: message.into(),
            other: None,
            warps,
            seed: self.options.seed,
        })
    }

    pub(crate) fn is_resident(&self) -> bool {
        !self.ctas.is_empty()
    }
}

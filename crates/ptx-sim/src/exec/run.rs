//! One launch while it runs: its clusters are values that any order may interleave; no warp owns a
//! host stack. [`several`](super::several) gives it its turns.

use std::sync::{Arc, OnceLock};

use super::book::Book;
use super::cluster::{Cluster, Maker};
use super::env::{Env, Reach};
use super::flow::Flow;
use super::hopper;
use super::step::step;
use super::sync::SyncTable;
use super::trouble::Trouble;
use super::warp::{Waiting, Warp};
use crate::check::agents::Agents;
use crate::check::past::Past;
use crate::check::region::Checks;
use crate::counters::Counters;
use crate::isa::Kernel;
use crate::mem::{Memory, Touched};
use crate::options::{CopyTiming, Options, Schedule};
use crate::plan::Plan;
use crate::report::{Fault, FaultKind};

/// Instructions a warp gets in turn; one that goes far still lets the others look in sometimes,
/// or a loop that waits for them would use up the budget.
const QUANTUM: u64 = 32;
const FAR: u64 = 4096;
/// Instructions without any change after which a copy lands, however late it may.
const LATEST: u64 = 1 << 15;

/// What all launches have in common beside the memory.
#[derive(Default)]
pub(crate) struct Common {
    pub(crate) sync: SyncTable,
    /// Counts everything that could let a waiting loop go on: changed bytes, barriers, exits.
    pub(crate) progress: u64,
    pub(crate) book: Book,
}

/// What a launch comes after that is not over when it begins: set when it is.
pub(crate) type Follows = Arc<OnceLock<Arc<Past>>>;

/// A launch that runs.
pub(crate) struct Job {
    pub(super) kernel: Arc<Kernel>,
    plan: Plan,
    pub(super) options: Options,
    past: Arc<Past>,
    follows: Option<Follows>,
    /// Its first agent, and how those of a CTA are numbered.
    pub(super) first: u32,
    agents: Agents,
    counters: Counters,
    touched: Touched,
    /// Resident clusters.
    pub(super) clusters: Vec<Cluster>,
    /// Clusters not yet started, the next one last.
    pending: Vec<u32>,
    /// Next warp in the flat order.
    cursor: usize,
    ticks: u64,
    random: u64,
    /// The warp to name when no instruction is to blame.
    pub(super) stuck_at: At,
    /// The progress at which suspended waits were given up the last time.
    gave_up_at: Option<u64>,
    /// The progress when somebody looked last, and the ticks when it was seen to change.
    changed: (u64, u64),
    /// CTAs that let dependent launches begin, those that have ended included.
    released: u32,
}

/// A warp: its cluster's place, the CTA's rank, its own number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct At {
    pub(super) cluster: usize,
    pub(super) rank: usize,
    pub(super) warp: usize,
}

/// What came of a turn.
pub(crate) enum Turn {
    Ran,
    /// A cluster has ended; its places on the multiprocessors are free.
    Ended {
        at: usize,
        sms: Vec<u32>,
    },
    /// No warp can go on before something changes.
    Idle,
}

impl Job {
    /// Agents that a launch needs.
    pub(crate) fn agents(kernel: &Kernel, plan: &Plan) -> u64 {
        let ctas: u32 = plan.grid.iter().product();
        u64::from(ctas) * u64::from(Job::numbering(kernel, plan).count())
    }

    pub(crate) fn numbering(kernel: &Kernel, plan: &Plan) -> Agents {
        Agents::new(plan.warps(), kernel.engines)
    }

    pub(crate) fn new(
        (kernel, plan): (Arc<Kernel>, Plan),
        options: Options,
        past: Arc<Past>,
        follows: Option<Follows>,
        first: u32,
    ) -> Self {
        let lines = kernel.insts.iter().map(|i| i.line).collect();
        let total: u32 = plan.clusters().iter().product();
        let mut job = Job {
            past,
            follows,
            first,
            agents: Job::numbering(&kernel, &plan),
            counters: Counters::new(lines, options.count),
            touched: Touched::default(),
            clusters: Vec::new(),
            pending: (0..total).rev().collect(),
            cursor: 0,
            ticks: 0,
            random: crate::num::mix(options.seed, 7),
            stuck_at: At::default(),
            gave_up_at: None,
            changed: (0, 0),
            released: 0,
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

    /// CTAs that are placed together.
    pub(crate) fn cluster_size(&self) -> u32 {
        self.plan.cluster_size()
    }

    /// Every CTA has let dependent launches begin, or has ended.
    pub(crate) fn released(&self) -> bool {
        self.released >= self.plan.grid.iter().product::<u32>()
    }

    pub(crate) fn follows(&self) -> Option<&Follows> {
        self.follows.as_ref()
    }

    pub(crate) fn waits_for_a_place(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(crate) fn finished(&self) -> bool {
        self.clusters.is_empty() && self.pending.is_empty()
    }

    pub(crate) fn first(&self) -> u32 {
        self.first
    }

    /// The agents of all its CTAs.
    pub(crate) fn range(&self) -> std::ops::Range<u32> {
        self.first..self.first + Job::agents(&self.kernel, &self.plan) as u32
    }

    pub(crate) fn past(&self) -> &Past {
        &self.past
    }

    pub(crate) fn into_counters(self) -> Counters {
        self.counters
    }

    /// Starts the next cluster on multiprocessors, in the place of one that has ended.
    pub(crate) fn start(&mut self, sms: &[u32], place: Option<usize>) {
        let Some(number) = self.pending.pop() else { return };
        let maker = Maker {
            kernel: &self.kernel,
            plan: &self.plan,
            options: &self.options,
            past: &self.past,
            first: self.first,
            agents: self.agents,
        };
        let cluster = maker.cluster(number, sms);
        match place.and_then(|at| self.clusters.get_mut(at)) {
            Some(ended) => *ended = cluster,
            None => self.clusters.push(cluster),
        }
    }

    /// Gives up the place of a cluster that has ended.
    pub(crate) fn leave(&mut self, at: usize) {
        self.clusters.swap_remove(at);
        self.cursor = 0;
    }

    /// Lets one warp run for a while, or a copy land.
    pub(crate) fn turn(
        &mut self,
        memory: &mut Memory,
        common: &mut Common,
    ) -> Result<Turn, Box<Fault>> {
        if self.kernel.engines
            && self.options.copies == CopyTiming::Random
            && self.draw() & 3 == 0
            && self.deliver(memory, common)?
        {
            return Ok(Turn::Ran);
        }
        if self.kernel.engines && self.overdue(common.progress) {
            let mut landed = false;
            while self.deliver(memory, common)? {
                landed = true;
            }
            if landed {
                return Ok(Turn::Ran);
            }
        }
        let Some(at) = self.next(common.progress) else {
            if self.kernel.engines
                && (self.deliver(memory, common)? || self.give_up(common.progress))
            {
                return Ok(Turn::Ran);
            }
            return Ok(Turn::Idle);
        };
        let quantum = match self.options.schedule {
            Schedule::RoundRobin => QUANTUM,
            Schedule::Random => 1 + self.draw() % 64,
            Schedule::OneFar | Schedule::Reverse => FAR,
        };
        self.run(memory, common, at, quantum)
    }

    /// Warps run and nothing comes of it: they may ask a clock while they wait for a copy, and copies that
    /// are as late as can be come in the end.
    fn overdue(&mut self, progress: u64) -> bool {
        let (before, since) = self.changed;
        if before != progress {
            self.changed = (progress, self.ticks);
            return false;
        }
        self.ticks - since > LATEST
    }

    fn at(&self, flat: usize) -> At {
        let (warps, size) = (self.plan.warps() as usize, self.plan.cluster_size() as usize);
        At { cluster: flat / warps / size, rank: flat / warps % size, warp: flat % warps }
    }

    /// The next warp that may run; nobody when all wait, or go round without any change.
    fn next(&mut self, progress: u64) -> Option<At> {
        let n = self.clusters.len() * (self.plan.warps() * self.plan.cluster_size()) as usize;
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
            let at = self.at(flat);
            let warp = &mut self.clusters[at.cluster].ctas[at.rank].warps[at.warp];
            if warp.waiting == Some(Waiting::Grids)
                && self.follows.as_ref().is_some_and(|f| f.get().is_some())
            {
                warp.waiting = None;
            }
            if !warp.runnable() {
                continue;
            }
            if warp.spins_at == Some(progress) {
                // Only if all the others are as stuck is this one's loop hopeless.
                spinner = spinner.or(Some(at));
                continue;
            }
            self.cursor = if reverse { (flat + n - 1) % n } else { (flat + 1) % n };
            return Some(at);
        }
        if let Some(at) = spinner {
            self.stuck_at = at;
        }
        None
    }

    /// Lands a copy, the last one that was asked for or any, by the timing; false when there is none.
    fn deliver(&mut self, memory: &mut Memory, common: &mut Common) -> Result<bool, Box<Fault>> {
        let n = self.clusters.len();
        if n == 0 {
            return Ok(false);
        }
        let random = self.options.copies == CopyTiming::Random;
        let from = if random { self.draw() as usize % n } else { 0 };
        for i in 0..n {
            let c = (from + i) % n;
            let flying = self.clusters[c].flights.incoming.len();
            if flying > 0 {
                let index = if random { self.draw() as usize % flying } else { flying - 1 };
                let Cluster { flights, banks, .. } = &mut self.clusters[c];
                let (pc, rank, warp) = flights.incoming[index].by;
                let landed = flights.land(index, memory, banks);
                common.progress += 1;
                self.clusters[c].wake();
                let at = At { cluster: c, rank, warp: warp as usize };
                landed.map_err(|message| {
                    let kind = FaultKind::Mbarrier;
                    let t = Trouble { kind, message, lanes: u32::MAX, other: None };
                    self.fault(at, pc, t, &common.book)
                })?;
                return Ok(true);
            }
            if self.fire(c, memory, common)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Lets an arrival that waits for `cp.async` come.
    fn fire(
        &mut self,
        c: usize,
        memory: &mut Memory,
        common: &mut Common,
    ) -> Result<bool, Box<Fault>> {
        let waits = |w: &Warp| !w.hopper.arrivals.is_empty();
        let found = self.clusters[c]
            .ctas
            .iter()
            .enumerate()
            .find_map(|(rank, cta)| Some((rank, cta.warps.iter().position(waits)?)));
        let Some((rank, warp)) = found else { return Ok(false) };
        let at = At { cluster: c, rank, warp };
        let outcome = self.with_reach(memory, common, at, |warps, reach| {
            hopper::fire_one(&mut warps[warp], reach)
        });
        self.clusters[c].wake();
        outcome.map_err(|t| self.fault(at, self.pc(at), *t, &common.book))
    }

    /// Suspended waits return without success; once, as long as nothing changes.
    fn give_up(&mut self, progress: u64) -> bool {
        if self.gave_up_at == Some(progress) {
            return false;
        }
        self.gave_up_at = Some(progress);
        let mut any = false;
        for warp in self.clusters.iter_mut().flat_map(|c| &mut c.ctas).flat_map(|c| &mut c.warps) {
            if let Some(Waiting::Mbarrier { .. }) = warp.waiting {
                (warp.waiting, warp.hopper.timed_out, any) = (None, true, true);
            }
        }
        any
    }

    /// What all warps share, put together for a while.
    fn with_env<T>(
        &mut self,
        memory: &mut Memory,
        common: &mut Common,
        cluster: usize,
        body: impl FnOnce(&mut Env<'_>, &mut Cluster) -> T,
    ) -> T {
        let Job { kernel, plan, options, counters, touched, clusters, .. } = self;
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
            follows: self.follows.as_deref(),
            ticks: self.ticks,
            progress: common.progress,
            random: self.random,
        };
        let out = body(&mut env, &mut clusters[cluster]);
        let Env { ticks, progress, random, .. } = env;
        (self.ticks, common.progress, self.random) = (ticks, progress, random);
        out
    }

    fn with_reach<T>(
        &mut self,
        memory: &mut Memory,
        common: &mut Common,
        at: At,
        body: impl FnOnce(&mut [Warp], &mut Reach<'_, '_>) -> T,
    ) -> T {
        self.with_env(memory, common, at.cluster, |env, cluster| {
            let Cluster { ctas, banks, flights, .. } = cluster;
            let mut reach = Reach { env, banks, rank: at.rank, flights, pc: 0 };
            body(&mut ctas[at.rank].warps, &mut reach)
        })
    }

    fn run(
        &mut self,
        memory: &mut Memory,
        common: &mut Common,
        at: At,
        quantum: u64,
    ) -> Result<Turn, Box<Fault>> {
        let (outcome, released) =
            self.with_env(memory, common, at.cluster, |env, cluster| go(env, cluster, at, quantum));
        self.released += released;
        outcome.map_err(|(pc, t)| match t {
            Some(t) => self.fault(at, pc, *t, &common.book),
            None => {
                self.stuck_at = at;
                self.stuck(FaultKind::Budget, "the instruction budget is spent", common)
            }
        })
    }

    pub(crate) fn is_resident(&self) -> bool {
        !self.clusters.is_empty()
    }
}

/// The pc, and what is wrong there; nothing: the budget is spent.
type Stop = (u32, Option<Box<Trouble>>);

/// One warp for `quantum` instructions: what came of it, and how many CTAs let dependent launches begin.
fn go(env: &mut Env<'_>, cluster: &mut Cluster, at: At, quantum: u64) -> (Result<Turn, Stop>, u32) {
    let (c, w) = (at.rank, at.warp);
    let (kernel, options) = (env.kernel, env.options);
    let mut outcome = Ok(Turn::Ran);
    let mut released = 0;
    for _ in 0..quantum {
        let Cluster { ctas, banks, flights, .. } = &mut *cluster;
        let mut reach = Reach { env: &mut *env, banks, rank: c, flights, pc: 0 };
        let cta = &mut ctas[c];
        let flow = step(&mut cta.warps[w], &mut reach);
        let pc = reach.pc;
        if reach.env.ticks >= options.budget {
            outcome = Err((pc, None));
            break;
        }
        let mut result = Ok(());
        let mut stop = false;
        match flow {
            Ok(Flow::Next) => {}
            Ok(Flow::Yield) => stop = true,
            Ok(Flow::Barrier(arrival)) => {
                result = cta.barriers.enter(&mut cta.warps, w, &arrival).map(|done| {
                    env.progress += u64::from(done);
                });
                stop = cta.warps[w].waiting.is_some();
            }
            Ok(Flow::Retry(waiting)) => {
                cta.warps[w].waiting = Some(waiting);
                stop = true;
            }
            Ok(Flow::Matrix(ask)) => match hopper::ask(&mut cta.warps, w, &mut reach, ask) {
                Ok(done) => {
                    if let (true, hopper::queue::Ask::Wait { .. }) = (done, ask) {
                        cta.warps[w].advance(0);
                    } else if !done {
                        cta.warps[w].waiting = Some(Waiting::Matrix);
                        stop = true;
                    }
                }
                Err(t) => result = Err(t),
            },
            Ok(Flow::Cluster { arrive, relaxed, mask }) => {
                match cluster.meet((c, w), arrive, relaxed, mask) {
                    Ok(done) => {
                        env.progress += 1;
                        let phase = cluster.barrier.phase;
                        let warp = &mut cluster.ctas[c].warps[w];
                        if done && !arrive {
                            warp.advance(0);
                        } else if !done {
                            warp.waiting = Some(Waiting::Cluster(phase));
                            stop = true;
                        }
                    }
                    Err(t) => result = Err(t),
                }
            }
            Ok(Flow::GridLaunch) => {
                released += u32::from(!std::mem::replace(&mut cta.released, true));
                env.progress += 1;
            }
            Ok(Flow::Done) => {
                env.progress += u64::from(cta.barriers.warp_ended(&mut cta.warps));
                stop = true;
                if kernel.engines {
                    result = cluster.ended((c, w), options.check_races);
                }
                let cta = &mut cluster.ctas[c];
                if cta.over() {
                    released += u32::from(!std::mem::replace(&mut cta.released, true));
                }
                if result.is_ok() && cluster.over() {
                    let Cluster { banks, flights, .. } = &mut *cluster;
                    flights.write(env.memory, banks, |_| true);
                    let sms = cluster.ctas.iter().map(|c| c.sm).collect();
                    outcome = Ok(Turn::Ended { at: at.cluster, sms });
                }
            }
            Err(t) => result = Err(t),
        }
        if kernel.engines && cluster.wake() {
            env.progress += 1;
        }
        if let Err(t) = result {
            outcome = Err((pc, Some(t)));
            break;
        }
        if stop {
            break;
        }
    }
    (outcome, released)
}

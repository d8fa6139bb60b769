//! Launches that run at the same time: who gets the next turn, and whose CTA the next free place
//! on a multiprocessor. `run_launch` runs one, a [`Machine`](crate::Machine) any number.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::book::Author;
use super::run::{Common, Follows, Job, Turn};
use crate::check::past::Past;
use crate::error::LaunchError;
use crate::isa::Kernel;
use crate::mem::Memory;
use crate::options::{Options, Schedule};
use crate::plan::Plan;
use crate::report::{Fault, FaultKind};

/// A multiprocessor's room; a CTA of a launch of which n fit takes an n-th.
const ROOM: u32 = 1 << 20;

pub(crate) struct Several {
    pub(crate) common: Common,
    /// In the order in which they were started.
    jobs: Vec<Slot>,
    /// Free room of each multiprocessor.
    sms: Vec<u32>,
    schedule: Schedule,
    random: u64,
    turn: usize,
}

struct Slot {
    job: Job,
    /// The progress count at which it had no warp to run.
    idle_at: Option<u64>,
    /// Multiprocessors of each part of the chip; a cluster lies in one.
    gpcs: Vec<Range<usize>>,
    /// The launch that `griddepcontrol.wait` waits for, by its first agent.
    after: Option<u32>,
}

/// The launch that `griddepcontrol.wait` waits for.
#[derive(Clone, Debug)]
pub(crate) enum After {
    /// It runs; named by its first agent.
    Running(u32),
    /// It is over, and all that this value holds with it.
    Over(Past),
}

impl After {
    fn follows(&self) -> Follows {
        match self {
            After::Running(_) => Follows::default(),
            After::Over(past) => Arc::new(OnceLock::from(Arc::new(past.clone()))),
        }
    }

    fn running(self) -> Option<u32> {
        match self {
            After::Running(first) => Some(first),
            After::Over(_) => None,
        }
    }
}

/// What came of a step.
pub(crate) enum Step {
    Ran,
    /// This launch has ended.
    Finished(Box<Job>),
    /// There are launches, and none can go on.
    Stuck,
    /// There is no launch.
    Empty,
}

impl Several {
    pub(crate) fn new(sms: u32, schedule: Schedule, seed: u64) -> Self {
        Several {
            common: Common::default(),
            jobs: Vec::new(),
            sms: vec![ROOM; sms.max(1) as usize],
            schedule,
            random: crate::num::mix(seed, 11),
            turn: 0,
        }
    }

    fn draw(&mut self) -> usize {
        self.random = crate::num::mix(self.random, 1);
        self.random as usize
    }

    /// Starts a launch that knows `past`; its first agent names it from now on.
    pub(crate) fn start(
        &mut self,
        name: String,
        (kernel, plan): (Arc<Kernel>, Plan),
        options: Options,
        past: Past,
        after: Option<After>,
    ) -> Result<u32, LaunchError> {
        let agents = Job::agents(&kernel, &plan);
        let author = Author {
            kernel: Arc::clone(&kernel),
            agents: Job::numbering(&kernel, &plan),
            plan: plan.clone(),
        };
        let first = self.common.book.open(name, agents, Some(author)).ok_or(LaunchError::Agents)?;
        let gpcs = (0..options.gpcs).map(|g| options.sms_of(g)).collect();
        let job = Job::new(
            (kernel, plan),
            options,
            Arc::new(past),
            after.as_ref().map(After::follows),
            first,
        );
        self.jobs.push(Slot { job, idle_at: None, gpcs, after: after.and_then(After::running) });
        self.place(None);
        Ok(first)
    }

    /// Steps until a launch ends.
    pub(crate) fn run(&mut self, memory: &mut Memory) -> Result<Box<Job>, Box<Fault>> {
        loop {
            match self.step(memory)? {
                Step::Ran => {}
                Step::Finished(job) => return Ok(job),
                Step::Stuck | Step::Empty => return Err(self.deadlock()),
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Drops all launches where they stand.
    pub(crate) fn abandon(&mut self) {
        self.jobs.clear();
        self.sms.fill(ROOM);
    }

    /// Lets one warp of one launch run for a while.
    pub(crate) fn step(&mut self, memory: &mut Memory) -> Result<Step, Box<Fault>> {
        let n = self.jobs.len();
        if n == 0 {
            return Ok(Step::Empty);
        }
        if let Some(at) = (0..n).find(|&at| self.over(at)) {
            return Ok(self.finish(at));
        }
        match self.schedule {
            Schedule::RoundRobin => self.turn += 1,
            Schedule::Random if n > 1 => self.turn = self.draw(),
            _ => {}
        }
        for i in 0..n {
            let at = match self.schedule {
                Schedule::Reverse => n - 1 - (self.turn + i) % n,
                _ => (self.turn + i) % n,
            };
            let slot = &mut self.jobs[at];
            if slot.idle_at == Some(self.common.progress) {
                continue;
            }
            match slot.job.turn(memory, &mut self.common)? {
                Turn::Idle => slot.idle_at = Some(self.common.progress),
                Turn::Ran => return Ok(Step::Ran),
                Turn::Ended { at: place, sms } => return Ok(self.ended(at, place, &sms)),
            }
        }
        Ok(Step::Stuck)
    }

    fn ended(&mut self, at: usize, place: usize, sms: &[u32]) -> Step {
        for &sm in sms {
            self.sms[sm as usize] += room(&self.jobs[at].job);
        }
        // What starts, ends or makes room may let others go on.
        self.common.progress += 1;
        if !self.place(Some((at, place))) {
            self.jobs[at].job.leave(place);
        }
        if self.over(at) {
            return self.finish(at);
        }
        Step::Ran
    }

    /// A launch is over when all its CTAs are and the one that it follows is.
    fn over(&self, at: usize) -> bool {
        let job = &self.jobs[at].job;
        job.finished() && job.follows().is_none_or(|f| f.get().is_some())
    }

    fn finish(&mut self, at: usize) -> Step {
        let job = self.jobs.remove(at).job;
        self.tell(&job);
        Step::Finished(Box::new(job))
    }

    /// Those that follow a launch learn that it is over, and all that it came after.
    fn tell(&mut self, over: &Job) {
        for slot in self.jobs.iter().filter(|s| s.after == Some(over.first())) {
            let mut past = slot.job.past().clone();
            past.join(over.past());
            past.add(over.range());
            if let Some(follows) = slot.job.follows() {
                follows.get_or_init(|| Arc::new(past));
            }
        }
    }

    /// Whether launches that depend on this one may begin: it lets them, or is over.
    pub(crate) fn released(&self, first: u32) -> bool {
        self.jobs.iter().find(|s| s.job.first() == first).is_none_or(|s| s.job.released())
    }

    /// Starts clusters wherever there is room. `vacant` is a place in a launch whose cluster has ended;
    /// true when it was filled.
    fn place(&mut self, vacant: Option<(usize, usize)>) -> bool {
        let mut filled = false;
        loop {
            let n = self.jobs.len();
            let from = if self.schedule == Schedule::Random && n > 1 { self.draw() } else { 0 };
            let mut started = false;
            for i in 0..n {
                let at = (from + i) % n;
                let slot = &self.jobs[at];
                if !slot.job.waits_for_a_place() {
                    continue;
                }
                let Some(chosen) = choose(&self.sms, &slot.gpcs, &slot.job) else { continue };
                let job = &mut self.jobs[at].job;
                for &sm in &chosen {
                    self.sms[sm as usize] -= room(job);
                }
                let place = vacant.filter(|v| v.0 == at && !filled).map(|v| v.1);
                filled |= place.is_some();
                job.start(&chosen, place);
                self.jobs[at].idle_at = None;
                started = true;
                break;
            }
            if !started {
                return filled;
            }
        }
    }

    /// Why nobody can go on.
    pub(crate) fn deadlock(&self) -> Box<Fault> {
        let message = match self.jobs.len() {
            0 => "there is no launch".to_owned(),
            1 => "no warp can go on".to_owned(),
            n => format!("no warp of {n} launches can go on"),
        };
        match self.jobs.iter().find(|s| s.job.is_resident()) {
            Some(slot) => slot.job.stuck(FaultKind::Deadlock, &message, &self.common),
            None => Box::new(Fault::of("machine", FaultKind::Deadlock, message)),
        }
    }
}

/// Multiprocessors for the CTAs of a job's next cluster, all in one part of the chip: the emptiest, and
/// of those the first.
fn choose(sms: &[u32], gpcs: &[Range<usize>], job: &Job) -> Option<Vec<u32>> {
    let emptiest = |free: &[u32], range: Range<usize>| range.rev().max_by_key(|&s| free[s]);
    if job.cluster_size() == 1 {
        let best = emptiest(sms, 0..sms.len())?;
        return (sms[best] >= room(job)).then(|| vec![best as u32]);
    }
    gpcs.iter().find_map(|gpc| {
        let mut free = sms.to_vec();
        (0..job.cluster_size())
            .map(|_| {
                let best = emptiest(&free, gpc.clone())?;
                free[best] = free[best].checked_sub(room(job))?;
                Some(best as u32)
            })
            .collect()
    })
}

fn room(job: &Job) -> u32 {
    ROOM / job.per_sm().max(1)
}

//! Work that was asked for, its order, and the machine that does it. An operation knows the
//! operations that it comes after; nothing is done before somebody waits for it (or by chance, by
//! seed), and what is not ordered is done side by side. Streams, events and graphs are made of
//! nothing but these dependencies; this file knows none of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use ptx_sim::{
    Before, Fault, FaultKind, Launch, LaunchId, Machine, Module, Options, Past, Progress,
};

use crate::config::{Config, Timing};
use crate::ffi::HostCall;
use crate::pinned::Pinned;
use crate::report;

/// Names an operation; later ones have higher numbers.
pub(crate) type OpId = u64;

/// What an operation does.
#[derive(Clone)]
pub(crate) enum Work {
    /// Nothing; it stands for all that it comes after.
    Marker,
    /// An event that keeps the time.
    Stamp(Arc<Mutex<Option<Instant>>>),
    Launch(Arc<Call>),
    Upload {
        to: u64,
        from: Source,
    },
    /// To page-locked memory, or, without one, to [`Queue::take`].
    Download {
        from: u64,
        len: usize,
        to: Option<usize>,
    },
    Copy {
        to: u64,
        from: u64,
        len: usize,
    },
    Fill {
        to: u64,
        pattern: Vec<u8>,
        count: usize,
    },
    /// An allocation in stream order comes to life.
    Born {
        at: u64,
        bytes: usize,
    },
    Free {
        at: u64,
    },
    Host(HostCall),
}

/// Where an upload's bytes are.
#[derive(Clone)]
pub(crate) enum Source {
    /// Taken when the copy was asked for.
    Staged(Arc<[u8]>),
    /// In page-locked memory, read when the copy is done.
    Pinned { at: usize, len: usize },
}

/// A launch, checked.
pub(crate) struct Call {
    pub(crate) title: String,
    pub(crate) module: Arc<Module>,
    pub(crate) launch: Launch,
    pub(crate) options: Options,
    /// It may begin before the launch that it follows is over.
    pub(crate) early: bool,
}

/// The launch that an early one follows.
enum Primary {
    Op(OpId),
    Over(Past),
}

struct Op {
    /// What reports call it.
    name: String,
    work: Work,
    /// Operations not over yet that come before.
    after: BTreeSet<OpId>,
    /// What had happened before, as far as it is over.
    past: Past,
    /// A query has found it unfinished once.
    asked: bool,
    running: Option<LaunchId>,
    /// Of an early launch: it knows of this one only once it has waited for it.
    primary: Option<Primary>,
}

pub(crate) struct Queue {
    machine: Machine,
    pub(crate) pinned: Pinned,
    ops: BTreeMap<OpId, Op>,
    dependents: HashMap<OpId, Vec<OpId>>,
    /// What has happened with each operation that is over. One that is not here either is known
    /// to everybody.
    done: HashMap<OpId, Arc<Past>>,
    running: HashMap<LaunchId, OpId>,
    /// What each launch came after: an early one that follows it comes after that too.
    began: HashMap<OpId, Past>,
    downloads: HashMap<OpId, Vec<u8>>,
    next: OpId,
    /// What the host has waited for. Its threads count as one: how they order themselves is not
    /// to be seen from here.
    host: Past,
    config: Arc<Config>,
    random: u64,
}

type Done<T = ()> = Result<T, Box<Fault>>;

impl Queue {
    pub(crate) fn new(config: Arc<Config>) -> Self {
        Queue {
            machine: Machine::new(&config.options),
            pinned: Pinned::default(),
            ops: BTreeMap::new(),
            dependents: HashMap::new(),
            done: HashMap::new(),
            running: HashMap::new(),
            began: HashMap::new(),
            downloads: HashMap::new(),
            next: 1,
            host: Past::new(),
            random: config.options.seed ^ 0x5151,
            config,
        }
    }

    /// A number by seed.
    pub(crate) fn draw(&mut self) -> u64 {
        // xorshift64*: short, and the same everywhere.
        self.random = self.random.max(1);
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    /// Memory that is there for all from now on.
    pub(crate) fn alloc(&mut self, bytes: usize) -> Option<u64> {
        self.machine.alloc(bytes).ok()
    }

    /// An address that a [`Work::Born`] brings to life.
    pub(crate) fn reserve(&mut self, bytes: usize) -> Option<u64> {
        self.machine.reserve(bytes).ok()
    }

    /// Asks for work that comes after `deps` and after all that the host has waited for.
    pub(crate) fn submit(&mut self, name: String, deps: &[OpId], work: Work) -> Done<OpId> {
        if let Work::Download { len, to: Some(at), .. } = work {
            self.spoil(at, len);
        }
        let id = self.next;
        self.next += 1;
        let mut op = Op {
            name,
            after: BTreeSet::new(),
            past: self.host.clone(),
            asked: false,
            running: None,
            primary: self.primary(&work, deps),
            work,
        };
        for &dep in deps {
            if let (Some(Primary::Over(_)), Some(began)) = (&op.primary, self.began.get(&dep)) {
                op.past.join(began);
                continue;
            }
            if self.ops.contains_key(&dep) {
                if op.after.insert(dep) {
                    self.dependents.entry(dep).or_default().push(id);
                }
            } else if let Some(past) = self.done.get(&dep) {
                op.past.join(past);
            }
        }
        self.ops.insert(id, op);
        match self.config.timing {
            Timing::Late => {}
            // What waits for later work is left where it stands.
            Timing::Early => self.run(&[id], false)?,
            Timing::Random => self.idle_hands()?,
        }
        Ok(id)
    }

    /// The launch that an early one follows, if what it follows is one.
    fn primary(&self, work: &Work, deps: &[OpId]) -> Option<Primary> {
        let (Work::Launch(call), &[dep]) = (work, deps) else { return None };
        if !call.early {
            return None;
        }
        match self.ops.get(&dep) {
            Some(op) => matches!(op.work, Work::Launch(_)).then_some(Primary::Op(dep)),
            None if self.began.contains_key(&dep) => {
                self.done.get(&dep).map(|past| Primary::Over(Past::clone(past)))
            }
            None => None,
        }
    }

    /// The launch beside which an early one may begin now.
    fn beside(&self, op: &Op) -> Option<LaunchId> {
        let Some(Primary::Op(primary)) = op.primary else { return None };
        let running = self.ops.get(&primary)?.running?;
        let alone = op.after.len() == 1 && op.running.is_none();
        (alone && self.machine.released(running)).then_some(running)
    }

    /// Early launches that may begin now do: at once, by chance, or not before they must.
    fn begin_early(&mut self) -> Done<bool> {
        if self.config.timing == Timing::Late {
            return Ok(false);
        }
        let found: Vec<OpId> = self
            .ops
            .iter()
            .filter(|(_, op)| self.beside(op).is_some())
            .map(|(&id, _)| id)
            .collect();
        let mut any = false;
        for id in found {
            if self.config.timing == Timing::Early || self.draw().is_multiple_of(8) {
                self.begin(id)?;
                any = true;
            }
        }
        Ok(any)
    }

    /// Until the copy is waited for, its destination holds noise: who reads it early shall see it.
    fn spoil(&mut self, at: usize, len: usize) {
        let overlaps = |from: usize, n: usize| from < at + len && at < from + n;
        let awaited = self.ops.values().any(|op| match &op.work {
            Work::Upload { from: Source::Pinned { at, len }, .. } => overlaps(*at, *len),
            _ => false,
        });
        if !awaited {
            let seed = self.draw();
            self.pinned.scribble(at, len, seed);
        }
    }

    /// Does some of what there is to do, by chance.
    fn idle_hands(&mut self) -> Done {
        if self.draw().is_multiple_of(4) {
            let ready: Vec<OpId> =
                self.ops.iter().filter(|(_, op)| op.after.is_empty()).map(|(&id, _)| id).collect();
            for id in ready {
                if self.draw().is_multiple_of(2) {
                    self.begin(id)?;
                }
            }
            for _ in 0..self.draw() % 64 {
                match self.machine.step()? {
                    Progress::Finished { launch, counters, past } => {
                        self.finished(launch, &counters, past);
                    }
                    Progress::Ran => {}
                    Progress::Stuck | Progress::Empty => break,
                }
            }
        }
        Ok(())
    }

    /// Whether an operation is over; asking twice gets it done, so that nobody polls in vain.
    pub(crate) fn query(&mut self, targets: &[OpId]) -> Done<bool> {
        let mut open = false;
        let mut again = true;
        for id in targets {
            if let Some(op) = self.ops.get_mut(id) {
                open = true;
                again &= std::mem::replace(&mut op.asked, true);
            }
        }
        if open && !again {
            return Ok(false);
        }
        self.wait(targets)?;
        Ok(true)
    }

    /// The host waits until `targets` are over, and knows then what they knew.
    pub(crate) fn wait(&mut self, targets: &[OpId]) -> Done {
        self.run(targets, true)?;
        for id in targets {
            if let Some(past) = self.done.get(id) {
                self.host.join(past);
            }
        }
        if self.ops.is_empty() && self.machine.all_known(&self.host) {
            self.machine.forget();
            self.done.clear();
            self.began.clear();
            self.host = Past::new();
        }
        Ok(())
    }

    /// Does `targets` without the host knowing of it.
    pub(crate) fn finish(&mut self, targets: &[OpId]) -> Done {
        self.run(targets, true)
    }

    /// What a download without destination has brought.
    pub(crate) fn take(&mut self, id: OpId) -> Vec<u8> {
        self.downloads.remove(&id).unwrap_or_default()
    }

    /// Drops all work after a failed check; nobody can wait for any of it any more.
    pub(crate) fn abandon(&mut self) {
        self.machine.abandon();
        self.machine.forget();
        self.ops.clear();
        self.dependents.clear();
        self.done.clear();
        self.running.clear();
        self.began.clear();
        self.downloads.clear();
        self.host = Past::new();
    }

    /// Gives memory back that nobody can use any more: its context is gone, its work done.
    pub(crate) fn discard(&mut self, at: u64) {
        let everything = self.everything();
        // It may be unborn or gone already; then there is nothing to give back.
        let _ = self.machine.free("end of the context", at, &everything);
    }

    fn everything(&self) -> Past {
        let mut all = self.host.clone();
        self.done.values().for_each(|past| all.join(past));
        all
    }

    /// Works until `targets` are over, or, unless it must, until nothing can go on.
    fn run(&mut self, targets: &[OpId], must: bool) -> Done {
        let mut wanted = BTreeSet::new();
        self.want(targets, &mut wanted);
        let mut changed = true;
        loop {
            while changed {
                changed = false;
                wanted.retain(|id| self.ops.contains_key(id));
                if wanted.is_empty() {
                    return Ok(());
                }
                if self.config.timing == Timing::Random {
                    self.want_by_chance(&mut wanted);
                }
                let mut ready: Vec<OpId> = wanted.iter().copied().collect();
                ready.retain(|id| self.ops.get(id).is_some_and(Op::ready));
                if self.config.timing == Timing::Random && ready.len() > 1 {
                    let by = self.draw() as usize % ready.len();
                    ready.rotate_left(by);
                }
                for id in ready {
                    changed |= self.begin(id)?;
                }
            }
            match self.machine.step()? {
                Progress::Ran => changed = self.begin_early()?,
                Progress::Finished { launch, counters, past } => {
                    self.finished(launch, &counters, past);
                    changed = true;
                }
                // What runs may wait for something that nobody waits for: a real device would not
                // hold that back for ever.
                Progress::Stuck | Progress::Empty => {
                    let spare = self.ops.iter().find(|(_, op)| op.ready()).map(|(&id, _)| id);
                    let Some(id) = spare else {
                        return if must { Err(self.machine.deadlock()) } else { Ok(()) };
                    };
                    self.begin(id)?;
                    changed = true;
                }
            }
        }
    }

    /// Adds the targets that are not over, and all that comes before them.
    fn want(&self, targets: &[OpId], wanted: &mut BTreeSet<OpId>) {
        let mut left = targets.to_vec();
        while let Some(id) = left.pop() {
            if let Some(op) = self.ops.get(&id)
                && wanted.insert(id)
            {
                left.extend(&op.after);
            }
        }
    }

    fn want_by_chance(&mut self, wanted: &mut BTreeSet<OpId>) {
        let ready: Vec<OpId> =
            self.ops.iter().filter(|(_, op)| op.ready()).map(|(&id, _)| id).collect();
        for id in ready {
            if self.draw().is_multiple_of(3) {
                wanted.insert(id);
            }
        }
    }

    /// Starts an operation all of whose predecessors are over; true when it is over at once.
    fn begin(&mut self, id: OpId) -> Done<bool> {
        let Some(op) = self.ops.get(&id) else { return Ok(false) };
        if op.running.is_some() {
            return Ok(false);
        }
        let before = match (&op.primary, self.beside(op)) {
            (Some(Primary::Op(primary)), Some(running)) => {
                // What the other one came after is over.
                let known = self.began.get(primary).cloned().unwrap_or_default();
                Some((Before::Running(running), known))
            }
            (Some(Primary::Over(past)), _) => Some((Before::Over(past.clone()), Past::new())),
            _ => None,
        };
        let Some(op) = self.ops.get_mut(&id) else { return Ok(false) };
        let (name, past) = (op.name.clone(), op.past.clone());
        let machine = &mut self.machine;
        let after = match op.work.clone() {
            Work::Marker => past,
            Work::Stamp(time) => {
                *time.lock().unwrap_or_else(|e| e.into_inner()) = Some(Instant::now());
                past
            }
            Work::Launch(call) => {
                let Call { title, module, launch, options, .. } = &*call;
                let started = match before {
                    None => machine.start(title, module, launch, options, &past),
                    Some((before, known)) => {
                        let mut past = past;
                        past.join(&known);
                        machine.start_early(title, module, launch, options, &past, before)
                    }
                };
                let launch = started.map_err(|e| refused(&name, e.to_string()))?;
                op.running = Some(launch);
                self.began.insert(id, op.past.clone());
                self.running.insert(launch, id);
                return Ok(false);
            }
            Work::Upload { to, from } => match from {
                Source::Staged(bytes) => machine.write(&name, to, &bytes, &past)?,
                Source::Pinned { at, len } => {
                    let bytes = self.pinned.read(at, len).ok_or_else(|| gone(&name, at, len))?;
                    machine.write(&name, to, &bytes, &past)?
                }
            },
            Work::Download { from, len, to } => {
                let (bytes, after) = machine.read(&name, from, len, &past)?;
                if self.config.check_host
                    && let Some(byte) = machine.unwritten(from, len)
                {
                    let what = format!("byte {byte} of {len} at {from:#x} was never written");
                    let mut fault = refused(&name, what);
                    fault.kind = FaultKind::UninitialisedMemory;
                    return Err(fault);
                }
                match to {
                    Some(at) if !self.pinned.write(at, &bytes) => {
                        return Err(gone(&name, at, len));
                    }
                    Some(_) => {}
                    None => {
                        self.downloads.insert(id, bytes);
                    }
                }
                after
            }
            Work::Copy { to, from, len } => machine.copy(&name, (to, from), len, &past)?,
            Work::Fill { to, pattern, count } => {
                machine.write(&name, to, &pattern.repeat(count), &past)?
            }
            Work::Born { at, bytes } => machine.born(&name, at, bytes, &past)?,
            Work::Free { at } => machine.free(&name, at, &past)?,
            Work::Host(call) => {
                call.call();
                past
            }
        };
        self.over(id, after);
        Ok(true)
    }

    fn finished(&mut self, launch: LaunchId, counters: &ptx_sim::Counters, past: Past) {
        let Some(id) = self.running.remove(&launch) else { return };
        if let Some(Op { work: Work::Launch(call), .. }) = self.ops.get(&id)
            && let Some(path) = &self.config.counters
        {
            report::counters(path, &call.title, counters);
        }
        self.over(id, past);
    }

    fn over(&mut self, id: OpId, past: Past) {
        self.ops.remove(&id);
        for dependent in self.dependents.remove(&id).unwrap_or_default() {
            if let Some(op) = self.ops.get_mut(&dependent) {
                op.after.remove(&id);
                match op.primary {
                    Some(Primary::Op(primary)) if primary == id => {
                        op.primary = Some(Primary::Over(past.clone()));
                        if let Some(began) = self.began.get(&id) {
                            op.past.join(began);
                        }
                    }
                    _ => op.past.join(&past),
                }
            }
        }
        self.done.insert(id, Arc::new(past));
    }
}

impl Op {
    fn ready(&self) -> bool {
        self.after.is_empty() && self.running.is_none()
    }
}

/// A fault of an operation that is no kernel.
fn refused(name: &str, message: String) -> Box<Fault> {
    Box::new(Fault {
        kind: FaultKind::NotSimulated,
        file: String::new(),
        entry: name.into(),
        line: 0,
        cta: [0; 3],
        warp: 0,
        lanes: 0,
        message,
        other: None,
        warps: Vec::new(),
        seed: 0,
    })
}

fn gone(name: &str, at: usize, len: usize) -> Box<Fault> {
    let mut fault = refused(name, format!("{len} bytes of host memory at {at:#x} were freed"));
    fault.kind = FaultKind::OutOfBounds;
    fault
}

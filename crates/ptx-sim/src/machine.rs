//! Several launches at a time on one memory, with copies, fills, frees and the host in between, and
//! the checks held across all of them. Whoever orders them says with each what had happened before
//! it ([`Past`]); two accesses of which neither is in the other's past race. Used by
//! `ptx-sim-driver`.

use crate::check::clock::Stamp;
use crate::check::past::Past;
use crate::check::region::Region;
use crate::check::shadow::{Clash, Who};
use crate::check::warp_clock::WarpClock;
use crate::counters::Counters;
use crate::error::LaunchError;
use crate::exec::several::{After, Several, Step};
use crate::isa::Module;
use crate::mem::{Memory, MemoryError};
use crate::options::Options;
use crate::plan::{Launch, prepare};
use crate::report::{Fault, FaultKind};

use std::sync::Arc;

/// A launch that runs on a [`Machine`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LaunchId(u32);

/// The launch that a dependent one waits for with `griddepcontrol.wait`.
#[derive(Clone, Debug)]
pub enum Before {
    /// It runs.
    Running(LaunchId),
    /// It is over: what had happened then, itself included.
    Over(Past),
}

/// What came of [`Machine::step`].
#[derive(Debug)]
pub enum Progress {
    /// Some warp ran for a while.
    Ran,
    /// A launch has ended.
    Finished {
        /// Which.
        launch: LaunchId,
        /// What it did.
        counters: Box<Counters>,
        /// What has happened when it is over, itself included.
        past: Past,
    },
    /// Launches are running and none can go on before another one starts.
    Stuck,
    /// No launch is running.
    Empty,
}

/// Multiprocessors and memory, and all that runs on them.
///
/// ```
/// use ptx_sim::{Launch, Machine, Module, Options, Past, Progress};
///
/// let ptx = "
///     .version 7.0
///     .target sm_80
///     .address_size 64
///     .visible .entry set(.param .u64 x) {
///         .reg .b64 %p;
///         ld.param.u64 %p, [x];
///         st.global.u32 [%p], 7;
///         ret;
///     }";
/// let module = Module::parse("set.ptx", ptx).unwrap();
/// let mut machine = Machine::new(&Options::default());
/// let x = machine.alloc(4).unwrap();
/// let launch = Launch::new("set", [1, 1, 1], [1, 1, 1]).ptr(x);
/// let host = Past::new();
/// machine.start("set", &module, &launch, &Options::default(), &host).unwrap();
/// let Progress::Finished { past, .. } = std::iter::from_fn(|| Some(machine.step().unwrap()))
///     .find(|p| !matches!(p, Progress::Ran))
///     .unwrap()
/// else { panic!() };
/// // Who has not waited for the launch races with it.
/// assert!(machine.read("the host", x, 4, &host).is_err());
/// assert_eq!(machine.read("the host", x, 4, &past).unwrap().0, [7, 0, 0, 0]);
/// ```
pub struct Machine {
    memory: Memory,
    several: Several,
    check_races: bool,
    seed: u64,
    allocations: u64,
}

impl Machine {
    /// An idle machine with the multiprocessors, schedule, seed and checks of `options`; each
    /// launch brings options of its own for all else.
    pub fn new(options: &Options) -> Self {
        Machine {
            memory: Memory::new(),
            several: Several::new(options.sms, options.schedule, options.seed),
            check_races: options.check_races,
            seed: options.seed,
            allocations: 0,
        }
    }

    fn region(&mut self, bytes: usize) -> Region {
        self.allocations += 1;
        Region::seeded(bytes, crate::num::mix(self.seed, self.allocations))
    }

    /// `bytes` of uninitialised memory, there for all from now on. What it holds depends on the
    /// seed.
    ///
    /// # Errors
    /// Zero bytes, or more than the simulator holds.
    pub fn alloc(&mut self, bytes: usize) -> Result<u64, MemoryError> {
        let address = self.memory.reserve(bytes)?;
        let region = self.region(bytes);
        self.memory.born(address, region);
        Ok(address)
    }

    /// An address whose memory [`born`](Self::born) brings: allocation in stream order.
    ///
    /// # Errors
    /// Zero bytes, or more than the simulator holds.
    pub fn reserve(&mut self, bytes: usize) -> Result<u64, MemoryError> {
        self.memory.reserve(bytes)
    }

    /// Memory for a reserved address; who touches it must know the past that comes back.
    ///
    /// # Errors
    /// The simulator cannot number any more actors.
    pub fn born(
        &mut self,
        name: &str,
        address: u64,
        bytes: usize,
        past: &Past,
    ) -> Result<Past, Box<Fault>> {
        let actor = self.actor(name, past)?;
        let mut region = self.region(bytes);
        if self.check_races {
            region.born(actor.stamp);
        }
        self.memory.born(address, region);
        Ok(actor.after)
    }

    /// Frees an allocation by its first address.
    ///
    /// # Errors
    /// It is none, or some access to it is not in `past`.
    pub fn free(&mut self, name: &str, address: u64, past: &Past) -> Result<Past, Box<Fault>> {
        let actor = self.actor(name, past)?;
        let (region, _) = self.memory.range(address, 0).map_err(|e| foul(name, &e))?;
        if self.check_races {
            let settled = region.settled(&actor.who());
            settled.map_err(|c| self.race(name, "the memory is freed", address, c, &actor))?;
        }
        self.memory.free(address).map_err(|e| foul(name, &e))?;
        Ok(actor.after)
    }

    /// Writes `bytes`.
    ///
    /// # Errors
    /// The range is not in one live allocation, or the write races.
    pub fn write(
        &mut self,
        name: &str,
        address: u64,
        bytes: &[u8],
        past: &Past,
    ) -> Result<Past, Box<Fault>> {
        let actor = self.actor(name, past)?;
        let (region, at) = self.touch(name, address, bytes.len(), true, &actor)?;
        region.mark_init(at, bytes.len());
        if let Some(to) = region.host(at, bytes.len()) {
            to.copy_from_slice(bytes);
        }
        Ok(actor.after)
    }

    /// Reads `len` bytes.
    ///
    /// # Errors
    /// The range is not in one live allocation, or the read races.
    pub fn read(
        &mut self,
        name: &str,
        address: u64,
        len: usize,
        past: &Past,
    ) -> Result<(Vec<u8>, Past), Box<Fault>> {
        let actor = self.actor(name, past)?;
        let (region, at) = self.touch(name, address, len, false, &actor)?;
        let bytes = region.host(at, len).map(|b| b.to_vec()).unwrap_or_default();
        Ok((bytes, actor.after))
    }

    /// First byte of a range, counted from its start, that nobody wrote.
    pub fn unwritten(&mut self, address: u64, len: usize) -> Option<usize> {
        let (region, at) = self.memory.range(address, len).ok()?;
        Some(region.unwritten(at, len)? - at)
    }

    /// Copies between two allocations; bytes never written stay so.
    ///
    /// # Errors
    /// As for [`read`](Self::read) and [`write`](Self::write), or the ranges overlap.
    pub fn copy(
        &mut self,
        name: &str,
        (to, from): (u64, u64),
        len: usize,
        past: &Past,
    ) -> Result<Past, Box<Fault>> {
        if to.max(from) - to.min(from) < len as u64 {
            let message = format!("{len} bytes at {from:#x} and {to:#x} overlap");
            return Err(Box::new(Fault::of(name, FaultKind::OutOfBounds, message)));
        }
        let actor = self.actor(name, past)?;
        let (region, at) = self.touch(name, from, len, false, &actor)?;
        let bytes = region.host(at, len).map(|b| b.to_vec()).unwrap_or_default();
        let written = region.written(at, len);
        let (region, at) = self.touch(name, to, len, true, &actor)?;
        region.set_written(at, &written);
        if let Some(to) = region.host(at, len) {
            to.copy_from_slice(&bytes);
        }
        Ok(actor.after)
    }

    /// Starts a launch that comes after `past`; `name` is what reports call it.
    ///
    /// # Errors
    /// What the chip refuses; nothing has started then.
    pub fn start(
        &mut self,
        name: &str,
        module: &Module,
        launch: &Launch,
        options: &Options,
        past: &Past,
    ) -> Result<LaunchId, LaunchError> {
        self.begin(name, module, launch, options, past, None)
    }

    /// Starts a launch that may run beside the one it depends on: its `griddepcontrol.wait` waits until
    /// `after` is over, and before that it knows nothing of it. `past` is all else that it comes
    /// after. To be called once [`released`](Self::released) says so.
    ///
    /// # Errors
    /// What the chip refuses; nothing has started then.
    pub fn start_early(
        &mut self,
        name: &str,
        module: &Module,
        launch: &Launch,
        options: &Options,
        past: &Past,
        after: Before,
    ) -> Result<LaunchId, LaunchError> {
        let after = match after {
            Before::Running(launch) => After::Running(launch.0),
            Before::Over(past) => After::Over(past),
        };
        self.begin(name, module, launch, options, past, Some(after))
    }

    /// Whether every CTA of a launch has run `griddepcontrol.launch_dependents` or ended.
    pub fn released(&self, launch: LaunchId) -> bool {
        self.several.released(launch.0)
    }

    fn begin(
        &mut self,
        name: &str,
        module: &Module,
        launch: &Launch,
        options: &Options,
        past: &Past,
        after: Option<After>,
    ) -> Result<LaunchId, LaunchError> {
        let (kernel, mut plan) = prepare(module, launch, options)?;
        let globals = self.memory.globals(module.id, &module.globals);
        plan.globals = globals.map_err(LaunchError::Globals)?;
        self.several.start(name.into(), (kernel, plan), *options, past.clone(), after).map(LaunchId)
    }

    /// Lets one warp of one launch run for a while.
    ///
    /// # Errors
    /// The first check that failed; what ran then stands still for good.
    pub fn step(&mut self) -> Result<Progress, Box<Fault>> {
        Ok(match self.several.step(&mut self.memory)? {
            Step::Ran => Progress::Ran,
            Step::Stuck => Progress::Stuck,
            Step::Empty => Progress::Empty,
            Step::Finished(job) => {
                let mut past = job.past().clone();
                past.add(job.range());
                if let Some(before) = job.follows().and_then(|f| f.get()) {
                    past.join(before);
                }
                let launch = LaunchId(job.first());
                Progress::Finished { launch, counters: Box::new(job.into_counters()), past }
            }
        })
    }

    /// Why no launch can go on, after [`Progress::Stuck`].
    pub fn deadlock(&self) -> Box<Fault> {
        self.several.deadlock()
    }

    /// Drops all launches where they stand.
    pub fn abandon(&mut self) {
        self.several.abandon();
    }

    /// Whether everything that has ever happened is in `past`, and nothing runs.
    pub fn all_known(&self, past: &Past) -> bool {
        self.several.is_empty() && past.floor() >= self.several.common.book.next()
    }

    /// Starts counting afresh, when [`all_known`](Self::all_known) holds of everybody: no access
    /// so far can race with one to come. Every older [`Past`] loses its meaning.
    pub fn forget(&mut self) {
        if self.several.common.book.next() > 0 {
            self.memory.forget();
            self.several.common.sync = Default::default();
            self.several.common.book.clear();
        }
    }

    fn actor(&mut self, name: &str, past: &Past) -> Result<Actor, Box<Fault>> {
        let agent = self.several.common.book.open(name.into(), 1, None).ok_or_else(|| {
            Box::new(Fault::of(name, FaultKind::NotSimulated, LaunchError::Agents.to_string()))
        })?;
        let mut after = past.clone();
        after.add(agent..agent + 1);
        // Engines come in pairs; the second never does anything.
        after.add(agent + 1..agent + 2);
        let stamp = Stamp { agent, epoch: 1, lanes: 1, packed: 0 };
        Ok(Actor { clock: WarpClock::single(&Arc::new(past.clone()), agent), stamp, after })
    }

    /// The checked range, recorded as touched.
    fn touch(
        &mut self,
        name: &str,
        address: u64,
        len: usize,
        write: bool,
        actor: &Actor,
    ) -> Result<(&mut Region, usize), Box<Fault>> {
        if self.check_races {
            let (region, at) = self.memory.range(address, len).map_err(|e| foul(name, &e))?;
            let touched = region.touch(at, len, write, &actor.who());
            let verb = if write { "write" } else { "read" };
            touched.map_err(|clash| {
                let what = format!("{verb} of {len} bytes");
                self.race(name, &what, address, clash, actor)
            })?;
        }
        self.memory.range(address, len).map_err(|e| foul(name, &e))
    }

    fn race(
        &self,
        name: &str,
        what: &str,
        address: u64,
        clash: Clash,
        actor: &Actor,
    ) -> Box<Fault> {
        let (stamp, write) = match clash {
            Clash::Race(stamp, write) | Clash::NonCoherent(stamp, write) => (stamp, write),
            Clash::Proxy(stamp) => (stamp, true),
        };
        let message = format!("{what} at {address:#x} without waiting for another access");
        let mut fault = Fault::of(name, FaultKind::Race, message);
        fault.other = Some(self.several.common.book.other(&stamp, write, actor.stamp.agent));
        Box::new(fault)
    }
}

/// Something that is no kernel, for the length of one access.
struct Actor {
    clock: WarpClock,
    stamp: Stamp,
    after: Past,
}

impl Actor {
    fn who(&self) -> Who<'_> {
        Who { clock: &self.clock, lane: 0, stamp: self.stamp, proxy: None, wide: None }
    }
}

fn foul(name: &str, error: &MemoryError) -> Box<Fault> {
    Box::new(Fault::of(name, FaultKind::OutOfBounds, error.to_string()))
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Machine({} allocations)", self.allocations)
    }
}

//! The way in: a launch, its options, and the checks before anything runs. Called by tests and by
//! the driver stand-in.

use std::sync::Arc;

use thiserror::Error;

use crate::check::past::Past;
use crate::chip::Chip;
use crate::counters::Counters;
use crate::error::LaunchError;
use crate::exec::several::Several;
use crate::isa::{Kernel, Module};
use crate::mem::Memory;
use crate::num::mma::MmaModel;
use crate::report::Fault;

/// Who runs next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schedule {
    /// Every warp in turn, a few instructions each.
    #[default]
    RoundRobin,
    /// A random warp for a random while, by seed; CTAs start in random order.
    Random,
    /// One warp as far as it goes, then the next.
    OneFar,
    /// The same from the last CTA and warp backwards.
    Reverse,
}

/// When asynchronous copies land.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyTiming {
    /// When issued.
    Early,
    /// When waited for.
    #[default]
    Late,
    /// At issue, at a later commit or at the wait, by seed.
    Random,
}

/// How a launch is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The chip.
    pub chip: Chip,
    /// Multiprocessors in use; at least 1.
    pub sms: u32,
    /// CTAs a multiprocessor holds at once, at most; the chip's limits apply too.
    pub blocks_per_sm: u32,
    /// Order of execution.
    pub schedule: Schedule,
    /// Timing of `cp.async`.
    pub copies: CopyTiming,
    /// Arithmetic of `mma`.
    pub mma: MmaModel,
    /// Moves `.approx` results within their documented error.
    pub perturb: bool,
    /// Seed of everything random.
    pub seed: u64,
    /// Warp instructions after which a launch is ended.
    pub budget: u64,
    /// Report reads of bytes nobody wrote.
    pub check_init: bool,
    /// Report races and `.nc` reads of written bytes.
    pub check_races: bool,
    /// Count wavefronts and sectors.
    pub count: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            chip: Chip::SM_80,
            sms: 4,
            blocks_per_sm: 1,
            schedule: Schedule::default(),
            copies: CopyTiming::default(),
            mma: MmaModel::default(),
            perturb: false,
            seed: 0,
            budget: 1 << 32,
            check_init: true,
            check_races: true,
            count: true,
        }
    }
}

/// One launch of an entry.
#[derive(Clone, Debug)]
pub struct Launch {
    entry: String,
    grid: [u32; 3],
    block: [u32; 3],
    dynamic_shared: u32,
    params: Vec<Vec<u8>>,
}

impl Launch {
    /// A launch of `entry` with `grid` blocks of `block` threads and no parameters.
    pub fn new(entry: &str, grid: [u32; 3], block: [u32; 3]) -> Self {
        Launch { entry: entry.into(), grid, block, dynamic_shared: 0, params: Vec::new() }
    }

    /// Bytes of dynamic shared memory.
    #[must_use]
    pub fn shared(mut self, bytes: u32) -> Self {
        self.dynamic_shared = bytes;
        self
    }

    /// Adds a parameter by its bytes.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.params.push(bytes.to_vec());
        self
    }

    /// Adds a parameter of 64 bits, a pointer for instance.
    #[must_use]
    pub fn ptr(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Adds a parameter of 32 bits.
    #[must_use]
    pub fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Adds a parameter of type f32.
    #[must_use]
    pub fn f32(self, value: f32) -> Self {
        self.bytes(&value.to_le_bytes())
    }
}

/// Why a launch failed.
#[derive(Debug, Error)]
pub enum RunError {
    /// Refused before it started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// A check failed while it ran.
    #[error(transparent)]
    Fault(Box<Fault>),
}

impl RunError {
    /// The fault, when it was one.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            RunError::Fault(fault) => Some(fault),
            RunError::Launch(_) => None,
        }
    }
}

/// What is checked and laid out for the executor.
pub(crate) struct Plan {
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared: u64,
    pub(crate) dynamic_shared: u32,
    /// CTAs a multiprocessor holds at once.
    pub(crate) per_sm: u32,
    /// Where the module's global variables lie.
    pub(crate) globals: u64,
    pub(crate) params: Vec<u8>,
}

/// Runs a launch to its end on `memory`.
///
/// # Errors
/// What the chip refuses ([`LaunchError`]) before anything ran, or the first check that failed
/// ([`Fault`]); memory then holds what was written up to there.
pub fn run_launch(
    module: &Module,
    memory: &mut Memory,
    launch: &Launch,
    options: &Options,
) -> Result<Counters, RunError> {
    let (kernel, mut plan) = prepare(module, launch, options)?;
    plan.globals = memory.globals(module.id, &module.globals).map_err(LaunchError::Globals)?;
    let mut several = Several::new(options.sms, options.schedule, options.seed);
    several.start(launch.entry.clone(), (kernel, plan), *options, Past::new())?;
    let result = several.run(memory);
    memory.forget();
    result.map(|job| job.into_counters()).map_err(RunError::Fault)
}

/// Whether the chip takes a launch; nothing runs.
///
/// # Errors
/// Why it is refused.
pub fn check_launch(
    module: &Module,
    launch: &Launch,
    options: &Options,
) -> Result<(), LaunchError> {
    prepare(module, launch, options).map(drop)
}

impl Module {
    /// Threads that a block of an entry may have.
    pub fn max_threads(&self, entry: &str) -> Option<u32> {
        let kernel = self.kernels.get(entry)?;
        let limit = kernel.reqntid.or(kernel.maxntid);
        Some(limit.map_or(1024, |l| l.iter().product::<u32>().min(1024)))
    }

    /// Offset and size of each of an entry's parameters.
    pub fn param_layout(&self, entry: &str) -> Option<Vec<(usize, usize)>> {
        Some(self.kernels.get(entry)?.params.iter().map(|p| (p.offset, p.bytes)).collect())
    }
}

/// The kernel of a launch and its layout, or why the chip refuses it.
pub(crate) fn prepare(
    module: &Module,
    launch: &Launch,
    options: &Options,
) -> Result<(Arc<Kernel>, Plan), LaunchError> {
    let kernel = module
        .kernels
        .get(&launch.entry)
        .ok_or_else(|| LaunchError::NoEntry(launch.entry.clone()))?;
    Ok((Arc::clone(kernel), plan(&module.target, kernel, launch, options)?))
}

fn plan(
    target: &str,
    kernel: &Kernel,
    launch: &Launch,
    options: &Options,
) -> Result<Plan, LaunchError> {
    let chip = options.chip;
    let capability: u32 = target.trim_start_matches("sm_").parse().unwrap_or(u32::MAX);
    if capability > chip.capability {
        return Err(LaunchError::Target { target: target.into(), chip: chip.name });
    }
    let dimension = |what, got: u64, limit: u64| {
        if got == 0 || got > limit {
            Err(LaunchError::Dimension { what, got, limit })
        } else {
            Ok(())
        }
    };
    let [gx, gy, gz] = launch.grid.map(u64::from);
    let [bx, by, bz] = launch.block.map(u64::from);
    dimension("grid x", gx, (1 << 31) - 1)?;
    dimension("grid y", gy, 65_535)?;
    dimension("grid z", gz, 65_535)?;
    dimension("block x", bx, 1024)?;
    dimension("block y", by, 1024)?;
    dimension("block z", bz, 64)?;
    dimension("threads of a block", bx * by * bz, 1024)?;
    // Agents are 32-bit numbers: the simulator's limit, far above what it could run.
    dimension("blocks (simulator's limit)", gx.saturating_mul(gy).saturating_mul(gz), 1 << 24)?;
    dimension("multiprocessors", u64::from(options.sms), u64::from(chip.sms))?;
    let ntid = |directive, limit| LaunchError::Ntid {
        entry: kernel.name.clone(),
        directive,
        limit,
        got: launch.block,
    };
    if let Some(limit) = kernel.reqntid
        && limit != launch.block
    {
        return Err(ntid(".reqntid", limit));
    }
    // The product counts, not the single dimensions.
    if let Some(limit) = kernel.maxntid
        && launch.block.iter().product::<u32>() > limit.iter().product()
    {
        return Err(ntid(".maxntid", limit));
    }
    let shared = kernel.static_shared + u64::from(launch.dynamic_shared);
    if shared > chip.shared_per_block {
        return Err(LaunchError::SharedMemory {
            got: shared,
            limit: chip.shared_per_block,
            chip: chip.name,
        });
    }
    if kernel.params.len() != launch.params.len() {
        let (want, got) = (kernel.params.len(), launch.params.len());
        return Err(LaunchError::ParamCount { entry: kernel.name.clone(), want, got });
    }
    let mut params = vec![0; kernel.param_bytes];
    for (param, bytes) in kernel.params.iter().zip(&launch.params) {
        if param.bytes != bytes.len() {
            return Err(LaunchError::ParamSize {
                entry: kernel.name.clone(),
                name: param.name.clone(),
                want: param.bytes,
                got: bytes.len(),
            });
        }
        params[param.offset..param.offset + param.bytes].copy_from_slice(bytes);
    }
    let threads = launch.block.iter().product();
    let per_sm = chip.occupancy(threads, shared).min(options.blocks_per_sm).max(1);
    Ok(Plan {
        grid: launch.grid,
        block: launch.block,
        shared,
        dynamic_shared: launch.dynamic_shared,
        per_sm,
        globals: 0,
        params,
    })
}

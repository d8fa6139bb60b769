//! A launch as it is asked for and, once checked against entry and chip, as it is laid out for the
//! executor. Called before anything runs.

use std::sync::Arc;

use crate::error::LaunchError;
use crate::exec::Registers;
use crate::isa::{Kernel, Module};
use crate::options::Options;

/// One launch of an entry.
#[derive(Clone, Debug)]
pub struct Launch {
    pub(crate) entry: String,
    grid: [u32; 3],
    block: [u32; 3],
    dynamic_shared: u32,
    cluster: Option<[u32; 3]>,
    params: Vec<Vec<u8>>,
}

impl Launch {
    /// A launch of `entry` with `grid` blocks of `block` threads and no parameters.
    pub fn new(entry: &str, grid: [u32; 3], block: [u32; 3]) -> Self {
        Launch {
            entry: entry.into(),
            grid,
            block,
            dynamic_shared: 0,
            cluster: None,
            params: Vec::new(),
        }
    }

    /// Bytes of dynamic shared memory.
    #[must_use]
    pub fn shared(mut self, bytes: u32) -> Self {
        self.dynamic_shared = bytes;
        self
    }

    /// CTAs of a cluster, in each dimension.
    #[must_use]
    pub fn cluster(mut self, ctas: [u32; 3]) -> Self {
        self.cluster = Some(ctas);
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

/// What is checked and laid out for the executor.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared: u64,
    pub(crate) dynamic_shared: u32,
    /// CTAs of a cluster, in each dimension.
    pub(crate) cluster: [u32; 3],
    /// CTAs a multiprocessor holds at once.
    pub(crate) per_sm: u32,
    /// Where the module's global variables lie.
    pub(crate) globals: u64,
    pub(crate) params: Vec<u8>,
}

/// A linear number as a position in a box.
fn position(linear: u32, [x, y, _]: [u32; 3]) -> [u32; 3] {
    [linear % x, linear / x % y, linear / x / y]
}

impl Plan {
    pub(crate) fn warps(&self) -> u32 {
        self.block.iter().product::<u32>().div_ceil(32)
    }

    pub(crate) fn cluster_size(&self) -> u32 {
        self.cluster.iter().product()
    }

    /// Clusters in each dimension.
    pub(crate) fn clusters(&self) -> [u32; 3] {
        std::array::from_fn(|d| self.grid[d] / self.cluster[d])
    }

    pub(crate) fn cluster_id(&self, cluster: u32) -> [u32; 3] {
        position(cluster, self.clusters())
    }

    /// Where a rank stands in its cluster.
    pub(crate) fn within(&self, rank: u32) -> [u32; 3] {
        position(rank, self.cluster)
    }

    /// `%ctaid` of a rank of a cluster.
    pub(crate) fn cta(&self, cluster: u32, rank: u32) -> [u32; 3] {
        let (cluster, within) = (self.cluster_id(cluster), self.within(rank));
        std::array::from_fn(|d| cluster[d] * self.cluster[d] + within[d])
    }

    /// A `%ctaid` as one number.
    pub(crate) fn linear(&self, [x, y, z]: [u32; 3]) -> u32 {
        x + self.grid[0] * (y + self.grid[1] * z)
    }
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

    /// Registers of a thread, at most: what the entry's bounds leave it. How many it takes only an
    /// assembler knows.
    pub fn register_bound(&self, entry: &str) -> Option<u32> {
        let kernel = self.kernels.get(entry)?;
        let threads = kernel.reqntid.or(kernel.maxntid).map_or(1024, |l| l.iter().product());
        Some(Registers::at_entry(kernel, threads).min(255))
    }

    /// The cluster that an entry's text fixes.
    pub fn fixed_cluster(&self, entry: &str) -> Option<[u32; 3]> {
        self.kernels.get(entry)?.cluster
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
    if !chip.takes(target) {
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
    let cluster = cluster(kernel, launch, options, per_sm)?;
    Ok(Plan {
        cluster,
        grid: launch.grid,
        block: launch.block,
        shared,
        dynamic_shared: launch.dynamic_shared,
        per_sm,
        globals: 0,
        params,
    })
}

/// The cluster that entry and launch agree on, which must fit a part of the chip.
fn cluster(
    kernel: &Kernel,
    launch: &Launch,
    options: &Options,
    per_sm: u32,
) -> Result<[u32; 3], LaunchError> {
    let refuse =
        |message: String| Err(LaunchError::Cluster { entry: kernel.name.clone(), message });
    let cluster = match (kernel.cluster, launch.cluster) {
        (Some(fixed), Some(asked)) if fixed != asked => {
            return refuse(format!("{asked:?} asked for, .reqnctapercluster says {fixed:?}"));
        }
        (fixed, asked) => fixed.or(asked).unwrap_or([1; 3]),
    };
    let size = cluster.iter().fold(1u64, |size, &n| size.saturating_mul(u64::from(n)));
    if (kernel.cluster.is_some() || launch.cluster.is_some()) && options.chip.capability < 90 {
        return refuse(format!("{} has no clusters", options.chip.name));
    }
    if size == 0 || size > 8 {
        return refuse(format!("{cluster:?} are {size} CTAs, 8 are portable"));
    }
    if kernel.max_cluster_rank.is_some_and(|most| size > u64::from(most)) {
        return refuse(format!("{size} CTAs are above .maxclusterrank"));
    }
    if (0..3).any(|d| !launch.grid[d].is_multiple_of(cluster[d])) {
        return refuse(format!("the grid {:?} is no multiple of {cluster:?}", launch.grid));
    }
    let widest = (0..options.gpcs).map(|g| options.sms_of(g).len() as u32).max().unwrap_or(0);
    if size > u64::from(widest * per_sm) {
        return refuse(format!(
            "{size} CTAs of which a multiprocessor holds {per_sm}, on {widest} multiprocessors of a GPC"
        ));
    }
    Ok(cluster)
}

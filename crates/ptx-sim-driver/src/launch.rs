//! Launches: what is checked when they are asked for, and occupancy.

use std::sync::Arc;

use ptx_sim::{Launch, LaunchError, Options};

use crate::code::{Code, Error, Res, fail};
use crate::config::PREFIX;
use crate::driver::Driver;
use crate::objects::{Handle, Site};
use crate::queue::{Call, Work};

/// Grid, block and dynamic shared memory.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared: u32,
    pub(crate) how: How,
}

/// What the attributes of `cuLaunchKernelEx` ask for.
#[derive(Clone, Copy, Default)]
pub(crate) struct How {
    pub(crate) cooperative: bool,
    pub(crate) cluster: Option<[u32; 3]>,
    /// It may begin before what it follows on its stream is over.
    pub(crate) early: bool,
}

/// An attribute of `cuLaunchKernelEx`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Attribute {
    pub(crate) id: u32,
    pub(crate) pad: [u8; 4],
    /// A union of 64 bytes, aligned for pointers.
    pub(crate) value: [u64; 8],
}

/// The parameters of a launch as they were given.
pub(crate) enum Arguments {
    /// By `kernelParams`, one by one.
    Each(Vec<Vec<u8>>),
    /// By `extra`, all in one buffer.
    Buffer(Vec<u8>),
}

/// CTAs of a portable cluster.
const MOST_CTAS: u32 = 8;

const ATTRIBUTES: [&str; 19] = [
    "IGNORE",
    "ACCESS_POLICY_WINDOW",
    "COOPERATIVE",
    "SYNCHRONIZATION_POLICY",
    "CLUSTER_DIMENSION",
    "CLUSTER_SCHEDULING_POLICY_PREFERENCE",
    "PROGRAMMATIC_STREAM_SERIALIZATION",
    "PROGRAMMATIC_EVENT",
    "PRIORITY",
    "MEM_SYNC_DOMAIN_MAP",
    "MEM_SYNC_DOMAIN",
    "PREFERRED_CLUSTER_DIMENSION",
    "LAUNCH_COMPLETION_EVENT",
    "DEVICE_UPDATABLE_KERNEL_NODE",
    "PREFERRED_SHARED_MEMORY_CARVEOUT",
    "15",
    "NVLINK_UTIL_CENTRIC_SCHEDULING",
    "PORTABLE_CLUSTER_SIZE_MODE",
    "SHARED_MEMORY_MODE",
];

/// What the attributes ask for; one that is not simulated is refused by name.
pub(crate) fn how(attributes: &[Attribute]) -> Res<How> {
    let mut how = How::default();
    for attribute in attributes {
        let first = attribute.value[0] as u32;
        match attribute.id {
            // Ignored, a priority, a hint for the cache.
            0 | 8 | 14 => {}
            2 => how.cooperative = first != 0,
            4 => {
                let cluster = [first, (attribute.value[0] >> 32) as u32, attribute.value[1] as u32];
                if cluster.contains(&0) {
                    let message = format!("CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION {cluster:?}");
                    return fail(Code::INVALID_VALUE, message);
                }
                how.cluster = Some(cluster);
            }
            // Where the CTAs of a cluster go is the simulation's choice in any case.
            5 if first <= 2 => {}
            6 => how.early = first != 0,
            id => {
                let name = ATTRIBUTES.get(id as usize).copied().unwrap_or("of unknown number");
                return fail(
                    Code::NOT_SUPPORTED,
                    format!("CU_LAUNCH_ATTRIBUTE_{name} ({id}) is not simulated"),
                );
            }
        }
    }
    Ok(how)
}

impl Driver {
    /// Counts a launch; at the one that the environment names, the device is lost.
    pub(crate) fn count_launch(&mut self) -> Res<()> {
        self.launches += 1;
        if self.config.lose_at == Some(self.launches) {
            self.lost = Some(Code::UNKNOWN);
            let message = format!("{PREFIX}LOSE_AT={}: the device is lost", self.launches);
            return fail(Code::UNKNOWN, message);
        }
        Ok(())
    }

    pub(crate) fn launch(
        &mut self,
        at: Site,
        function: Handle,
        shape: Shape,
        stream: Handle,
        arguments: Arguments,
    ) -> Res<()> {
        let How { cooperative, cluster, early } = shape.how;
        let key = self.stream(at, stream)?;
        let f = self.function(function)?.clone();
        let mut launch = Launch::new(&f.entry, shape.grid, shape.block).shared(shape.shared);
        if let Some(cluster) = cluster {
            launch = launch.cluster(cluster);
        }
        let layout = f.code.param_layout(&f.entry).unwrap_or_default();
        let each = match arguments {
            Arguments::Each(each) => each,
            Arguments::Buffer(buffer) => {
                let end = layout.last().map_or(0, |p| p.0 + p.1);
                if buffer.len() < end {
                    let got = buffer.len();
                    return fail(
                        Code::INVALID_VALUE,
                        format!("entry `{}` takes {end} bytes of parameters, got {got}", f.entry),
                    );
                }
                layout
                    .iter()
                    .map(|&(offset, size)| buffer[offset..offset + size].to_vec())
                    .collect()
            }
        };
        for bytes in &each {
            launch = launch.bytes(bytes);
        }
        if shape.shared > f.dynamic {
            return fail(
                Code::INVALID_VALUE,
                format!(
                    "{} bytes of dynamic shared memory, entry `{}` may have {} \
                     (MAX_DYNAMIC_SHARED_SIZE_BYTES)",
                    shape.shared, f.entry, f.dynamic
                ),
            );
        }
        let seed = self.config.launch_seed.unwrap_or_else(|| self.seed(&f.entry, shape, &each));
        let options = Options { seed, ..self.config.options };
        ptx_sim::check_launch(&f.code, &launch, &options).map_err(refused)?;
        if cooperative {
            let threads = shape.block.iter().product();
            let fit = self.occupancy(function, threads, u64::from(shape.shared))?
                * self.config.options.sms;
            let blocks = shape.grid.iter().map(|&n| u64::from(n)).product::<u64>();
            if blocks > u64::from(fit) {
                return fail(
                    Code::COOPERATIVE_LAUNCH_TOO_LARGE,
                    format!("{blocks} blocks, {fit} fit at once"),
                );
            }
        }
        self.count_launch()?;
        let title = format!("launch {} ({})", self.launches, describe(&f.entry, shape));
        let call = Call { title, module: f.code, launch, options, early };
        self.enqueue(at, key, Work::Launch(Arc::new(call)), &[]).map(drop)
    }

    /// A launch's seed depends on what it is and on nothing that ran before it.
    fn seed(&self, entry: &str, shape: Shape, params: &[Vec<u8>]) -> u64 {
        let mut hash = 0xCBF2_9CE4_8422_2325 ^ self.config.options.seed;
        let mut eat = |bytes: &[u8]| {
            for &byte in bytes {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
            }
        };
        eat(entry.as_bytes());
        for n in shape.grid.iter().chain(&shape.block).chain([&shape.shared]) {
            eat(&n.to_le_bytes());
        }
        params.iter().for_each(|p| eat(p));
        hash
    }

    /// Blocks of a function that one multiprocessor holds at once.
    pub(crate) fn occupancy(&mut self, function: Handle, threads: u32, dynamic: u64) -> Res<u32> {
        let options = self.config.options;
        let f = self.function(function)?;
        let most = f.code.max_threads(&f.entry).unwrap_or(0);
        let shared = f.code.static_shared(&f.entry).unwrap_or(0).saturating_add(dynamic);
        if threads == 0 || threads > most {
            let message = format!("a block of {threads} threads, entry `{}` takes {most}", f.entry);
            return fail(Code::INVALID_VALUE, message);
        }
        if shared > options.chip.shared_per_block {
            return Ok(0);
        }
        Ok(options.chip.occupancy(threads, shared).min(options.blocks_per_sm))
    }

    /// Clusters of a launch that run at once; none where one does not fit.
    pub(crate) fn active_clusters(&mut self, function: Handle, shape: Shape) -> Res<u32> {
        let options = self.config.options;
        let f = self.function(function)?;
        let fixed = f.code.fixed_cluster(&f.entry);
        let cluster = shape.how.cluster.or(fixed).unwrap_or([1; 3]);
        if options.chip.capability < 90 {
            return fail(Code::NOT_SUPPORTED, format!("{} has no clusters", options.chip.name));
        }
        let size = cluster.iter().try_fold(1u32, |size, &n| size.checked_mul(n)).unwrap_or(0);
        if size == 0 || size > MOST_CTAS || fixed.is_some_and(|fixed| fixed != cluster) {
            let message = format!("cluster {cluster:?}, the text fixes {fixed:?}");
            return fail(Code::INVALID_CLUSTER_SIZE, message);
        }
        let threads = shape.block.iter().product();
        let per_sm = self.occupancy(function, threads, u64::from(shape.shared))?;
        Ok(options.clusters(size, per_sm))
    }

    /// The largest cluster of which one fits.
    pub(crate) fn largest_cluster(&mut self, function: Handle, shape: Shape) -> Res<u32> {
        for size in (1..=MOST_CTAS).rev() {
            let how = How { cluster: Some([size, 1, 1]), ..shape.how };
            if self.active_clusters(function, Shape { how, ..shape }).is_ok_and(|n| n > 0) {
                return Ok(size);
            }
        }
        fail(Code::INVALID_VALUE, "not one block fits")
    }

    /// Dynamic shared memory with which `blocks` still fit on a multiprocessor.
    pub(crate) fn available_shared(
        &mut self,
        function: Handle,
        blocks: u32,
        threads: u32,
    ) -> Res<usize> {
        let chip = self.config.options.chip;
        if blocks == 0 || self.occupancy(function, threads, 0)? < blocks {
            return fail(Code::INVALID_VALUE, format!("{blocks} blocks do not fit"));
        }
        let f = self.function(function)?;
        let fixed = f.code.static_shared(&f.entry).unwrap_or(0);
        let each = (chip.shared_per_sm / u64::from(blocks)).saturating_sub(1024);
        Ok(each.min(chip.shared_per_block).saturating_sub(fixed) as usize)
    }

    /// The block size of the greatest occupancy, and the grid that fills the chip with it.
    pub(crate) fn best_block(
        &mut self,
        function: Handle,
        limit: u32,
        shared: impl Fn(u32) -> u64,
    ) -> Res<(u32, u32)> {
        let f = self.function(function)?;
        let most = f.code.max_threads(&f.entry).unwrap_or(0);
        let most = if limit > 0 { most.min(limit) } else { most };
        let (mut best, mut threads, mut blocks) = (0, 0, 0);
        for t in (32..=most).rev().filter(|t| t.is_multiple_of(32)) {
            let fit = self.occupancy(function, t, shared(t))?;
            if fit * t > best {
                (best, threads, blocks) = (fit * t, t, fit);
            }
        }
        Ok((blocks * self.config.options.sms, threads))
    }
}

fn describe(entry: &str, shape: Shape) -> String {
    let [[gx, gy, gz], [bx, by, bz]] = [shape.grid, shape.block];
    format!("{entry}, grid {gx}x{gy}x{gz}, block {bx}x{by}x{bz}, {} B shared", shape.shared)
}

fn refused(error: LaunchError) -> Error {
    let code = match error {
        LaunchError::NoEntry(_) => Code::NOT_FOUND,
        LaunchError::Target { .. } => Code::NO_BINARY_FOR_GPU,
        LaunchError::Agents => Code::NOT_SUPPORTED,
        LaunchError::Cluster { .. } => Code::INVALID_CLUSTER_SIZE,
        _ => Code::INVALID_VALUE,
    };
    Error::new(code, error.to_string())
}

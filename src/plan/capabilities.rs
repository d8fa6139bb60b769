//! What a device can do, as plain numbers: the second half of what a plan depends on.
//! Filled in by each executor (or by hand, to plan for a machine one does not have).

use core::fmt;
use core::num::NonZero;

/// What a device can do. A backend adds its variant together with its executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Capabilities {
    /// The embedded CPU executor.
    Cpu(CpuCapabilities),
    /// An NVIDIA GPU. Where [`Layout::align`](crate::Layout::align) is 0, operands are expected
    /// at multiples of 16 bytes, as every allocation is; less has to be said, and takes
    /// another kernel.
    Cuda(CudaCapabilities),
    /// A device of wgpu.
    Wgpu(WgpuCapabilities),
}

impl Capabilities {
    /// The CPU with as many workers as this process may run at once.
    pub fn cpu() -> Capabilities {
        let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
        Capabilities::Cpu(CpuCapabilities::new(workers))
    }

    /// The executor that these capabilities belong to.
    pub fn executor(&self) -> &'static str {
        match self {
            Capabilities::Cpu(_) => "cpu",
            Capabilities::Cuda(_) => "cuda",
            Capabilities::Wgpu(_) => "wgpu",
        }
    }
}

/// In words: `the CPU with 8 workers`.
impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Capabilities::Cpu(CpuCapabilities { workers: 1 }) => {
                f.write_str("the CPU with 1 worker")
            }
            Capabilities::Cpu(of) => write!(f, "the CPU with {} workers", of.workers),
            Capabilities::Cuda(of) => {
                let (major, minor) = of.compute_capability;
                write!(
                    f,
                    "a CUDA device of compute capability {major}.{minor} with {} multiprocessors",
                    of.multiprocessors
                )
            }
            Capabilities::Wgpu(of) => of.fmt(f),
        }
    }
}

impl fmt::Display for WgpuCapabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} through wgpu", self.adapter)?;
        write!(
            f,
            " ({} f16, {}, {}{} KiB of workgroup memory, {} storage buffers of {} MiB)",
            if self.f16 { "with" } else { "without" },
            match self.subgroup {
                0 => "without subgroups".to_owned(),
                threads => format!("subgroups of {threads}"),
            },
            match self.cooperative {
                0 => String::new(),
                size => format!("cooperative matrices of {size} × {size}, "),
            },
            self.workgroup_bytes >> 10,
            self.storage_buffers,
            self.binding_bytes >> 20,
        )
    }
}

/// What a plan for the CPU depends on. Cache sizes are not in it: tiles suit 1 MiB of L2,
/// so that one plan, and with it the bits of the results, holds for every machine with as
/// many workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct CpuCapabilities {
    /// Workers to cut the problem for; an executor with fewer threads still runs the plan.
    pub workers: usize,
}

impl CpuCapabilities {
    /// With so many workers.
    pub const fn new(workers: usize) -> CpuCapabilities {
        CpuCapabilities { workers }
    }
}

/// What a plan for CUDA depends on: attributes of the device, as the driver tells them. The
/// default is an A100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct CudaCapabilities {
    /// Major and minor.
    pub compute_capability: (u32, u32),
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of shared memory that one block may opt in to.
    pub shared_bytes: u32,
    /// Bytes of shared memory of a multiprocessor.
    pub shared_bytes_per_multiprocessor: u32,
    /// Bytes of L2.
    pub l2_bytes: u32,
    /// Clock of the multiprocessors; for the model of costs alone.
    pub clock_mhz: u32,
    /// What memory moves in a second; for the model of costs alone.
    pub gigabytes_per_second: u32,
    /// Its tensor cores add to f32 sums at half their rate, as those of GeForce cards do from compute
    /// capability 8.6 on; for the model of costs alone.
    pub halved_f32_sums: bool,
}

impl Default for CudaCapabilities {
    fn default() -> CudaCapabilities {
        CudaCapabilities {
            compute_capability: (8, 0),
            multiprocessors: 108,
            shared_bytes: 163 << 10,
            shared_bytes_per_multiprocessor: 164 << 10,
            l2_bytes: 40 << 20,
            clock_mhz: 1410,
            gigabytes_per_second: 1555,
            halved_f32_sums: false,
        }
    }
}

/// What a plan for wgpu depends on: the limits and features the device was made with, and
/// two habits of its host. The default is what every WebGPU device grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct WgpuCapabilities {
    /// What the adapter is; tiles are chosen by it.
    pub adapter: AdapterKind,
    /// Texts are for a browser, whose WGSL wants `enable subgroups;` where a shader has subgroup operations.
    /// wgpu's own compiler, naga, refuses these words.
    pub browser: bool,
    /// Shaders may use f16 (`SHADER_F16`); without it halves are unpacked from u32.
    pub f16: bool,
    /// Threads of a subgroup, where shaders may use subgroup operations (`SUBGROUP`) and every
    /// subgroup has as many; else 0.
    pub subgroup: u32,
    /// Side of the cooperative matrices that shaders may use (`EXPERIMENTAL_COOPERATIVE_MATRIX`; 8 or 16: f16 factors, f32
    /// sums); 0: none, unless a host asks for them (`Wgpu::with_cooperative`).
    pub cooperative: u32,
    /// Bytes of workgroup memory (`max_compute_workgroup_storage_size`).
    pub workgroup_bytes: u32,
    /// Threads of a workgroup (`max_compute_invocations_per_workgroup`).
    pub workgroup_threads: u32,
    /// Workgroups along one dimension of a dispatch.
    pub workgroups: u32,
    /// Storage buffers of a pipeline (`max_storage_buffers_per_shader_stage`).
    pub storage_buffers: u32,
    /// Bytes of one storage binding (`max_storage_buffer_binding_size`).
    pub binding_bytes: u64,
    /// What a binding's start is a multiple of (`min_storage_buffer_offset_alignment`).
    pub binding_align: u32,
    /// The host cuts operands out of shared buffers, so that inputs and outputs may be parts
    /// of one: inputs are then declared `read_write`, which WebGPU allows side by side.
    pub shared_buffers: bool,
    /// The host has no uniform buffers: parameters come in a storage buffer, one more.
    pub storage_params: bool,
}

/// Classes of adapters, which want other tiles. The model of costs has figures for each
/// (`src/plan/wgpu/machine.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AdapterKind {
    /// A GPU of which no more is known, as in a browser: what suits most of them.
    Hardware,
    /// A card with memory of its own.
    Discrete,
    /// A GPU that shares the processor's memory.
    Integrated,
    /// One of Apple's.
    Apple,
    /// A telephone's or a tablet's.
    Mobile,
    /// A driver that runs shaders on the CPU.
    Software,
}

impl AdapterKind {
    /// All of them.
    pub const ALL: [AdapterKind; 6] = [
        AdapterKind::Hardware,
        AdapterKind::Discrete,
        AdapterKind::Integrated,
        AdapterKind::Apple,
        AdapterKind::Mobile,
        AdapterKind::Software,
    ];

    /// What the maker's number and the adapter's name, as `AdapterInfo` or Vulkan have them, say of a GPU: whether it
    /// is Apple's, or a telephone's. Of other makers both discrete and integrated ones are known. For hosts with
    /// devices of their own.
    ///
    /// ```
    /// use fused_lora::AdapterKind;
    ///
    /// assert_eq!(AdapterKind::by_maker(0x5143, "Adreno (TM) 740"), Some(AdapterKind::Mobile));
    /// assert_eq!(AdapterKind::by_maker(0x10de, "NVIDIA GeForce RTX 4090"), None);
    /// ```
    pub fn by_maker(vendor: u32, name: &str) -> Option<AdapterKind> {
        let apple = name.starts_with("Apple");
        match vendor {
            APPLE => Some(AdapterKind::Apple),
            MESA | 0 if apple => Some(AdapterKind::Apple),
            _ if MOBILE.contains(&vendor) => Some(AdapterKind::Mobile),
            _ => None,
        }
    }
}

/// Makers of GPUs for telephones: Qualcomm, ARM, Imagination, Broadcom, Samsung, Huawei.
const MOBILE: [u32; 6] = [0x5143, 0x13b5, 0x1010, 0x14e4, 0x144d, 0x19e5];
/// Apple, where Vulkan is translated to Metal, or on Linux.
const APPLE: u32 = 0x106b;
/// The Khronos number of Mesa's drivers, which Apple's GPUs have under Linux.
const MESA: u32 = 0x1_0005;

/// In words: `a discrete GPU`.
impl fmt::Display for AdapterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AdapterKind::Hardware => "a GPU",
            AdapterKind::Discrete => "a discrete GPU",
            AdapterKind::Integrated => "an integrated GPU",
            AdapterKind::Apple => "an Apple GPU",
            AdapterKind::Mobile => "a mobile GPU",
            AdapterKind::Software => "a software driver",
        })
    }
}

impl Default for WgpuCapabilities {
    fn default() -> WgpuCapabilities {
        WgpuCapabilities {
            adapter: AdapterKind::Hardware,
            browser: false,
            f16: false,
            subgroup: 0,
            cooperative: 0,
            workgroup_bytes: 16 << 10,
            workgroup_threads: 256,
            workgroups: 65_535,
            storage_buffers: 8,
            binding_bytes: 128 << 20,
            binding_align: 256,
            shared_buffers: false,
            storage_params: false,
        }
    }
}

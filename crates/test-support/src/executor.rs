//! The seam between tests and executors. What is behind it brings buffers to its device,
//! runs one plan, and brings them back.

use fused_lora::cpu::{Cpu, Workspace};
use fused_lora::reference::Sums;
use fused_lora::{
    Capabilities, CpuCapabilities, DEVICE_VARIABLE, DType, Device, Matrix, Operand, Plan, Problem,
    Result, Strategy,
};

use crate::Buffers;
#[cfg(feature = "cuda")]
use crate::cuda;
#[cfg(feature = "wgpu")]
use crate::gpu;

/// A workspace, of whichever device.
pub enum Scratch {
    /// In memory.
    Cpu(Workspace),
    #[cfg(feature = "cuda")]
    /// On a CUDA device.
    Cuda(fused_lora::cuda::Workspace),
    /// `None` for plans that need no bytes.
    #[cfg(feature = "wgpu")]
    Gpu(Option<fused_lora::wgpu::wgpu::Buffer>),
}

/// Where the problems of a test come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// Drawn at random, each nearly always with kernels of its own.
    Drawn,
    /// The rows of `pairwise`, which have few kernels between them.
    Paired,
}

/// Changes an operand, or leaves it out.
pub type Alter<'a> = dyn FnMut(Operand, Matrix<()>) -> Option<Matrix<()>> + 'a;

/// Something that runs plans.
pub trait Executor {
    /// As `Device::open` takes it.
    fn name(&self) -> &str;

    /// What to plan for. More than one where that leads to other tiles: problems take turns, or go
    /// through them all.
    fn capabilities(&self) -> Vec<Capabilities>;

    /// One in so many runs is taken, where all of them would take hours.
    fn one_in(&self, _rows: Rows) -> u64 {
        1
    }

    /// How the sums of `problem` are formed there.
    fn sums(&self, _problem: &Problem) -> Sums {
        Sums::F32
    }

    /// Whether a preset of its plans serves nothing of this storage type.
    fn lacks(&self, _strategy: Strategy, _preset: &str, _dtype: DType) -> bool {
        false
    }

    /// Operations of the largest problem that is run, where larger ones would take hours.
    fn most_flops(&self) -> u64 {
        u64::MAX
    }

    /// A workspace of exactly `bytes` (rounded up to what the device allocates).
    fn scratch(&self, bytes: usize) -> Scratch;

    /// Overwrites a workspace with one value, bit for bit.
    fn fill(&self, scratch: &mut Scratch, garbage: f32);

    /// Runs `plan` on operands that `alter` changed or left out; buffers come back whatever
    /// it says.
    fn run_altered(
        &self,
        plan: &Plan,
        buffers: &mut Buffers,
        scratch: &mut Scratch,
        alter: &mut Alter<'_>,
    ) -> Result<()>;

    /// Runs `plan`.
    fn run(&self, plan: &Plan, buffers: &mut Buffers, scratch: &mut Scratch) -> Result<()> {
        self.run_altered(plan, buffers, scratch, &mut |_, shape| Some(shape))
    }

    /// The same executor under other schedules, which must not change a bit.
    fn siblings(&self) -> Vec<(String, Box<dyn Executor>)>;
}

impl Executor for Cpu {
    fn name(&self) -> &str {
        "cpu"
    }

    fn capabilities(&self) -> Vec<Capabilities> {
        [1, 2, 3].map(|workers| Capabilities::Cpu(CpuCapabilities::new(workers))).to_vec()
    }

    fn scratch(&self, bytes: usize) -> Scratch {
        Scratch::Cpu(Workspace::new(bytes).expect("memory for a workspace"))
    }

    fn fill(&self, scratch: &mut Scratch, garbage: f32) {
        of_cpu(scratch).fill(garbage);
    }

    fn run_altered(
        &self,
        plan: &Plan,
        buffers: &mut Buffers,
        scratch: &mut Scratch,
        alter: &mut Alter<'_>,
    ) -> Result<()> {
        Cpu::run(self, plan, buffers.altered(alter), of_cpu(scratch))
    }

    fn siblings(&self) -> Vec<(String, Box<dyn Executor>)> {
        let with = |threads| -> (String, Box<dyn Executor>) {
            let cpu = Cpu::with_threads(threads).expect("threads");
            (format!("{threads} threads"), Box::new(cpu))
        };
        (1..=4).map(with).collect()
    }
}

fn of_cpu(scratch: &mut Scratch) -> &mut Workspace {
    match scratch {
        Scratch::Cpu(workspace) => workspace,
        #[cfg(feature = "cuda")]
        Scratch::Cuda(_) => panic!("a workspace of another device"),
        #[cfg(feature = "wgpu")]
        Scratch::Gpu(_) => panic!("a workspace of another device"),
    }
}

/// Every executor that this machine has, or those that answer to the name in
/// `FUSED_LORA_DEVICE`.
pub fn executors() -> Vec<Box<dyn Executor>> {
    let wanted = std::env::var(DEVICE_VARIABLE).unwrap_or("auto".to_owned());
    let mut executors: Vec<Box<dyn Executor>> = Vec::new();
    if wanted == "auto" || wanted == "cpu" {
        executors.push(Box::new(Cpu::new()));
    }
    #[cfg(feature = "cuda")]
    if let Some(cuda) = cuda::open(&wanted) {
        executors.push(Box::new(cuda));
    }
    #[cfg(feature = "wgpu")]
    for gpu in gpu::all() {
        if wanted == "auto" || gpu.answers_to(&wanted) {
            executors.push(Box::new(gpu));
        }
    }
    if executors.is_empty() {
        let error = Device::open(&wanted).map(|device| device.name().to_owned());
        panic!("{DEVICE_VARIABLE}={wanted}: the tests have no such executor ({error:?})");
    }
    executors
}

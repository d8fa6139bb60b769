//! The seam between tests and executors. What is behind it brings buffers to its device,
//! runs one plan, and brings them back.

use fused_lora::cpu::{Cpu, Workspace};
use fused_lora::reference::Sums;
use fused_lora::{Capabilities, CpuCapabilities, DEVICE_VARIABLE, Device, Plan, Result};

use super::Buffers;

/// A workspace, of whichever device.
pub enum Scratch {
    Cpu(Workspace),
}

/// Something that runs plans.
pub trait Executor {
    /// As `Device::open` takes it.
    fn name(&self) -> &'static str;

    /// What to plan for. More than one where that leads to other tiles: the table goes
    /// through them all.
    fn capabilities(&self) -> Vec<Capabilities>;

    /// How its sums are formed.
    fn sums(&self) -> Sums {
        Sums::F32
    }

    /// A workspace of exactly `bytes` (rounded up to what the device allocates).
    fn scratch(&self, bytes: usize) -> Scratch;

    /// Overwrites a workspace with one value, bit for bit.
    fn fill(&self, scratch: &mut Scratch, garbage: f32);

    /// Runs `plan`.
    fn run(&self, plan: &Plan, buffers: &mut Buffers, scratch: &mut Scratch) -> Result<()>;

    /// The same executor under other schedules, which must not change a bit.
    fn siblings(&self) -> Vec<(String, Box<dyn Executor>)>;
}

impl Executor for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn capabilities(&self) -> Vec<Capabilities> {
        [1, 2, 3].map(|workers| Capabilities::Cpu(CpuCapabilities { workers })).to_vec()
    }

    fn scratch(&self, bytes: usize) -> Scratch {
        Scratch::Cpu(Workspace::new(bytes).expect("memory for a workspace"))
    }

    fn fill(&self, scratch: &mut Scratch, garbage: f32) {
        let Scratch::Cpu(workspace) = scratch;
        workspace.fill(garbage);
    }

    fn run(&self, plan: &Plan, buffers: &mut Buffers, scratch: &mut Scratch) -> Result<()> {
        let Scratch::Cpu(workspace) = scratch;
        Cpu::run(self, plan, buffers.operands(), workspace)
    }

    fn siblings(&self) -> Vec<(String, Box<dyn Executor>)> {
        let with = |threads| -> (String, Box<dyn Executor>) {
            let cpu = Cpu::with_threads(threads).expect("threads");
            (format!("{threads} threads"), Box::new(cpu))
        };
        (1..=4).map(with).collect()
    }
}

/// Every executor that this machine has, or the one that `FUSED_LORA_DEVICE` names.
pub fn executors() -> Vec<Box<dyn Executor>> {
    let all: Vec<Box<dyn Executor>> = vec![Box::new(Cpu::new())];
    let wanted = match std::env::var(DEVICE_VARIABLE) {
        Ok(name) if name != "auto" => name,
        _ => return all,
    };
    if let Err(error) = Device::open(&wanted) {
        panic!("{DEVICE_VARIABLE}: {error}");
    }
    let forced: Vec<_> = all.into_iter().filter(|of| of.name() == wanted).collect();
    assert!(!forced.is_empty(), "{DEVICE_VARIABLE}={wanted}: the tests have no such executor");
    forced
}

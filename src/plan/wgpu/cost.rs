//! What launches cost, and the model that orders candidates by it.

use super::AdapterKind;

/// What a kernel does at best: operations in a microsecond, on a GPU and on a software driver.
/// Those of software drivers are rough, from lavapipe 25.0 on two busy cores; those of
/// GPUs are untimed, and stand for the order that others report.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    gpu: f64,
    software: f64,
}

pub(super) const WIDE: Rate = Rate { gpu: 4.0e6, software: 6e3 };
pub(super) const SMALL: Rate = Rate { gpu: 2.5e6, software: 5e3 };
pub(super) const BORDERED: Rate = Rate { gpu: 2.5e6, software: 3e3 };
pub(super) const REGISTERS: Rate = Rate { gpu: 1.0e6, software: 20e3 };
pub(super) const SUBGROUP: Rate = Rate { gpu: 1.0e6, software: 40e3 };
pub(super) const DECODE: Rate = Rate { gpu: 1.5e6, software: 15e3 };

/// Microseconds of a launch that has nothing to do.
const LAUNCH: f64 = 4.0;
const SOFTWARE_LAUNCH: f64 = 20.0;
/// Bytes in a microsecond: from caches and memory, all in all.
const BYTES: f64 = 1e6;
const SOFTWARE_BYTES: f64 = 20e3;
/// Threads that a GPU needs to be busy.
const THREADS: f64 = (1 << 14) as f64;

/// What one launch does; said by its job.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// Operations, those that are done twice included.
    pub(super) flops: u64,
    /// Bytes to and from memory; what several workgroups read counts once for each.
    pub(super) bytes: u64,
    /// Threads of all workgroups.
    pub(super) threads: u64,
    pub(super) rate: Rate,
}

/// The work of some launches.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    pub(super) flops: u64,
    pub(super) bytes: u64,
    gpu: f64,
    software: f64,
}

impl Cost {
    pub(super) fn add(&mut self, step: Step) {
        let Step { flops, bytes, threads, rate } = step;
        self.flops = self.flops.saturating_add(flops);
        self.bytes = self.bytes.saturating_add(bytes);
        let (flops, bytes) = (flops as f64, bytes as f64);
        let busy = (threads as f64 / THREADS).min(1.0);
        self.gpu += LAUNCH + (flops / rate.gpu).max(bytes / BYTES) / busy;
        self.software += SOFTWARE_LAUNCH + flops / rate.software + bytes / SOFTWARE_BYTES;
    }

    /// By the model; only the order matters.
    pub(super) fn micros(&self, adapter: AdapterKind) -> f64 {
        match adapter {
            AdapterKind::Hardware => self.gpu,
            AdapterKind::Software => self.software,
        }
    }
}

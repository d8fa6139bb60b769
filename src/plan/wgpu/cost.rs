//! What launches cost, and the model that orders candidates by it: what runs, not what the problem
//! needs. Figures of GPUs stand in `machine`.

use super::AdapterKind;
use super::machine::{self, Load, Sums};
use super::shader::Size;

/// How a kernel computes: on a GPU by the sums of a thread; on a software driver by operations in a
/// microsecond, roughly, from lavapipe 25.0 on two busy cores.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    sums: Sums,
    software: f64,
}

/// Of `linear`.
pub(super) fn staged(sums: Sums) -> Rate {
    Rate { sums, software: 6e3 }
}
pub(super) const COOPERATIVE: Rate = Rate { sums: Sums::Cooperative, software: 7e3 };
pub(super) const BORDERED: Rate = Rate { sums: Sums::FourByFour, software: 3e3 };
pub(super) const REGISTERS: Rate = Rate { sums: Sums::Direct, software: 20e3 };
pub(super) const SUBGROUP: Rate = Rate { sums: Sums::Direct, software: 40e3 };
pub(super) const SHRINK: Rate = Rate { sums: Sums::Direct, software: 15e3 };
/// Several threads a sum, that wait for each other: not for software drivers.
pub(super) const SHARED: Rate = Rate { sums: Sums::Direct, software: 5e3 };

/// Microseconds of a launch that has nothing to do, and bytes in a microsecond.
const SOFTWARE_LAUNCH: f64 = 20.0;
const SOFTWARE_BYTES: f64 = 20e3;

/// What one launch does; said by its job.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// Operations that its part of the product needs, those that are done twice included.
    pub(super) needed: u64,
    /// Operations that run: all of its tiles, of which the last ones may reach over the edge.
    pub(super) executed: u64,
    /// Bytes to and from memory; what several workgroups read counts once for each.
    pub(super) bytes: u64,
    /// The same, once for all.
    pub(super) least_bytes: u64,
    pub(super) size: Size,
    /// How often a thread waits for a load, one after the other.
    pub(super) waits: usize,
    pub(super) rate: Rate,
}

/// The work of some launches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    adapter: AdapterKind,
    /// Operations that run.
    pub(super) flops: u64,
    pub(super) bytes: u64,
    /// By the model; only the order matters.
    pub(super) micros: f64,
}

impl Cost {
    pub(super) fn new(adapter: AdapterKind) -> Cost {
        Cost { adapter, flops: 0, bytes: 0, micros: 0.0 }
    }

    pub(super) fn add(&mut self, step: &Step) {
        self.flops = self.flops.saturating_add(step.executed);
        self.bytes = self.bytes.saturating_add(step.bytes);
        let product = |of: [u32; 3]| of.into_iter().map(f64::from).product();
        self.micros += match machine::of(self.adapter) {
            Some(machine) => machine.micros(&Load {
                multiply_adds: step.executed as f64 / 2.0,
                memory: step.least_bytes as f64,
                caches: step.bytes as f64,
                groups: product(step.size.grid),
                threads: product(step.size.block),
                waits: step.waits as f64,
                sums: step.rate.sums,
            }),
            None => {
                let (flops, bytes) = (step.needed as f64, step.bytes as f64);
                SOFTWARE_LAUNCH + flops / step.rate.software + bytes / SOFTWARE_BYTES
            }
        };
    }
}

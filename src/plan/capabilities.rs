//! What a device can do, as plain numbers: the second half of what a plan depends on.
//! Filled in by each executor (or by hand, to plan for a machine one does not have).

use core::num::NonZero;

/// What a device can do. A backend adds its variant together with its executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Capabilities {
    /// The embedded CPU executor.
    Cpu(CpuCapabilities),
}

impl Capabilities {
    /// The CPU with as many workers as this process may run at once.
    pub fn cpu() -> Capabilities {
        let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
        Capabilities::Cpu(CpuCapabilities { workers })
    }

    /// The executor that these capabilities belong to.
    pub fn executor(&self) -> &'static str {
        match self {
            Capabilities::Cpu(_) => "cpu",
        }
    }
}

/// What a plan for the CPU depends on. Cache sizes are not in it: tiles suit 1 MiB of L2,
/// so that one plan, and with it the bits of the results, holds for every machine with as
/// many workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuCapabilities {
    /// Workers to cut the problem for; an executor with fewer threads still runs the plan.
    pub workers: usize,
}

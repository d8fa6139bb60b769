//! Descriptions of the chips a launch may be simulated on.

/// A simulated chip: what it accepts, and how many CTAs run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chip {
    /// As in `.target`.
    pub name: &'static str,
    /// Compute capability times ten.
    pub capability: u32,
    /// Multiprocessors of the full chip; a launch may use fewer.
    pub sms: u32,
    /// Shared memory of one block, opted in.
    pub shared_per_block: u64,
    /// Shared memory of a multiprocessor.
    pub shared_per_sm: u64,
    /// Threads resident on a multiprocessor.
    pub threads_per_sm: u32,
    /// Blocks resident on a multiprocessor.
    pub blocks_per_sm: u32,
}

impl Chip {
    /// A100.
    pub const SM_80: Chip = Chip {
        name: "sm_80",
        capability: 80,
        sms: 108,
        shared_per_block: 163 << 10,
        shared_per_sm: 164 << 10,
        threads_per_sm: 2048,
        blocks_per_sm: 32,
    };
    /// GeForce RTX 30 and A40.
    pub const SM_86: Chip = Chip {
        name: "sm_86",
        capability: 86,
        sms: 84,
        shared_per_block: 99 << 10,
        shared_per_sm: 100 << 10,
        threads_per_sm: 1536,
        blocks_per_sm: 16,
    };
    /// GeForce RTX 40 and L40.
    pub const SM_89: Chip = Chip {
        name: "sm_89",
        capability: 89,
        sms: 128,
        shared_per_block: 99 << 10,
        shared_per_sm: 100 << 10,
        threads_per_sm: 1536,
        blocks_per_sm: 24,
    };
    /// H100 and H200.
    pub const SM_90: Chip = Chip {
        name: "sm_90",
        capability: 90,
        sms: 132,
        shared_per_block: 227 << 10,
        shared_per_sm: 228 << 10,
        threads_per_sm: 2048,
        blocks_per_sm: 32,
    };
    /// GeForce RTX 50.
    pub const SM_120: Chip = Chip {
        name: "sm_120",
        capability: 120,
        sms: 170,
        shared_per_block: 99 << 10,
        shared_per_sm: 100 << 10,
        threads_per_sm: 1536,
        blocks_per_sm: 24,
    };

    /// By its name, for the environment.
    pub fn by_name(name: &str) -> Option<Chip> {
        [Chip::SM_80, Chip::SM_86, Chip::SM_89, Chip::SM_90, Chip::SM_120]
            .into_iter()
            .find(|c| c.name == name)
    }

    /// Whether it runs text for a `.target`: older ones, and one with an `a` only if it is its own.
    pub fn takes(&self, target: &str) -> bool {
        let Some(number) = target.strip_prefix("sm_") else { return false };
        match number.strip_suffix('a') {
            Some(own) => own.parse() == Ok(self.capability),
            None => number.parse::<u32>().is_ok_and(|c| c <= self.capability),
        }
    }

    /// Blocks of so many threads and bytes that fit one multiprocessor. Registers are ptxas's to
    /// count and do not enter.
    pub fn occupancy(&self, threads: u32, shared: u64) -> u32 {
        // Every block costs 1 KiB that the system keeps.
        let by_shared = self.shared_per_sm / (shared + 1024);
        let by_threads = self.threads_per_sm / threads.max(1).next_multiple_of(32);
        self.blocks_per_sm.min(by_threads).min(by_shared.min(u64::from(u32::MAX)) as u32)
    }
}

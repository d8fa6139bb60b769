//! What each class of adapters does, in figures for the model of costs: an adapter in the middle of its
//! class. From data sheets and from what others report of them; none was measured with these kernels, and
//! only the order of candidates follows from them.

use super::AdapterKind;

/// An adapter with a memory, caches and cores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Machine {
    /// Multiply-adds of f32 in a microsecond, all cores together.
    pub(super) multiply_adds: f64,
    /// Bytes in a microsecond from memory, and from the caches.
    pub(super) memory: f64,
    pub(super) caches: f64,
    /// Microseconds of a dispatch behind another one, and of a load that is waited for.
    pub(super) launch: f64,
    pub(super) wait: f64,
    pub(super) cores: f64,
    /// The part of `multiply_adds` that each way to hold sums reaches.
    reaches: [f64; Sums::COUNT],
}

/// How a thread holds its sums, and where it finds the factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sums {
    /// Factors straight from memory or its caches, which have more to do then than workgroup memory.
    Direct,
    /// 4 × 4 sums, factors from workgroup memory, which gives half of what the arithmetic could take.
    FourByFour,
    /// 8 × 4 of them, which want two thirds.
    EightByFour,
    /// 8 × 8 of them: the most arithmetic for what workgroup memory gives, and the most registers.
    EightByEight,
    /// Cooperative matrices. By what others report, 2.5 to 3.5 times what sums in registers reach; of Apple's GPUs
    /// as fast as f32.
    Cooperative,
}

impl Sums {
    const COUNT: usize = 5;
}

/// Threads that hide each other's waits: a core with fewer of them idles.
const BUSY: f64 = 256.0;
/// Threads that a core holds at a time.
const RESIDENT: f64 = 1024.0;

/// Of what could go on beside the longest the part that does not.
const UNHIDDEN: f64 = 0.25;

const DISCRETE: Machine = Machine {
    multiply_adds: 12e6,
    memory: 600e3,
    caches: 2.5e6,
    launch: 3.0,
    wait: 0.5,
    cores: 64.0,
    reaches: [0.3, 0.45, 0.6, 0.85, 2.0],
};

// Whose compilers have no registers for 8 × 8 sums.
const INTEGRATED: Machine = Machine {
    multiply_adds: 1.2e6,
    memory: 70e3,
    caches: 300e3,
    launch: 5.0,
    wait: 0.6,
    cores: 8.0,
    reaches: [0.3, 0.45, 0.55, 0.2, 1.4],
};

const APPLE: Machine = Machine {
    multiply_adds: 2.5e6,
    memory: 120e3,
    caches: 600e3,
    launch: 5.0,
    wait: 0.5,
    cores: 14.0,
    reaches: [0.3, 0.45, 0.55, 0.5, 0.6],
};

const MOBILE: Machine = Machine {
    multiply_adds: 0.5e6,
    memory: 40e3,
    caches: 150e3,
    launch: 15.0,
    wait: 1.0,
    cores: 5.0,
    reaches: [0.3, 0.4, 0.35, 0.1, 0.5],
};

/// A middle way.
const UNKNOWN: Machine = Machine {
    multiply_adds: 2.5e6,
    memory: 120e3,
    caches: 500e3,
    launch: 6.0,
    wait: 0.6,
    cores: 16.0,
    reaches: [0.3, 0.45, 0.45, 0.3, 1.0],
};

/// The class's machine; none for software drivers, which have no cores of their own.
pub(super) fn of(adapter: AdapterKind) -> Option<&'static Machine> {
    Some(match adapter {
        AdapterKind::Hardware => &UNKNOWN,
        AdapterKind::Discrete => &DISCRETE,
        AdapterKind::Integrated => &INTEGRATED,
        AdapterKind::Apple => &APPLE,
        AdapterKind::Mobile => &MOBILE,
        AdapterKind::Software => return None,
    })
}

/// What a launch asks of a machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Multiply-adds that run, those of tiles that reach over the edge included.
    pub(super) multiply_adds: f64,
    /// Bytes from memory, each once, and bytes from the caches, for every workgroup that reads them.
    pub(super) memory: f64,
    pub(super) caches: f64,
    pub(super) groups: f64,
    /// Threads of a workgroup.
    pub(super) threads: f64,
    /// How often a thread waits for a load, one after the other.
    pub(super) waits: f64,
    pub(super) sums: Sums,
}

/// Microseconds that a dispatch may take by the model, before it is cut into several: watchdogs end one
/// after two seconds, and adapters of a class differ by a factor of some.
const DISPATCH: f64 = 1e5;

impl Machine {
    /// Multiply-adds of one dispatch, at most, at the rate of the slowest way.
    pub(super) fn most_multiply_adds(&self) -> f64 {
        DISPATCH * self.multiply_adds * self.reaches[Sums::Direct as usize]
    }

    /// Microseconds of a launch: of arithmetic, memory, caches and waits what takes longest, and a part of
    /// the others.
    pub(super) fn micros(&self, load: &Load) -> f64 {
        let groups = load.groups.max(1.0);
        // Workgroups of the core that has most of them.
        let most = (groups / self.cores).ceil();
        let uneven = most * self.cores / groups;
        let busy = (most * load.threads / BUSY).min(1.0);
        let rate = self.multiply_adds * self.reaches[load.sums as usize] * busy;
        let rounds = (most * load.threads / RESIDENT).ceil().max(1.0);
        let each = [
            load.multiply_adds * uneven / rate,
            load.memory / self.memory,
            load.caches / self.caches,
            load.waits * self.wait * rounds,
        ];
        let longest = each.into_iter().fold(0.0, f64::max);
        self.launch + longest + UNHIDDEN * (each.into_iter().sum::<f64>() - longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Load = Load {
        multiply_adds: 1e9,
        memory: 1e6,
        caches: 1e6,
        groups: 640.0,
        threads: 256.0,
        waits: 10.0,
        sums: Sums::FourByFour,
    };

    #[test]
    fn more_of_anything_takes_longer() {
        for kind in AdapterKind::ALL {
            let Some(machine) = of(kind) else { continue };
            let base = machine.micros(&LOAD);
            assert!(machine.micros(&Load { multiply_adds: 2e9, ..LOAD }) > base);
            assert!(machine.micros(&Load { memory: 1e9, ..LOAD }) > base);
            assert!(machine.micros(&Load { caches: 1e10, ..LOAD }) > base);
            assert!(machine.micros(&Load { waits: 1e5, ..LOAD }) > base);
            // The same work by one workgroup.
            assert!(machine.micros(&Load { groups: 1.0, ..LOAD }) > 4.0 * base);
            assert!(machine.micros(&Load { sums: Sums::Direct, ..LOAD }) > base);
        }
    }
}

//! How many CTAs one multiprocessor holds, by the registers that ptxas gave a text, its shared
//! memory and its threads; and how many the plan counts on.

use super::assemble::Resources;

/// What a launch of a text takes, as `build.rs` lists it for the plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) threads: u32,
    /// Bytes of dynamic shared memory.
    pub(crate) shared: u32,
    /// CTAs that the registers were divided for.
    pub(crate) resident: u32,
}

/// CTAs of one multiprocessor: what the plan counts on, and what fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ctas {
    pub(crate) planned: u32,
    pub(crate) fit: u32,
}

/// A multiprocessor, by the tables of NVIDIA's programming guide.
struct Multiprocessor {
    target: &'static str,
    threads: u32,
    ctas: u32,
    shared: u32,
}

const fn sm(target: &'static str, threads: u32, ctas: u32, kib: u32) -> Multiprocessor {
    Multiprocessor { target, threads, ctas, shared: kib << 10 }
}

const ALL: [Multiprocessor; 6] = [
    sm("sm_80", 2048, 32, 164),
    sm("sm_86", 1536, 16, 100),
    sm("sm_89", 1536, 24, 100),
    sm("sm_90", 2048, 32, 228),
    sm("sm_100", 2048, 32, 228),
    sm("sm_120", 1536, 24, 100),
];

/// Schedulers of a multiprocessor, each with a file of registers of its own.
const PARTITIONS: u32 = 4;
const REGISTERS: u32 = (64 << 10) / PARTITIONS;
/// Registers are given to a warp in such lots.
const LOT: u32 = 256;
/// Bytes of shared memory that the system keeps of every CTA.
const KEPT: u32 = 1024;

/// CTAs of a text on `target`, where that is one of those whose limits are known here.
pub(crate) fn ctas(target: &str, planned: Planned, resources: Resources) -> Option<Ctas> {
    let of = ALL.iter().find(|of| of.target == target)?;
    let warps = planned.threads.div_ceil(32).max(1);
    let lot = (resources.registers.max(1) * 32).next_multiple_of(LOT);
    let by_registers = REGISTERS / lot * PARTITIONS / warps;
    let by_shared = of.shared / (planned.shared + resources.shared + KEPT);
    let by_threads = of.threads / (warps * 32);
    let fit = by_registers.min(by_shared).min(by_threads).min(of.ctas);
    // As `plan::cuda::sm80` has it.
    let counted = (of.shared / (planned.shared + KEPT)).clamp(1, planned.resident.max(1));
    Some(Ctas { planned: counted, fit })
}

#[test]
fn the_scarcest_decides() {
    let resources = |registers, shared| Resources { registers, shared };
    let planned = |threads, shared, resident| Planned { threads, shared, resident };
    let fit = |target, planned, resources| ctas(target, planned, resources).unwrap();
    // 168 registers take 5,376 a warp: three warps a scheduler, three CTAs of four.
    let of = fit("sm_80", planned(128, 0, 2), resources(168, 0));
    assert_eq!(of, Ctas { planned: 2, fit: 3 });
    assert_eq!(fit("sm_80", planned(128, 0, 2), resources(169, 0)).fit, 2);
    assert_eq!(fit("sm_80", planned(256, 0, 1), resources(255, 0)).fit, 1);
    // 48 KiB and the kept one: three in 164 KiB, two in 100, and none less for a static byte or two.
    assert_eq!(
        fit("sm_80", planned(128, 48 << 10, 8), resources(32, 0)),
        Ctas { planned: 3, fit: 3 }
    );
    assert_eq!(
        fit("sm_89", planned(128, 48 << 10, 8), resources(32, 128)),
        Ctas { planned: 2, fit: 2 }
    );
    let tight = fit("sm_86", planned(128, 49 << 10, 8), resources(32, 128));
    assert_eq!(tight, Ctas { planned: 2, fit: 1 }, "static shared memory counts");
    assert_eq!(fit("sm_86", planned(32, 0, 1), resources(16, 0)).fit, 16);
    assert_eq!(fit("sm_120", planned(512, 0, 1), resources(16, 0)).fit, 3);
    assert_eq!(ctas("sm_87", planned(32, 0, 1), resources(16, 0)), None);
}

//! What the texts for GPUs do with workgroup memory and with buffers, counted instead of timed: each
//! preset's text is run for one workgroup (`run`), and every 32 threads' accesses are dealt out on 32 banks of
//! four bytes. All counts are committed (`golden.txt`; BLESS=1 writes it anew).
//!
//! A bank gives one word at a time. Accesses of 16 bytes go by eight threads, of 8 by sixteen; those
//! that meet one word share it. What this comes to at best is the distinct words over 32.

mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use fused_lora::{
    Capabilities, DType, Error, Launch, Layout, Operand, Operation, Plan, Problem, WgpuCapabilities,
};
use naga::valid::{Capabilities as Features, ValidationFlags, Validator};

use run::{Access, Thread, workgroup};

const BANKS: u32 = 32;
const WARP: usize = 32;

/// How often a bank has to be waited for, and how often at best.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cycles {
    taken: u32,
    ideal: u32,
}

/// One access of the threads of a warp.
fn cycles(accesses: &[&Access]) -> Cycles {
    let bytes = accesses[0].bytes;
    let together = (BANKS * 4 / bytes.max(4)) as usize;
    let mut all = Cycles::default();
    for threads in accesses.chunks(together) {
        let words =
            threads.iter().flat_map(|of| (0..bytes.div_ceil(4)).map(|word| of.address / 4 + word));
        let words: BTreeSet<u32> = words.collect();
        let mut banks = [0; BANKS as usize];
        words.iter().for_each(|word| banks[(word % BANKS) as usize] += 1);
        all.taken += banks.iter().max().unwrap();
        all.ideal += (words.len() as u32).div_ceil(BANKS);
    }
    all
}

/// By function and kind of access.
fn sites(threads: &[Thread]) -> BTreeMap<String, Cycles> {
    let mut sites: BTreeMap<String, Cycles> = BTreeMap::new();
    for warp in threads.chunks(WARP) {
        // Together go what threads meet between the same barriers at the same place, one after the other.
        let mut together: BTreeMap<(u32, &str, usize), Vec<&Access>> = BTreeMap::new();
        for thread in warp {
            let mut times: BTreeMap<(u32, &str), usize> = BTreeMap::new();
            for of in &thread.accesses {
                let time = times.entry((of.epoch, &of.site)).or_default();
                together.entry((of.epoch, &of.site, *time)).or_default().push(of);
                *time += 1;
            }
        }
        for ((_, site, _), all) in together {
            let (of, now) = (sites.entry(site.to_owned()).or_default(), cycles(&all));
            (of.taken, of.ideal) = (of.taken + now.taken, of.ideal + now.ideal);
        }
    }
    sites
}

/// One workgroup of `launch`.
fn run(launch: &Launch) -> Vec<Thread> {
    let source = launch.source.as_ref().expect("a text");
    let module = naga::front::wgsl::parse_str(&source.text).expect("WGSL");
    let features = Features::SHADER_FLOAT16_IN_FLOAT32
        | Features::SHADER_FLOAT16
        | Features::SUBGROUP
        | Features::COOPERATIVE_MATRIX;
    let info = Validator::new(ValidationFlags::all(), features).validate(&module).expect("valid");
    workgroup(&module, &info, &launch.params, [0; 3], WARP as u32)
}

/// On a device with cooperative matrices of this side, or 0.
fn plan(problem: &Problem, choice: &str, cooperative: u32) -> Result<Plan, Error> {
    let mut device = WgpuCapabilities::default();
    if cooperative > 0 {
        (device.f16, device.subgroup, device.cooperative) = (true, WARP as u32, cooperative);
    }
    Plan::choose(problem, &Capabilities::Wgpu(device), &choice.parse()?)
}

/// One whole tile of every preset: two steps of what is staged, and four ranks of four.
const TOKENS: usize = 64;
const DEPTH: usize = 32;
const COLUMNS: usize = 64;
const RANK: usize = 16;

/// w along its rows (forward) and across them (backward_input), and both once more with a and b turned.
fn problems(dtype: DType, tokens: usize) -> [(&'static str, Problem); 4] {
    let turned = |problem: Problem| {
        [Operand::A, Operand::B]
            .into_iter()
            .fold(problem, |of, operand| of.with_layout(operand, Layout::TRANSPOSED))
    };
    let forward = Problem::forward(tokens, DEPTH, COLUMNS, RANK).with_dtype(dtype);
    let backward =
        Problem::new(Operation::BackwardInput, tokens, COLUMNS, DEPTH, RANK).with_dtype(dtype);
    [
        ("w along", forward),
        ("w along, a b turned", turned(forward)),
        ("w across", backward),
        ("w across, a b turned", turned(backward)),
    ]
}

const PRESETS: [(&str, usize); 8] = [
    ("two_pass/large", TOKENS),
    ("two_pass/tall", TOKENS),
    ("two_pass/wide", TOKENS),
    ("two_pass/small", TOKENS),
    ("recompute/wide", TOKENS),
    ("recompute/small", TOKENS),
    ("two_pass/decode", 1),
    ("two_pass/decode", 16),
];

#[test]
fn nobody_waits_for_a_bank() {
    // The side of matrices is part of the preset's name.
    let side_of = |side: u32| if side > 0 { format!(" {side}") } else { String::new() };
    let mut golden = String::from(
        "# a workgroup's cycles of banks, taken/ideal; its reads of buffers by bytes\n",
    );
    let presets = [DType::F32, DType::Bf16]
        .into_iter()
        .flat_map(|dtype| PRESETS.map(|(choice, tokens)| (dtype, choice, tokens, 0)));
    let matrices = [8, 16].map(|side| (DType::F16, "two_pass/cooperative", TOKENS, side));
    for (dtype, choice, tokens, side) in presets.chain(matrices) {
        for (layout, problem) in problems(dtype, tokens) {
            let plan = plan(&problem, choice, side).unwrap_or_else(|error| panic!("{error}"));
            let mut executed = 0;
            for launch in plan.launches() {
                let threads = run(launch);
                let groups: u64 = launch.grid.into_iter().map(u64::from).product();
                executed += 2 * groups * threads.iter().map(|of| of.multiply_adds).sum::<u64>();
                let mut line = format!(
                    "{choice}{} {dtype} m{tokens} {layout}, {}:",
                    side_of(side),
                    launch.kernel
                );
                for (site, Cycles { taken, ideal }) in sites(&threads) {
                    let _ = write!(line, " {site} {taken}/{ideal},");
                    assert_eq!(taken, ideal, "{line}");
                }
                let mut reads: BTreeMap<u32, u64> = BTreeMap::new();
                for (bytes, count) in threads.iter().flat_map(|of| &of.reads) {
                    *reads.entry(*bytes).or_default() += count;
                }
                let vector = 4 * dtype.size() as u32;
                // Operands without gaps are read by vectors alone; shrunk in the workspace is f32.
                assert!(reads.keys().all(|&of| of >= vector), "{line} {reads:?}");
                let _ = writeln!(golden, "{line} reads {reads:?}");
            }
            // What the plan says is what the texts do.
            assert_eq!(executed, plan.flops(), "{choice} {tokens} {layout}: {}", plan.explain());
        }
    }
    let path =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels/banks/golden.txt");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &golden).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == golden, "other counts: BLESS=1 cargo test --test kernels banks::\n{golden}");
}

/// The model itself: neighbours, a stride that meets one group of banks, and a word that is shared.
#[test]
fn banks_are_counted() {
    let access = |address| Access { site: String::new(), epoch: 0, address, bytes: 16 };
    let of = |address: fn(u32) -> u32| {
        let all: Vec<Access> = (0..32).map(|thread| access(16 * address(thread))).collect();
        cycles(&all.iter().collect::<Vec<_>>())
    };
    assert_eq!(of(|thread| thread), Cycles { taken: 4, ideal: 4 });
    assert_eq!(of(|thread| 8 * thread), Cycles { taken: 32, ideal: 4 });
    assert_eq!(of(|thread| 9 * thread), Cycles { taken: 4, ideal: 4 });
    assert_eq!(of(|_| 3), Cycles { taken: 4, ideal: 4 });
    // As rows lay before: two rows of four groups, 64 words from group to group, 16 from row to row.
    assert_eq!(of(|thread| thread % 4 * 64 + thread / 4 * 16), Cycles { taken: 32, ideal: 4 });
}

//! How fast a launch runs: `cargo run --release -p ptx-sim --example speed [size [entry]]`.
//! The bf16 GEMM fixtures of sm_80 and sm_90a with all checks, without counters, and without checks.

use std::time::Instant;

use ptx_sim::{
    Chip, Launch, Memory, Module, Options, Schedule, Swizzle, TensorMap, TensorType, run_launch,
};

/// A matrix product of the fixtures.
struct Gemm {
    entry: &'static str,
    source: &'static str,
    threads: u32,
    shared: u32,
    /// The operands are given as tensor maps.
    maps: bool,
}

const GEMMS: [Gemm; 2] = [
    Gemm {
        entry: "gemm_bf16",
        source: include_str!("../tests/fixtures/gemm_bf16.ptx"),
        threads: 256,
        shared: 49_152,
        maps: false,
    },
    Gemm {
        entry: "gemm",
        source: include_str!("../tests/fixtures/gemm_sm90a.ptx"),
        threads: 384,
        shared: 131_136,
        maps: true,
    },
];

fn main() {
    let n: usize = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(1024);
    let only = std::env::args().nth(2);
    for gemm in GEMMS.iter().filter(|g| only.as_ref().is_none_or(|o| o == g.entry)) {
        if let Err(error) = run(gemm, n) {
            return eprintln!("{}: {error}", gemm.entry);
        }
    }
}

fn run(gemm: &Gemm, n: usize) -> Result<(), Box<dyn std::error::Error>> {
    let module = Module::parse(gemm.entry, gemm.source)?;
    let chip = if gemm.maps { Chip::SM_90 } else { Chip::SM_80 };
    let all = Options { chip, sms: 1, schedule: Schedule::RoundRobin, ..Options::default() };
    let plain = Options { count: false, ..all };
    let bare = Options { check_init: false, check_races: false, ..plain };
    for (name, options) in
        [("all checks, counters", all), ("all checks", plain), ("no checks", bare)]
    {
        let mut memory = Memory::new();
        let blocks = n.div_ceil(128) as u32;
        let mut launch = Launch::new(gemm.entry, [blocks, blocks, 1], [gemm.threads, 1, 1]);
        for _ in 0..2 {
            let at = memory.alloc(2 * n * n)?;
            // 1.0 and 0.5 in bf16.
            memory.write(at, &[0x80, 0x3F, 0x00, 0x3F].repeat(n * n / 2))?;
            let dims = [n as u64, n as u64];
            let map = TensorMap::dense(TensorType::Bf16, at, &dims, &[64, 128]);
            launch = match gemm.maps {
                true => launch.bytes(&map.swizzled(Swizzle::B128).encode()?),
                false => launch.ptr(at),
            };
        }
        launch = launch.ptr(memory.alloc(4 * n * n)?).shared(gemm.shared);
        launch = launch.u32(n as u32).u32(n as u32).u32(n as u32);
        let start = Instant::now();
        let counters = run_launch(&module, &mut memory, &launch, &options)?;
        let seconds = start.elapsed().as_secs_f64();
        let threads = counters.total().threads as f64;
        println!(
            "{} {n}³, {name}: {seconds:.2} s, {:.0} M thread-instructions/s",
            gemm.entry,
            threads / seconds / 1e6
        );
    }
    Ok(())
}

//! How fast a launch runs: `cargo run --release -p ptx-sim --example speed [size]`.
//! The bf16 GEMM fixture with all checks, without counters, and without checks.

use std::time::Instant;

use ptx_sim::{Launch, Memory, Module, Options, Schedule, run_launch};

fn main() {
    let n: usize = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(1024);
    let source = include_str!("../tests/fixtures/gemm_bf16.ptx");
    let module = match Module::parse("gemm_bf16.ptx", source) {
        Ok(module) => module,
        Err(error) => return eprintln!("{error}"),
    };
    let all = Options { sms: 1, schedule: Schedule::RoundRobin, ..Options::default() };
    let plain = Options { count: false, ..all };
    let bare = Options { check_init: false, check_races: false, ..plain };
    for (name, options) in
        [("all checks, counters", all), ("all checks", plain), ("no checks", bare)]
    {
        let mut memory = Memory::new();
        let mut fresh = |bytes: usize, fill: bool| {
            let at = memory.alloc(bytes)?;
            if fill {
                // 1.0 and 0.5 in bf16.
                memory.write(at, &[0x80, 0x3F, 0x00, 0x3F].repeat(bytes / 4))?;
            }
            Ok::<u64, ptx_sim::MemoryError>(at)
        };
        let buffers = [fresh(2 * n * n, true), fresh(2 * n * n, true), fresh(4 * n * n, false)];
        let blocks = n.div_ceil(128) as u32;
        let mut launch = Launch::new("gemm_bf16", [blocks, blocks, 1], [256, 1, 1]).shared(49152);
        for buffer in buffers.into_iter().flatten() {
            launch = launch.ptr(buffer);
        }
        launch = launch.u32(n as u32).u32(n as u32).u32(n as u32);
        let start = Instant::now();
        match run_launch(&module, &mut memory, &launch, &options) {
            Ok(counters) => {
                let seconds = start.elapsed().as_secs_f64();
                let threads = counters.total().threads as f64;
                println!(
                    "{n}³, {name}: {seconds:.2} s, {:.0} M thread-instructions/s",
                    threads / seconds / 1e6
                );
            }
            Err(error) => return eprintln!("{error}"),
        }
    }
}

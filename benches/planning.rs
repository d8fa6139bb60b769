//! What `Plan::new` costs the host: nanoseconds and allocations for each operation on each backend,
//! as a table. Needs no device.
//!
//!     cargo bench --bench planning

use std::hint::black_box;
use std::time::Instant;

use fused_lora::{
    Capabilities, CpuCapabilities, CudaCapabilities, DType, Operation, Plan, Problem,
    WgpuCapabilities,
};
use test_support::counting::{Counting, allocated};

#[global_allocator]
static COUNTING: Counting = Counting;

/// Plans of one timing, and timings of which the fastest counts.
const PLANS: u32 = 200;
const TIMINGS: usize = 30;

fn main() {
    // `cargo test --benches` only looks whether it runs.
    let quick = !std::env::args().any(|of| of == "--bench");
    let timings = if quick { 1 } else { TIMINGS };
    println!("| operation | backend | ns | allocations |\n|---|---|---|---|");
    let devices = [
        Capabilities::Cpu(CpuCapabilities::new(8)),
        Capabilities::Cuda(CudaCapabilities::default()),
        Capabilities::Wgpu(WgpuCapabilities::default()),
    ];
    for &operation in Operation::ALL {
        let problem = Problem::new(operation, 512, 4096, 4096, 16).with_dtype(DType::Bf16);
        for capabilities in devices {
            let plan = || Plan::new(black_box(&problem), &capabilities).expect("a plan");
            plan();
            let allocations = allocated(|| drop(black_box(plan())));
            let timing = |_| {
                let start = Instant::now();
                for _ in 0..PLANS {
                    black_box(plan());
                }
                start.elapsed() / PLANS
            };
            let fastest = (0..timings).map(timing).min().unwrap_or_default();
            let (backend, ns) = (capabilities.executor(), fastest.as_nanos());
            println!("| {operation} | {backend} | {ns} | {allocations} |");
        }
    }
}

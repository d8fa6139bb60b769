//! What recording a call costs the host on wgpu: nanoseconds and allocations of `Wgpu::encode`, which binds operands anew,
//! and of `Prepared::encode`, which has them bound, as a table. On wgpu's backend that does nothing, so that no driver's cost is
//! in it. Needs no device.
//!
//!     cargo bench --bench recording

use std::time::Instant;

use fused_lora::wgpu::{Workspace, wgpu};
use fused_lora::{DType, Operation, Plan, Problem};
use test_support::counting::{Counting, allocated};
use test_support::gpu::{Gpu, Placed};
use test_support::{Case, Fill};

#[global_allocator]
static COUNTING: Counting = Counting;

/// Calls recorded into one pass, and passes of which the fastest counts.
const CALLS: u32 = 200;
const PASSES: usize = 30;

fn main() {
    // `cargo test --benches` only looks whether it runs.
    let quick = !std::env::args().any(|of| of == "--bench");
    let passes = if quick { 1 } else { PASSES };
    let gpu = Gpu::noop();
    println!(
        "| operation | launches | `encode`, ns | allocations | `Prepared::encode`, ns | allocations |"
    );
    println!("|---|---|---|---|---|---|");
    for &operation in Operation::ALL {
        let problem = Problem::new(operation, 64, 1280, 1280, 16).with_dtype(DType::Bf16);
        let plan = Plan::new(&problem, &gpu.wgpu().capabilities()).expect("a plan");
        let buffers = Case::new(problem, Fill::Uniform, 1).aligned_buffers();
        let placed = Placed::new(&gpu, &buffers, false);
        let scratch = gpu.storage(&vec![0; plan.workspace_len()]);
        let operands = || placed.operands(&buffers, &mut |_, shape| Some(shape));
        // Two layers of one shape take turns: what is set already, wgpu would not set again.
        let second = Placed::new(&gpu, &buffers, false);
        let bound = [&placed, &second].map(|placed| {
            let operands = placed.operands(&buffers, &mut |_, shape| Some(shape));
            gpu.wgpu().prepare(&plan, operands, Workspace::new(&scratch)).expect("bound")
        });

        let encode = cost(&gpu, passes, |pass| {
            let scratch = Workspace::new(&scratch);
            gpu.wgpu().encode(pass, &plan, operands(), scratch).expect("recorded");
        });
        let mut turn = bound.iter().cycle();
        let prepared = cost(&gpu, passes, |pass| {
            turn.next().expect("two").encode(pass).expect("recorded");
        });
        let launches = plan.launches().len();
        println!(
            "| {operation} | {launches} | {} | {:.1} | {} | {:.1} |",
            encode.0, encode.1, prepared.0, prepared.1
        );
    }
}

/// Nanoseconds and allocations of one call.
fn cost(gpu: &Gpu, passes: usize, mut call: impl FnMut(&mut wgpu::ComputePass<'_>)) -> (u128, f64) {
    let mut in_a_pass = || {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        call(&mut pass);
        let mut nanos = 0;
        let allocations = allocated(|| {
            let start = Instant::now();
            (0..CALLS).for_each(|_| call(&mut pass));
            nanos = start.elapsed().as_nanos() / u128::from(CALLS);
        });
        (nanos, allocations as f64 / f64::from(CALLS))
    };
    let all: Vec<(u128, f64)> = (0..passes).map(|_| in_a_pass()).collect();
    let (nanos, allocations) = (all.iter().map(|of| of.0).min(), all.last().map(|of| of.1));
    (nanos.unwrap_or_default(), allocations.unwrap_or_default())
}

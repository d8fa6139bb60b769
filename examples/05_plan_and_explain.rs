//! One level below the calls: a plan says what will run, why, and what it costs; it is kept, forced, timed, and
//! run with the caller's own workspace.
//!
//!     cargo run --release --example 05_plan_and_explain

use fused_lora::cpu::{Cpu, Workspace};
use fused_lora::{Capabilities, CudaCapabilities, DType, Device, Forward, Matrix, Plan, Problem};

fn main() -> Result<(), fused_lora::Error> {
    let (tokens, features, rank) = (64, 512, 16);
    let problem = Problem::forward(tokens, features, features, rank).with_scale(2.0);
    let problem = problem.with_keep_shrunk(false);
    let cpu = Cpu::new();
    let plan = Plan::new(&problem, &cpu.capabilities())?;
    println!("{}", plan.explain());

    // A device that this machine does not have: plans are arithmetic. The default is an A100.
    let a100 = Capabilities::Cuda(CudaCapabilities::default());
    let there = Plan::new(&problem.with_dtype(DType::Bf16), &a100)?;
    println!("{}", there.explain());

    // A choice by its name, for a benchmark or from an autotuner's file.
    let forced = Plan::choose(&problem, &cpu.capabilities(), &"recompute/band".parse()?)?;
    println!("{} instead of {}", forced.choice(), plan.choice());

    // Or measured here and now: every candidate, the fastest first. Their texts are what to save.
    for timing in Device::cpu().tune(&problem)? {
        println!(
            "{:<24} {:8.1} µs, by the model {:.1}",
            timing.choice.to_string(),
            timing.micros,
            timing.modelled
        );
    }

    let (x, w) = (vec![1.0f32; tokens * features], vec![0.5f32; features * features]);
    let (a, b) = (vec![0.25f32; rank * features], vec![0.125f32; features * rank]);
    for plan in [&plan, &forced] {
        let mut y = vec![0.0f32; tokens * features];
        let mut workspace = Workspace::for_plan(plan)?;
        let (x, w) = (Matrix::new(&x, tokens, features), Matrix::new(&w, features, features));
        let forward = Forward::new(x, w, Matrix::new(&mut y, tokens, features))
            .adapter(Matrix::new(&a, rank, features), Matrix::new(&b, features, rank));
        // The scale is no part of a plan: another one runs on the same.
        cpu.run(plan.with_scalars(0.5, 0.0)?, forward, &mut workspace)?;
        assert!(y.iter().all(|y| *y == 256.0 + 16.0 * 0.5 * 128.0 * 0.125));
    }
    Ok(())
}

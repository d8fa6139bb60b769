//! What `Problem::with_batch_invariant` costs: on the CPU the time of its plan over the default one's,
//! by alternating pairs; for GPUs, of which none is needed, the bytes and operations that the two plans
//! execute. Figures: `benches/results/batch-invariant.md`.
//!
//!     cargo bench --bench batch_invariant                 prints the tables as Markdown
//!     cargo bench --bench batch_invariant -- --out FILE   and writes them there, with the machine

// `pub` says here what another file of this program uses.
#![allow(unreachable_pub)]

#[path = "common/statistics.rs"]
#[allow(dead_code)]
mod statistics;
#[path = "common/table.rs"]
mod table;
#[path = "common/two_plans.rs"]
mod two_plans;

use std::error::Error;
use std::fmt::Write as _;

use clap::Parser;
use fused_lora::{
    AdapterKind, Capabilities, CudaCapabilities, DType, Device, Operation, Plan, Problem,
    WgpuCapabilities,
};

use table::Table;

/// The batch-invariant plan over the default one.
#[derive(Debug, Parser)]
struct Options {
    #[command(flatten)]
    table: Table,
}

const TOKENS: [usize; 4] = [1, 8, 64, 512];
const FEATURES: [usize; 2] = [1280, 4096];
const RANK: usize = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let (pairs, features) = options.table.extent(&FEATURES, &[256]);
    let device = Device::cpu();
    let mut text = String::from("Forward, time over the default plan's, on the CPU:\n\n");
    text += "| type | features | 1 token | 8 | 64 | 512 |\n|---|---|---|---|---|---|\n";
    for dtype in [DType::F32, DType::Bf16] {
        for &features in features {
            write!(text, "| {dtype} | {features}² |")?;
            for tokens in TOKENS {
                let problem = Problem::forward(tokens, features, features, RANK);
                let problem = problem.with_dtype(dtype).with_keep_shrunk(false);
                let [default, invariant] = plans(problem, &device.capabilities())?;
                let ratio = two_plans::ratio(&device, [&invariant, &default], pairs)?;
                eprintln!("{dtype} {features}² {tokens} tokens: {ratio}");
                write!(text, " {ratio} |")?;
            }
            text += "\n";
        }
    }
    text +=
        "\nBytes / operations executed over the default plan's, by the plans (4096², bf16):\n\n";
    text += "| device | operation | 1 token | 8 | 64 | 512 |\n|---|---|---|---|---|---|\n";
    for (name, capabilities) in gpus() {
        for operation in [Operation::Forward, Operation::BackwardInput] {
            write!(text, "| {name} | {operation} |")?;
            for tokens in TOKENS {
                let problem = Problem::new(operation, tokens, 4096, 4096, RANK);
                let [default, invariant] = plans(problem.with_dtype(DType::Bf16), &capabilities)?;
                let bytes = invariant.bytes() as f64 / default.bytes() as f64;
                let flops = invariant.flops() as f64 / default.flops() as f64;
                write!(text, " {bytes:.2} / {flops:.2} |")?;
            }
            text += "\n";
        }
    }
    Ok(options.table.finish(&text, &device, "batch_invariant")?)
}

fn gpus() -> [(&'static str, Capabilities); 3] {
    let mut h200 = CudaCapabilities::default();
    (h200.compute_capability, h200.multiprocessors) = ((9, 0), 132);
    let mut software = WgpuCapabilities::default();
    (software.adapter, software.subgroup) = (AdapterKind::Software, 8);
    [
        ("CUDA, 132 multiprocessors", Capabilities::Cuda(h200)),
        ("wgpu, a GPU", Capabilities::Wgpu(WgpuCapabilities::default())),
        ("wgpu, a software driver", Capabilities::Wgpu(software)),
    ]
}

fn plans(problem: Problem, capabilities: &Capabilities) -> fused_lora::Result<[Plan; 2]> {
    let plan = |invariant| Plan::new(&problem.with_batch_invariant(invariant), capabilities);
    Ok([plan(false)?, plan(true)?])
}

//! What it brings that operands begin at multiples of 16 bytes, which is what a layout says by saying nothing
//! (`Layout::align`): the plan that reads vectors beside the one for operands that begin at any element, on
//! the same tensors, by alternating pairs.
//!
//!     tests/lavapipe cargo bench --bench alignment -- --device wgpu:llvmpipe [--out FILE]

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
use fused_lora::{DType, Device, Layout, Plan, Problem};

use table::Table;

/// Vectors over single elements.
#[derive(Debug, Parser)]
struct Options {
    /// A name of `Device::open`
    #[arg(long, default_value = "cpu")]
    device: String,
    #[command(flatten)]
    table: Table,
}

const TOKENS: [usize; 3] = [1, 8, 64];
const RANK: usize = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let (pairs, features) = options.table.extent(&[640, 1280], &[64]);
    let device = Device::open(&options.device)?;
    let mut text = format!(
        "Time with vectors over the time with single elements, forward, {}:\n\n",
        device.name()
    );
    text += "| type | features | 1 token | 8 | 64 |\n|---|---|---|---|---|\n";
    for dtype in [DType::F32, DType::Bf16] {
        for &features in features {
            write!(text, "| {dtype} | {features}² |")?;
            for tokens in TOKENS {
                let problem = Problem::forward(tokens, features, features, RANK);
                let problem = problem.with_dtype(dtype).with_keep_shrunk(false);
                let vectors = device.plan(&problem)?;
                let elements = at_any_element(&device, &vectors)?;
                let ratio = two_plans::ratio(&device, [&vectors, &elements], pairs)?;
                eprintln!("{dtype} {features}² {tokens} tokens: {ratio}");
                write!(text, " {ratio} |")?;
            }
            text += "\n";
        }
    }
    Ok(options.table.finish(&text, &device, "alignment")?)
}

/// The plan of the same choice for operands that begin anywhere.
fn at_any_element(device: &Device, plan: &Plan) -> fused_lora::Result<Plan> {
    let problem = plan.problem().specs().fold(*plan.problem(), |problem, (operand, spec)| {
        let layout = Layout { major: spec.major, align: spec.dtype.size(), ..Layout::default() };
        problem.with_layout(operand, layout)
    });
    device.choose(&problem, &plan.choice())
}

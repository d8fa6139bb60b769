//! Writes plans as JSON for `plan.js`, which launches them on WebGPU without any Rust: a layer of 256 × 192 with an
//! adapter of rank 8, forward for one token and for 64, and both halves of backward.
//!
//!     cargo run --bin export > plans.json

use fused_lora::{Capabilities, Operation, Plan, Problem, WgpuCapabilities};
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // What a page may count on before it has asked for more.
    let mut browser = WgpuCapabilities::default();
    browser.browser = true;
    let browser = Capabilities::Wgpu(browser);
    let plans = [1, 64].into_iter().flat_map(|tokens| {
        let layer = Problem::forward(tokens, 256, 192, 8).with_scale(2.0);
        [
            layer.with_bias(true),
            layer.with_operation(Operation::BackwardInput),
            layer.with_operation(Operation::BackwardAdapter),
        ]
    });
    let plans = plans.map(|problem| {
        let plan = Plan::new(&problem, &browser)?;
        Ok(json!({ "scale": 2.0, "tokens": problem.tokens(), "rank": problem.rank(), "plan": plan }))
    });
    let plans = plans.collect::<Result<Vec<_>, fused_lora::Error>>()?;
    println!("{}", serde_json::to_string(&plans)?);
    Ok(())
}

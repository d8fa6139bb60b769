//! Every text of `linear`, `shrink` and `pack` through the simulator, all checks on.

mod common;
mod sim;

use common::{Case, Fill, Reference, assert_exact, shrunk_is_exact};
use fused_lora::reference::Sums;
use fused_lora::{Capabilities, Choice, Operation, Plan, Problem};
use ptx_sim::{Counters, Options};
use sim::{Gpu, HALVES, gpu};

fn exact(
    problem: &Problem,
    on: &Capabilities,
    choice: &str,
    options: &Options,
    seed: u64,
) -> Vec<Counters> {
    let choice: Choice = choice.parse().unwrap();
    let plan = Plan::choose(problem, on, &choice).unwrap_or_else(|e| panic!("{e}\n{problem:?}"));
    let case = Case::new(*problem, Fill::Integers, seed);
    let before = case.aligned_buffers();
    let mut reference = Reference::new(problem, &before);
    let expected = reference.of(Sums::TensorCore);
    assert!(shrunk_is_exact(problem, expected), "seed {seed} draws no exact case");
    let mut gpu = Gpu::new(plan.workspace_len());
    let mut after = before.clone();
    let counters =
        gpu.run(&plan, &mut after, options).unwrap_or_else(|e| panic!("{e}\n{}", plan.explain()));
    after.assert_guards(&before);
    assert_exact(&plan, &after, expected, &case);
    counters
}

#[test]
fn plain_first() {
    let options = Options::default();
    for dtype in HALVES {
        for operation in [Operation::Forward, Operation::BackwardInput] {
            for tile in ["small", "large", "unaligned"] {
                let problem = Problem::new(operation, 150, 200, 296, 0).with_dtype(dtype);
                exact(&problem, &gpu(2), &format!("direct/{tile}"), &options, 1);
            }
        }
    }
}

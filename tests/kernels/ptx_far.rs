//! Rows that lie so far apart that every operand is more than 4 GiB long: no kernel works an
//! address out in 32 bits. Memory is that of the simulator, which keeps what is touched.

use std::collections::BTreeSet;

use fused_lora::reference::Sums;
use fused_lora::{Choice, DType, Layout, Major, Method, Operand, Operation, Plan, Problem};
use ptx_sim::Options;
use test_support::sim::walk::texts;
use test_support::sim::{Gpu, gpu};
use test_support::{Case, Fill, Reference, assert_exact, feasible};

/// From the first row of an operand to its last.
const SPAN: usize = 5 << 30;

/// Every operand in rows of 16-byte multiples: side by side, or its last one [`SPAN`] behind its first.
fn laid_out(problem: Problem, major: Major, far: bool) -> Problem {
    Operand::ALL.iter().copied().fold(problem, |problem, operand| {
        let major = if operand.either_major() { major } else { Major::Row };
        let problem = problem.with_layout(operand, Layout { major, ..Layout::default() });
        let Some(spec) = problem.spec(operand) else { return problem };
        let (rows, cols) = spec.stored();
        let elements = SPAN / spec.dtype.size() / (rows - 1).max(1);
        let stride = if far { elements } else { cols }.next_multiple_of(8);
        problem.with_layout(operand, Layout { major, stride: Some(stride), align: 0 })
    })
}

#[test]
fn operands_of_more_than_four_gigabytes() {
    let mut ran = BTreeSet::new();
    for (operation, tokens) in [
        (Operation::Forward, 70),
        (Operation::Forward, 9),
        (Operation::BackwardInput, 70),
        (Operation::BackwardInput, 9),
        (Operation::BackwardShrink, 70),
        (Operation::BackwardAdapter, 70),
        (Operation::Merge, 1),
        (Operation::Compose, 1),
        (Operation::Chain, 1),
        (Operation::BackwardGain, 70),
    ] {
        for (dtype, adapter) in
            [(DType::Bf16, DType::Bf16), (DType::F16, DType::F32), (DType::F32, DType::F32)]
        {
            for major in [Major::Row, Major::Col] {
                let method = match Operation::FACTORS.contains(&operation) {
                    true => Method::Loha,
                    false => Method::Lora,
                };
                let problem = Problem::new(operation, tokens, 72, 88, 12)
                    .with_method(method)
                    .with_activation(dtype)
                    .with_adapter(adapter)
                    .with_gradient(dtype)
                    .with_scale(0.5)
                    .with_beta(-0.5);
                let near = laid_out(problem, major, false);
                let case = Case::new(near, Fill::Integers, 3);
                let before = case.aligned_buffers();
                let mut reference = Reference::new(&near, &before);
                let far = laid_out(problem, major, true);
                for choice in feasible(&far, &gpu(2), &Choice::default()) {
                    let plan = Plan::choose(&far, &gpu(2), &choice).unwrap();
                    let mut after = before.clone();
                    let options = Options { sms: 2, ..Options::default() };
                    Gpu::new(plan.workspace_len())
                        .run_far(&plan, &mut after, &options)
                        .unwrap_or_else(|error| panic!("{error}\n{}", plan.explain()));
                    assert_exact(&plan, &after, reference.of(Sums::F32), &case);
                    ran.extend(texts(&plan));
                }
            }
        }
    }
    for kind in [
        "backward_gain",
        "contract",
        "decode",
        "gradient",
        "leader",
        "merge",
        "pack",
        "plain",
        "recompute",
        "shrink",
    ] {
        assert!(ran.iter().any(|name| name.starts_with(kind)), "{kind} never ran, but {ran:?}");
    }
}

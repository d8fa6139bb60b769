//! LoKr with a whole w2, against ΔW = s·w1 ⊗ w2 by its definition: forward and backward_input, the gradients of both
//! factors, merge, norm, every candidate of every plan; small integers bit for bit; a term less is seen; the bits are the
//! plan's; what CUDA lacks. `calls` has the calls.

mod calls;

use fused_lora::reference::{Dense, expected};
use fused_lora::{DType, Device, Error, Kronecker, Method, Operand, Operation, Plan, Problem};
use test_support::{Case, Fill, Harness, Rows, draw_kronecker, executors, largest_part, launch};

use super::definition::{candidates_match, integers_come_out_exactly};

const LAYER: [Operation; 5] = [
    Operation::Forward,
    Operation::BackwardInput,
    Operation::BackwardAdapter,
    Operation::Merge,
    Operation::Unmerge,
];

/// The operations of a layer, those on its w1 where that is two factors, and its norms.
const ALL: [Operation; 8] = [
    Operation::Forward,
    Operation::BackwardInput,
    Operation::BackwardAdapter,
    Operation::Merge,
    Operation::Unmerge,
    Operation::Norm,
    Operation::Compose,
    Operation::Chain,
];

fn devices() -> Vec<Device> {
    let open = |name: &str| Device::open(name).expect("a device that the tests have");
    executors().iter().map(|of| open(of.name())).collect()
}

fn lokr([rows, columns]: [usize; 2]) -> Method {
    Method::Lokr(Kronecker::new(rows, columns).whole())
}

#[test]
fn every_candidate_matches_the_definition() {
    let mut harness = Harness::new("whole w2").rarer(3);
    let fills = [Fill::Uniform, Fill::Uniform, Fill::Outliers, Fill::Tiny];
    let usage = candidates_match(&mut harness, 600, &fills, |rng| draw_kronecker(rng, &ALL));
    let whole = executors().iter().any(|of| of.one_in(Rows::Drawn) == 1);
    usage.report((harness.is_free() && whole).then_some(0.01));
}

#[test]
fn small_integers_come_out_exactly() {
    let mut harness = Harness::new("whole w2, exact").rarer(3);
    integers_come_out_exactly(&mut harness, 300, |rng| draw_kronecker(rng, &LAYER));
}

/// Every output is outside its tolerance of a ΔW that lacks a row or a column of w1 or of w2, and gradients of a pass
/// that lacks a token.
#[test]
fn a_term_less_is_seen() {
    let mut harness = Harness::new("a term less");
    for (at, dtype) in [DType::F32, DType::Bf16].into_iter().enumerate() {
        for operation in LAYER {
            let problem = Problem::new(operation, 33, 84, 90, 0)
                .with_method(lokr([5, 4]))
                .with_dtype(dtype)
                .with_scale(1.5);
            let case = Case::new(problem, Fill::Uniform, 3);
            let before = case.buffers();
            let dense = |of: Operand| before.at(of).dense();
            let without = |of: Operand, dropped: usize, row: bool| {
                let keeps = |at: [usize; 2]| at[usize::from(!row)] != dropped;
                let of = dense(of);
                Dense::from_fn(of.rows(), of.cols(), |row, col| {
                    if keeps([row, col]) { of.at(row, col) } else { 0.0 }
                })
            };
            harness.each(&problem, Some(at as u64), |executor, plan| {
                let after = launch(executor, plan, &before, &case);
                let sums = executor.sums(&problem);
                let whole = expected(&problem, sums, dense);
                let tokens = [(Operand::X, 32, true), (Operand::Dy, 0, true)];
                let factors = [
                    (Operand::W1, 4, true),
                    (Operand::W1, 3, false),
                    (Operand::W2, 17, true),
                    (Operand::W2, 20, false),
                ];
                for (of, dropped, row) in tokens.into_iter().chain(factors) {
                    let there = problem.spec(of).is_some();
                    // A token less is a row of y less, which everything sees.
                    if !there
                        || (tokens.iter().any(|(t, ..)| *t == of)
                            && operation != Operation::BackwardAdapter)
                    {
                        continue;
                    }
                    let less = expected(&problem, sums, |operand| {
                        if operand == of { without(of, dropped, row) } else { dense(operand) }
                    });
                    for ((out, mut want), (_, less)) in whole.clone().into_iter().zip(less) {
                        // dw1 does not depend on w1, nor dw2 on w2.
                        if want.value == less.value {
                            continue;
                        }
                        want.value = less.value;
                        let used = largest_part(&problem, &after, out, &want);
                        let what = if row { "row" } else { "column" };
                        assert!(used > 1.0, "{out} without {what} {dropped} of {of} uses {used}");
                    }
                }
            });
        }
    }
    harness.report();
}

/// The same bits from any number of workers' threads, whatever the workspace held.
#[test]
fn the_bits_are_the_plans() {
    for executor in executors() {
        for operation in LAYER {
            let problem = Problem::new(operation, 150, 96, 120, 0)
                .with_method(lokr([8, 4]))
                .with_dtype(DType::Bf16)
                .with_adapter(DType::F32);
            let capabilities = executor.capabilities();
            let plan = Plan::new(&problem, capabilities.last().unwrap()).unwrap();
            let case = Case::new(problem, Fill::Uniform, 9);
            let before = case.buffers();
            let first = launch(executor.as_ref(), &plan, &before, &case);
            for (name, sibling) in executor.siblings() {
                let again = Case::new(problem, Fill::Uniform, 10);
                let after = launch(sibling.as_ref(), &plan, &before, &again);
                for (one, other) in first.outputs().zip(after.outputs()) {
                    assert_eq!(one.dense(), other.dense(), "{operation} {name}");
                }
            }
        }
    }
}

/// What a plan by hand may not say.
#[test]
fn problems_that_none_is() {
    let forward = Problem::forward(4, 12, 20, 0).with_method(lokr([4, 3]));
    assert_eq!(forward.validate(), Ok(()));
    assert_eq!(forward.inner_rank(), 0);
    let ranked = Problem::forward(4, 12, 20, 2).with_method(lokr([4, 3]));
    assert!(matches!(ranked.validate(), Err(Error::Size { what: "rank", got: 2, .. })));
    let divided = forward.with_method(lokr([3, 3])).validate();
    assert!(matches!(divided, Err(Error::Factor { operand: Operand::W1, .. })), "{divided:?}");
    for operation in
        [Operation::BackwardShrink, Operation::BackwardGain, Operation::Compose, Operation::Chain]
    {
        let problem = forward.with_operation(operation).validate();
        assert!(matches!(problem, Err(Error::Method { .. })), "{operation}: {problem:?}");
    }
    // A w1 of two factors is composed.
    let low = Problem::new(Operation::Compose, 4, 12, 20, 2)
        .with_method(Method::Lokr(Kronecker::low(4, 3).whole()));
    assert_eq!(low.validate(), Ok(()));
    let layer = low.composed().with_operation(Operation::Forward);
    assert_eq!((layer.validate(), layer.rank()), (Ok(()), 0));
    let spec = layer.with_dtype(DType::Bf16).spec(Operand::W1).unwrap();
    assert_eq!((spec.rows, spec.cols, spec.dtype), (4, 3, DType::F32));
}

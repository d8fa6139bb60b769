//! Problems drawn at random, of every kind, through every executor and every candidate of its plan,
//! against the f64 reference within the tolerance. A new kernel is tested by being a candidate.

use std::collections::BTreeSet;

use fused_lora::reference::Sums;
use fused_lora::{DType, Gradients, Operand, Operation, Plan, Problem};
use rand::prelude::*;
use rand::rngs::StdRng;
use test_support::{
    Buffers, Case, Fill, Harness, Reference, Rows, Usage, draw, draw_factors, launch,
};

/// Tokens, in_features, out_features: none and one of each, primes, and both sides of 8, 16, 64 and
/// 256. At most a few million products, so that the reference keeps up.
const SMALL: [[usize; 3]; 13] = [
    [0, 9, 20],
    [1, 1, 1],
    [1, 64, 48],
    [2, 3, 5],
    [3, 127, 9],
    [5, 8, 300],
    [7, 31, 33],
    [15, 65, 17],
    [16, 64, 64],
    [17, 257, 11],
    [33, 40, 63],
    [64, 128, 32],
    [130, 9, 70],
];

/// Enough work for several workers: wide, deep, many tokens, several bands of 512.
const LARGE: [[usize; 3]; 8] = [
    [4, 700, 640],
    [16, 300, 530],
    [61, 257, 130],
    [128, 128, 128],
    [200, 72, 301],
    [300, 530, 24],
    [600, 70, 96],
    [1100, 33, 65],
];

/// Random draws, small and large.
const DRAWS: [(u64, &[[usize; 3]]); 2] = [(1_400, &SMALL), (240, &LARGE)];

fn check(harness: &mut Harness, usage: &mut Usage, case: Case) {
    check_buffers(harness, usage, case, &case.buffers());
}

fn check_buffers(harness: &mut Harness, usage: &mut Usage, case: Case, before: &Buffers) {
    let mut reference = Reference::new(&case.problem, before);
    harness.each(&case.problem, Some(case.seed), |executor, plan| {
        let after = launch(executor, plan, before, &case);
        usage.check(plan, &after, reference.of(executor.sums(plan.problem())), &case);
    });
}

#[test]
fn every_candidate_matches_the_reference() {
    let mut harness = Harness::new("drawn");
    let mut usage = Usage::default();
    let fills = [Fill::Uniform, Fill::Uniform, Fill::Outliers, Fill::Tiny];
    for (draws, sizes) in DRAWS {
        for seed in 0..draws {
            let mut rng = StdRng::seed_from_u64(seed);
            let problem = draw(&mut rng, sizes);
            let fill = fills[rng.random_range(0..fills.len())];
            check(&mut harness, &mut usage, Case::new(problem, fill, seed));
        }
    }
    harness.finish();
    // A sample of the runs may come nowhere near a tolerance.
    let whole = test_support::executors().iter().any(|of| of.one_in(Rows::Drawn) == 1);
    usage.report((harness.is_free() && whole).then_some(0.01));
    // What the draws are for: nothing that a plan can pick is left untried.
    if harness.is_free() {
        assert_eq!(missing(&harness), BTreeSet::new(), "candidates that no draw ran");
    }
}

/// Presets that some plan lists and no draw ran with every activation type.
fn missing(harness: &Harness) -> BTreeSet<String> {
    let mut missing = BTreeSet::new();
    // Of a sample nobody can ask that.
    for executor in test_support::executors().into_iter().filter(|of| of.one_in(Rows::Drawn) == 1) {
        for capabilities in executor.capabilities() {
            let problem = Problem::forward(1, 1, 1, 1).with_dtype(DType::Bf16);
            let plan = Plan::new(&problem, &capabilities).unwrap();
            for of in plan.candidates() {
                for &dtype in DType::ALL {
                    if executor.lacks(of.strategy, of.preset, dtype) {
                        continue;
                    }
                    missing.insert(format!(
                        "{} {}/{} {dtype}",
                        executor.name(),
                        of.strategy,
                        of.preset
                    ));
                }
            }
        }
    }
    missing.retain(|name| !harness.ran().contains_key(name));
    missing
}

/// The operations on the factors of LoHa and LoKr.
#[test]
fn factors_match_the_reference() {
    let mut harness = Harness::new("factors");
    let mut usage = Usage::default();
    let fills = [Fill::Uniform, Fill::Uniform, Fill::Outliers, Fill::Tiny];
    for seed in 0..500 {
        let mut rng = StdRng::seed_from_u64(seed);
        let problem = draw_factors(&mut rng);
        let fill = fills[rng.random_range(0..fills.len())];
        check(&mut harness, &mut usage, Case::new(problem, fill, seed));
    }
    harness.finish();
    let whole = test_support::executors().iter().any(|of| of.one_in(Rows::Drawn) == 1);
    usage.report((harness.is_free() && whole).then_some(0.01));
}

#[test]
fn every_rank_has_a_strategy() {
    let mut harness = Harness::new("ranks");
    let mut usage = Usage::default();
    for rank in 1..=512 {
        for (at, operation) in Operation::ALL.iter().copied().enumerate() {
            let dtype = DType::ALL[(rank + at) % 3];
            let problem = Problem::new(operation, 17, 40, 23, rank)
                .with_activation(dtype)
                .with_adapter(DType::ALL[(rank + at) / 3 % 3])
                .with_scale(0.5);
            for executor in test_support::executors() {
                for capabilities in executor.capabilities() {
                    for &dtype in DType::ALL {
                        let problem = problem.with_dtype(dtype);
                        let plan = Plan::new(&problem, &capabilities);
                        assert!(plan.is_ok(), "{operation} {dtype} rank {rank}: {plan:?}");
                    }
                }
            }
            if rank % 11 == at {
                let case = Case::new(problem, Fill::Uniform, rank as u64);
                check(&mut harness, &mut usage, case);
            }
        }
    }
    harness.report();
}

/// No tokens: outputs without rows, but the adapter's gradients are β·old.
#[test]
fn no_tokens_is_legal() {
    let mut harness = Harness::new("no tokens");
    let mut usage = Usage::default();
    let gradients = [Gradients::Both, Gradients::A, Gradients::B];
    for (at, operation) in Operation::ALL.iter().copied().enumerate() {
        for rank in [0, 1, 7, 64] {
            for beta in [0.0, -0.75] {
                for &dtype in DType::ALL {
                    let problem = Problem::new(operation, 0, 19, 33, rank)
                        .with_dtype(dtype)
                        .with_beta(beta)
                        .with_gradients(gradients[(rank + at) % 3])
                        .with_precise(rank % 2 == 0);
                    let case = Case::new(problem, Fill::Uniform, rank as u64);
                    check(&mut harness, &mut usage, case);
                }
            }
        }
    }
    harness.report();
}

/// What `no_tokens_is_legal` rests on, without the reference: old values times β, to the bit.
#[test]
fn gradients_without_tokens_are_beta_times_old() {
    let mut harness = Harness::new("gradients without tokens");
    for (beta, seed) in [(0.0, 1), (0.5, 2), (1.0, 3), (-2.0, 4)] {
        for &dtype in DType::ALL {
            let problem = Problem::new(Operation::BackwardAdapter, 0, 21, 13, 5)
                .with_gradient(dtype)
                .with_beta(beta);
            let case = Case::new(problem, Fill::Uniform, seed);
            let before = case.buffers();
            harness.each(&problem, None, |executor, plan| {
                let after = launch(executor, plan, &before, &case);
                for (operand, rows, cols) in [(Operand::Da, 5, 21), (Operand::Db, 13, 5)] {
                    for at in 0..rows * cols {
                        let (row, col) = (at / cols, at % cols);
                        let old = before.at(operand).get(row, col);
                        let want = if beta == 0.0 { 0.0 } else { beta * old };
                        assert_eq!(after.at(operand).get(row, col), want, "{operand} {row} {col}");
                    }
                }
            });
        }
    }
    harness.report();
}

/// Rank 0 is the plain layer: the same bits as with an adapter of zeros is too much to ask
/// of another plan, but within the tolerance, and without `a`, `b` and `shrunk`.
#[test]
fn rank_zero_is_the_plain_layer() {
    let mut harness = Harness::new("rank 0");
    let mut usage = Usage::default();
    for (seed, operation) in Operation::ALL.iter().copied().enumerate() {
        for &dtype in DType::ALL {
            for [tokens, in_features, out_features] in [[1, 9, 20], [16, 33, 64], [150, 129, 140]] {
                let problem = Problem::new(operation, tokens, in_features, out_features, 0)
                    .with_dtype(dtype)
                    .with_bias(true);
                let none = [Operand::A, Operand::B, Operand::Shrunk, Operand::Dshrunk];
                assert!(none.iter().all(|&of| problem.spec(of).is_none()), "{operation}");
                let case = Case::new(problem, Fill::Outliers, seed as u64);
                check(&mut harness, &mut usage, case);
            }
        }
    }
    harness.report();
}

/// Old values far larger than what is added to them: a sum that is carried on top of them
/// rounds at their size in every step, and leaves the tolerance.
#[test]
fn large_old_values_are_added_once() {
    let mut harness = Harness::new("large old values");
    let mut usage = Usage::default();
    for operation in [Operation::Forward, Operation::BackwardInput, Operation::BackwardAdapter] {
        for (seed, tokens) in [1, 3, 16, 40, 300].into_iter().enumerate() {
            for rank in [0, 8, 65] {
                let problem = Problem::new(operation, tokens, 400, 300, rank).with_beta(1.0);
                let case = Case::new(problem, Fill::Tiny, seed as u64);
                let mut before = case.buffers();
                for old in [Operand::Y, Operand::Dx, Operand::Da, Operand::Db] {
                    if problem.spec(old).is_some() {
                        let sign = |at: usize| if at.is_multiple_of(2) { 0.7 } else { -1.3 };
                        before.at_mut(old).fill(|row, col| sign(row + col));
                    }
                }
                check_buffers(&mut harness, &mut usage, case, &before);
            }
        }
    }
    usage.report(None);
    harness.report();
}

/// What `precise` promises: high and low part together are nearer to the exact `shrunk`
/// than one part can be, and the low part is there.
#[test]
fn precise_keeps_a_low_part() {
    let mut harness = Harness::new("precise");
    let kept = [Operation::Forward, Operation::BackwardInput, Operation::BackwardShrink];
    for operation in kept {
        for dtype in [DType::F16, DType::Bf16] {
            for tokens in [3, 40] {
                let problem = Problem::new(operation, tokens, 200, 190, 12)
                    .with_dtype(dtype)
                    .with_precise(true);
                let kept = match operation {
                    Operation::Forward => Operand::Shrunk,
                    _ => Operand::Dshrunk,
                };
                let case = Case::new(problem, Fill::Uniform, 5);
                let before = case.buffers();
                let exact = test_support::results(&problem, Sums::F32, &before);
                let exact = &exact.iter().find(|(operand, _)| *operand == kept).unwrap().1.value;
                harness.each(&problem, None, |executor, plan| {
                    let after = launch(executor, plan, &before, &case);
                    let both = test_support::value(&problem, &after, kept);
                    let (mut error, mut one_part) = (0.0, 0.0);
                    for row in 0..tokens {
                        for rank in 0..12 {
                            let high = f64::from(after.at(kept).get(row, rank));
                            error += (both.at(row, rank) - exact.at(row, rank)).abs();
                            one_part += (high - exact.at(row, rank)).abs();
                        }
                    }
                    assert!(error < one_part / 100.0, "{operation} {dtype}: {error} {one_part}");
                });
            }
        }
    }
    harness.report();
}

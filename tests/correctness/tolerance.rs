//! The tolerance that the other tests use, tested itself. A result with one product, one rank, the bias or one row missing must
//! exceed it, or it would hide such mistakes; and the fused layer must not be further from
//! the exact one than three separate calls are.

use std::collections::BTreeMap;

use fused_lora::reference::{Dense, Sums};
use fused_lora::{Choice, DType, Layout, Operand, Operation, Plan, Problem};
use test_support::{
    Buffers, Case, Executor, Fill, Harness, Reference, largest_part, launch, value,
};

/// A mistake: what it does to the inputs before the run, or to the outputs after it.
struct Mistake {
    name: &'static str,
    operations: &'static [Operation],
    before: fn(&mut Buffers),
    after: fn(&mut Buffers),
}

const LINEAR: &[Operation] = &[Operation::Forward, Operation::BackwardInput];
const SUMS_OVER_FEATURES: &[Operation] =
    &[Operation::Forward, Operation::BackwardInput, Operation::BackwardShrink];
const MERGES: &[Operation] = &[Operation::Merge, Operation::Unmerge];
const NOTHING: fn(&mut Buffers) = |_| {};

const MISTAKES: &[Mistake] = &[
    Mistake {
        name: "one k removed",
        operations: SUMS_OVER_FEATURES,
        before: |buffers| zero_col(buffers, [Operand::X, Operand::Dy]),
        after: NOTHING,
    },
    Mistake {
        name: "one rank removed",
        operations: &[Operation::Forward, Operation::Merge, Operation::Unmerge],
        before: |buffers| zero_last_row(buffers, &[Operand::A]),
        after: NOTHING,
    },
    Mistake {
        name: "one rank removed",
        operations: &[Operation::BackwardInput],
        before: |buffers| zero_col(buffers, [Operand::B, Operand::B]),
        after: NOTHING,
    },
    Mistake {
        name: "bias removed",
        operations: &[Operation::Forward],
        before: |buffers| zero_last_row(buffers, &[Operand::Bias]),
        after: NOTHING,
    },
    Mistake {
        name: "gain removed",
        operations: &[Operation::Forward],
        before: |buffers| fill_last_row(buffers, &[Operand::Gain], 1.0),
        after: NOTHING,
    },
    Mistake {
        name: "last row removed",
        operations: LINEAR,
        before: NOTHING,
        after: |buffers| zero_last_row(buffers, &[Operand::Y, Operand::Dx]),
    },
    Mistake {
        name: "last row removed",
        operations: &[Operation::BackwardShrink],
        before: NOTHING,
        after: |buffers| zero_last_row(buffers, &[Operand::Dshrunk]),
    },
    Mistake {
        name: "last token removed",
        operations: &[Operation::BackwardAdapter],
        before: |buffers| zero_last_row(buffers, &[Operand::X, Operand::Dy]),
        after: NOTHING,
    },
    Mistake {
        name: "last row removed",
        operations: &[Operation::BackwardAdapter],
        before: NOTHING,
        after: |buffers| zero_last_row(buffers, &[Operand::Da, Operand::Db]),
    },
    Mistake {
        name: "last row removed",
        operations: MERGES,
        before: NOTHING,
        after: |buffers| zero_last_row(buffers, &[Operand::W]),
    },
];

fn zero_last_row(buffers: &mut Buffers, operands: &[Operand]) {
    fill_last_row(buffers, operands, 0.0);
}

fn fill_last_row(buffers: &mut Buffers, operands: &[Operand], value: f32) {
    for stored in buffers.stored.iter_mut().filter(|of| operands.contains(&of.operand)) {
        let last = stored.spec.rows - 1;
        (0..stored.spec.cols).for_each(|col| stored.set(last, col, value));
    }
}

fn zero_col(buffers: &mut Buffers, operands: [Operand; 2]) {
    for stored in buffers.stored.iter_mut().filter(|of| operands.contains(&of.operand)) {
        let last = stored.spec.cols - 1;
        (0..stored.spec.rows).for_each(|row| stored.set(row, last, 0.0));
    }
}

#[test]
fn what_is_missing_exceeds_the_tolerance() {
    let mut harness = Harness::new("mistakes");
    for mistake in MISTAKES {
        for &operation in mistake.operations {
            for &dtype in DType::ALL {
                for precise in [false, true] {
                    let problem = Problem::new(operation, 48, 512, 320, 16)
                        .with_dtype(dtype)
                        .with_scale(2.0)
                        .with_bias(true)
                        .with_gain(true)
                        .with_precise(precise);
                    exceeds(&mut harness, mistake, problem);
                }
            }
        }
    }
    harness.report();
}

fn exceeds(harness: &mut Harness, mistake: &Mistake, problem: Problem) {
    let case = Case::new(problem, Fill::Uniform, 7);
    let right = case.buffers();
    let mut reference = Reference::new(&problem, &right);
    let mut wrong = right.clone();
    (mistake.before)(&mut wrong);
    harness.each(&problem, None, |executor, plan| {
        let mut after = launch(executor, plan, &wrong, &case);
        (mistake.after)(&mut after);
        for (operand, of) in reference.of(executor.sums(&problem)) {
            // What is kept beside the result is not touched by every mistake.
            let linear = LINEAR.contains(&problem.operation());
            if linear && matches!(operand, Operand::Shrunk | Operand::Dshrunk) {
                continue;
            }
            let part = largest_part(&problem, &after, *operand, of);
            let (operation, dtype) = (problem.operation(), problem.activation());
            assert!(
                part > 1.0,
                "{}: {operation} {dtype} {operand} uses only {part} of its tolerance",
                mistake.name
            );
        }
    });
}

/// Relative Frobenius error.
fn distance(got: &Dense, exact: &Dense) -> f64 {
    let pairs = got.values().iter().zip(exact.values());
    let error: f64 = pairs.map(|(got, exact)| (got - exact).powi(2)).sum();
    let size: f64 = exact.values().iter().map(|exact| exact.powi(2)).sum();
    (error / size).sqrt()
}

/// An element by row and column.
type Value<'a> = &'a dyn Fn(usize, usize) -> f32;

/// The naive path on the same executor: three plain layers, rounded to storage in between.
///
/// ```text
/// forward          t = x·aᵀ    y  = x·wᵀ    y  = 1·y  + t·bᵀ
/// backward_input   t = dy·b    dx = dy·w    dx = 1·dx + t·a
/// ```
///
/// The scale is a power of two here and multiplies `b` (or `a`) beforehand, without error.
/// Where the fused kernel has a plain form the naive path runs that: another order of the
/// sums would be a difference of its own, of several times either error in f32.
fn naive(executor: &dyn Executor, fused: &Plan, inputs: &Buffers) -> Dense {
    let problem = fused.problem();
    let forward = problem.operation() == Operation::Forward;
    let (x, y, down, up) = match forward {
        true => (Operand::X, Operand::Y, Operand::A, Operand::B),
        false => (Operand::Dy, Operand::Dx, Operand::B, Operand::A),
    };
    let (tokens, rank) = (problem.tokens(), problem.rank());
    let (k, n) = (problem.in_features(), problem.out_features());
    // Each as the weight of a plain layer of its own.
    let (down_sizes, up_sizes) = match forward {
        true => ([k, rank], [rank, n]),
        false => ([rank, n], [k, rank]),
    };
    let layer = |[in_features, out_features]: [usize; 2], beta: f32| {
        Problem::new(problem.operation(), tokens, in_features, out_features, 0)
            .with_dtype(problem.activation())
            .with_beta(beta)
    };
    let read = |operand| {
        let stored = inputs.at(operand);
        move |row: usize, col: usize| stored.get(row, col)
    };
    let scaled = |row, col| problem.scale() * read(up)(row, col);

    let plain = |problem, input: Value<'_>, weight: Value<'_>, old: Option<&Dense>| {
        let case = Case::new(problem, Fill::Uniform, 0);
        let mut buffers = case.buffers();
        buffers.at_mut(x).fill(input);
        buffers.at_mut(Operand::W).fill(weight);
        if let Some(old) = old {
            buffers.at_mut(y).fill(|row, col| old.at(row, col) as f32);
        }
        let same = Choice { strategy: None, preset: Some(fused.preset().to_owned()) };
        let plan = Plan::choose(&problem, fused.capabilities(), &same)
            .or_else(|_| Plan::new(&problem, fused.capabilities()))
            .expect("a plain layer");
        value(&problem, &launch(executor, &plan, &buffers, &case), y)
    };
    let t = plain(layer(down_sizes, 0.0), &read(x), &read(down), None);
    let major = problem.spec(Operand::W).expect("a weight").major;
    let w_as_fused = Layout { major, ..Layout::default() };
    let wide = layer([k, n], 0.0).with_layout(Operand::W, w_as_fused);
    let wide = plain(wide, &read(x), &read(Operand::W), None);
    let t = |row: usize, col: usize| t.at(row, col) as f32;
    plain(layer(up_sizes, 1.0), &t, &scaled, Some(&wide))
}

#[test]
fn fused_is_as_near_as_naive() {
    let mut harness = Harness::new("fused against naive");
    let mut worst = BTreeMap::new();
    for operation in LINEAR {
        for &dtype in DType::ALL {
            for (tokens, fill) in [(96, Fill::Uniform), (96, Fill::Outliers), (12, Fill::Uniform)] {
                for (rank, layout) in [(16, Layout::default()), (64, Layout::TRANSPOSED)] {
                    // At least 10 000 outputs, whichever way round.
                    let side = if tokens < 16 { 850 } else { 224 };
                    let problem = Problem::new(*operation, tokens, side, side, rank)
                        .with_dtype(dtype)
                        .with_scale(2.0)
                        .with_layout(Operand::W, layout);
                    compare(&mut harness, &mut worst, problem, fill);
                }
            }
        }
    }
    harness.report();
    for (key, ratio) in worst {
        println!("  {key:<40} error over naive {ratio:.3}");
    }
}

fn compare(harness: &mut Harness, worst: &mut BTreeMap<String, f64>, problem: Problem, fill: Fill) {
    let (operation, dtype) = (problem.operation(), problem.activation());
    let case = Case::new(problem, fill, 11);
    let before = case.buffers();
    let mut reference = Reference::new(&problem, &before);
    let (output, exact) = &reference.of(Sums::F32)[0];
    assert!(exact.value.values().len() >= 10_000, "too few outputs to compare errors");
    let limit = if dtype == DType::F32 { 1.5 } else { 1.05 };
    harness.each(&problem, None, |executor, plan| {
        let naive = distance(&naive(executor, plan, &before), &exact.value);
        let after = launch(executor, plan, &before, &case);
        let ratio = distance(&value(&problem, &after, *output), &exact.value) / naive;
        assert!(ratio <= limit, "{problem:?}: {ratio} of {naive}\n{}", plan.explain());
        let key = format!("{} {operation} {dtype} {}", executor.name(), plan.choice());
        let worst = worst.entry(key).or_insert(0.0);
        *worst = worst.max(ratio);
    });
}

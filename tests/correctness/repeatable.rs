//! The bits of a result belong to the plan: the same run after run, under any schedule, and
//! whatever the workspace held. And what one bad number may reach.

use fused_lora::{DType, Operand, Operation, Plan, Problem};
use test_support::{Buffers, Case, Executor, Fill, Harness, Rows, WORKSPACE_GARBAGE, launch};

/// Enough for several tickets a worker, in every kernel.
fn busy(operation: Operation, dtype: DType, tokens: usize) -> Problem {
    Problem::new(operation, tokens, 288, 416, 24)
        .with_dtype(dtype)
        .with_scale(0.7)
        .with_bias(true)
        .with_beta(0.5)
}

/// Problems whose plans, between them, take every kernel over several tickets.
fn problems() -> impl Iterator<Item = Problem> {
    let sizes = [(Operation::Forward, 14), (Operation::Forward, 600)];
    let others = Operation::ALL.iter().copied().skip(1).map(|operation| (operation, 530));
    sizes.into_iter().chain(others).flat_map(|(operation, tokens)| {
        DType::ALL.iter().copied().map(move |dtype| busy(operation, dtype, tokens))
    })
}

fn run(executor: &dyn Executor, plan: &Plan, before: &Buffers, garbage: f32) -> Buffers {
    let mut after = before.clone();
    let mut scratch = executor.scratch(plan.workspace_len());
    executor.fill(&mut scratch, garbage);
    executor.run(plan, &mut after, &mut scratch).expect("a run");
    after
}

#[test]
fn twenty_runs_give_the_same_bits() {
    let mut harness = Harness::new("twenty runs");
    for problem in problems() {
        let before = Case::new(problem, Fill::Uniform, 3).buffers();
        // The last of the capabilities cuts for the most workers.
        harness.each(&problem, Some(2), |executor, plan| {
            let first = run(executor, plan, &before, 0.0);
            // Where only a sample of the runs is taken, twenty are too many.
            let runs = if executor.one_in(Rows::Drawn) == 1 { 20 } else { 4 };
            for at in 1..runs {
                let again = run(executor, plan, &before, 0.0);
                again.assert_same_bits(&first, &format!("run {at} of {}", plan.choice()));
            }
        });
    }
    harness.report();
}

#[test]
fn the_schedule_changes_no_bit() {
    let mut harness = Harness::new("schedules");
    for problem in problems() {
        let before = Case::new(problem, Fill::Uniform, 4).buffers();
        harness.each(&problem, None, |executor, plan| {
            let first = run(executor, plan, &before, 0.0);
            for (name, sibling) in executor.siblings() {
                let other = run(sibling.as_ref(), plan, &before, 0.0);
                other.assert_same_bits(&first, &format!("{name}, {}", plan.choice()));
            }
        });
    }
    harness.report();
}

#[test]
fn garbage_in_the_workspace_changes_no_bit() {
    let mut harness = Harness::new("garbage");
    for problem in problems() {
        let before = Case::new(problem, Fill::Uniform, 5).buffers();
        harness.each(&problem, Some(1), |executor, plan| {
            let first = run(executor, plan, &before, 0.0);
            for garbage in WORKSPACE_GARBAGE.into_iter().chain([1e30]) {
                let other = run(executor, plan, &before, garbage);
                other.assert_same_bits(&first, &format!("{garbage}, {}", plan.choice()));
            }
        });
    }
    harness.report();
}

/// One workspace serves any number of plans, in any order.
#[test]
fn large_small_large_share_a_workspace() {
    let mut harness = Harness::new("shared workspace");
    let small = Problem::forward(9, 70, 300, 5).with_dtype(DType::Bf16);
    let small_before = Case::new(small, Fill::Uniform, 6).buffers();
    for large in problems() {
        let before = Case::new(large, Fill::Uniform, 6).buffers();
        harness.each(&large, Some(2), |executor, plan| {
            let small = Plan::new(&small, plan.capabilities()).expect("a small plan");
            let first = run(executor, plan, &before, 0.0);
            let small_first = run(executor, &small, &small_before, 0.0);
            let mut scratch = executor.scratch(plan.workspace_len().max(small.workspace_len()));
            for (plan, before, first) in [
                (plan, &before, &first),
                (&small, &small_before, &small_first),
                (plan, &before, &first),
            ] {
                let mut after = before.clone();
                executor.run(plan, &mut after, &mut scratch).expect("a run");
                after.assert_same_bits(first, "the workspace of another plan");
            }
        });
    }
    harness.report();
}

/// A NaN in one row of x reaches that row of y, and in one row of w that column, and
/// nothing else; both with sizes that leave every tile ragged.
#[test]
fn a_nan_stays_in_its_row_or_column() {
    let mut harness = Harness::new("NaN");
    for &dtype in DType::ALL {
        for (tokens, bad, hit) in [(13, 5, 0), (13, 12, 74), (530, 511, 64)] {
            for operation in [Operation::Forward, Operation::BackwardInput] {
                let problem = Problem::new(operation, tokens, 77, 75, 11).with_dtype(dtype);
                let (x, y) = match operation {
                    Operation::Forward => (Operand::X, Operand::Y),
                    _ => (Operand::Dy, Operand::Dx),
                };
                let case = Case::new(problem, Fill::Uniform, 8);
                let mut row = case.buffers();
                row.at_mut(x).set(bad, 70, f32::NAN);
                let mut col = case.buffers();
                match operation {
                    Operation::Forward => col.at_mut(Operand::W).set(hit, 70, f32::NAN),
                    _ => col.at_mut(Operand::W).set(70, hit, f32::NAN),
                }
                harness.each(&problem, None, |executor, plan| {
                    let after = launch(executor, plan, &row, &case);
                    assert_nans(&after, y, plan, |row, _| row == bad);
                    let after = launch(executor, plan, &col, &case);
                    assert_nans(&after, y, plan, |_, col| col == hit);
                });
            }
        }
    }
    harness.report();
}

/// An infinity of the last token makes the sums that it is in infinite, and nothing else: what a kernel reads in
/// the place of tokens behind the last is not multiplied with it.
#[test]
fn an_infinity_of_the_last_token_stays_one() {
    let mut harness = Harness::new("infinity");
    let (of_x, of_dy) = (70, 5);
    for &dtype in DType::ALL {
        for (tokens, rank) in [(3, 11), (13, 2), (70, 11), (530, 20)] {
            let problem = Problem::new(Operation::BackwardAdapter, tokens, 77, 75, rank);
            let problem = problem.with_dtype(dtype).with_gradient(DType::F32);
            let case = Case::new(problem, Fill::Uniform, 8);
            let mut before = case.buffers();
            before.at_mut(Operand::X).set(tokens - 1, of_x, f32::INFINITY);
            before.at_mut(Operand::Dy).set(tokens - 1, of_dy, f32::INFINITY);
            for operand in [Operand::Dshrunk, Operand::Shrunk] {
                (0..rank).for_each(|of| before.at_mut(operand).set(tokens - 1, of, 1.0));
            }
            harness.each(&problem, None, |executor, plan| {
                let after = launch(executor, plan, &before, &case);
                for (operand, at) in
                    [(Operand::Da, [None, Some(of_x)]), (Operand::Db, [Some(of_dy), None])]
                {
                    let stored = after.at(operand);
                    for row in 0..stored.spec.rows {
                        for col in 0..stored.spec.cols {
                            let is_hit = at[0].is_none_or(|of| of == row)
                                && at[1].is_none_or(|of| of == col);
                            let got = stored.get(row, col);
                            let right = if is_hit { got == f32::INFINITY } else { got.is_finite() };
                            assert!(right, "{}: {operand}[{row}, {col}] is {got}", plan.choice());
                        }
                    }
                }
            });
        }
    }
    harness.report();
}

fn assert_nans(after: &Buffers, operand: Operand, plan: &Plan, bad: impl Fn(usize, usize) -> bool) {
    let stored = after.at(operand);
    for row in 0..stored.spec.rows {
        for col in 0..stored.spec.cols {
            let (got, want) = (stored.get(row, col), bad(row, col));
            let name = plan.choice();
            assert_eq!(got.is_nan(), want, "{name}: {operand}[{row}, {col}] is {got}");
        }
    }
}

/// f16 `shrunk` that overflows is infinite and makes y infinite, in its row alone; it is never
/// clamped. The low part beside it is zero, not NaN, and so is what it meets of an adapter in
/// two parts. bf16 has the room.
#[test]
fn overflow_of_shrunk_propagates() {
    let mut harness = Harness::new("overflow");
    for &dtype in DType::ALL {
        for (tokens, precise) in [(4, false), (4, true), (40, false), (40, true)] {
            let problem = Problem::forward(tokens, 64, 48, 3)
                .with_activation(dtype)
                .with_adapter(DType::F32)
                .with_precise(precise);
            let case = Case::new(problem, Fill::Uniform, 9);
            let mut before = case.buffers();
            // shrunk[2] = 64 · 100 · 100 = 640 000 for each rank; y would be 1920 with b = 0.001.
            before.at_mut(Operand::X).fill(|row, _| if row == 2 { 100.0 } else { 0.0 });
            before.at_mut(Operand::W).fill(|_, _| 0.0);
            before.at_mut(Operand::A).fill(|_, _| 100.0);
            before.at_mut(Operand::B).fill(|_, _| 0.001);
            harness.each(&problem, None, |executor, plan| {
                let after = launch(executor, plan, &before, &case);
                let (y, shrunk) = (after.at(Operand::Y), after.at(Operand::Shrunk));
                for col in 0..48 {
                    let got = y.get(2, col);
                    match dtype {
                        DType::F16 => assert_eq!(got, f32::INFINITY, "{}", plan.choice()),
                        _ => assert!((got - 1920.0).abs() < 16.0, "{}: {got}", plan.choice()),
                    }
                    assert_eq!(y.get(1, col), 0.0, "{}", plan.choice());
                }
                for rank in 0..3 {
                    let got = shrunk.get(2, rank);
                    assert_eq!(got.is_infinite(), dtype == DType::F16, "{got}");
                    if problem.is_precise() && dtype == DType::F16 {
                        assert_eq!(shrunk.get(2, problem.padded_rank() + rank), 0.0);
                    }
                }
            });
        }
    }
    harness.report();
}

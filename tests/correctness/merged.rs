//! Strategy `merged`: the plain layer on w' = w + ΔW, rounded to w's type, bit for bit on small integers; w' is that of the
//! run, not of one before it.

use fused_lora::reference::{Dense, delta_w, expected};
use fused_lora::{
    Choice, DType, Kronecker, Layout, Major, Method, Operand, Operation, Outcome, Plan, Problem,
    Strategy,
};
use test_support::{Buffers, Case, Executor, Fill, assert_exact, executors, launch};

/// Layers of LoRA and of LoKr with a whole w2: aligned and ragged, w in both majors, more tokens than a tile and one.
fn problems() -> Vec<Problem> {
    // Of integers w + ΔW then has more bits than 16-bit types hold.
    let scale = 1.0 / 1024.0;
    let lokr = Method::Lokr(Kronecker::new(4, 3).whole());
    let mut all = Vec::new();
    for operation in [Operation::Forward, Operation::BackwardInput] {
        for (at, &dtype) in DType::ALL.iter().enumerate() {
            for (method, rank) in [(lokr, 0), (Method::Lora, 5)] {
                for (tokens, k, n) in [(70, 96, 64), (1, 30, 44)] {
                    let major = if (at + rank) % 2 == 0 { Major::Row } else { Major::Col };
                    let adapter = if tokens == 1 { DType::F32 } else { dtype };
                    all.push(
                        Problem::new(operation, tokens, k, n, rank)
                            .with_method(method)
                            .with_dtype(dtype)
                            .with_adapter(adapter)
                            .with_keep_shrunk(false)
                            .with_scale(scale)
                            .with_bias(tokens == 1)
                            .with_beta(if tokens == 1 { 0.5 } else { 0.0 })
                            .with_layout(Operand::W, Layout { major, ..Layout::default() }),
                    );
                }
            }
        }
    }
    all
}

fn dense_delta(problem: &Problem, before: &Buffers) -> Dense {
    let scale = f64::from(problem.scale());
    let dense = |of: Operand| before.at(of).dense();
    let delta = match problem.method() {
        Method::Lokr(_) => delta_w(problem, dense),
        _ => dense(Operand::B).times_transposed(&dense(Operand::A).transposed()),
    };
    delta.map(|of| scale * of)
}

/// The candidates of it that `problem` has on the executor.
fn merged(executor: &dyn Executor, problem: &Problem) -> Vec<Plan> {
    let capabilities = *executor.capabilities().last().unwrap();
    let named = Choice { strategy: Some(Strategy::Merged), preset: None };
    let Ok(plan) = Plan::choose(problem, &capabilities, &named) else { return Vec::new() };
    let can = |of: &Outcome| matches!(of, Outcome::Chosen(_) | Outcome::Slower(_));
    let all = plan.candidates().iter().filter(|of| of.strategy == Strategy::Merged);
    all.filter(|of| can(&of.outcome))
        .map(|of| {
            let choice = Choice { preset: Some(of.preset.to_owned()), ..named.clone() };
            Plan::choose(problem, &capabilities, &choice).unwrap()
        })
        .collect()
}

#[test]
fn it_is_the_plain_layer_on_a_rounded_sum() {
    for executor in executors() {
        let mut ran = 0;
        let mut has_rounded = false;
        for problem in problems() {
            let plans = merged(executor.as_ref(), &problem);
            assert!(!plans.is_empty(), "{} {problem:?}", executor.name());
            let case = Case::new(problem, Fill::Integers, 5);
            let before = case.buffers();
            let w = before.at(Operand::W).dense();
            let delta = dense_delta(&problem, &before);
            let round = |of: f64| f64::from(problem.activation().round(of as f32));
            let exact =
                Dense::from_fn(w.rows(), w.cols(), |row, col| w.at(row, col) + delta.at(row, col));
            let whole = exact.map(round);
            has_rounded |= whole != exact;
            let want = expected(&problem.plain(), executor.sums(&problem), |of| match of {
                Operand::W => whole.clone(),
                of => before.at(of).dense(),
            });
            for plan in plans {
                let after = launch(executor.as_ref(), &plan, &before, &case);
                assert_exact(&plan, &after, &want, &case);
                ran += 1;
            }
        }
        println!("merged: {ran} runs on {}", executor.name());
        assert!(has_rounded);
    }
}

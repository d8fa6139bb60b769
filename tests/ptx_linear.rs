//! Every text of `linear`, `shrink` and `pack` through the simulator, with all its checks on:
//! races, forgotten waits, bytes out of bounds or never written. Against the reference bit for
//! bit where small integers make every sum exact, and within the tolerance where not.

mod common;
mod sim;

use std::collections::BTreeSet;

use common::{
    Buffers, Case, Fill, Reference, Usage, assert_exact, feasible, results, shrunk_is_exact,
};
use fused_lora::reference::Sums;
use fused_lora::{Choice, DType, Layout, Major, Operand, Operation, Plan, Problem, Strategy};
use ptx_sim::{CopyTiming, MmaModel, Options, Schedule};
use rand::prelude::*;
use rand::rngs::StdRng;
use sim::{Gpu, HALVES, gpu};

const SCHEDULES: [Schedule; 4] =
    [Schedule::RoundRobin, Schedule::Random, Schedule::OneFar, Schedule::Reverse];
const COPIES: [CopyTiming; 3] = [CopyTiming::Early, CopyTiming::Late, CopyTiming::Random];
const MODELS: [MmaModel; 4] =
    [MmaModel::Exact, MmaModel::RandomOrder, MmaModel::Ampere, MmaModel::Hopper];
const SMS: [u32; 4] = [1, 2, 3, 7];
const BOTH: [Operation; 2] = [Operation::Forward, Operation::BackwardInput];

/// Two to three tiles along each axis of each preset, and less than one; sums of at least
/// twice the ring, and shorter than it; odd everywhere.
const TOKENS: [usize; 6] = [1, 9, 64, 130, 150, 290];
const DEEP: [usize; 6] = [1, 8, 31, 64, 200, 330];
const WIDE: [usize; 7] = [1, 8, 70, 130, 150, 300, 520];
const RANKS: [usize; 13] = [0, 1, 3, 8, 15, 16, 17, 32, 33, 48, 64, 65, 100];

fn pick<T: Copy>(rng: &mut StdRng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

fn options(rng: &mut StdRng, sms: u32) -> Options {
    Options {
        sms,
        blocks_per_sm: rng.random_range(1..4),
        schedule: pick(rng, &SCHEDULES),
        copies: pick(rng, &COPIES),
        mma: pick(rng, &MODELS),
        seed: rng.random(),
        ..Options::default()
    }
}

/// A problem of every kind that the kernels serve, `tidy` or stored in any which way.
fn draw(rng: &mut StdRng, tidy: bool) -> Problem {
    let operation = [BOTH[0], BOTH[0], BOTH[1], BOTH[1], Operation::BackwardShrink];
    let (m, k, n) = (pick(rng, &TOKENS), pick(rng, &DEEP), pick(rng, &WIDE));
    let operation = pick(rng, &operation);
    let (k, n) = if operation == Operation::Forward { (k, n) } else { (n, k) };
    let activation = pick(rng, &HALVES);
    let adapter = if tidy { activation } else { pick(rng, &DType::ALL) };
    let problem = Problem::new(operation, m, k, n, pick(rng, &RANKS))
        .with_activation(activation)
        .with_adapter(adapter)
        .with_beta(pick(rng, &[0.0, 0.0, 1.0, -0.5]))
        .with_bias(rng.random())
        .with_precise(rng.random())
        .with_keep_shrunk(rng.random());
    let transposed: bool = rng.random();
    Operand::ALL.into_iter().fold(problem, |problem, operand| {
        let transposed = if tidy { transposed } else { rng.random() };
        let major = if operand.either_major() && transposed { Major::Col } else { Major::Row };
        let problem = problem.with_layout(operand, Layout { major, ..Layout::default() });
        let Some(spec) = problem.spec(operand) else { return problem };
        let cols = spec.stored().1;
        let (stride, align) = match tidy || rng.random_range(0..4) > 0 {
            // Rows of 16-byte multiples, with and without a gap.
            true => (cols.next_multiple_of(8) + pick(rng, &[0, 8]), 0),
            false => (cols + pick(rng, &[0, 1, 5]), 2),
        };
        problem.with_layout(operand, Layout { major, stride: Some(stride), align })
    })
}

/// One run of `plan` on fresh buffers and a fresh workspace, guards checked.
fn run(plan: &Plan, before: &Buffers, options: &Options) -> Buffers {
    let mut after = before.clone();
    let mut gpu = Gpu::new(plan.workspace_len());
    if let Err(error) = gpu.run(plan, &mut after, options) {
        panic!("{error}\n{options:?}\n{:?}\n{}", plan.problem(), plan.explain());
    }
    after.assert_guards(before);
    after
}

/// Every candidate for `draws` random problems, checked by `check`; the names of those that ran.
fn walk(
    draws: core::ops::Range<u64>,
    fill: impl Fn(&mut StdRng) -> Fill,
    scales: &[f32],
    mut check: impl FnMut(&Plan, &Case, &Buffers, &Buffers),
) -> BTreeSet<String> {
    let mut ran = BTreeSet::new();
    for seed in draws {
        let mut rng = StdRng::seed_from_u64(seed);
        let tidy = rng.random_range(0..3) > 0;
        let problem = draw(&mut rng, tidy).with_scale(pick(&mut rng, scales));
        let case = Case::new(problem, fill(&mut rng), seed);
        let before = case.aligned_buffers();
        let sms = pick(&mut rng, &SMS);
        for choice in feasible(&problem, &gpu(sms), &Choice::default()) {
            let plan = Plan::choose(&problem, &gpu(sms), &choice).unwrap();
            let options = options(&mut rng, sms);
            let after = run(&plan, &before, &options);
            check(&plan, &case, &before, &after);
            ran.extend(plan.launches().iter().map(|launch| {
                let text = &launch.source.as_ref().unwrap().text;
                text.lines().next().unwrap().to_owned()
            }));
        }
    }
    ran
}

#[test]
fn small_integers_come_out_exactly() {
    let fill = |_: &mut StdRng| Fill::Integers;
    let ran = walk(0..160, fill, &[0.5, 1.0, -2.0], |plan, case, before, _after| {
        let mut reference = Reference::new(plan.problem(), before);
        let expected = reference.of(Sums::TensorCore);
        assert!(shrunk_is_exact(plan.problem(), expected), "seed {} is not exact", case.seed);
        assert_exact(plan, _after, expected, case);
    });
    println!("{} texts ran", ran.len());
}

#[test]
fn random_numbers_stay_within_the_tolerance() {
    let mut usage = Usage::default();
    let fill = |rng: &mut StdRng| pick(rng, &[Fill::Uniform, Fill::Uniform, Fill::Outliers]);
    walk(1_000..1_100, fill, &[1.5, -0.3], |plan, case, before, after| {
        let expected = results(plan.problem(), Sums::TensorCore, before);
        usage.check(plan, after, &expected, case);
    });
    usage.report(Some(0.05));
}

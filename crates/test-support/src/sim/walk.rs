//! Random problems of every kind that the kernels serve, on random simulated machines. Used by
//! the tests that run every text: `ptx_linear`, `ptx_linear_f32`.

use std::collections::BTreeSet;

use fused_lora::{Choice, DType, Gradients, Layout, Major, Operand, Operation, Plan, Problem};
use ptx_sim::{CopyTiming, MmaModel, Options, Schedule};
use rand::prelude::*;
use rand::rngs::StdRng;

use super::{Gpu, gpu};
use crate::{Buffers, Case, Fill, feasible};

/// Every order of warps.
pub const SCHEDULES: [Schedule; 4] =
    [Schedule::RoundRobin, Schedule::Random, Schedule::OneFar, Schedule::Reverse];
/// Every time at which an asynchronous copy may land.
pub const COPIES: [CopyTiming; 3] = [CopyTiming::Early, CopyTiming::Late, CopyTiming::Random];
const MODELS: [MmaModel; 4] =
    [MmaModel::Exact, MmaModel::RandomOrder, MmaModel::Ampere, MmaModel::Hopper];
/// Numbers of multiprocessors.
pub const SMS: [u32; 4] = [1, 2, 3, 7];

/// Two to three tiles along each axis of each preset, and less than one; sums of at least
/// twice the ring, and shorter than it; odd everywhere.
const TOKENS: [usize; 6] = [1, 9, 64, 130, 150, 290];
const DEEP: [usize; 6] = [1, 8, 31, 64, 200, 330];
const WIDE: [usize; 7] = [1, 8, 70, 130, 150, 300, 520];
const RANKS: [usize; 13] = [0, 1, 3, 8, 15, 16, 17, 32, 33, 48, 64, 65, 100];

/// One of `from`.
pub fn pick<T: Copy>(rng: &mut StdRng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

/// A machine of `sms` multiprocessors, all else drawn.
pub fn options(rng: &mut StdRng, sms: u32) -> Options {
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
fn draw(rng: &mut StdRng, activations: &[DType], tidy: bool) -> Problem {
    let (m, k, n) = (pick(rng, &TOKENS), pick(rng, &DEEP), pick(rng, &WIDE));
    // The layer itself more often than what stands beside it.
    let operation = match rng.random_range(0..10) {
        0..3 => Operation::Forward,
        3..6 => Operation::BackwardInput,
        6 => Operation::BackwardShrink,
        7 => pick(rng, &[Operation::Merge, Operation::Unmerge]),
        _ => Operation::BackwardAdapter,
    };
    let (k, n) = if operation == Operation::Forward { (k, n) } else { (n, k) };
    let activation = pick(rng, activations);
    let adapter = if tidy { activation } else { pick(rng, DType::ALL) };
    let problem = Problem::new(operation, m, k, n, pick(rng, &RANKS))
        .with_activation(activation)
        .with_adapter(adapter)
        .with_beta(pick(rng, &[0.0, 0.0, 1.0, -0.5]))
        .with_bias(rng.random())
        .with_precise(rng.random())
        .with_keep_shrunk(rng.random())
        .with_gradient(pick(rng, DType::ALL))
        .with_gradients(pick(rng, &[Gradients::Both, Gradients::A, Gradients::B]));
    let problem = match (m + k + n) % 2 {
        0 => problem,
        _ => problem.with_output(DType::F32),
    };
    let transposed: bool = rng.random();
    let problem = Operand::ALL.iter().copied().fold(problem, |problem, operand| {
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
    });
    problem.with_gain(rng.random_range(0..4) == 0)
}

/// One run of `plan` on fresh buffers and a fresh workspace, guards checked.
pub fn run(plan: &Plan, before: &Buffers, options: &Options) -> Buffers {
    let mut after = before.clone();
    let mut gpu = Gpu::new(plan.workspace_len());
    if let Err(error) = gpu.run(plan, &mut after, options) {
        panic!("{error}\n{options:?}\n{:?}\n{}", plan.problem(), plan.explain());
    }
    after.assert_guards(before);
    after
}

/// Every candidate for `draws` random problems of these types, checked by `check`; the names of those that ran.
pub fn walk(
    draws: core::ops::Range<u64>,
    activations: &[DType],
    fill: impl Fn(&mut StdRng) -> Fill,
    scales: &[f32],
    mut check: impl FnMut(&Plan, &Case, &Buffers, &Buffers),
) -> BTreeSet<String> {
    let mut ran = BTreeSet::new();
    for seed in draws {
        let mut rng = StdRng::seed_from_u64(seed);
        let tidy = rng.random_range(0..3) > 0;
        let problem = draw(&mut rng, activations, tidy).with_scale(pick(&mut rng, scales));
        let case = Case::new(problem, fill(&mut rng), seed);
        let before = case.aligned_buffers();
        let sms = pick(&mut rng, &SMS);
        for choice in feasible(&problem, &gpu(sms), &Choice::default()) {
            let plan = Plan::choose(&problem, &gpu(sms), &choice).unwrap();
            let options = options(&mut rng, sms);
            let after = run(&plan, &before, &options);
            check(&plan, &case, &before, &after);
            ran.extend(texts(&plan));
        }
    }
    ran
}

/// The names that the texts of a plan give themselves.
pub fn texts(plan: &Plan) -> impl Iterator<Item = String> {
    plan.launches().iter().map(|launch| {
        let text = &launch.source.as_ref().unwrap().text;
        let name = text.lines().next().unwrap().trim_start_matches("// ");
        name.split(':').next().unwrap().to_owned()
    })
}

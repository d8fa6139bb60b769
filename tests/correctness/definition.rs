//! Every candidate for problems drawn at random against the definition: within the tolerance, and of small integers bit for bit.
//! Called by `convolution` and `kronecker`, which say what is drawn.

use fused_lora::Problem;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use test_support::{Case, Fill, Harness, Reference, Usage, assert_exact, launch};

/// Of so many seeds, filled with one of `fills` each.
pub(super) fn candidates_match(
    harness: &mut Harness,
    seeds: u64,
    fills: &[Fill],
    draw: impl Fn(&mut StdRng) -> Problem,
) -> Usage {
    let mut usage = Usage::default();
    for seed in 0..seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let problem = draw(&mut rng);
        let case = Case::new(problem, fills[rng.random_range(0..fills.len())], seed);
        let before = case.buffers();
        let mut reference = Reference::new(&problem, &before);
        harness.each(&problem, Some(seed), |executor, plan| {
            let after = launch(executor, plan, &before, &case);
            usage.check(plan, &after, reference.of(executor.sums(&problem)), &case);
        });
    }
    harness.report();
    usage
}

/// The same in integers, with a scale and a β that leave them exact; a problem without β stays without.
pub(super) fn integers_come_out_exactly(
    harness: &mut Harness,
    seeds: u64,
    draw: impl Fn(&mut StdRng) -> Problem,
) {
    for seed in 0..seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let scale = [0.5, 1.0, 2.0, -0.25][rng.random_range(0..4)];
        let problem = draw(&mut rng).with_scale(scale);
        let beta = [0.0, 1.0, -0.5][rng.random_range(0..3)];
        let problem = problem.with_beta(if problem.beta() == 0.0 { 0.0 } else { beta });
        let case = Case::new(problem, Fill::Integers, seed);
        let before = case.buffers();
        let mut reference = Reference::new(&problem, &before);
        harness.each(&problem, Some(seed), |executor, plan| {
            let after = launch(executor, plan, &before, &case);
            assert_exact(plan, &after, reference.of(executor.sums(&problem)), &case);
        });
    }
    harness.report();
}

//! Small integers and a scale that is a power of two: every sum and `shrunk` are exact, so
//! every result is the reference rounded once, bit for bit. No tolerance hides anything.

use rand::prelude::*;
use rand::rngs::StdRng;
use test_support::{
    Case, Fill, Harness, Reference, assert_exact, draw, draw_factors, launch, shrunk_is_exact,
};

/// Ragged against every tile: one less, one more, and none at all.
/// The last one is large enough for several workers where a small one runs alone.
const SIZES: [[usize; 3]; 18] = [
    [0, 9, 20],
    [1, 1, 1],
    [1, 129, 257],
    [2, 5, 7],
    [3, 64, 300],
    [4, 255, 31],
    [9, 17, 65],
    [16, 256, 256],
    [17, 63, 40],
    [31, 8, 129],
    [63, 100, 15],
    [65, 33, 130],
    [127, 129, 120],
    [130, 70, 300],
    [260, 24, 257],
    [513, 40, 66],
    [1030, 19, 35],
    [3, 1030, 523],
];

#[test]
fn small_integers_come_out_exactly() {
    let mut harness = Harness::new("exact");
    for seed in 0..1_000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let scale = [0.5, 1.0, 2.0, -0.25][rng.random_range(0..4)];
        let beta = [0.0, 0.0, 1.0, -0.5][rng.random_range(0..4)];
        let problem = draw(&mut rng, &SIZES).with_scale(scale).with_beta(beta);
        let case = Case::new(problem, Fill::Integers, seed);
        let before = case.buffers();
        let mut reference = Reference::new(&problem, &before);
        harness.each(&problem, Some(seed), |executor, plan| {
            let expected = reference.of(executor.sums(&problem));
            assert!(shrunk_is_exact(&problem, expected), "seed {seed} draws no exact case");
            let after = launch(executor, plan, &before, &case);
            assert_exact(plan, &after, expected, &case);
        });
    }
    harness.finish();
}

/// The same of the operations on factors, whose numbers are up to 3.
#[test]
fn small_integers_of_factors_come_out_exactly() {
    let mut harness = Harness::new("exact factors");
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let beta = [0.0, 0.0, 1.0, -0.5][rng.random_range(0..4)];
        let problem = draw_factors(&mut rng).with_beta(beta);
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

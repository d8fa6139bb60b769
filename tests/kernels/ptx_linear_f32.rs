//! The kernels for f32 through the simulator, with all its checks on: as `ptx_linear`, but every
//! sum is one of f32 multiply-adds, and the tolerance that of these.

use std::collections::BTreeSet;

use fused_lora::reference::Sums;
use fused_lora::{Choice, DType, Layout, Operand, Operation, Plan, Problem};
use ptx_sim::Options;
use rand::prelude::*;
use rand::rngs::StdRng;
use test_support::sim::walk::{COPIES, SCHEDULES, SMS, options, pick, run, texts, walk};
use test_support::sim::{Gpu, gpu};
use test_support::{
    Case, Fill, Reference, Usage, assert_exact, feasible, largest_part, results, shrunk_is_exact,
};

const BOTH: [Operation; 2] = [Operation::Forward, Operation::BackwardInput];
const F32: &[DType] = &[DType::F32];

/// Ragged against both tiles, sums of more than two rings, each text once a major.
#[test]
fn every_text_is_exact() {
    let mut names = BTreeSet::new();
    let mut rng = StdRng::seed_from_u64(7);
    let ways: [(&str, &[usize]); 9] = [
        ("direct/large", &[0]),
        ("direct/small", &[0]),
        ("direct/unaligned", &[0]),
        ("leader/large", &[9, 50]),
        ("leader/small", &[16, 33]),
        ("recompute/small", &[5]),
        ("two_pass/large", &[70]),
        // Small integers have no more than eleven bits.
        ("direct/tf32", &[0]),
        ("leader/tf32", &[9]),
    ];
    for (choice, ranks) in ways {
        for rank in ranks {
            // Rows of b in 16-byte multiples, so that it need not be packed.
            let stride = Some(rank.next_multiple_of(4));
            let whole = Layout { stride, ..Layout::default() };
            for operation in BOTH {
                let problem = Problem::new(operation, 150, 172, 300, *rank)
                    .with_scale(0.5)
                    .with_bias(true)
                    .with_tf32(choice.ends_with("tf32"))
                    .with_beta(if *rank == 9 { -0.5 } else { 0.0 })
                    .with_layout(Operand::B, whole);
                let sms = pick(&mut rng, &SMS);
                let plan = Plan::choose(&problem, &gpu(sms), &choice.parse().unwrap()).unwrap();
                let case = Case::new(problem, Fill::Integers, *rank as u64);
                let before = case.aligned_buffers();
                let after = run(&plan, &before, &options(&mut rng, sms));
                assert_exact(&plan, &after, &results(&problem, Sums::F32, &before), &case);
                names.extend(texts(&plan));
            }
        }
    }
    println!("{names:?}");
    // Two majors of ten texts: the shrink of two_pass is the product of small tiles.
    assert_eq!(names.iter().filter(|name| !name.starts_with("pack")).count(), 2 * 10);
}

#[test]
fn small_integers_come_out_exactly() {
    let fill = |_: &mut StdRng| Fill::Integers;
    let ran = walk(0..56, F32, fill, &[0.5, 1.0, -2.0], |plan, case, before, after| {
        let mut reference = Reference::new(plan.problem(), before);
        let expected = reference.of(Sums::F32);
        assert!(shrunk_is_exact(plan.problem(), expected), "seed {} is not exact", case.seed);
        assert_exact(plan, after, expected, case);
    });
    for kind in ["plain_small_f32_nmajor_unaligned", "pack_bf16_f32", "pack_f32_f32"] {
        assert!(ran.contains(kind), "{kind} never ran, but {ran:?}");
    }
}

#[test]
fn random_numbers_stay_within_the_tolerance() {
    let mut usage = Usage::default();
    let fill = |rng: &mut StdRng| pick(rng, &[Fill::Uniform, Fill::Uniform, Fill::Outliers]);
    walk(1_000..1_032, F32, fill, &[1.5, -0.3], |plan, case, before, after| {
        usage.check(plan, after, &results(plan.problem(), Sums::F32, before), case);
    });
    usage.report(Some(0.01));
}

/// Rounded to tf32, results stay within its tolerance, and are not those of f32.
#[test]
fn tf32_stays_within_its_tolerance() {
    let mut rng = StdRng::seed_from_u64(21);
    let (mut rounded, mut exact) = (Usage::default(), 0f64);
    for (choice, rank) in
        [("direct/tf32", 0), ("leader/tf32", 3), ("leader/tf32", 16), ("two_pass/tf32", 40)]
    {
        for operation in BOTH {
            for (tokens, deep, wide) in [(150, 100, 140), (9, 332, 300), (290, 36, 72)] {
                let (k, n) =
                    if operation == Operation::Forward { (deep, wide) } else { (wide, deep) };
                let problem = Problem::new(operation, tokens, k, n, rank)
                    .with_scale(1.5)
                    .with_tf32(true)
                    .with_beta(pick(&mut rng, &[0.0, 0.5]));
                let sms = pick(&mut rng, &SMS);
                let plan = Plan::choose(&problem, &gpu(sms), &choice.parse().unwrap()).unwrap();
                let case = Case::new(problem, Fill::Uniform, 3);
                let before = case.aligned_buffers();
                let after = run(&plan, &before, &options(&mut rng, sms));
                rounded.check(&plan, &after, &results(&problem, Sums::Tf32, &before), &case);
                for (operand, of) in results(&problem, Sums::F32, &before) {
                    exact = exact.max(largest_part(&problem, &after, operand, &of));
                }
            }
        }
    }
    rounded.report(Some(0.01));
    assert!(exact > 1.0, "factors were not rounded: {exact} of the tolerance of f32");
}

/// One plan gives one result: whoever runs when, wherever the copies are, on however many
/// multiprocessors it is run.
#[test]
fn bits_belong_to_the_plan() {
    let forward = Problem::forward(200, 104, 280, 15).with_scale(1.5);
    for (choice, problem) in [
        ("leader/large", forward),
        ("leader/small", forward),
        ("leader/tf32", forward.with_tf32(true)),
        ("two_pass/small", forward),
        ("recompute/small", forward),
        ("two_pass/unaligned", forward),
        ("direct/gradient", forward.with_operation(Operation::BackwardAdapter)),
        ("direct/merge", forward.with_operation(Operation::Merge)),
    ] {
        let plan = Plan::choose(&problem, &gpu(3), &choice.parse().unwrap()).unwrap();
        let before = Case::new(problem, Fill::Uniform, 11).aligned_buffers();
        let first = run(&plan, &before, &Options { sms: 3, ..Options::default() });
        for (seed, schedule) in SCHEDULES.into_iter().enumerate() {
            let options = Options {
                sms: SMS[seed],
                schedule,
                copies: COPIES[seed % 3],
                seed: seed as u64,
                ..Options::default()
            };
            run(&plan, &before, &options).assert_same_bits(&first, choice);
        }
    }
}

/// No tile load meets a bank twice, no access touches a sector it need not, and the bytes that
/// are touched are those the plan tells: on shapes whose rows are whole sectors.
#[test]
fn traffic_is_the_least_there_can_be() {
    for operation in BOTH {
        for (choice, rank) in [
            ("direct/large", 0),
            ("direct/small", 0),
            ("leader/large", 16),
            ("leader/large", 64),
            ("leader/small", 16),
            ("leader/small", 64),
            ("recompute/small", 16),
            ("direct/tf32", 0),
            ("leader/tf32", 16),
            ("two_pass/tf32", 32),
            ("two_pass/large", 128),
            ("two_pass/small", 16),
            ("direct/gradient", 16),
            ("direct/gradient", 64),
            ("direct/merge", 16),
        ] {
            let operation = match choice {
                "direct/gradient" => Operation::BackwardAdapter,
                "direct/merge" => Operation::Merge,
                _ => operation,
            };
            let problem = Problem::new(operation, 256, 256, 256, rank)
                .with_bias(rank == 0)
                .with_tf32(choice.ends_with("tf32"))
                .with_layout(Operand::Db, Layout::TRANSPOSED);
            let plan = Plan::choose(&problem, &gpu(3), &choice.parse().unwrap()).unwrap();
            let mut buffers = Case::new(problem, Fill::Uniform, 5).aligned_buffers();
            let mut gpu = Gpu::new(plan.workspace_len());
            let options = Options { sms: 3, ..Options::default() };
            let counters = gpu.run(&plan, &mut buffers, &options).unwrap();
            let touched = gpu.least_traffic(&plan, &counters);
            // What is updated is moved twice, and touched first once.
            let again = if operation == Operation::Merge { 256 * 256 * 4 } else { 0 };
            assert_eq!(touched + again, plan.bytes(), "{operation} {choice} r{rank}");
        }
    }
}

/// Every rank class, β, no tokens at all; many slabs and one; factors of other types.
#[test]
fn gradients_and_merge_are_exact() {
    let mut rng = StdRng::seed_from_u64(3);
    for (operation, m) in [
        (Operation::BackwardAdapter, 290),
        (Operation::BackwardAdapter, 0),
        (Operation::Merge, 3),
        (Operation::Unmerge, 0),
    ] {
        for rank in [5, 16, 40, 100] {
            for &dtype in DType::ALL {
                let problem = Problem::new(operation, m, 200, 300, rank)
                    .with_adapter(dtype)
                    .with_gradient(dtype)
                    .with_beta(0.5)
                    .with_scale(0.5);
                let case = Case::new(problem, Fill::Integers, 5);
                let before = case.aligned_buffers();
                for sms in [1, 3] {
                    let plan = Plan::new(&problem, &gpu(sms)).unwrap();
                    let after = run(&plan, &before, &options(&mut rng, sms));
                    assert_exact(&plan, &after, &results(&problem, Sums::F32, &before), &case);
                }
            }
        }
    }
}

/// What is not finite in one row of x reaches that row alone, in one row of w that column alone.
#[test]
fn what_is_not_finite_stays_where_it_is() {
    let (row, column) = (129, 7);
    let mut rng = StdRng::seed_from_u64(9);
    for layout in [Layout::default(), Layout::TRANSPOSED] {
        let turned = [Operand::W, Operand::A, Operand::B];
        let problem = Problem::forward(130, 36, 152, 5).with_tf32(true);
        let problem = turned.into_iter().fold(problem, |of, name| of.with_layout(name, layout));
        for choice in feasible(&problem, &gpu(2), &Choice::default()) {
            let plan = Plan::choose(&problem, &gpu(2), &choice).unwrap();
            let before = Case::new(problem, Fill::Uniform, 4).aligned_buffers();
            let options = options(&mut rng, 2);
            let clean = run(&plan, &before, &options);
            let mut before = before;
            // In the last of the sum, beside the tail; in the last row, which fills its tile.
            before.at_mut(Operand::X).set(row, 35, f32::INFINITY);
            before.at_mut(Operand::W).set(column, 35, f32::NAN);
            let after = run(&plan, &before, &options);
            let (y, was) = (after.at(Operand::Y), clean.at(Operand::Y));
            for at in (0..130).flat_map(|at| (0..152).map(move |of| (at, of))) {
                let (now, was) = (y.get(at.0, at.1), was.get(at.0, at.1));
                let touched = at.0 == row || at.1 == column;
                let name = format!("{choice} {:?}: y{at:?} became {now}, was {was}", layout.major);
                assert!(if touched { !now.is_finite() } else { now == was }, "{name}");
            }
            assert!(y.get(0, column).is_nan(), "{choice}: w's NaN is lost");
            test_support::assert_pads_are_zero(&problem, &after);
        }
    }
}

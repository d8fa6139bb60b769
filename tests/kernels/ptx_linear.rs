//! Every kernel's text through the simulator, with all its checks on:
//! races, forgotten waits, bytes out of bounds or never written. Against the reference bit for
//! bit where small integers make every sum exact, and within the tolerance where not.

use std::collections::BTreeSet;

use fused_lora::reference::Sums;
use fused_lora::{Choice, DType, Layout, Operand, Operation, Plan, Problem};
use ptx_sim::Options;
use rand::prelude::*;
use rand::rngs::StdRng;
use test_support::sim::walk::{COPIES, SCHEDULES, SMS, options, pick, run, texts, walk};
use test_support::sim::{Gpu, HALVES, gpu};
use test_support::{
    Case, Fill, Reference, Usage, assert_exact, feasible, results, shrunk_is_exact,
};

const BOTH: [Operation; 2] = [Operation::Forward, Operation::BackwardInput];

/// Ragged against both tiles, sums of more than two rings, each text once a type and major.
#[test]
fn every_text_is_exact() {
    let mut names = BTreeSet::new();
    let mut rng = StdRng::seed_from_u64(7);
    let ways: [(&str, &[usize]); 11] = [
        ("direct/large", &[0]),
        ("direct/medium", &[0]),
        ("direct/small", &[0]),
        ("direct/unaligned", &[0]),
        ("leader/large", &[9, 32, 50]),
        ("leader/medium", &[9, 32]),
        ("leader/small", &[16, 33]),
        ("recompute/large", &[16, 20, 64]),
        ("recompute/medium", &[16, 20]),
        ("recompute/small", &[5, 64]),
        ("two_pass/large", &[70]),
    ];
    let mut seed = 0;
    for (choice, ranks) in ways {
        for rank in ranks {
            // Rows of b in 16-byte multiples, so that it need not be packed.
            let stride = Some(rank.next_multiple_of(8));
            let whole = Layout { stride, ..Layout::default() };
            for (dtype, operation) in HALVES.into_iter().flat_map(|of| BOTH.map(|op| (of, op))) {
                let problem = Problem::new(operation, 150, 344, 344, *rank)
                    .with_dtype(dtype)
                    .with_scale(0.5)
                    .with_bias(true)
                    .with_layout(Operand::B, whole);
                seed += 1;
                let sms = pick(&mut rng, &SMS);
                for output in [dtype, DType::F32] {
                    let problem = problem.with_output(output);
                    let plan = Plan::choose(&problem, &gpu(sms), &choice.parse().unwrap()).unwrap();
                    let case = Case::new(problem, Fill::Integers, seed);
                    let before = case.aligned_buffers();
                    let after = run(&plan, &before, &options(&mut rng, sms));
                    let expected = results(&problem, Sums::TensorCore, &before);
                    assert_exact(&plan, &after, &expected, &case);
                    names.extend(texts(&plan));
                }
            }
        }
    }
    // Two types and two majors of nineteen texts: eighteen of the layer, and shrink before one of them.
    println!("{names:?}");
    assert_eq!(names.iter().filter(|name| !name.starts_with("pack")).count(), 4 * 19);
}

#[test]
fn small_integers_come_out_exactly() {
    let fill = |_: &mut StdRng| Fill::Integers;
    let ran = walk(0..48, &HALVES, fill, &[0.5, 1.0, -2.0], |plan, case, before, after| {
        let mut reference = Reference::new(plan.problem(), before);
        let expected = reference.of(Sums::TensorCore);
        assert!(shrunk_is_exact(plan.problem(), expected), "seed {} is not exact", case.seed);
        assert_exact(plan, after, expected, case);
    });
    // The odd ones, which the test above leaves out: by plain loads, and every conversion.
    for kind in
        ["shrink_small_bf16_unaligned", "shrink_small_f16_nmajor_unaligned", "pack_f32_bf16"]
    {
        assert!(ran.contains(kind), "{kind} never ran, but {ran:?}");
    }
}

#[test]
fn random_numbers_stay_within_the_tolerance() {
    let mut usage = Usage::default();
    let fill = |rng: &mut StdRng| pick(rng, &[Fill::Uniform, Fill::Uniform, Fill::Outliers]);
    walk(1_000..1_032, &HALVES, fill, &[1.5, -0.3], |plan, case, before, after| {
        let expected = results(plan.problem(), Sums::TensorCore, before);
        usage.check(plan, after, &expected, case);
    });
    // The least used is that of sums that f32 keeps: the bound is a worst case of truncation.
    usage.report(Some(0.004));
}

/// One plan gives one result: whoever runs when, wherever the copies are, on however many
/// multiprocessors it is run.
#[test]
fn bits_belong_to_the_plan() {
    let forward = Problem::forward(200, 104, 280, 20);
    for (choice, problem) in [
        ("leader/large", forward),
        ("leader/medium", forward),
        ("leader/small", forward),
        ("recompute/small", forward),
        ("two_pass/small", forward),
        ("two_pass/unaligned", forward),
        ("direct/gradient", forward.with_operation(Operation::BackwardAdapter)),
        ("direct/merge", forward.with_operation(Operation::Merge)),
    ] {
        let problem = problem.with_dtype(DType::Bf16).with_scale(1.5);
        let plan = Plan::choose(&problem, &gpu(3), &choice.parse().unwrap()).unwrap();
        let before = Case::new(problem, Fill::Uniform, 11).aligned_buffers();
        let first = run(&plan, &before, &Options { sms: 3, ..Options::default() });
        for (seed, schedule) in SCHEDULES.into_iter().enumerate() {
            let copies = COPIES[seed % 3];
            let options = Options {
                sms: SMS[seed],
                schedule,
                copies,
                seed: seed as u64,
                ..Options::default()
            };
            run(&plan, &before, &options).assert_same_bits(&first, choice);
        }
    }
}

/// What scratch holds does not matter, nor which plan used the workspace before; the header
/// comes back ready for the next launch, its epoch one on and never 0.
#[test]
fn one_workspace_serves_plan_after_plan() {
    let problems = [(290, 150), (70, 300), (290, 150), (1, 8)].map(|(tokens, wide)| {
        Problem::forward(tokens, 64, wide, 16).with_dtype(DType::F16).with_keep_shrunk(false)
    });
    let choice: Choice = "leader/small".parse().unwrap();
    let plans = problems.map(|of| Plan::choose(&of, &gpu(3), &choice).unwrap());
    let len = plans.iter().map(Plan::workspace_len).max().unwrap();
    let mut gpu = Gpu::new(len);
    let mut rng = StdRng::seed_from_u64(3);
    for start in [0, u32::MAX - 2] {
        gpu.set_epoch(start);
        let mut epoch = start;
        for (at, plan) in plans.iter().enumerate() {
            let target = epoch.wrapping_add(1).max(1);
            // As found, then ones, then what a flag would hold.
            if at > 0 {
                gpu.litter(if at == 1 { u32::MAX } else { target });
            }
            let case = Case::new(*plan.problem(), Fill::Integers, at as u64);
            let before = case.aligned_buffers();
            let mut after = before.clone();
            let options = options(&mut rng, 3);
            gpu.run(plan, &mut after, &options).unwrap_or_else(|error| panic!("{error}"));
            let expected = results(plan.problem(), Sums::TensorCore, &before);
            assert_exact(plan, &after, &expected, &case);
            epoch = target;
            assert_eq!(gpu.header(), [epoch, 0, 0], "epoch, ticket, done");
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
            ("direct/medium", 0),
            ("direct/small", 0),
            ("leader/large", 16),
            ("leader/large", 32),
            ("leader/large", 64),
            ("leader/medium", 16),
            ("leader/medium", 32),
            ("leader/small", 16),
            ("leader/small", 64),
            ("recompute/large", 16),
            ("recompute/medium", 32),
            ("recompute/small", 64),
            ("two_pass/large", 128),
            ("two_pass/small", 16),
            ("direct/gradient", 16),
            ("direct/gradient", 64),
        ] {
            let operation = match choice {
                "direct/gradient" => Operation::BackwardAdapter,
                _ => operation,
            };
            let problem = Problem::new(operation, 256, 512, 512, rank)
                .with_dtype(DType::Bf16)
                .with_bias(rank == 0)
                // Stored the other way, db's eight ranks of a column are half a sector.
                .with_layout(Operand::Db, Layout::TRANSPOSED);
            // y as the activations are, and in f32, old values too.
            let outputs = match operation {
                Operation::BackwardAdapter => vec![(DType::Bf16, 0.0)],
                _ => vec![(DType::Bf16, 0.0), (DType::F32, 0.0), (DType::F32, 1.0)],
            };
            for (output, beta) in outputs {
                let problem = problem.with_output(output).with_beta(beta);
                let name = format!("{operation} {choice} r{rank} to {output} + {beta} of old ones");
                let plan = Plan::choose(&problem, &gpu(3), &choice.parse().unwrap()).unwrap();
                let mut buffers = Case::new(problem, Fill::Uniform, 5).aligned_buffers();
                let mut gpu = Gpu::new(plan.workspace_len());
                let options = Options { sms: 3, ..Options::default() };
                let counters = gpu.run(&plan, &mut buffers, &options).unwrap();
                let touched = gpu.least_traffic(&plan, &counters);
                // What is read before it is written is touched first but once.
                let old = if beta == 0.0 { 0 } else { 256 * 512 * 4 };
                assert_eq!(touched + old, plan.bytes(), "{name}");
            }
        }
    }
}

/// Every rank class, both precisions, β, no tokens at all; many slabs and one.
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
            for precise in [false, true] {
                let problem = Problem::new(operation, m, 200, 300, rank)
                    .with_activation(DType::Bf16)
                    .with_precise(precise)
                    .with_beta(0.5)
                    .with_scale(0.5);
                let case = Case::new(problem, Fill::Integers, 5);
                let before = case.aligned_buffers();
                for sms in [1, 3] {
                    let plan = Plan::new(&problem, &gpu(sms)).unwrap();
                    let after = run(&plan, &before, &options(&mut rng, sms));
                    assert_exact(
                        &plan,
                        &after,
                        &results(&problem, Sums::TensorCore, &before),
                        &case,
                    );
                }
            }
        }
    }
}

/// What is not finite in one row of x reaches that row alone, in one row of w that column
/// alone: zero-filled tails meet zeros, rows loaded twice are stored once, pads stay zero.
#[test]
fn what_is_not_finite_stays_where_it_is() {
    let (row, column) = (129, 7);
    let mut rng = StdRng::seed_from_u64(9);
    for layout in [Layout::default(), Layout::TRANSPOSED] {
        let turned = [Operand::W, Operand::A, Operand::B];
        let problem = Problem::forward(130, 40, 152, 5).with_dtype(DType::Bf16);
        let problem = turned.into_iter().fold(problem, |of, name| of.with_layout(name, layout));
        for choice in feasible(&problem, &gpu(2), &Choice::default()) {
            let plan = Plan::choose(&problem, &gpu(2), &choice).unwrap();
            let before = Case::new(problem, Fill::Uniform, 4).aligned_buffers();
            let options = options(&mut rng, 2);
            let clean = run(&plan, &before, &options);
            let mut before = before;
            // In the last of the sum, beside the tail; in the last row, which fills its tile.
            before.at_mut(Operand::X).set(row, 39, f32::INFINITY);
            before.at_mut(Operand::W).set(column, 39, f32::NAN);
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

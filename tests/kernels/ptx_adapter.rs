//! Adapters of another type than the activations, which the kernels take in two parts: every text
//! that carries ranks, through the simulator. On data whose high parts cancel, so that the
//! results are those of the low ones, bit for bit.

use std::collections::BTreeSet;

use fused_lora::reference::Sums;
use fused_lora::{DType, Layout, Operand, Operation, Plan, Problem};
use ptx_sim::{CopyTiming, MmaModel, Options, Schedule};
use test_support::sim::walk::{run, texts};
use test_support::sim::{HALVES, gpu};
use test_support::{Buffers, Case, Fill, assert_exact, results, shrunk_is_exact};

const BOTH: [Operation; 2] = [Operation::Forward, Operation::BackwardInput];

/// Ranks for each text: its last one, and one that leaves some of its halves empty.
const WAYS: [(&str, &[usize]); 11] = [
    ("leader/large", &[8, 13, 32, 50]),
    ("leader/medium", &[3, 16]),
    ("leader/small", &[5, 32, 64]),
    ("recompute/large", &[3, 16, 27]),
    ("recompute/medium", &[9, 16]),
    ("recompute/small", &[8, 20, 33]),
    ("two_pass/large", &[90]),
    ("two_pass/medium", &[40]),
    ("two_pass/small", &[70]),
    ("two_pass/unaligned", &[6]),
    ("leader/small", &[1]),
];

/// A number that neither 16-bit type holds in one part: 4096 · `high` + `low`.
fn two(high: f32, low: f32) -> f32 {
    4096.0 * high + low
}

/// −1, 0 or 1, by place.
fn small(row: usize, col: usize, seed: u32) -> f32 {
    let mixed = (row as u32).wrapping_mul(0x9e37_79b9) ^ (col as u32).wrapping_mul(0x85eb_ca6b);
    let mixed = (mixed ^ seed).wrapping_mul(0xc2b2_ae35);
    ((mixed >> 13) % 3) as f32 - 1.0
}

/// Small integers in x and w. Neighbours along each sum meet equal factors, and differ in the
/// sign of their high part alone: what remains of a product is the sum of their low parts.
fn cancelling(case: &Case) -> Buffers {
    let mut buffers = case.aligned_buffers();
    let forward = case.problem.operation() == Operation::Forward;
    let (x, down, up) = match forward {
        true => (Operand::X, Operand::A, Operand::B),
        false => (Operand::Dy, Operand::B, Operand::A),
    };
    let pair = |at: usize, len: usize| {
        (at / 2, if at.is_multiple_of(2) { 1.0 } else { -1.0 }, at + 1 < len || at % 2 == 1)
    };
    buffers.at_mut(x).fill(|row, col| small(row, col / 2, 1));
    // As their parts want them: down [rank, deep], up [wide, rank].
    let (deep, rank) = (buffers.at(x).spec.cols, case.problem.rank());
    let down_at = |rank: usize, at: usize| {
        let (couple, sign, whole) = pair(at, deep);
        let high = if whole { sign * small(rank / 2, couple, 2) } else { 0.0 };
        two(high, small(rank / 2, at, 3))
    };
    let up_at = |wide: usize, at: usize| {
        let (couple, sign, whole) = pair(at, rank);
        let high = if whole { sign * small(wide, couple, 4) } else { 0.0 };
        two(high, small(wide, at, 5))
    };
    buffers
        .at_mut(down)
        .fill(|row, col| if forward { down_at(row, col) } else { down_at(col, row) });
    buffers.at_mut(up).fill(|row, col| if forward { up_at(row, col) } else { up_at(col, row) });
    buffers
}

fn options(seed: u64) -> Options {
    let at = seed as usize;
    Options {
        sms: [1, 2, 3, 7][at % 4],
        blocks_per_sm: 1 + (seed % 3) as u32,
        schedule: [Schedule::RoundRobin, Schedule::Random, Schedule::OneFar, Schedule::Reverse]
            [at / 4 % 4],
        copies: [CopyTiming::Early, CopyTiming::Late, CopyTiming::Random][at % 3],
        mma: [MmaModel::Exact, MmaModel::Ampere, MmaModel::Hopper, MmaModel::RandomOrder][at % 4],
        seed,
        ..Options::default()
    }
}

/// An owner's shrunk in two parts of 64 ranks leaves a ring of three stages no room.
fn fits(choice: &str, rank: usize, precise: bool) -> bool {
    choice.starts_with("two_pass") || choice.ends_with("small") || !precise || rank <= 32
}

/// Every text that carries ranks, with an adapter in f32: at most one launch before it.
#[test]
fn low_parts_are_not_lost() {
    let mut names = BTreeSet::new();
    let mut seed = 0;
    for (choice, ranks) in WAYS {
        for (rank, operation) in ranks.iter().flat_map(|rank| BOTH.map(|op| (*rank, op))) {
            for (dtype, precise) in HALVES.into_iter().flat_map(|of| [(of, false), (of, true)]) {
                seed += 1;
                let problem = Problem::new(operation, 150, 344, 344, rank)
                    .with_activation(dtype)
                    .with_adapter(DType::F32)
                    .with_precise(precise)
                    .with_scale(0.5);
                let plan = Plan::choose(&problem, &gpu(3), &choice.parse().unwrap());
                if !fits(choice, rank, precise) {
                    let error = plan.unwrap_err().to_string();
                    assert!(error.contains("4 steps of border in a ring of 3"), "{error}");
                    continue;
                }
                let plan = plan.unwrap();
                let kernels: Vec<_> = plan.launches().iter().map(|of| of.kernel).collect();
                let passes = choice.starts_with("two_pass");
                let expected: &[_] =
                    if passes { &["pack", "shrink", "linear"] } else { &["pack", "linear"] };
                assert_eq!(kernels, expected, "{}", plan.explain());
                let case = Case::new(problem, Fill::Integers, seed);
                let before = cancelling(&case);
                let expected = results(&problem, Sums::TensorCore, &before);
                assert!(shrunk_is_exact(&problem, &expected), "{choice} r{rank} is not exact");
                let after = run(&plan, &before, &options(seed));
                assert_exact(&plan, &after, &expected, &case);
                names.extend(texts(&plan));
            }
        }
    }
    let carried = |name: &&String| name.starts_with("leader") || name.starts_with("recompute");
    // Leaders of large tiles in four classes of ranks, medium tiles in one, the others in three; two types, two majors.
    assert_eq!(names.iter().filter(carried).count(), (4 + 3 + 3 + 3 + 2) * 4, "{names:?}");
}

/// Either major of all three weights, and an adapter in the other 16-bit type.
#[test]
fn any_major_of_an_adapter_in_parts() {
    let operands = [Operand::W, Operand::A, Operand::B];
    for turned in 0..8 {
        for choice in ["leader/small", "recompute/large"] {
            let dtype = HALVES[turned % 2];
            let problem = Problem::new(BOTH[turned / 2 % 2], 70, 104, 136, 11)
                .with_activation(dtype)
                .with_adapter(DType::F32);
            let problem = (0..3).fold(problem, |problem, at| match turned >> at & 1 {
                1 => problem.with_layout(operands[at], Layout::TRANSPOSED),
                _ => problem,
            });
            let plan = Plan::choose(&problem, &gpu(2), &choice.parse().unwrap()).unwrap();
            let case = Case::new(problem, Fill::Integers, turned as u64);
            let before = cancelling(&case);
            let expected = results(&problem, Sums::TensorCore, &before);
            let after = run(&plan, &before, &options(turned as u64));
            assert_exact(&plan, &after, &expected, &case);
        }
    }
}

/// shrunk that overflows f16 makes y infinite, not NaN: the low part of b, of either sign or
/// zero, does not meet it. Rows beside it keep their values.
#[test]
fn infinity_meets_the_high_part_alone() {
    for (choice, ranks) in WAYS {
        let precisely = |rank: &usize| [(*rank, false), (*rank, true)];
        for (rank, precise) in ranks.iter().flat_map(precisely) {
            if !fits(choice, rank, precise) {
                continue;
            }
            let problem = Problem::forward(150, 72, 300, rank)
                .with_activation(DType::F16)
                .with_adapter(DType::F32)
                .with_precise(precise);
            let plan = Plan::choose(&problem, &gpu(2), &choice.parse().unwrap()).unwrap();
            let case = Case::new(problem, Fill::Integers, rank as u64);
            let mut before = case.aligned_buffers();
            before.at_mut(Operand::X).fill(|row, _| if row == 140 { 100.0 } else { 1.0 });
            before.at_mut(Operand::W).fill(|_, _| 0.0);
            before.at_mut(Operand::A).fill(|_, _| 100.0);
            // 2⁻¹³ and more, with a low part that is positive, zero or negative.
            let low = |row: usize, col: usize| small(row, col, 6) / 33_554_432.0;
            before.at_mut(Operand::B).fill(|row, col| 1.0 / 8192.0 + low(row, col));
            let after = run(&plan, &before, &options(rank as u64));
            let (y, shrunk) = (after.at(Operand::Y), after.at(Operand::Shrunk));
            let name = format!("{choice} r{rank} precise {precise}");
            for column in 0..300 {
                assert_eq!(y.get(140, column), f32::INFINITY, "{name}: y[140, {column}]");
                // 72 · 100 · 2⁻¹³ a rank.
                let (got, want) = (y.get(139, column), 7200.0 / 8192.0 * rank as f32);
                assert!((got - want).abs() <= want / 256.0, "{name}: {got}, expected {want}");
            }
            for of in 0..rank {
                assert_eq!(shrunk.get(140, of), f32::INFINITY, "{name}");
                if precise {
                    assert_eq!(shrunk.get(140, problem.padded_rank() + of), 0.0, "{name}");
                }
            }
        }
    }
}

//! `decode` through the simulator, with all its checks on: every text on machines of one to
//! seven multiprocessors, with one to six warps that stream, so that strips are whole, halved
//! and cut anywhere. Against the reference bit for bit on small integers, within the tolerance
//! on others; its traffic against the least there can be.

use std::collections::BTreeSet;

use fused_lora::reference::Sums;
use fused_lora::{
    Capabilities, Choice, CudaCapabilities, DType, Layout, Major, Operand, Operation, Plan, Problem,
};
use ptx_sim::Options;
use rand::prelude::*;
use rand::rngs::StdRng;
use test_support::sim::Gpu;
use test_support::sim::walk::{COPIES, SCHEDULES, SMS, options, pick, run, texts};
use test_support::{Buffers, Case, Fill, Usage, assert_exact, results};

/// Bytes of shared memory: one warp that streams, two, three as on sm_86, six as on an A100.
const SHARED: [u32; 4] = [48 << 10, 70 << 10, 99 << 10, 163 << 10];
const BOTH: [Operation; 2] = [Operation::Forward, Operation::BackwardInput];
const TRANSPOSED: [Operand; 3] = [Operand::W, Operand::A, Operand::B];

pub(crate) fn machine(sms: u32, shared: u32) -> Capabilities {
    let mut cuda = CudaCapabilities::default();
    cuda.multiprocessors = sms;
    cuda.shared_bytes = shared;
    Capabilities::Cuda(cuda)
}

/// `decode`, by name.
pub(crate) fn plan(problem: &Problem, capabilities: &Capabilities) -> Plan {
    let choice = Choice { strategy: None, preset: Some("decode".to_owned()) };
    Plan::choose(problem, capabilities, &choice).unwrap_or_else(|error| panic!("{error}"))
}

/// A layer of `m` tokens whose adapter lies as the kernel reads it: rows of 16-byte multiples.
fn layer(operation: Operation, [m, k, n, r]: [usize; 4], dtype: DType, major: Major) -> Problem {
    tidy(Problem::new(operation, m, k, n, r).with_dtype(dtype), major, 0)
}

/// Rows of 16-byte multiples, `apart` elements between them; adapters as w lies.
pub(crate) fn tidy(problem: Problem, major: Major, apart: usize) -> Problem {
    Operand::ALL.iter().copied().fold(problem, |problem, operand| {
        let major = if TRANSPOSED.contains(&operand) { major } else { Major::Row };
        let problem = problem.with_layout(operand, Layout { major, ..Layout::default() });
        let Some(spec) = problem.spec(operand) else { return problem };
        let stride = Some(spec.stored().1.next_multiple_of(8) + apart);
        problem.with_layout(operand, Layout { major, stride, align: 0 })
    })
}

/// A layer of any size that is served, in one launch.
fn draw(rng: &mut StdRng) -> Problem {
    let m = pick(rng, &[1, 2, 7, 8, 9, 15, 16]);
    // Sums of more than a ring for every warp, and shorter than one step; a strip, and several.
    let (deep, wide) = match rng.random_range(0..3) {
        0 => (pick(rng, &[1600, 2055]), pick(rng, &[1, 33, 70])),
        1 => (pick(rng, &[1, 8, 63, 130]), pick(rng, &[200, 328])),
        _ => (pick(rng, &[264, 517]), pick(rng, &[64, 100, 161])),
    };
    let operation = pick(rng, &BOTH);
    let (k, n) = if operation == Operation::Forward { (deep, wide) } else { (wide, deep) };
    let rank = pick(rng, &[0, 1, 4, 8, 13, 16, 17, 32, 40, 64]);
    let (dtype, major) = (pick(rng, DType::ALL), pick(rng, &[Major::Row, Major::Col]));
    let problem = Problem::new(operation, m, k, n, rank)
        .with_dtype(dtype)
        .with_adapter(pick(rng, &[dtype, DType::F32]))
        .with_output(pick(rng, &[dtype, DType::F32]))
        .with_beta(pick(rng, &[0.0, 0.0, 1.0, -0.5]))
        .with_bias(rng.random())
        .with_precise(rng.random())
        .with_keep_shrunk(rng.random());
    tidy(problem, major, 0)
}

/// How sums are formed: of f32 one by one, of 16 bits by tensor cores.
fn sums(problem: &Problem) -> Sums {
    if problem.activation() == DType::F32 { Sums::F32 } else { Sums::TensorCore }
}

fn walk(
    draws: core::ops::Range<u64>,
    fill: impl Fn(&mut StdRng) -> Fill,
    scales: &[f32],
    mut check: impl FnMut(&Plan, &Case, &Buffers, &Buffers),
) -> BTreeSet<String> {
    let mut ran = BTreeSet::new();
    for seed in draws {
        let mut rng = StdRng::seed_from_u64(seed);
        let problem = draw(&mut rng).with_scale(pick(&mut rng, scales));
        let case = Case::new(problem, fill(&mut rng), seed);
        let before = case.aligned_buffers();
        let sms = pick(&mut rng, &SMS);
        let plan = plan(&problem, &machine(sms, pick(&mut rng, &SHARED)));
        assert_eq!(plan.launches().len(), 1, "{}", plan.explain());
        let after = run(&plan, &before, &options(&mut rng, sms));
        check(&plan, &case, &before, &after);
        ran.extend(texts(&plan));
    }
    ran
}

#[test]
fn small_integers_come_out_exactly() {
    let fill = |_: &mut StdRng| Fill::Integers;
    let ran = walk(0..96, fill, &[0.5, 1.0, -2.0], |plan, case, before, after| {
        let expected = results(plan.problem(), sums(plan.problem()), before);
        assert_exact(plan, after, &expected, case);
    });
    println!("{ran:?}");
    // Two types with two adapters, f32, two majors.
    assert_eq!(ran.len(), 10);
}

#[test]
fn random_numbers_stay_within_the_tolerance() {
    let mut usage = Usage::default();
    let fill = |rng: &mut StdRng| pick(rng, &[Fill::Uniform, Fill::Uniform, Fill::Outliers]);
    walk(1_000..1_128, fill, &[1.5, -0.3], |plan, case, before, after| {
        let expected = results(plan.problem(), sums(plan.problem()), before);
        usage.check(plan, after, &expected, case);
    });
    // The bound is a worst case of one long sum; here warps and parts add up short ones.
    usage.report(Some(0.0008));
}

/// One plan gives one result: whoever arrives last, whoever draws which ticket.
#[test]
fn bits_belong_to_the_plan() {
    for (operation, dtype, adapter) in [
        (BOTH[0], DType::Bf16, DType::Bf16),
        (BOTH[1], DType::Bf16, DType::Bf16),
        (BOTH[0], DType::Bf16, DType::F32),
        (BOTH[1], DType::F32, DType::F32),
    ] {
        // Strips cut anywhere, and more parts of shrunk than CTAs.
        let problem = layer(operation, [11, 704, 328, 20], dtype, Major::Row)
            .with_adapter(adapter)
            .with_scale(1.5);
        let plan = plan(&problem, &machine(7, 70 << 10));
        assert!(plan.workspace_len() > 64 << 10);
        let before = Case::new(problem, Fill::Uniform, 11).aligned_buffers();
        let first = run(&plan, &before, &Options { sms: 7, ..Options::default() });
        for (seed, schedule) in SCHEDULES.into_iter().enumerate() {
            let options = Options {
                sms: SMS[seed],
                schedule,
                copies: COPIES[seed % 3],
                seed: seed as u64,
                ..Options::default()
            };
            run(&plan, &before, &options).assert_same_bits(&first, "decode");
        }
    }
}

/// What scratch holds does not matter, nor which plan used the workspace before; the header comes
/// back ready, its counters zero.
#[test]
fn one_workspace_serves_plan_after_plan() {
    let problems = [(16, 520, 328, 64), (1, 1600, 40, 4), (16, 520, 328, 64), (3, 8, 8, 0)]
        .map(|(m, k, n, r)| layer(BOTH[0], [m, k, n, r], DType::F16, Major::Row));
    let plans = problems.map(|of| plan(&of, &machine(3, 70 << 10)));
    let len = plans.iter().map(Plan::workspace_len).max().unwrap();
    let mut gpu = Gpu::new(len);
    let mut rng = StdRng::seed_from_u64(3);
    for start in [0, u32::MAX - 2] {
        gpu.set_epoch(start);
        let mut epoch = start;
        for (at, plan) in plans.iter().enumerate() {
            let target = epoch.wrapping_add(1).max(1);
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
            // Without a rank nobody waits, and no epoch passes.
            epoch = if plan.problem().rank() > 0 { target } else { epoch };
            assert_eq!(gpu.header(), [epoch, 0, 0], "epoch, ticket, done");
        }
    }
}

/// w is read once: no access touches a sector that it need not, no tile meets a bank twice, and
/// the bytes that are touched are those the plan tells.
#[test]
fn traffic_is_the_least_there_can_be() {
    for operation in BOTH {
        for (m, rank, dtype, adapter) in [
            (8, 16, DType::Bf16, DType::Bf16),
            (16, 16, DType::F16, DType::F16),
            (8, 64, DType::Bf16, DType::F32),
            (16, 32, DType::F16, DType::F32),
            (8, 0, DType::Bf16, DType::Bf16),
            (8, 16, DType::F32, DType::F32),
            (16, 64, DType::F32, DType::F32),
        ] {
            let problem = layer(operation, [m, 512, 512, rank], dtype, Major::Row)
                .with_adapter(adapter)
                .with_bias(rank == 16);
            // Eight CTAs: whole strips forward and backward.
            let plan = plan(&problem, &machine(8, 163 << 10));
            let mut buffers = Case::new(problem, Fill::Uniform, 5).aligned_buffers();
            let mut gpu = Gpu::new(plan.workspace_len());
            let options = Options { sms: 8, ..Options::default() };
            let counters = gpu.run(&plan, &mut buffers, &options).unwrap();
            assert_eq!(counters.len(), 1, "one launch");
            let touched = gpu.least_traffic(&plan, &counters);
            assert_eq!(touched, plan.bytes(), "{dtype} beside {adapter}\n{}", plan.explain());
        }
    }
}

/// What is not finite in one row of x reaches that row alone, in one row of w that column alone.
#[test]
fn what_is_not_finite_stays_where_it_is() {
    let (row, column) = (10, 7);
    let mut rng = StdRng::seed_from_u64(9);
    for (major, dtype, adapter) in [
        (Major::Row, DType::Bf16, DType::Bf16),
        (Major::Col, DType::Bf16, DType::F32),
        (Major::Row, DType::F32, DType::F32),
        (Major::Col, DType::F32, DType::F32),
    ] {
        let problem = layer(BOTH[0], [11, 333, 152, 5], dtype, major).with_adapter(adapter);
        let plan = plan(&problem, &machine(3, 70 << 10));
        let mut before = Case::new(problem, Fill::Uniform, 4).aligned_buffers();
        let options = options(&mut rng, 3);
        let clean = run(&plan, &before, &options);
        // In the last of the sum, beside the tail; in the last row.
        before.at_mut(Operand::X).set(row, 332, f32::INFINITY);
        before.at_mut(Operand::W).set(column, 332, f32::NAN);
        let after = run(&plan, &before, &options);
        let (y, was) = (after.at(Operand::Y), clean.at(Operand::Y));
        for at in (0..11).flat_map(|at| (0..152).map(move |of| (at, of))) {
            let (now, was) = (y.get(at.0, at.1), was.get(at.0, at.1));
            let touched = at.0 == row || at.1 == column;
            let name = format!("{major}: y{at:?} became {now}, was {was}");
            assert!(if touched { !now.is_finite() } else { now == was }, "{name}");
        }
        assert!(y.get(0, column).is_nan(), "w's NaN is lost");
        test_support::assert_pads_are_zero(&problem, &after);
    }
}

/// Where the adapter does not lie as the kernel reads it, it is packed, or the preset says why not.
#[test]
fn adapters_that_lie_otherwise() {
    let mut rng = StdRng::seed_from_u64(2);
    let other = Layout::TRANSPOSED;
    let problem = layer(BOTH[0], [5, 264, 104, 6], DType::F16, Major::Row)
        .with_layout(Operand::A, other)
        .with_layout(Operand::B, Layout::default());
    let packed = plan(&problem, &machine(2, 99 << 10));
    let kernels: Vec<_> = packed.launches().iter().map(|of| of.kernel).collect();
    assert_eq!(kernels, ["pack", "decode"]);
    let case = Case::new(problem, Fill::Integers, 1);
    let before = case.aligned_buffers();
    let after = run(&packed, &before, &options(&mut rng, 2));
    assert_exact(&packed, &after, &results(&problem, Sums::TensorCore, &before), &case);
    let choice = "leader/decode".parse().unwrap();
    let wide = Plan::choose(&problem.with_adapter(DType::F32), &machine(2, 99 << 10), &choice);
    let said = wide.unwrap_err().to_string();
    assert!(said.contains("a: f32 not the way w lies"), "{said}");
}

//! What every kernel on CUDA must do beyond `correctness`: several tiles along each axis with a
//! pipeline that turns over, rows that the fused kernels can take, plans of all kinds on four
//! streams at once, and replays of a graph. On a card where there is one, else on simulated
//! machines.

use fused_lora::cuda::Workspace;
use fused_lora::cuda::cudarc::driver::CudaContext;
use fused_lora::cuda::cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use fused_lora::reference::Sums;
use fused_lora::{Choice, DType, Layout, Major, Operand, Operation, Plan, Problem};
use rand::prelude::*;
use rand::rngs::StdRng;
use test_support::cuda::{DeviceBuffers, Gpu};
use test_support::machine::{Machine, on, on_all};
use test_support::test_name;
use test_support::{
    Buffers, Case, Executor, Fill, Harness, Reference, Rows, Stored, Usage, assert_exact, draw,
    feasible, launch, shrunk_is_exact,
};

/// Wide enough for three tiles of 256 columns, and long enough for three of 128 rows.
const WIDE: usize = 523;
const LONG: usize = 270;
/// Twice the steps that the deepest pipeline has in flight, and a ragged one: 2 · 5 · 32.
const DEEP: usize = 330;

/// Few tokens, whose kernels read `w` in longer pieces.
const FEW: usize = 11;
const LONG_ROW: usize = 1030;

/// Two to three tiles along each axis of what an operation writes, and for few tokens along those
/// that they leave.
fn large(operation: Operation, few: bool, rank: usize) -> Option<Problem> {
    let [tokens, in_features, out_features] = match operation {
        Operation::Forward if few => [FEW, LONG_ROW, WIDE],
        Operation::BackwardInput | Operation::BackwardShrink if few => [FEW, WIDE, LONG_ROW],
        _ if few => return None,
        Operation::Forward => [LONG, DEEP, WIDE],
        Operation::BackwardInput | Operation::BackwardShrink => [LONG, WIDE, DEEP],
        // The sum is over tokens.
        Operation::BackwardAdapter => [2 * DEEP, LONG, WIDE],
        _ => [1, LONG, WIDE],
    };
    let problem = Problem::new(operation, tokens, in_features, out_features, rank);
    Some(problem.with_scale(0.5).with_bias(operation == Operation::Forward))
}

/// Rows of 16-byte multiples, and one that is not.
fn with_layouts(problem: Problem, major: Major, gap: usize) -> Problem {
    Operand::ALL.iter().copied().fold(problem, |problem, operand| {
        let major = if operand.either_major() { major } else { Major::Row };
        let problem = problem.with_layout(operand, Layout { major, ..Layout::default() });
        let Some(spec) = problem.spec(operand) else { return problem };
        let stride = Some(spec.stored().1.next_multiple_of(8) + gap);
        problem.with_layout(operand, Layout { major, stride, align: 0 })
    })
}

/// Small integers, so that the results are exact: one wrong stage, tile or flag shows.
#[test]
fn several_tiles_along_each_axis() {
    on(Machine::Any, test_name!(), "", || {
        let mut harness = Harness::of("several tiles", vec![Box::new(Gpu::new())]);
        let layouts = [(Major::Row, 0), (Major::Col, 0), (Major::Row, 1), (Major::Col, 1)];
        // Small integers have no more than the eleven bits that tf32 keeps.
        let types = [
            (DType::F32, 24, false),
            (DType::F16, 24, false),
            (DType::Bf16, 24, false),
            (DType::F32, 13, true),
        ];
        for (operation, few) in
            Operation::ALL.iter().copied().flat_map(|of| [(of, false), (of, true)])
        {
            for (at, (major, gap)) in layouts.into_iter().enumerate() {
                for (seed, (dtype, rank, tf32)) in types.into_iter().enumerate() {
                    let Some(problem) = large(operation, few, rank) else { continue };
                    let problem = problem.with_dtype(dtype).with_tf32(tf32);
                    if tf32 && (gap > 0 || !problem.is_tf32()) {
                        continue;
                    }
                    let problem = with_layouts(problem, major, gap);
                    let case = Case::new(problem, Fill::Integers, (at * 3 + seed) as u64);
                    let before = case.buffers();
                    let mut reference = Reference::new(&problem, &before);
                    harness.each(&problem, None, |executor, plan| {
                        let expected = reference.of(Sums::F32);
                        assert!(shrunk_is_exact(&problem, expected), "no exact case: {problem:?}");
                        let after = launch(executor, plan, &before, &case);
                        assert_exact(plan, &after, expected, &case);
                    });
                }
            }
        }
        harness.report();
        let whole = harness.is_free() && Gpu::new().one_in(Rows::Drawn) == 1;
        assert!(!whole || !harness.ran().is_empty(), "nothing ran");
    });
}

/// Both sides of every tile, and both sides of 16 tokens.
const SIZES: [[usize; 3]; 10] = [
    [1, 64, 48],
    [5, 9, 300],
    [16, 300, 530],
    [17, 257, 11],
    [61, 257, 130],
    [64, 128, 32],
    [128, 128, 128],
    [130, 96, 264],
    [200, 72, 301],
    [300, 530, 24],
];

/// Drawn problems seldom give every operand rows of 16-byte multiples, which the fused
/// kernels want: here all have them.
fn aligned(seed: u64) -> Problem {
    let mut rng = StdRng::seed_from_u64(seed);
    let problem = draw(&mut rng, &SIZES);
    let major = if rng.random() { Major::Row } else { Major::Col };
    // Two problems of three have an adapter that the main loop can carry.
    let converts = rng.random_range(0..3) == 0;
    let adapter = if converts { problem.adapter() } else { problem.activation() };
    with_layouts(problem, major, 0).with_adapter(adapter)
}

/// Of what is listed here, one in so many where fewer candidates than the simulated driver's usual sample are
/// asked for.
fn step() -> usize {
    (Gpu::new().one_in(Rows::Drawn) / SAMPLE).max(1) as usize
}

/// The simulated driver's own: one candidate in four.
const SAMPLE: u64 = 4;

/// Within the tolerance, or with small integers to the bit.
#[test]
fn aligned_rows_match_the_reference() {
    on(Machine::Any, test_name!(), "", || {
        let mut harness = Harness::of("aligned rows", vec![Box::new(Gpu::new())]);
        let mut usage = Usage::default();
        let fills = [Fill::Uniform, Fill::Outliers, Fill::Tiny, Fill::Integers];
        for seed in (0..400).step_by(step()) {
            let fill = fills[seed as usize % fills.len()];
            let problem = match fill {
                Fill::Integers => aligned(seed).with_scale(0.5).with_beta(-0.5),
                _ => aligned(seed),
            };
            let case = Case::new(problem, fill, seed);
            let before = case.buffers();
            let mut reference = Reference::new(&problem, &before);
            harness.each(&problem, None, |executor, plan| {
                let after = launch(executor, plan, &before, &case);
                let expected = reference.of(sums(&problem));
                match fill {
                    Fill::Integers => {
                        assert!(shrunk_is_exact(&problem, expected), "no exact case: {problem:?}");
                        assert_exact(plan, &after, expected, &case);
                    }
                    _ => usage.check(plan, &after, expected, &case),
                }
            });
        }
        harness.finish();
        usage.report(None);
    });
}

/// A NaN in the last column of one row reaches that row of the result, or that column, alone.
#[test]
fn aligned_rows_keep_a_nan_to_themselves() {
    on(Machine::Any, test_name!(), "", || {
        let mut harness = Harness::of("aligned NaN", vec![Box::new(Gpu::new())]);
        for (operation, dtype) in [
            (Operation::Forward, DType::Bf16),
            (Operation::BackwardInput, DType::F16),
            (Operation::Forward, DType::F32),
        ] {
            let (from, to) = match operation {
                Operation::Forward => (Operand::X, Operand::Y),
                _ => (Operand::Dy, Operand::Dx),
            };
            for (tokens, bad, major) in [(13, 12, Major::Row), (140, 63, Major::Col)] {
                let problem = Problem::new(operation, tokens, 77, 75, 11).with_dtype(dtype);
                let problem = with_layouts(problem, major, 0);
                let case = Case::new(problem, Fill::Uniform, 8);
                let (mut row, mut col) = (case.buffers(), case.buffers());
                let deep = row.at(from).spec.cols - 1;
                row.at_mut(from).set(bad, deep, f32::NAN);
                let hit = 64;
                match operation {
                    Operation::Forward => col.at_mut(Operand::W).set(hit, deep, f32::NAN),
                    _ => col.at_mut(Operand::W).set(deep, hit, f32::NAN),
                }
                harness.each(&problem, None, |executor, plan| {
                    let after = launch(executor, plan, &row, &case);
                    assert_nans(plan, after.at(to), |row, _| row == bad);
                    let after = launch(executor, plan, &col, &case);
                    assert_nans(plan, after.at(to), |_, col| col == hit);
                });
            }
        }
        harness.report();
    });
}

fn assert_nans(plan: &Plan, stored: &Stored, bad: impl Fn(usize, usize) -> bool) {
    for row in 0..stored.spec.rows {
        for col in 0..stored.spec.cols {
            let (got, want) = (stored.get(row, col), bad(row, col));
            let (name, operand) = (plan.choice(), stored.operand);
            assert_eq!(got.is_nan(), want, "{name}: {operand}[{row}, {col}] is {got}");
        }
    }
}

/// How CUDA's kernels sum.
fn sums(problem: &Problem) -> Sums {
    match problem.activation() {
        DType::F32 => Sums::F32,
        _ => Sums::TensorCore,
    }
}

/// Every plan that serves one of a few problems: all kernels between them; or a sample of these.
fn plans(gpu: &Gpu) -> Vec<Plan> {
    let capabilities = gpu.executor.capabilities();
    let mut plans = Vec::new();
    for &operation in Operation::ALL {
        let problem = Problem::new(operation, 150, 88, 200, 16).with_scale(0.5);
        let deep = Problem::new(operation, 9, 300, 72, 16).with_scale(0.5);
        for problem in [
            problem.with_dtype(DType::Bf16).with_bias(true),
            problem.with_dtype(DType::F16).with_adapter(DType::F32).with_gradient(DType::F32),
            with_layouts(problem.with_dtype(DType::Bf16), Major::Col, 1),
            problem.with_dtype(DType::F32),
            deep.with_dtype(DType::Bf16),
            deep.with_dtype(DType::F32),
        ] {
            // What no kernel serves yet is refused by name; `drawn` asks for that.
            if Plan::new(&problem, &capabilities).is_err() {
                continue;
            }
            let choices = feasible(&problem, &capabilities, &Choice::default());
            plans.extend(choices.iter().map(|choice| {
                Plan::choose(&problem, &capabilities, choice).expect("a choice that serves")
            }));
        }
    }
    plans.into_iter().step_by(step()).collect()
}

/// A plan with its operands on the device, between runs.
struct Flight {
    plan: Plan,
    case: Case,
    before: Buffers,
    on_device: DeviceBuffers,
}

impl Flight {
    fn new(gpu: &Gpu, plan: Plan, seed: u64) -> Flight {
        let case = Case::new(*plan.problem(), Fill::Uniform, seed);
        let before = case.buffers();
        let on_device = DeviceBuffers::upload(&gpu.stream, &before);
        Flight { plan, case, before, on_device }
    }

    fn run(&mut self, gpu: &Gpu, workspace: &mut Workspace) {
        let operands = self.on_device.operands(&self.before);
        let run = gpu.executor.run(&gpu.stream, &self.plan, operands, workspace);
        run.unwrap_or_else(|error| panic!("{error}\n{}", self.plan.explain()));
    }

    /// What it has on the device, after everything on its stream.
    fn result(&self) -> Buffers {
        let mut after = self.before.clone();
        self.on_device.download(&mut after);
        after.assert_guards(&self.before);
        after
    }

    fn check(&self, after: &Buffers) {
        let problem = *self.plan.problem();
        let mut reference = Reference::new(&problem, &self.before);
        let expected = reference.of(sums(&problem));
        Usage::default().check(&self.plan, after, expected, &self.case);
    }
}

/// Of all plans every `count`-th from `first` on.
fn share(plans: &[Plan], first: usize, count: usize) -> impl Iterator<Item = &Plan> {
    plans.iter().skip(first).step_by(count)
}

/// Four streams with a workspace each; every plan is given to one of them, and nobody waits in
/// between. The bits are those of the same plan alone.
#[test]
fn plans_of_all_kinds_on_four_streams_at_once() {
    const STREAMS: usize = 4;
    on_all(test_name!(), || {
        let first = Gpu::new();
        let all = plans(&first);
        let most = all.iter().map(Plan::workspace_len).max().unwrap_or(0);
        let room = |gpu: &Gpu| Workspace::new(&gpu.stream, most).expect("a workspace");
        let mut lanes: Vec<_> = (0..STREAMS)
            .map(|lane| {
                let stream = first.executor.context().new_stream().expect("a stream");
                let gpu = Gpu { executor: first.executor.clone(), stream };
                let flights: Vec<_> = share(&all, lane, STREAMS)
                    .enumerate()
                    .map(|(at, plan)| Flight::new(&gpu, plan.clone(), at as u64))
                    .collect();
                let workspace = room(&gpu);
                (gpu, workspace, flights)
            })
            .collect();
        for at in 0..all.len().div_ceil(STREAMS) {
            for (gpu, workspace, flights) in &mut lanes {
                if let Some(flight) = flights.get_mut(at) {
                    flight.run(gpu, workspace);
                }
            }
        }
        for (_, _, flights) in &lanes {
            for (at, flight) in flights.iter().enumerate() {
                let after = flight.result();
                flight.check(&after);
                let mut alone = Flight::new(&first, flight.plan.clone(), at as u64);
                alone.run(&first, &mut room(&first));
                after.assert_same_bits(&alone.result(), &flight.plan.choice().to_string());
            }
        }
        println!("{} plans on {STREAMS} streams", all.len());
    });
}

/// A run, and replays of a graph of the same plan: the same bits.
#[test]
fn every_plan_replays_equal_bits() {
    on_all(test_name!(), || {
        let context = CudaContext::new(0).expect("a device");
        // SAFETY: one stream does everything below. cudarc's events cannot be captured.
        unsafe { context.disable_event_tracking() };
        let gpu = Gpu::on(&context);
        let all = plans(&gpu);
        for (at, plan) in all.iter().enumerate() {
            let name = plan.choice().to_string();
            let mut flight = Flight::new(&gpu, plan.clone(), at as u64);
            let mut workspace = Workspace::for_plan(&gpu.stream, plan).expect("a workspace");
            flight.run(&gpu, &mut workspace);
            let first = flight.result();
            flight.check(&first);

            let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
            gpu.stream.begin_capture(mode).expect("a capture");
            flight.run(&gpu, &mut workspace);
            let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
            let graph = gpu.stream.end_capture(flags).expect("an unspoilt capture");
            let graph = graph.expect("a graph");
            for replay in ["first replay", "second replay"] {
                flight.on_device.restore(&flight.before);
                graph.launch().expect("a replay");
                flight.result().assert_same_bits(&first, &format!("{replay} of {name}"));
            }
        }
        println!("{} plans replayed", all.len());
    });
}

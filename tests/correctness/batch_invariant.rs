//! `Problem::with_batch_invariant`: a row gets the same bits alone and among others, whichever these
//! are and however many, on every executor and by every candidate of its plan; on the CPU, with any
//! number of workers.

use fused_lora::cpu::Cpu;
use fused_lora::{
    AdapterKind, Capabilities, Choice, CpuCapabilities, CudaCapabilities, DType, Layout, Operand,
    Operation, Outcome, Plan, Problem, WgpuCapabilities,
};
use test_support::{Buffers, Case, Executor, Fill, feasible};

/// The batch that rows are compared with.
const BATCH: usize = 600;

/// Operations with rows, in every storage type, with old values and in both majors, of sizes that
/// fill no tile; `few`: one of each.
fn problems(few: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    let operations = [Operation::Forward, Operation::BackwardInput, Operation::BackwardShrink];
    for (at, operation) in operations.into_iter().enumerate() {
        for (of, &dtype) in DType::ALL.iter().enumerate() {
            let sizes = [[264, 80, 5], [72, 17, 1], [300, 1, 2], [1, 40, 3], [2, 9, 0]];
            for (number, [k, n, r]) in sizes.into_iter().enumerate() {
                let skip = number > 1 || (number == 1) != ((at + of) % 3 == 2);
                if (few && skip) || (r == 0 && operation == Operation::BackwardShrink) {
                    continue;
                }
                let problem = Problem::new(operation, BATCH, k, n, r)
                    .with_dtype(dtype)
                    .with_adapter(if at == 1 { DType::F32 } else { dtype })
                    .with_scale(0.7)
                    .with_bias(true)
                    .with_beta(if of == 1 { 0.3 } else { 0.0 })
                    .with_precise(at == 0 && number == 0)
                    .with_batch_invariant(true);
                problems.push(problem);
                if !few {
                    let turned = [Operand::W, Operand::A, Operand::B];
                    let turn = |of: Problem, operand| of.with_layout(operand, Layout::TRANSPOSED);
                    problems.push(turned.into_iter().fold(problem, turn));
                }
            }
        }
    }
    problems
}

/// Rows `first..first + tokens` of `batch`, and all that is no row.
fn part(problem: &Problem, batch: &Buffers, first: usize) -> Buffers {
    let mut part = Case::new(*problem, Fill::Uniform, 11).aligned_buffers();
    for stored in &mut part.stored {
        let of = batch.at(stored.operand);
        let first = if of.spec.rows == BATCH { first } else { 0 };
        let (rows, cols) = (stored.spec.rows, stored.spec.cols);
        for (row, col) in (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col))) {
            stored.set(row, col, of.get(first + row, col));
        }
    }
    part
}

fn run(executor: &dyn Executor, plan: &Plan, mut buffers: Buffers) -> Buffers {
    let mut scratch = executor.scratch(plan.workspace_len());
    executor.fill(&mut scratch, f32::NAN);
    let ran = executor.run(plan, &mut buffers, &mut scratch);
    ran.unwrap_or_else(|error| panic!("{error}\n{}", plan.explain()));
    buffers
}

/// Every candidate, with these numbers of tokens, for all of `devices` against the first's batch.
fn check(
    executor: &dyn Executor,
    problem: &Problem,
    devices: &[Capabilities],
    tokens: impl Iterator<Item = usize> + Clone,
) -> usize {
    let before = Case::new(*problem, Fill::Uniform, 11).aligned_buffers();
    let mut runs = 0;
    for choice in feasible(problem, &devices[0], &Choice::default()) {
        let plan = Plan::choose(problem, &devices[0], &choice).unwrap();
        let batch = run(executor, &plan, before.clone());
        for (at, tokens) in tokens.clone().enumerate() {
            let device = &devices[at % devices.len()];
            let first = [0, (BATCH - tokens) / 2, BATCH - tokens][at % 3];
            let problem = problem.with_tokens(tokens);
            let plan = Plan::choose(&problem, device, &choice).unwrap();
            assert_eq!(plan.choice(), choice);
            let after = run(executor, &plan, part(&problem, &before, first));
            runs += 1;
            for stored in after.outputs() {
                let of = batch.at(stored.operand);
                for row in 0..tokens {
                    for col in 0..stored.spec.cols {
                        let (got, want) = (stored.index(row, col), of.index(first + row, col));
                        let (got, want) = (stored.data.bits(got), of.data.bits(want));
                        assert!(
                            got == want,
                            "{}[{row}, {col}] of {tokens} tokens from {first} on: {got:#x}, in the \
                             batch {want:#x}\n{}",
                            stored.operand,
                            plan.explain()
                        );
                    }
                }
            }
        }
    }
    runs
}

#[test]
fn rows_are_alone_on_the_cpu() {
    let devices = [1, 2, 3, 5].map(|workers| Capabilities::Cpu(CpuCapabilities::new(workers)));
    let mut runs = 0;
    for (at, problem) in problems(false).iter().enumerate() {
        // All counts for some, every seventh for the others.
        let step = if at % 12 == 0 { 1 } else { 7 };
        runs += check(&Cpu::new(), problem, &devices, (1..=BATCH).step_by(step));
    }
    println!("{runs} runs");
    assert!(runs > 5_000, "{runs}");
}

/// Counts around every tile.
const TOKENS: [usize; 16] = [1, 2, 4, 5, 8, 9, 16, 17, 33, 63, 64, 65, 128, 129, 511, BATCH];

#[cfg(feature = "wgpu")]
#[test]
fn rows_are_alone_on_wgpu() {
    for gpu in test_support::gpu::all() {
        let own = gpu.wgpu().capabilities();
        let mut runs = 0;
        for problem in problems(true) {
            runs += check(&gpu, &problem, &[own], TOKENS.into_iter());
        }
        println!("{runs} runs on {}", Executor::name(&gpu));
    }
}

#[cfg(all(feature = "cuda", unix))]
#[test]
fn rows_are_alone_on_cuda() {
    use test_support::cuda::Gpu;
    use test_support::machine::{Machine, on};
    use test_support::test_name;

    on(Machine::Any, test_name!(), "", || {
        let gpu = Gpu::new();
        let own = gpu.executor.capabilities();
        let mut runs = 0;
        for problem in problems(true) {
            runs += check(&gpu, &problem, &[own], TOKENS.into_iter().step_by(2));
        }
        println!("{runs} runs");
    });
}

fn devices() -> Vec<Capabilities> {
    let mut software = WgpuCapabilities::default();
    (software.adapter, software.subgroup) = (AdapterKind::Software, 8);
    let mut h200 = CudaCapabilities::default();
    (h200.compute_capability, h200.multiprocessors) = ((9, 0), 132);
    vec![
        Capabilities::Cpu(CpuCapabilities::new(8)),
        Capabilities::Cuda(CudaCapabilities::default()),
        Capabilities::Cuda(h200),
        Capabilities::Wgpu(WgpuCapabilities::default()),
        Capabilities::Wgpu(software),
    ]
}

/// One pick, one set of texts, whatever the tokens.
#[test]
fn the_pick_does_not_change_with_the_tokens() {
    for device in devices() {
        for operation in [Operation::Forward, Operation::BackwardInput, Operation::BackwardShrink] {
            let problem = Problem::new(operation, 1, 4096, 4096, 16).with_dtype(DType::Bf16);
            let plan = |tokens| {
                let problem = problem.with_batch_invariant(true).with_tokens(tokens);
                Plan::new(&problem, &device).unwrap_or_else(|error| panic!("{error}"))
            };
            let sources = |plan: &Plan| {
                let all = plan.launches().iter().map(|of| (of.kernel, of.source.clone()));
                all.collect::<Vec<_>>()
            };
            let first = plan(1);
            for tokens in [2, 15, 16, 17, 64, 600, 5000, 100_000] {
                let plan = plan(tokens);
                assert_eq!(plan.choice(), first.choice(), "{}", plan.explain());
                let mut texts = sources(&plan);
                texts.dedup();
                // Bands repeat them.
                assert!(texts.iter().all(|of| sources(&first).contains(of)), "{}", plan.explain());
            }
            let chosen = |of: &Outcome| matches!(of, Outcome::Chosen(_));
            assert_eq!(first.candidates().iter().filter(|of| chosen(&of.outcome)).count(), 1);
        }
    }
}

/// Presets for few tokens say why they are none; sums over tokens and merge are as they were.
#[test]
fn what_serves_few_tokens_is_left_out() {
    for device in devices() {
        let problem = Problem::forward(4, 4096, 4096, 16).with_batch_invariant(true);
        let plan = Plan::new(&problem, &device).unwrap();
        let few = plan.candidates().iter().find(|of| of.preset == "decode");
        if let Some(few) = few.filter(|_| device.executor() != "wgpu") {
            let reason = "tokens up to 16: a row's bits must not depend on their number".to_owned();
            assert_eq!(few.outcome, Outcome::Refused(reason), "{}", plan.explain());
        }
        for operation in [Operation::BackwardAdapter, Operation::Merge, Operation::Unmerge] {
            let problem = problem.with_operation(operation);
            assert!(!problem.is_batch_invariant());
            let without = Plan::new(&problem.with_batch_invariant(false), &device).unwrap();
            assert_eq!(Plan::new(&problem, &device).unwrap().launches(), without.launches());
        }
    }
}

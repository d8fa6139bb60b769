//! Merge, then unmerge: w does not come back to the bit, because merging rounds it; but nor does it drift, however
//! often it is done. Every cycle ends where the first one did.

use fused_lora::{Choice, DType, Operand, Operation, Plan, Problem};
use test_support::{Buffers, Case, Executor, Fill, Rows, executors, feasible};

/// Rounds of merge and unmerge; where a run takes milliseconds, so many.
const CYCLES: usize = 1000;
const FEW_CYCLES: usize = 8;

/// An adapter far below the weight's size, below it, and above it.
const SCALES: [f32; 3] = [1e-3, 0.1, 1.5];

/// Carries out one of the two in place.
fn run(executor: &dyn Executor, operation: Operation, case: &Case, buffers: &mut Buffers) {
    let problem = case.problem.with_operation(operation);
    let capabilities = executor.capabilities()[0];
    for choice in feasible(&problem, &capabilities, &Choice::default()) {
        let plan = Plan::choose(&problem, &capabilities, &choice)
            .unwrap_or_else(|error| panic!("{choice} was possible, but: {error}"));
        let mut scratch = executor.scratch(plan.workspace_len());
        buffers.operation = operation;
        executor
            .run(&plan, buffers, &mut scratch)
            .unwrap_or_else(|error| panic!("{error}\n{}", plan.explain()));
        // One merge, not one of each candidate.
        return;
    }
    panic!("{} does not {operation}", executor.name());
}

fn bits(buffers: &Buffers) -> Vec<u32> {
    let w = buffers.at(Operand::W);
    (0..w.data.len()).map(|at| w.data.bits(at)).collect()
}

#[test]
fn cycles_end_where_the_first_did() {
    for executor in &executors() {
        let slow = executor.one_in(Rows::Drawn) > 1;
        let cycles = if slow { FEW_CYCLES } else { CYCLES };
        for &dtype in DType::ALL {
            for (at, scale) in SCALES.into_iter().enumerate() {
                let problem = Problem::new(Operation::Merge, 0, 72, 40, 8)
                    .with_dtype(dtype)
                    .with_adapter(DType::F32)
                    .with_scale(scale);
                let case = Case::new(problem, Fill::Outliers, at as u64);
                let mut buffers = case.aligned_buffers();
                let start = bits(&buffers);
                let mut ends = None;
                for cycle in 0..cycles {
                    run(executor.as_ref(), Operation::Merge, &case, &mut buffers);
                    run(executor.as_ref(), Operation::Unmerge, &case, &mut buffers);
                    let end = bits(&buffers);
                    let first = ends.get_or_insert_with(|| end.clone());
                    let moved = end.iter().zip(&*first).filter(|(end, first)| end != first).count();
                    assert_eq!(
                        moved,
                        0,
                        "{} {dtype} {scale}: cycle {cycle} drifts",
                        executor.name()
                    );
                }
                let moved =
                    bits(&buffers).iter().zip(&start).filter(|(end, start)| end != start).count();
                println!(
                    "  {} {dtype} {scale}: {moved} of {} elements are others than before",
                    executor.name(),
                    72 * 40
                );
                assert!(
                    moved > 0 || slow,
                    "{dtype} {scale}: nothing was rounded; the docs may promise more"
                );
            }
        }
    }
}

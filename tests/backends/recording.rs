//! What recording costs the host on wgpu: allocations, counted on a backend that does nothing with what is recorded, so that
//! they are this crate's and wgpu's own, and no driver's.

use fused_lora::wgpu::{Prepared, Workspace};
use fused_lora::{DType, Operation, Plan, Problem};
use test_support::counting::allocated;
use test_support::gpu::{Gpu, Placed};
use test_support::{Case, Fill};

/// Recordings in one pass.
const TIMES: u64 = 256;
/// What recording one launch may take of memory, bound anew: parameters, entries and a bind group, and what wgpu keeps of
/// each.
const OF_A_LAUNCH: u64 = 48;

#[test]
fn recording_allocates_little() {
    let gpu = Gpu::noop();
    for &operation in Operation::ALL {
        let problem = Problem::new(operation, 64, 72, 80, 8).with_dtype(DType::Bf16);
        let plan = Plan::new(&problem, &gpu.wgpu().capabilities()).expect("a plan");
        let buffers = Case::new(problem, Fill::Uniform, 1).aligned_buffers();
        let placed = Placed::new(&gpu, &buffers, false);
        let scratch = gpu.storage(&vec![0; plan.workspace_len()]);
        let operands = || placed.operands(&buffers, &mut |_, shape| Some(shape));
        let prepare = || -> Prepared {
            gpu.wgpu().prepare(&plan, operands(), Workspace::new(&scratch)).expect("bound")
        };
        let prepared = prepare();

        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        prepared.encode(&mut pass).expect("recorded");
        let before = gpu.wgpu().created();
        let count = allocated(|| {
            (0..TIMES).for_each(|_| prepared.encode(&mut pass).expect("recorded"));
        });
        // wgpu's list of commands grows, twofold each time.
        assert!(count <= TIMES / 16, "{operation}: {count} allocations in {TIMES} recordings");

        let launches = plan.launches().len() as u64;
        let bound: Vec<u64> = (0..TIMES).map(|_| allocated(|| drop(prepare()))).collect();
        let most = bound.iter().max().copied().unwrap_or_default();
        let least = bound.iter().min().copied().unwrap_or_default();
        println!("{operation}: {launches} launches, recorded {count}, bound {least} to {most}");
        assert!(least > 0, "{operation}: nothing is counted");
        assert!(most <= OF_A_LAUNCH * launches, "{operation}: {most} for {launches} launches");
        assert_eq!(gpu.wgpu().created(), before, "{operation}: made once more");
    }
}

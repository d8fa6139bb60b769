//! Large images, whose gradient the CPU cuts into strips of rows of pixels: for many workers, and for memory. The tokens at the
//! ends of a strip are part of two.

use fused_lora::cpu::Cpu;
use fused_lora::{Capabilities, Convolution, CpuCapabilities, DType, Operation, Plan, Problem};
use test_support::{Case, Executor, Fill, Reference, assert_exact, launch, shrunk_is_exact};

use super::BOTH;

#[test]
fn strips_of_an_image_come_out_exactly() {
    let of = |size, kernel| Convolution::new(1, size, kernel);
    let same = of([61, 40], [3, 3]).padding([1, 1]);
    let cases = [
        (same, 3, 7),
        (same, 16, 7),
        (same.stride([2, 1]), 12, 5),
        (same.stride([5, 3]), 64, 7),
        (same.padding([4, 2]).dilation([4, 2]), 5, 7),
        (of([61, 40], [1, 1]), 4, 7),
        (of([61, 40], [1, 1]).padding([1, 0]), 4, 7),
        // By memory: 32 channels of 600 pixels a row.
        (of([30, 600], [3, 3]).padding([1, 1]), 32, 1),
    ];
    for (at, (of, channels, workers)) in cases.into_iter().enumerate() {
        for of in BOTH.map(|order| of.channels(order)) {
            for (dtype, rank) in [(DType::F32, 2), (DType::F32, 0), (DType::Bf16, 0)] {
                let n = if workers > 1 { 96 } else { 3 };
                let problem = Problem::new(
                    Operation::BackwardInput,
                    of.tokens(),
                    channels * of.taps(),
                    n,
                    rank,
                )
                .with_dtype(dtype)
                .with_beta(if rank == 0 { 0.5 } else { 0.0 })
                .with_batch_invariant(at == 0 && rank > 0)
                .with_convolution(of);
                let workers = Capabilities::Cpu(CpuCapabilities::new(workers));
                let plan = Plan::new(&problem, &workers).unwrap();
                let case = Case::new(problem, Fill::Integers, at as u64);
                let before = case.buffers();
                let (cpu, mut reference) = (Cpu::new(), Reference::new(&problem, &before));
                let expected = reference.of(cpu.sums(&problem));
                assert!(shrunk_is_exact(&problem, expected), "{problem:?} is no exact case");
                let after = launch(&cpu, &plan, &before, &case);
                assert_exact(&plan, &after, expected, &case);
            }
        }
    }
}

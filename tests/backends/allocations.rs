//! What every launch on CUDA goes through allocates nothing on the host, in either tier: a counting
//! allocator sees what this process asks for (the simulated driver brings its own).

use fused_lora::cuda::Workspace;
use fused_lora::{Channels, Convolution, DType, Kronecker, Method, Operation, Problem};
use test_support::counting::allocated;
use test_support::cuda::{DeviceBuffers, Gpu};
use test_support::machine::{Machine, on};
use test_support::test_name;
use test_support::{Case, Fill};

#[test]
fn launching_allocates_nothing() {
    assert!(allocated(|| drop(std::hint::black_box(vec![0u8; 9]))) > 0, "nothing is counted");
    on(Machine::Any, test_name!(), "", || {
        let gpu = Gpu::new();
        let forward = Problem::forward(70, 72, 80, 8).with_dtype(DType::Bf16);
        let few = Problem::forward(9, 264, 80, 8).with_dtype(DType::Bf16).with_bias(true);
        let backward = forward.with_operation(Operation::BackwardInput);
        let of = Convolution::new(1, [6, 5], [3, 3]).padding([1, 1]).stride([1, 2]);
        let of = of.channels(Channels::Last);
        let whole = Kronecker::new(2, 4).taps_first(of.taps()).whole();
        let images = Problem::forward(of.tokens(), 16 * of.taps(), 24, 0)
            .with_method(Method::Lokr(whole))
            .with_dtype(DType::Bf16)
            .with_convolution(of);
        // The first launch of a process has cudarc look the driver's functions up.
        launches(&gpu, &forward, "leader/small");
        for (problem, choice) in [
            (forward, "leader/small"),
            (forward.with_adapter(DType::F32), "two_pass/small"),
            (few, "leader/decode"),
            (backward, "auto"),
            (backward.with_operation(Operation::BackwardAdapter), "auto"),
            (forward.with_operation(Operation::Merge), "auto"),
            (images, "auto"),
            (images.with_operation(Operation::BackwardInput), "auto"),
            (images.with_operation(Operation::BackwardAdapter), "auto"),
        ] {
            for (tier, count) in launches(&gpu, &problem, choice) {
                assert_eq!(count, 0, "{tier}: {} {choice}", problem.operation());
            }
        }
    });
}

/// What runs of a warm plan allocate, in each tier.
fn launches(gpu: &Gpu, problem: &Problem, choice: &str) -> [(&'static str, u64); 4] {
    let plan = gpu.plan(problem, choice);
    gpu.executor.warm_up(&plan).expect("kernels");
    let buffers = Case::new(*problem, Fill::Uniform, 1).buffers();
    let mut on_device = DeviceBuffers::upload(&gpu.stream, &buffers);
    let other = gpu.executor.context().new_stream().expect("a stream");
    let mut shared = Workspace::for_plan(&gpu.stream, &plan).expect("a workspace");
    let wait = || gpu.executor.context().synchronize().expect("all of it");
    wait();

    let (raw, stream) = (on_device.raw(&buffers), gpu.stream.cu_stream());
    let raw = allocated(|| {
        let scaled = plan.with_scalars(0.5, problem.beta()).expect("other numbers");
        // SAFETY: everything lives until it is waited for, and nothing else is on its way.
        unsafe { gpu.executor.run_raw(stream, scaled, raw, shared.raw()) }.expect("a raw run");
    });
    wait();
    // On the workspace's own stream, on another, and back.
    let safe = [&gpu.stream, &other, &gpu.stream].map(|stream| {
        let operands = on_device.operands(&buffers);
        allocated(|| gpu.executor.run(stream, &plan, operands, &mut shared).expect("a run"))
    });
    wait();
    [
        ("the raw tier", raw),
        ("the safe tier", safe[0]),
        ("the safe tier on another stream", safe[1]),
        ("the safe tier on the first again", safe[2]),
    ]
}

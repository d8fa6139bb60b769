//! What only the CUDA executor can get wrong: two tiers, graphs, streams and threads, and the one
//! workspace they may share. On a card where there is one, else on simulated machines that
//! differ in order and timing.

use std::sync::Arc;
use std::thread;

use fused_lora::cuda::cudarc::driver::result::{ctx, memset_d8_async};
use fused_lora::cuda::cudarc::driver::sys::{
    CUgraphInstantiate_flags, CUstreamCaptureMode, CUstreamCaptureStatus,
};
use fused_lora::cuda::cudarc::driver::{CudaContext, CudaGraph, CudaStream};
use fused_lora::cuda::{Cuda, RawWorkspace, WORKSPACE_HEADER, Workspace};
use fused_lora::reference::Sums;
use fused_lora::{DType, Device, Error, Forward, Operation, Plan, Problem, Tensor};
use test_support::cuda::{DeviceBuffers, Gpu, litter};
use test_support::machine::{Machine, on, on_all};
use test_support::test_name;
use test_support::{Buffers, Case, Fill, Reference, Usage};

/// Several tiles each way, and ragged; shrunk is passed by flags.
const LEADER: &str = "leader/small";

fn forward() -> Problem {
    Problem::forward(150, 88, 200, 16).with_dtype(DType::Bf16).with_scale(0.5).with_bias(true)
}

fn case(problem: Problem, seed: u64) -> Case {
    Case::new(problem, Fill::Uniform, seed)
}

/// Checks what ran against the reference.
fn check(plan: &Plan, case: &Case, before: &Buffers, after: &Buffers) {
    after.assert_guards(before);
    let problem = *plan.problem();
    let mut reference = Reference::new(&problem, before);
    Usage::default().check(plan, after, reference.of(Sums::TensorCore), case);
}

/// One run of `case` through the safe tier, waited for.
fn run(gpu: &Gpu, plan: &Plan, case: &Case, workspace: &mut Workspace) -> Buffers {
    let before = case.buffers();
    let mut after = before.clone();
    let mut on_device = DeviceBuffers::upload(&gpu.stream, &before);
    let operands = on_device.operands(&before);
    gpu.executor.run(&gpu.stream, plan, operands, workspace).expect("a run");
    on_device.download(&mut after);
    check(plan, case, &before, &after);
    after
}

fn workspace(gpu: &Gpu, plan: &Plan) -> Workspace {
    Workspace::for_plan(&gpu.stream, plan).expect("memory for a workspace")
}

#[test]
fn the_raw_tier_gives_the_same_bits_and_keeps_the_current_context() {
    on_all(test_name!(), || {
        let gpu = Gpu::new();
        let backward = forward().with_operation(Operation::BackwardInput).with_bias(false);
        for problem in [forward(), backward] {
            let (plan, case) = (gpu.plan(&problem, LEADER), case(problem, 1));
            let mut shared = workspace(&gpu, &plan);
            let safe = run(&gpu, &plan, &case, &mut shared);

            let (before, mut after) = (case.buffers(), case.buffers());
            let on_device = DeviceBuffers::upload(&gpu.stream, &before);
            let operands = on_device.raw(&before);
            gpu.stream.synchronize().expect("uploads");
            // SAFETY: this thread may have any context, or none.
            unsafe { ctx::set_current(std::ptr::null_mut()) }.expect("no context");
            // SAFETY: stream, operands and workspace live until the download below, which waits;
            // the workspace is used by this launch alone.
            unsafe {
                let stream = gpu.stream.cu_stream();
                gpu.executor.run_raw(stream, &plan, operands, shared.raw())
            }
            .expect("a raw run");
            assert_eq!(ctx::get_current().expect("a thread"), None, "left another context behind");
            on_device.download(&mut after);
            check(&plan, &case, &before, &after);
            after.assert_same_bits(&safe, "raw and safe tier");
        }
    });
}

fn begin(stream: &CudaStream) {
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL).expect("a capture");
}

fn end(stream: &Arc<CudaStream>) -> CudaGraph {
    let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    stream.end_capture(flags).expect("an unspoilt capture").expect("a graph")
}

/// Replays give the bits of a plain run; a capture that begins without any kernel loaded is not
/// spoilt by loading them.
#[test]
fn graphs_replay_equal_bits() {
    on_all(test_name!(), || {
        for cold in [true, false] {
            let gpu = Gpu::new();
            if cold && !gpu.loads_beside_captures() {
                continue;
            }
            // Two launches and more: the adapter is converted first.
            let converted = forward().with_adapter(DType::F32);
            for (problem, choice) in [(forward(), LEADER), (converted, "two_pass/small")] {
                let (plan, case) = (gpu.plan(&problem, choice), case(problem, 2));
                let (before, mut after) = (case.buffers(), case.buffers());
                let shared = workspace(&gpu, &plan);
                if !cold {
                    gpu.executor.warm_up(&plan).expect("kernels");
                }
                let loaded = gpu.executor.kernels();
                let mut on_device = DeviceBuffers::upload(&gpu.stream, &before);
                let operands = on_device.raw(&before);
                gpu.stream.synchronize().expect("uploads");
                begin(&gpu.stream);
                // SAFETY: everything outlives the graph, which is launched on one stream.
                unsafe {
                    let stream = gpu.stream.cu_stream();
                    gpu.executor.run_raw(stream, &plan, operands, shared.raw())
                }
                .expect("a captured run");
                let graph = end(&gpu.stream);
                assert_eq!(gpu.executor.kernels() == loaded, !cold, "kernels were loaded");

                let mut first: Option<Buffers> = None;
                for _ in 0..3 {
                    on_device.restore(&before);
                    graph.launch().expect("a replay");
                    on_device.download(&mut after);
                    check(&plan, &case, &before, &after);
                    let first = first.get_or_insert_with(|| after.clone());
                    after.assert_same_bits(first, "replays");
                }
                // Two replays without a look in between.
                on_device.restore(&before);
                graph.launch().expect("a replay");
                if problem.beta() == 0.0 {
                    graph.launch().expect("a replay");
                }
                on_device.download(&mut after);
                after.assert_same_bits(first.as_ref().expect("a first replay"), "replays");
                let mut plain = workspace(&gpu, &plan);
                run(&gpu, &plan, &case, &mut plain).assert_same_bits(&after, "run and replay");
            }
        }
    });
}

/// A driver before CUDA 12.3 would spoil the capture by loading a kernel: that is refused, in both
/// tiers, the capture is as it was, and what was loaded before is captured.
#[test]
fn an_older_driver_loads_nothing_beside_a_capture() {
    on(Machine::Simulated(&[("DRIVER_VERSION", "12020")]), test_name!(), "", || {
        let context = CudaContext::new(0).expect("a device");
        // SAFETY: one stream does everything below.
        unsafe { context.disable_event_tracking() };
        let gpu = Gpu::on(&context);
        let (plan, case) = (gpu.plan(&forward(), LEADER), case(forward(), 5));
        let before = case.buffers();
        let mut shared = workspace(&gpu, &plan);
        let mut on_device = DeviceBuffers::upload(&gpu.stream, &before);
        gpu.stream.synchronize().expect("uploads");
        begin(&gpu.stream);
        let raw = on_device.raw(&before);
        // SAFETY: refused, and everything outlives it.
        let in_raw =
            unsafe { gpu.executor.run_raw(gpu.stream.cu_stream(), &plan, raw, shared.raw()) };
        let operands = on_device.operands(&before);
        let in_safe = gpu.executor.run(&gpu.stream, &plan, operands, &mut shared);
        for refused in [in_raw, in_safe] {
            let Err(Error::Capture { reason }) = refused else { panic!("{refused:?}") };
            assert!(reason.contains("CUDA 12.3") && reason.contains("warm_up"), "{reason}");
        }
        let status = gpu.stream.capture_status().expect("a status");
        let active = CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE;
        assert_eq!(status, active, "the refusal spoilt the capture");
        drop(end(&gpu.stream));
        assert_eq!(gpu.executor.kernels(), 0);
        gpu.executor.warm_up(&plan).expect("kernels");
        begin(&gpu.stream);
        let operands = on_device.operands(&before);
        gpu.executor.run(&gpu.stream, &plan, operands, &mut shared).expect("a captured run");
        end(&gpu.stream).launch().expect("a replay");
        let mut after = before.clone();
        on_device.download(&mut after);
        check(&plan, &case, &before, &after);
    });
}

/// cudarc's events cannot be captured: the safe tier says so and leaves the capture alone; with
/// tracking off it is captured.
#[test]
fn the_safe_tier_is_captured_where_nothing_is_tracked() {
    on_all(test_name!(), || {
        let case = case(forward(), 3);
        let before = case.buffers();
        let tracked = Gpu::new();
        let plan = tracked.plan(&forward(), LEADER);
        let mut shared = workspace(&tracked, &plan);
        let mut on_device = DeviceBuffers::upload(&tracked.stream, &before);
        begin(&tracked.stream);
        let operands = on_device.operands(&before);
        let refused = tracked.executor.run(&tracked.stream, &plan, operands, &mut shared);
        let Err(Error::Capture { reason }) = refused else { panic!("{refused:?}") };
        assert!(reason.contains("disable_event_tracking"), "{reason}");
        let status = tracked.stream.capture_status().expect("a status");
        let active = CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE;
        assert_eq!(status, active, "the refusal spoilt the capture");
        drop(end(&tracked.stream));
        let mut after = before.clone();
        on_device.download(&mut after);
        after.assert_untouched(&before);

        let context = CudaContext::new(0).expect("a device");
        // SAFETY: one stream does everything below.
        unsafe { context.disable_event_tracking() };
        let gpu = Gpu::on(&context);
        let mut shared = workspace(&gpu, &plan);
        let mut on_device = DeviceBuffers::upload(&gpu.stream, &before);
        gpu.stream.synchronize().expect("uploads");
        if !gpu.loads_beside_captures() {
            gpu.executor.warm_up(&plan).expect("kernels");
        }
        begin(&gpu.stream);
        let operands = on_device.operands(&before);
        gpu.executor.run(&gpu.stream, &plan, operands, &mut shared).expect("a captured run");
        let graph = end(&gpu.stream);
        graph.launch().expect("a replay");
        on_device.download(&mut after);
        check(&plan, &case, &before, &after);
        // The kernels outlive the executor as long as the graph may need them.
        let Gpu { executor, stream } = gpu;
        drop(executor);
        on_device.restore(&before);
        graph.launch().expect("a replay without the executor");
        stream.synchronize().expect("the replay");
        on_device.download(&mut after);
        check(&plan, &case, &before, &after);
        drop(shared);
    });
}

/// Four streams, each with its own workspace, and one executor; four host threads, and then one
/// thread that gives all of them work before it waits for any.
#[test]
fn four_streams_at_once() {
    on_all(test_name!(), || {
        let first = Gpu::new();
        let plan = first.plan(&forward(), LEADER);
        let stream = |own: bool| match own {
            true => first.executor.context().new_stream().expect("a stream"),
            false => first.executor.context().per_thread_stream(),
        };
        for own in [true, false] {
            thread::scope(|scope| {
                for seed in 0..4 {
                    let (plan, executor, stream) = (&plan, first.executor.clone(), &stream);
                    scope.spawn(move || {
                        let gpu = Gpu { executor, stream: stream(own) };
                        let mut shared = workspace(&gpu, plan);
                        let case = case(forward(), seed);
                        let once = run(&gpu, plan, &case, &mut shared);
                        run(&gpu, plan, &case, &mut shared).assert_same_bits(&once, "two runs");
                    });
                }
            });
        }
        // The plan's kernels were loaded once, whoever came first.
        assert_eq!(first.executor.kernels(), plan.launches().len());

        let all: Vec<_> = (0..4).map(|seed| case(forward(), seed)).collect();
        let mut flights: Vec<_> = all
            .iter()
            .map(|case| {
                let gpu = Gpu { executor: first.executor.clone(), stream: stream(true) };
                let before = case.buffers();
                let on_device = DeviceBuffers::upload(&gpu.stream, &before);
                let shared = workspace(&gpu, &plan);
                (gpu, before, on_device, shared)
            })
            .collect();
        for (gpu, before, on_device, shared) in &mut flights {
            let operands = on_device.operands(before);
            gpu.executor.run(&gpu.stream, &plan, operands, shared).expect("a run");
        }
        for (case, (_, before, on_device, _)) in all.iter().zip(&flights) {
            let mut after = before.clone();
            on_device.download(&mut after);
            check(&plan, case, before, &after);
        }
    });
}

/// One workspace, runs on two streams and on the per-thread streams of two threads, and nobody
/// waits in between: each run comes after the one before. It grows and is dropped meanwhile.
#[test]
fn one_workspace_orders_its_streams() {
    on_all(test_name!(), || {
        let first = Gpu::new();
        let context = first.executor.context();
        let small = forward();
        let large =
            Problem::forward(210, 96, 300, 24).with_dtype(DType::F16).with_keep_shrunk(false);
        let plans = [small, large].map(|problem| first.plan(&problem, LEADER));
        let own = |stream| Gpu { executor: first.executor.clone(), stream };
        let gpus = [own(first.stream.clone()), own(context.new_stream().expect("a stream"))];
        // Room for the smaller plan alone.
        let mut shared = workspace(&first, &plans[0]);
        assert!(shared.len() < plans[1].workspace_len(), "the larger plan makes it grow");

        let mut flights = Vec::new();
        for at in 0..6u64 {
            let gpu = &gpus[at as usize % 2];
            let plan = &plans[usize::from(at >= 3)];
            let case = case(*plan.problem(), at);
            let before = case.buffers();
            let mut on_device = DeviceBuffers::upload(&gpu.stream, &before);
            shared.grow(&gpu.stream, plan.workspace_len()).expect("a larger workspace");
            let operands = on_device.operands(&before);
            gpu.executor.run(&gpu.stream, plan, operands, &mut shared).expect("a run");
            flights.push((plan, case, before, on_device));
        }
        // Per-thread streams: one handle, another stream on each thread. Without a wait these
        // runs would meet in the workspace.
        for at in 6..10u64 {
            let (plan, executor, shared) = (&plans[0], &first.executor, &mut shared);
            let flight = thread::scope(|scope| {
                let flight = scope.spawn(move || {
                    let stream = executor.context().per_thread_stream();
                    let case = case(*plan.problem(), at);
                    let before = case.buffers();
                    let mut on_device = DeviceBuffers::upload(&stream, &before);
                    let operands = on_device.operands(&before);
                    executor.run(&stream, plan, operands, shared).expect("a run");
                    // Read back on this thread: the stream is its own.
                    let mut after = before.clone();
                    on_device.download(&mut after);
                    check(plan, &case, &before, &after);
                    let operands = on_device.operands(&before);
                    executor.run(&stream, plan, operands, shared).expect("a run");
                    (plan, case, before, on_device)
                });
                flight.join().expect("a thread")
            });
            flights.push(flight);
        }
        drop(shared);
        context.synchronize().expect("all of it");
        for (plan, case, before, on_device) in flights {
            let mut after = before.clone();
            on_device.download(&mut after);
            check(plan, &case, &before, &after);
        }
    });
}

/// What scratch holds does not matter: garbage, all ones, the epoch that the header has, and the
/// one that the run will raise its flags to. For every kernel that keeps something there.
#[test]
fn scratch_may_hold_anything() {
    on_all(test_name!(), || {
        let gpu = Gpu::new();
        let few = Problem::forward(9, 520, 200, 16).with_dtype(DType::F16).with_scale(0.5);
        let small = Problem::forward(70, 40, 72, 16).with_dtype(DType::Bf16).with_scale(0.5);
        let converted = small.with_adapter(DType::F32).with_keep_shrunk(false);
        let gradient = small.with_operation(Operation::BackwardAdapter);
        for (problem, choice) in [
            (forward(), LEADER),
            (converted, LEADER),
            (converted, "two_pass/small"),
            (few, "leader/decode"),
            (gradient, "direct/gradient"),
        ] {
            let (plan, case) = (gpu.plan(&problem, choice), case(problem, 4));
            let mut shared = workspace(&gpu, &plan);
            let first = run(&gpu, &plan, &case, &mut shared);
            // After one run the epoch is 1, and so on.
            for (epoch, word) in [(1, 0), (2, u32::MAX), (3, 0x7fc0_7fc0), (4, 4), (5, 6)] {
                litter(&gpu.stream, &mut shared, word);
                let again = run(&gpu, &plan, &case, &mut shared);
                again.assert_same_bits(&first, &format!("{choice}, {word:#x} at epoch {epoch}"));
            }
        }
    });
}

/// A workspace is idle behind a run, and is not with a ticket drawn, a CTA gone, a strip begun, or garbage for a
/// header; what plans without a header take always is.
#[test]
fn a_workspace_says_whether_it_is_idle() {
    on_all(test_name!(), || {
        let gpu = Gpu::new();
        let plan = gpu.plan(&forward(), LEADER);
        let mut shared = workspace(&gpu, &plan);
        run(&gpu, &plan, &case(forward(), 1), &mut shared);
        let stream = gpu.stream.cu_stream();
        // SAFETY: the stream is the executor's, and the workspace lives until the end.
        let idle = |raw| unsafe { gpu.executor.is_idle_raw(stream, raw) }.expect("a copy");
        let raw = shared.raw();
        assert!(idle(raw) && idle(RawWorkspace::NONE));
        // The words of `kernels/abi.rs`: ticket, done, the last counter.
        for at in [128, 256, WORKSPACE_HEADER - 4] {
            let set = |byte| {
                // SAFETY: a word of the workspace, whose launches are done.
                unsafe { memset_d8_async(raw.address + at as u64, byte, 4, stream) }
                    .expect("a word");
            };
            set(1);
            assert!(!idle(raw), "word {at}");
            set(0);
            assert!(idle(raw), "word {at}");
        }
        // A flag, and the epoch, are whatever they are.
        // SAFETY: as above.
        unsafe { memset_d8_async(raw.address + 384, 1, 4, stream) }.expect("a word");
        assert!(idle(raw));
    });
}

/// A context that went, and one that came after it, may have one handle: kernels are those of the
/// executor's own.
#[test]
fn a_context_that_comes_again_has_its_own_kernels() {
    on(Machine::Any, test_name!(), "", || {
        let mut first: Option<Buffers> = None;
        for _ in 0..3 {
            let gpu = Gpu::new();
            let (plan, case) = (gpu.plan(&forward(), LEADER), case(forward(), 6));
            assert_eq!(gpu.executor.kernels(), 0);
            let after = run(&gpu, &plan, &case, &mut workspace(&gpu, &plan));
            assert_eq!(gpu.executor.kernels(), plan.launches().len());
            after.assert_same_bits(first.get_or_insert_with(|| after.clone()), "two contexts");
            // The last handle to the primary context: it goes, and its modules with it.
            assert_eq!(Arc::strong_count(gpu.executor.context()), 3, "executor, cache, stream");
        }
    });
}

/// The launches that reach the driver are those that the plan counts.
#[test]
fn launches_are_those_of_the_plan() {
    let name = test_name!();
    let file = std::env::temp_dir().join(format!("fused-lora-{}-counters", std::process::id()));
    let path = file.to_string_lossy().into_owned();
    let variables = [("COUNTERS", path.as_str())];
    let problems = || {
        let converted = forward().with_adapter(DType::F32);
        let shrink = forward().with_bias(false).with_operation(Operation::BackwardShrink);
        let gradient = shrink.with_operation(Operation::BackwardAdapter);
        let merge = shrink.with_operation(Operation::Merge);
        [forward(), converted, shrink, gradient, merge]
    };
    for at in 0..problems().len() {
        let said = on(Machine::Simulated(&variables), name, &at.to_string(), || {
            let gpu = Gpu::new();
            let plan = gpu.plan(&problems()[at], "auto");
            run(&gpu, &plan, &case(*plan.problem(), 5), &mut workspace(&gpu, &plan));
            let names: Vec<_> = plan.launches().iter().map(|launch| launch.kernel).collect();
            eprintln!("planned: {}", names.join(" "));
        });
        let Some(planned) = said.lines().find_map(|line| line.strip_prefix("planned: ")) else {
            // A child, started for another body.
            assert!(said.is_empty());
            continue;
        };
        let text = std::fs::read_to_string(&file).expect("a file of counters");
        std::fs::remove_file(&file).expect("a file of counters");
        let ran = text.lines().filter_map(|line| line.strip_prefix("== launch "));
        let ran: Vec<_> = ran
            .filter_map(|line| line.split_once('(')?.1.split(',').next())
            .map(str::to_owned)
            .collect();
        assert_eq!(ran.join(" "), planned);
    }
}

/// The plain layer on tensors.
fn plain<'a>(
    x: &'a Tensor,
    w: &'a Tensor,
    y: &'a mut Tensor,
) -> Forward<&'a Tensor, &'a mut Tensor> {
    let y = y.matrix_mut();
    Forward::new(x.matrix(), w.matrix(), y)
}

/// Tensors on a card: what goes up comes down, clones are written apart, plans run on them.
#[test]
fn tensors_live_on_the_card() {
    on(Machine::Any, test_name!(), "", || {
        let device = Device::open("cuda").expect("a card");
        assert_eq!(device.name(), "cuda");
        assert!(Device::available().contains(&"cuda".to_owned()));
        for &dtype in DType::ALL {
            let values: Vec<f32> = (0..35).map(|at| at as f32 / 3.0 - 5.0).collect();
            let rounded: Vec<f32> = values.iter().map(|&value| dtype.round(value)).collect();
            let tensor = device.tensor(5, 7, dtype, &values).expect("a tensor");
            let mut copy = tensor.clone();
            copy.write(&[1.0; 35]).expect("a write");
            assert_eq!(tensor.to_f32().expect("a readback"), rounded);
            assert_eq!(copy.to_f32().expect("a readback"), [1.0; 35]);
            let empty = device.zeros(0, 3, dtype).expect("a tensor of nothing");
            assert_eq!(empty.to_f32().expect("a readback"), [0.0; 0]);
        }
        let problem = Problem::forward(3, 8, 4, 0).with_dtype(DType::Bf16);
        let plan = device.plan(&problem).expect("a plan");
        let x = device.tensor(3, 8, DType::Bf16, &[1.0; 24]).expect("x");
        let w = device.tensor(4, 8, DType::Bf16, &[0.5; 32]).expect("w");
        let mut y = device.zeros(3, 4, DType::Bf16).expect("y");
        let shared = y.clone();
        device.run(&plan, plain(&x, &w, &mut y)).expect("a run");
        device.wait().expect("all of it");
        assert_eq!(y.to_f32().expect("a readback"), [4.0; 12]);
        assert_eq!(shared.to_f32().expect("a readback"), [0.0; 12], "a clone was written");
        let host = Device::cpu().zeros(3, 4, DType::Bf16);
        let mut host = host.expect("a tensor of the host");
        let error = device.run(&plan, plain(&x, &w, &mut host)).expect_err("another device");
        assert!(matches!(error, Error::OtherDevice { .. }), "{error:?}");
    });
}

/// A raw workspace is the caller's memory, and an executor may be made anew at any time.
#[test]
fn a_second_executor_of_the_context_is_as_good() {
    on(Machine::Any, test_name!(), "", || {
        let gpu = Gpu::new();
        let (plan, case) = (gpu.plan(&forward(), LEADER), case(forward(), 6));
        let mut shared = workspace(&gpu, &plan);
        let first = run(&gpu, &plan, &case, &mut shared);
        assert_ne!(shared.raw(), RawWorkspace::NONE);
        let executor = Cuda::new(gpu.executor.context()).expect("another executor");
        let other = Gpu { executor, stream: gpu.stream.clone() };
        drop(gpu);
        run(&other, &plan, &case, &mut shared).assert_same_bits(&first, "two executors");
    });
}

//! What only the wgpu executor can get wrong: buffers that WebGPU would not bind, plans for
//! other devices, weights larger than a binding, a host's own buffers and passes, and what is
//! made after warm-up. On every adapter of the machine, software ones too.

use fused_lora::wgpu::{Slice, Wgpu, Workspace, wgpu};
use fused_lora::{
    Adapter, AdapterKind, Capabilities, DType, Device, Error, Forward, Layout, Matrix, Operand,
    Plan, Problem, WgpuCapabilities,
};
use test_support::gpu::{Gpu, all};
use test_support::{Case, Executor, Fill, Reference, Usage, launch, odd};

/// The device's own capabilities, changed.
fn capabilities(gpu: &Gpu, change: impl Fn(&mut WgpuCapabilities)) -> Capabilities {
    let Capabilities::Wgpu(mut own) = gpu.wgpu().capabilities() else { panic!() };
    change(&mut own);
    Capabilities::Wgpu(own)
}

/// 5 tokens, 7 in, 9 out, rank 3.
fn forward() -> Problem {
    Problem::forward(5, 7, 9, 3)
}

/// A buffer for each operand of [`forward`], in this order.
const OPERANDS: [(Operand, usize, usize); 6] = [
    (Operand::X, 5, 7),
    (Operand::W, 9, 7),
    (Operand::A, 3, 7),
    (Operand::B, 9, 3),
    (Operand::Y, 5, 9),
    (Operand::Shrunk, 5, 8),
];

/// Operands of [`forward`] in slices, one each.
fn operands<'a>(slices: [Slice<'a>; 6]) -> Forward<Slice<'a>, Slice<'a>> {
    let mut all = OPERANDS.into_iter().zip(slices);
    let mut next = || {
        let ((_, rows, cols), slice) = all.next().expect("six of them");
        Matrix::new(slice, rows, cols)
    };
    let (x, w, a, b, y, shrunk) = (next(), next(), next(), next(), next(), next());
    let adapter = Some(Adapter::new(a, b));
    Forward::new(x, w, y).with_adapter(adapter).shrunk(shrunk)
}

/// A poisoned buffer for each operand, with `usage` for one of them.
fn buffers(gpu: &Gpu, odd: Option<(Operand, wgpu::BufferUsages)>) -> Vec<wgpu::Buffer> {
    let make = |(operand, rows, cols)| match odd {
        Some((of, usage)) if of == operand => gpu.device().create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: (rows * cols * 4) as u64,
            usage,
            mapped_at_creation: false,
        }),
        _ => gpu.storage(&vec![0xa5; rows * cols * 4]),
    };
    OPERANDS.map(make).into()
}

fn whole(buffers: &[wgpu::Buffer]) -> [Slice<'_>; 6] {
    std::array::from_fn(|at| Slice::new(&buffers[at], DType::F32))
}

/// What `encode` says; the pass must have stayed empty, so that no output has changed.
fn refused(
    gpu: &Gpu,
    wgpu: &Wgpu,
    plan: &Plan,
    slices: [Slice<'_>; 6],
    workspace: Workspace<'_>,
) -> Error {
    let outputs: Vec<_> = slices[4..].iter().map(|of| of.buffer()).collect();
    let readable = |of: &&&wgpu::Buffer| of.usage().contains(wgpu::BufferUsages::COPY_SRC);
    let outputs: Vec<_> = outputs.iter().filter(readable).copied().collect();
    let before = gpu.read(&outputs);
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    let error = wgpu.encode(&mut pass, plan, operands(slices), workspace).unwrap_err();
    drop(pass);
    gpu.queue().submit([encoder.finish()]);
    assert!(gpu.read(&outputs) == before, "an output was written beside {error}");
    error.cause().clone()
}

/// As much as the plan wants.
fn workspace(gpu: &Gpu, plan: &Plan) -> wgpu::Buffer {
    gpu.storage(&vec![0; plan.workspace_len()])
}

#[test]
fn usage() {
    for gpu in all() {
        let plan = Plan::new(&forward(), &gpu.wgpu().capabilities()).unwrap();
        let scratch = workspace(&gpu, &plan);
        for (operand, ..) in OPERANDS {
            let wrong = wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
            let buffers = buffers(&gpu, Some((operand, wrong)));
            let (slices, scratch) = (whole(&buffers), Workspace::new(&scratch));
            let error = refused(&gpu, gpu.wgpu(), &plan, slices, scratch);
            assert_eq!(error, Error::Usage { operand: Some(operand), expected: "STORAGE" });
            let text = format!("{operand}: expected a buffer with the usage STORAGE");
            assert!(error.to_string().starts_with(&*text), "{error}");
        }
        let plan = two_pass(&gpu);
        let wrong = gpu.device().create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 1 << 16,
            usage: wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let buffers = buffers(&gpu, None);
        let error = refused(&gpu, gpu.wgpu(), &plan, whole(&buffers), Workspace::new(&wrong));
        assert_eq!(error, Error::Usage { operand: None, expected: "STORAGE" });
        assert!(error.to_string().starts_with("workspace: "), "{error}");
    }
}

/// A plan of [`forward`] that needs a workspace.
fn two_pass(gpu: &Gpu) -> Plan {
    let capabilities = gpu.wgpu().capabilities();
    let problem = forward();
    let choices = test_support::feasible(&problem, &capabilities, &Default::default());
    let plans = choices.iter().map(|of| Plan::choose(&problem, &capabilities, of).unwrap());
    let mut needing = plans.filter(|plan| plan.workspace_len() > 0);
    needing.next().expect("a candidate with a workspace")
}

#[test]
fn misaligned() {
    for gpu in all() {
        let plan = Plan::new(&forward(), &gpu.wgpu().capabilities()).unwrap();
        let (buffers, scratch) = (buffers(&gpu, None), workspace(&gpu, &plan));
        let large = gpu.storage(&[0; 1024]);
        let mut slices = whole(&buffers);
        slices[0] = Slice::part(&large, DType::F32, 34..1024);
        let error = refused(&gpu, gpu.wgpu(), &plan, slices, Workspace::new(&scratch));
        assert_eq!(error, Error::Misaligned { operand: Operand::X, expected: 16, got: 34 });
        // A plan for less takes any element, and nothing between two.
        let plan = Plan::new(&odd(forward()), &gpu.wgpu().capabilities()).unwrap();
        let error = refused(&gpu, gpu.wgpu(), &plan, slices, Workspace::new(&scratch));
        assert_eq!(error, Error::Misaligned { operand: Operand::X, expected: 4, got: 34 });
    }
}

/// The last half of a buffer whose size is no multiple of a word cannot be bound.
#[test]
fn too_short_by_a_half() {
    for gpu in all() {
        let problem = Problem::forward(1, 3, 1, 0).with_dtype(DType::Bf16);
        let plan = Plan::new(&problem, &gpu.wgpu().capabilities()).unwrap();
        let odd = gpu.device().create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 6,
            usage: wgpu::BufferUsages::STORAGE,
            mapped_at_creation: false,
        });
        let [w, y] = [(); 2].map(|()| gpu.storage(&[0; 16]));
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        let scratch = workspace(&gpu, &plan);
        let operands = Forward::new(
            Matrix::new(Slice::new(&odd, DType::Bf16), 1, 3),
            Matrix::new(Slice::new(&w, DType::Bf16), 1, 3),
            Matrix::new(Slice::new(&y, DType::Bf16), 1, 1),
        );
        let result = gpu.wgpu().encode(&mut pass, &plan, operands, Workspace::new(&scratch));
        let error = Error::TooShort { operand: Operand::X, expected: 4, got: 3 };
        assert_eq!(result.unwrap_err().cause(), &error);
    }
}

#[test]
fn workspace_too_small_or_overlapping() {
    for gpu in all() {
        let plan = two_pass(&gpu);
        let expected = plan.workspace_len();
        let buffers = buffers(&gpu, None);
        let slices = whole(&buffers);
        let error = refused(&gpu, gpu.wgpu(), &plan, slices, Workspace::none());
        assert_eq!(error, Error::WorkspaceTooSmall { expected, got: 0 });
        // One byte into it the start is rounded up, and the end stays.
        let large = gpu.storage(&vec![0; expected.next_multiple_of(256) + 256]);
        let part = Workspace::part(&large, 1..expected as u64);
        let error = refused(&gpu, gpu.wgpu(), &plan, slices, part);
        let Error::WorkspaceTooSmall { expected: of, got } = error else { panic!("{error:?}") };
        assert!(of == expected && got < expected, "{got}");
        // Behind the end of the buffer there is none, wherever that is said to begin.
        for start in [large.size() + 1, u64::MAX - 3, u64::MAX] {
            let behind = Workspace::part(&large, start..u64::MAX);
            let error = refused(&gpu, gpu.wgpu(), &plan, slices, behind);
            assert_eq!(error, Error::WorkspaceTooSmall { expected, got: 0 }, "{start}");
        }
        // The workspace where y is.
        let mut slices = whole(&buffers);
        slices[4] = Slice::part(&large, DType::F32, 128..128 + 5 * 9 * 4);
        let error = refused(&gpu, gpu.wgpu(), &plan, slices, Workspace::new(&large));
        assert_eq!(error, Error::WorkspaceOverlap { operand: Operand::Y });
        assert!(error.to_string().starts_with("workspace: must not overlap y; "), "{error}");
    }
}

/// An input and an output in one buffer: refused by name, and served where planned for.
#[test]
fn shared_buffer() {
    for gpu in all() {
        let plan = Plan::new(&forward(), &gpu.wgpu().capabilities()).unwrap();
        let (buffers, scratch) = (buffers(&gpu, None), workspace(&gpu, &plan));
        let arena = gpu.storage(&[0; 4096]);
        let mut slices = whole(&buffers);
        slices[0] = Slice::part(&arena, DType::F32, 0..140);
        slices[4] = Slice::part(&arena, DType::F32, 2048..4096);
        let scratch_of = Workspace::new(&scratch);
        let error = refused(&gpu, gpu.wgpu(), &plan, slices, scratch_of);
        let (written, read) = (Some(Operand::Y), Operand::X);
        assert_eq!(error, Error::SharedBuffer { written, read });
        let text = error.to_string();
        assert!(text.contains("x and y") && text.contains("shared_buffers"), "{text}");

        let wgpu = gpu.wgpu().clone().with_shared_buffers(true);
        let plan = Plan::new(&forward(), &wgpu.capabilities()).unwrap();
        let scratch = workspace(&gpu, &plan);
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        wgpu.encode(&mut pass, &plan, operands(slices), Workspace::new(&scratch)).unwrap();
        drop(pass);
        gpu.queue().submit([encoder.finish()]);
        // The other operands hold one pattern; x is zero, so y is.
        let y = gpu.read(&[&arena]).remove(0);
        assert!(y[2048..2048 + 180].iter().all(|of| *of == 0), "y = 0·wᵀ");

        // The workspace and an input.
        let plan = two_pass(&gpu);
        let slices = whole(&buffers);
        let input = gpu.storage(&vec![0; 8192 + plan.workspace_len()]);
        let mut shared = slices;
        shared[1] = Slice::part(&input, DType::F32, 0..9 * 7 * 4);
        let behind = Workspace::part(&input, 4096..input.size());
        let error = refused(&gpu, gpu.wgpu(), &plan, shared, behind);
        // Whichever launch binds both.
        let Error::SharedBuffer { written: None, read: Operand::W } = error else {
            panic!("{error:?}")
        };
        assert!(error.to_string().contains("w and workspace"), "{error}");
    }
}

/// A plan for more than the device grants.
#[test]
fn device_limit_and_feature() {
    for gpu in all() {
        // The least that WebGPU grants, whatever the adapter could do.
        let adapter_device = gpu.least();
        let least = Wgpu::new(&adapter_device).unwrap();
        let plan_for = |change: &dyn Fn(&mut WgpuCapabilities)| {
            let Capabilities::Wgpu(mut own) = least.capabilities() else { panic!() };
            change(&mut own);
            least.warm_up(&Plan::new(&forward(), &Capabilities::Wgpu(own)).unwrap())
        };
        assert_eq!(plan_for(&|_| ()), Ok(()));
        assert_eq!(plan_for(&|of| of.f16 = true), Err(Error::Feature { feature: "SHADER_F16" }));
        assert_eq!(plan_for(&|of| of.subgroup = 8), Err(Error::Feature { feature: "SUBGROUP" }));
        let limit = |what, limit, got| Err(Error::DeviceLimit { what, limit, got });
        assert_eq!(
            plan_for(&|of| of.workgroup_bytes = 32768),
            limit("bytes of workgroup memory", 16384, 32768)
        );
        assert_eq!(
            plan_for(&|of| of.workgroup_threads = 512),
            limit("threads of a workgroup", 256, 512)
        );
        assert_eq!(plan_for(&|of| of.workgroups = 70_000), limit("workgroups", 65_535, 70_000));
        assert_eq!(plan_for(&|of| of.storage_buffers = 9), limit("storage buffers", 8, 9));
        assert_eq!(
            plan_for(&|of| of.binding_bytes = 1 << 28),
            limit("bytes of a storage binding", 1 << 27, 1 << 28)
        );
        assert_eq!(plan_for(&|of| of.binding_align = 32), limit("alignment of a binding", 256, 32));
        // A device that grants more runs what was planned for less, and tests do: `Gpu` has
        // the least among its capabilities.
        let cpu = Plan::new(&forward(), &Capabilities::cpu()).unwrap();
        assert_eq!(least.warm_up(&cpu), Err(Error::Executor { expected: "wgpu", got: "cpu" }));
        let device = Device::cpu();
        let plan = Plan::new(&forward(), &least.capabilities()).unwrap();
        let [x, w, a, b, mut y, mut shrunk] =
            OPERANDS.map(|(_, rows, cols)| device.zeros(rows, cols, DType::F32).unwrap());
        let operands = Forward::new(x.matrix(), w.matrix(), y.matrix_mut())
            .adapter(a.matrix(), b.matrix())
            .shrunk(shrunk.matrix_mut());
        let error = device.run(&plan, operands).unwrap_err();
        assert_eq!(error, Error::Executor { expected: "cpu", got: "wgpu" });
    }
}

/// One launch binds `w` in several windows where it is larger than a binding may be; x and y
/// go by bands of tokens. Limits made small, so that shapes can be, too.
#[test]
fn operands_over_the_binding_limit() {
    let mut usage = Usage::default();
    let mut windows = 0;
    for gpu in all() {
        for operation in [fused_lora::Operation::Forward, fused_lora::Operation::BackwardInput] {
            for layout in [Layout::default(), Layout::TRANSPOSED] {
                for &dtype in DType::ALL {
                    for tokens in [3, 150] {
                        // w is 150 KB or 75 KB, x and y at most 117 KB.
                        let problem = Problem::new(operation, tokens, 190, 195, 9)
                            .with_dtype(dtype)
                            .with_layout(Operand::W, layout);
                        let bytes = if dtype == DType::F32 { 100 << 10 } else { 50 << 10 };
                        let small = capabilities(&gpu, |of| of.binding_bytes = bytes);
                        let case = Case::new(problem, Fill::Uniform, tokens as u64);
                        let before = case.buffers();
                        let mut reference = Reference::new(&problem, &before);
                        let plan = Plan::new(&problem, &small).unwrap();
                        let of_w = |of: &&fused_lora::Binding| of.operand == Some(Operand::W);
                        let launches = plan.launches().iter();
                        let most = launches.map(|of| of.bindings.iter().filter(of_w).count());
                        windows = windows.max(most.max().unwrap_or(0));
                        let after = launch(&gpu, &plan, &before, &case);
                        usage.check(&plan, &after, reference.of(gpu.sums(&problem)), &case);
                    }
                }
            }
        }
    }
    usage.report(None);
    assert!(all().is_empty() || windows >= 2, "w was bound whole: the limit was not met");
}

/// Of large layers a thread of a software driver has more tokens, in two loops: 24 of them, whole tiles and ragged
/// ones; 16 where its vectors have 128 bits. Small integers come out exactly.
#[test]
fn threads_of_many_tokens_are_exact() {
    use fused_lora::Operation::{BackwardInput, Forward};
    for gpu in all() {
        let Capabilities::Wgpu(own) = gpu.wgpu().capabilities() else { panic!() };
        if own.adapter != AdapterKind::Software || own.subgroup == 0 {
            continue;
        }
        for (operation, tokens, dtype, tiles) in [
            (BackwardInput, 23, DType::Bf16, 1),
            (Forward, 41, DType::F32, 2),
            (BackwardInput, 72, DType::F16, 3),
            (Forward, 93, DType::Bf16, 4),
        ] {
            let (k, n) = if operation == Forward { (1024, 1460) } else { (1460, 1024) };
            let problem = Problem::new(operation, tokens, k, n, 3).with_dtype(dtype);
            let choice = "two_pass/subgroup".parse().unwrap();
            let plan = Plan::choose(&problem, &Capabilities::Wgpu(own), &choice).unwrap();
            let tiles = if own.subgroup == 4 { tokens.div_ceil(16) as u32 } else { tiles };
            assert_eq!(plan.launches().last().unwrap().grid[0], tiles, "{tokens} tokens");
            let case = Case::new(problem, Fill::Integers, 3);
            let before = case.buffers();
            let on_cpu = Plan::new(&problem, &Capabilities::cpu()).unwrap();
            let want = launch(&fused_lora::cpu::Cpu::new(), &on_cpu, &before, &case);
            let got = launch(&gpu, &plan, &before, &case);
            got.assert_same_bits(&want, &format!("{operation}, {tokens} tokens in {dtype}"));
        }
    }
}

/// A weight that is really larger than the 128 MiB of a default device, in both directions and
/// stored either way round, so that its two windows divide the outputs or the sums. Against the
/// CPU, whose integers are exact.
#[test]
fn a_weight_over_128_mib() {
    use fused_lora::Operation::{BackwardInput, Forward};
    for gpu in all() {
        for (seed, (operation, layout)) in [
            (Forward, Layout::default()),
            (Forward, Layout::TRANSPOSED),
            (BackwardInput, Layout::default()),
            (BackwardInput, Layout::TRANSPOSED),
        ]
        .into_iter()
        .enumerate()
        {
            let problem = Problem::new(operation, 2, 5800, 5924, 4).with_layout(Operand::W, layout);
            let spec = problem.spec(Operand::W).unwrap();
            assert!(spec.bytes() > 128 << 20);
            let default = capabilities(&gpu, |of| of.binding_bytes = 128 << 20);
            let plan = Plan::new(&problem, &default).unwrap();
            // Of one launch where they divide the sums, of a launch each where they divide the outputs.
            let bindings = plan.launches().iter().flat_map(|of| &of.bindings);
            let windows = bindings.filter(|of| of.operand == Some(Operand::W));
            let windows: Vec<_> = windows.map(|of| of.rows.unwrap()).collect();
            let [(0, first), (from, second)] = windows[..] else { panic!("{windows:?}") };
            assert!(first == from && from + second == spec.stored().0 && second > 30);

            let case = Case::new(problem, Fill::Integers, seed as u64);
            let before = case.buffers();
            let on_cpu = Plan::new(&problem, &Capabilities::cpu()).unwrap();
            let want = launch(&fused_lora::cpu::Cpu::new(), &on_cpu, &before, &case);
            let got = launch(&gpu, &plan, &before, &case);
            got.assert_same_bits(&want, &format!("{operation}, a weight of 131 MiB {layout:?}"));
        }
    }
}

/// What still does not fit is an error that names the operand and the limit.
#[test]
fn limit() {
    for gpu in all() {
        let tiny = capabilities(&gpu, |of| of.binding_bytes = 16 << 10);
        let error = Plan::new(&Problem::forward(4, 64, 40_000, 4), &tiny).unwrap_err();
        let Error::Limit { operand, what, limit, got } = error.clone() else { panic!("{error:?}") };
        assert!(limit <= 16 << 10 && got > 16 << 10 && !what.is_empty(), "{error}");
        assert!(error.to_string().starts_with(&format!("{operand}: ")), "{error}");
    }
}

/// A host sub-allocates: everything in one arena at odd places, one encoder, one pass, and a
/// prepared plan recorded again without anything made.
#[test]
fn nothing_is_made_after_warm_up() {
    for gpu in all() {
        let wgpu = Wgpu::new(gpu.device()).unwrap().with_shared_buffers(true);
        let operations = [
            fused_lora::Operation::Forward,
            fused_lora::Operation::BackwardInput,
            fused_lora::Operation::BackwardAdapter,
        ];
        for operation in operations {
            let problem = Problem::new(operation, 20, 33, 47, 5).with_dtype(DType::F16);
            let plan = Plan::new(&problem, &wgpu.capabilities()).unwrap();
            let before = wgpu.created();
            wgpu.warm_up(&plan).unwrap();
            let warm = wgpu.created();
            let texts: std::collections::HashSet<_> =
                plan.launches().iter().map(|of| of.source.clone()).collect();
            assert_eq!(warm.pipelines - before.pipelines, texts.len());
            assert_eq!(warm.blocks, before.blocks);
            let mut buffers = Case::new(problem, Fill::Uniform, 9).buffers();
            let arena = test_support::gpu::Placed::new(&gpu, &buffers, true);
            let scratch = workspace(&gpu, &plan);
            let all = arena.operands(&buffers, &mut |_, shape| Some(shape));
            let prepared = wgpu.prepare(&plan, all, Workspace::new(&scratch)).unwrap();
            let made = wgpu.created();
            assert_eq!(made.pipelines, warm.pipelines);
            assert!(made.blocks <= warm.blocks + plan.launches().len());
            for _ in 0..3 {
                let mut encoder = gpu.device().create_command_encoder(&Default::default());
                let mut pass = encoder.begin_compute_pass(&Default::default());
                prepared.encode(&mut pass).unwrap();
                let again = arena.operands(&buffers, &mut |_, shape| Some(shape));
                wgpu.encode(&mut pass, &plan, again, Workspace::new(&scratch)).unwrap();
                drop(pass);
                gpu.queue().submit([encoder.finish()]);
                assert_eq!(wgpu.created(), made);
            }
            arena.take(&gpu, &mut buffers);
        }
    }
}

/// Devices by name: a software adapter only where it is asked for.
#[test]
fn device_by_name() {
    let names = Device::available();
    for gpu in all() {
        assert!(names.contains(&gpu.name().to_owned()), "{names:?}");
        let device = Device::open(gpu.name()).unwrap();
        assert_eq!(device.name(), gpu.name());
        if !gpu.answers_to("wgpu") {
            let Capabilities::Wgpu(of) = Device::open(gpu.name()).unwrap().capabilities() else {
                panic!()
            };
            assert_eq!(of.adapter, fused_lora::AdapterKind::Software);
        }
    }
    if !all().iter().any(|gpu| gpu.answers_to("wgpu")) {
        let error = Device::open("wgpu").unwrap_err();
        assert!(error.to_string().starts_with("device: `wgpu` is not available"), "{error}");
        assert!(!Device::best().name().starts_with("wgpu"), "best is never a software adapter");
    }
    for name in ["wgpu:", "wgpu:no such adapter"] {
        let Error::Device { wanted, reason, .. } = Device::open(name).unwrap_err() else {
            panic!()
        };
        assert!(wanted == name && !reason.is_empty());
    }
}

/// Tensors in a device's memory: rounded, zero at first, cloned without a copy until written.
#[test]
fn tensors() {
    for gpu in all() {
        let device = Device::open(gpu.name()).unwrap();
        for &dtype in DType::ALL {
            for (rows, cols) in [(0, 3), (1, 1), (3, 5), (64, 33)] {
                let values: Vec<f32> = (0..rows * cols).map(|at| at as f32 / 3.0 - 5.0).collect();
                let rounded: Vec<f32> = values.iter().map(|value| dtype.round(*value)).collect();
                assert_eq!(
                    device.zeros(rows, cols, dtype).unwrap().to_f32().unwrap(),
                    vec![0.0; rows * cols]
                );
                let tensor = device.tensor(rows, cols, dtype, &values).unwrap();
                let mut clone = tensor.clone();
                clone.write(&vec![1.0; rows * cols]).unwrap();
                assert_eq!(tensor.to_f32().unwrap(), rounded, "{dtype}: a clone was written");
                assert_eq!(clone.to_f32().unwrap(), vec![1.0; rows * cols]);
            }
        }
        let error = device.tensor(2, 3, DType::F16, &[0.0; 5]).unwrap_err();
        assert_eq!(error, Error::TensorLen { shape: [2, 3], expected: 6, got: 5 });
        let error = device.zeros(usize::MAX, 2, DType::F32).unwrap_err();
        assert_eq!(error, Error::OutOfMemory { bytes: usize::MAX });
        let error = device.zeros(1 << 30, 1 << 10, DType::F32).unwrap_err();
        assert_eq!(error, Error::OutOfMemory { bytes: 1 << 42 });
    }
}

/// A run on clones writes the written one alone; a run waits for nothing, reading does.
#[test]
fn device_runs() {
    for gpu in all() {
        let (device, cpu) = (Device::open(gpu.name()).unwrap(), Device::cpu());
        let problem = Problem::forward(3, 4, 2, 0).with_beta(1.0);
        let plan = device.plan(&problem).unwrap();
        let x = device.tensor(3, 4, DType::F32, &[1.0; 12]).unwrap();
        let w = device.tensor(2, 4, DType::F32, &[2.0; 8]).unwrap();
        let old = device.tensor(3, 2, DType::F32, &[0.5; 6]).unwrap();
        let mut y = old.clone();
        for _ in 0..300 {
            let operands = |y| Forward::new(x.matrix(), w.matrix(), y);
            device.run(&plan, operands(y.matrix_mut())).unwrap();
        }
        device.wait().unwrap();
        assert_eq!(y.to_f32().unwrap(), [2400.5; 6]);
        assert_eq!(old.to_f32().unwrap(), [0.5; 6], "the clone was written");
        // Of two devices.
        let elsewhere = cpu.tensor(2, 4, DType::F32, &[2.0; 8]).unwrap();
        let mixed = Forward::new(x.matrix(), elsewhere.matrix(), y.matrix_mut());
        let error = device.run(&plan, mixed).unwrap_err();
        let (expected, got) = (gpu.name().to_owned(), "cpu".to_owned());
        assert_eq!(error, Error::OtherDevice { operand: Operand::W, expected, got });
    }
}

//! Every error of the CUDA executor, by a caller's mistake or by a driver that is missing, old,
//! out of memory or lost. The driver's are simulated; nothing is written beside an error.

use fused_lora::cuda::cudarc::driver::sys::{CUcontext, CUresult};
use fused_lora::cuda::cudarc::driver::{CudaContext, CudaSlice, result};
use fused_lora::cuda::{
    Raw, RawWorkspace, WORKSPACE_ALIGN, WORKSPACE_HEADER, Workspace, is_available, probe,
};
use fused_lora::{
    Capabilities, CudaCapabilities, DType, Device, Error, Forward, Layout, Operand, Operands, Plan,
    Problem,
};
use test_support::cuda::{DeviceBuffers, Gpu};
use test_support::machine::{Machine, on};
use test_support::test_name;
use test_support::{Buffers, Case, Fill};

fn forward() -> Problem {
    Problem::forward(40, 48, 72, 16).with_dtype(DType::Bf16)
}

fn simulated(test: &str, variables: &[(&str, &str)], body: impl FnOnce()) -> String {
    on(Machine::Simulated(variables), test, "", body)
}

/// Operands on the device, and what they held.
struct Stage {
    gpu: Gpu,
    plan: Plan,
    before: Buffers,
    on_device: DeviceBuffers,
    workspace: Workspace,
}

impl Stage {
    /// With a plan that uses the workspace.
    fn new() -> Stage {
        let gpu = Gpu::new();
        let plan = gpu.plan(&forward(), "leader/small");
        let before = Case::new(forward(), Fill::Uniform, 1).buffers();
        let on_device = DeviceBuffers::upload(&gpu.stream, &before);
        let workspace = Workspace::for_plan(&gpu.stream, &plan).expect("a workspace");
        Stage { gpu, plan, before, on_device, workspace }
    }

    fn run(&mut self) -> Result<(), Error> {
        let operands = self.on_device.operands(&self.before);
        self.gpu.executor.run(&self.gpu.stream, &self.plan, operands, &mut self.workspace)
    }

    fn raw(&self, operands: Operands<Raw, Raw>, workspace: RawWorkspace) -> Result<(), Error> {
        let stream = self.gpu.stream.cu_stream();
        // SAFETY: all memory lives until `assert_untouched` has waited; wrong operands are refused
        // before they are used.
        unsafe { self.gpu.executor.run_raw(stream, &self.plan, operands, workspace) }
    }

    /// Nothing was launched: after all work is done, the outputs are as they were.
    fn assert_untouched(&self) {
        let mut after = self.before.clone();
        self.on_device.download(&mut after);
        after.assert_untouched(&self.before);
    }
}

#[test]
fn no_driver() {
    on(Machine::WithoutDriver, test_name!(), "", || {
        if is_available() {
            // Of a machine whose driver is found without a library path.
            println!("no_driver: not shown, this machine has one");
            return;
        }
        let Err(Error::NoDriver { reason }) = probe() else { panic!("{:?}", probe()) };
        assert!(reason.contains("libcuda.so.1"), "{reason}");
        for name in ["cuda", "cuda:1"] {
            let Err(Error::Device { wanted, reason, available }) = Device::open(name) else {
                panic!("a card without a driver")
            };
            assert_eq!(wanted, name);
            assert!(reason.starts_with("no CUDA driver: libcuda.so.1"), "{reason}");
            assert!(!available.contains("cuda"), "{available}");
        }
        assert_ne!(Device::best().name(), "cuda");
    });
}

/// A driver that is there and does not start: without a card, or with one that it does not want.
#[test]
fn no_device() {
    for code in ["NO_DEVICE", "SYSTEM_DRIVER_MISMATCH", "SYSTEM_NOT_READY", "UNKNOWN"] {
        on(Machine::Simulated(&[("INIT", code)]), test_name!(), code, || {
            assert_eq!(probe(), Ok(()), "there is a driver");
            let Err(Error::Device { reason, available, .. }) = Device::open("cuda") else {
                panic!("a card without a card")
            };
            assert!(reason.contains(&format!("CUDA_ERROR_{code}")), "{reason}");
            assert!(!available.contains("cuda"), "{available}");
            assert_ne!(Device::best().name(), "cuda");
        });
    }
}

#[test]
fn a_card_that_is_not_there() {
    simulated(test_name!(), &[], || {
        for name in ["cuda:1", "cuda:x", "cuda:", "cuda:99999999999999999999"] {
            let Err(Error::Device { wanted, .. }) = Device::open(name) else { panic!("{name}") };
            assert_eq!(wanted, name);
        }
        assert_eq!(Device::open("cuda:0").expect("the first card").name(), "cuda:0");
        assert_eq!(Device::best().name(), "cuda");
        let description = Device::best().description();
        assert!(description.contains("ptx-sim sm_80"), "{description}");
    });
}

/// CUDA 10.2 reads PTX up to 6.5; the kernels are of 7.4.
#[test]
fn a_driver_too_old() {
    simulated(test_name!(), &[("DRIVER_VERSION", "10020")], || {
        let mut stage = Stage::new();
        for error in [stage.gpu.executor.warm_up(&stage.plan), stage.run()] {
            let Err(Error::DriverTooOld { kernel, reason }) = error else { panic!("{error:?}") };
            assert_eq!(kernel, "linear");
            // The code, and what the compiler's log says.
            assert!(reason.contains("CUDA_ERROR_UNSUPPORTED_PTX_VERSION"), "{reason}");
            assert!(reason.contains("PTX 7.4; this driver (10020) reads up to 6.5"), "{reason}");
        }
        assert_eq!(stage.gpu.executor.kernels(), 0);
        stage.assert_untouched();
    });
}

/// A kernel that the driver's compiler does not take: its log is in the error. Of a plan of three
/// launches the last one is refused, and the first has not run.
#[test]
fn a_kernel_that_the_compiler_refuses() {
    simulated(test_name!(), &[("REFUSE", "linear")], || {
        let mut stage = Stage::new();
        let problem = forward().with_adapter(DType::F32);
        stage.plan = stage.gpu.plan(&problem, "two_pass/small");
        let kernels: Vec<_> = stage.plan.launches().iter().map(|launch| launch.kernel).collect();
        assert_eq!(kernels, ["pack", "shrink", "linear"]);
        stage.before = Case::new(problem, Fill::Uniform, 1).buffers();
        stage.on_device = DeviceBuffers::upload(&stage.gpu.stream, &stage.before);
        let stream = stage.gpu.stream.clone();
        stage.workspace = Workspace::for_plan(&stream, &stage.plan).expect("a workspace");
        let raw = stage.raw(stage.on_device.raw(&stage.before), stage.workspace.raw());
        for error in [raw, stage.gpu.executor.warm_up(&stage.plan), stage.run()] {
            let Err(Error::Rejected { what, reason }) = error else { panic!("{error:?}") };
            assert_eq!(what, "linear");
            assert!(reason.contains("CUDA_ERROR_INVALID_PTX"), "{reason}");
            assert!(reason.contains("linear is refused: PTX_SIM_REFUSE says so"), "{reason}");
        }
        assert_eq!(stage.gpu.executor.kernels(), 2, "those before it were loaded");
        stage.assert_untouched();
    });
}

/// The launch that loses the device returns an error, and so does everything after it.
#[test]
fn a_lost_device() {
    for (at, first) in [("1", false), ("2", true)] {
        let body = || {
            let mut stage = Stage::new();
            assert_eq!(stage.run().is_ok(), first);
            for _ in 0..2 {
                let error = stage.run();
                assert!(matches!(error, Err(Error::DeviceLost { .. })), "{error:?}");
            }
            let stream = stage.gpu.stream.clone();
            let error = Workspace::new(&stream, 1 << 20).map(drop);
            assert!(matches!(error, Err(Error::DeviceLost { .. })), "{error:?}");
            let tensor = Device::open("cuda");
            assert!(matches!(tensor, Err(Error::Device { .. })), "{tensor:?}");
        };
        on(Machine::Simulated(&[("LOSE_AT", at)]), test_name!(), at, body);
    }
}

/// A kernel that goes wrong: the next call that looks says so, with the driver's word.
#[test]
fn a_fault_of_an_earlier_kernel() {
    simulated(test_name!(), &[("QUEUES", "early")], || {
        let mut stage = Stage::new();
        // 64 elements of memory that was freed.
        let freed: CudaSlice<u16> = stage.gpu.stream.alloc_zeros(1 << 20).expect("memory");
        let address = {
            use fused_lora::cuda::cudarc::driver::DevicePtr;
            freed.device_ptr(&stage.gpu.stream).0
        };
        drop(freed);
        stage.gpu.stream.synchronize().expect("the free");
        let mut operands = stage.on_device.raw(&stage.before);
        let x = operands.take_read(Operand::X).expect("x");
        let x = x.map(|of| Raw { address, ..of }).at(0);
        let operands = operands.read(Operand::X, x);
        let first = stage.raw(operands, stage.workspace.raw());
        let second = stage.run();
        let errors = [first, second];
        let lost = errors.iter().find(|of| matches!(of, Err(Error::DeviceLost { .. })));
        let Some(Err(Error::DeviceLost { reason })) = lost else { panic!("{errors:?}") };
        assert!(reason.contains("CUDA_ERROR_ILLEGAL_ADDRESS"), "{reason}");
    });
}

/// Turns after which a poll gives up (`kernels/parts/flag.ptx`): seconds on a card, and 4,096 here.
const IMPATIENT: &str = ",67108864;=>,4096;";

/// A workspace that somebody else has spoilt, as two launches at a time in one do: the leader's ticket is gone, and
/// who waits for its flag gives up. Whoever waits for the launch is told, and every call after it.
#[test]
fn a_spoilt_workspace() {
    for timing in ["early", "late"] {
        let machine = [("EDIT", IMPATIENT), ("QUEUES", timing)];
        on(Machine::Simulated(&machine), test_name!(), timing, || {
            let mut stage = Stage::new();
            assert_eq!(stage.run(), Ok(()), "all flags come up");
            let (stream, workspace) = (stage.gpu.stream.clone(), stage.workspace.raw());
            let executor = stage.gpu.executor.clone();
            // SAFETY: a stream and a workspace of this executor.
            let idle = || unsafe { executor.is_idle_raw(stream.cu_stream(), workspace) };
            assert_eq!(idle(), Ok(true));
            // Epoch, ticket and done are the first words of lines of 128 bytes.
            let ticket = workspace.address + 128;
            // SAFETY: the address lies in the workspace, and the word lives as long as the program.
            unsafe { result::memcpy_htod_async(ticket, &[1_u32], stream.cu_stream()) }
                .expect("a word");
            assert_eq!(idle(), Ok(false));
            let first = stage.raw(stage.on_device.raw(&stage.before), workspace);
            let waited = idle().map(drop);
            assert!(first.is_ok() || timing == "early", "{first:?}");
            for error in [waited, stage.run()] {
                let Err(Error::DeviceLost { reason }) = error else { panic!("{error:?}") };
                assert!(reason.contains("CUDA_ERROR_LAUNCH_FAILED"), "{reason}");
            }
        });
    }
}

/// A flag that is never raised, one level up: tensors and calls of a device.
#[test]
fn a_flag_that_never_comes_up() {
    let silent = format!("{IMPATIENT}\nst.relaxed.gpu.global.u32=>// ");
    for (case, edits, comes_up) in [("raised", IMPATIENT, true), ("never", &*silent, false)] {
        let body = || {
            let device = Device::open("cuda").expect("a card");
            let [tokens, k, n, rank] = [9, 520, 200, 16];
            let problem = Problem::forward(tokens, k, n, rank).with_dtype(DType::Bf16);
            let plan = Plan::new(&problem, &device.capabilities()).expect("a plan");
            assert_eq!(plan.choice().to_string(), "leader/decode");
            let ones = |rows, cols| {
                device.tensor(rows, cols, DType::Bf16, &vec![1.0; rows * cols]).expect("a tensor")
            };
            let [x, w, a, b] = [[tokens, k], [n, k], [rank, k], [n, rank]].map(|[r, c]| ones(r, c));
            let mut y = device.zeros(tokens, n, DType::Bf16).expect("a tensor");
            let called = device.forward(Forward::new(&x, &w, &mut y).adapter(&a, &b).scale(0.5));
            let read = y.to_f32();
            if comes_up {
                // 520 and 16 · 260, rounded.
                assert_eq!((called, read), (Ok(()), Ok(vec![4672.0; tokens * n])));
                return;
            }
            assert!(matches!(called, Ok(()) | Err(Error::DeviceLost { .. })), "{called:?}");
            let again = device.zeros(tokens, n, DType::Bf16).map(drop);
            for error in [read.map(drop), again] {
                let Err(Error::DeviceLost { reason }) = error else { panic!("{error:?}") };
                assert!(reason.contains("CUDA_ERROR_LAUNCH_FAILED"), "{reason}");
            }
        };
        on(Machine::Simulated(&[("EDIT", edits)]), test_name!(), case, body);
    }
}

#[test]
fn no_memory() {
    simulated(test_name!(), &[("MEMORY", "1000000")], || {
        let gpu = Gpu::new();
        let bytes = 2 << 20;
        let error = Workspace::new(&gpu.stream, bytes).expect_err("too much");
        assert_eq!(error, Error::OutOfMemory { bytes });
        let error = Workspace::new(&gpu.stream, usize::MAX).expect_err("too much");
        assert_eq!(error, Error::OutOfMemory { bytes: usize::MAX });
        let mut workspace = Workspace::new(&gpu.stream, 1000).expect("a workspace");
        let len = workspace.len();
        assert!(len >= WORKSPACE_HEADER);
        assert_eq!(workspace.grow(&gpu.stream, bytes), Err(Error::OutOfMemory { bytes }));
        assert_eq!(workspace.len(), len, "it keeps its size");
        let device = Device::open("cuda").expect("a card");
        let error = device.zeros(1024, 1024, DType::F32).expect_err("too much");
        assert_eq!(error, Error::OutOfMemory { bytes: 4 << 20 });
        let error = device.zeros(1 << 40, 1 << 40, DType::F32).expect_err("too much");
        assert!(matches!(error, Error::OutOfMemory { .. }), "{error:?}");
        let error = device.zeros(1 << 31, 1 << 31, DType::F32).expect_err("too much");
        assert!(matches!(error, Error::OutOfMemory { .. }), "{error:?}");
    });
}

/// Mistakes that are found before the driver is asked; the raw tier finds the same ones.
#[test]
fn a_callers_mistakes() {
    simulated(test_name!(), &[], || {
        let mut stage = Stage::new();
        let expected = stage.plan.workspace_len();
        let full = stage.workspace.raw();

        stage.workspace = Workspace::new(&stage.gpu.stream, 0).expect("an empty workspace");
        assert!(stage.workspace.is_empty());
        let error = Error::WorkspaceTooSmall { expected, got: 0 };
        assert_eq!(stage.run(), Err(error));
        // Keeps the memory of `full`.
        let memory = Workspace::for_plan(&stage.gpu.stream, &stage.plan).expect("a workspace");
        assert_eq!(full.len, memory.raw().len);
        let full = memory.raw();
        let operands = || stage.on_device.raw(&stage.before);
        let short = RawWorkspace { len: expected - 1, ..full };
        let error = Error::WorkspaceTooSmall { expected, got: expected - 1 };
        assert_eq!(stage.raw(operands(), short), Err(error));
        let off = RawWorkspace { address: full.address + 128, len: expected };
        let error = Error::WorkspaceMisaligned { expected: WORKSPACE_ALIGN, got: off.address };
        assert_eq!(stage.raw(operands(), off), Err(error));

        // The workspace begins within x, and ends within it.
        let mut all = operands();
        let x = all.take_read(Operand::X).expect("x");
        for address in [full.address - 16, full.address + expected as u64 - 16] {
            let x = x.map(|of| Raw { address, ..of }).at(0);
            let error = stage.raw(operands().read(Operand::X, x), full);
            assert_eq!(error, Err(Error::WorkspaceOverlap { operand: Operand::X }));
        }
        // Where a layout promises nothing, 16 bytes are expected; elements always.
        for off in [8, 2, 1] {
            let address = x.buffer.address + off;
            let moved = x.map(|of| Raw { address, ..of });
            let error = stage.raw(operands().read(Operand::X, moved), full).unwrap_err();
            let Error::Misaligned { operand: Operand::X, expected: 16, got } = error.cause() else {
                panic!("{error:?}")
            };
            assert_eq!(*got, address + 2 * x.offset as u64);
        }
        let loose = forward().with_layout(Operand::X, Layout { align: 1, ..Layout::default() });
        let plan = stage.gpu.plan(&loose, "auto");
        let strict = std::mem::replace(&mut stage.plan, plan);
        let operands = || stage.on_device.raw(&stage.before);
        let odd = x.map(|of| Raw { address: of.address + 1, ..of });
        let error = stage.raw(operands().read(Operand::X, odd), full).unwrap_err();
        assert!(matches!(error.cause(), Error::Misaligned { expected: 2, .. }), "{error:?}");
        stage.plan = strict;

        // Plans for another device, and for a card that grants more.
        let host = Plan::new(&forward(), &Capabilities::cpu()).expect("a plan for the host");
        let strict = std::mem::replace(&mut stage.plan, host);
        let executor = Error::Executor { expected: "cuda", got: "cpu" };
        assert_eq!(stage.run(), Err(executor.clone()));
        assert_eq!(stage.gpu.executor.warm_up(&stage.plan), Err(executor));
        stage.plan = strict;
        stage.assert_untouched();
        drop(memory);
    });
}

#[test]
fn a_plan_for_a_larger_card() {
    // What a block of sm_86 may have at most is below what these tiles take.
    simulated(test_name!(), &[("SHARED", "49152")], || {
        let mut stage = Stage::new();
        let own = stage.gpu.executor.capabilities();
        let Capabilities::Cuda(CudaCapabilities { shared_bytes, .. }) = own else { panic!() };
        assert_eq!(shared_bytes, 49152);
        let large = Capabilities::Cuda(CudaCapabilities::default());
        let choice = "leader/large".parse().expect("a choice");
        stage.plan = Plan::choose(&forward(), &large, &choice).expect("a plan for an A100");
        let error = stage.run();
        let Err(Error::DeviceLimit { limit: 49152, got, .. }) = error else { panic!("{error:?}") };
        assert!(got > 49152);
        stage.assert_untouched();
    });
}

/// A second context of the same card: its slices, streams and workspaces are refused by name.
#[test]
fn another_context() {
    simulated(test_name!(), &[], || {
        let mut stage = Stage::new();
        let other = second_context();
        let stream = other.new_stream().expect("a stream");
        let mut foreign = Workspace::for_plan(&stream, &stage.plan).expect("a workspace");
        let mut on_other = DeviceBuffers::upload(&stream, &stage.before);
        let executor = stage.gpu.executor.clone();
        let is = |error: Result<(), Error>, what: &str| {
            assert_eq!(error, Err(Error::OtherContext { what: what.to_owned() }));
        };
        let operands = on_other.operands(&stage.before);
        is(executor.run(&stream, &stage.plan, operands, &mut stage.workspace), "stream");
        let operands = stage.on_device.operands(&stage.before);
        is(executor.run(&stage.gpu.stream, &stage.plan, operands, &mut foreign), "workspace");
        let operands = on_other.operands(&stage.before);
        is(executor.run(&stage.gpu.stream, &stage.plan, operands, &mut stage.workspace), "x");
        stage.assert_untouched();
    });
}

/// A context that is not the primary one. cudarc has a call for it in some versions of its
/// bindings alone, so it is made by the driver's own.
fn second_context() -> std::sync::Arc<CudaContext> {
    let primary = CudaContext::new(0).expect("a device");
    let name = "libcuda.so.1";
    // SAFETY: the library is loaded already.
    let library = unsafe { libloading::Library::new(name) }.expect("a driver");
    type Create = unsafe extern "C" fn(*mut CUcontext, u32, i32) -> CUresult;
    let mut context = std::ptr::null_mut();
    // SAFETY: the signature is that of cuda.h.
    let code = unsafe {
        let create = library.get::<Create>(b"cuCtxCreate_v2\0").expect("a function");
        create(&mut context, 0, primary.cu_device())
    };
    code.result().expect("a context");
    // SAFETY: it was made just now, on this device, and belongs to nobody else.
    unsafe { CudaContext::from_raw_context(0, primary.cu_device(), context) }.expect("a context")
}

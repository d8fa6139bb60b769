//! What errors say, word for word: the operand or option, what was expected, what came, and what to
//! do about it. And what a plan says of itself where nothing serves.

use fused_lora::{
    AdapterKind, Capabilities, Choice, CpuCapabilities, CudaCapabilities, DType, Error, Layout,
    Major, Operand, Operation, Plan, Problem, WgpuCapabilities,
};

#[test]
fn errors_say_what_to_do() {
    use Operand::*;
    let text = || "TEXT".to_owned();
    let shape = Error::Shape { operand: X, expected: [5, 7], got: [6, 7] };
    let all = [
        (
            Error::Call { operation: "forward", source: Box::new(shape.clone()) },
            "forward: x: expected shape [5, 7], got [6, 7]; it is [tokens, in_features]; of images what Channels \
             says",
        ),
        (
            Error::Size { what: "in_features", expected: "at least 1", got: 0 },
            "in_features: expected at least 1, got 0; a layer has features on either side; tokens may be 0",
        ),
        (
            Error::Scalar { what: "scale", got: f32::INFINITY },
            "scale: expected a finite number, got inf; alpha / rank is not finite where the rank is 0",
        ),
        (
            Error::Value { operand: Magnitude, expected: "finite and not 0", at: 4, got: 0.0 },
            "magnitude: expected finite and not 0, got 0 at element 4; begin with the norms of w's rows, as \
             PEFT does",
        ),
        (
            Error::Beta { planned: 0.0, got: 0.5 },
            "beta: expected 0, got 0.5; that old values are added is planned: Problem::with_beta",
        ),
        (
            Error::Method { operation: Operation::Forward, method: "LoHa" },
            "forward: not an operation on the factors of LoHa; compose and chain take LoHa's or LoKr's \
             (Problem::with_method), all others a and b (Problem::composed)",
        ),
        (
            Error::Convolution { what: "stride", expected: "at least 1", got: [0, 1] },
            "convolution: stride: expected at least 1, got [0, 1]; see Convolution",
        ),
        (
            Error::Unexpected { operand: W1a },
            "w1a: given, but not part of this problem; compose a and b of it first (Operation::Compose), as \
             calls do",
        ),
        (
            Error::OutputType { activation: DType::Bf16, got: DType::F16 },
            "output: expected bf16 like the activations, or f32, got f16; leave Problem::with_output out, \
             or give it one of these",
        ),
        (
            Error::Operation { expected: Operation::Forward, got: Operation::Merge },
            "operands: expected those of forward, got those of merge; plan the operation that is run: \
             Problem::with_operation",
        ),
        (
            Error::Executor { expected: "cpu", got: "cuda" },
            "plan: expected one for cpu, got one for cuda; plan with the capabilities() of the executor \
             that runs it",
        ),
        (
            Error::Missing { operand: X },
            "x: expected, but not given; give it: the operation needs it",
        ),
        (
            Error::Missing { operand: Bias },
            "bias: expected, but not given; give it, or plan without it: Problem::with_bias",
        ),
        (
            Error::Missing { operand: A },
            "a: expected, but not given; give both factors: there is a rank that is not 0",
        ),
        (
            Error::Unexpected { operand: Shrunk },
            "shrunk: given, but not part of this problem; leave it out, or plan with it: \
             Problem::with_keep_shrunk",
        ),
        (
            Error::Unexpected { operand: Dy },
            "dy: given, but not part of this problem; leave it out: the operation does not have it",
        ),
        (
            shape,
            "x: expected shape [5, 7], got [6, 7]; it is [tokens, in_features]; of images what Channels says",
        ),
        (
            Error::Shape { operand: A, expected: [4, 7], got: [9, 4] },
            "a: expected shape [4, 7], got [9, 4]; lora_A is [rank, in_features]: exchanged with b, or \
             transposed (Matrix::transposed)?",
        ),
        (
            Error::Shape { operand: Shrunk, expected: [5, 8], got: [5, 4] },
            "shrunk: expected shape [5, 8], got [5, 4]; it is [tokens, shrunk_stride(rank)], the rank \
             rounded up to 8; twice that if precise",
        ),
        (
            Error::DType { operand: A, expected: DType::F32, got: DType::Bf16 },
            "a: expected f32, got bf16; a and b have one type (Problem::with_adapter; f32 where they are composed)",
        ),
        (
            Error::Major { operand: W, expected: Major::Row, got: Major::Col },
            "w: expected row-major storage, got column-major; plan its layout: Problem::with_layout, or \
             Operands::problem_with_layouts",
        ),
        (
            Error::RowMajorOnly { operand: X },
            "x: expected row-major storage, got column-major; store it row by row: only weights, adapters \
             and their gradients may be stored either way",
        ),
        (
            Error::StrideTooSmall { operand: W, expected: 7, got: 6 },
            "w: expected a stride of at least 7 elements, got 6; a stride counts elements from one stored \
             row to the next, which may not overlap",
        ),
        (
            Error::Stride { operand: Y, expected: 9, got: 10 },
            "y: expected the planned stride of 9 elements, got 10; plan the stride that comes: \
             Layout::stride, or Operands::problem_with_layouts",
        ),
        (
            Error::TooShort { operand: X, expected: 35, got: 34 },
            "x: expected a buffer of at least 35 elements, got 34; its offset and its stored rows, a \
             stride apart, reach as far",
        ),
        (
            Error::Misaligned { operand: B, expected: 16, got: 0x1002 },
            "b: expected its first element at a multiple of 16 bytes, got address 0x1002; move it there, \
             or plan for less: Layout::align, or Operands::problem_with_layouts",
        ),
        (
            Error::Overlap { output: Y, other: X },
            "y: must not overlap x; give what is written memory of its own",
        ),
        (
            Error::Overflow { operand: A },
            "a: its extent does not fit an address; its offset or its stride is too large",
        ),
        (
            Error::WorkspaceTooSmall { expected: 512, got: 256 },
            "workspace: expected at least 512 bytes, got 256; make one of Plan::workspace_len bytes, or \
             grow it: the largest serves all plans",
        ),
        (
            Error::Limit { operand: W, what: "bytes of a storage binding", limit: 8, got: 9 },
            "w: bytes of a storage binding: expected at most 8, got 9; run parts of it, or raise the limit \
             where the device is made",
        ),
        (
            Error::DeviceLimit { what: "storage buffers", limit: 4, got: 5 },
            "storage buffers: expected at most 4, needed 5; run parts of the problem, plan for this \
             device, or raise the limit where it is made",
        ),
        (
            Error::Feature { feature: "SHADER_F16" },
            "the device has no SHADER_F16; ask for it where the device is made, or plan without it",
        ),
        (
            Error::Usage { operand: None, expected: "STORAGE" },
            "workspace: expected a buffer with the usage STORAGE; make it with that",
        ),
        (
            Error::SharedBuffer { written: Some(Y), read: X },
            "x and y are parts of one buffer, which WebGPU allows where both are declared read_write: \
             plan with WgpuCapabilities::shared_buffers",
        ),
        (
            Error::WorkspaceOverlap { operand: X },
            "workspace: must not overlap x; give it memory of its own",
        ),
        (
            Error::WorkspaceMisaligned { expected: 256, got: 0x10 },
            "workspace: expected it to begin at a multiple of 256 bytes, got address 0x10; allocations do",
        ),
        (Error::Rejected { what: text(), reason: text() }, "TEXT: rejected by the device: TEXT"),
        (
            Error::DeviceLost { reason: text() },
            "device lost: TEXT; make it anew, and all that was on it",
        ),
        (
            Error::NoDriver { reason: text() },
            "no CUDA driver: TEXT; install NVIDIA's, or run on another device",
        ),
        (
            Error::DriverTooOld { kernel: text(), reason: text() },
            "TEXT: the driver is too old for its PTX 7.4: TEXT; update it to 470 (CUDA 11.4) or later",
        ),
        (
            Error::OtherContext { what: text() },
            "TEXT: expected one of the executor's CUDA context, got one of another; make it there, or an \
             executor for that: Cuda::new",
        ),
        (
            Error::Blocking { call: "Device::wait", instead: "Device::wait_async" },
            "Device::wait: a browser cannot wait for its GPU in a call; await Device::wait_async",
        ),
        (
            Error::OtherDevice { operand: X, expected: "cpu".to_owned(), got: "cuda".to_owned() },
            "x: expected a tensor of cpu, got one of cuda; copy it there: Device::tensor",
        ),
        (
            Error::TensorLen { shape: [2, 3], expected: 6, got: 5 },
            "tensor of shape [2, 3]: expected 6 elements, got 5; give rows · columns of them, row by row",
        ),
        (
            Error::OutOfMemory { bytes: 0 },
            "out of memory: what the device needs could not be had; free some, or run fewer tokens at a time",
        ),
        (
            Error::Threads { reason: text() },
            "threads: TEXT; ask for fewer, or use Cpu::new, on rayon's own",
        ),
        (
            "fast".parse::<Choice>().unwrap_err(),
            "choice: expected `strategy`, `strategy/preset` or `auto`, got `fast`; strategies are leader, \
             recompute, two_pass, direct and merged, and Plan::candidates names presets",
        ),
    ];
    for (error, text) in all {
        assert_eq!(error.to_string(), text, "{error:?}");
    }
}

fn planned(problem: &Problem, capabilities: Capabilities, choice: &str) -> String {
    let choice = choice.parse().unwrap();
    Plan::choose(problem, &capabilities, &choice).unwrap_err().to_string()
}

/// A few lines, each of them about the operation that was asked for.
#[test]
fn what_nothing_serves_is_told_briefly() {
    let mut old = CudaCapabilities::default();
    old.compute_capability = (7, 5);
    let shrink = Problem::new(Operation::BackwardShrink, 9, 64, 64, 8);
    assert_eq!(
        planned(&shrink, Capabilities::Cuda(old), "auto"),
        "backward_shrink: nothing serves it on a CUDA device of compute capability 7.5 with 108 \
         multiprocessors: direct/shrink: compute capability 7.5 is below 8.0"
    );
    let forward = shrink.with_operation(Operation::Forward);
    assert_eq!(
        planned(&forward, Capabilities::Cuda(old), "auto"),
        "forward: nothing serves it on a CUDA device of compute capability 7.5 with 108 \
         multiprocessors: leader/decode, leader/large, leader/medium, leader/small, recompute/large, \
         recompute/medium, recompute/small, two_pass/large, two_pass/medium, two_pass/small, \
         two_pass/unaligned: compute capability 7.5 is below 8.0; direct/decode, direct/large, \
         direct/medium, direct/small, direct/unaligned: rank 8 is outside 0..=0"
    );
}

#[test]
fn a_forced_choice_is_told_what_there_is() {
    let (forward, cpu) =
        (Problem::forward(24, 64, 48, 8), Capabilities::Cpu(CpuCapabilities::new(1)));
    assert_eq!(
        planned(&forward, cpu, "leader/decode"),
        "leader/decode: cannot be forced on forward: leader/decode: tokens 24 is outside 1..=16; there \
         is leader/panel and recompute/band"
    );
    assert_eq!(
        planned(&forward, cpu, "two_pass"),
        "two_pass: cannot be forced on forward: no candidate of it on the CPU with 1 worker; there is \
         leader/panel and recompute/band"
    );
    // What does not serve the layout is not offered.
    let odd = Layout { align: 2, ..Layout::default() };
    let unaligned = forward.with_dtype(DType::Bf16).with_layout(Operand::X, odd);
    let said = planned(&unaligned, Capabilities::Cuda(CudaCapabilities::default()), "leader/large");
    assert_eq!(
        said,
        "leader/large: cannot be forced on forward: leader/large: x: not rows of 16-byte multiples at \
         16-byte addresses; there is two_pass/unaligned"
    );
}

#[test]
fn devices_are_told_in_words() {
    let mut software = WgpuCapabilities::default();
    (software.adapter, software.subgroup, software.f16) = (AdapterKind::Software, 8, true);
    for (capabilities, words) in [
        (Capabilities::Cpu(CpuCapabilities::new(8)), "the CPU with 8 workers"),
        (
            Capabilities::Cuda(CudaCapabilities::default()),
            "a CUDA device of compute capability 8.0 with 108 multiprocessors",
        ),
        (
            Capabilities::Wgpu(WgpuCapabilities::default()),
            "a GPU through wgpu (without f16, without subgroups, 16 KiB of workgroup memory, 8 storage \
             buffers of 128 MiB)",
        ),
        (
            Capabilities::Wgpu(software),
            "a software driver through wgpu (with f16, subgroups of 8, 16 KiB of workgroup memory, 8 \
             storage buffers of 128 MiB)",
        ),
    ] {
        assert_eq!(capabilities.to_string(), words);
        let plan = Plan::new(&Problem::forward(4, 8, 8, 2), &capabilities).unwrap();
        assert!(plan.explain().contains(&format!("\ndevice: {words}\n")), "{}", plan.explain());
        // Of other operations there is no word.
        assert!(!plan.explain().contains("does not do"), "{}", plan.explain());
    }
}

//! One test for every `Error` that the core and the CPU can produce: the variant, the
//! operand it names, its text, and that nothing was written. `NoStrategy`, `Executor` and
//! `Threads` need another device or a machine out of threads; `Adapter` is `tests/files`;
//! `Overlap` is `overlap.rs`.

use fused_lora::cpu::{Cpu, Slice, SliceMut, Workspace};
use fused_lora::{
    Capabilities, Choice, CpuCapabilities, DType, Device, Error, Layout, Major, Matrix, Operand,
    Operands, Operation, Plan, Problem,
};
use test_support::{Buffers, Case, Data, Fill};

/// What is wrong comes first; behind it stands what to do (`messages`).
fn says(error: &Error, text: &str) {
    let said = error.to_string();
    assert!(said.starts_with(&format!("{text}; ")), "{said}");
}

const CPU: Capabilities = Capabilities::Cpu(CpuCapabilities::new(2));

/// Every operand of forward is there: 5 tokens, 7 in, 9 out, rank 3.
fn forward() -> Problem {
    Problem::forward(5, 7, 9, 3).with_bias(true)
}

/// What `Cpu::run` says to operands that `alter` changed; nothing may have been written.
fn refused(
    problem: Problem,
    mut alter: impl FnMut(Operand, Matrix<()>) -> Option<Matrix<()>>,
) -> Error {
    refused_buffers(problem, |_| {}, |buffers| buffers.altered(&mut alter))
}

/// What is wrong with an operand, of an error that says first which operation it is of.
fn named(operation: Operation, error: Error) -> Error {
    if matches!(error, Error::Operation { .. }) {
        return error;
    }
    let cause = error.cause().clone();
    assert_eq!(error.to_string(), format!("{operation}: {cause}"));
    cause
}

fn refused_buffers(
    problem: Problem,
    prepare: impl FnOnce(&mut Buffers),
    operands: impl FnOnce(&mut Buffers) -> Operands<Slice<'_>, SliceMut<'_>>,
) -> Error {
    let mut buffers = Case::new(problem, Fill::Uniform, 1).buffers();
    prepare(&mut buffers);
    let before = buffers.clone();
    let plan = Plan::new(&problem, &CPU).expect("a legal problem");
    let mut workspace = Workspace::for_plan(&plan).expect("memory");
    let result = Cpu::new().run(&plan, operands(&mut buffers), &mut workspace);
    buffers.assert_untouched(&before);
    named(problem.operation(), result.expect_err("a bad operand"))
}

/// Changes one operand and leaves the others.
fn only(
    operand: Operand,
    change: impl Fn(Matrix<()>) -> Matrix<()>,
) -> impl FnMut(Operand, Matrix<()>) -> Option<Matrix<()>> {
    move |of, shape| Some(if of == operand { change(shape) } else { shape })
}

fn invalid(problem: Problem) -> Error {
    let error = problem.validate().expect_err("an illegal problem");
    // As text: a NaN in an error equals nothing.
    let planned = Plan::new(&problem, &CPU).expect_err("the plan validates");
    assert_eq!(format!("{planned:?}"), format!("{error:?}"));
    error
}

#[test]
fn size() {
    let error = invalid(Problem::forward(1, 0, 4, 1));
    assert_eq!(error, Error::Size { what: "in_features", expected: "at least 1", got: 0 });
    says(&error, "in_features: expected at least 1, got 0");
    let error = invalid(Problem::forward(1, 4, 0, 1));
    assert_eq!(error, Error::Size { what: "out_features", expected: "at least 1", got: 0 });
    let error = invalid(Problem::forward(1 << 30, 1 << 30, 1 << 30, 1));
    assert!(matches!(error, Error::Size { got, .. } if got == 1 << 30), "{error:?}");
    assert!(error.to_string().contains("fewer than 2^60"), "{error}");
}

#[test]
fn scalar() {
    let error = invalid(forward().with_scale(f32::INFINITY));
    assert_eq!(error, Error::Scalar { what: "scale", got: f32::INFINITY });
    says(&error, "scale: expected a finite number, got inf");
    let error = invalid(forward().with_beta(f32::NAN));
    says(&error, "beta: expected a finite number, got NaN");
}

#[test]
fn output_type() {
    for (activation, got) in
        [(DType::Bf16, DType::F16), (DType::F16, DType::Bf16), (DType::F32, DType::Bf16)]
    {
        let error = invalid(forward().with_activation(activation).with_output(got));
        assert_eq!(error, Error::OutputType { activation, got });
        let text = format!("output: expected {activation} like the activations, or f32, got {got}");
        says(&error, &text);
    }
    let half = forward().with_dtype(DType::F16);
    assert_eq!(half.with_output(DType::F32).validate(), Ok(()));
    // All types at once are all of one type.
    let all = half.with_output(DType::F32).with_dtype(DType::Bf16);
    assert_eq!(all.output(), DType::Bf16);
}

#[test]
fn operation() {
    let error = refused_buffers(forward(), |_| {}, |_| Operands::new(Operation::Merge));
    let (expected, got) = (Operation::Forward, Operation::Merge);
    assert_eq!(error, Error::Operation { expected, got });
    says(&error, "operands: expected those of forward, got those of merge");
}

#[test]
fn merge_operands_serve_unmerge() {
    let problem = forward().with_operation(Operation::Unmerge);
    let mut buffers = Case::new(problem, Fill::Uniform, 1).buffers();
    buffers.operation = Operation::Merge;
    assert_eq!(buffers.operands().check(&problem), Ok(()));
}

#[test]
fn missing() {
    for (operand, _) in forward().specs() {
        let error = refused(forward(), |of, shape| (of != operand).then_some(shape));
        assert_eq!(error, Error::Missing { operand });
    }
    let error = Error::Missing { operand: Operand::Bias };
    says(&error, "bias: expected, but not given");
    let mut none = Operands::<Slice<'_>, SliceMut<'_>>::new(Operation::Forward);
    let operand = Operand::X;
    assert_eq!(none.take_read(operand).err(), Some(Error::Missing { operand }));
    assert_eq!(none.take_written(operand).err(), Some(Error::Missing { operand }));
}

#[test]
fn unexpected() {
    static EXTRA: [f32; 64] = [0.0; 64];
    for operand in [Operand::Dy, Operand::Da] {
        let error = refused_buffers(
            forward(),
            |_| {},
            |buffers| buffers.operands().read(operand, Matrix::new(Slice::F32(&EXTRA), 8, 8)),
        );
        assert_eq!(error, Error::Unexpected { operand });
        says(&error, &format!("{operand}: given, but not part of this problem"));
    }
    // An output among the inputs, and an input among the outputs.
    let error = refused_buffers(
        forward(),
        |_| {},
        |buffers| buffers.operands().read(Operand::Y, Matrix::new(Slice::F32(&EXTRA), 5, 9)),
    );
    assert_eq!(error, Error::Unexpected { operand: Operand::Y });
    let extra: &'static mut [f32] = Box::leak(Box::new([0.0; 64]));
    let error = refused_buffers(
        forward(),
        |_| {},
        |buffers| buffers.operands().written(Operand::X, Matrix::new(SliceMut::from(extra), 5, 7)),
    );
    assert_eq!(error, Error::Unexpected { operand: Operand::X });
}

#[test]
fn shape() {
    for (operand, spec) in forward().specs() {
        let expected = [spec.rows, spec.cols];
        let got = [spec.rows + 1, spec.cols];
        let error = refused(forward(), only(operand, |of| Matrix { rows: of.rows + 1, ..of }));
        assert_eq!(error, Error::Shape { operand, expected, got });
    }
    let (expected, got) = ([5, 7], [6, 7]);
    let error = Error::Shape { operand: Operand::X, expected, got };
    says(&error, "x: expected shape [5, 7], got [6, 7]");
}

#[test]
fn dtype() {
    for (operand, spec) in forward().specs() {
        let other = |buffers: &mut Buffers| {
            let stored = buffers.at_mut(operand);
            stored.data = Data::guards(DType::Bf16, stored.data.len());
        };
        let error = refused_buffers(forward(), other, |buffers| buffers.operands());
        assert_eq!(error, Error::DType { operand, expected: spec.dtype, got: DType::Bf16 });
        says(&error, &format!("{operand}: expected f32, got bf16"));
    }
}

#[test]
fn major() {
    let error = refused(forward(), only(Operand::W, |of| Matrix { major: Major::Col, ..of }));
    let (expected, got) = (Major::Row, Major::Col);
    assert_eq!(error, Error::Major { operand: Operand::W, expected, got });
    says(&error, "w: expected row-major storage, got column-major");
}

#[test]
fn row_major_only() {
    for (operand, _) in forward().specs().filter(|(operand, _)| !operand.either_major()) {
        let error = invalid(forward().with_layout(operand, Layout::TRANSPOSED));
        assert_eq!(error, Error::RowMajorOnly { operand });
        let text = format!("{operand}: expected row-major storage, got column-major");
        says(&error, &text);
    }
}

#[test]
fn stride_too_small() {
    let layout = Layout { stride: Some(6), ..Layout::default() };
    let wanted = Error::StrideTooSmall { operand: Operand::W, expected: 7, got: 6 };
    assert_eq!(invalid(forward().with_layout(Operand::W, layout)), wanted);
    let error = refused(forward(), only(Operand::W, |of| of.strided(6)));
    assert_eq!(error, wanted);
    says(&error, "w: expected a stride of at least 7 elements, got 6");
}

#[test]
fn stride() {
    let error = refused(forward(), only(Operand::Y, |of| of.strided(10)));
    assert_eq!(error, Error::Stride { operand: Operand::Y, expected: 9, got: 10 });
    says(&error, "y: expected the planned stride of 9 elements, got 10");
}

#[test]
fn a_single_row_has_no_stride_to_miss() {
    for stride in [9, 10, usize::MAX] {
        let problem = Problem::forward(1, 7, 9, 3);
        let mut buffers = Case::new(problem, Fill::Uniform, 1).buffers();
        let operands = buffers.altered(only(Operand::Y, |of| of.strided(stride)));
        assert_eq!(operands.check(&problem), Ok(()), "{stride}");
        let plan = Plan::new(&problem, &CPU).unwrap();
        let mut workspace = Workspace::for_plan(&plan).unwrap();
        assert_eq!(Cpu::new().run(&plan, operands, &mut workspace), Ok(()), "{stride}");
    }
}

#[test]
fn too_short() {
    for (operand, spec) in forward().specs() {
        let len = spec.extent().unwrap();
        let exactly = |buffers: &mut Buffers, len: usize| {
            let stored = buffers.at_mut(operand);
            (stored.offset, stored.data) = (0, Data::guards(spec.dtype, len));
        };
        let error =
            refused_buffers(forward(), |of| exactly(of, len - 1), |buffers| buffers.operands());
        assert_eq!(error, Error::TooShort { operand, expected: len, got: len - 1 });
        let mut enough = Case::new(forward(), Fill::Uniform, 1).buffers();
        exactly(&mut enough, len);
        assert_eq!(enough.operands().check(&forward()), Ok(()));
    }
    let error = Error::TooShort { operand: Operand::X, expected: 35, got: 34 };
    let text = "x: expected a buffer of at least 35 elements, got 34";
    says(&error, text);
}

#[test]
fn misaligned() {
    let layout = Layout { align: 16, ..Layout::default() };
    let problem = forward().with_layout(Operand::B, layout);
    let mut at = 0;
    let error = refused(problem, |operand, shape| {
        Some(if operand == Operand::B { shape.at(shape.offset | 1) } else { shape })
    });
    if let Error::Misaligned { got, .. } = error {
        at = got;
    }
    assert_eq!(error, Error::Misaligned { operand: Operand::B, expected: 16, got: at });
    let text = format!("multiple of 16 bytes, got address {at:#x}");
    says(&error, &format!("b: expected its first element at a {text}"));
}

#[test]
fn overflow() {
    for offset in [usize::MAX, usize::MAX / 2, usize::MAX / 4 + 1] {
        let error = refused(forward(), only(Operand::A, |of| of.at(offset)));
        assert_eq!(error, Error::Overflow { operand: Operand::A }, "{offset}");
        says(&error, "a: its extent does not fit an address");
    }
    // Beyond an address, and within one but beyond what a buffer may be.
    for stride in [usize::MAX / 8, 1 << 59] {
        let layout = Layout { stride: Some(stride), ..Layout::default() };
        let error = invalid(forward().with_layout(Operand::X, layout));
        assert_eq!(error, Error::Overflow { operand: Operand::X });
    }
}

#[test]
fn workspace_too_small() {
    let problem = Problem::forward(40, 64, 64, 4);
    let plan = Plan::new(&problem, &CPU).unwrap();
    let expected = plan.workspace_len();
    let mut buffers = Case::new(problem, Fill::Uniform, 1).buffers();
    let before = buffers.clone();
    let mut small = Workspace::new(expected - 64).unwrap();
    let error = Cpu::new().run(&plan, buffers.operands(), &mut small).unwrap_err();
    buffers.assert_untouched(&before);
    let got = small.len();
    assert!(got < expected);
    assert_eq!(error, Error::WorkspaceTooSmall { expected, got });
    let text = format!("workspace: expected at least {expected} bytes, got {got}");
    says(&error, &text);
}

#[test]
fn forced() {
    let force = |choice: &str| {
        let choice: Choice = choice.parse().unwrap();
        Plan::choose(&Problem::forward(17, 8, 8, 4), &CPU, &choice).unwrap_err()
    };
    let error = Error::Forced {
        operation: Operation::Forward,
        choice: "leader/decode".to_owned(),
        reason: "leader/decode: tokens 17 is outside 1..=16".to_owned(),
        available: vec!["leader/panel".to_owned(), "recompute/band".to_owned()],
    };
    assert_eq!(force("leader/decode"), error);
    for choice in ["two_pass", "direct/merge"] {
        let reason = "no candidate of it on the CPU with 2 workers";
        says(&force(choice), &format!("{choice}: cannot be forced on forward: {reason}"));
    }
    // A strategy alone: each reason once, behind the presets of which it is true.
    let reasons = "direct/panel, direct/band: rank 4 is outside 0..=0; direct/decode: tokens 17";
    let text = force("direct").to_string();
    assert!(text.contains(reasons), "{text}");
}

#[test]
fn choice() {
    for text in ["", "fast", "leader/", "leader panel", "Leader"] {
        let error = text.parse::<Choice>().unwrap_err();
        assert_eq!(error, Error::Choice { got: text.to_owned() });
    }
    let error = "fast".parse::<Choice>().unwrap_err();
    let text = "choice: expected `strategy`, `strategy/preset` or `auto`, got `fast`";
    says(&error, text);
}

#[test]
fn device() {
    let error = Device::open("abacus").unwrap_err();
    let Error::Device { wanted, available, .. } = &error else { panic!("{error:?}") };
    assert_eq!(wanted, "abacus");
    assert_eq!(available, &Device::available().join(", "));
    assert!(available.contains("cpu"), "{available}");
    assert!(error.to_string().starts_with("device: `abacus` is not available"), "{error}");
}

#[test]
fn tensor_len() {
    let error = Device::cpu().tensor(2, 3, DType::F16, &[0.0; 5]).unwrap_err();
    assert_eq!(error, Error::TensorLen { shape: [2, 3], expected: 6, got: 5 });
    says(&error, "tensor of shape [2, 3]: expected 6 elements, got 5");
    // Before memory is asked for: this is more than there is.
    let error = Device::cpu().tensor(1 << 20, 1 << 20, DType::F32, &[0.0]).unwrap_err();
    assert_eq!(error, Error::TensorLen { shape: [1 << 20; 2], expected: 1 << 40, got: 1 });
    let error = Device::cpu().tensor(usize::MAX, 2, DType::F32, &[]).unwrap_err();
    assert!(matches!(error, Error::TensorLen { expected: usize::MAX, .. }), "{error:?}");
    let mut tensor = Device::cpu().tensor(1, 2, DType::F32, &[1.0, 2.0]).unwrap();
    assert!(tensor.write(&[3.0; 3]).is_err());
    assert_eq!(tensor.to_f32().unwrap(), [1.0, 2.0], "nothing was written");
}

#[test]
fn out_of_memory() {
    let bytes = usize::MAX;
    let error = Device::cpu().zeros(usize::MAX, 2, DType::F32).unwrap_err();
    assert_eq!(error, Error::OutOfMemory { bytes });
    says(&error, &format!("out of memory: {bytes} bytes could not be had"));
    let bytes = 1 << 62;
    let error = Device::cpu().zeros(1 << 30, 1 << 30, DType::F32).unwrap_err();
    assert_eq!(error, Error::OutOfMemory { bytes });
    let mut workspace = Workspace::new(100).unwrap();
    let len = workspace.len();
    assert_eq!(workspace.grow(bytes), Err(Error::OutOfMemory { bytes }));
    assert_eq!(workspace.len(), len, "it keeps its size");
}

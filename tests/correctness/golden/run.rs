//! Runs one problem of `tests/correctness/golden.rs` on one executor: outputs poisoned with NaN before, gaps
//! checked after.

use std::collections::BTreeMap;

use fused_lora::cpu::{Cpu, Slice, SliceMut, Workspace};
use fused_lora::reference::{Dense, Sums};
use fused_lora::{
    Access, Choice, DType, Device, Major, Matrix, Operand, Operands, Outcome, Plan, Problem, Tensor,
};
use half::{bf16, f16};

/// Through what, and how the operands lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Way {
    Device,
    /// `Cpu`, gaps behind every row and before the first.
    Strided,
    /// `Cpu`, likewise, and the transpose stored of what may be.
    Transposed,
}

/// Every output of `problem`, as stored.
pub(super) fn run(
    problem: &Problem,
    choice: &Choice,
    way: Way,
    read: impl Fn(Operand) -> Dense,
) -> BTreeMap<Operand, Dense> {
    if way == Way::Device {
        return run_on_device(problem, choice, read);
    }
    let mut inputs = Vec::new();
    let mut outputs = Vec::new();
    for (operand, spec) in problem.specs() {
        let major = match way {
            Way::Transposed if operand.either_major() => Major::Col,
            _ => Major::Row,
        };
        let shape = [spec.rows, spec.cols];
        if spec.access == Access::Read {
            inputs.push((operand, Stored::new(shape, spec.dtype, major, Some(&read(operand)))));
        } else {
            outputs.push((operand, Stored::new(shape, spec.dtype, major, None)));
        }
    }
    let mut operands = Operands::new(problem.operation());
    for (operand, stored) in &inputs {
        operands = operands.read(*operand, stored.matrix());
    }
    for (operand, stored) in &mut outputs {
        operands = operands.written(*operand, stored.matrix_mut());
    }
    let cpu = Cpu::new();
    let problem = operands.problem_with_layouts(*problem);
    let plan = Plan::choose(&problem, &cpu.capabilities(), choice).unwrap();
    let mut workspace = Workspace::for_plan(&plan).unwrap();
    cpu.run(&plan, operands, &mut workspace).unwrap();
    outputs.iter().map(|(operand, stored)| (*operand, stored.read_back())).collect()
}

fn run_on_device(
    problem: &Problem,
    choice: &Choice,
    read: impl Fn(Operand) -> Dense,
) -> BTreeMap<Operand, Dense> {
    let device = Device::from_env().unwrap();
    let mut inputs: Vec<(Operand, Tensor)> = Vec::new();
    let mut outputs: Vec<(Operand, Tensor)> = Vec::new();
    for (operand, spec) in problem.specs() {
        let (values, list) = match spec.access {
            Access::Read => (floats(&read(operand)), &mut inputs),
            _ => (vec![f32::NAN; spec.rows * spec.cols], &mut outputs),
        };
        let tensor = device.tensor(spec.rows, spec.cols, spec.dtype, &values).unwrap();
        list.push((operand, tensor));
    }
    let mut operands = Operands::new(problem.operation());
    for (operand, tensor) in &inputs {
        operands = operands.read(*operand, tensor.matrix());
    }
    for (operand, tensor) in &mut outputs {
        operands = operands.written(*operand, tensor.matrix_mut());
    }
    let plan = device.choose(problem, choice).unwrap();
    device.run(&plan, operands).unwrap();
    let dense = |of: &Tensor| {
        let values = of.to_f32().unwrap().into_iter().map(f64::from).collect();
        Dense::new(of.rows(), of.cols(), values)
    };
    outputs.iter().map(|(operand, tensor)| (*operand, dense(tensor))).collect()
}

/// A matrix with gaps of NaN around its rows.
struct Stored {
    shape: [usize; 2],
    major: Major,
    values: Values,
}

enum Values {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Stored {
    const OFFSET: usize = 3;
    const GAP: usize = 5;

    fn new(shape: [usize; 2], dtype: DType, major: Major, of: Option<&Dense>) -> Stored {
        let mut stored = Stored { shape, major, values: Values::F32(Vec::new()) };
        let mut wide = vec![f32::NAN; Stored::OFFSET + stored.stored_rows() * stored.stride()];
        if let Some(of) = of {
            for row in 0..shape[0] {
                for col in 0..shape[1] {
                    wide[stored.at(row, col)] = of.at(row, col) as f32;
                }
            }
        }
        stored.values = match dtype {
            DType::F32 => Values::F32(wide),
            DType::F16 => Values::F16(wide.into_iter().map(f16::from_f32).collect()),
            DType::Bf16 => Values::Bf16(wide.into_iter().map(bf16::from_f32).collect()),
        };
        stored
    }

    fn stored_rows(&self) -> usize {
        self.shape[if self.major == Major::Row { 0 } else { 1 }]
    }

    fn stride(&self) -> usize {
        self.shape[if self.major == Major::Row { 1 } else { 0 }] + Stored::GAP
    }

    fn at(&self, row: usize, col: usize) -> usize {
        let (outer, inner) = if self.major == Major::Row { (row, col) } else { (col, row) };
        Stored::OFFSET + outer * self.stride() + inner
    }

    fn place<B>(&self, buffer: B) -> Matrix<B> {
        let [rows, cols] = self.shape;
        Matrix {
            buffer,
            rows,
            cols,
            offset: Stored::OFFSET,
            stride: self.stride(),
            major: self.major,
        }
    }

    fn matrix(&self) -> Matrix<Slice<'_>> {
        self.place(match &self.values {
            Values::F32(of) => of.into(),
            Values::F16(of) => of.into(),
            Values::Bf16(of) => of.into(),
        })
    }

    fn matrix_mut(&mut self) -> Matrix<SliceMut<'_>> {
        let place = self.place(());
        let buffer = match &mut self.values {
            Values::F32(of) => SliceMut::from(of),
            Values::F16(of) => of.into(),
            Values::Bf16(of) => of.into(),
        };
        place.map(|()| buffer)
    }

    fn read_back(&self) -> Dense {
        let written = match &self.values {
            Values::F32(of) => of.iter().filter(|value| !value.is_nan()).count(),
            Values::F16(of) => of.iter().filter(|value| !value.is_nan()).count(),
            Values::Bf16(of) => of.iter().filter(|value| !value.is_nan()).count(),
        };
        assert_eq!(written, self.shape[0] * self.shape[1], "elements written, gaps included");
        match &self.values {
            Values::F32(of) => Dense::read(&self.place(&of[..])),
            Values::F16(of) => Dense::read(&self.place(&of[..])),
            Values::Bf16(of) => Dense::read(&self.place(&of[..])),
        }
    }
}

fn floats(of: &Dense) -> Vec<f32> {
    of.values().iter().map(|&value| value as f32).collect()
}

/// How the executor of this way forms sums.
pub(super) fn sums(problem: &Problem, way: Way) -> Sums {
    let on_cuda = || Device::from_env().unwrap().name().starts_with("cuda");
    match way {
        // f32 is multiplied as it is everywhere.
        Way::Device if problem.activation() != DType::F32 && on_cuda() => Sums::TensorCore,
        _ => Sums::F32,
    }
}

/// Every strategy and preset that serves `problem` there.
pub(super) fn choices(problem: &Problem, way: Way) -> Vec<Choice> {
    let capabilities = match way {
        Way::Device => Device::from_env().unwrap().capabilities(),
        Way::Strided | Way::Transposed => Cpu::new().capabilities(),
    };
    let plan = Plan::new(problem, &capabilities).unwrap();
    let serves = plan.candidates().iter().filter(|of| !matches!(of.outcome, Outcome::Refused(_)));
    serves
        .map(|of| Choice { strategy: Some(of.strategy), preset: Some(of.preset.to_owned()) })
        .collect()
}

//! This crate's paths on a card, through the executor's raw tier: the fused one, and every
//! [`Way`] by the crate's own plain kernels. Made by `main.rs`.

use std::sync::Arc;

use fused_lora::cuda::cudarc::driver::CudaStream;
use fused_lora::cuda::{Cuda, Workspace};
use fused_lora::{
    Access, DType, Gradients, Layout, Matrix, Operand, Operands, Operation, Plan, Problem,
};

use super::common::measure::Outputs;
use super::common::shapes::{Cell, Direction};
use super::common::{Cost, Path, Result};
use super::memory::{Memory, SCALE};
use super::products::{Form, Name, Product, View, Way, outputs, part, products};

/// One plan, and where each of its operands lies. The view says where it begins; shape and
/// stride are the plan's.
struct Step {
    plan: Plan,
    views: Vec<(Operand, View)>,
}

/// Plans that run one after the other.
pub struct Planned<'a> {
    name: &'static str,
    executor: Cuda,
    stream: Arc<CudaStream>,
    memory: &'a Memory,
    steps: Vec<Step>,
    workspace: Workspace,
    outputs: Vec<(Operand, View)>,
}

/// The layer as one problem, in its direction.
pub fn problem(cell: Cell) -> Problem {
    let operation = match cell.direction {
        Direction::Forward => Operation::Forward,
        Direction::Backward => Operation::BackwardInput,
    };
    let (k, n) = (cell.shape.in_features, cell.shape.out_features);
    Problem::new(operation, cell.tokens, k, n, cell.rank)
        .with_activation(cell.dtype)
        .with_adapter(cell.dtype)
        .with_gradient(DType::F32)
        .with_scale(SCALE)
}

impl<'a> Planned<'a> {
    /// One plan forward and two backward.
    pub fn fused(executor: &Cuda, stream: &Arc<CudaStream>, memory: &'a Memory) -> Result<Self> {
        let (cell, problem) = (memory.cell, problem(memory.cell));
        let backward = cell.direction == Direction::Backward;
        let mut problems = vec![problem];
        if backward {
            problems.push(problem.with_operation(Operation::BackwardAdapter));
        }
        let name = |operand| match operand {
            Operand::X => Name::X,
            Operand::Dy => Name::Dy,
            Operand::W => Name::W,
            Operand::A => Name::A,
            Operand::B => Name::B,
            Operand::Shrunk if backward => Name::Shrunk,
            Operand::Shrunk | Operand::Dshrunk => Name::T,
            Operand::Da => Name::Da,
            Operand::Db => Name::Db,
            // Y and Dx: the layer has no bias.
            _ => Name::Out,
        };
        let steps = problems
            .into_iter()
            .map(|problem| {
                let plan = Plan::new(&problem, &executor.capabilities())?;
                let view =
                    |operand| View { name: name(operand), rows: 0, cols: 0, offset: 0, stride: 0 };
                let views = problem.specs().map(|(operand, _)| (operand, view(operand))).collect();
                Ok(Step { plan, views })
            })
            .collect::<Result<_>>()?;
        let outputs = outputs(cell, true, cell.rank);
        Planned::new("fused", executor, stream, memory, steps, outputs)
    }

    /// Every product by a plain kernel of its own.
    pub fn separately(
        name: &'static str,
        way: Way,
        executor: &Cuda,
        stream: &Arc<CudaStream>,
        memory: &'a Memory,
    ) -> Result<Self> {
        let cell = memory.cell;
        let step = |product| Step::of(product, cell, executor);
        let steps = products(cell, way).into_iter().map(step).collect::<Result<_>>()?;
        let outputs = outputs(cell, way != Way::Plain, part(cell));
        Planned::new(name, executor, stream, memory, steps, outputs)
    }

    fn new(
        name: &'static str,
        executor: &Cuda,
        stream: &Arc<CudaStream>,
        memory: &'a Memory,
        steps: Vec<Step>,
        outputs: Vec<(Operand, View)>,
    ) -> Result<Self> {
        let bytes = steps.iter().map(|step| step.plan.workspace_len()).max().unwrap_or(0);
        let workspace = Workspace::new(stream, bytes)?;
        for step in &steps {
            executor.warm_up(&step.plan)?;
        }
        let (executor, stream) = (executor.clone(), stream.clone());
        Ok(Planned { name, executor, stream, memory, steps, workspace, outputs })
    }

    /// What runs, as strategy and preset of each plan.
    pub fn choices(&self) -> String {
        let choices = self
            .steps
            .iter()
            .map(|step| format!("{}/{}", step.plan.strategy(), step.plan.preset()));
        choices.collect::<Vec<_>>().join(" + ")
    }
}

impl Step {
    /// The problem without an adapter, or the one gradient, that a product is.
    fn of(product: Product, cell: Cell, executor: &Cuda) -> Result<Step> {
        let Product { form, lhs, rhs, out, add } = product;
        let [rows, cols, sum] = product.size();
        let (problem, operands) = match form {
            Form::Nt => {
                let problem = Problem::forward(rows, sum, cols, 0);
                (problem, [Operand::X, Operand::W, Operand::Y])
            }
            Form::Nn => {
                let problem = Problem::forward(rows, cols, sum, 0);
                let problem = problem.with_operation(Operation::BackwardInput);
                (problem, [Operand::Dy, Operand::W, Operand::Dx])
            }
            // da is as tall as the rank, db as wide.
            Form::Tn if out.name == Name::Da => {
                let problem = Problem::forward(sum, cols, cell.shape.out_features, rows);
                let problem = problem.with_gradients(Gradients::A);
                (problem, [Operand::Dshrunk, Operand::X, Operand::Da])
            }
            Form::Tn => {
                let problem = Problem::forward(sum, cell.shape.in_features, rows, cols);
                let problem = problem.with_gradients(Gradients::B);
                (problem, [Operand::Dy, Operand::Shrunk, Operand::Db])
            }
        };
        let mut problem = problem
            .with_activation(cell.dtype)
            .with_adapter(cell.dtype)
            .with_gradient(DType::F32)
            .with_beta(if add { 1.0 } else { 0.0 });
        if form == Form::Tn {
            problem = problem.with_operation(Operation::BackwardAdapter);
        }
        let views: Vec<_> = operands.into_iter().zip([lhs, rhs, out]).collect();
        for &(operand, view) in &views {
            let layout = Layout { stride: Some(view.stride), ..Layout::default() };
            problem = problem.with_layout(operand, layout);
        }
        Ok(Step { plan: Plan::new(&problem, &executor.capabilities())?, views })
    }
}

impl Path for Planned<'_> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cost(&self) -> Cost {
        Cost::of(self.steps.iter().map(|step| &step.plan))
    }

    fn run(&mut self, turn: usize) -> Result<()> {
        for Step { plan, views } in &self.steps {
            let problem = plan.problem();
            let mut operands = Operands::new(problem.operation());
            for &(operand, view) in views {
                let Some(spec) = problem.spec(operand) else { continue };
                let mut matrix = Matrix::new(self.memory.raw(view, turn), spec.rows, spec.cols);
                matrix.stride = spec.stride;
                operands = match spec.access {
                    Access::Read => operands.read(operand, matrix),
                    Access::Write | Access::Update => operands.written(operand, matrix),
                };
            }
            let (stream, workspace) = (self.stream.cu_stream(), self.workspace.raw());
            // SAFETY: the stream is of the executor's context, and everything runs on it in
            // order, graphs and other paths too. Operands lie in `memory`, which this borrows,
            // and the workspace is of this path alone; both and the executor outlive the graphs
            // that `timing` makes of runs: a graph is dropped before its path.
            unsafe { self.executor.run_raw(stream, plan, operands, workspace) }?;
        }
        Ok(())
    }

    fn wait(&self) -> Result<()> {
        Ok(self.stream.synchronize()?)
    }

    fn outputs(&self) -> Result<Outputs> {
        let read = |&(operand, view): &(Operand, View)| Ok((operand, self.memory.read(view)?));
        self.outputs.iter().map(read).collect()
    }
}

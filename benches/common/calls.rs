//! The naive path `calls`: the layer as separate calls of this crate's own plain products,
//! which are as good as its fused ones. Three forward, five backward.
//!
//! It is given what a user could have prepared: the scale folded into b, no casts within the
//! timing.

use fused_lora::{
    BackwardAdapter, BackwardInput, Device, Forward, GradientA, GradientB, Gradients, Layout,
    Matrix, Operand, Operation, Plan, Problem, Tensor,
};

use super::shapes::{Cell, Direction};
use super::{Cost, Layer, Path, Result};

pub struct Calls<'a> {
    layer: &'a Layer<'a>,
    /// In the order in which they run.
    plans: Vec<Plan>,
    a: Tensor,
    /// s·b.
    b: Tensor,
    /// y, or dx.
    y: Tensor,
    /// x·aᵀ, or s·dy·b; its rows are a plan's `shrunk_stride` apart, the pad stays zero.
    t: Tensor,
    da: Tensor,
    db: Tensor,
}

impl<'a> Calls<'a> {
    pub fn new(layer: &'a Layer<'a>) -> Result<Self> {
        let Cell { shape, tokens: m, rank: r, dtype, direction } = layer.cell;
        let (k, n, device) = (shape.in_features, shape.out_features, layer.device);
        let stride = layer.problem().shrunk_stride();
        let narrow = Layout { stride: Some(stride), ..Layout::default() };
        let forward = |in_features, out_features| {
            Problem::forward(m, in_features, out_features, 0).with_dtype(dtype)
        };
        let backward = |in_features, out_features| {
            forward(in_features, out_features).with_operation(Operation::BackwardInput)
        };
        let gradient = |gradients| {
            layer.problem().with_operation(Operation::BackwardAdapter).with_gradients(gradients)
        };
        let problems = match direction {
            Direction::Forward => vec![
                forward(k, n),
                forward(k, r).with_layout(Operand::Y, narrow),
                forward(r, n).with_layout(Operand::X, narrow).with_beta(1.0),
            ],
            Direction::Backward => vec![
                backward(k, n),
                backward(r, n).with_layout(Operand::Dx, narrow),
                backward(k, r).with_layout(Operand::Dy, narrow).with_beta(1.0),
                gradient(Gradients::A),
                gradient(Gradients::B),
            ],
        };
        let scaled: Vec<f32> = layer.b.to_f32()?.iter().map(|b| layer.scale * b).collect();
        let wide = if direction == Direction::Forward { n } else { k };
        Ok(Calls {
            layer,
            plans: problems.iter().map(|of| device.plan(of)).collect::<Result<_, _>>()?,
            a: device.tensor(r, k, dtype, &layer.a.to_f32()?)?,
            b: device.tensor(n, r, dtype, &scaled)?,
            y: device.zeros(m, wide, dtype)?,
            t: device.zeros(m, stride, dtype)?,
            da: device.zeros(r, k, layer.problem().gradient())?,
            db: device.zeros(n, r, layer.problem().gradient())?,
        })
    }
}

/// `y = x·wᵀ (+ y)`.
fn forward<'t>(
    device: &Device,
    plan: &Plan,
    x: Matrix<&'t Tensor>,
    w: &'t Tensor,
    y: Matrix<&'t mut Tensor>,
) -> Result<()> {
    let w = w.matrix();
    Ok(device.run(plan, Forward::new(x, w, y))?)
}

/// `dx = dy·w (+ dx)`.
fn backward<'t>(
    device: &Device,
    plan: &Plan,
    dy: Matrix<&'t Tensor>,
    w: &'t Tensor,
    dx: Matrix<&'t mut Tensor>,
) -> Result<()> {
    let w = w.matrix();
    Ok(device.run(plan, BackwardInput::new(dy, w, dx))?)
}

impl Path for Calls<'_> {
    fn name(&self) -> &'static str {
        "calls"
    }

    fn cost(&self) -> Cost {
        Cost::of(&self.plans)
    }

    fn run(&mut self, turn: usize) -> Result<()> {
        let Calls { layer, plans, a, b, y, t, da, db } = self;
        let (device, w) = (layer.device, layer.w(turn));
        let (m, r, stride) = (layer.cell.tokens, layer.cell.rank, t.cols());
        match layer.cell.direction {
            Direction::Forward => {
                let x = layer.x.matrix();
                forward(device, &plans[0], x, w, y.matrix_mut())?;
                forward(device, &plans[1], x, a, Matrix::new(&mut *t, m, r).strided(stride))?;
                forward(
                    device,
                    &plans[2],
                    Matrix::new(&*t, m, r).strided(stride),
                    b,
                    y.matrix_mut(),
                )?;
            }
            Direction::Backward => {
                let dy = layer.dy.matrix();
                backward(device, &plans[0], dy, w, y.matrix_mut())?;
                backward(device, &plans[1], dy, b, Matrix::new(&mut *t, m, r).strided(stride))?;
                backward(
                    device,
                    &plans[2],
                    Matrix::new(&*t, m, r).strided(stride),
                    a,
                    y.matrix_mut(),
                )?;
                let (x, dshrunk, da) = (layer.x.matrix(), t.matrix(), da.matrix_mut());
                let half = GradientA::new(x, dshrunk, da);
                device.run(&plans[3], BackwardAdapter::new(Some(half), None))?;
                let half = GradientB::new(dy, layer.shrunk.matrix(), db.matrix_mut());
                device.run(&plans[4], BackwardAdapter::new(None, Some(half)))?;
            }
        }
        Ok(())
    }

    fn wait(&self) -> Result<()> {
        Ok(self.layer.device.wait()?)
    }

    fn outputs(&self) -> Result<Vec<(Operand, Vec<f32>)>> {
        Ok(match self.layer.cell.direction {
            Direction::Forward => vec![(Operand::Y, self.y.to_f32()?)],
            Direction::Backward => vec![
                (Operand::Dx, self.y.to_f32()?),
                (Operand::Da, self.da.to_f32()?),
                (Operand::Db, self.db.to_f32()?),
            ],
        })
    }
}

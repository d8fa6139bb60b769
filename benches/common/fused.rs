//! The path `fused`, one plan forward and two backward; and, at rank 0, the path `plain`.

use fused_lora::{
    Adapter, BackwardAdapter, BackwardInput, Forward, GradientA, GradientB, Operand, Operation,
    Plan, Problem, Tensor,
};

use super::shapes::Direction;
use super::{Cost, Layer, Path, Result};

pub struct Fused<'a> {
    name: &'static str,
    layer: &'a Layer<'a>,
    plans: Vec<Plan>,
    /// y, or dx.
    y: Tensor,
    /// What is kept of it: shrunk, or dshrunk.
    shrunk: Tensor,
    da: Tensor,
    db: Tensor,
}

impl<'a> Fused<'a> {
    /// `problem` is the layer's, or that without its adapter.
    pub fn new(layer: &'a Layer<'a>, name: &'static str, problem: Problem) -> Result<Self> {
        let (device, rank) = (layer.device, problem.rank());
        let mut plans = vec![device.plan(&problem)?];
        let backward = problem.operation() == Operation::BackwardInput;
        if backward && rank > 0 {
            plans.push(device.plan(&problem.with_operation(Operation::BackwardAdapter))?);
        }
        let [tokens, k, n] = [problem.tokens(), problem.in_features(), problem.out_features()];
        let wide = if backward { k } else { n };
        Ok(Fused {
            name,
            layer,
            plans,
            y: device.zeros(tokens, wide, problem.output())?,
            shrunk: device.zeros(tokens, problem.shrunk_stride(), problem.activation())?,
            da: device.zeros(rank, k, problem.gradient())?,
            db: device.zeros(n, rank, problem.gradient())?,
        })
    }
}

impl Path for Fused<'_> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cost(&self) -> Cost {
        Cost::of(&self.plans)
    }

    fn run(&mut self, turn: usize) -> Result<()> {
        let Fused { layer, plans, y, shrunk, da, db, .. } = self;
        let adapted = plans[0].problem().rank() > 0;
        let (device, w) = (layer.device, layer.w(turn).matrix());
        let adapter = adapted.then(|| Adapter::new(layer.a.matrix(), layer.b.matrix()));
        let kept = adapted.then_some(());
        match layer.cell.direction {
            Direction::Forward => {
                let (x, y) = (layer.x.matrix(), y.matrix_mut());
                let shrunk = kept.map(|()| shrunk.matrix_mut());
                device.run(
                    &plans[0],
                    Forward::new(x, w, y).with_adapter(adapter).with_shrunk(shrunk),
                )?;
            }
            Direction::Backward => {
                let (dy, dx) = (layer.dy.matrix(), y.matrix_mut());
                let dshrunk = kept.map(|()| shrunk.matrix_mut());
                device.run(
                    &plans[0],
                    BackwardInput::new(dy, w, dx).with_adapter(adapter).with_dshrunk(dshrunk),
                )?;
                if let Some(plan) = plans.get(1) {
                    let (dshrunk, da) = (shrunk.matrix(), da.matrix_mut());
                    let (shrunk, db) = (layer.shrunk.matrix(), db.matrix_mut());
                    let a = Some(GradientA::new(layer.x.matrix(), dshrunk, da));
                    let b = Some(GradientB::new(dy, shrunk, db));
                    device.run(plan, BackwardAdapter::new(a, b))?;
                }
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

//! The naive path `gemm`: the same products by the `gemm` crate alone, each on all threads.
//! CPU only. `gemm` has no bf16: what is stored in 16 bits is widened by all threads once a
//! call, and y is narrowed; the adapter lies there in f32, as PEFT keeps it.

use fused_lora::{Operand, Problem};

use super::host::{Host, View, product, widened};
use super::shapes::{Cell, Direction};
use super::{Cost, Layer, Path, Result};

pub struct GemmCalls<'a> {
    layer: &'a Layer<'a>,
    /// x forward; dy and x backward.
    inputs: Vec<Host>,
    a: Vec<f32>,
    b: Vec<f32>,
    /// [tokens, rank], without a pad.
    shrunk: Host,
    /// y or dx, and its copy in storage where that is not f32.
    y: Vec<f32>,
    narrowed: Option<Host>,
    t: Vec<f32>,
    da: Vec<f32>,
    db: Vec<f32>,
    /// What is widened: the weight, and each input.
    rooms: [Vec<f32>; 4],
}

impl<'a> GemmCalls<'a> {
    pub fn new(layer: &'a Layer<'a>) -> Result<Self> {
        let Cell { shape, tokens, rank, dtype, direction } = layer.cell;
        let (k, n) = (shape.in_features, shape.out_features);
        let (inputs, wide) = match direction {
            Direction::Forward => (vec![&layer.x], n),
            Direction::Backward => (vec![&layer.dy, &layer.x], k),
        };
        let host = |values| Host::new(dtype, values);
        let padded = layer.shrunk.to_f32()?;
        let shrunk = padded.chunks_exact(layer.shrunk.cols()).flat_map(|row| &row[..rank]);
        let y = vec![0.0; tokens * wide];
        Ok(GemmCalls {
            layer,
            inputs: inputs.iter().map(|of| Ok(host(of.to_f32()?))).collect::<Result<_>>()?,
            a: layer.a.to_f32()?,
            b: layer.b.to_f32()?,
            shrunk: host(shrunk.copied().collect()),
            narrowed: (dtype.size() < 4).then(|| host(y.clone())),
            y,
            t: vec![0.0; tokens * rank],
            da: vec![0.0; rank * k],
            db: vec![0.0; n * rank],
            rooms: Default::default(),
        })
    }
}

impl Path for GemmCalls<'_> {
    fn name(&self) -> &'static str {
        "gemm"
    }

    fn cost(&self) -> Cost {
        let Cell { shape, tokens: m, rank: r, dtype, direction } = self.layer.cell;
        let (k, n) = (shape.in_features, shape.out_features);
        // By its shape alone: n columns of a sum over k is any product here.
        let product = |m, k, n| Problem::forward(m, k, n, 0);
        let calls = match direction {
            Direction::Forward => {
                vec![product(m, k, n), product(m, k, r), product(m, r, n).with_beta(1.0)]
            }
            Direction::Backward => vec![
                product(m, n, k),
                product(m, n, r),
                product(m, r, k).with_beta(1.0),
                product(r, m, k),
                product(n, m, r),
            ],
        };
        let converted = match direction {
            Direction::Forward => n * k + m * k + m * n,
            Direction::Backward => n * k + m * n + m * k + m * r + m * k,
        };
        let casts =
            if dtype.size() < 4 { 3 + usize::from(direction == Direction::Backward) } else { 0 };
        let least = calls.iter().map(Problem::bytes).sum::<u64>();
        let flops = calls.iter().map(Problem::flops).sum();
        Cost {
            launches: calls.len() + casts,
            bytes: least + if casts > 0 { 6 * converted as u64 } else { 0 },
            least,
            flops,
            least_flops: flops,
        }
    }

    fn run(&mut self, turn: usize) -> Result<()> {
        let Cell { shape, tokens, rank, direction, .. } = self.layer.cell;
        let (k, n, s) = (shape.in_features, shape.out_features, self.layer.scale);
        let GemmCalls { layer, inputs, a, b, shrunk, y, narrowed, t, da, db, rooms } = self;
        let [room_w, room_x, room_dy, room_t] = rooms;
        let w = layer.w(turn).on_host().ok_or("the weight is not in host memory")?;
        let w = View::new(widened(w, room_w), n, k);
        let (a, b) = (View::new(a, rank, k), View::new(b, n, rank));
        match direction {
            Direction::Forward => {
                let x = View::new(inputs[0].widened(room_x), tokens, k);
                product(y, 0.0, 1.0, x, w.transposed());
                product(t, 0.0, s, x, a.transposed());
                product(y, 1.0, 1.0, View::new(t, tokens, rank), b.transposed());
            }
            Direction::Backward => {
                let dy = View::new(inputs[0].widened(room_dy), tokens, n);
                let x = View::new(inputs[1].widened(room_x), tokens, k);
                let shrunk = View::new(shrunk.widened(room_t), tokens, rank);
                product(y, 0.0, 1.0, dy, w);
                product(t, 0.0, s, dy, b);
                let t = View::new(t, tokens, rank);
                product(y, 1.0, 1.0, t, a);
                product(da, 0.0, 1.0, t.transposed(), x);
                product(db, 0.0, 1.0, dy.transposed(), shrunk);
            }
        }
        if let Some(narrowed) = narrowed {
            narrowed.narrow(y);
        }
        Ok(())
    }

    fn wait(&self) -> Result<()> {
        Ok(())
    }

    fn outputs(&self) -> Result<Vec<(Operand, Vec<f32>)>> {
        let y = self.narrowed.as_ref().map_or_else(|| self.y.clone(), Host::to_f32);
        Ok(match self.layer.cell.direction {
            Direction::Forward => vec![(Operand::Y, y)],
            Direction::Backward => {
                vec![
                    (Operand::Dx, y),
                    (Operand::Da, self.da.clone()),
                    (Operand::Db, self.db.clone()),
                ]
            }
        })
    }
}

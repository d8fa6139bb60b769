//! Layers on the device: frozen weights, their adapters, and the fused calls. This file is
//! where the crate's API is: `Layer::new` and `Pass::new` make tensors, `Fused` calls. Called by `network`, and
//! by the page in `examples/browser`.

use fused_lora::{Backward, DType, Device, Forward, Result, Tensor, shrunk_stride};

use crate::adam::Adam;
use crate::data::Frozen;

/// One layer: `y = x·wᵀ + s·(x·aᵀ)·bᵀ + bias`. Only `a` and `b` change.
pub struct Layer {
    pub name: &'static str,
    pub in_features: usize,
    pub out_features: usize,
    pub rank: usize,
    pub scale: f32,
    /// Frozen, in the activations' storage type.
    pub w: Tensor,
    pub bias: Tensor,
    /// The adapter and its gradients: f32 whatever the activations are, as PEFT keeps them.
    pub a: Tensor,
    pub b: Tensor,
    pub da: Tensor,
    pub db: Tensor,
    adam_a: Adam,
    adam_b: Adam,
}

impl Layer {
    pub fn new(
        device: &Device,
        dtype: DType,
        frozen: &Frozen,
        (a, b, scale): (Vec<f32>, Vec<f32>, f32),
    ) -> Result<Layer> {
        let (k, n, r) = (frozen.in_features, frozen.out_features, a.len() / frozen.in_features);
        Ok(Layer {
            name: frozen.name,
            in_features: k,
            out_features: n,
            rank: r,
            scale,
            w: device.tensor(n, k, dtype, &frozen.weight)?,
            bias: device.tensor(1, n, dtype, &frozen.bias)?,
            a: device.tensor(r, k, DType::F32, &a)?,
            b: device.tensor(n, r, DType::F32, &b)?,
            da: device.zeros(r, k, DType::F32)?,
            db: device.zeros(n, r, DType::F32)?,
            adam_a: Adam::new(a),
            adam_b: Adam::new(b),
        })
    }

    /// lora_A and lora_B as they are now.
    pub fn factors(&self) -> (&[f32], &[f32]) {
        (self.adam_a.values(), self.adam_b.values())
    }

    /// One step of the optimiser along the gradients, on the host.
    pub fn update(&mut self, [da, db]: [&[f32]; 2], lr: f32) -> Result<()> {
        self.a.write(self.adam_a.step(da, lr))?;
        self.b.write(self.adam_b.step(db, lr))
    }
}

/// A layer's activations and gradients for one number of tokens. Made once, used for every batch of that
/// size.
pub struct Pass {
    pub x: Tensor,
    pub y: Tensor,
    /// `s·x·aᵀ`: what forward leaves for backward.
    pub shrunk: Tensor,
    pub dy: Tensor,
    pub dx: Tensor,
    /// Whether somebody before this layer needs dx; the first layer has nobody.
    pub needs_dx: bool,
}

impl Pass {
    pub fn new(device: &Device, at: usize, layer: &Layer, tokens: usize) -> Result<Pass> {
        let (k, n) = (layer.in_features, layer.out_features);
        let dtype = layer.w.dtype();
        Ok(Pass {
            x: device.zeros(tokens, k, dtype)?,
            y: device.zeros(tokens, n, dtype)?,
            shrunk: device.zeros(tokens, shrunk_stride(layer.rank), dtype)?,
            dy: device.zeros(tokens, n, dtype)?,
            dx: device.zeros(tokens, k, dtype)?,
            needs_dx: at > 0,
        })
    }
}

/// How a layer is run: fused, or by separate calls (`naive`).
pub trait Run {
    /// `x` to `y`; leaves `shrunk`.
    fn forward(&self, device: &Device, at: usize, layer: &Layer, pass: &mut Pass) -> Result<()>;
    /// `dy` to `dx`, `da` and `db`.
    fn backward(
        &self,
        device: &Device,
        at: usize,
        layer: &mut Layer,
        pass: &mut Pass,
    ) -> Result<()>;

    /// Called when the adapters have changed.
    fn refresh(&mut self, _layers: &[Layer]) -> Result<()> {
        Ok(())
    }
}

/// One call forward, one backward.
pub struct Fused;

impl Run for Fused {
    fn forward(&self, device: &Device, _: usize, layer: &Layer, pass: &mut Pass) -> Result<()> {
        device.forward(
            Forward::new(&pass.x, &layer.w, &mut pass.y)
                .bias(&layer.bias)
                .adapter(&layer.a, &layer.b)
                .scale(layer.scale)
                .shrunk(&mut pass.shrunk),
        )
    }

    fn backward(
        &self,
        device: &Device,
        _: usize,
        layer: &mut Layer,
        pass: &mut Pass,
    ) -> Result<()> {
        let dx = pass.needs_dx.then(|| pass.dx.matrix_mut());
        device.backward(
            Backward::new(&pass.x, &layer.w, &pass.dy)
                .adapter(&layer.a, &layer.b)
                .scale(layer.scale)
                .shrunk(&pass.shrunk)
                .with_dx(dx)
                .da(&mut layer.da)
                .db(&mut layer.db),
        )
    }
}

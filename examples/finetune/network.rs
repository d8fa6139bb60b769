//! The network on the device: frozen layers, their adapters, and the fused calls. This file is
//! where the crate's API is: `Layer::new` and `Pass::new` make tensors, `Fused` calls.

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

    /// One step of the optimiser, on the host.
    fn update(&mut self, lr: f32) -> Result<()> {
        self.a.write(self.adam_a.step(&self.da.to_f32()?, lr))?;
        self.b.write(self.adam_b.step(&self.db.to_f32()?, lr))
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

/// Layers with a ReLU between each two.
pub struct Network {
    pub device: Device,
    pub layers: Vec<Layer>,
}

impl Network {
    /// Tensors for batches of `tokens`.
    pub fn passes(&self, tokens: usize) -> Result<Vec<Pass>> {
        let layers = self.layers.iter().enumerate();
        layers.map(|(at, layer)| Pass::new(&self.device, at, layer, tokens)).collect()
    }

    /// The logits of `images`, row by row. ReLU runs on the host: this crate does linear layers.
    pub fn forward(&self, run: &impl Run, passes: &mut [Pass], images: &[f32]) -> Result<Vec<f32>> {
        let mut x = images.to_vec();
        for (at, (layer, pass)) in self.layers.iter().zip(passes).enumerate() {
            if at > 0 {
                x.iter_mut().for_each(|value| *value = value.max(0.0));
            }
            pass.x.write(&x)?;
            run.forward(&self.device, at, layer, pass)?;
            x = pass.y.to_f32()?;
        }
        Ok(x)
    }

    /// From the gradient of the logits to `da` and `db` of every layer.
    pub fn backward(
        &mut self,
        run: &impl Run,
        passes: &mut [Pass],
        logits: Vec<f32>,
    ) -> Result<()> {
        let mut dy = logits;
        for at in (0..self.layers.len()).rev() {
            let pass = &mut passes[at];
            pass.dy.write(&dy)?;
            run.backward(&self.device, at, &mut self.layers[at], pass)?;
            if pass.needs_dx {
                dy = pass.dx.to_f32()?;
                // x is what ReLU let through.
                for (dy, x) in dy.iter_mut().zip(pass.x.to_f32()?) {
                    *dy = if x > 0.0 { *dy } else { 0.0 };
                }
            }
        }
        Ok(())
    }

    /// One step of Adam on every adapter.
    pub fn update(&mut self, lr: f32) -> Result<()> {
        self.layers.iter_mut().try_for_each(|layer| layer.update(lr))
    }

    /// Parameters that stay as they are, and those that are trained.
    pub fn parameters(&self) -> (usize, usize) {
        let sizes = |of: &Layer| {
            let (k, n) = (of.in_features, of.out_features);
            (n * (k + 1), of.rank * (k + n))
        };
        self.layers.iter().map(sizes).fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1))
    }
}

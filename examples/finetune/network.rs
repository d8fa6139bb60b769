//! The network: layers with a ReLU between each two, forward and backward. Called by `fit`, `compare` and `main`.

use fused_lora::{Device, Result};

use crate::layer::{Layer, Pass, Run};

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
        self.layers.iter_mut().try_for_each(|layer| {
            let [da, db] = [layer.da.to_f32()?, layer.db.to_f32()?];
            layer.update([&da, &db], lr)
        })
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

//! The network of `examples/finetune/network.rs`, for a page: nobody may wait there, so what the device brings is
//! awaited, and what is wanted together is asked for together. Called by `trainer`.

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

    /// The logits of `images`, row by row. ReLU runs on the host: fused-lora does linear layers.
    pub async fn forward(
        &self,
        run: &impl Run,
        passes: &mut [Pass],
        images: &[f32],
    ) -> Result<Vec<f32>> {
        let mut x = images.to_vec();
        for (at, (layer, pass)) in self.layers.iter().zip(passes).enumerate() {
            if at > 0 {
                x.iter_mut().for_each(|value| *value = value.max(0.0));
            }
            pass.x.write(&x)?;
            run.forward(&self.device, at, layer, pass)?;
            x = pass.y.to_f32_async().await?;
        }
        Ok(x)
    }

    /// From the gradient of the logits to `da` and `db` of every layer.
    pub async fn backward(
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
                let (dx, x) = (pass.dx.to_f32_async(), pass.x.to_f32_async());
                dy = dx.await?;
                // x is what ReLU let through.
                for (dy, x) in dy.iter_mut().zip(x.await?) {
                    *dy = if x > 0.0 { *dy } else { 0.0 };
                }
            }
        }
        Ok(())
    }

    /// `da` and `db` of every layer.
    pub async fn gradients(&self) -> Result<Vec<[Vec<f32>; 2]>> {
        let coming: Vec<_> = self
            .layers
            .iter()
            .map(|layer| (layer.da.to_f32_async(), layer.db.to_f32_async()))
            .collect();
        let mut gradients = Vec::with_capacity(coming.len());
        for (da, db) in coming {
            gradients.push([da.await?, db.await?]);
        }
        Ok(gradients)
    }

    /// One step of Adam on every adapter.
    pub async fn update(&mut self, lr: f32) -> Result<()> {
        let gradients = self.gradients().await?;
        let mut layers = self.layers.iter_mut().zip(&gradients);
        layers.try_for_each(|(layer, [da, db])| layer.update([da, db], lr))
    }
}

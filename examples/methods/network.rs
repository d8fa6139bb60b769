//! Layers with a ReLU between each two, and the loop over batches. Called by `main`.

use std::time::Instant;

use fused_lora::Result;
use rand::rngs::StdRng;

use crate::Failure;
use crate::adam::{accuracy, cross_entropy};
use crate::data::Digits;
use crate::layer::{Frozen, Layer};
use crate::method::Method;
use crate::schedule::Schedule;

/// How layers are run: `fused`, or in `separate` calls.
pub trait Run {
    /// Called when factors have changed.
    fn refresh(&mut self, layer: &mut Layer) -> Result<()>;

    /// y of the `at`-th layer for so many digits.
    fn forward(&mut self, at: usize, layer: &Layer, digits: usize, x: &[f32]) -> Result<Vec<f32>>;

    /// The gradients of what `layer` trains, from `[x, y, dy]`, and dx where that is wanted.
    fn backward(
        &mut self,
        at: usize,
        layer: &mut Layer,
        of: [&[f32]; 3],
        digits: usize,
        wanted: bool,
    ) -> Result<Vec<f32>>;
}

/// A network under one method.
pub struct Network {
    pub layers: Vec<Layer>,
}

impl Network {
    pub fn new(frozen: &[Frozen], method: Method, rank: usize, rng: &mut StdRng) -> Network {
        let layer = |of| Layer::new(of, method, rank, rng);
        Network { layers: frozen.iter().map(layer).collect() }
    }

    pub fn parameters(&self) -> usize {
        self.layers.iter().map(Layer::parameters).sum()
    }

    pub fn refresh(&mut self, run: &mut dyn Run) -> Result<()> {
        self.layers.iter_mut().try_for_each(|layer| run.refresh(layer))
    }

    /// Every layer's x, and the logits last.
    fn activations(&self, run: &mut dyn Run, digits: &Digits) -> Result<Vec<[Vec<f32>; 2]>> {
        let mut x = digits.images.clone();
        let mut all = Vec::new();
        for (at, layer) in self.layers.iter().enumerate() {
            let y = run.forward(at, layer, digits.len(), &x)?;
            let next = y.iter().map(|of| of.max(0.0)).collect();
            all.push([std::mem::replace(&mut x, next), y]);
        }
        Ok(all)
    }

    pub fn logits(&self, run: &mut dyn Run, digits: &Digits) -> Result<Vec<f32>> {
        let last = self.activations(run, digits)?.pop();
        Ok(last.map_or(Vec::new(), |[_, y]| y))
    }

    pub fn accuracy(&self, run: &mut dyn Run, digits: &Digits) -> Result<f64> {
        Ok(accuracy(&self.logits(run, digits)?, &digits.labels))
    }

    /// Forward, loss and backward; the gradients lie in the layers. The loss.
    pub fn step(&mut self, run: &mut dyn Run, digits: &Digits) -> Result<f32> {
        let all = self.activations(run, digits)?;
        let logits = all.last().map_or(&[][..], |[_, y]| y);
        let (loss, mut dy) = cross_entropy(logits, &digits.labels);
        for (at, [x, y]) in all.iter().enumerate().rev() {
            let layer = &mut self.layers[at];
            dy = run.backward(at, layer, [x, y, &dy], digits.len(), at > 0)?;
            // x is what ReLU let through; in front of the first layer nobody asks.
            for (dy, x) in dy.iter_mut().zip(x) {
                *dy = if *x > 0.0 { *dy } else { 0.0 };
            }
        }
        Ok(loss)
    }

    /// Trains, and gives the loss of each step.
    pub fn fit(
        &mut self,
        run: &mut dyn Run,
        train: &Digits,
        schedule: &Schedule,
    ) -> Result<Vec<f32>> {
        let mut losses = Vec::new();
        self.refresh(run)?;
        for order in &schedule.orders {
            for indices in order.chunks(schedule.batch) {
                let loss = self.step(run, &train.gather(indices))?;
                let lr = schedule.learning_rate_at(losses.len());
                self.layers.iter_mut().for_each(|layer| layer.update(lr));
                self.refresh(run)?;
                losses.push(loss);
            }
        }
        Ok(losses)
    }
}

/// The time of fused steps over that of separate ones: the median of pairs, and its 95 % interval.
pub struct Ratio {
    pub median: f64,
    pub interval: [f64; 2],
}

/// Steps with what `one` and `other` do, refresh and all, on one batch, in pairs of alternating order. Nothing is updated, so
/// all do the same work; and both must find the same gradients.
pub fn compare(
    network: &mut Network,
    [one, other]: [&mut dyn Run; 2],
    batch: &Digits,
    pairs: usize,
) -> Result<Ratio, Failure> {
    const WARM_UP: usize = 3;
    let mut ratios = Vec::new();
    let runs = [one, other];
    for pair in 0..WARM_UP + pairs {
        let mut seconds = [0.0; 2];
        let mut gradients = [Vec::new(), Vec::new()];
        for turn in 0..2 {
            let which = (pair + turn) % 2;
            let start = Instant::now();
            network.refresh(runs[which])?;
            network.step(runs[which], batch)?;
            seconds[which] = start.elapsed().as_secs_f64();
            gradients[which] = network.layers.iter().flat_map(Layer::all_gradients).collect();
        }
        let [fused, separate] = &gradients;
        let most = separate.iter().fold(f32::MIN_POSITIVE, |most, of| most.max(of.abs()));
        let apart = fused.iter().zip(separate).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        if apart.is_nan() || apart > 1e-3 * most {
            return Err(format!("gradients are {apart:e} apart, of {most:e}").into());
        }
        if pair >= WARM_UP {
            ratios.push(seconds[0] / seconds[1]);
        }
    }
    ratios.sort_by(f64::total_cmp);
    // Between these order statistics lies the median with 95 %: the number of values below it is binomial.
    let (count, deviation) = (ratios.len() as f64, 1.96 * (ratios.len() as f64).sqrt());
    let low = ((count - deviation) / 2.0).floor().max(1.0) as usize;
    let interval = [ratios[low - 1], ratios[ratios.len() - low]];
    Ok(Ratio { median: ratios[ratios.len() / 2], interval })
}

//! Times of fused steps beside those of separate calls. Called by `main`.

use std::time::Instant;

use fused_lora::{Result, Tensor};

use crate::adam::cross_entropy;
use crate::data::Digits;
use crate::layer::{Fused, Pass, Run};
use crate::naive::Naive;
use crate::network::Network;

/// Times of fused steps over naive ones, in one run.
pub struct Comparison {
    /// The median of the pairwise ratios; below 1 the fused step is faster.
    pub ratio: f64,
    /// Its 95 % interval.
    pub interval: [f64; 2],
    /// Pairs measured.
    pub pairs: usize,
    /// Medians of a fused and of a naive step, in microseconds.
    pub micros: [f64; 2],
    /// The largest difference between the two paths' gradients, over the largest gradient.
    pub difference: f32,
}

/// Whole steps, forward, loss and backward, on one batch: fused and naive in turn, in alternating
/// order. Nothing is updated, so every step does the same work.
pub fn compare(network: &mut Network, batch: &Digits) -> Result<Comparison> {
    const WARM_UP: usize = 5;
    const PAIRS: usize = 101;
    // Of a device that takes seconds for a step.
    const ENOUGH: usize = 11;
    const SECONDS: u64 = 10;
    let naive = Naive::new(&network.device, &network.layers, batch.len())?;
    let mut passes = network.passes(batch.len())?;
    let gradients = |network: &Network| -> Result<Vec<f32>> {
        let both = network.layers.iter().flat_map(|layer| [&layer.da, &layer.db]);
        Ok(both.map(Tensor::to_f32).collect::<Result<Vec<_>>>()?.concat())
    };
    let (mut pairs, mut difference) = (Vec::new(), 0f32);
    let begin = Instant::now();
    for pair in 0..WARM_UP + PAIRS {
        if pairs.len() >= ENOUGH && begin.elapsed().as_secs() >= SECONDS {
            break;
        }
        let mut micros = [0.0; 2];
        let mut results = [Vec::new(), Vec::new()];
        for turn in 0..2 {
            let which = (pair + turn) % 2;
            let start = Instant::now();
            match which {
                0 => step(network, &Fused, &mut passes, batch)?,
                _ => step(network, &naive, &mut passes, batch)?,
            }
            // Reading the gradients waits for the device.
            results[which] = gradients(network)?;
            micros[which] = start.elapsed().as_secs_f64() * 1e6;
        }
        let [fused, naive] = results;
        let largest = naive.iter().fold(f32::MIN_POSITIVE, |most, value| most.max(value.abs()));
        let apart = fused.iter().zip(&naive).map(|(one, other)| (one - other).abs());
        difference = difference.max(apart.fold(0.0, f32::max) / largest);
        if pair >= WARM_UP {
            pairs.push(micros);
        }
    }
    let sorted = |of: &dyn Fn(&[f64; 2]) -> f64| {
        let mut values: Vec<f64> = pairs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let ratios = sorted(&|[fused, naive]| fused / naive);
    // The median lies between these order statistics with 95 %: the number of values below it is
    // binomial with one half, whose deviation is √n / 2.
    let count = pairs.len();
    let low = ((count as f64 - 1.96 * (count as f64).sqrt()) / 2.0).floor() as usize;
    Ok(Comparison {
        ratio: ratios[count / 2],
        interval: [ratios[low - 1], ratios[count - low]],
        pairs: count,
        micros: [sorted(&|of| of[0])[count / 2], sorted(&|of| of[1])[count / 2]],
        difference,
    })
}

fn step(network: &mut Network, run: &impl Run, passes: &mut [Pass], batch: &Digits) -> Result<()> {
    let logits = network.forward(run, passes, &batch.images)?;
    let (_, gradient) = cross_entropy(&logits, &batch.labels);
    network.backward(run, passes, gradient)
}

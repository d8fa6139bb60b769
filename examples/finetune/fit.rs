//! The training loop, for layers that are run in any way, and what it leads to. Called by `main.rs`.

use indicatif::{ProgressBar, ProgressStyle};
use rand::Rng;
use rand::seq::SliceRandom;

use crate::Failure;
use crate::adam::{accuracy, cross_entropy};
use crate::chart::Course;
use crate::data::Digits;
use crate::network::{Network, Run};

/// How long, how fast, and on what.
pub struct Schedule {
    pub batch: usize,
    /// In the first step; it falls to 0 along a line.
    pub learning_rate: f32,
    /// In which order the digits come, epoch by epoch.
    pub orders: Vec<Vec<usize>>,
}

impl Schedule {
    pub fn new(
        epochs: usize,
        batch: usize,
        learning_rate: f32,
        digits: usize,
        rng: &mut impl Rng,
    ) -> Schedule {
        let mut order: Vec<usize> = (0..digits).collect();
        let shuffled = |_| {
            order.shuffle(rng);
            order.clone()
        };
        Schedule { batch, learning_rate, orders: (0..epochs).map(shuffled).collect() }
    }
}

/// How well digits are read.
#[derive(Debug, Clone, Copy)]
pub struct Score {
    /// The mean loss.
    pub loss: f32,
    /// The share that is read rightly.
    pub accuracy: f64,
}

/// Trains the adapters, and reports how it went. `way` makes what runs the layers of a network for a
/// number of tokens.
pub fn fit<R: Run>(
    network: &mut Network,
    way: impl Fn(&Network, usize) -> fused_lora::Result<R>,
    train: &Digits,
    held: &Digits,
    schedule: &Schedule,
) -> Result<Course, Failure> {
    let Schedule { batch, learning_rate, orders } = schedule;
    // Tensors and plans: for whole batches, for the short one at the end, and for the held-out digits.
    let mut runs = [*batch, train.len() % batch, held.len()]
        .iter()
        .map(|&tokens| Ok((way(network, tokens)?, network.passes(tokens)?)))
        .collect::<Result<Vec<_>, Failure>>()?;
    let first = score(network, &runs[2].0, held)?.accuracy;
    let mut course = Course { accuracies: vec![first], ..Course::default() };
    let steps = orders.len() * train.len().div_ceil(*batch);
    // Draws nothing where standard error is no terminal.
    let bar = ProgressBar::new(steps as u64)
        .with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} steps  {msg}")?);
    for order in orders {
        for indices in order.chunks(*batch) {
            let digits = train.gather(indices);
            let (run, passes) = &mut runs[usize::from(digits.len() < *batch)];
            let logits = network.forward(run, passes, &digits.images)?;
            let (loss, gradient) = cross_entropy(&logits, &digits.labels);
            network.backward(run, passes, gradient)?;
            network.update(learning_rate * (1.0 - course.losses.len() as f32 / steps as f32))?;
            runs.iter_mut().try_for_each(|(run, _)| run.refresh(&network.layers))?;
            course.losses.push(loss);
            bar.inc(1);
        }
        let now = score(network, &runs[2].0, held)?.accuracy;
        bar.set_message(format!("held-out {:.1} %", 100.0 * now));
        course.accuracies.push(now);
    }
    bar.finish_and_clear();
    Ok(course)
}

/// One row of logits for each digit.
pub fn logits(network: &Network, run: &impl Run, digits: &Digits) -> Result<Vec<f32>, Failure> {
    let mut passes = network.passes(digits.len())?;
    Ok(network.forward(run, &mut passes, &digits.images)?)
}

pub fn score(network: &Network, run: &impl Run, digits: &Digits) -> Result<Score, Failure> {
    let logits = logits(network, run, digits)?;
    let (loss, _) = cross_entropy(&logits, &digits.labels);
    Ok(Score { loss, accuracy: accuracy(&logits, &digits.labels) })
}

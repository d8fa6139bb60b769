//! The training loop, for layers that are run in any way, and what it leads to. Called by `main.rs`.

use crate::Failure;
use crate::adam::{accuracy, cross_entropy};
use crate::chart::Course;
use crate::data::Digits;
use crate::layer::Run;
use crate::network::Network;
use crate::schedule::Schedule;
use indicatif::{ProgressBar, ProgressStyle};

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
    let Schedule { batch, orders, .. } = schedule;
    // Tensors and plans: for whole batches, for the short one at the end, and for the held-out digits.
    let mut runs = [*batch, train.len() % batch, held.len()]
        .iter()
        .map(|&tokens| Ok((way(network, tokens)?, network.passes(tokens)?)))
        .collect::<Result<Vec<_>, Failure>>()?;
    let first = score(network, &runs[2].0, held)?.accuracy;
    let mut course = Course { accuracies: vec![first], ..Course::default() };
    let steps = schedule.steps();
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
            network.update(schedule.learning_rate_at(course.losses.len()))?;
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

//! Which digits a step sees, and how far it goes; and what the adapters begin with. Called by `main`, `fit` and the
//! page in `examples/browser`.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

use crate::data::Frozen;

/// alpha of the adapters: their scale is alpha / rank.
pub const ALPHA: f64 = 16.0;
/// Of Adam in the first step.
pub const LEARNING_RATE: f32 = 0.01;
/// Digits of a step.
pub const BATCH: usize = 64;

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

    /// Steps of the optimiser in all.
    pub fn steps(&self) -> usize {
        self.orders.iter().map(|order| order.len().div_ceil(self.batch)).sum()
    }

    /// The learning rate of this step, of which 0 is the first.
    pub fn learning_rate_at(&self, step: usize) -> f32 {
        self.learning_rate * (1.0 - step as f32 / self.steps() as f32)
    }
}

/// lora_A uniform in ±1/√K, lora_B zero: the adapter starts as nothing. And the scale.
pub fn fresh(frozen: &Frozen, rank: usize, rng: &mut StdRng) -> (Vec<f32>, Vec<f32>, f32) {
    let bound = 1.0 / (frozen.in_features as f32).sqrt();
    let a = (0..rank * frozen.in_features).map(|_| rng.random_range(-bound..bound)).collect();
    (a, vec![0.0; frozen.out_features * rank], (ALPHA / rank as f64) as f32)
}

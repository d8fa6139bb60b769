//! What `page.js` calls: one object that trains step by step, says how well it reads, runs a step fused or by separate
//! calls for the comparison of times, and classifies what a visitor draws.

use fused_lora::{DType, Device};
use rand::SeedableRng;
use rand::rngs::StdRng;
use wasm_bindgen::prelude::*;

use crate::adam::{accuracy, cross_entropy};
use crate::data::{self, Digits, PIXELS};
use crate::layer::{Fused, Layer, Pass, Run};
use crate::naive::Naive;
use crate::network::Network;
use crate::schedule::{BATCH, LEARNING_RATE, Schedule, fresh};

const RANK: usize = 8;

/// Trains the adapters of one network. Its calls must not overlap.
#[wasm_bindgen]
pub struct Trainer {
    network: Network,
    train: Digits,
    held: Digits,
    /// For whole batches, the short one that ends an epoch, the held-out digits, and one digit.
    passes: [Vec<Pass>; 4],
    separate: Naive,
    /// Which digits a step sees.
    steps: Vec<Vec<usize>>,
    schedule: Schedule,
    at: usize,
    /// Why the browser's WebGPU was not taken.
    fell_back: Option<String>,
}

fn said(error: impl std::fmt::Display) -> JsError {
    JsError::new(&error.to_string())
}

#[wasm_bindgen]
impl Trainer {
    /// On `wgpu` (the CPU instead, if the browser has no WebGPU) or `cpu`; `digits` and `base` are the files of
    /// `examples/data`.
    pub async fn open(
        device: &str,
        digits: Vec<u8>,
        base: Vec<u8>,
        epochs: usize,
    ) -> Result<Trainer, JsError> {
        console_error_panic_hook::set_once();
        let (device, fell_back) = match Device::open_async(device).await {
            Ok(device) => (device, None),
            Err(error) if device == "wgpu" => (Device::cpu(), Some(error.to_string())),
            Err(error) => return Err(said(error)),
        };
        let (train, held) = data::digits(&digits).map_err(said)?.shifted().split();
        let mut rng = StdRng::seed_from_u64(0);
        let layers = data::base(&base).map_err(said)?;
        let layers = layers
            .iter()
            .map(|frozen| Layer::new(&device, DType::F32, frozen, fresh(frozen, RANK, &mut rng)));
        let layers = layers.collect::<Result<Vec<_>, _>>().map_err(said)?;
        let network = Network { layers, device };
        let sizes = [BATCH, train.len() % BATCH, held.len(), 1];
        let [batch, short, all, one] = sizes.map(|tokens| network.passes(tokens).map_err(said));
        let schedule = Schedule::new(epochs, BATCH, LEARNING_RATE, train.len(), &mut rng);
        let steps = schedule.orders.iter().flat_map(|order| order.chunks(BATCH));
        Ok(Trainer {
            separate: Naive::new(&network.device, &network.layers, BATCH).map_err(said)?,
            steps: steps.map(<[usize]>::to_vec).collect(),
            passes: [batch?, short?, all?, one?],
            network,
            train,
            held,
            schedule,
            at: 0,
            fell_back,
        })
    }

    /// Its name, as `Device::name` says it.
    pub fn device(&self) -> String {
        self.network.device.name().to_owned()
    }

    /// Why the CPU was taken where WebGPU was asked for.
    pub fn fell_back(&self) -> Option<String> {
        self.fell_back.clone()
    }

    /// Steps of the whole training.
    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    /// Steps of an epoch.
    pub fn steps_an_epoch(&self) -> usize {
        self.train.len().div_ceil(BATCH)
    }

    /// The next step's loss; nothing when training is over.
    pub async fn step(&mut self) -> Result<Option<f32>, JsError> {
        let Some(indices) = self.steps.get(self.at) else { return Ok(None) };
        let batch = self.train.gather(indices);
        let passes = &mut self.passes[usize::from(batch.len() < BATCH)];
        let logits = self.network.forward(&Fused, passes, &batch.images).await.map_err(said)?;
        let (loss, gradient) = cross_entropy(&logits, &batch.labels);
        self.network.backward(&Fused, passes, gradient).await.map_err(said)?;
        let learning_rate = self.schedule.learning_rate_at(self.at);
        self.network.update(learning_rate).await.map_err(said)?;
        self.at += 1;
        Ok(Some(loss))
    }

    /// The share of held-out digits that are read rightly.
    pub async fn accuracy(&mut self) -> Result<f64, JsError> {
        let logits = self.network.forward(&Fused, &mut self.passes[2], &self.held.images).await;
        Ok(accuracy(&logits.map_err(said)?, &self.held.labels))
    }

    /// Gives the separate calls, which have copies of it, the adapter as training has made it.
    pub fn refresh(&mut self) -> Result<(), JsError> {
        self.separate.refresh(&self.network.layers).map_err(said)
    }

    /// Forward, loss and backward on the first batch, fused or by separate calls; nothing is updated, so each does
    /// the same work. Returns when the gradients have come: they are the sum of what is returned.
    pub async fn untrained_step(&mut self, fused: bool) -> Result<f64, JsError> {
        let batch = self.train.gather(&(0..BATCH).collect::<Vec<_>>());
        let (network, passes) = (&mut self.network, &mut self.passes[0]);
        let logits = match fused {
            true => network.forward(&Fused, passes, &batch.images).await,
            false => network.forward(&self.separate, passes, &batch.images).await,
        };
        let (_, gradient) = cross_entropy(&logits.map_err(said)?, &batch.labels);
        match fused {
            true => network.backward(&Fused, passes, gradient).await,
            false => network.backward(&self.separate, passes, gradient).await,
        }
        .map_err(said)?;
        let gradients = network.gradients().await.map_err(said)?;
        Ok(gradients.iter().flatten().flatten().map(|&of| f64::from(of.abs())).sum())
    }

    /// How likely each of the ten digits is, for 8 × 8 pixels in 0 to 1 of an upright digit. The network is shown
    /// it as it sees all of them: sideways and negative.
    pub async fn classify(&mut self, pixels: Vec<f32>) -> Result<Vec<f32>, JsError> {
        if pixels.len() != PIXELS {
            return Err(said(format!("a digit has {PIXELS} pixels, not {}", pixels.len())));
        }
        let digit = Digits { images: pixels, labels: vec![0] }.shifted();
        let logits = self.network.forward(&Fused, &mut self.passes[3], &digit.images).await;
        let logits = logits.map_err(said)?;
        let largest = logits.iter().copied().fold(f32::MIN, f32::max);
        let powers: Vec<f32> = logits.iter().map(|logit| (logit - largest).exp()).collect();
        let sum: f32 = powers.iter().sum();
        Ok(powers.iter().map(|power| power / sum).collect())
    }

    /// The `at`-th held-out digit, upright: its 64 pixels, and what it shows behind them.
    pub fn example(&self, at: usize) -> Vec<f32> {
        let digit = self.held.gather(&[at % self.held.len()]);
        // Three quarter turns more are a whole one; negative twice is positive.
        let upright = digit.shifted();
        let turned = |image: &[f32]| -> Vec<f32> { image.iter().rev().copied().collect() };
        let mut all = turned(&upright.images);
        all.push(digit.labels[0] as f32);
        all
    }
}

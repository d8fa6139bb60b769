//! Fine-tunes a small network with LoRA, from PEFT's point of view and with this crate's calls.
//!
//!     cargo run --release --example finetune --features peft
//!
//! A frozen network reads digits; the page is then fed in sideways and negative, which it cannot
//! read. Training only the adapters (`a`, `b`) of its three layers teaches it to. The adapter is
//! written as PEFT would write it, read back, and gives the same bits.
//!
//! | file | |
//! |---|---|
//! | `network.rs` | **start here**: tensors, plans, the fused forward and backward |
//! | `adam.rs` | optimiser and loss |
//! | `naive.rs` | the step by separate calls, and the comparison of times |
//! | `data.rs`, `chart.rs` | digits and base network in, loss curve out |

#![expect(unreachable_pub, reason = "nothing of an example can be reached from outside")]

mod adam;
mod chart;
mod data;
mod naive;
mod network;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use fused_lora::peft::{AdapterConfig, AdapterFile, Factor};
use fused_lora::{DType, Device};
use indicatif::{ProgressBar, ProgressStyle};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use adam::{accuracy, cross_entropy};
use chart::Course;
use data::{Digits, Frozen};
use network::{Fused, Layer, Network};

/// Any error, to be shown.
pub type Failure = Box<dyn std::error::Error>;

const ALPHA: f64 = 16.0;
const LEARNING_RATE: f32 = 0.01;
const BATCH: usize = 64;

/// Teach a frozen network to read shifted digits by training LoRA adapters only.
#[derive(Parser)]
struct Options {
    /// Where to run: a name of Device::open. Default: FUSED_LORA_DEVICE, or the best there is.
    #[arg(long)]
    device: Option<String>,
    /// Storage of weights and activations; the adapter and its gradients stay f32.
    #[arg(long, value_enum, default_value = "f32")]
    dtype: Storage,
    /// Passes over the training set.
    #[arg(long, default_value_t = 30)]
    epochs: usize,
    /// Rank of the adapters.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=512))]
    rank: u16,
    /// Of the adapters' first values and the order of the batches.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder for the adapter and the loss curve.
    #[arg(long, default_value = "target/finetune")]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Storage {
    F32,
    Bf16,
    F16,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let device = match &options.device {
        Some(name) => Device::open(name)?,
        None => Device::from_env()?,
    };
    let dtype = match options.dtype {
        Storage::F32 => DType::F32,
        Storage::Bf16 => DType::Bf16,
        Storage::F16 => DType::F16,
    };
    let mut rng = StdRng::seed_from_u64(options.seed);
    let rank = usize::from(options.rank);

    let (upright, base) = (data::digits()?, data::base()?);
    let ((train, held), (_, held_upright)) = (upright.shifted().split(), upright.split());
    let layers = base.iter().map(|frozen| {
        let factors = fresh(frozen, rank, &mut rng);
        Layer::new(&device, dtype, frozen, factors)
    });
    let mut network = Network { layers: layers.collect::<Result<_, _>>()?, device: device.clone() };

    let (frozen, trained) = network.parameters();
    println!("device      {}, activations {dtype}", device.name());
    println!("parameters  {frozen} frozen, {trained} trained (rank {rank}, alpha {ALPHA})");
    let known = score(&network, &held_upright)?;
    println!("upright     {:.1} % of {} held-out digits", 100.0 * known, held_upright.len());

    let course = fit(&mut network, &train, &held, options.epochs, &mut rng)?;
    let (before, after) = (course.accuracies[0], course.accuracies[course.accuracies.len() - 1]);
    println!("shifted     {:.1} % before training", 100.0 * before);
    println!("            {:.1} % after {} epochs", 100.0 * after, options.epochs);

    let first: Vec<usize> = (0..BATCH).collect();
    let times = naive::compare(&mut network, &train.gather(&first))?;
    let [low, high] = times.interval;
    println!(
        "step        fused / naive {:.3} (95 %: {low:.3} to {high:.3}; {} pairs; gradients differ \
         by {:.0e})",
        times.ratio, times.pairs, times.difference
    );
    if device.name() != "cpu" {
        println!("            fused {:.0} µs, naive {:.0} µs", times.micros[0], times.micros[1]);
    }

    std::fs::create_dir_all(&options.out)?;
    let curve = options.out.join("loss.svg");
    let title = format!("LoRA, rank {rank}, {dtype}: held-out {:.1} %", 100.0 * after);
    course.draw(&curve, &title)?;
    println!("curve       {}", curve.display());

    save(&network, rank, &options.out)?;
    println!("adapter     {}", options.out.display());
    let again = load(&device, dtype, &base, &options.out)?;
    let bits = |of: &Network| -> Result<Vec<u32>, Failure> {
        Ok(logits(of, &held)?.into_iter().map(f32::to_bits).collect())
    };
    if bits(&network)? != bits(&again)? {
        return Err("the adapter gives other outputs when it is read back".into());
    }
    println!("            read back: the same bits on the held-out digits");
    if before >= 0.4 || after <= 0.9 {
        return Err("expected below 40 % before and above 90 % after training".into());
    }
    Ok(())
}

/// lora_A uniform in ±1/√K, lora_B zero: the adapter starts as nothing.
fn fresh(frozen: &Frozen, rank: usize, rng: &mut StdRng) -> (Vec<f32>, Vec<f32>, f32) {
    let bound = 1.0 / (frozen.in_features as f32).sqrt();
    let a = (0..rank * frozen.in_features).map(|_| rng.random_range(-bound..bound)).collect();
    (a, vec![0.0; frozen.out_features * rank], (ALPHA / rank as f64) as f32)
}

/// Trains the adapters, and reports how it went.
fn fit(
    network: &mut Network,
    train: &Digits,
    held: &Digits,
    epochs: usize,
    rng: &mut StdRng,
) -> Result<Course, Failure> {
    let mut course = Course { accuracies: vec![score(network, held)?], ..Course::default() };
    let mut order: Vec<usize> = (0..train.len()).collect();
    // Tensors and plans: for whole batches, and for the short one at the end.
    let mut whole = network.passes(BATCH)?;
    let mut rest = network.passes(train.len() % BATCH)?;
    let steps = epochs * train.len().div_ceil(BATCH);
    // Draws nothing where standard error is no terminal.
    let bar = ProgressBar::new(steps as u64)
        .with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} steps  {msg}")?);
    for _ in 0..epochs {
        order.shuffle(rng);
        for indices in order.chunks(BATCH) {
            let batch = train.gather(indices);
            let passes = if batch.len() == BATCH { &mut whole } else { &mut rest };
            let logits = network.forward(&Fused, passes, &batch.images)?;
            let (loss, gradient) = cross_entropy(&logits, &batch.labels);
            network.backward(&Fused, passes, gradient)?;
            network.update(LEARNING_RATE * (1.0 - course.losses.len() as f32 / steps as f32))?;
            course.losses.push(loss);
            bar.inc(1);
        }
        let now = score(network, held)?;
        bar.set_message(format!("held-out {:.1} %", 100.0 * now));
        course.accuracies.push(now);
    }
    bar.finish_and_clear();
    Ok(course)
}

/// One row of logits for each digit.
fn logits(network: &Network, digits: &Digits) -> Result<Vec<f32>, Failure> {
    let mut passes = network.passes(digits.len())?;
    Ok(network.forward(&Fused, &mut passes, &digits.images)?)
}

/// The share of digits that are read rightly.
fn score(network: &Network, digits: &Digits) -> Result<f64, Failure> {
    Ok(accuracy(&logits(network, digits)?, &digits.labels))
}

/// Writes the adapters as PEFT would.
fn save(network: &Network, rank: usize, folder: &Path) -> Result<(), Failure> {
    let modules = network.layers.iter().map(|layer| {
        let (a, b) = layer.factors();
        let a = Factor::new(layer.rank, layer.in_features, DType::F32, a)?;
        let b = Factor::new(layer.out_features, layer.rank, DType::F32, b)?;
        Ok((layer.name.to_owned(), a, b))
    });
    let modules = modules.collect::<Result<Vec<_>, fused_lora::Error>>()?;
    AdapterFile::new(AdapterConfig::new(rank, ALPHA), modules)?.write(folder)?;
    Ok(())
}

/// The base network with the adapters of `folder`.
fn load(device: &Device, dtype: DType, base: &[Frozen], folder: &Path) -> Result<Network, Failure> {
    let file = AdapterFile::read(folder)?;
    let layers = base.iter().map(|frozen| {
        let module = file.modules.get(frozen.name).ok_or("the adapter lacks a layer")?;
        let factors = (module.a.values(), module.b.values(), module.scale);
        Ok(Layer::new(device, dtype, frozen, factors)?)
    });
    Ok(Network { layers: layers.collect::<Result<_, Failure>>()?, device: device.clone() })
}

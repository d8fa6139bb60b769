//! Fine-tunes a small network with LoRA, from PEFT's point of view and with this crate's calls.
//!
//!     cargo run --release --example finetune --features files
//!
//! A frozen network reads digits; the page is then fed in sideways and negative, which it cannot
//! read. Training only the adapters (`a`, `b`) of its three layers teaches it to. The adapter is
//! written as PEFT would write it, read back, and gives the same bits.
//!
//! | file | |
//! |---|---|
//! | `layer.rs` | **start here**: tensors, the fused forward and backward |
//! | `network.rs` | layers with a ReLU between them |
//! | `adam.rs` | optimiser and loss |
//! | `schedule.rs`, `fit.rs` | the loop over batches |
//! | `naive.rs`, `compare.rs` | the step by separate calls, and the comparison of times |
//! | `data.rs`, `chart.rs` | digits and base network in, loss curve out |

#![expect(unreachable_pub, reason = "nothing of an example can be reached from outside")]

mod adam;
mod chart;
mod compare;
mod data;
mod fit;
mod layer;
mod naive;
mod network;
mod schedule;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use fused_lora::peft::{AdapterConfig, AdapterFile, Factor};
use fused_lora::{DType, Device};
use rand::SeedableRng;
use rand::rngs::StdRng;

use data::{Digits, Frozen};
use fit::{Score, fit, logits, score};
use layer::{Fused, Layer};
use naive::Naive;
use network::Network;
use schedule::{ALPHA, BATCH, LEARNING_RATE, Schedule, fresh};

/// Any error, to be shown.
pub type Failure = Box<dyn std::error::Error>;

/// Teach a frozen network to read shifted digits by training LoRA adapters only.
#[derive(Parser)]
struct Options {
    /// Where to run: a name of Device::open. Default: FUSED_LORA_DEVICE, or the best there is.
    #[arg(long)]
    device: Option<String>,
    /// Storage of weights and activations; the adapter and its gradients stay f32.
    #[arg(long, value_enum, default_value = "f32")]
    dtype: Storage,
    /// Of Adam in the first step; it falls to 0 along a line.
    #[arg(long, default_value_t = LEARNING_RATE)]
    learning_rate: f32,
    /// Trains a second time, in separate calls, from the same start on the same batches, and compares. In 16
    /// bits (--dtype bf16) these round each layer's output before the adapter's term is added to it; it shows
    /// while adapters are small, so with few epochs and a small --learning-rate (1 and 1e-4).
    #[arg(long)]
    separate: bool,
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

    let (upright, base) = (file("digits.safetensors")?, file("base.safetensors")?);
    let (upright, base) = (data::digits(&upright)?, data::base(&base)?);
    let ((train, held), (_, held_upright)) = (upright.shifted().split(), upright.split());
    let factors: Vec<_> = base.iter().map(|frozen| fresh(frozen, rank, &mut rng)).collect();
    let fresh_network = || -> Result<Network, Failure> {
        let layers = base.iter().zip(&factors);
        let layers = layers.map(|(of, factors)| Layer::new(&device, dtype, of, factors.clone()));
        Ok(Network { layers: layers.collect::<Result<_, _>>()?, device: device.clone() })
    };
    let mut network = fresh_network()?;

    let (frozen, trained) = network.parameters();
    println!("device      {}, activations {dtype}", device.name());
    println!("parameters  {frozen} frozen, {trained} trained (rank {rank}, alpha {ALPHA})");
    let known = score(&network, &Fused, &held_upright)?.accuracy;
    println!("upright     {:.1} % of {} held-out digits", 100.0 * known, held_upright.len());

    let Options { epochs, learning_rate, .. } = *options;
    let schedule = Schedule::new(epochs, BATCH, learning_rate, train.len(), &mut rng);
    let start = score(&network, &Fused, &train)?;
    let course = fit(&mut network, |_, _| Ok(Fused), &train, &held, &schedule)?;
    let (before, after) = (course.accuracies[0], course.accuracies[course.accuracies.len() - 1]);
    println!("shifted     {:.1} % before training", 100.0 * before);
    println!("            {:.1} % after {} epochs", 100.0 * after, options.epochs);
    if options.separate {
        let mut other = fresh_network()?;
        fit(&mut other, separate_calls, &train, &held, &schedule)?;
        compare(start, &network, &other, [&train, &held])?;
    }

    let first: Vec<usize> = (0..BATCH).collect();
    let times = compare::compare(&mut network, &train.gather(&first))?;
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
        Ok(logits(of, &Fused, &held)?.into_iter().map(f32::to_bits).collect())
    };
    if bits(&network)? != bits(&again)? {
        return Err("the adapter gives other outputs when it is read back".into());
    }
    println!("            read back: the same bits on the held-out digits");
    let is_usual = options.learning_rate == LEARNING_RATE;
    if is_usual && (before >= 0.4 || after <= 0.9) {
        return Err("expected below 40 % before and above 90 % after training".into());
    }
    Ok(())
}

/// Of `examples/data`.
fn file(name: &str) -> Result<Vec<u8>, Failure> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data").join(name);
    std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()).into())
}

fn separate_calls(network: &Network, tokens: usize) -> fused_lora::Result<Naive> {
    Naive::new(&network.device, &network.layers, tokens)
}

/// What fused calls and separate ones have made of the same start, each run in either way.
fn compare(
    start: Score,
    fused: &Network,
    separate: &Network,
    digits: [&Digits; 2],
) -> Result<(), Failure> {
    println!("compared    trained in, run in: loss on the training digits, held-out accuracy");
    println!("            untrained: {:.5}", start.loss);
    for (name, network) in [("fused", fused), ("separate", separate)] {
        let [train, held] = digits.map(|of| score(network, &Fused, of));
        let (train, held) = (train?, held?);
        println!("            {name}, fused: {:.5}, {:.1} %", train.loss, 100.0 * held.accuracy);
        let [train, held] =
            digits.map(|of| score(network, &separate_calls(network, of.len())?, of));
        let (train, held) = (train?, held?);
        println!("            {name}, separate: {:.5}, {:.1} %", train.loss, 100.0 * held.accuracy);
    }
    Ok(())
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
        let (a, b) = module.plain()?;
        let factors = (a.values(), b.values(), module.scale);
        Ok(Layer::new(device, dtype, frozen, factors)?)
    });
    Ok(Network { layers: layers.collect::<Result<_, Failure>>()?, device: device.clone() })
}

//! One task by each method of the LyCORIS family, from one start: how well it is learned, how many numbers that takes, and
//! what a step costs beside separate calls.
//!
//!     cargo run --release --example methods --features files
//!
//! As in `finetune`, a frozen network that reads digits is taught to read a page fed in sideways and negative; here
//! by training w, or by LoRA (LoCon), DoRA, LoHa and LoKr, in a network of linear layers and in one with two
//! convolutions. Each adapter is written in LyCORIS' layout, read back, and gives the same bits. On the CPU, in f32.
//!
//! | file | |
//! |---|---|
//! | `fused.rs` | **start here**: this crate's calls |
//! | `method.rs` | the methods: factors, their first values, adapters, files |
//! | `layer.rs`, `network.rs` | frozen weights and what is trained of them, the loop over batches |
//! | `separate.rs` | the same by separate calls, for the comparison |
//! | `picture.rs` | accuracy by size, drawn |

// `pub` says here what another file of this program uses.
#![allow(unreachable_pub)]

#[path = "../finetune/adam.rs"]
mod adam;
#[path = "../finetune/data.rs"]
#[allow(dead_code)]
mod data;
mod fused;
mod layer;
mod method;
mod network;
mod picture;
#[path = "../finetune/schedule.rs"]
#[allow(dead_code)]
mod schedule;
mod separate;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use fused_lora::Convolution;
use fused_lora::files::StateDict;
use indicatif::{ProgressBar, ProgressStyle};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use data::Digits;
use fused::Fused;
use layer::{Frozen, Layer};
use method::Method;
use network::{Network, Run, compare};
use picture::Point;
use schedule::Schedule;
use separate::Separate;

/// Any error, to be shown.
pub type Failure = Box<dyn std::error::Error>;

/// Train one task by each method of the LyCORIS family, and compare.
#[derive(Parser)]
struct Options {
    /// Passes over the training set.
    #[arg(long, default_value_t = 20)]
    epochs: usize,
    /// Rank of the adapters.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=16))]
    rank: u16,
    /// Of first values and the order of the batches.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Pairs of steps that are timed.
    #[arg(long, default_value_t = 41)]
    pairs: usize,
    /// Folder for the table, the picture and the adapters.
    #[arg(long, default_value = "target/methods")]
    out: PathBuf,
}

/// Digits of a step.
const BATCH: usize = 64;

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
    std::fs::create_dir_all(&options.out)?;
    let mut rng = StdRng::seed_from_u64(options.seed);
    let upright = data::digits(&file("digits.safetensors")?)?;
    let linear = linear_base()?;
    let convolutional = convolutional_base(&upright, &mut rng)?;
    let mut report = String::new();
    let mut points = Vec::new();
    for (name, frozen) in [("linear", &linear), ("convolutional", &convolutional)] {
        report += &table(options, name, frozen, &upright, &mut points)?;
    }
    println!("{report}");
    std::fs::write(options.out.join("methods.md"), &report)?;
    picture::draw(&options.out.join("methods.svg"), &points)?;
    println!("table, picture and adapters: {}", options.out.display());
    Ok(())
}

/// Every method on one network.
fn table(
    options: &Options,
    name: &'static str,
    frozen: &[Frozen],
    upright: &Digits,
    points: &mut Vec<Point>,
) -> Result<String, Failure> {
    let rank = usize::from(options.rank);
    let ((train, held), (_, known)) = (upright.shifted().split(), upright.split());
    let mut rng = StdRng::seed_from_u64(options.seed + 1);
    let mut schedule = Schedule::new(options.epochs, BATCH, 0.0, train.len(), &mut rng);
    let mut plain = Network::new(frozen, Method::Full, 0, &mut rng);
    let mut separate = Separate::new(frozen.len());
    plain.refresh(&mut separate)?;
    let [before, known] = [&held, &known].map(|of| plain.accuracy(&mut separate, of));
    let mut text = format!(
        "The {name} network: {} weights; {:.1} % upright, {:.1} % sideways before training. {} epochs.\n\n\
         | method | trained | file, KiB | held-out accuracy | step, fused over separate calls |\n\
         |---|---|---|---|---|\n",
        frozen.iter().map(|of| of.weight.len() + of.bias.len()).sum::<usize>(),
        100.0 * known?,
        100.0 * before?,
        options.epochs,
    );
    let bar = ProgressBar::new(Method::ALL.len() as u64)
        .with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} methods  {msg}")?);
    for method in Method::ALL {
        bar.set_message(format!("{name}: {}", method.name(rank)));
        let mut rng = StdRng::seed_from_u64(options.seed + 2);
        let mut network = Network::new(frozen, method, rank, &mut rng);
        schedule.learning_rate = method.learning_rate();
        let mut fused = Fused::new(frozen.len());
        let is_full = method == Method::Full;
        let run: &mut dyn Run = if is_full { &mut separate } else { &mut fused };
        network.fit(run, &train, &schedule)?;
        let accuracy = network.accuracy(run, &held)?;
        let (size, ratio) = match is_full {
            true => ("–".into(), "–".into()),
            false => {
                let path = options.out.join(format!("{name}-{}.safetensors", method.file()));
                let size = written(&network, &path, &held)?;
                let first: Vec<usize> = (0..BATCH).collect();
                let runs: [&mut dyn Run; 2] = [&mut fused, &mut separate];
                let ratio = compare(&mut network, runs, &train.gather(&first), options.pairs)?;
                let [low, high] = ratio.interval;
                let ratio = format!("{:.3} [{low:.3}, {high:.3}]", ratio.median);
                (format!("{:.1}", size as f64 / 1024.0), ratio)
            }
        };
        writeln!(
            text,
            "| {} | {} | {size} | {:.1} % | {ratio} |",
            method.name(rank),
            network.parameters(),
            100.0 * accuracy
        )?;
        points.push(Point { network: name, method, parameters: network.parameters(), accuracy });
        bar.inc(1);
    }
    bar.finish_and_clear();
    text.push('\n');
    Ok(text)
}

/// The adapter's file, whose adapter must read the same digits to the same bits. Its bytes.
fn written(network: &Network, path: &Path, held: &Digits) -> Result<u64, Failure> {
    let named = |layer: &Layer| Ok((format!("lycoris_{}", layer.frozen.name), layer.module()?));
    let modules = network.layers.iter().map(named).collect::<Result<Vec<_>, Failure>>()?;
    StateDict::new(modules)?.write(path)?;
    let file = StateDict::read(path)?;
    let layers = network.layers.iter().map(|layer| {
        let frozen = &layer.frozen;
        let kernel = frozen.convolution.map_or(Vec::new(), |of| of.kernel.to_vec());
        let shape = [vec![frozen.n(), frozen.channels], kernel].concat();
        let module = file.module(&format!("lycoris_{}", frozen.name), &shape)?;
        Ok(Layer::with(frozen, layer.method, &module))
    });
    let mut again = Network { layers: layers.collect::<Result<Vec<_>, Failure>>()? };
    let mut fused = Fused::new(again.layers.len());
    again.refresh(&mut fused)?;
    let bits = |of: &Network, fused: &mut Fused| -> Result<Vec<u32>, Failure> {
        Ok(of.logits(fused, held)?.into_iter().map(f32::to_bits).collect())
    };
    if bits(network, &mut fused)? != bits(&again, &mut fused)? {
        return Err(format!("{}: other outputs when read back", path.display()).into());
    }
    Ok(std::fs::metadata(path)?.len())
}

/// 64-256-256-10, of `examples/data`.
fn linear_base() -> Result<Vec<Frozen>, Failure> {
    let layers = data::base(&file("base.safetensors")?)?.into_iter();
    let frozen = |of: data::Frozen| Frozen {
        name: of.name.into(),
        weight: of.weight,
        bias: of.bias,
        channels: of.in_features,
        convolution: None,
    };
    Ok(layers.map(frozen).collect())
}

/// Two convolutions, of which the second halves the image, and a linear layer, trained here on upright digits.
fn convolutional_base(upright: &Digits, rng: &mut StdRng) -> Result<Vec<Frozen>, Failure> {
    let convolution = |size, stride| {
        Some(Convolution::new(1, [size, size], [3, 3]).padding([1, 1]).stride([stride, stride]))
    };
    let mut fresh = |name: &str, n: usize, channels: usize, convolution: Option<Convolution>| {
        let k = channels * convolution.map_or(1, |of| of.taps());
        // He et al., 2015.
        let bound = (6.0 / k as f32).sqrt();
        let weight = (0..n * k).map(|_| rng.random_range(-bound..bound)).collect();
        Frozen { name: name.into(), weight, bias: vec![0.0; n], channels, convolution }
    };
    let mut frozen = vec![
        fresh("conv1", 16, 1, convolution(8, 1)),
        fresh("conv2", 32, 16, convolution(8, 2)),
        fresh("fc", 10, 32 * 4 * 4, None),
    ];
    let mut network = Network::new(&frozen, Method::Full, 0, rng);
    let (train, _) = upright.split();
    let schedule = Schedule::new(8, BATCH, Method::Full.learning_rate(), train.len(), rng);
    network.fit(&mut Separate::new(frozen.len()), &train, &schedule)?;
    for (frozen, layer) in frozen.iter_mut().zip(network.layers) {
        frozen.weight = layer.trained[0].values().to_vec();
    }
    Ok(frozen)
}

/// Of `examples/data`.
fn file(name: &str) -> Result<Vec<u8>, Failure> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data").join(name);
    std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()).into())
}

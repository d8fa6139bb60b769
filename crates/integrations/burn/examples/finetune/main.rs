//! Trains LoRA adapters with burn's own optimiser, and saves them as PEFT would.
//!
//!     cargo run --release --example finetune_burn --features flex -- --device flex
//!
//! A frozen network reads digits; the page is then fed in sideways and negative, which it cannot read. Only the
//! adapters of its three layers are trained. The lines that turn a burn model into one with adapters are in
//! `Network::new`.

use std::collections::HashMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::activation::relu;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use clap::Parser;
use fused_lora_burn::{AdapterConfig, LoraConfig, LoraLinear, PeftAdapter, save_peft};
use indicatif::{ProgressBar, ProgressStyle};
use safetensors::{Dtype, SafeTensors};

#[path = "../common/mod.rs"]
mod common;

const ALPHA: f64 = 16.0;
const RANK: usize = 8;
const BATCH: usize = 64;
const LEARNING_RATE: f64 = 0.01;

/// Teach a frozen network to read shifted digits by training LoRA adapters only
#[derive(Parser)]
struct Options {
    /// Passes over the training set
    #[arg(long, default_value_t = 30)]
    epochs: usize,
    /// Folder for the adapter
    #[arg(long, default_value = "target/finetune")]
    out: PathBuf,
    /// wgpu, flex or ndarray, as far as the features have them
    #[arg(long, default_value = "wgpu")]
    device: String,
}

type File = HashMap<String, TensorData>;

fn read(path: &Path) -> Result<File, Box<dyn Error>> {
    let bytes = std::fs::read(path)?;
    let mut file = File::new();
    for (name, of) in SafeTensors::deserialize(&bytes)?.tensors() {
        let (data, shape) = (of.data().to_vec(), of.shape().to_vec());
        let data = match of.dtype() {
            Dtype::F32 => TensorData::from_bytes_vec(data, shape, DType::F32),
            Dtype::U8 => TensorData::new(data, shape),
            other => return Err(format!("{name} is {other:?}").into()),
        };
        file.insert(name, data);
    }
    Ok(file)
}

/// 64-256-256-10, with ReLU between the layers.
#[derive(Module, Debug)]
struct Network {
    fc1: LoraLinear,
    fc2: LoraLinear,
    fc3: LoraLinear,
}

const LAYERS: [&str; 3] = ["fc1", "fc2", "fc3"];

/// A layer of a file in PyTorch's order, `[out, in]`.
fn linear(base: &File, name: &str, device: &Device) -> Result<Linear, Box<dyn Error>> {
    let of = |part: &str| base.get(&format!("{name}.{part}")).cloned().ok_or("no such layer");
    let weight = Tensor::<2>::from_data(of("weight")?, device).transpose();
    let bias = Tensor::<1>::from_data(of("bias")?, device);
    Ok(Linear { weight: Param::from_tensor(weight), bias: Some(Param::from_tensor(bias)) })
}

impl Network {
    fn new(base: &File, device: &Device) -> Result<Network, Box<dyn Error>> {
        let layer = |name| -> Result<LoraLinear, Box<dyn Error>> {
            // Without an adapter this line is the layer:
            let linear = linear(base, name, device)?;
            Ok(LoraLinear::new(linear, LoraConfig::new(RANK, ALPHA))?)
        };
        let [fc1, fc2, fc3] = LAYERS.map(layer);
        Ok(Network { fc1: fc1?, fc2: fc2?, fc3: fc3? })
    }

    /// With the adapters of a folder.
    fn read(base: &File, folder: &Path, device: &Device) -> Result<Network, Box<dyn Error>> {
        let adapter = PeftAdapter::read(folder, device)?;
        let layer = |name| -> Result<LoraLinear, Box<dyn Error>> {
            Ok(adapter.layer(linear(base, name, device)?, name)?)
        };
        let [fc1, fc2, fc3] = LAYERS.map(layer);
        adapter.finish()?;
        Ok(Network { fc1: fc1?, fc2: fc2?, fc3: fc3? })
    }

    fn layers(&self) -> [&LoraLinear; 3] {
        [&self.fc1, &self.fc2, &self.fc3]
    }

    /// Each layer by `run`: fused, or of burn's own ops.
    fn forward(&self, x: Tensor<2>, run: common::Run<2>) -> Tensor<2> {
        let [fc1, fc2, fc3] = self.layers();
        run(fc3, relu(run(fc2, relu(run(fc1, x)))))
    }

    fn accuracy(&self, of: &Digits) -> f32 {
        let read = self.forward(of.images.clone(), common::fused).argmax(1).squeeze_dim::<1>(1);
        read.equal(of.labels.clone()).float().mean().into_scalar::<f32>()
    }
}

/// An image in 0 to 1, and what it shows.
type Digit = ([f32; 64], i64);

/// Many of them.
struct Digits {
    images: Tensor<2>,
    labels: Tensor<1, Int>,
}

/// Those whose index leaves `held` (every fifth) or not.
fn digits(file: &File, held: bool, shifted: bool) -> Result<Vec<Digit>, Box<dyn Error>> {
    let of = |name: &str| file.get(name).ok_or(format!("no {name} in the file"));
    let images: Vec<f32> = of("images")?.iter().collect();
    let labels: Vec<i64> = of("labels")?.iter().collect();
    let image = |of: &[f32]| {
        std::array::from_fn(|at| match shifted {
            // A quarter turn counter-clockwise, and 1 - pixel.
            true => 1.0 - of[8 * (at % 8) + 7 - at / 8] / 16.0,
            false => of[at] / 16.0,
        })
    };
    let all = images.chunks_exact(64).zip(labels).enumerate();
    let chosen = all.filter(|(at, _)| (at % 5 == 4) == held);
    Ok(chosen.map(|(_, (of, label))| (image(of), label)).collect())
}

impl Digits {
    fn new(of: &[Digit], device: &Device) -> Digits {
        let images: Vec<f32> = of.iter().flat_map(|(image, _)| *image).collect();
        let labels: Vec<i64> = of.iter().map(|(_, label)| *label).collect();
        let images = TensorData::new(images, [of.len(), 64]);
        Digits {
            images: Tensor::from_data(images, device),
            labels: Tensor::from_data(TensorData::new(labels, [of.len()]), device),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let device = common::device(&options.device)?.autodiff();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../examples/data");
    let (base, file) =
        (read(&data.join("base.safetensors"))?, read(&data.join("digits.safetensors"))?);
    let mut network = Network::new(&base, &device)?;
    let mut train = digits(&file, false, true)?;
    let held = Digits::new(&digits(&file, true, true)?, &device);
    let upright = network.accuracy(&Digits::new(&digits(&file, true, false)?, &device));
    let before = network.accuracy(&held);
    println!("upright     {:.1} % of the held-out digits", 100.0 * upright);
    println!("shifted     {:.1} % before training", 100.0 * before);

    let loss = CrossEntropyLossConfig::new().init(&device);
    let mut adam = AdamConfig::new().with_epsilon(1e-8).init();
    let steps = options.epochs * train.len().div_ceil(BATCH);
    // Draws nothing where standard error is no terminal.
    let bar = ProgressBar::new(steps as u64)
        .with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} steps  {msg}")?);
    let mut curve = vec![format!("{:.1}", 100.0 * before)];
    for epoch in 1..=options.epochs {
        common::shuffle(&mut train, epoch as u64);
        for batch in train.chunks(BATCH) {
            let batch = Digits::new(batch, &device);
            let logits = network.forward(batch.images, common::fused);
            let gradients = loss.forward(logits, batch.labels).backward();
            let gradients = GradientsParams::from_grads(gradients, &network);
            let rate = LEARNING_RATE * (1.0 - bar.position() as f64 / steps as f64);
            network = adam.step(rate, network, gradients);
            bar.inc(1);
        }
        let read = format!("{:.1}", 100.0 * network.accuracy(&held));
        bar.set_message(format!("held-out {read} %"));
        if epoch % options.epochs.div_ceil(6) == 0 {
            curve.push(read);
        }
    }
    bar.finish_and_clear();
    println!("curve       {} %", curve.join(", "));
    let after = network.accuracy(&held);
    println!("            {:.1} % after {} epochs", 100.0 * after, options.epochs);

    let batch = Digits::new(&train[..BATCH], &device);
    let adapters = || network.layers().map(|of| of.active().map(|(_, of)| of));
    let of = || adapters().into_iter().flatten().flat_map(|of| [of.a.val(), of.b.val()]).collect();
    common::compare(of, &device, 51, |run| {
        let logits = network.forward(batch.images.clone(), run);
        loss.forward(logits, batch.labels.clone())
    })?;

    let layers = LAYERS.into_iter().zip(network.layers());
    save_peft(&options.out, AdapterConfig::new(RANK, ALPHA), layers)?;
    println!("adapter     {}", options.out.display());
    let again = Network::read(&base, &options.out, &device)?;
    let logits = |of: &Network| of.forward(held.images.clone(), common::fused).to_data();
    if logits(&network) != logits(&again) {
        return Err("the adapter gives other outputs when it is read back".into());
    }
    println!("            read back: the same outputs on the held-out digits");
    if before >= 0.4 || after <= 0.9 {
        return Err("expected below 40 % before and above 90 % after training".into());
    }
    Ok(())
}

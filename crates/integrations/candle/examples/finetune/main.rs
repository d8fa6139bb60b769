//! Trains LoRA adapters with candle's own optimiser, and saves them as PEFT would.
//!
//!     cargo run --release --example finetune
//!
//! A frozen network reads digits; the page is then fed in sideways and negative, which it cannot read. Only
//! the adapters of its three layers are trained. The five lines that turn a candle model into one with adapters
//! are in `Network::new`.

// `pub` says here what another file of this program uses.
#![allow(unreachable_pub)]

#[path = "../../benches/step/products.rs"]
mod products;
#[allow(dead_code, reason = "this example takes pairs alone")]
#[path = "../../../../../benches/common/statistics.rs"]
mod statistics;

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Error, Result, Tensor};
use candle_nn::{AdamW, Linear, Module, Optimizer, ParamsAdamW, VarBuilder, VarMap, loss, ops};
use clap::Parser;
use fused_lora_candle::{AdapterConfig, LoraConfig, LoraLinear, PeftAdapter, save_peft};
use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

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
}

/// 64-256-256-10, with ReLU between the layers.
struct Network([LoraLinear; 3]);

const LAYERS: [(&str, usize, usize); 3] = [("fc1", 64, 256), ("fc2", 256, 256), ("fc3", 256, 10)];

impl Network {
    /// `base` has the frozen weights, `lora` the variables.
    fn new(base: &VarBuilder<'_>, lora: &VarBuilder<'_>) -> Result<Network> {
        let layer = |(name, k, n)| {
            // Without an adapter this line is the layer:
            let linear = candle_nn::linear(k, n, base.pp(name))?;
            LoraLinear::from_vb(linear, LoraConfig::new(RANK, ALPHA), &lora.pp(name))
        };
        let [one, two, three] = LAYERS.map(layer);
        Ok(Network([one?, two?, three?]))
    }

    /// With the adapters of a folder.
    fn read(base: &VarBuilder<'_>, folder: &Path) -> Result<Network> {
        let adapter = PeftAdapter::read(folder, base.device())?;
        let layer = |(name, k, n)| {
            let vb = base.pp(name);
            adapter.layer(candle_nn::linear(k, n, vb.clone())?, &vb.prefix())
        };
        let [one, two, three] = LAYERS.map(layer);
        let network = Network([one?, two?, three?]);
        adapter.finish()?;
        Ok(network)
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [one, two, three] = &self.0;
        three.forward(&two.forward(&one.forward(x)?.relu()?)?.relu()?)
    }

    /// The same network of candle's own ops.
    fn forward_by_ops(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        for (at, layer) in self.0.iter().enumerate() {
            let linear = Linear::new(layer.weight().clone(), layer.bias().cloned());
            let mut y = linear.forward(&x)?;
            if let Some((_, of)) = layer.active() {
                let term = x.matmul(&of.a().t()?)?.matmul(&of.b().t()?)?;
                y = (y + (term * f64::from(of.scale()))?)?;
            }
            x = if at < 2 { y.relu()? } else { y };
        }
        Ok(x)
    }

    /// Gradients of all adapters by products written by hand, layer by layer: no tape, and nothing of the frozen weights.
    fn step_by_hand(&self, batch: &Digits) -> Result<Vec<Tensor>> {
        let (mut x, mut kept) = (batch.images.clone(), Vec::new());
        for (at, layer) in self.0.iter().enumerate() {
            let [y, shrunk] = products::forward(layer, &x)?;
            let y = if at < 2 { y.relu()? } else { y };
            kept.push((std::mem::replace(&mut x, y), shrunk));
        }
        // Of the mean cross entropy: softmax less one where the label is.
        let one = Tensor::full(-1f32, (batch.labels.dim(0)?, 1), x.device())?;
        let mut dy = ops::softmax(&x, 1)?.scatter_add(&batch.labels.unsqueeze(1)?, &one, 1)?;
        dy = (dy / batch.labels.dim(0)? as f64)?;
        let mut gradients = Vec::new();
        for (at, (x, shrunk)) in kept.iter().enumerate().rev() {
            let [dx, da, db] = products::backward(&self.0[at], x, shrunk, &dy)?;
            gradients.splice(0..0, [da, db]);
            // x is what ReLU left.
            dy = (dx * x.gt(0f32)?.to_dtype(DType::F32)?)?;
        }
        Ok(gradients)
    }

    /// In the order of [`Network::step_by_hand`].
    fn factors(&self) -> impl Iterator<Item = &Tensor> {
        let adapters = self.0.iter().filter_map(|layer| layer.active());
        adapters.flat_map(|(_, of)| [of.a(), of.b()])
    }

    fn accuracy(&self, of: &Digits) -> Result<f32> {
        let read = self.forward(&of.images)?.argmax(1)?.eq(&of.labels)?;
        read.to_dtype(DType::F32)?.mean_all()?.to_scalar()
    }
}

/// Images `[.., 64]` in 0 to 1, and what they show.
struct Digits {
    images: Tensor,
    labels: Tensor,
}

impl Digits {
    /// Those whose index leaves `held` (every fifth) or not.
    fn read(file: &Path, held: bool, shifted: bool) -> Result<Digits> {
        let file = candle_core::safetensors::load(file, &Device::Cpu)?;
        let tensor = |name: &str| {
            file.get(name).cloned().ok_or(candle_core::Error::msg(format!("no {name} in the file")))
        };
        let mut images = (tensor("images")?.to_dtype(DType::F32)? / 16.0)?;
        if shifted {
            // A quarter turn counter-clockwise, and 1 - pixel.
            let turned: Vec<u32> = (0..64).map(|at| 8 * (at % 8) + 7 - at / 8).collect();
            let turned = Tensor::new(turned, &Device::Cpu)?;
            images = images.index_select(&turned, 1)?.affine(-1.0, 1.0)?;
        }
        let all = images.dim(0)? as u32;
        let chosen: Vec<u32> = (0..all).filter(|at| (at % 5 == 4) == held).collect();
        let digits = Digits { images, labels: tensor("labels")?.to_dtype(DType::U32)? };
        digits.gather(&chosen)
    }

    fn gather(&self, indices: &[u32]) -> Result<Digits> {
        let indices = Tensor::new(indices, &Device::Cpu)?;
        let of = |of: &Tensor| of.index_select(&indices, 0);
        Ok(Digits { images: of(&self.images)?, labels: of(&self.labels)? })
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../examples/data");
    let base = std::fs::read(data.join("base.safetensors"))?;
    let base = VarBuilder::from_buffered_safetensors(base, DType::F32, &Device::Cpu)?;
    let variables = VarMap::new();
    let lora = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let network = Network::new(&base, &lora)?;
    let digits = data.join("digits.safetensors");
    let (train, held) = (Digits::read(&digits, false, true)?, Digits::read(&digits, true, true)?);
    let upright = network.accuracy(&Digits::read(&digits, true, false)?)?;
    let before = network.accuracy(&held)?;
    println!("upright     {:.1} % of the held-out digits", 100.0 * upright);
    println!("shifted     {:.1} % before training", 100.0 * before);

    let params = ParamsAdamW { lr: LEARNING_RATE, weight_decay: 0.0, ..ParamsAdamW::default() };
    let mut adam = AdamW::new(variables.all_vars(), params)?;
    let mut order: Vec<u32> = (0..train.labels.dim(0)? as u32).collect();
    let mut random = StdRng::seed_from_u64(0);
    let steps = options.epochs * order.len().div_ceil(BATCH);
    // Draws nothing where standard error is no terminal.
    let bar = ProgressBar::new(steps as u64)
        .with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} steps  {msg}")?);
    let mut curve = vec![format!("{:.1}", 100.0 * before)];
    for epoch in 1..=options.epochs {
        order.shuffle(&mut random);
        for indices in order.chunks(BATCH) {
            let batch = train.gather(indices)?;
            let loss = loss::cross_entropy(&network.forward(&batch.images)?, &batch.labels)?;
            adam.set_learning_rate(LEARNING_RATE * (1.0 - bar.position() as f64 / steps as f64));
            adam.backward_step(&loss)?;
            bar.inc(1);
        }
        let read = format!("{:.1}", 100.0 * network.accuracy(&held)?);
        bar.set_message(format!("held-out {read} %"));
        if epoch % options.epochs.div_ceil(6) == 0 {
            curve.push(read);
        }
    }
    bar.finish_and_clear();
    println!("curve       {} %", curve.join(", "));
    let after = network.accuracy(&held)?;
    println!("            {:.1} % after {} epochs", 100.0 * after, options.epochs);

    let order: Vec<u32> = (0..BATCH as u32).collect();
    compare(&network, &train.gather(&order)?)?;

    let layers = LAYERS.iter().map(|(name, ..)| *name).zip(&network.0);
    save_peft(&options.out, AdapterConfig::new(RANK, ALPHA), layers)?;
    println!("adapter     {}", options.out.display());
    let again = Network::read(&base, &options.out)?;
    let logits = |of: &Network| of.forward(&held.images)?.flatten_all()?.to_vec1::<f32>();
    if logits(&network)? != logits(&again)? {
        return Err("the adapter gives other outputs when it is read back".into());
    }
    println!("            read back: the same outputs on the held-out digits");
    if before >= 0.4 || after <= 0.9 {
        return Err("expected below 40 % before and above 90 % after training".into());
    }
    Ok(())
}

/// A step, forward, loss and backward, beside the same network of candle's own ops, and of products written by hand: the
/// time in alternating pairs, and how far apart the gradients are.
fn compare(network: &Network, batch: &Digits) -> Result<()> {
    let step = |logits: Result<Tensor>| {
        let gradients = loss::cross_entropy(&logits?, &batch.labels)?.backward()?;
        let of = |of| gradients.get(of).cloned().ok_or(Error::msg("a variable without a gradient"));
        network.factors().map(of).collect::<Result<Vec<_>>>()
    };
    let fused = || step(network.forward(&batch.images));
    let by_ops = || step(network.forward_by_ops(&batch.images));
    let by_hand = || network.step_by_hand(batch);
    let mut apart = 0f32;
    for theirs in [by_ops()?, by_hand()?] {
        for (ours, theirs) in fused()?.iter().zip(&theirs) {
            let norm = |of: &Tensor| of.sqr()?.sum_all()?.to_scalar::<f32>();
            apart = apart.max((norm(&(ours - theirs)?)? / norm(theirs)?).sqrt());
        }
    }
    let run =
        |step: &dyn Fn() -> Result<Vec<Tensor>>| step().map(|of| drop(std::hint::black_box(of)));
    let over_ops = statistics::pairwise(51, || run(&fused), || run(&by_ops))?;
    let over_products = statistics::pairwise(51, || run(&fused), || run(&by_hand))?;
    println!("step        {over_ops} of candle's autograd (median of 51 pairs, 95 % interval)");
    println!("            {over_products} of products by hand, without a tape");
    println!("gradients   {apart:.0e} apart");
    if apart.is_nan() || apart > 1e-4 {
        candle_core::bail!("the gradients are not those of the separate ops");
    }
    Ok(())
}

//! A decoder block of Llama's shape with an adapter on each of its seven projections, forward and backward, beside
//! the same block of burn's own ops.
//!
//!     cargo run --release --example decoder_burn --features flex -- --device flex
//!
//! Prints the time of a step over burn's in alternating pairs, how far apart the gradients are, and how much of a
//! small adapter's effect arrives in 16 bits: bf16 where the backend has it, f16 on wgpu.

use std::error::Error;

use burn::module::Param;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::{silu, softmax};
use burn::tensor::{DType, Device, Distribution, Tensor};
use clap::Parser;
use fused_lora_burn::{LoraAdapter, LoraConfig, LoraLinear};

#[path = "../common/mod.rs"]
mod common;

use common::Run;

/// Forward and backward of one block, fused and by burn's ops
#[derive(Parser)]
struct Options {
    #[arg(long, default_value_t = 256)]
    hidden: usize,
    #[arg(long, default_value_t = 64)]
    tokens: usize,
    #[arg(long, default_value_t = 16)]
    rank: usize,
    /// Pairs of steps
    #[arg(long, default_value_t = 21)]
    pairs: usize,
    /// wgpu, flex or ndarray, as far as the features have them
    #[arg(long, default_value = "wgpu")]
    device: String,
}

const HEADS: usize = 8;
const KV_HEADS: usize = 2;

/// Names as in the model's files.
struct Block {
    q: LoraLinear,
    k: LoraLinear,
    v: LoraLinear,
    o: LoraLinear,
    gate: LoraLinear,
    up: LoraLinear,
    down: LoraLinear,
    head: usize,
}

impl Block {
    fn new(options: &Options, device: &Device) -> Result<Block, Box<dyn Error>> {
        let (hidden, head) = (options.hidden, options.hidden / HEADS);
        let (kv, inner) = (KV_HEADS * head, hidden * 11 / 4);
        let layer = |k, n| -> fused_lora_burn::Result<LoraLinear> {
            let linear = LinearConfig::new(k, n).with_bias(false).init(device);
            let config = LoraConfig::new(options.rank, 2.0 * options.rank as f64);
            let mut adapter = config.init([k, n], device);
            // As in the middle of a training: b is no longer zero.
            let b = Tensor::random([options.rank, n], Distribution::Normal(0.0, 0.02), device);
            adapter.b = Param::from_tensor(b);
            LoraLinear::frozen(linear)?.with_adapter("block", adapter)
        };
        Ok(Block {
            q: layer(hidden, hidden)?,
            k: layer(hidden, kv)?,
            v: layer(hidden, kv)?,
            o: layer(hidden, hidden)?,
            gate: layer(hidden, inner)?,
            up: layer(hidden, inner)?,
            down: layer(inner, hidden)?,
            head,
        })
    }

    fn forward(&self, x: Tensor<3>, run: Run<3>) -> Tensor<3> {
        let x = x.clone() + self.attention(normed(x), run);
        let hidden = normed(x.clone());
        x + run(&self.down, silu(run(&self.gate, hidden.clone())) * run(&self.up, hidden))
    }

    fn attention(&self, x: Tensor<3>, run: Run<3>) -> Tensor<3> {
        let ([batch, tokens, hidden], head) = (x.dims(), self.head);
        let split = |of: Tensor<3>, heads| of.reshape([batch, tokens, heads, head]).swap_dims(1, 2);
        let q = rotated(split(run(&self.q, x.clone()), HEADS));
        let k = rotated(split(run(&self.k, x.clone()), KV_HEADS));
        let v = split(run(&self.v, x), KV_HEADS);
        // One head of k and v serves several of q.
        let repeat = |of: Tensor<4>| {
            let wide = of.unsqueeze_dim::<5>(2);
            let wide = wide.expand([batch, KV_HEADS, HEADS / KV_HEADS, tokens, head]);
            wide.reshape([batch, HEADS, tokens, head])
        };
        let (k, v) = (repeat(k), repeat(v));
        let scores = q.matmul(k.swap_dims(2, 3)).div_scalar((head as f64).sqrt());
        let future = Tensor::<2>::ones([tokens, tokens], &scores.device()).triu(1).bool();
        let scores =
            scores.mask_fill(future.unsqueeze::<4>().expand([batch, HEADS, tokens, tokens]), -1e9);
        let y = softmax(scores, 3).matmul(v).swap_dims(1, 2).reshape([batch, tokens, hidden]);
        run(&self.o, y)
    }

    fn trained(&self) -> Vec<Tensor<2>> {
        let layers = [&self.q, &self.k, &self.v, &self.o, &self.gate, &self.up, &self.down];
        let adapters = layers.into_iter().filter_map(LoraLinear::active);
        adapters.flat_map(|(_, of)| [of.a.val(), of.b.val()]).collect()
    }
}

/// RMS norm with a weight of ones.
fn normed(x: Tensor<3>) -> Tensor<3> {
    let mean = x.clone().square().mean_dim(2).add_scalar(1e-5);
    x / mean.sqrt()
}

/// The positions as rotations of the halves of each head.
fn rotated(x: Tensor<4>) -> Tensor<4> {
    let [_, _, tokens, head] = x.dims();
    let half = head / 2;
    let angle = |at: usize| (at / half) as f32 / 10000f32.powf((at % half) as f32 / half as f32);
    let angles: Vec<f32> = (0..tokens * half).map(angle).collect();
    let angles = Tensor::<1>::from_floats(&angles[..], &x.device()).reshape([1, 1, tokens, half]);
    let (cos, sin) = (angles.clone().cos(), angles.sin());
    let (one, other) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
    let turned = [one.clone() * cos.clone() - other.clone() * sin.clone(), one * sin + other * cos];
    Tensor::cat(turned.to_vec(), 3)
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let plain = common::device(&options.device)?;
    let device = plain.clone().autodiff();
    let block = Block::new(&options, &device)?;
    let normal = Distribution::Normal(0.0, 1.0);
    let x = Tensor::random([2, options.tokens, options.hidden], normal, &device);
    common::compare(
        || block.trained(),
        &device,
        options.pairs,
        |run| block.forward(x.clone(), run).square().mean(),
    )?;
    for (name, dtype) in [("bf16", DType::BF16), ("f16", DType::F16)] {
        if plain.supports_dtype(dtype) {
            let [ours, theirs] = share(&options, dtype, &plain)?;
            println!(
                "{name:11} {ours:.3} of a small adapter's effect reaches q; by separate ops {theirs:.3}"
            );
        } else {
            println!("{name:11} burn has no arithmetic in it on this device");
        }
    }
    Ok(())
}

/// `⟨y − y₀, z⟩ / ⟨z, z⟩` with an adapter of a thousandth of the weight's size, z its term in f32: fused, and in
/// separate ops that each round to 16 bits.
fn share(options: &Options, dtype: DType, device: &Device) -> Result<[f64; 2], Box<dyn Error>> {
    let (k, rank) = (options.hidden, options.rank);
    let drawn = |shape: [usize; 2], size: f64, dtype| {
        Tensor::<2>::random(shape, Distribution::Normal(0.0, size), (device, DType::F32))
            .cast(dtype)
    };
    let wide = |of: Tensor<2>| of.cast(DType::F32);
    let (x, w) = (drawn([128, k], 1.0, dtype), drawn([k, k], 0.05, dtype));
    let a = drawn([k, rank], 1.0, DType::F32);
    let b = drawn([rank, k], 0.05e-3 / (rank as f64).sqrt(), DType::F32);
    let base = wide(x.clone()).matmul(wide(w.clone()));
    let term = wide(x.clone()).matmul(a.clone()).matmul(b.clone());
    let linear = Linear { weight: Param::from_tensor(w), bias: None };
    let param = Param::from_tensor;
    let adapter = LoraAdapter { a: param(a.cast(dtype)), b: param(b.cast(dtype)), scale: 1.0 };
    let layer = LoraLinear::frozen(linear)?.with_adapter("small", adapter)?;
    Ok([common::fused, common::by_ops].map(|run: Run<2>| {
        let sum = |of: Tensor<2>| -> f64 { of.sum().to_data().iter::<f64>().sum() };
        let arrived = (wide(run(&layer, x.clone())) - base.clone()) * term.clone();
        sum(arrived) / sum(term.clone().square())
    }))
}

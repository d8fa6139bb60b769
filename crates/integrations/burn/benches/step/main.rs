//! A training step of one layer (y, dx, da, db) beside burn's own, in pairs:
//!
//!   layer      burn's own LoRA, whose weight is `w + s·a·b`, and its autodiff
//!   autodiff   the layer of burn's ops, `x·w + s·(x·a)·b`, and its autodiff; dW of the frozen weight is not formed
//!   products   eight products written by hand, no tape, no dW: the least that separate calls do
//!
//!     cargo bench --bench step_burn --no-default-features --features flex,burn/rayon,burn/simd
//!     cargo bench --bench step_burn -- --device wgpu --size 512
//!
//! The first is on flex, with burn's threads and vectors; the second on burn's wgpu. `--out FILE` writes the table, with machine and command.

// `pub` says here what another file of this program uses.
#![allow(unreachable_pub)]

#[allow(dead_code, reason = "this bench takes pairs alone")]
#[path = "../../../../../benches/common/statistics.rs"]
mod statistics;
#[path = "../../../benches/table.rs"]
mod table;

#[allow(dead_code, reason = "this bench shares devices, the layer of ops, and the command")]
#[path = "../../examples/common/mod.rs"]
mod common;

use std::error::Error;
use std::path::PathBuf;

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{DType, Device, Distribution, Tensor};
use clap::Parser;
use fused_lora_burn::{LoraAdapter, LoraLinear};

const RANK: usize = 16;
const SCALE: f64 = 2.0;
/// The order of what a step gives.
const NAMES: [&str; 4] = ["y", "dx", "da", "db"];

#[derive(Parser)]
struct Options {
    /// wgpu, flex or ndarray, as far as the features have them
    #[arg(long, default_value = "flex")]
    device: String,
    /// in_features and out_features
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Tokens, a row each
    #[arg(long, value_delimiter = ',', default_values_t = [8, 64, 512, 2048])]
    tokens: Vec<usize>,
    /// Pairs a cell; at least 20
    #[arg(long, default_value_t = 31, value_parser = clap::value_parser!(u16).range(20..))]
    pairs: u16,
    /// A file for the table
    #[arg(long)]
    out: Option<PathBuf>,
    /// What `cargo bench` passes; cargo without it (`cargo test --benches`) runs one small cell
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut options = Options::parse();
    if !options.bench {
        (options.size, options.tokens) = (64, vec![8]);
    }
    let device = common::device(&options.device)?;
    let mut rows =
        "| dtype | tokens | over burn's LoRA | over autodiff | over products | gradients apart |\n"
            .to_owned();
    rows += "|---|---|---|---|---|---|\n";
    for dtype in [DType::F32, DType::F16].into_iter().filter(|&of| device.supports_dtype(of)) {
        for &tokens in &options.tokens {
            let row = cell(&options, tokens, dtype, &device)?;
            eprint!("{row}");
            rows += &row;
        }
    }
    let (size, pairs) = (options.size, options.pairs);
    let fusion = if cfg!(feature = "fusion") { "with" } else { "without" };
    let head = table::head(
        "A training step of one layer, over burn's own",
        &[
            ("layer", format!("{size} × {size}, rank {RANK}: y, dx, da and db")),
            (
                "figure",
                format!("median of {pairs} ratios of alternating pairs, with its 95 % interval"),
            ),
            ("burn", format!("0.22 {fusion} its feature `fusion`, on {}", options.device)),
        ],
        &common::command("step_burn"),
    );
    let text = format!("{head}\n{rows}");
    println!("{text}");
    if let Some(file) = options.out {
        std::fs::write(file, text)?;
    }
    Ok(())
}

fn cell(
    options: &Options,
    tokens: usize,
    dtype: DType,
    plain: &Device,
) -> Result<String, Box<dyn Error>> {
    let size = options.size;
    let device = plain.clone().autodiff();
    let drawn = |shape: [usize; 2], deviation: f64| {
        let normal = Distribution::Normal(0.0, deviation);
        Tensor::<2>::random(shape, normal, (&device, DType::F32)).cast(dtype).detach()
    };
    let (x, w) = (drawn([tokens, size], 1.0).require_grad(), drawn([size, size], 0.03));
    let (a, b) = (drawn([size, RANK], 0.03), drawn([RANK, size], 0.03));
    let param = |of: &Tensor<2>| Param::from_tensor(of.clone());
    let adapter = LoraAdapter { a: param(&a), b: param(&b), scale: SCALE };
    let layer = LoraLinear::frozen(Linear { weight: param(&w), bias: None })?;
    let layer = layer.with_adapter("it", adapter.clone())?;
    let w = layer.weight();

    // The gradient of y is ones: what `backward` begins with.
    let gradients = |y: Tensor<2>| {
        let gradients = y.clone().sum().backward();
        let leaves = [&x, &adapter.a.val(), &adapter.b.val()];
        let [dx, da, db] = leaves.map(|of| of.grad(&gradients).ok_or("no gradient"));
        Ok::<_, Box<dyn Error>>([y.inner(), dx?, da?, db?])
    };
    let fused = || gradients(layer.forward(x.clone()));
    let own = || gradients(common::own(&layer, x.clone()));
    let autodiff = || gradients(common::by_ops(&layer, x.clone()));
    let [x, w, a, b] = [&x, &w, &a, &b].map(|of| of.clone().inner());
    let dy = Tensor::<2>::ones([tokens, size], (plain, dtype));
    let products = || {
        let shrunk = x.clone().matmul(a.clone()).mul_scalar(SCALE);
        let y = x.clone().matmul(w.clone()) + shrunk.clone().matmul(b.clone());
        let dshrunk = dy.clone().matmul(b.clone().transpose()).mul_scalar(SCALE);
        let dx = dy.clone().matmul(w.clone().transpose());
        let dx = dx + dshrunk.clone().matmul(a.clone().transpose());
        let da = x.clone().transpose().matmul(dshrunk);
        Ok::<_, Box<dyn Error>>([y, dx, da, shrunk.transpose().matmul(dy.clone())])
    };

    let ours = fused()?;
    let mut apart = 0.0f64;
    for other in [own()?, autodiff()?, products()?] {
        for ((ours, other), name) in ours.iter().zip(other).zip(NAMES) {
            let difference = difference(ours, &other);
            // Not a number is no agreement.
            if !difference.is_finite() || difference > 1e-2 {
                return Err(format!("{name} of {tokens} tokens is {difference} from burn's").into());
            }
            apart = apart.max(difference);
        }
    }
    let run = |step: &dyn Fn() -> Result<[Tensor<2>; 4], Box<dyn Error>>| {
        // Lazy backends and devices have done it when the device says so.
        let results = step()?;
        plain.sync()?;
        drop(std::hint::black_box(results));
        Ok::<_, Box<dyn Error>>(())
    };
    let pairs = usize::from(options.pairs);
    let mut ratios = String::new();
    for theirs in [&own as &dyn Fn() -> _, &autodiff, &products] {
        let ratio = statistics::pairwise(pairs, || run(&fused), || run(theirs))?;
        ratios += &format!(" {ratio} |");
    }
    Ok(format!("| {dtype:?} | {tokens} |{ratios} {apart:.0e} |\n"))
}

/// Frobenius, relative.
fn difference(one: &Tensor<2>, other: &Tensor<2>) -> f64 {
    let wide = |of: &Tensor<2>| of.clone().cast(DType::F32);
    let norm = |of: Tensor<2>| -> f64 { of.square().sum().to_data().iter::<f64>().sum() };
    (norm(wide(one) - wide(other)) / norm(wide(other))).sqrt()
}

//! A training step of one layer (y, dx, da, db) beside candle's own, in pairs, on the CPU:
//!
//!   autograd   the layer of candle's ops, and its `backward`; this forms dW of the frozen weight too
//!   products   eight products written by hand, no tape, no dW: the least that separate calls do
//!
//!     cargo bench --bench step                     prints the table
//!     cargo bench --bench step -- --out FILE       and writes it, with machine and command

// `pub` says here what another file of this program uses.
#![allow(unreachable_pub)]

mod products;
#[allow(dead_code, reason = "this bench takes pairs alone")]
#[path = "../../../../../benches/common/statistics.rs"]
mod statistics;
#[path = "../../../benches/table.rs"]
mod table;

use std::path::PathBuf;

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::{Linear, Module};
use clap::Parser;
use fused_lora_candle::{Adapter, LoraLinear};

const IN: usize = 1024;
const OUT: usize = 1024;
const RANK: usize = 16;
const SCALE: f64 = 2.0;
/// The order of what a step gives.
const NAMES: [&str; 4] = ["y", "dx", "da", "db"];

#[derive(Parser)]
struct Options {
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

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let tokens = if options.bench { &[8, 64, 512, 2048][..] } else { &[8] };
    let mut table =
        "| dtype | tokens | over autograd | over products | gradients apart |\n".to_owned();
    table += "|---|---|---|---|---|\n";
    for dtype in [DType::F32, DType::F16] {
        for &tokens in tokens {
            let row = cell(tokens, dtype, usize::from(options.pairs))?;
            eprint!("{row}");
            table += &row;
        }
    }
    let head = table::head(
        "A training step of one layer, over candle's own",
        &[
            ("layer", format!("{OUT} × {IN}, rank {RANK}: y, dx, da and db")),
            (
                "figure",
                format!(
                    "median of {} ratios of alternating pairs, with its 95 % interval",
                    options.pairs
                ),
            ),
            ("candle", "candle-core 0.11".to_owned()),
        ],
        "cargo bench --bench step -- --out benches/results/step.md",
    );
    let text = format!("{head}\n{table}");
    println!("{text}");
    if let Some(file) = options.out {
        std::fs::write(file, text)?;
    }
    Ok(())
}

fn cell(tokens: usize, dtype: DType, pairs: usize) -> Result<String> {
    let drawn =
        |rows, cols, dtype| Tensor::randn(0f32, 1.0, (rows, cols), &Device::Cpu)?.to_dtype(dtype);
    let (x, w) = (drawn(tokens, IN, dtype)?, (drawn(OUT, IN, dtype)? * 0.03)?);
    let (a, b) = ((drawn(RANK, IN, dtype)? * 0.03)?, (drawn(OUT, RANK, dtype)? * 0.03)?);
    // What `backward` begins with.
    let dy = Tensor::ones((tokens, OUT), dtype, &Device::Cpu)?;
    let [x, a, b] = [x, a, b].map(|of| Var::from_tensor(&of));
    let (x, a, b) = (x?, a?, b?);

    let adapter = Adapter::new(a.as_tensor().clone(), b.as_tensor().clone(), SCALE as f32)?;
    let layer = LoraLinear::frozen(Linear::new(w.clone(), None))?.with_adapter("it", adapter)?;
    let gradients = |y: Tensor| {
        let gradients = y.backward()?;
        let of =
            |var: &Var| gradients.get(var).cloned().ok_or(candle_core::Error::msg("no gradient"));
        Ok::<_, candle_core::Error>([y.clone(), of(&x)?, of(&a)?, of(&b)?])
    };
    let fused = || gradients(layer.forward(&x)?);
    let autograd = || {
        let term = x.matmul(&a.t()?)?.matmul(&b.t()?)?;
        gradients((x.matmul(&w.t()?)? + (term * SCALE)?)?)
    };
    let x = x.as_detached_tensor();
    let by_hand = || {
        let [y, shrunk] = products::forward(&layer, &x)?;
        let [dx, da, db] = products::backward(&layer, &x, &shrunk, &dy)?;
        Ok::<_, candle_core::Error>([y, dx, da, db])
    };

    let (ours, theirs, products) = (fused()?, autograd()?, by_hand()?);
    let mut apart = 0.0f64;
    for (at, name) in NAMES.iter().enumerate() {
        for other in [&theirs[at], &products[at]] {
            let difference = difference(&ours[at], other)?;
            // Not a number is no agreement.
            if !difference.is_finite() || difference > 1e-2 {
                candle_core::bail!("{name} of {tokens} tokens is {difference} from candle's");
            }
            apart = apart.max(difference);
        }
    }
    let run =
        |step: &dyn Fn() -> Result<[Tensor; 4]>| step().map(|of| drop(std::hint::black_box(of)));
    let over_autograd = statistics::pairwise(pairs, || run(&fused), || run(&autograd))?;
    let over_products = statistics::pairwise(pairs, || run(&fused), || run(&by_hand))?;
    Ok(format!("| {dtype:?} | {tokens} | {over_autograd} | {over_products} | {apart:.0e} |\n"))
}

/// Frobenius, relative.
fn difference(one: &Tensor, other: &Tensor) -> Result<f64> {
    let [one, other] = [one, other].map(|of| of.to_dtype(DType::F64));
    let (one, other) = (one?, other?);
    let norm = |of: &Tensor| of.sqr()?.sum_all()?.to_scalar::<f64>();
    Ok((norm(&(&one - &other)?)? / norm(&other)?).sqrt())
}

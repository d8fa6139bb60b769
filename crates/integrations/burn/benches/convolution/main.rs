//! A convolution with LoCon through `fused-lora` beside burn's own ops, in pairs, f32 on a CPU backend of burn: forward, and a
//! step with dx, da and db by burn's autodiff, which forms no dW of the frozen weight.
//!
//!     cargo bench --bench convolution_burn --no-default-features --features flex,burn/rayon,burn/simd
//!
//! prints the table; `-- --out FILE` writes it, with machine and command.

// `pub` says here what another file of this program uses.
#![allow(unreachable_pub)]

#[allow(dead_code, reason = "this bench shares devices and the command")]
#[path = "../../examples/common/mod.rs"]
mod common;
#[path = "../../../../../benches/common/locon.rs"]
// Its rivals here are the framework's own.
#[allow(dead_code)]
mod locon;
#[allow(dead_code, reason = "this bench takes pairs alone")]
#[path = "../../../../../benches/common/statistics.rs"]
mod statistics;
#[path = "../../../benches/table.rs"]
mod table;

use std::error::Error;
use std::path::PathBuf;

use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Device, Tensor, TensorData};
use clap::Parser;
use locon::{CELLS, Cell, Locon, SCALE, SMALL, distance};

#[derive(Parser)]
struct Options {
    /// flex or ndarray, as far as the features have them
    #[arg(long, default_value = "flex")]
    device: String,
    /// Pairs a cell; at least 20
    #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u16).range(20..))]
    pairs: u16,
    /// A file for the table
    #[arg(long)]
    out: Option<PathBuf>,
    /// What `cargo bench` passes; cargo without it (`cargo test --benches`) runs one small cell
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let cells = if options.bench { &CELLS[..] } else { &[SMALL] };
    let device = common::device(&options.device)?;
    let mut rows =
        "| images | pixels | channels | kernel, stride | rank | forward | step | apart |\n"
            .to_owned();
    rows += "|---|---|---|---|---|---|---|---|\n";
    for &of in cells {
        let row = cell(of, usize::from(options.pairs), &device)?;
        eprint!("{row}");
        rows += &row;
    }
    let pairs = options.pairs;
    let head = table::head(
        "A convolution with LoCon, over burn's own",
        &[
            ("layer", "f32, NCHW, on the CPU; a step gives y, dx, da and db".to_owned()),
            (
                "figure",
                format!("median of {pairs} ratios of alternating pairs, with its 95 % interval"),
            ),
            ("burn", format!("0.22 on {}: two convolutions and one of 1 × 1", options.device)),
        ],
        &common::command("convolution_burn"),
    );
    let text = format!("{head}\n{rows}");
    println!("{text}");
    if let Some(file) = options.out {
        std::fs::write(file, text)?;
    }
    Ok(())
}

fn cell(of: Cell, pairs: usize, plain: &Device) -> Result<String, Box<dyn Error>> {
    let [images, size, channels, n, kernel, stride, rank] = of;
    let mut ours = Locon::new(of);
    let [height, width] = ours.of.output();
    let device = plain.clone().autodiff();
    let tensor = |of: &[f32], shape: [usize; 4]| {
        Tensor::<4>::from_data(TensorData::new(of.to_vec(), shape), (&device, DType::F32))
    };
    let x = tensor(&ours.x, [images, channels, size, size]).require_grad();
    let a = tensor(&ours.a, [rank, channels, kernel, kernel]).require_grad();
    let b = tensor(&ours.b, [n, rank, 1, 1]).require_grad();
    let w = tensor(&ours.w, [n, channels, kernel, kernel]);
    let dy = tensor(&ours.dy, [images, n, height, width]);
    let layer = |x: &Tensor<4>, w: &Tensor<4>, a: &Tensor<4>, b: &Tensor<4>| {
        let [padding, stride] = [kernel / 2, stride].map(|of| [of; 2]);
        let options = || ConvOptions::new(stride, padding, [1, 1], 1);
        let shrunk = conv2d(x.clone(), a.clone(), None, options());
        let one = ConvOptions::new([1, 1], [0, 0], [1, 1], 1);
        let term = conv2d(shrunk, b.clone(), None, one).mul_scalar(SCALE);
        conv2d(x.clone(), w.clone(), None, options()) + term
    };
    let [plain_x, plain_w, plain_a, plain_b] = [&x, &w, &a, &b].map(|of| of.clone().inner());
    let forward = || {
        std::hint::black_box(layer(&plain_x, &plain_w, &plain_a, &plain_b));
        Ok::<_, Box<dyn Error>>(plain.sync()?)
    };
    let step = || {
        let y = layer(&x, &w, &a, &b);
        // Its gradient is dy: what a loss would hand down.
        let gradients = (y.clone() * dy.clone()).sum().backward();
        let [dx, da, db] = [&x, &a, &b].map(|of| of.grad(&gradients).ok_or("no gradient"));
        let results = [y.inner(), dx?, da?, db?];
        plain.sync()?;
        Ok::<_, Box<dyn Error>>(results)
    };
    ours.forward()?;
    ours.backward()?;
    let mut apart = 0f64;
    for (ours, theirs) in ours.results().into_iter().zip(step()?) {
        let theirs: Vec<f32> = theirs.to_data().iter::<f32>().collect();
        apart = apart.max(distance(ours, &theirs));
    }
    if apart.is_nan() || apart > 1e-4 {
        return Err(format!("{of:?}: results {apart:.0e} apart").into());
    }
    let over_forward = statistics::pairwise(pairs, || Ok(ours.forward()?), forward)?;
    let over_step = statistics::pairwise(
        pairs,
        || Ok::<_, Box<dyn Error>>(ours.forward().and_then(|()| ours.backward())?),
        || step().map(|of| drop(std::hint::black_box(of))),
    )?;
    Ok(format!(
        "| {images} | {size}² | {channels} → {n} | {kernel}², {stride} | {rank} | {over_forward} | {over_step} | {apart:.0e} |\n"
    ))
}

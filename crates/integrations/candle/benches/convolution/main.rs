//! A convolution with LoCon through `fused-lora` beside candle's own ops, in pairs, f32 on the CPU: forward, and a step with
//! dx, da and db, for which candle's autograd forms dW of the frozen weight too.
//!
//!     cargo bench --bench convolution                     prints the table
//!     cargo bench --bench convolution -- --out FILE       and writes it, with machine and command

// `pub` says here what another file of this program uses.
#![allow(unreachable_pub)]

#[path = "../../../../../benches/common/locon.rs"]
// Its rivals here are the framework's own.
#[allow(dead_code)]
mod locon;
#[allow(dead_code, reason = "this bench takes pairs alone")]
#[path = "../../../../../benches/common/statistics.rs"]
mod statistics;
#[path = "../../../benches/table.rs"]
mod table;

use std::path::PathBuf;

use candle_core::{Device, Error, Result, Tensor, Var};
use clap::Parser;
use locon::{CELLS, Cell, Locon, SCALE, SMALL, distance};

#[derive(Parser)]
struct Options {
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

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let cells = if options.bench { &CELLS[..] } else { &[SMALL] };
    let mut table =
        "| images | pixels | channels | kernel, stride | rank | forward | step | apart |\n"
            .to_owned();
    table += "|---|---|---|---|---|---|---|---|\n";
    for &of in cells {
        let row = cell(of, usize::from(options.pairs))?;
        eprint!("{row}");
        table += &row;
    }
    let head = table::head(
        "A convolution with LoCon, over candle's own",
        &[
            ("layer", "f32, NCHW, on the CPU; a step gives y, dx, da and db".to_owned()),
            (
                "figure",
                format!(
                    "median of {} ratios of alternating pairs, with its 95 % interval",
                    options.pairs
                ),
            ),
            ("candle", "candle-core 0.11: two convolutions and one of 1 × 1".to_owned()),
        ],
        "cargo bench --bench convolution -- --out benches/results/convolution.md",
    );
    let text = format!("{head}\n{table}");
    println!("{text}");
    if let Some(file) = options.out {
        std::fs::write(file, text)?;
    }
    Ok(())
}

fn cell(of: Cell, pairs: usize) -> std::result::Result<String, Box<dyn std::error::Error>> {
    let [images, size, channels, n, kernel, stride, rank] = of;
    let mut ours = Locon::new(of);
    let [height, width] = ours.of.output();
    let tensor =
        |of: &[f32], shape: [usize; 4]| Tensor::from_vec(of.to_vec(), &shape, &Device::Cpu);
    let x = Var::from_tensor(&tensor(&ours.x, [images, channels, size, size])?)?;
    let a = Var::from_tensor(&tensor(&ours.a, [rank, channels, kernel, kernel])?)?;
    let b = Var::from_tensor(&tensor(&ours.b, [n, rank, 1, 1])?)?;
    let w = tensor(&ours.w, [n, channels, kernel, kernel])?;
    let dy = tensor(&ours.dy, [images, n, height, width])?;
    let layer = |x: &Tensor, a: &Tensor, b: &Tensor| -> Result<Tensor> {
        let shrunk = x.conv2d(a, kernel / 2, stride, 1, 1)?;
        let term = (shrunk.conv2d(b, 0, 1, 1, 1)? * f64::from(SCALE))?;
        x.conv2d(&w, kernel / 2, stride, 1, 1)? + term
    };
    let forward =
        || layer(&x.as_detached_tensor(), &a.as_detached_tensor(), &b.as_detached_tensor());
    let step = || {
        let y = layer(&x, &a, &b)?;
        // Its gradient is dy: what a loss would hand down.
        let gradients = (&y * &dy)?.sum_all()?.backward()?;
        let of = |var: &Var| gradients.get(var).cloned().ok_or(Error::msg("no gradient"));
        Ok::<_, Error>([y.clone(), of(&x)?, of(&a)?, of(&b)?])
    };
    ours.forward()?;
    ours.backward()?;
    let mut apart = 0f64;
    for (ours, theirs) in ours.results().into_iter().zip(step()?) {
        apart = apart.max(distance(ours, &theirs.flatten_all()?.to_vec1()?));
    }
    if apart.is_nan() || apart > 1e-4 {
        return Err(format!("{of:?}: results {apart:.0e} apart").into());
    }
    let over_forward = statistics::pairwise(
        pairs,
        || ours.forward().map_err(Error::wrap),
        || forward().map(|of| drop(std::hint::black_box(of))),
    )?;
    let over_step = statistics::pairwise(
        pairs,
        || ours.forward().and_then(|()| ours.backward()).map_err(Error::wrap),
        || step().map(|of| drop(std::hint::black_box(of))),
    )?;
    Ok(format!(
        "| {images} | {size}² | {channels} → {n} | {kernel}², {stride} | {rank} | {over_forward} | {over_step} | {apart:.0e} |\n"
    ))
}

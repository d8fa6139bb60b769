//! How much of a small adapter's effect reaches y and dx in 16 bits: the fused layer of this crate on any device,
//! beside what `rivals.py` measures of PyTorch with PEFT, on the same inputs to the bit.
//!
//!     cargo bench --bench share                      measures; writes benches/share/fused-lora-<device>.csv
//!     cargo bench --bench share -- --device wgpu     on a GPU
//!     python benches/share/rivals.py                 writes benches/share/rivals.csv (its head says what it needs)
//!     cargo bench --bench share -- --draw            docs/share.md and docs/share.svg of all these files
//!
//! Nothing is timed: it may run on a busy machine.

// `pub` says here what another file of this program uses.
#![allow(unreachable_pub)]

#[path = "../common/mod.rs"]
mod common;
mod inputs;
mod plot;
mod table;

use std::path::{Path, PathBuf};

use clap::Parser;
use fused_lora::{Adapter, BackwardInput, DType, Device, Forward, Operation, Problem};
use serde::{Deserialize, Serialize};

use common::shapes::Direction;
use common::share::{Exact, Operands};
use common::{Result, machine, records};
use inputs::{A, ALPHA, B, DY, IN, OUT, RANK, SIZES, TOKENS, W, X, uniform};

/// Cargo runs a bench in the package's folder.
const DATA: &str = "benches/share";
const PAGE: &str = "docs/share.md";
const PICTURE: &str = "docs/share.svg";

/// One measurement, as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Who computed y.
    pub by: String,
    /// On what, or how.
    pub path: String,
    pub direction: String,
    /// Of x, w and y.
    pub dtype: String,
    /// Storage of a and b.
    pub adapter: String,
    /// |s·b·a| / |w|, as it was aimed at.
    pub size: f64,
    /// As it came out.
    pub measured_size: f64,
    pub share: f64,
}

/// How much of a small adapter's effect reaches y and dx.
#[derive(Debug, Parser)]
struct Options {
    /// Draws and tabulates what has been measured, and measures nothing
    #[arg(long)]
    draw: bool,
    /// Where to run: a name of Device::open [default: FUSED_LORA_DEVICE, or the best there is]
    #[arg(long)]
    device: Option<String>,
    /// What `cargo bench` passes; cargo without it (`cargo test --benches`) measures one size and writes nothing
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if options.draw {
        return draw();
    }
    let device = match &options.device {
        Some(name) => Device::open(name)?,
        None => Device::from_env()?,
    };
    let sizes = if options.bench { &SIZES[..] } else { &SIZES[2..3] };
    let rows = measure(&device, sizes)?;
    if options.bench {
        let name = device.name().replace(':', "-");
        let file = PathBuf::from(DATA).join(format!("fused-lora-{name}.csv"));
        let sizes = format!("{TOKENS} x {OUT} x {IN}, rank {RANK}, scale {}", ALPHA / RANK);
        let head = format!("{}- {sizes}\n", machine::describe(&device.description(), "share"));
        records::write(&file, &head, &rows)?;
        eprintln!("wrote {}", file.display());
    }
    Ok(())
}

fn measure(device: &Device, sizes: &[f64]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for dtype in [DType::Bf16, DType::F16] {
        for &size in sizes {
            for adapter in [DType::F32, dtype] {
                for direction in [Direction::Forward, Direction::Backward] {
                    let row = one(device, dtype, adapter, direction, size)?;
                    println!(
                        "{} {:<14} {dtype:<4} adapter {adapter:<4} {size:<7} {:.4}",
                        row.path, row.direction, row.share
                    );
                    rows.push(row);
                }
            }
        }
    }
    Ok(rows)
}

fn one(
    device: &Device,
    dtype: DType,
    adapter: DType,
    direction: Direction,
    size: f64,
) -> Result<Row> {
    let scale = ALPHA as f32 / RANK as f32;
    let bound = (3.0 / IN as f64).sqrt();
    let of_b = size * (3.0 / RANK as f64).sqrt() / f64::from(scale);
    let tensor = |rows, cols, dtype, seed, size| {
        device.tensor(rows, cols, dtype, &uniform(seed, rows * cols, size))
    };
    let w = tensor(OUT, IN, dtype, W, bound)?;
    let a = tensor(RANK, IN, adapter, A, bound)?;
    let b = tensor(OUT, RANK, adapter, B, of_b)?;
    let (operation, input) = match direction {
        Direction::Forward => (Operation::Forward, tensor(TOKENS, IN, dtype, X, 1.0)?),
        Direction::Backward => (Operation::BackwardInput, tensor(TOKENS, OUT, dtype, DY, 1.0)?),
    };
    let problem = Problem::new(operation, TOKENS, IN, OUT, RANK)
        .with_activation(dtype)
        .with_adapter(adapter)
        .with_scale(scale)
        .with_keep_shrunk(false);
    let plan = device.plan(&problem)?;
    let columns = if direction == Direction::Forward { OUT } else { IN };
    let mut output = device.zeros(TOKENS, columns, dtype)?;
    let factors = Some(Adapter::new(a.matrix(), b.matrix()));
    let (x, matrix, y) = (input.matrix(), w.matrix(), output.matrix_mut());
    match direction {
        Direction::Forward => {
            device.run(&plan, Forward::new(x, matrix, y).with_adapter(factors))?
        }
        Direction::Backward => {
            device.run(&plan, BackwardInput::new(x, matrix, y).with_adapter(factors))?
        }
    }
    let [input, w, a, b] = [&input, &w, &a, &b].map(|of| of.to_f32());
    let (input, w, a, b) = (input?, w?, a?, b?);
    let exact = Exact::new(&Operands {
        direction,
        input: &input,
        w: &w,
        a: &a,
        b: &b,
        scale,
        in_features: IN,
        out_features: OUT,
    });
    let [along, whole] = exact.arrived(&output.to_f32()?);
    Ok(Row {
        by: "fused-lora".to_owned(),
        path: device.name().to_owned(),
        direction: operation.to_string(),
        dtype: dtype.to_string(),
        adapter: adapter.to_string(),
        size,
        measured_size: rounded(measured(&w, &a, &b, scale), 6),
        share: rounded(along / whole, 4),
    })
}

/// |s·b·a| / |w| of the stored values.
fn measured(w: &[f32], a: &[f32], b: &[f32], scale: f32) -> f64 {
    let squares = |of: &[f32]| of.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>();
    let mut sum = 0.0;
    for b in b.chunks_exact(RANK) {
        for col in 0..IN {
            let terms =
                b.iter().enumerate().map(|(r, &b)| f64::from(b) * f64::from(a[r * IN + col]));
            sum += terms.sum::<f64>().powi(2);
        }
    }
    f64::from(scale) * (sum / squares(w)).sqrt()
}

fn rounded(value: f64, digits: i32) -> f64 {
    let unit = 10f64.powi(digits);
    (value * unit).round() / unit
}

/// The page and the picture, of every file that has been measured.
fn draw() -> Result<()> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(DATA)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .filter(|file| file.extension().is_some_and(|of| of == "csv"))
        .collect();
    files.sort();
    let (mut rows, mut heads) = (Vec::new(), Vec::new());
    for file in files {
        let (head, of) = records::read::<Row>(&file)?;
        heads.push((file, head));
        rows.extend(of);
    }
    plot::draw(&rows, Path::new(PICTURE))?;
    let page = table::page(&rows, &heads);
    print!("{page}");
    std::fs::write(PAGE, page)?;
    eprintln!("wrote {PAGE} and {PICTURE}");
    Ok(())
}

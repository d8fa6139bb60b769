//! What the fused layer costs on an NVIDIA card: beside cuBLAS (three calls, two calls with the
//! border in a longer sum, the plain layer) and beside this crate's own unfused kernels.
//!
//!     cargo bench --bench cuda_layer --features cublas             everything, into benches/results
//!     cargo bench --bench cuda_layer --features cublas -- --goals  the rows of the design alone
//!     cargo bench --bench cuda_layer -- --list                     what there is; needs no card
//!
//! Every cell is first checked (all paths compute the same), then timed in alternating pairs.
//! Timings decide nothing: the exit code tells of errors alone. The executable reads nothing
//! but its arguments, and runs wherever there is a driver; without cuBLAS its columns stay empty.

// `pub` says here what another file of this program uses.
#![allow(unreachable_pub)]

mod card;
mod cells;
#[cfg(feature = "cublas")]
mod column;
#[path = "../common/mod.rs"]
mod common;
#[cfg(feature = "cublas")]
mod cublas;
mod measure;
mod memory;
mod ours;
mod products;
mod report;
mod timing;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use fused_lora::{DType, Error};

use cells::title;
use common::Result;
use common::measure::Effort;
use common::shapes::Direction;
use measure::Bench;
use report::Table;

/// Characters of the reason for which a cell is left out.
const REASON: usize = 160;

/// Fused over cuBLAS and over our own kernels, by alternating pairs on the card's clock.
#[derive(Debug, Parser)]
struct Options {
    /// One tiny cell of each direction with few pairs, for a simulated card
    #[arg(long)]
    quick: bool,
    /// Only the rows that the design has goals for
    #[arg(long)]
    goals: bool,
    /// Only cells whose line in --list contains this text
    #[arg(long, default_value = "")]
    filter: String,
    /// Names the cells that would be measured, and ends
    #[arg(long)]
    list: bool,
    /// Only this storage type [default: bf16, f16 and f32]
    #[arg(long, value_parser = storage)]
    dtype: Vec<DType>,
    /// Only this direction [default: both]
    #[arg(long)]
    direction: Vec<Direction>,
    /// Where to run: cuda, or cuda: and a card's number
    #[arg(long, default_value = "cuda")]
    device: String,
    /// Let cuBLAS round f32 to tf32
    #[arg(long)]
    tf32: bool,
    /// Where the tables go: a .md and a .csv each [default: benches/results, or nowhere for a part]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Measure each cell for so long, and for 20 pairs unless that takes ten times as long
    /// [default: 1.5]
    #[arg(long)]
    seconds_per_cell: Option<f64>,
    /// What `cargo bench` passes; cargo without it (`cargo test --benches`) means --quick
    #[arg(long, hide = true)]
    bench: bool,
}

fn storage(text: &str) -> Result<DType, String> {
    DType::ALL.iter().copied().find(|of| of.to_string() == text).ok_or("f32, f16 or bf16".into())
}

impl Options {
    fn quickly(&self) -> bool {
        self.quick || (!self.bench && std::env::var_os("CARGO").is_some())
    }

    fn effort(&self) -> Effort {
        match self.quickly() {
            true => Effort { pairs: 2, seconds: 0.0, most: 2, limit: f64::INFINITY },
            false => {
                let seconds = self.seconds_per_cell.unwrap_or(1.5);
                Effort { pairs: 20, seconds, most: 200, limit: 10.0 * seconds }
            }
        }
    }

    fn tables(&self) -> Vec<cells::Table> {
        let dtypes = match (self.dtype.is_empty(), self.quickly()) {
            (false, _) => self.dtype.clone(),
            (true, true) => vec![DType::Bf16],
            (true, false) => vec![DType::Bf16, DType::F16, DType::F32],
        };
        let directions = match self.direction.is_empty() {
            true => Direction::value_variants().to_vec(),
            false => self.direction.clone(),
        };
        let mut tables = Vec::new();
        if !self.quickly() {
            tables.push(cells::goals());
        }
        for &dtype in dtypes.iter().filter(|_| !self.goals) {
            for &direction in &directions {
                tables.push(match self.quickly() {
                    true => cells::tiny(dtype, direction),
                    false => cells::table(dtype, direction),
                });
            }
        }
        for (table, cells) in &mut tables {
            cells.retain(|cell| {
                title(table, *cell).contains(&self.filter)
                    && dtypes.contains(&cell.dtype)
                    && directions.contains(&cell.direction)
            });
        }
        tables.retain(|(_, cells)| !cells.is_empty());
        tables
    }

    /// A part of a table does not overwrite the whole of it.
    fn out(&self) -> Option<PathBuf> {
        let whole = !self.quickly() && self.filter.is_empty();
        self.out.clone().or(whole.then(|| PathBuf::from("benches/results")))
    }
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cuda_layer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<()> {
    let tables = options.tables();
    if options.list {
        for (table, cells) in &tables {
            cells.iter().for_each(|cell| println!("{}", title(table, *cell)));
        }
        return Ok(());
    }
    let start = Instant::now();
    let mut bench = Bench::open(&options.device, options.tf32, options.quickly())?;
    println!("{}", bench.card.line());
    println!("{}", bench.rival());
    // A simulated card stays as warm as it is.
    let cold = options.quickly() || bench.card.is_simulated();
    let warm_up = if cold { Duration::ZERO } else { Duration::from_secs(2) };
    bench.warm_up(warm_up)?;
    println!("at work: {}", bench.card.clocks);

    let (effort, out) = (options.effort(), options.out());
    let mut failures = 0;
    for (name, cells) in tables {
        let stem = format!("cuda-{}-{name}", bench.card.slug());
        let simulated = bench.card.is_simulated();
        let mut table = Table { title: stem.clone(), simulated, ..Table::default() };
        for cell in cells {
            match bench.row(cell, effort) {
                Ok(row) => {
                    println!("{cell:<52} {}", row.progress());
                    failures += row.notes.len();
                    for note in &row.notes {
                        println!("{cell:<52} {note}");
                        table.left_out.push(format!("{cell}: {note}"));
                    }
                    table.rows.push(row);
                }
                Err(error) => {
                    // What no kernel serves yet is a gap in the table; the smoke test has none.
                    let is_gap = matches!(error.downcast_ref(), Some(Error::NoStrategy { .. }));
                    failures += usize::from(options.quickly() || !is_gap);
                    let reason: String = error.to_string().chars().take(REASON).collect();
                    println!("{cell:<52} left out: {reason}");
                    table.left_out.push(format!("{cell}: {reason}"));
                }
            }
            if let Some(out) = &out {
                table.write(out, &stem, &format!("{}; {}", bench.card.line(), bench.rival()))?;
            }
        }
        println!("\n{}", table.text());
    }
    println!("took {:.1} minutes", start.elapsed().as_secs_f64() / 60.0);
    match failures {
        0 => Ok(()),
        failures => Err(format!("{failures} failures, as said above").into()),
    }
}

//! The summary of "fast": fused beside naive and beside the plain layer, as ratios.
//!
//!     cargo bench --bench ratios                          every table, into benches/results
//!     cargo bench --bench ratios -- --report              BENCHMARKS.md and its plots, of what is there
//!     cargo bench --bench ratios -- --quick               a smoke test of a few seconds
//!     cargo bench --bench ratios -- --device wgpu         on a GPU
//!     cargo bench --bench ratios -- --dtype bf16 --direction forward --filter "m1 "
//!
//! Every cell is first checked (all paths compute the same), then timed in alternating
//! pairs. Timings decide nothing: the exit code tells of errors alone.

// `pub` says here what another file of this program uses.
#![allow(unreachable_pub)]

#[path = "../common/mod.rs"]
mod common;
mod page;
mod plot;
mod record;
mod report;
mod sample;

use std::path::PathBuf;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use fused_lora::{AdapterKind, Capabilities, DType, Device};

use common::measure::Effort;
use common::shapes::{Cell, Direction, quick, table};
use common::{Result, Weights, machine, share};
use record::Record;
use report::Table;
use sample::Sample;

/// Cargo runs a bench in the package's folder.
const RESULTS: &str = "benches/results";

/// 10^9 multiply-adds of a cell on a software driver, unless --most says otherwise. There the largest
/// layers take seconds a call; every layer is left with few tokens at least.
const SOFTWARE_MOST: f64 = 1.1;

/// How often a cell that is found slower is measured on: one in forty whose true ratio is 1 would be
/// called so by chance. All of its pairs count.
const MORE: usize = 2;

/// The same on a software driver, where an opening gives one ratio: on some processors these scatter so far (AMD's: by ±10 %) that the
/// median of few lies beyond 1.03 by chance.
const MORE_OPENED: usize = 6;

/// How often a software driver is opened for a table. The speed of what it compiles depends on where the code comes to lie, by up
/// to half (`docs/notes/noise.md`), and stays as it is until the kernel is compiled anew: there every opening counts as one ratio.
const OPENINGS: usize = 9;

/// Fused over naive and over plain, by alternating pairs.
#[derive(Debug, Parser)]
struct Options {
    /// A handful of cells with few pairs; writes nothing unless --out is given
    #[arg(long)]
    quick: bool,
    /// Only cells whose name contains this text, like "llama-q/o 4096x4096 m64 r16 bf16"
    #[arg(long, default_value = "")]
    filter: String,
    /// Only this storage type [default: f32 and bf16]
    #[arg(long, value_parser = storage)]
    dtype: Vec<DType>,
    /// Where to run: a name of Device::open [default: FUSED_LORA_DEVICE, or the best there is]
    #[arg(long)]
    device: Option<String>,
    /// Only cells with at most so many 10^9 multiply-adds in the plain layer [default: all; on a
    /// software driver 1.1]
    #[arg(long)]
    most: Option<f64>,
    /// Only this direction [default: both]
    #[arg(long)]
    direction: Vec<Direction>,
    /// Where <backend>-<direction>-<dtype>.csv goes [default: benches/results]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Measure each cell for so long, and for 20 pairs at least [default: 1.5]
    #[arg(long)]
    seconds_per_cell: Option<f64>,
    /// Names the cells that would be measured, and ends
    #[arg(long)]
    list: bool,
    /// Measures nothing: writes BENCHMARKS.md and its plots of the tables in benches/results
    #[arg(long)]
    report: bool,
    /// What `cargo bench` passes; cargo without it (`cargo test --benches`) means --quick
    #[arg(long, hide = true)]
    bench: bool,
}

fn storage(text: &str) -> Result<DType, String> {
    DType::ALL.iter().copied().find(|of| of.to_string() == text).ok_or("f32, f16 or bf16".into())
}

fn main() -> Result<()> {
    let options = Options::parse();
    if options.report {
        return page::write();
    }
    let quickly = options.quick || (!options.bench && std::env::var_os("CARGO").is_some());
    let (seconds, limit) = (options.seconds_per_cell, f64::INFINITY);
    let effort = match quickly {
        true => Effort { pairs: 6, seconds: seconds.unwrap_or(0.0), most: 50, limit },
        false => Effort { pairs: 20, seconds: seconds.unwrap_or(1.5), most: 200, limit },
    };
    let outputs = if quickly { share::FEW_OUTPUTS } else { share::OUTPUTS };
    let part = !options.filter.is_empty();
    // A part of a table does not overwrite the whole of it.
    let kept = (!quickly && !part).then_some(RESULTS);
    let out = options.out.or(kept.map(PathBuf::from));
    let dtypes: Vec<DType> = match options.dtype.is_empty() {
        true => vec![DType::F32, DType::Bf16],
        false => options.dtype,
    };
    let directions = match options.direction.is_empty() {
        true => Direction::value_variants().to_vec(),
        false => options.direction,
    };

    let open = || match &options.device {
        Some(name) => Device::open(name),
        None => Device::from_env(),
    };
    let device = if options.list { None } else { Some(open()?) };
    let is_software = device.as_ref().is_some_and(is_software);
    let most = options.most.or(is_software.then_some(SOFTWARE_MOST));
    let mut tables = Vec::new();
    for &dtype in &dtypes {
        for &direction in &directions {
            let mut cells = if quickly { quick(dtype, direction) } else { table(dtype, direction) };
            cells.retain(|cell| cell.to_string().contains(&options.filter));
            cells.retain(|cell| most.is_none_or(|of| cell.multiply_adds() as f64 <= of * 1e9));
            if !cells.is_empty() {
                tables.push((dtype, direction, cells));
            }
        }
    }
    let Some(device) = device else {
        tables.iter().flat_map(|(.., cells)| cells).for_each(|cell| println!("{cell}"));
        return Ok(());
    };
    let openings = if is_software && !quickly { OPENINGS } else { 1 };
    let start = Instant::now();
    for (dtype, direction, cells) in tables {
        let rows = measure(&open, &cells, effort.shared_by(openings), openings, outputs)?;
        let title = format!("{} {direction} {dtype}", device.name());
        let table = Table { title, head: head(&device, most, openings), rows };
        println!("# {}\n\n{}", table.title, table.text());
        if let Some(out) = &out {
            table.write(out)?;
        }
    }
    eprintln!("took {:.1} minutes", start.elapsed().as_secs_f64() / 60.0);
    Ok(())
}

/// Where the tables were measured, and what was left out.
fn head(device: &Device, most: Option<f64>, openings: usize) -> String {
    let opened = match openings {
        1 => String::new(),
        _ => format!("- opened {openings} times; a ratio is the median of an opening\n"),
    };
    let most = most.map_or(String::new(), |most| {
        format!(
            "- left out: cells of more than {most}·10⁹ multiply-adds in the plain layer, for which this device takes \
             too long\n"
        )
    });
    machine::describe(&device.description(), "ratios") + &opened + &most
}

fn is_software(device: &Device) -> bool {
    matches!(device.capabilities(), Capabilities::Wgpu(of) if of.adapter == AdapterKind::Software)
}

/// Every cell `openings` times, each time on a device opened anew, and those that are found slower again. Cells of one shape share
/// their weight: a table's cells come shape by shape.
fn measure(
    open: &dyn Fn() -> fused_lora::Result<Device>,
    cells: &[Cell],
    effort: Effort,
    openings: usize,
    outputs: usize,
) -> Result<Vec<Record>> {
    let mut samples: Vec<Sample> =
        cells.iter().map(|&cell| Sample::new(cell, openings > 1)).collect();
    let more = if openings > 1 { MORE_OPENED } else { MORE };
    for again in 0..=more {
        let mut slower: Vec<&mut Sample> =
            samples.iter_mut().filter(|of| again == 0 || !of.is_not_slower()).collect();
        for opening in 1..=openings {
            if slower.is_empty() {
                break;
            }
            let device = open()?;
            for samples in slower.chunk_by_mut(|left, right| left.cell.shape == right.cell.shape) {
                let Cell { shape, dtype, .. } = samples[0].cell;
                let weights = Weights::new(&device, shape, dtype)?;
                for sample in samples {
                    sample.add(&device, &weights, effort, outputs)?;
                    if opening == openings {
                        eprintln!("{:<52} {}", sample.cell, sample.record()?.progress());
                    }
                }
            }
        }
    }
    samples.iter().map(Sample::record).collect()
}

//! A bench that makes one table of ratios: its options, how much it measures, where the table goes. Called by `alignment`,
//! `batch_invariant`, `convolution`, `cpu_gemm`, `family` and `methods`.

#[path = "machine.rs"]
#[allow(dead_code)]
mod machine;

use std::io;
use std::path::PathBuf;

use clap::Args;
use fused_lora::Device;

/// Options of each of them.
#[derive(Debug, Args)]
pub struct Table {
    /// Where the table goes, too
    #[arg(long)]
    out: Option<PathBuf>,
    /// Alternating pairs of each cell
    #[arg(long, default_value_t = 21)]
    pairs: usize,
    /// What `cargo bench` passes; without it (`cargo test --benches`) one small cell is enough
    #[arg(long, hide = true)]
    bench: bool,
}

impl Table {
    /// How many pairs of which cells: all of them, or one pair of the few that show that the bench runs.
    pub fn extent<'a, C>(&self, all: &'a [C], few: &'a [C]) -> (usize, &'a [C]) {
        if self.bench { (self.pairs.max(1), all) } else { (1, few) }
    }

    /// Prints the table, and writes it where it was asked for, with the machine.
    pub fn finish(self, text: &str, device: &Device, bench: &str) -> io::Result<()> {
        println!("{text}");
        let Some(out) = self.out else { return Ok(()) };
        let machine = machine::describe(&device.description(), bench);
        std::fs::write(out, format!("{text}\n{machine}"))
    }
}

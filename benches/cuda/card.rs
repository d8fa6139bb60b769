//! The card in words, for reports: name, driver, clocks. Called by `main.rs`.

use std::fs;
use std::sync::Arc;

use fused_lora::cuda::cudarc::driver::sys::{self, CUdevice_attribute};
use fused_lora::cuda::cudarc::driver::{CudaContext, DriverError};

use super::common::{Result, machine};

/// What `nvidia-smi` is asked for, where it is there: it comes with the driver.
const ASKED: &str = "clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.limit,temperature.gpu";

/// A card.
pub struct Card {
    pub name: String,
    uuid: String,
    driver: String,
    /// What the driver's attributes tell.
    chip: String,
    /// `nvidia-smi`'s words about [`ASKED`], while the card was at work.
    pub clocks: String,
}

impl Card {
    pub fn of(context: &Arc<CudaContext>) -> Result<Card> {
        use CUdevice_attribute::*;
        let attribute = |of| context.attribute(of);
        let mut version = 0;
        // SAFETY: the pointer is to a number.
        unsafe { sys::cuDriverGetVersion(&mut version) }.result()?;
        let cuda = format!("CUDA {}.{}", version / 1000, version / 10 % 100);
        let chip = format!(
            "compute capability {}.{}, {} multiprocessors, {} KiB of L2",
            attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            attribute(CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)? / 1024,
        );
        let mut card = Card {
            name: context.name()?,
            uuid: uuid(context)?,
            driver: format!("{} ({cuda})", driver()),
            chip,
            clocks: String::new(),
        };
        card.look_at_clocks();
        Ok(card)
    }

    /// Asks for the clocks now.
    pub fn look_at_clocks(&mut self) {
        let arguments = [
            format!("--id={}", self.uuid),
            format!("--query-gpu={ASKED}"),
            "--format=csv,noheader".into(),
        ];
        let words = machine::output("nvidia-smi", &arguments.each_ref().map(String::as_str));
        self.clocks = match words == machine::UNKNOWN {
            true => words,
            false => format!("{words} ({ASKED})"),
        };
    }

    /// One line: the card, its driver, its clocks.
    pub fn line(&self) -> String {
        let Card { name, driver, chip, clocks, .. } = self;
        format!("{name}, {chip}; driver {driver}; clocks {clocks}")
    }

    /// Whether it is the stand-in of `crates/ptx-sim-driver`, whose times say nothing.
    pub fn is_simulated(&self) -> bool {
        self.name.starts_with("ptx-sim")
    }

    /// The name as a part of a file's.
    pub fn slug(&self) -> String {
        let kept = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        self.name.chars().map(kept).collect()
    }
}

/// As `nvidia-smi` takes it.
fn uuid(context: &CudaContext) -> Result<String, DriverError> {
    let bytes = context.uuid()?.bytes;
    let mut text = "GPU-".to_owned();
    for (at, byte) in bytes.into_iter().enumerate() {
        if [4, 6, 8, 10].contains(&at) {
            text.push('-');
        }
        text += &format!("{:02x}", byte as u8);
    }
    Ok(text)
}

/// The driver's version, as Linux tells it.
fn driver() -> String {
    let text = fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
    let words = text.lines().next().unwrap_or_default().split_whitespace();
    // "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue …"
    let version =
        |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    words.into_iter().find(version).unwrap_or(machine::UNKNOWN).to_owned()
}

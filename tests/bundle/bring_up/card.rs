//! Stage 1: card, driver, clocks, and the tools that later stages can use. Called by `main`.

use std::process::Command;

use fused_lora::cuda::cudarc::driver::sys::CUdevice_attribute::*;

use crate::device::Card;
use crate::others::{compute_sanitizer, python_with};
use crate::{Options, Result};

const CLOCKS: &str =
    "--query-gpu=clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.limit,temperature.gpu";

pub(crate) fn run(_: &Options) -> Result {
    let card = Card::open()?;
    println!("* {}", card.line()?);
    for (name, of) in [
        ("multiprocessors", CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
        (
            "bytes of shared memory of a block",
            CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
        ),
        (
            "bytes of shared memory of a multiprocessor",
            CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR,
        ),
        ("bytes of L2", CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE),
        ("kHz at most", CU_DEVICE_ATTRIBUTE_CLOCK_RATE),
        ("kHz of memory", CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE),
        ("bits of memory's bus", CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH),
        ("asynchronous engines", CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT),
    ] {
        println!("{name}: {}", card.attribute(of)?);
    }
    let (free, total) = card.context.mem_get_info()?;
    println!("memory: {free} of {total} bytes are free");
    let smi = |query: &str| first_line("nvidia-smi", &[query, "--format=csv,noheader"]);
    println!("clocks: {}", smi(CLOCKS));
    println!("in use: {}", smi("--query-compute-apps=pid,used_memory"));
    println!("host: {} threads", std::thread::available_parallelism()?);
    let sanitizer = compute_sanitizer().map(|path| path.display().to_string());
    println!("* compute-sanitizer: {}", sanitizer.as_deref().unwrap_or("none"));
    println!("ncu: {}", first_line("ncu", &["--version"]));
    println!("nvcc: {}", first_line("nvcc", &["--version"]));
    let torch = "torch.__version__, torch.version.cuda, torch.cuda.is_available()";
    println!("* torch: {}", python_with("torch", torch).unwrap_or("none".to_owned()));
    // cuBLAS is looked for by `run`, for all stages.
    let cublas = std::env::var("FUSED_LORA_CUBLAS").unwrap_or_default();
    println!("* cuBLAS: {}", if cublas.is_empty() { "none" } else { &cublas });
    Ok(())
}

/// What a program says first, if it is there.
fn first_line(program: &str, arguments: &[&str]) -> String {
    match Command::new(program).args(arguments).output() {
        Err(_) => "none".to_owned(),
        Ok(said) => {
            let text = String::from_utf8_lossy(&said.stdout).into_owned();
            text.lines().next().unwrap_or("nothing").to_owned()
        }
    }
}

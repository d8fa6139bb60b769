//! Writes every WGSL text that the plans of some hundred random problems render, each once, for
//! `tests/dawn/run`: every operation, storage type, layout, strategy and preset, for
//! devices that differ in what they grant and in the habits of their hosts.
//!
//!     cargo run --example shader_texts -- FOLDER

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use fused_lora::{AdapterKind, Capabilities, Choice, Error, Plan, WgpuCapabilities};
use rand::SeedableRng;
use rand::rngs::StdRng;
use test_support::{draw, feasible};

const PROBLEMS: u64 = 600;

/// Few and many tokens, even and odd sizes: what renderings differ by.
const SIZES: [[usize; 3]; 8] = [
    [1, 64, 48],
    [3, 127, 9],
    [16, 64, 64],
    [17, 257, 11],
    [64, 128, 32],
    [130, 72, 70],
    [200, 256, 256],
    [600, 70, 96],
];

/// What browsers grant, with each feature and each habit of a host.
fn devices() -> Vec<Capabilities> {
    let mut all = Vec::new();
    for adapter in AdapterKind::ALL {
        for flags in 0..8usize {
            let mut device = WgpuCapabilities::default();
            (device.adapter, device.browser) = (adapter, true);
            device.f16 = flags & 1 != 0;
            device.subgroup = [0, 4, 0, 8, 0, 16, 0, 8][flags];
            device.shared_buffers = flags & 2 != 0;
            device.storage_params = flags & 4 != 0;
            all.push(Capabilities::Wgpu(device));
        }
        // A weight in several windows.
        let mut device = WgpuCapabilities::default();
        (device.adapter, device.browser) = (adapter, true);
        device.binding_bytes = 128 << 10;
        all.push(Capabilities::Wgpu(device));
    }
    all
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: shader_texts FOLDER")?;
    let folder = PathBuf::from(folder);
    fs::create_dir_all(&folder)?;
    let devices = devices();
    let mut texts = HashMap::new();
    for seed in 0..PROBLEMS {
        let problem = draw(&mut StdRng::seed_from_u64(seed), &SIZES);
        let device = &devices[seed as usize % devices.len()];
        // Of the small bindings.
        if let Err(Error::Limit { .. }) = Plan::new(&problem, device) {
            continue;
        }
        for choice in feasible(&problem, device, &Choice::default()) {
            let plan = Plan::choose(&problem, device, &choice)?;
            for launch in plan.launches() {
                let source = launch.source.as_ref().ok_or("a launch without a text")?;
                let named = format!("{choice} {}", launch.kernel).replace([' ', '/'], "-");
                texts.entry((source.text.clone(), source.entry)).or_insert(named);
            }
        }
    }
    let mut texts: Vec<_> = texts.into_iter().collect();
    texts.sort();
    for (at, ((text, entry), named)) in texts.iter().enumerate() {
        // The first line tells the entry point.
        let name = folder.join(format!("{at:05}-{named}.wgsl"));
        fs::write(name, format!("// entry: {entry}\n{text}"))?;
    }
    println!("{} texts", texts.len());
    Ok(())
}

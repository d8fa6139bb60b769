//! An adapter from a file: a folder as PEFT's `save_pretrained` writes it, or one safetensors file of kohya, LyCORIS,
//! ComfyUI or diffusers. Each layer's factors and scale, by its name there; LoHa, low-rank LoKr and LoCon run as
//! the LoRA that they are. Without an argument it writes one first.
//!
//!     cargo run --release --example 06_adapter_from_a_file --features files -- path/to/adapter

use std::path::PathBuf;

use fused_lora::files::{Factor, Module, StateDict, peft::AdapterFile};
use fused_lora::{DType, Device, Forward};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = match std::env::args().nth(1) {
        Some(path) => path.into(),
        None => an_adapter()?,
    };
    let modules = match path.is_dir() {
        true => AdapterFile::read(&path)?.modules,
        false => StateDict::read(&path)?.modules,
    };

    let device = Device::from_env()?;
    for (name, module) in &modules {
        let lora = match module.to_lora() {
            Ok(lora) if lora.magnitude.is_none() => lora,
            _ => {
                println!("{name}: {} that no LoRA is: to be merged", module.method());
                continue;
            }
        };
        let (a, b) = lora.plain()?;
        let (k, n, r) = (lora.in_features(), lora.out_features(), lora.rank());
        let a = device.tensor(r, k, DType::F32, &a.values())?;
        let b = device.tensor(n, r, DType::F32, &b.values())?;
        // The base model's own weight of this name would be here.
        let w = device.zeros(n, k, DType::F32)?;
        let x = device.tensor(1, k, DType::F32, &vec![1.0; k])?;
        let mut y = device.zeros(1, n, DType::F32)?;
        device.forward(Forward::new(&x, &w, &mut y).adapter(&a, &b).scale(lora.scale))?;
        let (method, scale) = (module.method(), lora.scale);
        println!("{name}: {method}, as LoRA of rank {r}, scale {scale}, y[0] = {}", y.to_f32()?[0]);
    }
    Ok(())
}

/// LoHa of rank 2 on one layer, in kohya's names.
fn an_adapter() -> Result<PathBuf, fused_lora::Error> {
    let path = std::env::temp_dir().join("fused-lora-06.safetensors");
    let of = |rows, cols| Factor::new(rows, cols, DType::F32, &vec![0.5; rows * cols]);
    let loha = Module::loha([of(48, 2)?, of(2, 64)?], [of(48, 2)?, of(2, 64)?], 2.0)?;
    StateDict::new([("lora_unet_mid_block_fc".to_owned(), loha)])?.write(&path)?;
    Ok(path)
}

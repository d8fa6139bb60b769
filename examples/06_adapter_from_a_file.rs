//! An adapter of PEFT's, from a folder as `save_pretrained` writes it: each layer's factors and scale, by its
//! path in the base model. Without an argument it writes one first.
//!
//!     cargo run --release --example 06_adapter_from_a_file --features peft -- path/to/adapter

use fused_lora::peft::{AdapterConfig, AdapterFile, Factor};
use fused_lora::{DType, Device, Forward};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = match std::env::args().nth(1) {
        Some(folder) => folder.into(),
        None => {
            let folder = std::env::temp_dir().join("fused-lora-06");
            let a = Factor::new(2, 64, DType::F32, &[0.125; 2 * 64])?;
            let b = Factor::new(48, 2, DType::F32, &[1.0; 48 * 2])?;
            let layer = ("model.layers.0.q_proj".to_owned(), a, b);
            AdapterFile::new(AdapterConfig::new(2, 4.0), [layer])?.write(&folder)?;
            folder
        }
    };
    let adapter = AdapterFile::read(&folder)?;

    let device = Device::from_env()?;
    for (path, module) in &adapter.modules {
        let (k, n, r) = (module.in_features(), module.out_features(), module.rank());
        let a = device.tensor(r, k, module.a.dtype(), &module.a.values())?;
        let b = device.tensor(n, r, module.b.dtype(), &module.b.values())?;
        // The base model's own weight of this path would be here.
        let w = device.zeros(n, k, DType::F32)?;
        let x = device.tensor(1, k, DType::F32, &vec![1.0; k])?;
        let mut y = device.zeros(1, n, DType::F32)?;
        device.forward(Forward::new(&x, &w, &mut y).adapter(&a, &b).scale(module.scale))?;
        println!("{path}: rank {r}, scale {}, y[0] = {}", module.scale, y.to_f32()?[0]);
    }
    Ok(())
}

//! A frozen layer with its adapter, in twelve lines: on the best device there is, or on the one that
//! `FUSED_LORA_DEVICE` names.
//!
//!     cargo run --release --example 01_first_layer

use fused_lora::{DType, Device, Forward};

fn main() -> Result<(), fused_lora::Error> {
    let device = Device::from_env()?;
    let (tokens, in_features, out_features, rank) = (8, 64, 48, 4);
    let x = device.tensor(tokens, in_features, DType::Bf16, &[0.5; 8 * 64])?;
    let w = device.tensor(out_features, in_features, DType::Bf16, &[0.25; 48 * 64])?;
    // The adapter may be f32 beside 16-bit activations, as PEFT keeps it.
    let a = device.tensor(rank, in_features, DType::F32, &[0.125; 4 * 64])?;
    let b = device.tensor(out_features, rank, DType::F32, &[1.0; 48 * 4])?;
    let mut y = device.zeros(tokens, out_features, DType::Bf16)?;
    device.forward(Forward::new(&x, &w, &mut y).adapter(&a, &b).scale(2.0))?;
    // 64 · 0.5 · 0.25 + 4 · (2 · 64 · 0.5 · 0.125) · 1
    assert!(y.to_f32()?.iter().all(|y| *y == 40.0));
    println!("y = {} on {}", y.to_f32()?[0], device.description());
    Ok(())
}

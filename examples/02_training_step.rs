//! A step of training: forward keeps `shrunk`, backward gives dx, da and db in one call, and plain gradient
//! descent on the host moves the adapter until y is what was asked for.
//!
//!     cargo run --release --example 02_training_step

use fused_lora::{Backward, DType, Device, Forward, Tensor, shrunk_stride};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

fn main() -> Result<(), fused_lora::Error> {
    let device = Device::from_env()?;
    let (tokens, in_features, out_features, rank, scale) = (32, 64, 48, 4, 0.5);
    let mut random = StdRng::seed_from_u64(1);
    let mut draw = |rows, cols, size: f32| {
        let values: Vec<f32> = (0..rows * cols).map(|_| random.random_range(-size..size)).collect();
        device.tensor(rows, cols, DType::F32, &values)
    };
    let (x, w) = (draw(tokens, in_features, 1.0)?, draw(out_features, in_features, 0.2)?);
    let (mut a, mut b) =
        (draw(rank, in_features, 0.2)?, device.zeros(out_features, rank, DType::F32)?);
    let wanted = draw(tokens, out_features, 1.0)?.to_f32()?;

    let zeros = |rows, cols| device.zeros(rows, cols, DType::F32);
    let (mut y, mut shrunk) = (zeros(tokens, out_features)?, zeros(tokens, shrunk_stride(rank))?);
    let (mut dy, mut dx) = (zeros(tokens, out_features)?, zeros(tokens, in_features)?);
    let (mut da, mut db) = (zeros(rank, in_features)?, zeros(out_features, rank)?);
    let mut losses = Vec::new();
    for _ in 0..200 {
        let forward = Forward::new(&x, &w, &mut y).adapter(&a, &b).scale(scale);
        device.forward(forward.shrunk(&mut shrunk))?;
        let off: Vec<f32> = y.to_f32()?.iter().zip(&wanted).map(|(y, wanted)| y - wanted).collect();
        losses.push(off.iter().map(|off| off * off).sum::<f32>() / off.len() as f32);
        dy.write(&off)?;
        let backward = Backward::new(&x, &w, &dy).adapter(&a, &b).scale(scale).shrunk(&shrunk);
        device.backward(backward.dx(&mut dx).da(&mut da).db(&mut db))?;
        descend(&mut a, &da)?;
        descend(&mut b, &db)?;
    }
    println!("loss {:.3} -> {:.3} on {}", losses[0], losses[199], device.description());
    assert!(losses[199] < 0.7 * losses[0]);
    Ok(())
}

fn descend(weight: &mut Tensor, gradient: &Tensor) -> Result<(), fused_lora::Error> {
    let step = |(weight, gradient): (&f32, &f32)| weight - 0.01 * gradient;
    let values = weight.to_f32()?.iter().zip(&gradient.to_f32()?).map(step).collect::<Vec<_>>();
    weight.write(&values)
}

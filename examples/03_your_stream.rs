//! Your own context, stream and slices on CUDA, through cudarc: nothing is allocated for you, and nothing
//! waits but your own readback.
//!
//!     cargo run --release --example 03_your_stream

use fused_lora::cuda::{Arena, Cuda, cudarc::driver::CudaContext, probe};
use fused_lora::{DType, Forward, Matrix};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // cudarc panics where there is no driver.
    probe()?;
    let context = CudaContext::new(0)?;
    let stream = context.new_stream()?;
    let cuda = Cuda::new(&context)?;

    let (x, w) = (stream.clone_htod(&[0.5f32; 8 * 64])?, stream.clone_htod(&[0.25f32; 48 * 64])?);
    let (a, b) = (stream.clone_htod(&[0.125f32; 4 * 64])?, stream.clone_htod(&[1.0f32; 48 * 4])?);
    let mut y = stream.alloc_zeros::<f32>(8 * 48)?;
    cuda.forward(
        &stream,
        Forward::new(Matrix::new(&x, 8, 64), Matrix::new(&w, 48, 64), Matrix::new(&mut y, 8, 48))
            .adapter(Matrix::new(&a, 4, 64), Matrix::new(&b, 48, 4))
            .scale(2.0),
    )?;
    assert_eq!(stream.clone_dtoh(&y)?, [40.0; 8 * 48]);

    // Operands that are parts of one allocation, some read and some written.
    let mut memory = stream.clone_htod(&[1.0f32; 8 * 64 + 48 * 64 + 8 * 48])?;
    let (w_at, y_at) = (4 * 8 * 64, 4 * (8 * 64 + 48 * 64));
    let arena = Arena::from(&mut memory);
    let x = Matrix::new(arena.read(0..w_at, DType::F32), 8, 64);
    let w = Matrix::new(arena.read(w_at..y_at, DType::F32), 48, 64);
    let y = Matrix::new(arena.write(y_at..y_at + 4 * 8 * 48, DType::F32), 8, 48);
    cuda.forward(&stream, Forward::new(x, w, y))?;
    assert_eq!(stream.clone_dtoh(&memory)?[8 * 64 + 48 * 64..], [64.0; 8 * 48]);
    println!("both right on {}", context.name()?);
    Ok(())
}

//! Your own device, buffers and open compute pass on wgpu: launches are recorded, and submitted when you do.
//!
//!     cargo run --release --example 04_your_pass

use fused_lora::wgpu::{Wgpu, wgpu};
use fused_lora::{DType, Forward, Matrix};
use wgpu::util::DeviceExt as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&Default::default()))?;
    let (device, queue) = pollster::block_on(adapter.request_device(&Default::default()))?;
    let executor = Wgpu::new(&device)?;

    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
    let buffer = |len: usize, value: f32| {
        let contents = bytemuck::cast_slice::<f32, u8>(&vec![value; len]).to_vec();
        device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: None,
            contents: &contents,
            usage,
        })
    };
    let (x, w, y) = (buffer(8 * 64, 0.5), buffer(48 * 64, 0.25), buffer(8 * 48, 0.0));
    let (a, b) = (buffer(4 * 64, 0.125), buffer(48 * 4, 1.0));
    let matrix = |buffer, rows, cols| Matrix::new((buffer, DType::F32), rows, cols);

    let mut encoder = device.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    let forward = Forward::new(matrix(&x, 8, 64), matrix(&w, 48, 64), matrix(&y, 8, 48));
    let forward = forward.adapter(matrix(&a, 4, 64), matrix(&b, 48, 4)).scale(2.0);
    executor.forward(&mut pass, forward)?;
    drop(pass);

    let readback = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: y.size(),
        usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
        mapped_at_creation: false,
    });
    encoder.copy_buffer_to_buffer(&y, 0, &readback, 0, y.size());
    queue.submit([encoder.finish()]);
    readback.map_async(wgpu::MapMode::Read, .., |mapped| mapped.expect("a mapped buffer"));
    device.poll(wgpu::PollType::wait_indefinitely())?;
    let range = readback.get_mapped_range(..)?;
    assert_eq!(bytemuck::cast_slice::<u8, f32>(&range), [40.0; 8 * 48]);
    println!("right on {}", adapter.get_info().name);
    Ok(())
}

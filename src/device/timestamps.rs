//! How long work takes by a device's own clock, where it has one that wgpu can read. Called by `tune`.

use crate::Result;
use crate::wgpu::{Prepared, Wgpu, wgpu};

/// Bytes of the two stamps, before and behind the work.
const BYTES: u64 = 2 * wgpu::QUERY_SIZE as u64;

/// Seconds that so many runs of `prepared` take, one behind the other in a pass of their own; `None` where the device has no
/// clock. Waits for it. What was recorded before has been sent.
pub(super) fn seconds(
    executor: &Wgpu,
    queue: &wgpu::Queue,
    prepared: &Prepared,
    runs: usize,
) -> Result<Option<f64>> {
    let period = f64::from(queue.get_timestamp_period());
    let features = executor.device().features();
    if !features.contains(wgpu::Features::TIMESTAMP_QUERY) || period <= 0.0 {
        return Ok(None);
    }
    let staging = executor.scoped("timestamps", BYTES, |device| {
        let buffer = |usage| {
            let (label, size) = (Some("fused-lora timestamps"), BYTES);
            device.create_buffer(&wgpu::BufferDescriptor {
                label,
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        let stamps = device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("fused-lora timestamps"),
            ty: wgpu::QueryType::Timestamp,
            count: 2,
        });
        let resolved = buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC);
        let staging = buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        let mut encoder = device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some("fused-lora timed"),
            timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                query_set: &stamps,
                beginning_of_pass_write_index: Some(0),
                end_of_pass_write_index: Some(1),
            }),
        });
        let recorded = (0..runs).try_for_each(|_| prepared.encode(&mut pass));
        drop(pass);
        encoder.resolve_query_set(&stamps, 0..2, &resolved, 0);
        encoder.copy_buffer_to_buffer(&resolved, 0, &staging, 0, BYTES);
        queue.submit([encoder.finish()]);
        // Whether it worked shows when the range is taken.
        staging.map_async(wgpu::MapMode::Read, .., |_| {});
        let _ = device.poll(wgpu::PollType::wait_indefinitely());
        recorded.map(|()| staging)
    })??;
    executor.check_alive()?;
    let Ok(range) = staging.get_mapped_range(..) else { return Ok(None) };
    let stamps =
        range.chunks_exact(8).filter_map(|of| Some(u64::from_le_bytes(of.try_into().ok()?)));
    let stamps: Vec<u64> = stamps.collect();
    let [begin, end] = stamps[..] else { return Ok(None) };
    Ok(Some(1e-9 * period * end.saturating_sub(begin) as f64))
}

//! The plain product y = x·wᵀ in f32: ours on wgpu beside burn's, on one and the same
//! device, in alternating pairs. burn is warmed up until its autotuner has chosen.
//!
//!     tests/lavapipe cargo run --release --manifest-path benches/burn/Cargo.toml
//!     cargo run --release --manifest-path benches/burn/Cargo.toml -- --hardware
//!
//! Prints a table in Markdown. Both sides are sent as one batch a timing and waited for
//! once; both read w as burn's layers keep it, `[in_features, out_features]`.

#[path = "../../common/statistics.rs"]
#[allow(dead_code)]
mod statistics;

use std::time::{Duration, Instant};

use burn_tensor::wgpu::WgpuBackend;
use burn_tensor::{Device, DeviceKind, Tensor, TensorData};
use clap::Parser;
use fused_lora::wgpu::{Prepared, Slice, Wgpu, Workspace};
use fused_lora::{Choice, DType, Forward, Matrix, Operands, Plan, Problem};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use statistics::Interval;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Fewest pairs of a row, and how long it is measured.
const PAIRS: usize = 20;
const SECONDS: f64 = 10.0;
/// Runs of a timing last at least so long together.
const SHORTEST: Duration = Duration::from_millis(20);
/// Runs of burn before the first timing: its autotuner tries its kernels in the first.
const WARM_UP: usize = 5;

#[derive(Debug, Parser)]
struct Options {
    /// On the best GPU instead of the software driver
    #[arg(long)]
    hardware: bool,
    /// Measure this preset, whatever the plan would choose
    #[arg(long)]
    preset: Option<String>,
    /// Rows, columns and depth
    #[arg(long, default_values_t = [512, 1024])]
    size: Vec<usize>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let kind = if options.hardware { DeviceKind::DefaultDevice } else { DeviceKind::Cpu };
    // burn makes the device, with every feature that its kernels can use; we take it as it is.
    let wanted = Device::wgpu_options().device_kind(kind).graphics_api(WgpuBackend::Vulkan);
    let (burn, setup) = wanted.init_with_setup()?;
    let adapter = setup.adapter.get_info();
    println!("# Plain f32 product beside burn's\n");
    println!("- device: {} ({} {})", adapter.name, adapter.driver, adapter.driver_info);
    let compiler = if cfg!(feature = "spirv") { "SPIR-V" } else { "WGSL" };
    println!("- rival: burn-tensor 0.22.1, wgpu backend, {compiler}, autotuned\n");
    println!("| size | ours/burn | verdict | our kernel | pairs |\n|---|---|---|---|---|");
    for size in options.size {
        let mut random = {
            let mut rng = StdRng::seed_from_u64(size as u64);
            move || (0..size * size).map(|_| rng.random_range(-1.0..1.0)).collect::<Vec<f32>>()
        };
        let (x, w) = (random(), random());
        let tensor = |of: &[f32]| {
            Tensor::<2>::from_data(TensorData::new(of.to_vec(), [size, size]), &burn)
        };
        let theirs = Theirs { x: tensor(&x), w: tensor(&w), device: burn.clone() };
        let ours = Ours::new(&setup.device, &setup.queue, size, &x, &w, options.preset.clone())?;
        agree(&ours, &theirs, size)?;
        for _ in 0..WARM_UP {
            theirs.run(1)?;
        }
        let mut repeats = 1;
        while ours.run(repeats)? < SHORTEST {
            repeats *= 2;
        }
        let mut ratios = Vec::new();
        let start = Instant::now();
        while ratios.len() < PAIRS || start.elapsed().as_secs_f64() < SECONDS {
            let first = if ratios.len() % 2 == 0 { Some(ours.run(repeats)?) } else { None };
            let theirs = theirs.run(repeats)?;
            let ours = first.map_or_else(|| ours.run(repeats), Ok)?;
            ratios.push(ours.as_secs_f64() / theirs.as_secs_f64());
        }
        let (pairs, ratio) = (ratios.len(), Interval::of(ratios));
        let verdict = if ratio.not_slower() { "not slower" } else { "slower" };
        println!("| {size}³ | {ratio} | {verdict} | {} | {pairs} |", ours.name);
    }
    Ok(())
}

/// burn's side.
struct Theirs {
    x: Tensor<2>,
    w: Tensor<2>,
    device: Device,
}

impl Theirs {
    fn run(&self, repeats: usize) -> Result<Duration> {
        let start = Instant::now();
        let mut last = None;
        for _ in 0..repeats {
            last = Some(self.x.clone().matmul(self.w.clone()));
        }
        self.device.sync()?;
        let time = start.elapsed();
        drop(last);
        Ok(time)
    }
}

/// This crate's side.
struct Ours {
    device: wgpu::Device,
    queue: wgpu::Queue,
    name: String,
    y: wgpu::Buffer,
    prepared: Prepared,
}

impl Ours {
    fn new(
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        size: usize,
        x: &[f32],
        w: &[f32],
        preset: Option<String>,
    ) -> Result<Ours> {
        let upload = |values: &[f32]| {
            let buffer = device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: 4 * values.len() as u64,
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: true,
            });
            let bytes: Vec<u8> = values.iter().flat_map(|of| of.to_le_bytes()).collect();
            buffer.get_mapped_range_mut(..)?.copy_from_slice(&bytes);
            buffer.unmap();
            Ok::<_, Box<dyn std::error::Error>>(buffer)
        };
        let (x, w, y) = (upload(x)?, upload(w)?, upload(&vec![0.0; size * size])?);
        let executor = Wgpu::new(device)?;
        let matrix = |of| Matrix::new(Slice::new(of, DType::F32), size, size);
        let operands: Operands<_, _> = Forward::new(matrix(&x), Matrix::transposed(Slice::new(&w, DType::F32), size, size), matrix(&y))
        .into();
        let problem = operands.problem_with_layouts(Problem::forward(size, size, size, 0));
        let choice = Choice { preset, ..Choice::default() };
        let plan = Plan::choose(&problem, &executor.capabilities(), &choice)?;
        executor.warm_up(&plan)?;
        let prepared = executor.prepare(&plan, operands, Workspace::none())?;
        let name = format!("{}/{}", plan.strategy(), plan.preset());
        Ok(Ours { device: device.clone(), queue: queue.clone(), name, y, prepared })
    }

    fn run(&self, repeats: usize) -> Result<Duration> {
        let start = Instant::now();
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for _ in 0..repeats {
            self.prepared.encode(&mut pass)?;
        }
        drop(pass);
        self.queue.submit([encoder.finish()]);
        self.device.poll(wgpu::PollType::wait_indefinitely())?;
        Ok(start.elapsed())
    }

    fn read(&self) -> Result<Vec<f32>> {
        let copy = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: self.y.size(),
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&self.y, 0, &copy, 0, copy.size());
        self.queue.submit([encoder.finish()]);
        copy.map_async(wgpu::MapMode::Read, .., |_| ());
        self.device.poll(wgpu::PollType::wait_indefinitely())?;
        let bytes = copy.get_mapped_range(..)?.to_vec();
        let (values, _) = bytes.as_chunks();
        Ok(values.iter().map(|of| f32::from_le_bytes(*of)).collect())
    }
}

/// That both compute the same: to f32's rounding of sums of `size` products.
fn agree(ours: &Ours, theirs: &Theirs, size: usize) -> Result<()> {
    ours.run(1)?;
    let ours = ours.read()?;
    let theirs = theirs.x.clone().matmul(theirs.w.clone()).into_data().try_to_vec::<f32>();
    let theirs = theirs.map_err(|error| format!("burn's result: {error:?}"))?;
    let (mut apart, mut length) = (0.0, 0.0);
    for (ours, theirs) in ours.iter().zip(&theirs) {
        apart += f64::from(ours - theirs).powi(2);
        length += f64::from(*theirs).powi(2);
    }
    let distance = (apart / length).sqrt();
    if distance < 1e-5 {
        return Ok(());
    }
    Err(format!("{size}³: ours and burn's are {distance:.1e} apart").into())
}

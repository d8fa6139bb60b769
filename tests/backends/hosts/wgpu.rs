//! A host with a device, a memory and an encoder of its own, as tensor libraries have them:
//! all activations and gradients are cut out of one `wgpu::Buffer`, at whatever byte came
//! next, and forward and backward go into one compute pass of the host's, sent once.
//!
//! Results are checked against the f64 reference.

use std::ops::Range;

use fused_lora::reference::{Dense, Sums, expected, shrunk_value};
use fused_lora::wgpu::{Slice, Wgpu, Workspace, wgpu};
use fused_lora::{
    Adapter, BackwardAdapter, BackwardInput, DType, Forward, GradientA, GradientB, Matrix, Operand,
    Operation, Plan, Problem,
};
use half::bf16;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use test_support::odd;

const TOKENS: usize = 37;
const IN: usize = 300;
const OUT: usize = 260;
const RANK: usize = 12;

type Failure = Box<dyn std::error::Error>;

/// The host's memory: one buffer, and what has been cut out of it.
#[derive(Default)]
struct Arena {
    bytes: Vec<u8>,
}

/// A tensor in the arena.
#[derive(Clone)]
struct Cut {
    dtype: DType,
    rows: usize,
    cols: usize,
    bytes: Range<u64>,
}

impl Arena {
    /// Behind what there is, one element off any alignment: halves begin in mid-word.
    fn cut(&mut self, dtype: DType, rows: usize, cols: usize, value: impl FnMut() -> f32) -> Cut {
        let start = self.bytes.len().next_multiple_of(8) + dtype.size();
        self.bytes.resize(start, 0);
        let values = std::iter::repeat_with(value).take(rows * cols);
        match dtype {
            DType::F32 => values.for_each(|of| self.bytes.extend(of.to_le_bytes())),
            _ => values.for_each(|of| self.bytes.extend(bf16::from_f32(of).to_le_bytes())),
        }
        Cut { dtype, rows, cols, bytes: start as u64..self.bytes.len() as u64 }
    }
}

impl Cut {
    /// As an operand.
    fn of<'a>(&self, buffer: &'a wgpu::Buffer) -> Matrix<Slice<'a>> {
        let slice = Slice::part(buffer, self.dtype, self.bytes.clone());
        Matrix::new(slice, self.rows, self.cols)
    }

    /// What it holds in a copy of the arena.
    fn read(&self, arena: &[u8]) -> Dense {
        let bytes = &arena[self.bytes.start as usize..self.bytes.end as usize];
        let values = match self.dtype {
            DType::F32 => bytes
                .chunks_exact(4)
                .map(|of| f32::from_le_bytes(of.try_into().unwrap()).into())
                .collect(),
            _ => bytes
                .chunks_exact(2)
                .map(|of| bf16::from_le_bytes(of.try_into().unwrap()).to_f64())
                .collect(),
        };
        Dense::new(self.rows, self.cols, values)
    }
}

fn step() -> Result<(), Failure> {
    // ── the host: an adapter, a device, memory ────────────────────────────────
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let mut adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    // Hardware first.
    adapters.sort_by_key(|of| of.get_info().device_type == wgpu::DeviceType::Cpu);
    let adapter = adapters.first().ok_or("wgpu finds no adapter on this machine")?;
    println!("adapter   {}", adapter.get_info().name);
    let (device, queue) = pollster::block_on(adapter.request_device(&Default::default()))?;

    let mut rng = StdRng::seed_from_u64(1);
    let mut random = |size: f32| rng.random_range(-size..size);
    let mut arena = Arena::default();
    let (act, f32) = (DType::Bf16, DType::F32);
    let x = arena.cut(act, TOKENS, IN, || random(1.0));
    let w = arena.cut(act, OUT, IN, || random(0.1));
    let a = arena.cut(f32, RANK, IN, || random(0.1));
    let b = arena.cut(f32, OUT, RANK, || random(0.1));
    let dy = arena.cut(act, TOKENS, OUT, || random(1.0));
    let forward = Problem::forward(TOKENS, IN, OUT, RANK)
        .with_activation(act)
        .with_adapter(f32)
        .with_gradient(f32)
        .with_scale(2.0);
    let kept = forward.shrunk_stride();
    let mut output = |dtype, rows, cols| arena.cut(dtype, rows, cols, || f32::NAN);
    let (y, shrunk) = (output(act, TOKENS, OUT), output(act, TOKENS, kept));
    let (dx, dshrunk) = (output(act, TOKENS, IN), output(act, TOKENS, kept));
    let (da, db) = (output(f32, RANK, IN), output(f32, OUT, RANK));
    arena.bytes.resize(arena.bytes.len().next_multiple_of(256), 0);
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
    let buffer = |size, usage| {
        let label = None;
        let mapped_at_creation = true;
        device.create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation })
    };
    let memory = buffer(arena.bytes.len() as u64, usage);
    memory.get_mapped_range_mut(..)?.copy_from_slice(&arena.bytes);
    memory.unmap();

    // ── plan once: inputs and outputs share a buffer, so say it ───────────────
    let executor = Wgpu::new(&device)?.with_shared_buffers(true);
    // Operands begin at any element.
    let anywhere = |operation| odd(forward.with_operation(operation));
    let plan = |operation| Plan::new(&anywhere(operation), &executor.capabilities());
    let plans = [Operation::Forward, Operation::BackwardInput, Operation::BackwardAdapter];
    let [y_plan, dx_plan, gradient_plan] = plans.map(plan);
    let (y_plan, dx_plan, gradient_plan) = (y_plan?, dx_plan?, gradient_plan?);
    let mut scratch_len = 256;
    for plan in [&y_plan, &dx_plan, &gradient_plan] {
        println!(
            "plan      {}/{}: {} launches",
            plan.strategy(),
            plan.preset(),
            plan.launches().len()
        );
        executor.warm_up(plan)?;
        scratch_len = scratch_len.max(plan.workspace_len().next_multiple_of(4) as u64);
    }
    let scratch = buffer(scratch_len, wgpu::BufferUsages::STORAGE);
    scratch.unmap();
    let workspace = Workspace::new(&scratch);

    // ── record: the host's encoder, one pass for the whole step ───────────────
    let of = |cut: &Cut| cut.of(&memory);
    let adapter = || Some(Adapter::new(of(&a), of(&b)));
    let mut encoder = device.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    let shrunk_out = Some(of(&shrunk));
    let operands =
        Forward::new(of(&x), of(&w), of(&y)).with_adapter(adapter()).with_shrunk(shrunk_out);
    executor.encode(&mut pass, &y_plan, operands, workspace)?;
    let dshrunk_out = Some(of(&dshrunk));
    let operands = BackwardInput::new(of(&dy), of(&w), of(&dx))
        .with_adapter(adapter())
        .with_dshrunk(dshrunk_out);
    executor.encode(&mut pass, &dx_plan, operands, workspace)?;
    let operands = BackwardAdapter::new(
        Some(GradientA::new(of(&x), of(&dshrunk), of(&da))),
        Some(GradientB::new(of(&dy), of(&shrunk), of(&db))),
    );
    executor.encode(&mut pass, &gradient_plan, operands, workspace)?;
    drop(pass);

    // ── send, once, and read the memory back ──────────────────────────────────
    let copy = buffer(memory.size(), wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ);
    copy.unmap();
    encoder.copy_buffer_to_buffer(&memory, 0, &copy, 0, memory.size());
    queue.submit([encoder.finish()]);
    copy.map_async(wgpu::MapMode::Read, .., |_| ());
    device.poll(wgpu::PollType::wait_indefinitely())?;
    let after = copy.get_mapped_range(..)?.to_vec();

    // ── check ─────────────────────────────────────────────────────────────────
    // The gradients are those of the stored shrunk and dshrunk.
    let input = |operand| match operand {
        Operand::X => x.read(&after),
        Operand::W => w.read(&after),
        Operand::A => a.read(&after),
        Operand::B => b.read(&after),
        Operand::Dy => dy.read(&after),
        Operand::Shrunk => shrunk.read(&after),
        Operand::Dshrunk => dshrunk.read(&after),
        other => unreachable!("{other} is no input here"),
    };
    let outputs = [
        (Operand::Y, &y),
        (Operand::Shrunk, &shrunk),
        (Operand::Dx, &dx),
        (Operand::Dshrunk, &dshrunk),
        (Operand::Da, &da),
        (Operand::Db, &db),
    ];
    let mut exceeded = false;
    let results = [&y_plan, &dx_plan, &gradient_plan]
        .into_iter()
        .flat_map(|plan| expected(plan.problem(), Sums::F32, input));
    for (operand, want) in results {
        let found = outputs.iter().find(|(of, _)| *of == operand);
        let (_, cut) = found.ok_or("an output that nobody asked for")?;
        let got = match operand {
            Operand::Shrunk | Operand::Dshrunk => shrunk_value(&forward, &cut.read(&after)),
            _ => cut.read(&after),
        };
        let pairs = got.values().iter().zip(want.value.values()).zip(want.tolerance.values());
        let used = pairs.fold(0.0, |most: f64, ((got, want), tolerance)| {
            let used = (got - want).abs() / tolerance;
            // A NaN counts as all of it and more.
            if used.is_nan() { f64::INFINITY } else { most.max(used) }
        });
        exceeded |= used > 1.0;
        println!("{operand:<9} at byte {:<7} uses {used:.1e} of its tolerance", cut.bytes.start);
    }
    if exceeded { Err("a result lies outside its tolerance".into()) } else { Ok(()) }
}

#[test]
fn a_training_step_of_a_host() {
    if !test_support::gpu::all().is_empty() {
        step().unwrap_or_else(|error| panic!("{error}"));
    }
}

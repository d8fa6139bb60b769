//! A host with a context, a stream and a memory of its own, as tensor libraries have them: its
//! tensors are parts of two allocations, one of inputs and one of results. A step of training
//! (forward, backward_input, backward_adapter) runs in the safe tier on cudarc's slices, then in
//! the raw tier on addresses, captured in a CUDA graph and replayed.
//!
//! Results are checked against the f64 reference, and the replays' bits against the first run's.

use std::ops::Range;

use fused_lora::cuda::cudarc::driver::sys::{
    CUdeviceptr, CUgraphInstantiate_flags, CUstreamCaptureMode,
};
use fused_lora::cuda::cudarc::driver::{CudaContext, CudaSlice, CudaView, CudaViewMut, DevicePtr};
use fused_lora::cuda::{Cuda, Raw, Slice, SliceMut, Workspace, probe};
use fused_lora::reference::{Dense, Sums, expected, shrunk_value};
use fused_lora::{
    Adapter, BackwardAdapter, BackwardInput, DType, Forward, GradientA, GradientB, Matrix, Operand,
    Operation, Plan, Problem,
};
use half::bf16;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use test_support::machine::{Machine, on};
use test_support::test_name;

const TOKENS: usize = 150;
const IN: usize = 96;
const OUT: usize = 264;
const RANK: usize = 16;

/// Replays of the graph.
const REPLAYS: usize = 2;

type Failure = Box<dyn std::error::Error>;

/// What goes into an allocation of the host's: bf16 as its bits.
#[derive(Default)]
struct Arena {
    bits: Vec<u16>,
}

/// A tensor in an arena.
#[derive(Clone)]
struct Cut {
    rows: usize,
    cols: usize,
    elements: Range<usize>,
}

impl Arena {
    /// Behind what there is, at a multiple of 16 bytes: what plans expect of layouts that promise
    /// nothing. `Operands::problem_with_layouts` tells a problem of tensors that lie elsewhere.
    fn cut(&mut self, rows: usize, cols: usize, value: impl FnMut() -> f32) -> Cut {
        let start = self.bits.len().next_multiple_of(8) + 8;
        self.bits.resize(start, 0);
        let values = std::iter::repeat_with(value).take(rows * cols);
        self.bits.extend(values.map(|of| bf16::from_f32(of).to_bits()));
        Cut { rows, cols, elements: start..start + rows * cols }
    }
}

impl Cut {
    /// Read in the safe tier.
    fn of<'a>(&self, arena: CudaView<'a, u16>) -> Matrix<Slice<'a>> {
        let slice = Slice::bf16_bits(arena.slice(self.elements.clone()));
        Matrix::new(slice, self.rows, self.cols)
    }

    /// Written in the safe tier: of what the host split off its arena at element `from`.
    fn of_mut<'a>(&self, part: &'a mut CudaViewMut<'_, u16>, from: usize) -> Matrix<SliceMut<'a>> {
        let Range { start, end } = self.elements;
        let slice = SliceMut::bf16_bits(part.slice_mut(start - from..end - from));
        Matrix::new(slice, self.rows, self.cols)
    }

    /// Either in the raw tier.
    fn at(&self, arena: CUdeviceptr) -> Matrix<Raw> {
        let address = arena + (self.elements.start * size_of::<u16>()) as u64;
        Matrix::new(Raw::new(address, self.elements.len(), DType::Bf16), self.rows, self.cols)
    }

    /// What it holds in a copy of its arena.
    fn read(&self, bits: &[u16]) -> Dense {
        let bits = &bits[self.elements.clone()];
        let values = bits.iter().map(|&of| bf16::from_bits(of).to_f64()).collect();
        Dense::new(self.rows, self.cols, values)
    }
}

fn step() -> Result<(), Failure> {
    // ── the host: a context, a stream, memory ─────────────────────────────────
    // cudarc panics where there is no driver; this says so.
    probe()?;
    let context = CudaContext::new(0)?;
    println!("card      {}", context.name()?);
    // SAFETY: this host uses one stream, whose order is all that it needs. The safe tier could
    // not be captured with cudarc's events on; the raw tier could.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream()?;

    let mut rng = StdRng::seed_from_u64(1);
    let mut random = |size: f32| rng.random_range(-size..size);
    let mut inputs = Arena::default();
    let x = inputs.cut(TOKENS, IN, || random(1.0));
    let w = inputs.cut(OUT, IN, || random(0.1));
    let a = inputs.cut(RANK, IN, || random(0.1));
    let b = inputs.cut(OUT, RANK, || random(0.1));
    let dy = inputs.cut(TOKENS, OUT, || random(1.0));
    let problem = Problem::forward(TOKENS, IN, OUT, RANK).with_dtype(DType::Bf16).with_scale(2.0);
    let kept = problem.shrunk_stride();
    let mut results = Arena::default();
    let mut result = |rows, cols| results.cut(rows, cols, || f32::NAN);
    let (y, shrunk) = (result(TOKENS, OUT), result(TOKENS, kept));
    let (dx, dshrunk) = (result(TOKENS, IN), result(TOKENS, kept));
    let (da, db) = (result(RANK, IN), result(OUT, RANK));
    // Rust lends parts of one slice either as `&` or as `&mut`: hence two.
    let read: CudaSlice<u16> = stream.clone_htod(&inputs.bits)?;
    let mut written: CudaSlice<u16> = stream.clone_htod(&results.bits)?;

    // ── plan once, compile once ───────────────────────────────────────────────
    let executor = Cuda::new(&context)?;
    let plan = |operation| Plan::new(&problem.with_operation(operation), &executor.capabilities());
    let y_plan = plan(Operation::Forward)?;
    let dx_plan = plan(Operation::BackwardInput)?;
    let gradient_plan = plan(Operation::BackwardAdapter)?;
    let plans = [&y_plan, &dx_plan, &gradient_plan];
    let mut scratch = 0;
    for plan in plans {
        let launches = plan.launches().len();
        println!("plan      {}/{}: {launches} launches", plan.strategy(), plan.preset());
        executor.warm_up(plan)?;
        scratch = scratch.max(plan.workspace_len());
    }
    // All runs below are on one stream, so one workspace serves them.
    let mut workspace = Workspace::new(&stream, scratch)?;

    // ── the safe tier: slices, on the host's stream ───────────────────────────
    let from = |cut: &Cut| cut.of(read.as_view());
    let adapter = || Some(Adapter::new(from(&a), from(&b)));
    let middle = shrunk.elements.start;
    let (mut front, mut back) = written.split_at_mut(middle);
    let operands = Forward::new(from(&x), from(&w), y.of_mut(&mut front, 0))
        .with_adapter(adapter())
        .shrunk(shrunk.of_mut(&mut back, middle));
    executor.run(&stream, &y_plan, operands, &mut workspace)?;
    let middle = dshrunk.elements.start;
    let (mut front, mut back) = written.split_at_mut(middle);
    let operands = BackwardInput::new(from(&dy), from(&w), dx.of_mut(&mut front, 0))
        .with_adapter(adapter())
        .dshrunk(dshrunk.of_mut(&mut back, middle));
    executor.run(&stream, &dx_plan, operands, &mut workspace)?;
    // The kept products lie before the gradients: read there, written here.
    let (kept_at, middle) = (da.elements.start, db.elements.start);
    let (kept, mut gradients) = written.split_at_mut(kept_at);
    let (mut front, mut back) = gradients.split_at_mut(middle - kept_at);
    let operands = BackwardAdapter::new(
        Some(GradientA::new(from(&x), dshrunk.of(kept.as_view()), da.of_mut(&mut front, kept_at))),
        Some(GradientB::new(from(&dy), shrunk.of(kept.as_view()), db.of_mut(&mut back, middle))),
    );
    executor.run(&stream, &gradient_plan, operands, &mut workspace)?;
    let first = stream.clone_dtoh(&written)?;
    stream.synchronize()?;

    // ── the raw tier: addresses, captured in a graph ──────────────────────────
    let ((read_at, _), (written_at, _)) = (read.device_ptr(&stream), written.device_ptr(&stream));
    let (from, to) = (|cut: &Cut| cut.at(read_at), |cut: &Cut| cut.at(written_at));
    let adapter = Some(Adapter::new(from(&a), from(&b)));
    let forward =
        Forward::new(from(&x), from(&w), to(&y)).with_adapter(adapter).shrunk(to(&shrunk));
    let backward = BackwardInput::new(from(&dy), from(&w), to(&dx))
        .with_adapter(adapter)
        .dshrunk(to(&dshrunk));
    let gradients = BackwardAdapter::new(
        Some(GradientA::new(from(&x), to(&dshrunk), to(&da))),
        Some(GradientB::new(from(&dy), to(&shrunk), to(&db))),
    );
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
    let (raw, scratch) = (stream.cu_stream(), workspace.raw());
    // SAFETY: both slices, the workspace and the executor outlive the graph, which is replayed on
    // this stream alone; nothing else touches them meanwhile.
    unsafe {
        executor.run_raw(raw, &y_plan, forward, scratch)?;
        executor.run_raw(raw, &dx_plan, backward, scratch)?;
        executor.run_raw(raw, &gradient_plan, gradients, scratch)?;
    }
    let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    let graph = stream.end_capture(flags)?.ok_or("the capture held nothing")?;
    let mut same = true;
    for replay in 1..=REPLAYS {
        stream.memcpy_htod(&results.bits, &mut written)?;
        graph.launch()?;
        let again = stream.clone_dtoh(&written)?;
        stream.synchronize()?;
        let differ = again.iter().zip(&first).filter(|(again, first)| again != first).count();
        println!("replay {replay}  {differ} of {} elements differ from the first run", first.len());
        same &= differ == 0;
    }

    // ── check ─────────────────────────────────────────────────────────────────
    // The gradients are those of the stored shrunk and dshrunk.
    let outputs = [
        (Operand::Y, &y),
        (Operand::Shrunk, &shrunk),
        (Operand::Dx, &dx),
        (Operand::Dshrunk, &dshrunk),
        (Operand::Da, &da),
        (Operand::Db, &db),
    ];
    let input = |operand| match operand {
        Operand::X => x.read(&inputs.bits),
        Operand::W => w.read(&inputs.bits),
        Operand::A => a.read(&inputs.bits),
        Operand::B => b.read(&inputs.bits),
        Operand::Dy => dy.read(&inputs.bits),
        Operand::Shrunk => shrunk.read(&first),
        Operand::Dshrunk => dshrunk.read(&first),
        other => unreachable!("{other} is no input here"),
    };
    let mut exceeded = false;
    let wanted = plans.into_iter().flat_map(|of| expected(of.problem(), Sums::TensorCore, input));
    for (operand, want) in wanted {
        let found = outputs.iter().find(|(of, _)| *of == operand);
        let (_, cut) = found.ok_or("a result that nobody asked for")?;
        let got = match operand {
            Operand::Shrunk | Operand::Dshrunk => shrunk_value(&problem, &cut.read(&first)),
            _ => cut.read(&first),
        };
        let pairs = got.values().iter().zip(want.value.values()).zip(want.tolerance.values());
        let used = pairs.fold(0.0, |most: f64, ((got, want), tolerance)| {
            let used = (got - want).abs() / tolerance;
            // A NaN counts as all of it and more.
            if used.is_nan() { f64::INFINITY } else { most.max(used) }
        });
        exceeded |= used > 1.0;
        println!(
            "{operand:<9} at element {:<6} uses {used:.1e} of its tolerance",
            cut.elements.start
        );
    }
    match (exceeded, same) {
        (true, _) => Err("a result lies outside its tolerance".into()),
        (_, false) => Err("a replay gave other bits".into()),
        _ => Ok(()),
    }
}

#[test]
fn a_training_step_of_a_host() {
    on(Machine::Any, test_name!(), "", || step().unwrap_or_else(|error| panic!("{error}")));
}

//! Decode as an inference engine does it on CUDA: one arena of device memory, the engine's own stream, the
//! layer captured in a graph once, and another adapter for each request by a copy into the arena.
//!
//!     cargo run --release --example 07_decode_in_a_graph

use fused_lora::cuda::cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use fused_lora::cuda::{Arena, Cuda, Workspace, cudarc::driver::CudaContext, probe};
use fused_lora::{DType, Forward, Matrix, Operands};

const K: usize = 64;
const N: usize = 48;
const RANK: usize = 4;
/// Where each operand begins in the arena, in elements; A and B are the slot that adapters are copied to.
const X: usize = 0;
const W: usize = X + K;
const A: usize = W + N * K;
const B: usize = A + RANK * K;
const Y: usize = B + N * RANK;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    probe()?;
    let context = CudaContext::new(0)?;
    // SAFETY: everything below goes to one stream, so there is nothing that events would order. A graph
    // could not hold them.
    unsafe { context.disable_event_tracking() };
    let (stream, cuda) = (context.new_stream()?, Cuda::new(&context)?);

    let mut memory = stream.alloc_zeros::<f32>(Y + N)?;
    stream.memcpy_htod(&[0.25f32; N * K], &mut memory.slice_mut(W..A))?;

    // Planned, compiled and captured once. The scale of a launch is in the graph as well: it is 1 here, and
    // each adapter's own is multiplied into its b.
    let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    let graph = {
        let arena = Arena::from(&mut memory);
        let read = |at: usize, rows, cols| {
            Matrix::new(arena.read(4 * at..4 * (at + rows * cols), DType::F32), rows, cols)
        };
        let out = Matrix::new(arena.write(4 * Y..4 * (Y + N), DType::F32), 1, N);
        let operands: Operands<_, _> = Forward::new(read(X, 1, K), read(W, N, K), out)
            .adapter(read(A, RANK, K), read(B, N, RANK))
            .into();
        let plan = cuda.plan(&operands.problem()?)?;
        let mut workspace = Workspace::for_plan(&stream, &plan)?;
        cuda.warm_up(&plan)?;
        stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
        cuda.run(&stream, &plan, operands, &mut workspace)?;
        (stream.end_capture(flags)?.ok_or("an empty graph")?, workspace)
    };

    let adapters = [(1.0f32, 2.0f32), (0.5, 8.0), (0.0, 1.0)]; // the value of a, and of s*b
    for token in 1..=6 {
        let (of_a, of_b) = adapters[token % adapters.len()];
        stream.memcpy_htod(&[token as f32; K], &mut memory.slice_mut(X..W))?;
        stream.memcpy_htod(&[of_a; RANK * K], &mut memory.slice_mut(A..B))?;
        stream.memcpy_htod(&[of_b; N * RANK], &mut memory.slice_mut(B..Y))?;
        graph.0.launch()?;
        let got = stream.clone_dtoh(&memory.slice(Y..Y + N))?;
        let shrunk = (token * K) as f32 * of_a;
        assert_eq!(got, [(token * K) as f32 * 0.25 + RANK as f32 * shrunk * of_b; N]);
    }
    println!(
        "6 replays of one graph with {} adapters, right on {}",
        adapters.len(),
        context.name()?
    );
    Ok(())
}

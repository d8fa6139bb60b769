//! Stage 4: what the flags of the workspace's header rest on. Pairs of CTAs on all multiprocessors pass data by a
//! flag, in every form that a kernel may use; then a graph of many launches of a leader, and what it
//! leaves in the header. Called by `main`.

use fused_lora::cuda::Workspace;
use fused_lora::cuda::cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use fused_lora::cuda::cudarc::driver::{LaunchConfig, PushKernelArg, result};
use fused_lora::{DType, Problem};
use test_support::cuda::{DeviceBuffers, Gpu};
use test_support::probes::litmus;
use test_support::{Case, Fill, Reference, assert_exact};

use crate::device::Card;
use crate::{Options, Result};

pub(crate) fn run(options: &Options) -> Result {
    let card = Card::open()?;
    // A pair on every two multiprocessors: all of them are resident at once.
    let pairs = (card.multiprocessors()? / 2).max(1);
    let rounds = options.scale.of(1_000_000, 400) / pairs;
    let mut refused = Vec::new();
    for (name, text) in litmus() {
        let function = card.function(&text, "litmus")?;
        let mail = card.stream.alloc_zeros::<u8>(2048 * pairs as usize)?;
        let flags = card.stream.alloc_zeros::<u8>(256 * pairs as usize)?;
        let mut wrong = card.stream.clone_htod(&vec![u32::MAX; pairs as usize])?;
        let (grid_dim, block_dim) = ((2 * pairs, 1, 1), (128, 1, 1));
        let config = LaunchConfig { grid_dim, block_dim, shared_mem_bytes: 0 };
        let mut launch = card.stream.launch_builder(&function);
        launch.arg(&mail).arg(&flags).arg(&mut wrong).arg(&rounds);
        // SAFETY: the entry takes three addresses and a number; memory is there for so many pairs.
        unsafe { launch.launch(config) }?;
        let wrong = card.stream.clone_dtoh(&wrong)?;
        card.stream.synchronize()?;
        let sum: u64 = wrong.iter().map(|&of| u64::from(of)).sum();
        println!("* {pairs} pairs, {rounds} rounds each, {name}: {sum} wrong words");
        if sum > 0 {
            refused.push(name);
        }
    }
    if !refused.is_empty() {
        return Err(format!("data came behind its flag: {}", refused.join(", ")).into());
    }
    replayed(options)
}

/// A leader of 2 × 2 tiles over and over, in a graph.
fn replayed(options: &Options) -> Result {
    let (launches, replays) = options.scale.of((1_000, 100), (8, 3));
    let gpu = Gpu::new();
    let problem = Problem::forward(128, 96, 128, 16).with_dtype(DType::Bf16);
    let plan = gpu.plan(&problem, "leader/small");
    let case = Case::new(problem, Fill::Integers, 4);
    let before = case.buffers();
    let on_device = DeviceBuffers::upload(&gpu.stream, &before);
    let workspace = Workspace::for_plan(&gpu.stream, &plan)?;
    gpu.executor.warm_up(&plan)?;
    // Asked for before the capture, which what cudarc tracks would spoil.
    let operands: Vec<_> = (0..launches).map(|_| on_device.raw(&before)).collect();
    gpu.stream.synchronize()?;
    gpu.stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL)?;
    for operands in operands {
        // SAFETY: everything outlives the graph, which is launched on one stream.
        unsafe { gpu.executor.run_raw(gpu.stream.cu_stream(), &plan, operands, workspace.raw()) }?;
    }
    let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    let graph = gpu.stream.end_capture(flags)?.ok_or("the capture made no graph")?;
    for _ in 0..replays {
        graph.launch()?;
    }
    gpu.stream.synchronize()?;
    let mut header = [[0u32]; 3];
    for (at, word) in header.iter_mut().enumerate() {
        let address = workspace.raw().address + 128 * at as u64;
        // SAFETY: the header is three lines long at least, and nothing runs.
        unsafe { result::memcpy_dtoh_sync(word, address) }?;
    }
    let [[epoch], [ticket], [done]] = header;
    let all = launches * replays;
    println!(
        "* {all} launches of a leader in a graph: epoch {epoch}, ticket {ticket}, done {done}"
    );
    if (epoch, ticket, done) != (all, 0, 0) {
        return Err("the header is not ready for the next launch".into());
    }
    let mut after = before.clone();
    on_device.download(&mut after);
    after.assert_guards(&before);
    let sums = test_support::cuda::sums(&problem);
    assert_exact(&plan, &after, Reference::new(&problem, &before).of(sums), &case);
    Ok(())
}

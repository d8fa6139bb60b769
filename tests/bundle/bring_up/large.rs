//! Stage 7: a whole layer of 8192 × 4096², on which a leader, tiles that each compute shrunk, and two passes must
//! agree bit for bit, over and over, while half of the multiprocessors belong to somebody else. The
//! inputs are integers, so no reference is needed: what is exact has one result. Called by `main`.

use std::time::Instant;

use fused_lora::cuda::Workspace;
use fused_lora::cuda::cudarc::driver::sys::{CUdevice_attribute, CUfunction_attribute};
use fused_lora::cuda::cudarc::driver::{CudaFunction, CudaSlice, LaunchConfig, PushKernelArg};
use fused_lora::{DType, Operation, Problem};
use test_support::cuda::{DeviceBuffers, Gpu};
use test_support::probes::BUSY;
use test_support::{Buffers, Case, Fill};

use crate::device::Card;
use crate::{Options, Result};

const STRATEGIES: [&str; 3] = ["leader", "recompute", "two_pass"];

pub(crate) fn run(options: &Options) -> Result {
    let [tokens, features] = options.scale.of([8192, 4096], [400, 136]);
    let turns = options.scale.of(1 << 20, 200);
    let mut failed = Vec::new();
    for operation in [Operation::Forward, Operation::BackwardInput] {
        let problem = Problem::new(operation, tokens, features, features, 16)
            .with_dtype(DType::Bf16)
            .with_scale(0.5);
        for (preset, runs) in [
            ("large", options.scale.of(20, 2)),
            ("medium", options.scale.of(4, 2)),
            ("small", options.scale.of(4, 2)),
        ] {
            let (title, start) = (format!("{operation} {preset}"), Instant::now());
            let different = compared(&problem, preset, runs, turns)?;
            let seconds = start.elapsed().as_secs_f64();
            println!(
                "* {title}: {} runs, {different} with other bits; {seconds:.1} s",
                STRATEGIES.len() * runs
            );
            failed.extend((different > 0).then_some(title));
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(format!("strategies disagree: {}", failed.join(", ")).into()),
    }
}

/// Runs whose outputs are not those of the first run of the first strategy.
fn compared(problem: &Problem, preset: &str, runs: usize, turns: u32) -> Result<usize> {
    let gpu = Gpu::new();
    let card = Card {
        context: gpu.executor.context().clone(),
        stream: gpu.stream.context().new_stream()?,
    };
    let busy = Busy::new(&card, turns)?;
    let before = Case::new(*problem, Fill::Integers, 7).aligned_buffers();
    let mut on_device = DeviceBuffers::upload(&gpu.stream, &before);
    let mut first: Option<Buffers> = None;
    let mut different = 0;
    for strategy in STRATEGIES {
        let plan = gpu.plan(problem, &format!("{strategy}/{preset}"));
        gpu.executor.warm_up(&plan)?;
        let mut workspace = Workspace::for_plan(&gpu.stream, &plan)?;
        for run in 0..runs {
            on_device.restore(&before);
            gpu.stream.synchronize()?;
            // Every other run has the card to itself.
            if run % 2 == 0 {
                busy.start()?;
            }
            gpu.executor.run(&gpu.stream, &plan, on_device.operands(&before), &mut workspace)?;
            let mut after = before.clone();
            on_device.download(&mut after);
            card.stream.synchronize()?;
            let first = first.get_or_insert_with(|| after.clone());
            let same = first
                .outputs()
                .zip(after.outputs())
                .all(|(one, two)| one.data.bytes() == two.data.bytes());
            if !same {
                println!("run {run} of {strategy}/{preset} of {} differs", problem.operation());
            }
            different += usize::from(!same);
        }
    }
    // An output that no run has written would be equal, too.
    let first = first.ok_or("nothing ran")?;
    let written = first.outputs().all(|of| {
        let last = (of.spec.rows - 1, of.spec.cols - 1);
        !of.get(0, 0).is_nan() && !of.get(last.0, last.1).is_nan()
    });
    match written {
        true => Ok(different),
        false => Err("an output was not written".into()),
    }
}

/// A kernel on half of the multiprocessors, on a stream of its own.
struct Busy<'a> {
    card: &'a Card,
    function: CudaFunction,
    words: CudaSlice<u32>,
    config: LaunchConfig,
    turns: u32,
}

impl<'a> Busy<'a> {
    fn new(card: &'a Card, turns: u32) -> Result<Busy<'a>> {
        let function = card.function(BUSY, "busy")?;
        let bytes = card
            .attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let most = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        function.set_attribute(most, i32::try_from(bytes)?)?;
        let ctas = (card.multiprocessors()? / 2).max(1);
        let words = card.stream.alloc_zeros::<u32>(32 * ctas as usize)?;
        let config =
            LaunchConfig { grid_dim: (ctas, 1, 1), block_dim: (32, 1, 1), shared_mem_bytes: bytes };
        Ok(Busy { card, function, words, config, turns })
    }

    fn start(&self) -> Result {
        let mut launch = self.card.stream.launch_builder(&self.function);
        launch.arg(&self.words).arg(&self.turns);
        // SAFETY: the entry takes an address with a word for each thread, and a number; what it leaves
        // there nobody reads.
        unsafe { launch.launch(self.config) }?;
        Ok(())
    }
}

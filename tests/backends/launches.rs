//! A plan's launches without the executor: wgpu itself, told what `Launch` says and no more. For
//! PTX `ptx_linear` and its like do the same on the simulator. On every adapter of the machine.

use fused_lora::wgpu::wgpu;
use fused_lora::{
    BoundBinding, Capabilities, Choice, DType, Launch, Operand, Operation, Plan, Problem, Scaled,
    WgpuCapabilities,
};
use test_support::gpu::{Gpu, all};
use test_support::{Buffers, Case, Fill, Reference, Usage, feasible, odd};

/// Bytes that a binding has at least.
const LEAST: u64 = 16;

/// What a host keeps on its device, each operand in a buffer of its own.
struct Host<'a> {
    gpu: &'a Gpu,
    plan: &'a Plan,
    planned: WgpuCapabilities,
    data: &'a Buffers,
    operands: Vec<wgpu::Buffer>,
    workspace: wgpu::Buffer,
}

impl Host<'_> {
    /// Runs `plan` on `data`; what the operands hold then.
    fn run(gpu: &Gpu, plan: &Plan, data: &Buffers) -> Buffers {
        let Capabilities::Wgpu(planned) = *plan.capabilities() else { panic!("a plan for wgpu") };
        assert_eq!(data.clone().operands().check(plan.problem()), Ok(()));
        assert_eq!(plan.workspace_zeroed(), 0);
        let operands = data.stored.iter().map(|of| gpu.storage(of.data.bytes())).collect();
        let workspace = gpu.storage(&vec![0xff; plan.workspace_len().max(LEAST as usize)]);
        let host = Host { gpu, plan, planned, data, operands, workspace };
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        plan.launches().iter().for_each(|launch| host.launch(launch, &mut pass));
        drop(pass);
        gpu.queue().submit([encoder.finish()]);
        let mut after = data.clone();
        let all: Vec<_> = host.operands.iter().collect();
        for (stored, bytes) in after.stored.iter_mut().zip(gpu.read(&all)) {
            let to = stored.data.bytes_mut();
            to.copy_from_slice(&bytes[..to.len()]);
        }
        after
    }

    fn launch(&self, launch: &Launch, pass: &mut wgpu::ComputePass<'_>) {
        let (mut params, mut bindings) = (Vec::new(), Vec::new());
        let stored = |operand| {
            let at = self.data.stored.iter().position(|of| of.operand == operand).unwrap();
            (&self.data.stored[at], &self.operands[at])
        };
        let begin = |operand: Option<Operand>| match operand.map(stored) {
            Some((of, _)) => (of.offset * of.spec.dtype.size()) as u64,
            None => 0,
        };
        Scaled::from(self.plan).bind(launch, begin, &mut params, &mut bindings);
        let bindings =
            bindings.iter().map(|BoundBinding { operand, bytes, read_write, .. }| {
                let buffer = operand.map_or(&self.workspace, |of| stored(of).1);
                (buffer, bytes.clone(), *read_write)
            });
        let bindings: Vec<_> = bindings.collect();
        self.gpu.dispatch(pass, launch, &bindings, &params, self.planned.storage_params);
    }
}

/// The problem by every strategy that serves it, the first preset of each.
fn check(gpu: &Gpu, problem: Problem, capabilities: &Capabilities) {
    let case = Case::new(problem, Fill::Uniform, 3);
    let before = case.promised_buffers();
    let mut reference = Reference::new(&problem, &before);
    let mut usage = Usage::default();
    let mut choices = feasible(&problem, capabilities, &Choice::default());
    choices.dedup_by_key(|of| of.strategy);
    assert!(!choices.is_empty());
    for choice in choices {
        let plan = Plan::choose(&problem, capabilities, &choice).unwrap();
        assert!(!plan.launches().is_empty());
        let after = Host::run(gpu, &plan, &before);
        after.assert_guards(&before);
        usage.check(&plan, &after, reference.of(fused_lora::reference::Sums::F32), &case);
    }
}

fn granted(gpu: &Gpu, change: impl Fn(&mut WgpuCapabilities)) -> Capabilities {
    let Capabilities::Wgpu(mut own) = gpu.wgpu().capabilities() else { panic!() };
    change(&mut own);
    Capabilities::Wgpu(own)
}

#[test]
fn what_a_launch_says_is_enough_to_run_it() {
    for gpu in all() {
        let own = granted(&gpu, |_| ());
        for &operation in Operation::ALL {
            // Odd rows, so that 16-bit operands begin in the middle of a word.
            let problem = Problem::new(operation, 5, 37, 21, 3).with_dtype(DType::Bf16);
            let problem = problem.with_bias(true).with_scale(0.5);
            check(&gpu, problem, &own);
            check(&gpu, odd(problem), &own);
        }
        let forward = Problem::forward(9, 64, 48, 4).with_scale(2.0);
        check(&gpu, forward, &granted(&gpu, |of| of.shared_buffers = true));
        check(&gpu, forward, &granted(&gpu, |of| of.storage_params = true));
        // w in three windows, bands of tokens.
        let small = granted(&gpu, |of| of.binding_bytes = 8 << 10);
        let plan = Plan::new(&Problem::forward(9, 64, 90, 4), &small).unwrap();
        let windows = plan.launches().iter().flat_map(|of| &of.bindings);
        assert!(windows.filter(|of| of.rows.is_some()).count() > 2, "{}", plan.explain());
        check(&gpu, *plan.problem(), &small);
    }
}

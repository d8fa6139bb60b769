//! Scale and β belong to a run, not to a plan: plans that differ in nothing else differ in bytes of
//! their parameters alone, and one plan serves them all, on every executor.

use fused_lora::cpu::{Cpu, Workspace};
use fused_lora::{
    AdapterKind, Capabilities, Choice, CpuCapabilities, CudaCapabilities, DType, Error, Launch,
    Operation, Plan, Problem, Scaled, WgpuCapabilities,
};
use test_support::{Buffers, Case, Fill, WORKSPACE_GARBAGE, feasible};

const SCALE: f32 = -0.75;
const BETA: f32 = 1.5;

/// Every operation, with and without old values, in every storage type.
fn problems() -> Vec<Problem> {
    let mut problems = Vec::new();
    for &operation in Operation::ALL {
        for &dtype in DType::ALL {
            for (tokens, beta) in [(9, 0.0), (9, BETA), (70, 0.0), (70, BETA)] {
                let problem = Problem::new(operation, tokens, 72, 80, 5).with_dtype(dtype);
                problems.push(problem.with_bias(true).with_scale(SCALE).with_beta(beta));
            }
        }
    }
    problems
}

fn devices() -> Vec<Capabilities> {
    let mut software = WgpuCapabilities::default();
    (software.adapter, software.subgroup) = (AdapterKind::Software, 8);
    vec![
        Capabilities::Cpu(CpuCapabilities::new(2)),
        Capabilities::Cuda(CudaCapabilities::default()),
        Capabilities::Wgpu(WgpuCapabilities::default()),
        Capabilities::Wgpu(software),
    ]
}

/// What a run of `scaled` launches.
fn launches(scaled: Scaled<'_>) -> Vec<Launch> {
    let mut launches = scaled.plan().launches().to_vec();
    for launch in &mut launches {
        let mut params = launch.params.clone();
        scaled.write(launch, &mut params);
        launch.params = params;
    }
    launches
}

#[test]
fn plans_differ_by_their_parameters_alone() {
    let mut differ = 0;
    for problem in problems() {
        let identity = problem.identity();
        assert_eq!(identity.identity(), identity);
        for capabilities in devices() {
            for choice in feasible(&problem, &capabilities, &Choice::default()) {
                let own = Plan::choose(&problem, &capabilities, &choice).unwrap();
                let shared = Plan::choose(&identity, &capabilities, &choice).unwrap();
                let scaled = shared.with_scalars(problem.scale(), problem.beta()).unwrap();
                assert_eq!((scaled.scale(), scaled.beta()), (SCALE, problem.beta()));
                assert_eq!(launches(scaled), own.launches(), "{}", own.explain());
                assert_eq!(launches((&own).into()), own.launches(), "{}", own.explain());
                differ += usize::from(own.launches() != shared.launches());
                let same = |plan: &Plan| (plan.choice(), plan.workspace_len(), plan.bytes());
                assert_eq!(same(&own), same(&shared));
            }
            // And the same one is chosen.
            let chosen = |problem| Plan::new(problem, &capabilities).unwrap().choice();
            assert_eq!(chosen(&problem), chosen(&identity));
        }
    }
    assert!(differ > 100, "{differ}");
}

#[test]
fn old_values_are_part_of_the_identity() {
    let forward = Problem::forward(4, 64, 32, 4);
    assert_eq!(forward.with_beta(0.5).identity(), forward.with_beta(-3.0).identity());
    assert_ne!(forward.with_beta(0.5).identity(), forward.identity());
    assert_eq!(forward.with_beta(-0.0).identity(), forward.identity());
    let capabilities = Capabilities::cpu();
    let plan = |beta| Plan::new(&forward.with_beta(beta), &capabilities).unwrap();
    let error = |plan: &Plan, beta| plan.with_scalars(1.0, beta).unwrap_err();
    assert_eq!(error(&plan(0.0), 0.5), Error::Beta { planned: 0.0, got: 0.5 });
    assert_eq!(error(&plan(2.0), 0.0), Error::Beta { planned: 2.0, got: 0.0 });
    assert_eq!(plan(0.5).with_scalars(1.0, -2.0).unwrap().beta(), -2.0);
    for (scale, beta, what) in [(f32::NAN, 0.0, "scale"), (1.0, f32::INFINITY, "beta")] {
        let error = plan(0.0).with_scalars(scale, beta).unwrap_err();
        assert!(matches!(error, Error::Scalar { what: of, .. } if of == what), "{error}");
    }
    // Where β means nothing, any is taken.
    for operation in [Operation::Merge, Operation::BackwardShrink] {
        let problem = forward.with_operation(operation);
        assert_eq!(problem.with_beta(7.0).identity(), problem.identity());
        let plan = Plan::new(&problem, &capabilities).unwrap();
        assert!(plan.with_scalars(1.0, 7.0).is_ok());
    }
}

/// What `run` makes of the problem's plan, and of that of its identity with its numbers.
fn check(
    problem: &Problem,
    plan: &Plan,
    mut run: impl FnMut(Scaled<'_>, &mut Buffers) -> Result<(), Error>,
) {
    let before = Case::new(*problem, Fill::Uniform, 7).aligned_buffers();
    let own = Plan::choose(problem, plan.capabilities(), &plan.choice()).unwrap();
    let mut of = |scaled: Scaled<'_>| {
        let mut after = before.clone();
        run(scaled, &mut after).unwrap_or_else(|error| panic!("{error}\n{}", plan.explain()));
        after.assert_guards(&before);
        after
    };
    let wanted = of((&own).into());
    let scaled = plan.with_scalars(problem.scale(), problem.beta()).unwrap();
    of(scaled).assert_same_bits(&wanted, &plan.explain());
    // The numbers are the run's: none is left behind from the last one.
    let other = of((plan).into());
    let same = other
        .outputs()
        .zip(wanted.outputs())
        .all(|(one, two)| one.data.bytes() == two.data.bytes());
    assert!(!same, "scale and β change nothing\n{}", plan.explain());
    of(scaled).assert_same_bits(&wanted, &plan.explain());
}

#[test]
fn one_plan_serves_every_scale_on_the_cpu() {
    for problem in problems() {
        let capabilities = Capabilities::Cpu(CpuCapabilities::new(2));
        for choice in feasible(&problem, &capabilities, &Choice::default()) {
            let plan = Plan::choose(&problem.identity(), &capabilities, &choice).unwrap();
            if is_without_numbers(&plan) {
                continue;
            }
            check(&problem, &plan, |scaled, buffers| {
                let mut workspace = Workspace::for_plan(scaled.plan())?;
                workspace.fill(WORKSPACE_GARBAGE[0]);
                Cpu::new().run(scaled, buffers.operands(), &mut workspace)
            });
        }
    }
}

/// Gradients that replace: neither scale nor β is in them.
fn is_without_numbers(plan: &Plan) -> bool {
    let problem = plan.problem();
    problem.operation() == Operation::BackwardAdapter && problem.beta() == 0.0
}

#[cfg(feature = "wgpu")]
#[test]
fn one_plan_serves_every_scale_on_wgpu() {
    use fused_lora::wgpu::Workspace;
    use test_support::gpu::{Gpu, Placed, all};

    for gpu in all() {
        let capabilities = gpu.wgpu().capabilities();
        for problem in problems() {
            // Texts take long to compile: one candidate of each strategy.
            let mut choices = feasible(&problem, &capabilities, &Choice::default());
            choices.dedup_by_key(|of| of.strategy);
            for choice in choices {
                let plan = Plan::choose(&problem.identity(), &capabilities, &choice).unwrap();
                if is_without_numbers(&plan) {
                    continue;
                }
                check(&problem, &plan, |scaled, buffers| run(&gpu, scaled, buffers));
            }
        }
    }

    fn run(gpu: &Gpu, scaled: Scaled<'_>, buffers: &mut Buffers) -> Result<(), Error> {
        let scratch = gpu.storage(&vec![0xff; scaled.plan().workspace_len().max(16)]);
        let placed = Placed::new(gpu, buffers, false);
        let operands = placed.operands(buffers, &mut |_, shape| Some(shape));
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        gpu.wgpu().encode(&mut pass, scaled, operands, Workspace::new(&scratch))?;
        drop(pass);
        gpu.queue().submit([encoder.finish()]);
        placed.take(gpu, buffers);
        Ok(())
    }
}

#[cfg(all(feature = "cuda", unix))]
#[test]
fn one_plan_serves_every_scale_on_cuda() {
    use fused_lora::cuda::Workspace;
    use test_support::cuda::{DeviceBuffers, Gpu};
    use test_support::machine::{Machine, on};
    use test_support::test_name;

    on(Machine::Any, test_name!(), "", || {
        let gpu = Gpu::new();
        let capabilities = gpu.executor.capabilities();
        for problem in problems().into_iter().filter(|of| of.activation() != DType::F16) {
            for choice in feasible(&problem, &capabilities, &Choice::default()) {
                let plan = Plan::choose(&problem.identity(), &capabilities, &choice).unwrap();
                if is_without_numbers(&plan) {
                    continue;
                }
                let mut raw = false;
                check(&problem, &plan, |scaled, buffers| {
                    let mut workspace = Workspace::for_plan(&gpu.stream, scaled.plan())?;
                    let mut on_device = DeviceBuffers::upload(&gpu.stream, buffers);
                    // Both tiers in turn.
                    raw = !raw;
                    if raw {
                        let (operands, stream) = (on_device.raw(buffers), gpu.stream.cu_stream());
                        // SAFETY: all of it lives until it is downloaded, and nothing else runs.
                        unsafe {
                            gpu.executor.run_raw(stream, scaled, operands, workspace.raw())?;
                        }
                    } else {
                        let operands = on_device.operands(buffers);
                        gpu.executor.run(&gpu.stream, scaled, operands, &mut workspace)?;
                    }
                    on_device.download(buffers);
                    Ok(())
                });
            }
        }
    });
}

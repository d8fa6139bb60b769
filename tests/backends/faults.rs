//! The checks of `correctness` against kernels with a fault: each text is edited in one place,
//! launched by hand, and those checks must refuse what comes out. Unedited, the same
//! way of launching passes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fused_lora::reference::Sums;
use fused_lora::wgpu::wgpu;
use fused_lora::{Capabilities, Choice, Layout, Operand, Plan, Problem, WgpuCapabilities};
use test_support::gpu::{Gpu, all};
use test_support::{Buffers, Case, Fill, Reference, Usage, feasible, odd};

/// Strategy and preset, what is wrong, and the edit: a piece of the text and what replaces it.
const FAULTS: [(&str, &str, &str, &str); 6] = [
    ("two_pass/wide", "a barrier is missing", "        workgroupBarrier();\n", ""),
    ("two_pass/decode", "shrunk of another token", "t_four(token + m, k)", "t_four(token, k)"),
    (
        "two_pass/registers",
        "a column behind the last is stored",
        "if (col + 1u <= p.y.last_col) ",
        "",
    ),
    (
        "recompute/wide",
        "the pad of shrunk is not zero",
        "ranks < vec4(p.rank)",
        "ranks < vec4(1000u)",
    ),
    ("two_pass/subgroup", "x of another token", "word % SPREAD + slice", "slice"),
    ("two_pass/subgroup", "a slice of shrunk is left out", "slice < SLICES; slice++", "false;"),
];

/// Rows and columns that no tile divides, gaps between the rows of y.
/// The pieces that are spoilt are those of elements read one by one.
fn problem() -> Problem {
    let problem = Problem::forward(37, 77, 51, 5).with_bias(true).with_scale(1.5);
    odd(problem.with_layout(Operand::Y, Layout { stride: Some(56), ..Layout::default() }))
}

/// Launches `plan` without the executor, each text as `edit` leaves it.
fn run(gpu: &Gpu, plan: &Plan, before: &Buffers, edit: impl Fn(&str) -> String) -> Buffers {
    let device = gpu.device();
    let buffers: Vec<_> =
        before.stored.iter().map(|stored| gpu.storage(stored.data.bytes())).collect();
    let workspace = gpu.storage(&vec![0xff; plan.workspace_len().max(16)]);
    let mut encoder = device.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default());
    for launch in plan.launches() {
        let source = launch.source.as_ref().expect("a text");
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(edit(&source.text).into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: Some(source.entry),
            compilation_options: Default::default(),
            cache: None,
        });
        let mut params = launch.params.clone();
        let bound: Vec<&wgpu::Buffer> = launch
            .bindings
            .iter()
            .map(|binding| {
                let Some(operand) = binding.operand else { return &workspace };
                let at = before.stored.iter().position(|of| of.operand == operand).unwrap();
                // The whole buffer, guards and all; the operand begins at its offset.
                let place = binding.at.expect("a place for the offset") as usize;
                let offset = before.stored[at].offset as u32;
                params[place..place + 4].copy_from_slice(&offset.to_le_bytes());
                &buffers[at]
            })
            .collect();
        let params = gpu.uniform(&params);
        let all = bound.into_iter().chain([&params]);
        let entries: Vec<_> = all
            .enumerate()
            .map(|(at, buffer)| wgpu::BindGroupEntry {
                binding: at as u32,
                resource: buffer.as_entire_binding(),
            })
            .collect();
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        let [x, y, z] = launch.grid;
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }
    drop(pass);
    gpu.queue().submit([encoder.finish()]);
    let mut after = before.clone();
    let all: Vec<_> = buffers.iter().collect();
    for (stored, bytes) in after.stored.iter_mut().zip(gpu.read(&all)) {
        let len = stored.data.bytes().len();
        stored.data.bytes_mut().copy_from_slice(&bytes[..len]);
    }
    after
}

/// What the tests ask of every run.
fn check(plan: &Plan, before: &Buffers, after: &Buffers, case: &Case) {
    after.assert_guards(before);
    let mut reference = Reference::new(plan.problem(), before);
    Usage::default().check(plan, after, reference.of(Sums::F32), case);
}

#[test]
fn a_fault_in_a_kernel_is_caught() {
    for gpu in all() {
        for (choice, what, piece, instead) in FAULTS {
            // The least that WebGPU grants, but for subgroups.
            let Capabilities::Wgpu(own) = gpu.wgpu().capabilities() else { panic!() };
            let mut least = WgpuCapabilities::default();
            if choice.ends_with("subgroup") {
                (least.adapter, least.subgroup) = (own.adapter, own.subgroup);
            }
            let capabilities = Capabilities::Wgpu(least);
            if !feasible(&problem(), &capabilities, &Choice::default())
                .contains(&choice.parse().unwrap())
            {
                continue;
            }
            let plan = Plan::choose(&problem(), &capabilities, &choice.parse().unwrap()).unwrap();
            let case = Case::new(problem(), Fill::Uniform, 7);
            let before = case.promised_buffers();
            let texts = plan.launches().iter().map(|of| &of.source.as_ref().unwrap().text);
            assert!(texts.into_iter().any(|text| text.contains(piece)), "{choice}: {what}");

            check(&plan, &before, &run(&gpu, &plan, &before, str::to_owned), &case);
            let after = run(&gpu, &plan, &before, |text| text.replace(piece, instead));
            let caught = catch_unwind(AssertUnwindSafe(|| check(&plan, &before, &after, &case)));
            assert!(caught.is_err(), "{choice}: {what}, and nothing noticed");
        }
    }
}

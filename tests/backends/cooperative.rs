//! Cooperative matrices are asked for by name: a device that has none says so, a plan for them does not run without, and
//! one that has them computes with them. `tests/lavapipe-cooperative` runs this on a driver that has them, all else on those
//! that have not.

use fused_lora::wgpu::{Workspace, wgpu};
use fused_lora::{Capabilities, DType, Device, Error, Forward, Plan, Problem};
use test_support::gpu::{Gpu, Placed, all};
use test_support::{Case, Fill, wants_matrices};

fn f16() -> Problem {
    Problem::forward(70, 72, 80, 8).with_dtype(DType::F16)
}

#[test]
fn a_device_has_them_by_name_alone() {
    for name in Device::available().into_iter().filter(|of| of.starts_with("wgpu:")) {
        let plain = Device::open(&name).expect("what is available");
        assert!(!plain.capabilities().to_string().contains("cooperative"));
        let device = match Device::open(&format!("{name}+cooperative")) {
            Ok(device) => device,
            Err(Error::Device { reason, .. }) => {
                assert!(!wants_matrices(), "{name}: {reason}");
                println!("{name}: {reason}");
                assert!(reason.contains("EXPERIMENTAL_COOPERATIVE_MATRIX"), "{reason}");
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        assert!(device.capabilities().to_string().contains("cooperative matrices of"));
        assert_eq!(device.name(), format!("{name}+cooperative"));
        let plan = device.choose(&f16(), &"two_pass/cooperative".parse().unwrap()).unwrap();
        assert_eq!(plan.launches().last().unwrap().kernel, "cooperative");
        // Whatever the plan of a call is.
        let ones =
            |rows, cols| device.tensor(rows, cols, DType::F16, &vec![1.0; rows * cols]).unwrap();
        let (x, w, a, b) = (ones(70, 72), ones(80, 72), ones(8, 72), ones(80, 8));
        let mut y = device.zeros(70, 80, DType::F16).unwrap();
        device.forward(Forward::new(&x, &w, &mut y).adapter(&a, &b).scale(0.5)).unwrap();
        assert!(y.to_f32().unwrap().iter().all(|&of| of == 72.0 + 8.0 * 36.0));
    }
}

/// On wgpu's backend that does nothing, which grants what it is asked for and has no matrices.
#[test]
fn a_plan_for_them_does_not_run_without() {
    let gpu = Gpu::noop();
    let Capabilities::Wgpu(mut device) = gpu.wgpu().capabilities() else { panic!() };
    (device.f16, device.subgroup, device.cooperative) = (true, 32, 16);
    let choice = "two_pass/cooperative".parse().unwrap();
    let plan = Plan::choose(&f16(), &Capabilities::Wgpu(device), &choice).unwrap();
    let buffers = Case::new(f16(), Fill::Uniform, 1).aligned_buffers();
    let placed = Placed::new(&gpu, &buffers, false);
    let scratch = gpu.storage(&vec![0; plan.workspace_len()]);
    let operands = placed.operands(&buffers, &mut |_, shape| Some(shape));
    let error = gpu.wgpu().prepare(&plan, operands, Workspace::new(&scratch)).unwrap_err();
    assert!(matches!(error.cause(), Error::Feature { .. }), "{error}");
}

#[test]
fn a_device_made_without_them_is_refused_by_name() {
    for gpu in all() {
        let device = gpu.least();
        let executor = fused_lora::wgpu::Wgpu::new(&device).unwrap();
        let error = executor.with_cooperative(gpu.adapter(), gpu.queue()).unwrap_err();
        assert_eq!(error, Error::Feature { feature: "EXPERIMENTAL_COOPERATIVE_MATRIX" });
        let features = gpu.device().features();
        let has = features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);
        assert_eq!(has, wants_matrices());
    }
}

//! What is awaited in a browser, natively, on the CPU and every adapter: the same values and errors as the
//! calls that wait, and futures that a host's tasks can move between threads.

use std::future::Future;

use fused_lora::{DType, Device, Error, Forward};
use pollster::block_on;

fn devices() -> Vec<Device> {
    let cpu = [Device::cpu()].into_iter();
    #[cfg(feature = "wgpu")]
    use test_support::Executor;
    #[cfg(feature = "wgpu")]
    let cpu = test_support::gpu::all()
        .into_iter()
        .map(|gpu| Device::open(gpu.name()).unwrap())
        .chain(cpu);
    cpu.collect()
}

/// As a task of a host's may be: moved to another thread.
fn on_a_task<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    std::thread::spawn(|| block_on(future)).join().unwrap()
}

/// Odd sizes, so that a 16-bit readback ends in the middle of a word.
#[test]
fn readbacks_are_those_of_the_moment() {
    for device in devices() {
        for dtype in [DType::F32, DType::F16, DType::Bf16] {
            let (first, second) = ([1.0, 2.0, 3.0, 4.0, 5.0], [-1.0, 0.0, 0.5, 8.0, 0.25]);
            let mut x = device.tensor(1, 5, dtype, &first).unwrap();
            let before = x.to_f32_async();
            x.write(&second).unwrap();
            let after = x.to_f32_async();
            // Whichever is awaited first, from wherever; the tensor may be gone.
            drop(x);
            assert_eq!(on_a_task(after).unwrap(), second, "{}, {dtype}", device.name());
            assert_eq!(on_a_task(before).unwrap(), first, "{}, {dtype}", device.name());
        }
    }
}

#[test]
fn results_are_there_when_they_are_awaited() {
    for device in devices() {
        let x = device.tensor(2, 3, DType::F32, &[1.0; 6]).unwrap();
        let w = device.tensor(4, 3, DType::F32, &[2.0; 12]).unwrap();
        let mut y = device.zeros(2, 4, DType::F32).unwrap();
        device.forward(Forward::new(&x, &w, &mut y)).unwrap();
        let (y, waiter) = (y.to_f32_async(), device.clone());
        on_a_task(async move { waiter.wait_async().await }).unwrap();
        assert_eq!(block_on(y).unwrap(), [6.0; 8], "{}", device.name());
    }
}

#[test]
fn devices_open_as_they_do_in_a_call() {
    for name in Device::available() {
        let device = on_a_task({
            let name = name.clone();
            async move { Device::open_async(&name).await }
        });
        assert_eq!(device.unwrap().name(), name);
    }
    for name in ["cpu:1", "wgpu:nothing of this name", "toaster"] {
        let (awaited, called) = (block_on(Device::open_async(name)), Device::open(name));
        let [awaited, called] =
            [awaited, called].map(|of| of.map(|device| device.name().to_owned()));
        assert!(matches!(awaited, Err(Error::Device { .. })), "{awaited:?}");
        assert_eq!(awaited, called);
    }
    assert_eq!(block_on(Device::best_async()).name(), Device::best().name());
}

#[cfg(feature = "wgpu")]
#[test]
fn warming_up_compiles_what_a_run_needs() {
    use fused_lora::wgpu::Wgpu;
    use fused_lora::{Plan, Problem};

    for gpu in test_support::gpu::all() {
        let executor = Wgpu::new(gpu.device()).unwrap();
        let plan = Plan::new(&Problem::forward(5, 7, 9, 3), &executor.capabilities()).unwrap();
        let warm = executor.clone();
        on_a_task({
            let plan = plan.clone();
            async move { warm.warm_up_async(&plan).await }
        })
        .unwrap();
        let compiled = executor.created().pipelines;
        assert!(compiled > 0);
        executor.warm_up(&plan).unwrap();
        assert_eq!(executor.created().pipelines, compiled);
        // Of a plan for another executor, as without awaiting.
        let other =
            Plan::new(&Problem::forward(5, 7, 9, 3), &Device::cpu().capabilities()).unwrap();
        assert_eq!(block_on(executor.warm_up_async(&other)), executor.warm_up(&other));
        executor.lose("unplugged");
        let lost = Err(Error::DeviceLost { reason: "unplugged".to_owned() });
        assert_eq!(block_on(executor.warm_up_async(&plan)), lost);
        assert_eq!(block_on(executor.settled()), lost);
    }
}

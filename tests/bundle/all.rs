//! The tests that a CUDA device can run, in one executable, so that the kernels' texts are in it
//! once. `tests/bundle/make` packs it for machines without Rust; its sources are tests of their
//! own for cargo, which leaves this one out.

#[path = "../backends/main.rs"]
mod backends;
#[path = "../correctness/main.rs"]
mod correctness;

use fused_lora::cuda::cudarc::driver::CudaContext;
use fused_lora::cuda::cudarc::driver::sys::{self, CUdevice_attribute};
use fused_lora::cuda::probe;

/// Prints the line that begins every report: card, driver, clocks.
#[test]
fn card() {
    probe().unwrap_or_else(|error| panic!("{error}"));
    let context = CudaContext::new(0).expect("a device");
    let attribute = |of| context.attribute(of).expect("an attribute");
    let mut version = 0;
    // SAFETY: the driver writes one number.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().expect("a version");
    println!(
        "card: {}, compute capability {}.{}, {} multiprocessors; driver for CUDA {}.{}; at most {} MHz, \
         memory {} MHz",
        context.name().expect("a name"),
        attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR),
        attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR),
        attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
        version / 1000,
        version % 1000 / 10,
        attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE) / 1000,
        attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE) / 1000,
    );
}

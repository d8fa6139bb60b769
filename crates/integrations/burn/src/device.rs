//! Which of burn's devices a layer runs on. Called by `linear`.

use burn::backend::DispatchDevice;
use burn::tensor::Device;

use crate::error::{Error, Result};

/// The compiler of burn's wgpu runtime that takes WGSL, as its clients name it.
#[cfg(feature = "wgpu")]
const WGSL: &str = "wgpu<wgsl>";

/// Whether the core's kernels run on `device`.
pub(crate) fn served(device: &Device) -> Result<()> {
    match device.clone().without_autodiff().as_dispatch() {
        #[cfg(feature = "wgpu")]
        DispatchDevice::Cube(device) => compiler(device.client().name()),
        #[cfg(feature = "flex")]
        DispatchDevice::Flex(_) => Ok(()),
        #[cfg(feature = "ndarray")]
        DispatchDevice::NdArray(_) => Ok(()),
        #[allow(unreachable_patterns)] // Which backends there are, other crates decide.
        other => Err(Error::Device {
            device: format!("{other:?}"),
            why: "this crate's features `wgpu`, `flex` and `ndarray` serve the backends of these names",
        }),
    }
}

#[cfg(feature = "wgpu")]
fn compiler(name: &str) -> Result<()> {
    let why = match name {
        WGSL => return Ok(()),
        "wgpu<spirv>" => {
            "burn's SPIR-V compiler takes no WGSL; leave out burn's feature `vulkan`, which turns it on, or call \
             fused_lora::wgpu on burn's buffers (README, \"Raw buffers\")"
        }
        "wgpu<msl>" => {
            "burn's Metal compiler takes no WGSL; leave out burn's feature `metal`, which turns it on, or call \
             fused_lora::wgpu on burn's buffers (README, \"Raw buffers\")"
        }
        "cuda" => {
            "cubecl keeps its CUDA stream to itself, so no other kernel can be ordered with burn's"
        }
        _ => "this runtime of cubecl takes no WGSL",
    };
    Err(Error::Device { device: name.to_owned(), why })
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use super::compiler;

    #[test]
    fn compilers_are_refused_by_name() {
        assert!(compiler("wgpu<wgsl>").is_ok());
        for (name, word) in
            [("wgpu<spirv>", "SPIR-V"), ("wgpu<msl>", "Metal"), ("cuda", "stream"), ("hip", "WGSL")]
        {
            let error = compiler(name).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(word), "{error}");
        }
    }
}

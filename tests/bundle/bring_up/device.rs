//! A card for stages that launch texts of their own. Called by `probing`, `litmus`, `large`, `texts`.

use std::sync::Arc;

use fused_lora::cuda::cudarc::driver::sys::{self, CUdevice_attribute};
use fused_lora::cuda::cudarc::driver::{CudaContext, CudaFunction, CudaStream};
use fused_lora::cuda::cudarc::nvrtc::Ptx;
use fused_lora::cuda::probe;

use crate::Result;

/// The first card, and a stream of its own.
pub(crate) struct Card {
    pub(crate) context: Arc<CudaContext>,
    pub(crate) stream: Arc<CudaStream>,
}

impl Card {
    pub(crate) fn open() -> Result<Card> {
        probe()?;
        let context = CudaContext::new(0)?;
        let stream = context.new_stream()?;
        Ok(Card { context, stream })
    }

    pub(crate) fn attribute(&self, of: CUdevice_attribute) -> Result<u32> {
        Ok(u32::try_from(self.context.attribute(of)?).unwrap_or(0))
    }

    pub(crate) fn multiprocessors(&self) -> Result<u32> {
        self.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
    }

    pub(crate) fn capability(&self) -> Result<(u32, u32)> {
        use CUdevice_attribute::*;
        let major = self.attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        Ok((major, self.attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?))
    }

    /// The entry of a text, compiled now.
    pub(crate) fn function(&self, text: &str, entry: &str) -> Result<CudaFunction> {
        let module = self.context.load_module(Ptx::from_src(text))?;
        Ok(module.load_function(entry)?)
    }

    /// Whether launches run in the simulator.
    pub(crate) fn is_simulated(&self) -> Result<bool> {
        Ok(self.context.name()?.starts_with("ptx-sim"))
    }

    /// Card and driver in a line.
    pub(crate) fn line(&self) -> Result<String> {
        let (major, minor) = self.capability()?;
        let mut version = 0;
        // SAFETY: the driver writes one number.
        unsafe { sys::cuDriverGetVersion(&mut version) }.result()?;
        Ok(format!(
            "{}, compute capability {major}.{minor}, driver {} for CUDA {}.{}",
            self.context.name()?,
            driver(),
            version / 1000,
            version % 1000 / 10,
        ))
    }
}

/// The driver's own version, as Linux tells it.
fn driver() -> String {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
    let mut words = text.lines().next().unwrap_or_default().split_whitespace();
    let is_version =
        |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    words.find(is_version).unwrap_or("of an unknown version").to_owned()
}

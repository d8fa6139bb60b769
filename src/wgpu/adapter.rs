//! Which class an adapter belongs to, by what it says of itself. Called when an executor is made.

use super::wgpu;
use crate::AdapterKind;

/// The class of the adapter. What a browser grants says no more than whether it is software.
pub(super) fn kind(info: &wgpu::AdapterInfo) -> AdapterKind {
    let by_type = match info.device_type {
        wgpu::DeviceType::Cpu => return AdapterKind::Software,
        wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
        wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
        wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other => AdapterKind::Hardware,
    };
    match info.backend {
        wgpu::Backend::BrowserWebGpu => AdapterKind::Hardware,
        _ => AdapterKind::by_maker(info.vendor, &info.name).unwrap_or(by_type),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_are_told_apart() {
        use wgpu::{Backend, DeviceType::*};
        for (name, vendor, device_type, backend, want) in [
            (
                "NVIDIA GeForce RTX 4090",
                0x10de,
                DiscreteGpu,
                Backend::Vulkan,
                AdapterKind::Discrete,
            ),
            ("AMD Radeon RX 7900 XT", 0x1002, DiscreteGpu, Backend::Dx12, AdapterKind::Discrete),
            (
                "Intel(R) Iris(R) Xe Graphics",
                0x8086,
                IntegratedGpu,
                Backend::Vulkan,
                AdapterKind::Integrated,
            ),
            ("Apple M3", 0, IntegratedGpu, Backend::Metal, AdapterKind::Apple),
            ("Apple M1 (G13G B1)", 0x1_0005, IntegratedGpu, Backend::Vulkan, AdapterKind::Apple),
            ("AMD Radeon Pro 5500M", 0, DiscreteGpu, Backend::Metal, AdapterKind::Discrete),
            ("Adreno (TM) 740", 0x5143, IntegratedGpu, Backend::Vulkan, AdapterKind::Mobile),
            ("Mali-G715", 0x13b5, IntegratedGpu, Backend::Vulkan, AdapterKind::Mobile),
            (
                "llvmpipe (LLVM 15.0.6, 256 bits)",
                0x1_0005,
                Cpu,
                Backend::Vulkan,
                AdapterKind::Software,
            ),
            ("", 0, Other, Backend::BrowserWebGpu, AdapterKind::Hardware),
            ("", 0, Cpu, Backend::BrowserWebGpu, AdapterKind::Software),
            ("Virtio-GPU Venus", 0x10de, VirtualGpu, Backend::Vulkan, AdapterKind::Hardware),
        ] {
            let mut info = wgpu::AdapterInfo::new(device_type, backend);
            (info.name, info.vendor) = (name.to_owned(), vendor);
            assert_eq!(kind(&info), want, "{name}");
        }
    }
}

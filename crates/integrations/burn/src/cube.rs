//! burn's tensors on wgpu as operands, and the core's launches as burn's own kernels: in its memory, on its
//! stream, in its compute pass. Called by `op`.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use burn::backend::ops::FloatTensorOps;
use burn::tensor::{Shape, Slice};
use burn_cubecl::cubecl::client::Client;
use burn_cubecl::cubecl::device::WgpuDeviceKind;
use burn_cubecl::cubecl::ir::features::Plane;
use burn_cubecl::cubecl::ir::{
    AddressType, DeviceIdentity, DeviceProperties, ElemType, FloatKind, PciVendor, Scope, UIntKind,
};
use burn_cubecl::cubecl::prelude::{
    CubeCount, CubeDim, ExecutionMode, KernelDefinition, KernelId, KernelMetadata, KernelSettings,
};
use burn_cubecl::cubecl::server::{Handle, KernelArguments, MetadataBindingInfo};
use burn_cubecl::cubecl::{CubeKernel, PrecompiledSource};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeDevice};
use fused_lora::{
    AdapterKind, Buffer, DType, Error, Host, HostBinding, Hosted, Launch, Place, Result, Source,
    WgpuCapabilities,
};

use crate::op::Store;

/// A tensor's memory, or a result's.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    handle: Handle,
    dtype: burn::tensor::DType,
}

impl Buffer for Part {
    fn dtype(&self) -> DType {
        core_dtype(self.dtype)
    }

    fn len(&self) -> usize {
        self.handle.size_in_used() as usize / self.dtype.size()
    }

    fn place(&self) -> Place {
        let allocation = self.handle.memory.descriptor().id.value as u64;
        Place { allocation, byte: self.handle.offset_start.unwrap_or(0) }
    }
}

/// A device of burn that launches the core's kernels.
pub(crate) struct Runtime(Client);

impl Host for Runtime {
    type Memory = Part;

    fn memory(&self, dtype: DType, len: usize) -> Result<Part> {
        let bytes =
            len.checked_mul(dtype.size()).ok_or(Error::OutOfMemory { bytes: usize::MAX })?;
        Ok(Part { handle: self.0.empty(bytes.max(BINDING)), dtype: burn_dtype(dtype) })
    }

    fn launch(
        &self,
        launch: &Launch,
        params: &[u8],
        bindings: &[HostBinding<'_, Part>],
    ) -> Result<()> {
        let Some(source) = launch.source.clone() else {
            return Err(Error::Feature { feature: "a launch without a text" });
        };
        let mut arguments = KernelArguments::new();
        for HostBinding { memory, bytes, .. } in bindings {
            let mut handle = memory.handle.clone();
            handle.offset_start = Some(bytes.start);
            handle.offset_end = Some(handle.size().saturating_sub(bytes.end));
            arguments = arguments.with_buffer(handle.binding());
        }
        let words = params.chunks(8).map(|of| {
            let mut word = [0; 8];
            word[..of.len()].copy_from_slice(of);
            u64::from_le_bytes(word)
        });
        let arguments = arguments.with_info(MetadataBindingInfo::custom(words.collect()));
        let [x, y, z] = launch.grid;
        let kernel = Kernel { source, block: launch.block };
        self.0.launch(Box::new(kernel), CubeCount::Static(x, y, z), arguments);
        Ok(())
    }
}

/// The least that WGSL's bindings of vectors take.
const BINDING: usize = 16;

/// A launch's text as burn compiles it.
struct Kernel {
    source: Source,
    block: [u32; 3],
}

impl Kernel {
    fn block(&self) -> CubeDim {
        let [x, y, z] = self.block;
        CubeDim::new_3d(x, y, z)
    }
}

impl KernelMetadata for Kernel {
    fn id(&self) -> KernelId {
        KernelId::new::<Self>().info(self.source.text.clone()).cube_dim(self.block().0)
    }

    fn address_type(&self) -> ElemType {
        ElemType::UInt(UIntKind::U32)
    }
}

impl CubeKernel for Kernel {
    fn define(&self) -> KernelDefinition {
        let settings =
            KernelSettings::new(self.block().0, ExecutionMode::Unchecked, AddressType::U32);
        KernelDefinition { body: Scope::root(settings.clone()), settings, info: Default::default() }
    }

    fn source(&self) -> Option<PrecompiledSource> {
        Some(PrecompiledSource {
            source: self.source.text.to_string(),
            entrypoint_name: self.source.entry.to_owned(),
            lang: "wgsl",
        })
    }
}

/// The class of a device. burn keeps no more of its adapter's `AdapterInfo` than the maker, and the type where it was
/// asked for by type; of the default device it is that of the machine's GPUs, of which burn takes the fastest.
fn adapter(
    of: &WgpuDeviceKind,
    identity: &DeviceIdentity,
    all: impl FnOnce() -> Vec<CubeDevice>,
) -> AdapterKind {
    // Of drivers for the CPU alone burn knows no card.
    let Some(card) = &identity.physical else { return AdapterKind::Software };
    let vendor = card.vendor.map_or(0, PciVendor::id);
    let by_type = |of: &WgpuDeviceKind| match of {
        WgpuDeviceKind::DiscreteGpu(_) => Some(AdapterKind::Discrete),
        WgpuDeviceKind::IntegratedGpu(_) => Some(AdapterKind::Integrated),
        _ => None,
    };
    let fastest = || {
        let types = all().into_iter().filter_map(|device| match device {
            CubeDevice::Wgpu(device) => by_type(&device.kind),
            _ => None,
        });
        types.reduce(|one, other| if one == other { one } else { AdapterKind::Discrete })
    };
    let by_type = match of {
        WgpuDeviceKind::DefaultDevice => fastest(),
        of => by_type(of),
    };
    AdapterKind::by_maker(vendor, &identity.name).or(by_type).unwrap_or(AdapterKind::Hardware)
}

/// What the device is, as the core's plans ask.
fn capabilities(device: &CubeDevice, client: &Client) -> WgpuCapabilities {
    let (properties, mut of) = (client.properties(), WgpuCapabilities::default());
    let hardware = &properties.hardware;
    if let CubeDevice::Wgpu(device) = device {
        of.adapter = adapter(&device.kind, &properties.identity, CubeDevice::enumerate_all);
    }
    of.f16 = properties.supports_type(ElemType::Float(FloatKind::F16));
    of.workgroup_bytes = hardware.max_shared_memory_size as u32;
    of.workgroup_threads = hardware.max_units_per_cube;
    of.workgroups = hardware.max_cube_count.0;
    of.storage_buffers = hardware.max_bindings;
    of.binding_bytes = properties.memory.max_page_size;
    of.binding_align = properties.memory.alignment as u32;
    of.subgroup = subgroup(properties);
    // burn cuts its tensors out of shared buffers.
    of.shared_buffers = true;
    of
}

/// Threads of every subgroup; 0 where there are none, or of several sizes. burn asks its adapter for all features, but does not say
/// of drivers for the CPU whether subgroups are among them: Mesa's has them.
fn subgroup(properties: &DeviceProperties) -> u32 {
    let hardware = &properties.hardware;
    let has = properties.features.plane.contains(Plane::Ops)
        || properties.identity.name.starts_with("llvmpipe");
    if has && hardware.plane_size_min == hardware.plane_size_max {
        hardware.plane_size_min
    } else {
        0
    }
}

type Executors = Mutex<HashMap<CubeDevice, Arc<Hosted<Runtime>>>>;

/// One for each device: it keeps plans.
static EXECUTORS: LazyLock<Executors> = LazyLock::new(Executors::default);

fn executor(of: &CubeTensor) -> Arc<Hosted<Runtime>> {
    let mut executors = EXECUTORS.lock().unwrap_or_else(PoisonError::into_inner);
    let new = || Arc::new(Hosted::new(capabilities(&of.device, &of.client)));
    executors.entry(of.device.clone()).or_insert_with(new).clone()
}

impl Store for CubeBackend {
    type Executor = Hosted<Runtime>;
    type Memory = Part;

    fn lies(of: &CubeTensor) -> (Vec<usize>, Vec<usize>, usize) {
        (of.meta.shape().to_vec(), of.meta.strides().to_vec(), 0)
    }

    fn slice(of: &CubeTensor) -> Part {
        Part { handle: of.handle.clone(), dtype: of.dtype }
    }

    fn contiguous(of: CubeTensor) -> CubeTensor {
        let of = into_contiguous(of);
        if Self::bindable(&of) {
            return of;
        }
        // Less memory than a binding takes: the same elements at the beginning of more.
        let (shape, dtype, device) = (of.meta.shape().clone(), of.dtype, of.device.clone());
        let len = shape.num_elements();
        let room = Self::float_zeros([BINDING].into(), &device, dtype.into());
        let of = Self::float_reshape(of, [len].into());
        let of = Self::float_slice_assign(room, &[Slice::from(0..len)], of);
        CubeTensor::new_contiguous(of.client, of.device, shape, of.handle, dtype)
    }

    fn bindable(of: &CubeTensor) -> bool {
        !of.meta.is_tiled() && (of.meta.shape().contains(&0) || of.handle.size() >= BINDING as u64)
    }

    fn memory(like: &CubeTensor, dtype: burn::tensor::DType, len: usize) -> Part {
        Part { handle: like.client.empty((len * dtype.size()).max(BINDING)), dtype }
    }

    fn write(memory: &mut Part) -> Part {
        memory.clone()
    }

    fn tensor(memory: Part, like: &CubeTensor, shape: Shape) -> CubeTensor {
        let Part { mut handle, dtype } = memory;
        // What a binding takes beyond the elements is no part of the tensor.
        let beyond = handle.size().saturating_sub((shape.num_elements() * dtype.size()) as u64);
        handle.offset_end = (beyond > 0).then_some(beyond);
        CubeTensor::new_contiguous(like.client.clone(), like.device.clone(), shape, handle, dtype)
    }

    fn run(
        of: &CubeTensor,
        run: impl FnOnce(&Hosted<Runtime>, &Runtime) -> Result<()>,
    ) -> Result<()> {
        run(&executor(of), &Runtime(of.client.clone()))
    }
}

fn core_dtype(of: burn::tensor::DType) -> DType {
    match of {
        burn::tensor::DType::F16 => DType::F16,
        burn::tensor::DType::BF16 => DType::Bf16,
        // The layer has refused all others.
        _ => DType::F32,
    }
}

fn burn_dtype(of: DType) -> burn::tensor::DType {
    match of {
        DType::F32 => burn::tensor::DType::F32,
        DType::F16 => burn::tensor::DType::F16,
        DType::Bf16 => burn::tensor::DType::BF16,
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::DispatchDevice;
    use burn::tensor::{Device, DeviceKind, read_sync};
    use burn_cubecl::cubecl::device::WgpuDevice;
    use burn_cubecl::cubecl::ir::PhysicalDevice;

    use super::*;

    #[test]
    fn adapters_are_told_apart() {
        use WgpuDeviceKind::*;
        let [nvidia, intel, qualcomm] =
            [PciVendor::Nvidia, PciVendor::Intel, PciVendor::Qualcomm].map(Some);
        let both = || vec![IntegratedGpu(0), DiscreteGpu(0), Cpu];
        for (name, vendor, kind, all, want) in [
            ("RTX 4090", nvidia, DiscreteGpu(1), vec![], AdapterKind::Discrete),
            ("RTX 4090", nvidia, DefaultDevice, both(), AdapterKind::Discrete),
            ("Iris Xe", intel, IntegratedGpu(0), both(), AdapterKind::Integrated),
            ("Iris Xe", intel, DefaultDevice, vec![IntegratedGpu(0), Cpu], AdapterKind::Integrated),
            ("Adreno 740", qualcomm, DefaultDevice, vec![IntegratedGpu(0)], AdapterKind::Mobile),
            ("Apple M3", None, DefaultDevice, vec![IntegratedGpu(0)], AdapterKind::Apple),
            ("", None, DefaultDevice, vec![], AdapterKind::Hardware),
            ("Venus", nvidia, VirtualGpu(0), both(), AdapterKind::Hardware),
            ("of a host", nvidia, Existing(7), both(), AdapterKind::Hardware),
        ] {
            let mut card = PhysicalDevice::default();
            card.vendor = vendor;
            let (name, physical) = (name.to_owned(), Some(card));
            let identity = DeviceIdentity { name, physical, ..Default::default() };
            let all = || all.into_iter().map(|of| CubeDevice::Wgpu(WgpuDevice::new(of))).collect();
            assert_eq!(adapter(&kind, &identity, all), want, "{kind:?} {identity:?}");
        }
        let none = DeviceIdentity::default();
        assert_eq!(adapter(&DefaultDevice, &none, Vec::new), AdapterKind::Software);
    }

    /// What a plan of this device is chosen by, on a driver for the CPU: the tests have no other.
    #[test]
    fn the_class_of_a_device_reaches_its_plans() {
        let Some(device) = device() else { return };
        let (client, info) = (device.client(), "llvmpipe");
        let of = capabilities(&device, &client);
        let software = client.properties().identity.name.starts_with(info);
        assert_eq!(software, of.adapter == AdapterKind::Software, "{:?}", of.adapter);
    }

    fn device() -> Option<CubeDevice> {
        #[allow(unreachable_patterns)] // Which backends there are, the features decide.
        match Device::wgpu(DeviceKind::DefaultDevice).as_dispatch() {
            DispatchDevice::Cube(device) => Some(device.clone()),
            _ => None,
        }
    }

    /// burn's own tensors have room; memory that was asked for by bytes need not.
    #[test]
    fn memory_that_is_less_than_a_binding_is_copied() {
        let Some(device) = device() else { return };
        let (client, shape) = (device.client(), Shape::new([1, 1]));
        let room = client.create_from_slice(&[0x5a; 64]);
        let mut handle = Handle::from_memory(room.memory, room.service, room.stream, 4);
        handle.offset_end = None;
        let dtype = burn::tensor::DType::F32;
        let of = CubeTensor::new_contiguous(client, device, shape, handle, dtype);
        assert!(!CubeBackend::bindable(&of));
        let copied = CubeBackend::contiguous(of);
        assert!(CubeBackend::bindable(&copied) && copied.handle.size() >= BINDING as u64);
        let copied = read_sync(CubeBackend::float_into_data(copied)).unwrap();
        assert_eq!(copied.iter::<f32>().collect::<Vec<_>>(), [f32::from_bits(0x5a5a_5a5a)]);
    }
}

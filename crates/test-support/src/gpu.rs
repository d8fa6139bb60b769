//! The wgpu executor behind the seam: operands go into `wgpu::Buffer`s of their own, or all
//! into one where the plan allows shared buffers, and every byte comes back to be compared.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, mpsc};
use std::thread::{self, ThreadId};

use fused_lora::reference::Sums;
use fused_lora::wgpu::{Prepared, Slice, Wgpu, Workspace, wgpu};
use fused_lora::{
    Access, AdapterKind, Capabilities, DType, Language, Launch, Matrix, Operands, Plan, Problem,
    Result, WgpuCapabilities,
};

use crate::executor::{Alter, Executor, Rows, Scratch};
use crate::{Buffers, lead, wants_matrices};

/// An executor on one adapter. Clones share its pipelines.
#[derive(Debug, Clone)]
pub struct Gpu {
    shared: Arc<Shared>,
    /// Compile with wgpu's own checks.
    checked: bool,
    /// Bind first, record twice; else record once.
    prepared: bool,
}

#[derive(Debug)]
struct Shared {
    name: String,
    adapter: wgpu::Adapter,
    queue: wgpu::Queue,
    trusted: Wgpu,
    checked: Wgpu,
}

/// Compiles every kernel with wgpu's own checks, for a whole run of tests.
const CHECKED_VARIABLE: &str = "FUSED_LORA_CHECKED";

/// One in so many runs of drawn problems on a software driver; 1 takes all of them.
const ONE_IN_VARIABLE: &str = "FUSED_LORA_ONE_IN";

/// The same of rows of `pairwise`, of which all are taken otherwise.
const PAIRED_ONE_IN_VARIABLE: &str = "FUSED_LORA_PAIRED_ONE_IN";

/// A software driver takes up to seconds to compile a kernel, and draws have thousands.
const ONE_IN: u64 = 64;

/// One for each adapter of this machine, software ones too; opened once a thread, because one
/// device compiles one kernel at a time.
pub fn all() -> Vec<Gpu> {
    // Not thread-local: wgpu does not outlive a thread's own destructors.
    static ALL: LazyLock<Mutex<HashMap<ThreadId, Vec<Gpu>>>> = LazyLock::new(Mutex::default);
    let open = || {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
        adapters.iter().map(Gpu::open).collect()
    };
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    all.entry(thread::current().id()).or_insert_with(open).clone()
}

impl Gpu {
    /// On wgpu's backend that does nothing: everything is checked and recorded as for a GPU, a discrete one with what
    /// every device grants, and nothing runs. For what the host itself costs.
    pub fn noop() -> Gpu {
        let mut instance = wgpu::InstanceDescriptor::new_without_display_handle();
        instance.backends = wgpu::Backends::NOOP;
        instance.backend_options.noop = wgpu::NoopBackendOptions {
            device_type: Some(wgpu::DeviceType::DiscreteGpu),
            features: Some(wgpu::Features::empty()),
            limits: Some(wgpu::Limits::default()),
            ..wgpu::NoopBackendOptions::enabled()
        };
        let instance = wgpu::Instance::new(instance);
        let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::NOOP));
        Gpu::open(adapters.first().expect("wgpu's feature `noop`"))
    }

    fn open(adapter: &wgpu::Adapter) -> Gpu {
        let is_noop = adapter.get_info().backend == wgpu::Backend::Noop;
        let cooperative = !is_noop && wants_matrices();
        let mut features = wgpu::Features::SHADER_F16 | wgpu::Features::SUBGROUP;
        let mut experimental_features = wgpu::ExperimentalFeatures::disabled();
        if cooperative {
            features |= wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
            // SAFETY: whoever sets the variable wants to see what the driver does.
            experimental_features = unsafe { wgpu::ExperimentalFeatures::enabled() };
        }
        let asked = adapter.request_device(&wgpu::DeviceDescriptor {
            required_features: adapter.features() & features,
            required_limits: adapter.limits(),
            experimental_features,
            ..Default::default()
        });
        let (device, queue) = pollster::block_on(asked).expect("a device of an adapter");
        let mut trusted = Wgpu::new(&device).expect("a device with compute shaders");
        if cooperative {
            let asked = trusted.with_cooperative(adapter, &queue);
            trusted = asked.unwrap_or_else(|error| panic!("{error}"));
        }
        let checked = trusted.clone().with_checks(true);
        let name = format!("wgpu:{}", adapter.get_info().name);
        let always = std::env::var(CHECKED_VARIABLE).is_ok_and(|value| value == "1");
        let adapter = adapter.clone();
        let shared = Arc::new(Shared { name, adapter, queue, trusted, checked });
        Gpu { shared, checked: always, prepared: false }
    }

    /// The executor itself.
    pub fn wgpu(&self) -> &Wgpu {
        if self.checked { &self.shared.checked } else { &self.shared.trusted }
    }

    /// Its device.
    pub fn device(&self) -> &wgpu::Device {
        self.shared.trusted.device()
    }

    /// Another device of the adapter, with the least that WebGPU grants.
    pub fn least(&self) -> wgpu::Device {
        let asked = self.shared.adapter.request_device(&wgpu::DeviceDescriptor::default());
        pollster::block_on(asked).expect("a default device").0
    }

    /// Its adapter.
    pub fn adapter(&self) -> &wgpu::Adapter {
        &self.shared.adapter
    }

    /// Its queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.shared.queue
    }

    /// A storage buffer that holds `contents`, padded to whole words.
    pub fn storage(&self, contents: &[u8]) -> wgpu::Buffer {
        let buffer = self.device().create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: contents.len().next_multiple_of(4).max(4) as u64,
            usage: wgpu::BufferUsages::STORAGE
                | wgpu::BufferUsages::COPY_SRC
                | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: true,
        });
        let mut range = buffer.get_mapped_range_mut(..).expect("a mapped buffer");
        range.slice(..contents.len()).copy_from_slice(contents);
        drop(range);
        buffer.unmap();
        buffer
    }

    /// A uniform buffer that holds `contents`.
    pub fn uniform(&self, contents: &[u8]) -> wgpu::Buffer {
        let buffer = self.device().create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: contents.len() as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.queue().write_buffer(&buffer, 0, contents);
        buffer
    }

    /// A launch by wgpu itself, told what [`Launch`] says and no more: of each binding the buffer, the bytes (what
    /// lies behind the buffer's end is left out), and whether it is `read_write`.
    pub fn dispatch(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        launch: &Launch,
        bindings: &[(&wgpu::Buffer, Range<u64>, bool)],
        params: &[u8],
        storage_params: bool,
    ) {
        let device = self.device();
        let (mut types, mut resources) = (Vec::new(), Vec::new());
        for (buffer, bytes, read_write) in bindings {
            types.push(wgpu::BufferBindingType::Storage { read_only: !read_write });
            let end = bytes.end.min(buffer.size() & !3);
            let size = wgpu::BufferSize::new(end - bytes.start);
            resources.push(wgpu::BufferBinding { buffer, offset: bytes.start, size });
        }
        let (ty, block) = match storage_params {
            true => {
                let ty = wgpu::BufferBindingType::Storage { read_only: true };
                (ty, self.storage(params))
            }
            false => (wgpu::BufferBindingType::Uniform, self.uniform(params)),
        };
        types.push(ty);
        resources.push(block.as_entire_buffer_binding());

        let entries: Vec<_> = (0..)
            .zip(types)
            .map(|(binding, ty)| wgpu::BindGroupLayoutEntry {
                binding,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty,
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: None,
            entries: &entries,
        });
        let resources = resources.into_iter().map(wgpu::BindingResource::Buffer);
        let entries: Vec<_> = (0..)
            .zip(resources)
            .map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource })
            .collect();
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &layout,
            entries: &entries,
        });
        let source = launch.source.as_ref().expect("a text");
        assert_eq!(source.language, Language::Wgsl);
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(launch.kernel),
            source: wgpu::ShaderSource::Wgsl((&*source.text).into()),
        });
        let layouts = [Some(&layout)];
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &layouts,
            immediate_size: 0,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(launch.kernel),
            layout: Some(&layout),
            module: &module,
            entry_point: Some(source.entry),
            compilation_options: Default::default(),
            cache: None,
        });
        let [x, y, z] = launch.grid;
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }

    /// What `buffers` hold, when all that was submitted is done.
    pub fn read(&self, buffers: &[&wgpu::Buffer]) -> Vec<Vec<u8>> {
        let device = self.device();
        let mut encoder = device.create_command_encoder(&Default::default());
        let staging = buffers.iter().map(|buffer| {
            let staging = device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: buffer.size(),
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, buffer.size());
            staging
        });
        let staging: Vec<_> = staging.collect();
        self.queue().submit([encoder.finish()]);
        let (sender, receiver) = mpsc::channel();
        for of in &staging {
            let sender = sender.clone();
            of.map_async(wgpu::MapMode::Read, .., move |mapped| sender.send(mapped).unwrap());
        }
        device.poll(wgpu::PollType::wait_indefinitely()).expect("a device that goes on");
        staging.iter().for_each(|_| receiver.recv().unwrap().expect("a mapped buffer"));
        staging.iter().map(|of| of.get_mapped_range(..).unwrap().to_vec()).collect()
    }

    /// Whether `Device::open` would take this adapter for `name`.
    pub fn answers_to(&self, name: &str) -> bool {
        let Capabilities::Wgpu(own) = self.wgpu().capabilities() else { return false };
        match name.strip_prefix("wgpu:") {
            Some(part) => self.shared.name.to_lowercase().contains(&part.to_lowercase()),
            None => name == "wgpu" && own.adapter != AdapterKind::Software,
        }
    }
}

/// Where each operand's data lies: which buffer, and at which byte.
pub struct Placed {
    buffers: Vec<wgpu::Buffer>,
    /// What the buffers hold before the run.
    contents: Vec<Vec<u8>>,
    /// Of each stored operand.
    places: Vec<(usize, usize)>,
}

impl Placed {
    /// Each in a buffer of its own, or all of them in one, a few bytes apart.
    pub fn new(gpu: &Gpu, buffers: &Buffers, one: bool) -> Placed {
        let mut contents: Vec<Vec<u8>> = Vec::new();
        let mut places = Vec::new();
        for stored in &buffers.stored {
            if !one || contents.is_empty() {
                contents.push(Vec::new());
            }
            let at = contents.len() - 1;
            let lead = lead(&stored.spec, stored.offset) * stored.spec.dtype.size();
            let start = contents[at].len().next_multiple_of(256) + lead;
            contents[at].resize(start, 0xa5);
            places.push((at, start));
            contents[at].extend_from_slice(stored.data.bytes());
        }
        for of in &mut contents {
            of.resize(of.len().next_multiple_of(4), 0xa5);
        }
        let buffers = contents.iter().map(|of| gpu.storage(of)).collect();
        Placed { buffers, contents, places }
    }

    /// As the executor takes them, each changed or left out by `alter`.
    pub fn operands(&self, of: &Buffers, alter: &mut Alter<'_>) -> Operands<Slice<'_>, Slice<'_>> {
        let mut operands = Operands::new(of.operation);
        for (stored, &(at, start)) in of.stored.iter().zip(&self.places) {
            let Some(shape) = alter(stored.operand, stored.shape()) else { continue };
            let bytes = start as u64..(start + stored.data.bytes().len()) as u64;
            let slice = Slice::part(&self.buffers[at], stored.data.dtype(), bytes);
            let matrix: Matrix<Slice<'_>> = shape.map(|()| slice);
            operands = match stored.spec.access {
                Access::Read => operands.read(stored.operand, matrix),
                Access::Write | Access::Update => operands.written(stored.operand, matrix),
            };
        }
        operands
    }

    /// Everything back, guards too; and nothing may have been written between operands.
    pub fn take(mut self, gpu: &Gpu, into: &mut Buffers) {
        let all: Vec<_> = self.buffers.iter().collect();
        let mut now = gpu.read(&all);
        for (stored, &(at, start)) in into.stored.iter_mut().zip(&self.places) {
            let bytes = stored.data.bytes_mut();
            let place = start..start + bytes.len();
            bytes.copy_from_slice(&now[at][place.clone()]);
            now[at][place.clone()].fill(0);
            self.contents[at][place].fill(0);
        }
        assert!(now == self.contents, "bytes between operands were overwritten");
    }
}

impl Executor for Gpu {
    fn name(&self) -> &str {
        &self.shared.name
    }

    /// The device's own, the least that WebGPU grants, and the two habits of hosts.
    fn capabilities(&self) -> Vec<Capabilities> {
        let Capabilities::Wgpu(own) = self.wgpu().capabilities() else { panic!() };
        let mut least = WgpuCapabilities::default();
        least.adapter = own.adapter;
        if own.cooperative > 0 {
            (least.f16, least.subgroup, least.cooperative) = (true, own.subgroup, own.cooperative);
        }
        let mut shared = own;
        shared.shared_buffers = true;
        let mut both = least;
        (both.shared_buffers, both.storage_params) = (true, true);
        [own, least, shared, both].map(Capabilities::Wgpu).to_vec()
    }

    /// A GPU's matrices truncate; a software driver adds as it adds elsewhere.
    fn sums(&self, problem: &Problem) -> Sums {
        let Capabilities::Wgpu(own) = self.wgpu().capabilities() else { panic!() };
        let is_gpu = own.cooperative != 0 && own.adapter != AdapterKind::Software;
        match is_gpu && problem.activation() == DType::F16 {
            true => Sums::TensorCore,
            false => Sums::F32,
        }
    }

    fn one_in(&self, rows: Rows) -> u64 {
        let Capabilities::Wgpu(own) = self.wgpu().capabilities() else { panic!() };
        let (variable, software) = match rows {
            Rows::Drawn => (ONE_IN_VARIABLE, ONE_IN),
            Rows::Paired => (PAIRED_ONE_IN_VARIABLE, 1),
        };
        match (std::env::var(variable), own.adapter) {
            (Ok(one_in), _) => {
                one_in.parse().unwrap_or_else(|_| panic!("{variable}: a number above 0"))
            }
            (Err(_), AdapterKind::Software) => software,
            (Err(_), _) => 1,
        }
    }

    fn scratch(&self, bytes: usize) -> Scratch {
        let buffer = (bytes > 0).then(|| self.storage(&vec![0; bytes]));
        Scratch::Gpu(buffer)
    }

    fn fill(&self, scratch: &mut Scratch, garbage: f32) {
        if let Scratch::Gpu(Some(buffer)) = scratch {
            let words = vec![garbage; (buffer.size() / 4) as usize];
            let bytes: Vec<u8> = words.into_iter().flat_map(f32::to_le_bytes).collect();
            self.queue().write_buffer(buffer, 0, &bytes);
        }
    }

    fn run_altered(
        &self,
        plan: &Plan,
        buffers: &mut Buffers,
        scratch: &mut Scratch,
        alter: &mut Alter<'_>,
    ) -> Result<()> {
        let Scratch::Gpu(workspace) = scratch else { panic!("a workspace of another device") };
        let workspace = workspace.as_ref().map_or(Workspace::none(), Workspace::new);
        let shared = match plan.capabilities() {
            Capabilities::Wgpu(planned) => planned.shared_buffers,
            _ => false,
        };
        let placed = Placed::new(self, buffers, shared);
        let mut encoder = self.device().create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        let operands = placed.operands(buffers, alter);
        let recorded = match self.prepared {
            false => self.wgpu().encode(&mut pass, plan, operands, workspace),
            true => {
                let prepared = self.wgpu().prepare(plan, operands, workspace);
                prepared.and_then(|prepared: Prepared| prepared.encode(&mut pass))
            }
        };
        drop(pass);
        self.queue().submit([encoder.finish()]);
        placed.take(self, buffers);
        recorded
    }

    fn siblings(&self) -> Vec<(String, Box<dyn Executor>)> {
        let with = |checked, prepared| -> (String, Box<dyn Executor>) {
            let name = format!("checked {checked}, prepared {prepared}");
            (name, Box::new(Gpu { checked, prepared, ..self.clone() }))
        };
        let all = [(false, false), (false, true), (true, false), (true, true)];
        all.into_iter().map(|(checked, prepared)| with(checked, prepared)).collect()
    }
}

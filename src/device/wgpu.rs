//! Devices of wgpu that this crate opens itself: tensors in their memory, and one queue of work
//! that is sent when somebody waits for it. In a browser nobody can wait, and what is awaited there
//! ends in `_async`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::adapters;
use super::signal::Signal;
use super::tensor::{HostData, Storage};
#[cfg(not(target_family = "wasm"))]
use super::timestamps;
use crate::operands::{Call, call};
use crate::wgpu::{Prepared, Slice, Wgpu, wgpu};
use crate::{Capabilities, DType, Error, Operand, Operands, Result, Scaled, Tensor};

/// So many calls are sent without anybody waiting for them.
const MOST_CALLS: usize = 1 << 7;

/// An opened device.
#[derive(Debug)]
pub(super) struct WgpuDevice {
    name: String,
    executor: Wgpu,
    queue: wgpu::Queue,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    recording: Option<Recording>,
}

/// Work that has not been sent. The pass comes first, because it ends before its encoder.
#[derive(Debug)]
struct Recording {
    pass: Option<wgpu::ComputePass<'static>>,
    encoder: wgpu::CommandEncoder,
    calls: usize,
}

/// What a name ends in that asks for cooperative matrices.
const COOPERATIVE: &str = "+cooperative";

/// Whether a device here may have this name.
pub(super) fn is_name(name: &str) -> bool {
    let adapter = name.strip_suffix(COOPERATIVE).unwrap_or(name);
    adapter == "wgpu" || adapter.starts_with("wgpu:")
}

impl WgpuDevice {
    /// Opens `wgpu`, or `wgpu:` and a part of an adapter's name, either with `+cooperative` behind it; else says why not.
    pub(super) fn open(name: &str) -> Result<Arc<WgpuDevice>, String> {
        let adapter = name.strip_suffix(COOPERATIVE).unwrap_or(name);
        pollster::block_on(WgpuDevice::on(adapters::named(adapter)?, name))
    }

    /// Opens the browser's adapter, which is `wgpu`; else says why not.
    #[cfg(target_family = "wasm")]
    pub(super) async fn open_async(name: &str) -> Result<Arc<WgpuDevice>, String> {
        let adapter = adapters::of_browser().await?;
        match name {
            "wgpu" => WgpuDevice::on(&adapter, name).await,
            _ => Err("a browser's adapters have no names: there is `wgpu`".to_owned()),
        }
    }

    /// The same, where it is hardware as far as the browser tells.
    #[cfg(target_family = "wasm")]
    pub(super) async fn open_best_async() -> Result<Arc<WgpuDevice>, String> {
        let adapter = adapters::of_browser().await?;
        match adapters::is_hardware(&adapter) {
            true => WgpuDevice::on(&adapter, "wgpu").await,
            false => Err("the browser gives a software adapter alone".to_owned()),
        }
    }

    async fn on(adapter: &wgpu::Adapter, name: &str) -> Result<Arc<WgpuDevice>, String> {
        let cooperative = name.ends_with(COOPERATIVE);
        // Timestamps are for `tune` alone.
        let wanted =
            wgpu::Features::SHADER_F16 | wgpu::Features::SUBGROUP | wgpu::Features::TIMESTAMP_QUERY;
        let mut features = adapter.features() & wanted;
        let mut experimental_features = wgpu::ExperimentalFeatures::disabled();
        if cooperative {
            features |= adapter.features() & wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
            // SAFETY: wgpu has not tested the feature enough to call it safe, and says so by this token. The user
            // asked for it by name, and `with_cooperative` tries it before anything else uses it.
            experimental_features = unsafe { wgpu::ExperimentalFeatures::enabled() };
        }
        let asked = adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("fused-lora"),
            required_features: features,
            required_limits: adapter.limits(),
            experimental_features,
            ..Default::default()
        });
        let (device, queue) = asked.await.map_err(|error| error.to_string())?;
        let mut executor = Wgpu::new(&device).map_err(|error| error.to_string())?;
        if cooperative {
            let asked = executor.with_cooperative(adapter, &queue);
            executor = asked.map_err(|error| error.to_string())?;
        }
        executor.watch();
        Ok(Arc::new(WgpuDevice { name: name.to_owned(), executor, queue, state: Mutex::default() }))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Name of the adapter, driver and backend, as far as they are told: a browser tells no names.
    pub(super) fn description(&self) -> String {
        let info = self.executor.device().adapter_info();
        let wgpu::AdapterInfo { name, driver, driver_info, backend, .. } = info;
        let driver = format!("{driver} {driver_info}").trim().to_owned();
        let told = [name, driver, format!("{backend:?}")].into_iter().filter(|of| !of.is_empty());
        told.collect::<Vec<_>>().join("; ")
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        self.executor.capabilities()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn run(
        self: &Arc<WgpuDevice>,
        plan: Scaled<'_>,
        operands: Operands<&Tensor, &mut Tensor>,
    ) -> Result<()> {
        let prepared = self.prepare(plan, operands)?;
        self.record(|pass| prepared.encode(pass))
    }

    fn prepare(
        self: &Arc<WgpuDevice>,
        plan: Scaled<'_>,
        operands: Operands<&Tensor, &mut Tensor>,
    ) -> Result<Prepared> {
        let read = |operand, tensor| self.slice(operand, tensor);
        let operands = operands.try_map(read, |operand, tensor| self.written(operand, tensor))?;
        self.executor.prepare_kept(plan, operands)
    }

    /// Seconds of so many runs by the device's own clock, if it has one; waits for them.
    #[cfg(not(target_family = "wasm"))]
    pub(super) fn seconds(
        self: &Arc<WgpuDevice>,
        plan: Scaled<'_>,
        operands: Operands<&Tensor, &mut Tensor>,
        runs: usize,
    ) -> Result<Option<f64>> {
        let prepared = self.prepare(plan, operands)?;
        self.send(&mut self.lock())?;
        timestamps::seconds(&self.executor, &self.queue, &prepared, runs)
    }

    pub(super) fn call(self: &Arc<WgpuDevice>, of: Call<&Tensor, &mut Tensor>) -> Result<()> {
        let read = |operand, tensor| self.slice(operand, tensor);
        let of = of.try_map(read, |operand, tensor| self.written(operand, tensor))?;
        self.record(|pass| call(&self.executor, pass, of))
    }

    fn written<'t>(
        self: &Arc<WgpuDevice>,
        operand: Operand,
        tensor: &'t mut Tensor,
    ) -> Result<Slice<'t>> {
        if let Storage::Wgpu(allocation) = &mut tensor.storage {
            allocation.unshare()?;
        }
        self.slice(operand, tensor)
    }

    fn slice<'t>(
        self: &Arc<WgpuDevice>,
        operand: Operand,
        tensor: &'t Tensor,
    ) -> Result<Slice<'t>> {
        match &tensor.storage {
            Storage::Wgpu(of) if Arc::ptr_eq(&of.owner, self) => Ok(of.slice()),
            _ => {
                let (expected, got) = (self.name.clone(), tensor.device_name().to_owned());
                Err(Error::OtherDevice { operand, expected, got })
            }
        }
    }

    /// Records into the open pass, or a new one.
    fn record(
        &self,
        launches: impl FnOnce(&mut wgpu::ComputePass<'static>) -> Result<()>,
    ) -> Result<()> {
        let state = &mut *self.lock();
        self.executor.scoped("compute pass", 0, |device| {
            let recording = state.recording.get_or_insert_with(|| Recording::new(device));
            recording.calls += 1;
            let Recording { pass, encoder, .. } = recording;
            let pass = pass.get_or_insert_with(|| {
                encoder.begin_compute_pass(&Default::default()).forget_lifetime()
            });
            launches(pass)
        })??;
        match &state.recording {
            Some(recording) if recording.calls >= MOST_CALLS => self.send(state),
            _ => Ok(()),
        }
    }

    /// Records a copy behind all that is recorded.
    fn copy(&self, state: &mut State, from: &wgpu::Buffer, to: &wgpu::Buffer) -> Result<()> {
        self.executor.scoped("copy", 0, |device| {
            let recording = state.recording.get_or_insert_with(|| Recording::new(device));
            recording.pass = None;
            recording.encoder.copy_buffer_to_buffer(from, 0, to, 0, from.size());
        })
    }

    fn send(&self, state: &mut State) -> Result<()> {
        let Some(Recording { pass, encoder, .. }) = state.recording.take() else { return Ok(()) };
        self.executor.scoped("submission", 0, |_| {
            drop(pass);
            self.queue.submit([encoder.finish()]);
        })?;
        self.executor.check_alive()
    }

    pub(super) fn wait(&self) -> Result<()> {
        may_block("Device::wait", "Device::wait_async")?;
        self.send(&mut self.lock())?;
        self.poll()
    }

    pub(super) async fn wait_async(&self) -> Result<()> {
        self.send(&mut self.lock())?;
        let done = Signal::default();
        self.queue.on_submitted_work_done(done.sender());
        self.progress()?;
        done.await;
        self.executor.settled().await
    }

    /// Lets what was sent come to an end: natively somebody has to wait, a browser does it beside the page.
    fn progress(&self) -> Result<()> {
        match cfg!(target_family = "wasm") {
            true => Ok(()),
            false => self.poll(),
        }
    }

    /// Waits for all that was sent, and calls the callbacks.
    fn poll(&self) -> Result<()> {
        let polled = self
            .executor
            .scoped("submission", 0, |device| device.poll(wgpu::PollType::wait_indefinitely()))?;
        self.executor.check_alive()?;
        let rejected = |error: wgpu::PollError| Error::Rejected {
            what: "submission".to_owned(),
            reason: error.to_string(),
        };
        polled.map(drop).map_err(rejected)
    }

    fn buffer(&self, bytes: u64) -> Result<wgpu::Buffer> {
        let device = self.executor.device();
        let size = bytes.max(4).checked_next_multiple_of(4);
        let too_large =
            || Error::OutOfMemory { bytes: usize::try_from(bytes).unwrap_or(usize::MAX) };
        let size = size.filter(|&size| size <= device.limits().max_buffer_size);
        let size = size.ok_or_else(too_large)?;
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST;
        let label = Some("fused-lora");
        self.executor.scoped("tensor", bytes, |device| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label,
                size,
                usage,
                mapped_at_creation: false,
            })
        })
    }
}

/// Refuses a call that waits, where nothing can.
fn may_block(call: &'static str, instead: &'static str) -> Result<()> {
    match cfg!(target_family = "wasm") {
        true => Err(Error::Blocking { call, instead }),
        false => Ok(()),
    }
}

impl Recording {
    fn new(device: &wgpu::Device) -> Recording {
        let encoder = device.create_command_encoder(&Default::default());
        Recording { pass: None, encoder, calls: 0 }
    }
}

/// The memory of a tensor. Clones share it until one of them is written.
#[derive(Debug, Clone)]
pub(super) struct Allocation {
    owner: Arc<WgpuDevice>,
    buffer: Arc<wgpu::Buffer>,
    dtype: DType,
    len: usize,
}

impl Allocation {
    /// wgpu's buffers begin with zeros.
    pub(super) fn zeros(owner: &Arc<WgpuDevice>, dtype: DType, len: usize) -> Result<Allocation> {
        let bytes = (len as u64).saturating_mul(dtype.size() as u64);
        let buffer = Arc::new(owner.buffer(bytes)?);
        Ok(Allocation { owner: owner.clone(), buffer, dtype, len })
    }

    fn bytes(&self) -> u64 {
        self.len as u64 * self.dtype.size() as u64
    }

    pub(super) fn slice(&self) -> Slice<'_> {
        Slice::part(&self.buffer, self.dtype, 0..self.bytes())
    }

    pub(super) fn device_name(&self) -> &str {
        &self.owner.name
    }

    /// Makes the memory this tensor's alone.
    fn unshare(&mut self) -> Result<()> {
        if Arc::get_mut(&mut self.buffer).is_none() {
            let own = self.owner.buffer(self.bytes())?;
            self.owner.copy(&mut self.owner.lock(), &self.buffer, &own)?;
            self.buffer = Arc::new(own);
        }
        Ok(())
    }

    /// Overwrites all elements with as many of the same type.
    pub(super) fn write(&mut self, data: &HostData) -> Result<()> {
        self.unshare()?;
        // What is recorded reads the old values, and the queue would write first.
        self.owner.send(&mut self.owner.lock())?;
        let bytes = data.bytes();
        let (words, rest) = bytes.split_at(bytes.len() & !3);
        self.owner.executor.scoped("upload", self.bytes(), |_| {
            self.owner.queue.write_buffer(&self.buffer, 0, words);
            if !rest.is_empty() {
                let mut last = [0; 4];
                last[..rest.len()].copy_from_slice(rest);
                self.owner.queue.write_buffer(&self.buffer, words.len() as u64, &last);
            }
        })?;
        self.owner.executor.check_alive()
    }

    /// The elements, when all that runs on the device is done.
    pub(super) fn read(&self) -> Result<HostData> {
        may_block("Tensor::to_f32", "Tensor::to_f32_async")?;
        let reading = self.begin_read()?;
        reading.owner.poll()?;
        reading.finish()
    }

    /// Sends what is recorded, and behind it a copy of the elements.
    pub(super) fn begin_read(&self) -> Result<Reading> {
        let data = HostData::zeros(self.dtype, self.len)?;
        let size = self.buffer.size();
        let staging = self.owner.executor.scoped("readback", size, |device| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("fused-lora readback"),
                size,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        })?;
        self.owner.copy(&mut self.owner.lock(), &self.buffer, &staging)?;
        self.owner.send(&mut self.owner.lock())?;
        let mapped = Signal::default();
        self.owner.executor.scoped("readback", size, |_| {
            let mapped = mapped.sender();
            // Whether it worked shows when the range is taken.
            staging.map_async(wgpu::MapMode::Read, .., |_| mapped());
        })?;
        Ok(Reading { owner: self.owner.clone(), data, staging, mapped })
    }
}

/// Elements of a tensor that are being copied into `staging`.
pub(super) struct Reading {
    owner: Arc<WgpuDevice>,
    data: HostData,
    staging: wgpu::Buffer,
    mapped: Signal,
}

impl Reading {
    pub(super) async fn finish_async(mut self) -> Result<HostData> {
        self.owner.progress()?;
        core::mem::take(&mut self.mapped).await;
        self.owner.executor.settled().await?;
        self.finish()
    }

    /// When they have been copied.
    fn finish(self) -> Result<HostData> {
        let Reading { owner, mut data, staging, .. } = self;
        owner.executor.check_alive()?;
        let rejected = |error: wgpu::MapRangeError| Error::Rejected {
            what: "readback".to_owned(),
            reason: error.to_string(),
        };
        let range = staging.get_mapped_range(..).map_err(rejected)?;
        let bytes = data.bytes_mut();
        let len = bytes.len();
        bytes.copy_from_slice(&range[..len]);
        drop(range);
        // A browser would keep it until it collects garbage.
        staging.destroy();
        Ok(data)
    }
}

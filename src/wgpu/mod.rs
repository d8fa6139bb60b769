//! The executor on [`wgpu`]: records a plan's launches into a compute pass that the caller
//! opened, with the caller's buffers, on the device that the caller made.
//!
//! Called by frameworks, and by [`Device`](crate::Device). `call` takes operands and keeps the rest;
//! `slice` says where operands are,
//! `bind` turns them into bindings and refuses what WebGPU would, `cooperative` tries a device's matrices, `pipelines` compiles, `blocks`
//! keeps parameter blocks, `prepared` records; `scope` catches the device's errors, `reports` those that a
//! browser has yet to tell.
//!
//! No backend of wgpu is chosen here: an application enables the features of its platforms
//! on its own dependency (`wgpu = { version = "30", features = ["vulkan"] }`).

mod adapter;
mod bind;
mod blocks;
mod call;
mod cooperative;
mod pipelines;
mod prepared;
mod reports;
mod scope;
mod slice;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

pub use ::wgpu;
pub use prepared::Prepared;
pub use slice::{Slice, Workspace};

use self::blocks::Blocks;
use self::call::Kept;
use self::pipelines::Pipelines;
use self::reports::Reports;
use crate::executor::Plans;
use crate::{Capabilities, Error, Operands, Plan, Result, Scaled, WgpuCapabilities};

/// A device of wgpu, with the plans and pipelines that layers needed so far. Cheap to clone; clones share
/// them.
///
/// ```no_run
/// use fused_lora::wgpu::{Wgpu, wgpu};
/// use fused_lora::{DType, Forward, Matrix};
/// # fn host() -> (wgpu::Device, wgpu::Queue, [wgpu::Buffer; 5]) { std::process::abort() }
///
/// let (device, queue, [x, w, a, b, y]) = host();
/// let executor = Wgpu::new(&device)?;
///
/// let mut encoder = device.create_command_encoder(&Default::default());
/// let mut pass = encoder.begin_compute_pass(&Default::default());
/// let matrix = |buffer, rows, cols| Matrix::new((buffer, DType::F32), rows, cols);
/// executor.forward(
///     &mut pass,
///     Forward::new(matrix(&x, 8, 64), matrix(&w, 32, 64), matrix(&y, 8, 32))
///         .adapter(matrix(&a, 4, 64), matrix(&b, 32, 4))
///         .scale(2.0),
/// )?;
/// drop(pass);
/// queue.submit([encoder.finish()]);
/// # Ok::<(), fused_lora::Error>(())
/// ```
///
/// An operand in the middle of a buffer begins at a multiple of 16 bytes, or takes another, slower kernel.
/// Who keeps plans and workspaces himself goes to [`Wgpu::encode`] and [`Wgpu::prepare`].
///
/// In a browser the device answers after a call has returned: what it rejects, it tells through
/// [`Wgpu::settled`].
#[derive(Debug, Clone)]
pub struct Wgpu {
    inner: Arc<Inner>,
    capabilities: WgpuCapabilities,
}

/// What clones share.
#[derive(Debug)]
struct Inner {
    device: wgpu::Device,
    /// What the device grants, whatever a plan asks for.
    granted: WgpuCapabilities,
    checked: bool,
    cache: Option<wgpu::PipelineCache>,
    lost: Arc<OnceLock<String>>,
    pipelines: Pipelines,
    blocks: Blocks,
    plans: Plans,
    kept: Kept,
    /// In a browser: what it has yet to say.
    reports: Option<Reports>,
    /// See [`Inner::placeholder`].
    placeholder: [OnceLock<wgpu::Buffer>; 2],
}

/// What a [`Wgpu`] has created so far: pipelines and parameter blocks. After warm-up, and
/// once each operand's offset has been seen, neither grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Created {
    /// Pipelines compiled.
    pub pipelines: usize,
    /// Parameter blocks: buffers of a few dozen bytes each.
    pub blocks: usize,
}

impl Wgpu {
    /// On `device`, whose features and limits are taken as they are.
    ///
    /// # Errors
    /// [`Error::Feature`] where the device has no compute shaders.
    pub fn new(device: &wgpu::Device) -> Result<Wgpu> {
        let (features, limits) = (device.features(), device.limits());
        if limits.max_compute_invocations_per_workgroup == 0 {
            return Err(Error::Feature { feature: "compute shaders" });
        }
        let adapter = device.adapter_info();
        let subgroups = features.contains(wgpu::Features::SUBGROUP)
            && adapter.subgroup_min_size == adapter.subgroup_max_size;
        let granted = WgpuCapabilities {
            adapter: adapter::kind(&adapter),
            browser: adapter.backend == wgpu::Backend::BrowserWebGpu,
            f16: features.contains(wgpu::Features::SHADER_F16),
            subgroup: if subgroups { adapter.subgroup_min_size } else { 0 },
            cooperative: 0,
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            workgroup_threads: limits.max_compute_invocations_per_workgroup,
            workgroups: limits.max_compute_workgroups_per_dimension,
            storage_buffers: limits.max_storage_buffers_per_shader_stage,
            binding_bytes: limits.max_storage_buffer_binding_size,
            binding_align: limits.min_storage_buffer_offset_alignment,
            shared_buffers: false,
            storage_params: false,
        };
        let lost = Arc::default();
        Ok(Wgpu::with(device.clone(), granted, granted, false, None, lost))
    }

    fn with(
        device: wgpu::Device,
        granted: WgpuCapabilities,
        capabilities: WgpuCapabilities,
        checked: bool,
        cache: Option<wgpu::PipelineCache>,
        lost: Arc<OnceLock<String>>,
    ) -> Wgpu {
        let browser = device.adapter_info().backend == wgpu::Backend::BrowserWebGpu;
        let inner = Inner {
            device,
            granted,
            checked,
            cache,
            lost,
            reports: browser.then(Reports::default),
            pipelines: Pipelines::default(),
            blocks: Blocks::default(),
            plans: Plans::default(),
            kept: Kept::default(),
            placeholder: Default::default(),
        };
        Wgpu { inner: Arc::new(inner), capabilities }
    }

    /// Whether plans expect inputs and outputs in one `wgpu::Buffer`, as frameworks that
    /// sub-allocate have them: inputs are then declared `read_write`.
    pub fn with_shared_buffers(mut self, shared_buffers: bool) -> Wgpu {
        self.capabilities.shared_buffers = shared_buffers;
        self
    }

    /// Whether parameters come in a storage buffer instead of a uniform one.
    pub fn with_storage_params(mut self, storage_params: bool) -> Wgpu {
        self.capabilities.storage_params = storage_params;
        self
    }

    /// Whether shaders are compiled with wgpu's own checks of bounds and loops. The kernels
    /// guard every access themselves, so the default is without; this is for finding out. The
    /// result begins without pipelines.
    pub fn with_checks(self, checked: bool) -> Wgpu {
        let Inner { device, granted, cache, lost, .. } = &*self.inner;
        let (device, cache, lost) = (device.clone(), cache.clone(), lost.clone());
        Wgpu::with(device, *granted, self.capabilities, checked, cache, lost)
    }

    /// With a cache of the caller's, so that the next process compiles less. The result
    /// begins without pipelines.
    pub fn with_pipeline_cache(self, cache: wgpu::PipelineCache) -> Wgpu {
        let Inner { device, granted, checked, lost, .. } = &*self.inner;
        let (device, lost) = (device.clone(), lost.clone());
        Wgpu::with(device, *granted, self.capabilities, *checked, Some(cache), lost)
    }

    /// What to plan for. A plan made for less (a default device, say) runs as well.
    pub fn capabilities(&self) -> Capabilities {
        Capabilities::Wgpu(self.capabilities)
    }

    /// The device.
    pub fn device(&self) -> &wgpu::Device {
        &self.inner.device
    }

    /// Takes note that the device is lost: all else then answers [`Error::DeviceLost`]. wgpu
    /// keeps one callback per device, which is the host's; a host calls this from it.
    pub fn lose(&self, reason: impl Into<String>) {
        // The first reason stays.
        let _ = self.inner.lost.set(reason.into());
    }

    /// For a host without a callback of its own: sets the device's to [`Wgpu::lose`].
    pub fn watch(&self) {
        let lost = self.inner.lost.clone();
        self.inner.device.set_device_lost_callback(move |reason, message| {
            let _ = lost.set(format!("{reason:?}: {message}"));
        });
    }

    /// What has been created so far.
    pub fn created(&self) -> Created {
        Created { pipelines: self.inner.pipelines.created(), blocks: self.inner.blocks.created() }
    }

    /// Compiles what `plan` needs and is not compiled yet.
    ///
    /// # Errors
    /// A plan for another device; what the driver says to a kernel.
    pub fn warm_up(&self, plan: &Plan) -> Result<()> {
        self.inner.check_alive()?;
        self.inner.check_plan(plan)?;
        for launch in plan.launches() {
            self.inner.pipeline(plan, launch)?;
        }
        Ok(())
    }

    /// [`Wgpu::warm_up`], done when the device has said what it has to say: in a browser, which compiles
    /// beside the page, that is later.
    ///
    /// # Errors
    /// As there.
    pub async fn warm_up_async(&self, plan: &Plan) -> Result<()> {
        self.warm_up(plan)?;
        self.settled().await
    }

    /// Waits for what the device has to say to all that this executor has made and recorded so far, which calls
    /// themselves return natively, and cannot return in a browser. A host there awaits it when it waits for
    /// results anyway. (A browser's internal errors, its own driver's, go to its console alone: wgpu panics on
    /// whoever asks for them.)
    ///
    /// # Errors
    /// The first that the device reported and nobody has been told yet; a lost device.
    pub async fn settled(&self) -> Result<()> {
        if let Some(reports) = &self.inner.reports {
            reports.settled().await?;
        }
        self.inner.check_alive()
    }

    /// Records `plan` on `operands` into an open pass: [`Wgpu::prepare`] and
    /// [`Prepared::encode`]. It makes bind groups, and after [`Wgpu::warm_up`] no pipeline.
    ///
    /// ```no_run
    /// use fused_lora::wgpu::{Slice, Wgpu, Workspace, wgpu};
    /// use fused_lora::{DType, Forward, Matrix, Plan, Problem};
    /// # fn host() -> (wgpu::Device, wgpu::ComputePass<'static>, [wgpu::Buffer; 3]) { std::process::abort() }
    ///
    /// let (device, mut pass, [x, w, y]) = host();
    /// let executor = Wgpu::new(&device)?;
    /// let plan = Plan::new(&Problem::forward(8, 64, 32, 0), &executor.capabilities())?;
    /// executor.warm_up(&plan)?;
    /// // A part of a larger buffer, a kilobyte into it.
    /// let w = Slice::part(&w, DType::F32, 1024..1024 + 32 * 64 * 4);
    /// let matrix = |buffer, rows, cols| Matrix::new((buffer, DType::F32), rows, cols);
    /// let forward = Forward::new(matrix(&x, 8, 64), Matrix::new(w, 32, 64), matrix(&y, 8, 32));
    /// executor.encode(&mut pass, &plan, forward, Workspace::none())?;
    /// # Ok::<(), fused_lora::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Wgpu::prepare`]; nothing has been recorded then.
    pub fn encode<'a, 'p>(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        plan: impl Into<Scaled<'p>>,
        operands: impl Into<Operands<Slice<'a>, Slice<'a>>>,
        workspace: Workspace<'_>,
    ) -> Result<()> {
        self.prepare(plan, operands, workspace)?.encode(pass)
    }

    /// Binds `operands` to `plan` once, to be recorded any number of times.
    ///
    /// # Errors
    /// A plan for another device, an operand that is not the plan's, buffers that WebGPU
    /// would not bind ([`Error::Usage`], [`Error::SharedBuffer`], [`Error::Limit`]), a
    /// workspace that is too small, a kernel that the driver rejects, a lost device.
    pub fn prepare<'a, 'p>(
        &self,
        plan: impl Into<Scaled<'p>>,
        operands: impl Into<Operands<Slice<'a>, Slice<'a>>>,
        workspace: Workspace<'_>,
    ) -> Result<Prepared> {
        let operands = operands.into();
        let scaled = operands.on(plan)?;
        self.inner.check_alive()?;
        self.inner.check_plan(scaled.plan())?;
        prepared::prepare(&self.inner, scaled, operands, workspace)
    }
}

/// For [`Device`](crate::Device), which makes its own buffers and submits.
impl Wgpu {
    pub(crate) fn scoped<T>(
        &self,
        what: &str,
        bytes: u64,
        make: impl FnOnce(&wgpu::Device) -> T,
    ) -> Result<T> {
        self.inner.scoped(what, bytes, make)
    }

    pub(crate) fn check_alive(&self) -> Result<()> {
        self.inner.check_alive()
    }
}

impl Inner {
    fn check_alive(&self) -> Result<()> {
        match self.lost.get() {
            Some(reason) => Err(Error::DeviceLost { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Whether this device grants all that the plan was made for.
    fn check_plan(&self, plan: &Plan) -> Result<()> {
        let planned = planned(plan)?;
        let granted = &self.granted;
        if planned.browser && !granted.browser && planned.subgroup != 0 {
            return Err(Error::Feature { feature: "`enable subgroups;` of browsers" });
        }
        if planned.f16 && !granted.f16 {
            return Err(Error::Feature { feature: "SHADER_F16" });
        }
        if planned.subgroup != 0 && planned.subgroup != granted.subgroup {
            let (limit, got) = (granted.subgroup.into(), planned.subgroup.into());
            return Err(match limit {
                0 => Error::Feature { feature: "SUBGROUP" },
                _ => Error::DeviceLimit { what: "threads of a subgroup", limit, got },
            });
        }
        if planned.cooperative != 0 && planned.cooperative != granted.cooperative {
            let (limit, got) = (granted.cooperative.into(), planned.cooperative.into());
            return Err(match limit {
                0 => Error::Feature { feature: "cooperative matrices (Wgpu::with_cooperative)" },
                _ => Error::DeviceLimit { what: "side of a cooperative matrix", limit, got },
            });
        }
        let at_most = |what, limit: u64, got: u64| match got > limit {
            true => Err(Error::DeviceLimit { what, limit, got }),
            false => Ok(()),
        };
        let (bytes, threads) = ("bytes of workgroup memory", "threads of a workgroup");
        at_most(bytes, granted.workgroup_bytes.into(), planned.workgroup_bytes.into())?;
        at_most(threads, granted.workgroup_threads.into(), planned.workgroup_threads.into())?;
        at_most("workgroups", granted.workgroups.into(), planned.workgroups.into())?;
        let (buffers, bytes) = ("storage buffers", "bytes of a storage binding");
        at_most(buffers, granted.storage_buffers.into(), planned.storage_buffers.into())?;
        at_most(bytes, granted.binding_bytes, planned.binding_bytes)?;
        // Offsets that suit the plan have to suit the device.
        if !planned.binding_align.is_multiple_of(granted.binding_align) {
            let (limit, got) = (granted.binding_align.into(), planned.binding_align.into());
            return Err(Error::DeviceLimit { what: "alignment of a binding", limit, got });
        }
        Ok(())
    }
}

/// What the plan was made for.
fn planned(plan: &Plan) -> Result<&WgpuCapabilities> {
    match plan.capabilities() {
        Capabilities::Wgpu(planned) => Ok(planned),
        other => Err(Error::Executor { expected: "wgpu", got: other.executor() }),
    }
}

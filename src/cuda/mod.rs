//! The executor on CUDA, through [`cudarc`]: takes a plan's launches to a caller's stream, with
//! the caller's memory, in the context that the caller made.
//!
//! Called by frameworks, and by [`Device`](crate::Device). `call` takes operands and keeps the rest; `slice`
//! and `arena` say where operands are, `workspace` and `memory` keep the memory that launches share, `kernels` has the driver compile, `launch`
//! checks and launches, `fault` reads the driver's codes, `probe` looks for a driver.
//!
//! | tier | operands | stream | orders other streams by |
//! |---|---|---|---|
//! | [`Cuda::forward`] and the like, [`Cuda::run`] | [`Slice`], [`SliceMut`] over cudarc's slices and views | `Arc<CudaStream>` | cudarc's events, and one of the [`Workspace`] |
//! | [`Cuda::forward_raw`] and the like, [`Cuda::run_raw`] (`unsafe`) | [`Raw`] addresses | `CUstream` | nothing: the caller does |
//!
//! Neither allocates, compiles after [`Cuda::warm_up`], waits on the host, or holds a lock while
//! it launches; `forward` and the like make what they keep when they first meet a problem or a stream. An
//! operand whose layout promises no alignment (`align` 0) begins at a multiple of 16 bytes;
//! [`Operands::problem`](crate::Operands::problem) reads off where operands really lie, and plans for those run
//! as well.
//!
//! # CUDA graphs
//!
//! [`Cuda::run`] and [`Cuda::run_raw`] may be captured and the graph replayed: no host value changes between
//! launches. (`forward` and the like may not: a graph needs a workspace of its own.)
//! cudarc's own event tracking cannot be captured, so [`Cuda::run`] then needs a context whose
//! tracking is off (`CudaContext::disable_event_tracking`), and says so. Operands, workspace and
//! [`Cuda`] outlive the graph, a workspace serves one running copy of it at a time, and who
//! launches graphs orders them. A kernel that is not loaded yet is loaded beside the capture by drivers
//! of CUDA 12.3 and later; earlier ones would spoil it, so there it is an error, and [`Cuda::warm_up`] comes
//! first.

mod arena;
mod call;
mod call_raw;
pub(crate) mod fault;
mod kernels;
mod launch;
mod memory;
mod probe;
mod slice;
mod steps;
mod workspace;

use std::sync::Arc;

pub use cudarc;
use cudarc::driver::sys::{self, CUdevice_attribute, CUstream};
use cudarc::driver::{CudaContext, CudaStream, result};

pub use self::arena::Arena;
use self::kernels::Kernels;
use self::launch::Current;
pub use self::probe::{is_available, probe};
use self::slice::check_context;
pub use self::slice::{Guarded, Raw, Slice, SliceMut};
use self::steps::Kept;
pub use self::workspace::{RawWorkspace, WORKSPACE_ALIGN, WORKSPACE_HEADER, Workspace};
use crate::executor::Plans;
use crate::plan::cuda::is_idle;
use crate::{Capabilities, CudaCapabilities, Error, Operands, Plan, Result, Scaled};

/// A CUDA context, with the plans, kernels and workspaces that layers needed so far. Cheap to clone; clones
/// share them. Kernels are unloaded, once the context's work is done, with the last clone.
///
/// ```no_run
/// use fused_lora::cuda::{Cuda, cudarc::driver::CudaContext};
/// use fused_lora::{Forward, Matrix};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// // cudarc panics where there is no driver.
/// fused_lora::cuda::probe()?;
/// let context = CudaContext::new(0)?;
/// let stream = context.default_stream();
/// let executor = Cuda::new(&context)?;
///
/// let (x, w) = (stream.alloc_zeros::<f32>(8 * 64)?, stream.alloc_zeros::<f32>(32 * 64)?);
/// let (a, b) = (stream.alloc_zeros::<f32>(4 * 64)?, stream.alloc_zeros::<f32>(32 * 4)?);
/// let mut y = stream.alloc_zeros::<f32>(8 * 32)?;
/// executor.forward(
///     &stream,
///     Forward::new(Matrix::new(&x, 8, 64), Matrix::new(&w, 32, 64), Matrix::new(&mut y, 8, 32))
///         .adapter(Matrix::new(&a, 4, 64), Matrix::new(&b, 32, 4))
///         .scale(2.0),
/// )?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Cuda {
    inner: Arc<Inner>,
}

/// What clones share.
#[derive(Debug)]
struct Inner {
    context: Arc<CudaContext>,
    capabilities: CudaCapabilities,
    /// The driver loads kernels while a stream is captured.
    loads_beside_captures: bool,
    kernels: Kernels,
    plans: Plans,
    kept: Kept,
}

/// The first CUDA whose drivers load a module beside a capture and leave that as it was.
const LOADS_BESIDE_CAPTURES: i32 = 12_030;

impl Cuda {
    /// In `context`, whose device is asked what it can do.
    ///
    /// # Errors
    /// What the driver says.
    pub fn new(context: &Arc<CudaContext>) -> Result<Cuda> {
        let inner = Inner {
            context: context.clone(),
            capabilities: capabilities(context)?,
            loads_beside_captures: driver_version()? >= LOADS_BESIDE_CAPTURES,
            kernels: Kernels::new(context),
            plans: Plans::default(),
            kept: Kept::default(),
        };
        Ok(Cuda { inner: Arc::new(inner) })
    }

    /// What to plan for. A plan made for another card runs as well, where this one grants what
    /// it asks for.
    pub fn capabilities(&self) -> Capabilities {
        Capabilities::Cuda(self.inner.capabilities)
    }

    /// The context.
    pub fn context(&self) -> &Arc<CudaContext> {
        &self.inner.context
    }

    /// How many kernels have been loaded so far. It does not grow after [`Cuda::warm_up`].
    pub fn kernels(&self) -> usize {
        self.inner.kernels.len()
    }

    /// Has the driver compile what `plan` needs and has not been compiled yet.
    ///
    /// # Errors
    /// A plan for another device; what the driver says to a kernel: [`Error::DriverTooOld`],
    /// [`Error::Rejected`] with the compiler's log.
    pub fn warm_up(&self, plan: &Plan) -> Result<()> {
        let inner = &*self.inner;
        inner.check_plan(plan)?;
        inner.bind()?;
        inner.load(plan)
    }

    /// Launches `plan` on `stream`: behind what other streams of this context did with the
    /// operands, as far as cudarc tracks that, and behind the last run on `workspace`. It may
    /// only be on its way when this returns.
    ///
    /// # Errors
    /// A plan for another device; operands, a stream or a workspace that are not the plan's or
    /// not of this context; a workspace that is too small; a captured stream in a context that
    /// tracks events, or on a driver before CUDA 12.3 with a kernel that is not loaded yet; what the
    /// driver says to a kernel. Nothing has been launched then, unless
    /// the driver itself failed in the middle of the plan.
    pub fn run<'a, 'p>(
        &self,
        stream: &Arc<CudaStream>,
        plan: impl Into<Scaled<'p>>,
        operands: impl Into<Operands<Slice<'a>, SliceMut<'a>>>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        let operands = operands.into();
        let scaled = operands.on(plan)?;
        let (inner, plan) = (&*self.inner, scaled.plan());
        let context = &*inner.context;
        inner.check_plan(plan)?;
        check_context("stream", stream.context(), context)?;
        check_context("workspace", workspace.context(), context)?;
        inner.bind()?;
        let capturing = is_capturing(stream)?;
        if capturing {
            check_capture(stream.context())?;
            inner.kernels.keep();
        }
        inner.load_for(stream.cu_stream(), plan)?;
        let check = |operand, of: &CudaContext| {
            check_context(operand, of, context)?;
            if capturing { check_capture(of) } else { Ok(()) }
        };
        // The guards live until everything is launched.
        let operands = operands.try_map(
            |operand, slice| check(operand, slice.context()).map(|()| slice.guard(stream)),
            |operand, slice| check(operand, slice.context()).map(|()| slice.guard(stream)),
        )?;
        // cudarc keeps what failed while guards were made.
        stream.context().check_err().map_err(|error| fault::of("event", error))?;
        let addresses = launch::check(plan, &operands, workspace.raw())?;
        if !capturing {
            workspace.enter(stream)?;
        }
        inner.launch(stream.cu_stream(), scaled, &addresses)?;
        if !capturing {
            workspace.leave(stream)?;
        }
        Ok(())
    }

    /// Launches `plan` on `stream` with operands at bare addresses. Records no event and waits
    /// for none; the context that is current on this thread is the same before and after.
    ///
    /// # Safety
    /// * `stream` is a stream of this executor's context.
    /// * Every operand's elements lie in memory of its device until the launches are done, and
    ///   no other work touches what they write, or writes what they read, meanwhile: the caller
    ///   orders streams.
    /// * `workspace` is memory of the device whose first [`WORKSPACE_HEADER`] bytes were zeroed
    ///   once, before its first use, and written by nothing but this crate's launches since.
    /// * One workspace serves one launch of a plan at a time: plans on one stream may share it;
    ///   streams that run side by side, and running copies of one graph, may not. Launches that do
    ///   take each other's tickets and flags: the results are wrong, and no error says so
    ///   ([`Cuda::is_idle_raw`] helps to find that). A handle tells streams apart on one host
    ///   thread only (per-thread default streams).
    /// * When `stream` is captured, operands, workspace and this executor (or a clone of it)
    ///   outlive the graph.
    ///
    /// # Errors
    /// As [`Cuda::run`], as far as addresses and lengths show it.
    pub unsafe fn run_raw<'p>(
        &self,
        stream: CUstream,
        plan: impl Into<Scaled<'p>>,
        operands: impl Into<Operands<Raw, Raw>>,
        workspace: RawWorkspace,
    ) -> Result<()> {
        let operands = operands.into();
        let scaled = operands.on(plan)?;
        let (inner, plan) = (&*self.inner, scaled.plan());
        inner.check_plan(plan)?;
        let addresses = launch::check(plan, &operands, workspace)?;
        let _current = Current::enter(&inner.context)?;
        inner.load_for(stream, plan)?;
        inner.launch(stream, scaled, &addresses)
    }

    /// Whether the header of `workspace` is as it is between two launches, once the work of `stream` is done;
    /// for debugging: it waits for that on the host.
    ///
    /// `false` where a launch on another stream uses it now, or has used it at the same time as one of
    /// `stream`; where one was ended before its end; where the first [`WORKSPACE_HEADER`] bytes were never
    /// zeroed, or were written to. Two launches that met in a workspace may leave it idle.
    ///
    /// # Safety
    /// `stream` is a stream of this executor's context, `workspace` memory of its device.
    ///
    /// # Errors
    /// A captured stream; what the driver says.
    pub unsafe fn is_idle_raw(&self, stream: CUstream, workspace: RawWorkspace) -> Result<bool> {
        if workspace.len < WORKSPACE_HEADER {
            return Ok(true);
        }
        let _current = Current::enter(&self.inner.context)?;
        if is_captured(stream)? {
            let reason = "a workspace's header cannot be waited for in a capture".to_owned();
            return Err(Error::Capture { reason });
        }
        let mut header = Box::new([0_u8; WORKSPACE_HEADER]);
        // SAFETY: the header lies in the workspace, and the wait below comes before `header` goes.
        let copied =
            unsafe { result::memcpy_dtoh_async(&mut header[..], workspace.address, stream) };
        // SAFETY: a stream of the current context.
        let waited = unsafe { result::stream::synchronize(stream) };
        copied.and(waited).map_err(|error| fault::of("workspace", error))?;
        Ok(is_idle(&header))
    }
}

impl Inner {
    fn bind(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(|error| fault::of("context", error))
    }

    /// Whether the plan is for CUDA, and this device grants what it asks for.
    fn check_plan(&self, plan: &Plan) -> Result<()> {
        let Capabilities::Cuda(_) = plan.capabilities() else {
            let got = plan.capabilities().executor();
            return Err(Error::Executor { expected: "cuda", got });
        };
        let granted = self.capabilities.shared_bytes;
        match plan.launches().iter().map(|launch| launch.shared_bytes).max() {
            Some(got) if got > granted => Err(Error::DeviceLimit {
                what: "bytes of shared memory of a block",
                limit: granted.into(),
                got: got.into(),
            }),
            _ => Ok(()),
        }
    }

    /// [`Inner::load`] for launches on a stream that may be captured.
    fn load_for(&self, stream: CUstream, plan: &Plan) -> Result<()> {
        let is_loaded = || plan.launches().iter().all(|launch| self.kernels.has(launch));
        if !self.loads_beside_captures && !is_loaded() && is_captured(stream)? {
            let reason = "a kernel is not loaded yet, and drivers before CUDA 12.3 load none while a stream \
                          is captured: call Cuda::warm_up before the capture begins";
            return Err(Error::Capture { reason: reason.to_owned() });
        }
        self.load(plan)
    }

    /// Everything that can fail is loaded before anything is launched.
    fn load(&self, plan: &Plan) -> Result<()> {
        plan.launches().iter().try_for_each(|launch| self.kernels.get(launch).map(drop))
    }
}

/// The handle that means another stream on each host thread.
fn is_per_thread(stream: CUstream) -> bool {
    stream.addr() == 2
}

/// Whether what goes to `stream` becomes a graph.
fn is_capturing(stream: &CudaStream) -> Result<bool> {
    stream.context().bind_to_thread().map_err(|error| fault::of("context", error))?;
    is_captured(stream.cu_stream())
}

/// [`is_capturing`] by its handle; its context is current.
fn is_captured(stream: CUstream) -> Result<bool> {
    // The legacy stream cannot be captured, and must not be asked while another one is.
    if stream.addr() <= 1 {
        return Ok(false);
    }
    // SAFETY: a stream of the current context.
    let status = unsafe { result::stream::is_capturing(stream) };
    match status.map_err(|error| fault::of("capture status", error))? {
        sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE => Ok(false),
        sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE => Ok(true),
        sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_INVALIDATED => {
            Err(Error::Capture { reason: "an earlier call has spoilt it".to_owned() })
        }
    }
}

/// The CUDA that the driver is of, as 12030.
fn driver_version() -> Result<i32> {
    let mut version = 0;
    // SAFETY: the driver writes one number.
    let code = unsafe { sys::cuDriverGetVersion(&mut version) };
    code.result().map_err(|error| fault::of("driver version", error))?;
    Ok(version)
}

fn check_capture(context: &CudaContext) -> Result<()> {
    if context.is_managing_stream_synchronization() {
        let reason = "cudarc tracks this context's slices by events, which a graph cannot wait \
                      for: turn that off (CudaContext::disable_event_tracking) before they are \
                      made, or use Cuda::run_raw";
        return Err(Error::Capture { reason: reason.to_owned() });
    }
    Ok(())
}

fn capabilities(context: &CudaContext) -> Result<CudaCapabilities> {
    use CUdevice_attribute::*;
    let attribute = |of| match context.attribute(of) {
        Ok(value) => Ok(u32::try_from(value).unwrap_or(0)),
        Err(error) => Err(fault::of("device attribute", error)),
    };
    let typical = CudaCapabilities::default();
    let known = |value, typical| if value == 0 { typical } else { value };
    // Bits on both edges of the clock, in kHz; newer drivers no longer tell either.
    let memory_khz = u64::from(attribute(CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)?);
    let bus_bits = u64::from(attribute(CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH)?);
    let gigabytes = u32::try_from(memory_khz * bus_bits / 8 * 2 / 1_000_000).unwrap_or(u32::MAX);
    Ok(CudaCapabilities {
        compute_capability: (
            attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        multiprocessors: attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        shared_bytes: attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        shared_bytes_per_multiprocessor: attribute(
            CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR,
        )?,
        l2_bytes: attribute(CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?,
        clock_mhz: known(attribute(CU_DEVICE_ATTRIBUTE_CLOCK_RATE)? / 1000, typical.clock_mhz),
        gigabytes_per_second: known(gigabytes, typical.gigabytes_per_second),
        // No attribute tells: A6000, L40 and their like share the others with GeForce cards.
        halved_f32_sums: context.name().is_ok_and(|name| name.contains("GeForce")),
    })
}

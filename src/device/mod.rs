//! For applications: a device that is found by itself, and tensors that it owns. Frameworks
//! bring their own buffers and go to the executors directly.
//!
//! `tensor` is what a device stores; `cuda` opens cards and keeps their streams; `wgpu` opens
//! adapters of wgpu and keeps their queues.

#[cfg(feature = "cuda")]
mod cuda;
mod tensor;
#[cfg(feature = "wgpu")]
mod wgpu;

use std::sync::{Arc, Mutex, PoisonError};

pub use tensor::Tensor;
use tensor::{HostData, Storage};

use crate::cpu::{Cpu, Workspace};
use crate::{Capabilities, Choice, DType, Error, Operands, Plan, Problem, Result};

/// The environment variable that [`Device::from_env`] reads.
pub const DEVICE_VARIABLE: &str = "FUSED_LORA_DEVICE";

/// Somewhere to run plans. Cheap to clone.
///
/// ```
/// use fused_lora::{Adapter, DType, Device, Forward, Problem};
///
/// let device = Device::best();
/// let problem = Problem::forward(2, 3, 4, 1).with_dtype(DType::Bf16).with_keep_shrunk(false);
/// let plan = device.plan(&problem)?;
///
/// let x = device.tensor(2, 3, DType::Bf16, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
/// let w = device.tensor(4, 3, DType::Bf16, &[0.5; 12])?;
/// let a = device.tensor(1, 3, DType::Bf16, &[1.0; 3])?;
/// let b = device.tensor(4, 1, DType::Bf16, &[1.0; 4])?;
/// let mut y = device.zeros(2, 4, DType::Bf16)?;
/// device.run(
///     &plan,
///     Forward {
///         x: x.matrix(),
///         w: w.matrix(),
///         bias: None,
///         adapter: Some(Adapter::new(a.matrix(), b.matrix())),
///         y: y.matrix_mut(),
///         shrunk: None,
///     },
/// )?;
/// assert_eq!(y.to_f32()?, [9.0, 9.0, 9.0, 9.0, 22.5, 22.5, 22.5, 22.5]);
/// # Ok::<(), fused_lora::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Device {
    executor: Executor,
}

#[derive(Debug, Clone)]
enum Executor {
    /// The workspace grows to the largest plan that ran.
    Cpu { cpu: Cpu, workspace: Arc<Mutex<Workspace>> },
    #[cfg(feature = "wgpu")]
    Wgpu(Arc<wgpu::WgpuDevice>),
    #[cfg(feature = "cuda")]
    Cuda(Arc<cuda::CudaDevice>),
}

impl Device {
    /// The CPU.
    pub fn cpu() -> Device {
        let workspace = Arc::new(Mutex::new(Workspace::default()));
        Device { executor: Executor::Cpu { cpu: Cpu::new(), workspace } }
    }

    /// The fastest device there is: CUDA, then a hardware adapter of wgpu, then the CPU. A
    /// software driver is taken by its name only.
    pub fn best() -> Device {
        #[cfg(feature = "cuda")]
        if let Ok(device) = cuda::CudaDevice::open("cuda") {
            return Device { executor: Executor::Cuda(device) };
        }
        #[cfg(feature = "wgpu")]
        if let Ok(device) = wgpu::WgpuDevice::open("wgpu") {
            return Device { executor: Executor::Wgpu(device) };
        }
        Device::cpu()
    }

    /// The names that [`Device::open`] takes on this machine, best first.
    pub fn available() -> Vec<String> {
        let names = ["cpu".to_owned()].into_iter();
        #[cfg(feature = "wgpu")]
        let names = wgpu::names().into_iter().chain(names);
        #[cfg(feature = "cuda")]
        let names = cuda::names().into_iter().chain(names);
        names.collect()
    }

    /// The device of this name.
    ///
    /// | name | device |
    /// |---|---|
    /// | `auto` | [`Device::best`] |
    /// | `cpu` | [`Device::cpu`] |
    /// | `cuda` | the first NVIDIA card, from Ampere on |
    /// | `cuda:1` | the card of this number |
    /// | `wgpu` | the best hardware adapter that wgpu finds |
    /// | `wgpu:llvmpipe` | the first adapter, software or not, with this in its name |
    ///
    /// wgpu finds what its backend features let it: an application enables those of its
    /// platforms (`vulkan`, `metal`, `dx12`) on its own dependency on wgpu.
    ///
    /// # Errors
    /// [`Error::Device`], which lists what there is.
    pub fn open(name: &str) -> Result<Device> {
        let reason = match name {
            "auto" => return Ok(Device::best()),
            "cpu" => return Ok(Device::cpu()),
            #[cfg(feature = "cuda")]
            of if of == "cuda" || of.starts_with("cuda:") => match cuda::CudaDevice::open(of) {
                Ok(device) => return Ok(Device { executor: Executor::Cuda(device) }),
                Err(reason) => reason,
            },
            #[cfg(feature = "wgpu")]
            of if of == "wgpu" || of.starts_with("wgpu:") => match wgpu::WgpuDevice::open(of) {
                Ok(device) => return Ok(Device { executor: Executor::Wgpu(device) }),
                Err(reason) => reason,
            },
            "cuda" | "wgpu" => "this build is without its feature".to_owned(),
            _ => "no such name".to_owned(),
        };
        let available = Device::available().join(", ");
        Err(Error::Device { wanted: name.to_owned(), reason, available })
    }

    /// The device that the environment variable `FUSED_LORA_DEVICE` names, or the best one.
    ///
    /// # Errors
    /// [`Error::Device`], as [`Device::open`].
    pub fn from_env() -> Result<Device> {
        match std::env::var(DEVICE_VARIABLE) {
            Ok(name) => Device::open(&name),
            Err(std::env::VarError::NotPresent) => Ok(Device::best()),
            Err(std::env::VarError::NotUnicode(name)) => Device::open(&name.to_string_lossy()),
        }
    }

    /// Its name, as [`Device::open`] takes it.
    pub fn name(&self) -> &str {
        match &self.executor {
            Executor::Cpu { .. } => "cpu",
            #[cfg(feature = "wgpu")]
            Executor::Wgpu(device) => device.name(),
            #[cfg(feature = "cuda")]
            Executor::Cuda(device) => device.name(),
        }
    }

    /// What it is, with the driver's words, for reports.
    pub fn description(&self) -> String {
        match &self.executor {
            Executor::Cpu { .. } => "cpu".to_owned(),
            #[cfg(feature = "wgpu")]
            Executor::Wgpu(device) => device.description(),
            #[cfg(feature = "cuda")]
            Executor::Cuda(device) => device.description(),
        }
    }

    /// What it can do.
    pub fn capabilities(&self) -> Capabilities {
        match &self.executor {
            Executor::Cpu { cpu, .. } => cpu.capabilities(),
            #[cfg(feature = "wgpu")]
            Executor::Wgpu(device) => device.capabilities(),
            #[cfg(feature = "cuda")]
            Executor::Cuda(device) => device.capabilities(),
        }
    }

    /// [`Plan::new`] for this device.
    ///
    /// # Errors
    /// As there.
    pub fn plan(&self, problem: &Problem) -> Result<Plan> {
        self.choose(problem, &Choice::default())
    }

    /// [`Plan::choose`] for this device.
    ///
    /// # Errors
    /// As there.
    pub fn choose(&self, problem: &Problem, choice: &Choice) -> Result<Plan> {
        Plan::choose(problem, &self.capabilities(), choice)
    }

    /// Runs `plan` on tensors of this device. On a GPU it may only be on its way when this
    /// returns: [`Device::wait`] and [`Tensor::to_f32`] wait for it, and report what the
    /// device found then.
    ///
    /// # Errors
    /// As the executor's, and [`Error::OtherDevice`]; nothing has been written then.
    pub fn run<'a>(
        &self,
        plan: &Plan,
        operands: impl Into<Operands<&'a Tensor, &'a mut Tensor>>,
    ) -> Result<()> {
        let operands = operands.into();
        match &self.executor {
            Executor::Cpu { cpu, workspace } => {
                let other = |operand, tensor: &Tensor| Error::OtherDevice {
                    operand,
                    expected: "cpu".to_owned(),
                    got: tensor.device_name().to_owned(),
                };
                let operands = operands.try_map(
                    |operand, tensor| tensor.on_host().ok_or_else(|| other(operand, tensor)),
                    |operand, tensor| {
                        if tensor.on_host().is_none() {
                            return Err(other(operand, tensor));
                        }
                        tensor.on_host_mut().ok_or(Error::Missing { operand })
                    },
                )?;
                // A panic elsewhere leaves nothing in the workspace that could matter.
                let mut workspace = workspace.lock().unwrap_or_else(PoisonError::into_inner);
                workspace.grow(plan.workspace_len())?;
                cpu.run(plan, operands, &mut workspace)
            }
            #[cfg(feature = "wgpu")]
            Executor::Wgpu(device) => device.run(plan, operands),
            #[cfg(feature = "cuda")]
            Executor::Cuda(device) => device.run(plan, operands),
        }
    }

    /// Waits until everything that ran on this device is done.
    ///
    /// # Errors
    /// What the device reports; the CPU nothing.
    pub fn wait(&self) -> Result<()> {
        match &self.executor {
            Executor::Cpu { .. } => Ok(()),
            #[cfg(feature = "wgpu")]
            Executor::Wgpu(device) => device.wait(),
            #[cfg(feature = "cuda")]
            Executor::Cuda(device) => device.wait(),
        }
    }

    /// A tensor of `values`, row by row, each rounded to `dtype`.
    ///
    /// # Errors
    /// [`Error::TensorLen`], [`Error::OutOfMemory`].
    pub fn tensor(&self, rows: usize, cols: usize, dtype: DType, values: &[f32]) -> Result<Tensor> {
        // Before memory is asked for, which may be more than there is.
        let (shape, expected) = ([rows, cols], rows.saturating_mul(cols));
        if values.len() != expected {
            return Err(Error::TensorLen { shape, expected, got: values.len() });
        }
        let mut tensor = self.zeros(rows, cols, dtype)?;
        tensor.write(values)?;
        Ok(tensor)
    }

    /// A tensor of zeros.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn zeros(&self, rows: usize, cols: usize, dtype: DType) -> Result<Tensor> {
        let len = rows.checked_mul(cols).ok_or(Error::OutOfMemory { bytes: usize::MAX })?;
        let storage = match &self.executor {
            Executor::Cpu { .. } => Storage::Host(HostData::zeros(dtype, len)?),
            #[cfg(feature = "wgpu")]
            Executor::Wgpu(device) => Storage::Wgpu(wgpu::Allocation::zeros(device, dtype, len)?),
            #[cfg(feature = "cuda")]
            Executor::Cuda(device) => Storage::Cuda(cuda::Allocation::zeros(device, dtype, len)?),
        };
        Ok(Tensor::new(rows, cols, storage))
    }
}

//! For applications: a device that is found by itself, and tensors that it owns. Frameworks
//! bring their own buffers and go to the executors directly.
//!
//! `tensor` is what a device stores, `tune` times candidates, by a device's `timestamps` where it has them; `cuda` opens cards and keeps their streams; `adapters` finds those of
//! wgpu, `wgpu` opens them and keeps their queues, and waits in a browser by `signal`.

#[cfg(feature = "wgpu")]
mod adapters;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "wgpu")]
mod signal;
mod tensor;
#[cfg(all(feature = "wgpu", not(target_family = "wasm")))]
mod timestamps;
#[cfg(not(target_family = "wasm"))]
mod tune;
#[cfg(feature = "wgpu")]
mod wgpu;

#[cfg(any(feature = "cuda", feature = "wgpu"))]
use std::sync::Arc;

pub use tensor::Tensor;
use tensor::{HostData, Storage};
#[cfg(not(target_family = "wasm"))]
pub use tune::Timing;

use crate::cpu::{Cpu, Slice, SliceMut};
use crate::operands::{Call, call};
use crate::{
    Backward, BackwardGain, Capabilities, Choice, DType, Error, Forward, Merge, Norm, Operand,
    Operands, Plan, Problem, Result, Scaled,
};

/// The environment variable that [`Device::from_env`] reads.
pub const DEVICE_VARIABLE: &str = "FUSED_LORA_DEVICE";

/// Somewhere to run layers, from any thread. Cheap to clone; clones are the same device.
///
/// ```
/// use fused_lora::{DType, Device, Forward};
///
/// let device = Device::best();
/// let x = device.tensor(2, 3, DType::Bf16, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
/// let w = device.tensor(4, 3, DType::Bf16, &[0.5; 12])?;
/// let a = device.tensor(1, 3, DType::Bf16, &[1.0; 3])?;
/// let b = device.tensor(4, 1, DType::Bf16, &[1.0; 4])?;
/// let mut y = device.zeros(2, 4, DType::Bf16)?;
/// device.forward(Forward::new(&x, &w, &mut y).adapter(&a, &b))?;
/// assert_eq!(y.to_f32()?, [9.0, 9.0, 9.0, 9.0, 22.5, 22.5, 22.5, 22.5]);
/// # Ok::<(), fused_lora::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Device {
    executor: Executor,
}

#[derive(Debug, Clone)]
enum Executor {
    Cpu(Cpu),
    #[cfg(feature = "wgpu")]
    Wgpu(Arc<wgpu::WgpuDevice>),
    #[cfg(feature = "cuda")]
    Cuda(Arc<cuda::CudaDevice>),
}

impl Device {
    /// The CPU.
    pub fn cpu() -> Device {
        Device { executor: Executor::Cpu(Cpu::new()) }
    }

    /// The fastest device there is: CUDA, then a hardware adapter of wgpu, then the CPU. A
    /// software driver is taken by its name only. In a browser, where adapters are awaited, the CPU:
    /// [`Device::best_async`] looks there.
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

    /// [`Device::best`], in a browser as well.
    pub async fn best_async() -> Device {
        #[cfg(all(feature = "wgpu", target_family = "wasm"))]
        if let Ok(device) = wgpu::WgpuDevice::open_best_async().await {
            return Device { executor: Executor::Wgpu(device) };
        }
        Device::best()
    }

    /// The names that [`Device::open`] takes on this machine, best first. In a browser it does not know of
    /// adapters.
    pub fn available() -> Vec<String> {
        #[cfg(feature = "wgpu")]
        let of_wgpu = adapters::names();
        #[cfg(not(feature = "wgpu"))]
        let of_wgpu = Vec::new();
        Device::names(of_wgpu)
    }

    fn names(of_wgpu: Vec<String>) -> Vec<String> {
        let names = of_wgpu.into_iter().chain(["cpu".to_owned()]);
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
    /// | `wgpu+cooperative`, `wgpu:4090+cooperative` | the same, with wgpu's experimental cooperative matrices |
    ///
    /// wgpu finds what its backend features let it: an application enables those of its
    /// platforms (`vulkan`, `metal`, `dx12`, `webgpu`) on its own dependency on wgpu. In a browser adapters
    /// are awaited: [`Device::open_async`].
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
            of if wgpu::is_name(of) => match wgpu::WgpuDevice::open(of) {
                Ok(device) => return Ok(Device { executor: Executor::Wgpu(device) }),
                Err(reason) => reason,
            },
            of if ["cuda", "wgpu"]
                .iter()
                .any(|name| of == *name || of.starts_with(&format!("{name}:"))) =>
            {
                "build with the feature of this name".to_owned()
            }
            _ => "no such name".to_owned(),
        };
        let available = Device::available().join(", ");
        Err(Error::Device { wanted: name.to_owned(), reason, available })
    }

    /// [`Device::open`], in a browser as well. There `wgpu` is the adapter that the browser gives, which has no
    /// name to choose it by and may be a software driver.
    ///
    /// ```
    /// # async fn page() -> Result<(), fused_lora::Error> {
    /// use fused_lora::{DType, Device};
    ///
    /// let device = match Device::open_async("wgpu").await {
    ///     Ok(device) => device,
    ///     Err(_) => Device::cpu(),
    /// };
    /// let x = device.tensor(1, 2, DType::F32, &[1.0, 2.0])?;
    /// assert_eq!(x.to_f32_async().await?, [1.0, 2.0]);
    /// # Ok(())
    /// # }
    /// # pollster::block_on(page()).unwrap();
    /// ```
    ///
    /// # Errors
    /// As [`Device::open`].
    pub async fn open_async(name: &str) -> Result<Device> {
        #[cfg(all(feature = "wgpu", target_family = "wasm"))]
        match name {
            "auto" => return Ok(Device::best_async().await),
            of if of == "wgpu" || of.starts_with("wgpu:") => {
                let reason = match wgpu::WgpuDevice::open_async(of).await {
                    Ok(device) => return Ok(Device { executor: Executor::Wgpu(device) }),
                    Err(reason) => reason,
                };
                let available = Device::names(adapters::names_of_browser().await).join(", ");
                return Err(Error::Device { wanted: name.to_owned(), reason, available });
            }
            _ => {}
        }
        Device::open(name)
    }

    /// The device that the environment variable `FUSED_LORA_DEVICE` names, or the best one where it is unset or
    /// empty.
    ///
    /// # Errors
    /// [`Error::Device`], as [`Device::open`].
    pub fn from_env() -> Result<Device> {
        let name = match std::env::var_os(DEVICE_VARIABLE) {
            Some(name) if !name.is_empty() => name,
            _ => return Ok(Device::best()),
        };
        Device::open(&name.to_string_lossy()).map_err(|error| match error {
            Error::Device { wanted, reason, available } => {
                let wanted = format!("{DEVICE_VARIABLE}={wanted}");
                Error::Device { wanted, reason, available }
            }
            other => other,
        })
    }

    /// Its name, as [`Device::open`] takes it.
    pub fn name(&self) -> &str {
        match &self.executor {
            Executor::Cpu(_) => "cpu",
            #[cfg(feature = "wgpu")]
            Executor::Wgpu(device) => device.name(),
            #[cfg(feature = "cuda")]
            Executor::Cuda(device) => device.name(),
        }
    }

    /// What it is, with the driver's words, for reports.
    pub fn description(&self) -> String {
        match &self.executor {
            Executor::Cpu(_) => "cpu".to_owned(),
            #[cfg(feature = "wgpu")]
            Executor::Wgpu(device) => device.description(),
            #[cfg(feature = "cuda")]
            Executor::Cuda(device) => device.description(),
        }
    }

    /// What it can do.
    pub fn capabilities(&self) -> Capabilities {
        match &self.executor {
            Executor::Cpu(cpu) => cpu.capabilities(),
            #[cfg(feature = "wgpu")]
            Executor::Wgpu(device) => device.capabilities(),
            #[cfg(feature = "cuda")]
            Executor::Cuda(device) => device.capabilities(),
        }
    }

    /// `y = x·wᵀ + shrunk·bᵀ (+ bias)`, `shrunk = s·x·aᵀ`; see [`Forward`] for operands and shapes. On a GPU
    /// it may only be on its way when this returns: [`Device::wait`] and [`Tensor::to_f32`] wait for it, and
    /// report what the device found then. Any thread may call it, and any number at once.
    ///
    /// # Errors
    /// An operand that does not fit the others, or is of another device; what the device says. Nothing has
    /// been written then.
    pub fn forward(&self, of: Forward<&Tensor, &mut Tensor>) -> Result<()> {
        self.call(Call::Forward(of))
    }

    /// `dx`, `da` and `db`, those that are wanted; see [`Backward`] for operands and shapes.
    ///
    /// # Errors
    /// As [`Device::forward`].
    pub fn backward(&self, of: Backward<&Tensor, &mut Tensor>) -> Result<()> {
        self.call(Call::Backward(of))
    }

    /// `w += s·b·a`, in place, each element rounded once.
    ///
    /// # Errors
    /// As [`Device::forward`].
    pub fn merge(&self, of: Merge<&Tensor, &mut Tensor>) -> Result<()> {
        self.call(Call::Merge(of))
    }

    /// `w -= s·b·a`, in place: [`Device::merge`] taken back, but for rounding.
    ///
    /// # Errors
    /// As [`Device::forward`].
    pub fn unmerge(&self, of: Merge<&Tensor, &mut Tensor>) -> Result<()> {
        self.call(Call::Unmerge(of))
    }

    /// `gain = magnitude / ‖w + s·b·a‖`, row by row; see [`Norm`] for operands and shapes.
    ///
    /// # Errors
    /// As [`Device::forward`]; on the CPU [`Error::Value`] for a magnitude of 0, or one that is not finite.
    pub fn norm(&self, of: Norm<&Tensor, &mut Tensor>) -> Result<()> {
        self.call(Call::Norm(of))
    }

    /// `scaled_dy = gain∘dy` and `dmagnitude`; see [`BackwardGain`] for operands and shapes.
    ///
    /// # Errors
    /// As [`Device::norm`].
    pub fn backward_gain(&self, of: BackwardGain<&Tensor, &mut Tensor>) -> Result<()> {
        self.call(Call::BackwardGain(of))
    }

    fn call(&self, of: Call<&Tensor, &mut Tensor>) -> Result<()> {
        match &self.executor {
            Executor::Cpu(cpu) => call(cpu, (), of.try_map(on_host, on_host_mut)?),
            #[cfg(feature = "wgpu")]
            Executor::Wgpu(device) => device.call(of),
            #[cfg(feature = "cuda")]
            Executor::Cuda(device) => device.call(of),
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

    /// Runs a plan that the caller made, on tensors of this device; for all else as [`Device::forward`].
    ///
    /// # Errors
    /// As the executor's, and [`Error::OtherDevice`]; nothing has been written then.
    pub fn run<'a, 'p>(
        &self,
        plan: impl Into<Scaled<'p>>,
        operands: impl Into<Operands<&'a Tensor, &'a mut Tensor>>,
    ) -> Result<()> {
        let (plan, operands) = (plan.into(), operands.into());
        match &self.executor {
            Executor::Cpu(cpu) => cpu.run_kept(plan, operands.try_map(on_host, on_host_mut)?),
            #[cfg(feature = "wgpu")]
            Executor::Wgpu(device) => device.run(plan, operands),
            #[cfg(feature = "cuda")]
            Executor::Cuda(device) => device.run(plan, operands),
        }
    }

    /// Waits until everything that ran on this device is done.
    ///
    /// # Errors
    /// What the device reports; the CPU nothing. [`Error::Blocking`] in a browser: [`Device::wait_async`].
    pub fn wait(&self) -> Result<()> {
        match &self.executor {
            Executor::Cpu(_) => Ok(()),
            #[cfg(feature = "wgpu")]
            Executor::Wgpu(device) => device.wait(),
            #[cfg(feature = "cuda")]
            Executor::Cuda(device) => device.wait(),
        }
    }

    /// [`Device::wait`], in a browser as well. Natively it waits where it is first polled.
    ///
    /// # Errors
    /// As there; in a browser whatever it reports to any call before.
    pub async fn wait_async(&self) -> Result<()> {
        match &self.executor {
            #[cfg(feature = "wgpu")]
            Executor::Wgpu(device) => device.wait_async().await,
            _ => self.wait(),
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
            Executor::Cpu(_) => Storage::Host(HostData::zeros(dtype, len)?),
            #[cfg(feature = "wgpu")]
            Executor::Wgpu(device) => Storage::Wgpu(wgpu::Allocation::zeros(device, dtype, len)?),
            #[cfg(feature = "cuda")]
            Executor::Cuda(device) => Storage::Cuda(cuda::Allocation::zeros(device, dtype, len)?),
        };
        Ok(Tensor::new(rows, cols, storage))
    }
}

fn on_host(operand: Operand, tensor: &Tensor) -> Result<Slice<'_>> {
    tensor.on_host().ok_or_else(|| not_on_host(operand, tensor))
}

fn on_host_mut(operand: Operand, tensor: &mut Tensor) -> Result<SliceMut<'_>> {
    if tensor.on_host().is_none() {
        return Err(not_on_host(operand, tensor));
    }
    tensor.on_host_mut().ok_or(Error::Missing { operand })
}

fn not_on_host(operand: Operand, tensor: &Tensor) -> Error {
    let (expected, got) = ("cpu".to_owned(), tensor.device_name().to_owned());
    Error::OtherDevice { operand, expected, got }
}

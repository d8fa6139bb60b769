//! For applications: a device that is found by itself, and tensors that it owns. Frameworks
//! bring their own buffers and go to the executors directly.

use std::sync::{Arc, Mutex, PoisonError};

use half::{bf16, f16};

use crate::cpu::{Cpu, Slice, SliceMut, Workspace};
use crate::{
    Buffer, Capabilities, Choice, DType, Element, Error, Matrix, Operands, Place, Plan, Problem,
    Result,
};

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
///         adapter: Some(Adapter { a: a.matrix(), b: b.matrix() }),
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
}

impl Device {
    /// The CPU.
    pub fn cpu() -> Device {
        let workspace = Arc::new(Mutex::new(Workspace::default()));
        Device { executor: Executor::Cpu { cpu: Cpu::new(), workspace } }
    }

    /// The fastest device there is: CUDA, then a hardware adapter of wgpu, then the CPU.
    pub fn best() -> Device {
        Device::cpu()
    }

    /// The names that [`Device::open`] takes on this machine, best first.
    pub fn available() -> Vec<String> {
        vec!["cpu".to_owned()]
    }

    /// The device of this name; `auto` is [`Device::best`].
    ///
    /// # Errors
    /// [`Error::Device`], which lists what there is.
    pub fn open(name: &str) -> Result<Device> {
        let reason = match name {
            "auto" => return Ok(Device::best()),
            "cpu" => return Ok(Device::cpu()),
            "cuda" | "wgpu" => "this version has no kernels for it",
            _ => "no such name",
        };
        Err(Error::Device {
            wanted: name.to_owned(),
            reason: reason.to_owned(),
            available: Device::available().join(", "),
        })
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
    pub fn name(&self) -> &'static str {
        match &self.executor {
            Executor::Cpu { .. } => "cpu",
        }
    }

    /// What it can do.
    pub fn capabilities(&self) -> Capabilities {
        match &self.executor {
            Executor::Cpu { cpu, .. } => cpu.capabilities(),
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

    /// Runs `plan` on tensors of this device.
    ///
    /// # Errors
    /// As the executor's; nothing has been written then.
    pub fn run<'a>(
        &self,
        plan: &Plan,
        operands: impl Into<Operands<&'a Tensor, &'a mut Tensor>>,
    ) -> Result<()> {
        let Executor::Cpu { cpu, workspace } = &self.executor;
        let operands = operands.into().try_map(
            |_, tensor| Ok::<_, Error>(tensor.storage.as_slice()),
            |_, tensor| Ok(tensor.storage.as_slice_mut()),
        )?;
        // A panic elsewhere leaves nothing in the workspace that could matter.
        let mut workspace = workspace.lock().unwrap_or_else(PoisonError::into_inner);
        workspace.grow(plan.workspace_len())?;
        cpu.run(plan, operands, &mut workspace)
    }

    /// A tensor of `values`, row by row, each rounded to `dtype`.
    ///
    /// # Errors
    /// [`Error::TensorLen`], [`Error::OutOfMemory`].
    pub fn tensor(&self, rows: usize, cols: usize, dtype: DType, values: &[f32]) -> Result<Tensor> {
        let mut tensor = self.zeros(rows, cols, dtype)?;
        tensor.write(values)?;
        Ok(tensor)
    }

    /// A tensor of zeros.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn zeros(&self, rows: usize, cols: usize, dtype: DType) -> Result<Tensor> {
        let Executor::Cpu { .. } = &self.executor;
        let len = rows.checked_mul(cols).ok_or(Error::OutOfMemory { bytes: usize::MAX })?;
        let storage = match dtype {
            DType::F32 => Storage::F32(zeroed(len)?),
            DType::F16 => Storage::F16(zeroed(len)?),
            DType::Bf16 => Storage::Bf16(zeroed(len)?),
        };
        Ok(Tensor { rows, cols, storage })
    }
}

fn zeroed<T: Element>(len: usize) -> Result<Vec<T>> {
    let mut elements = Vec::new();
    elements
        .try_reserve_exact(len)
        .map_err(|_| Error::OutOfMemory { bytes: len.saturating_mul(size_of::<T>()) })?;
    elements.resize(len, T::zeroed());
    Ok(elements)
}

/// A row-major matrix on a device.
#[derive(Debug, Clone)]
pub struct Tensor {
    rows: usize,
    cols: usize,
    storage: Storage,
}

#[derive(Debug, Clone)]
enum Storage {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Storage {
    fn as_slice(&self) -> Slice<'_> {
        match self {
            Storage::F32(of) => of.into(),
            Storage::F16(of) => of.into(),
            Storage::Bf16(of) => of.into(),
        }
    }

    fn as_slice_mut(&mut self) -> SliceMut<'_> {
        match self {
            Storage::F32(of) => of.into(),
            Storage::F16(of) => of.into(),
            Storage::Bf16(of) => of.into(),
        }
    }
}

impl Tensor {
    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Storage type.
    pub fn dtype(&self) -> DType {
        self.storage.as_slice().dtype()
    }

    /// As an operand that is read.
    pub fn matrix(&self) -> Matrix<&Tensor> {
        Matrix::new(self, self.rows, self.cols)
    }

    /// As an operand that is written.
    pub fn matrix_mut(&mut self) -> Matrix<&mut Tensor> {
        let (rows, cols) = (self.rows, self.cols);
        Matrix::new(self, rows, cols)
    }

    /// As an operand that is read and whose columns the rows of this tensor are.
    pub fn transposed(&self) -> Matrix<&Tensor> {
        Matrix::transposed(self, self.cols, self.rows)
    }

    /// The elements, row by row. Waits for the device.
    ///
    /// # Errors
    /// What the device reports; the CPU nothing.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        Ok(match &self.storage {
            Storage::F32(of) => of.clone(),
            Storage::F16(of) => of.iter().map(|value| value.to_f32()).collect(),
            Storage::Bf16(of) => of.iter().map(|value| value.to_f32()).collect(),
        })
    }

    /// Overwrites the elements, row by row, each rounded to the tensor's type.
    ///
    /// # Errors
    /// [`Error::TensorLen`].
    pub fn write(&mut self, values: &[f32]) -> Result<()> {
        let (shape, expected) = ([self.rows, self.cols], self.rows * self.cols);
        if values.len() != expected {
            return Err(Error::TensorLen { shape, expected, got: values.len() });
        }
        match &mut self.storage {
            Storage::F32(of) => of.copy_from_slice(values),
            Storage::F16(of) => round_into(values, of),
            Storage::Bf16(of) => round_into(values, of),
        }
        Ok(())
    }
}

fn round_into<T: Element>(values: &[f32], elements: &mut [T]) {
    for (element, value) in elements.iter_mut().zip(values) {
        *element = T::from_f32(*value);
    }
}

impl Buffer for &Tensor {
    fn dtype(&self) -> DType {
        self.storage.as_slice().dtype()
    }
    fn len(&self) -> usize {
        self.storage.as_slice().len()
    }
    fn place(&self) -> Place {
        self.storage.as_slice().place()
    }
}

impl Buffer for &mut Tensor {
    fn dtype(&self) -> DType {
        self.storage.as_slice().dtype()
    }
    fn len(&self) -> usize {
        self.storage.as_slice().len()
    }
    fn place(&self) -> Place {
        self.storage.as_slice().place()
    }
}

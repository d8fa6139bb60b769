//! An opened CUDA device: the primary context, one stream of its own on which everything runs
//! in order, and tensors in its memory.

use std::sync::Arc;

use super::tensor::{HostData, Storage};
use crate::cuda::cudarc::driver::{CudaContext, CudaSlice, CudaStream};
use crate::cuda::{Cuda, Slice, SliceMut, fault, probe};
use crate::operands::{Call, call};
use crate::{Capabilities, DType, Error, Operand, Operands, Result, Scaled, Tensor};

/// The first compute capability that there are kernels for.
const LEAST: (u32, u32) = (8, 0);

/// An opened device.
#[derive(Debug)]
pub(super) struct CudaDevice {
    name: String,
    executor: Cuda,
    stream: Arc<CudaStream>,
}

/// The names of what there is: `cuda`, and each card by its number where there are several.
pub(super) fn names() -> Vec<String> {
    let count = count().unwrap_or(0);
    let any = (count > 0).then(|| "cuda".to_owned());
    let each = (1..count).map(|ordinal| format!("cuda:{ordinal}"));
    any.into_iter().chain(each).collect()
}

/// How many cards the driver sees.
fn count() -> Result<i32> {
    probe()?;
    CudaContext::device_count().map_err(|error| fault::of("cuInit", error))
}

impl CudaDevice {
    /// Opens `cuda`, or `cuda:` and a card's number; else says why not.
    pub(super) fn open(name: &str) -> Result<Arc<CudaDevice>, String> {
        let ordinal = match name.strip_prefix("cuda:") {
            None => 0,
            Some(ordinal) => {
                ordinal.parse().map_err(|_| "a card has a number from 0".to_owned())?
            }
        };
        let count = count().map_err(|error| error.to_string())?;
        if !usize::try_from(count).is_ok_and(|count| ordinal < count) {
            return Err(format!("the driver sees {count} cards"));
        }
        CudaDevice::on(name, ordinal).map_err(|error| error.to_string())
    }

    fn on(name: &str, ordinal: usize) -> Result<Arc<CudaDevice>> {
        let failed = |error| fault::of("context", error);
        let context = CudaContext::new(ordinal).map_err(failed)?;
        let executor = Cuda::new(&context)?;
        if let Capabilities::Cuda(of) = executor.capabilities()
            && of.compute_capability < LEAST
        {
            let ((major, minor), what) = (of.compute_capability, format!("card {ordinal}"));
            let reason = format!("compute capability {major}.{minor} is below 8.0");
            return Err(Error::Rejected { what, reason });
        }
        // SAFETY: nobody else sees this handle to the context, and all work and every allocation
        // made through it is on the one stream below, whose order is all that is needed.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(failed)?;
        Ok(Arc::new(CudaDevice { name: name.to_owned(), executor, stream }))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The card, and what of it decides about kernels.
    pub(super) fn description(&self) -> String {
        let card = self.executor.context().name().unwrap_or_else(|_| "no name".to_owned());
        match self.executor.capabilities() {
            Capabilities::Cuda(of) => {
                let (major, minor) = of.compute_capability;
                let name = &self.name;
                format!("{name}; {card}, compute capability {major}.{minor}")
            }
            _ => card,
        }
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        self.executor.capabilities()
    }

    pub(super) fn run(
        self: &Arc<CudaDevice>,
        plan: Scaled<'_>,
        operands: Operands<&Tensor, &mut Tensor>,
    ) -> Result<()> {
        let read = |operand, tensor| self.read(operand, tensor);
        let operands = operands.try_map(read, |operand, tensor| self.written(operand, tensor))?;
        self.executor.run_kept(&self.stream, plan, operands)
    }

    pub(super) fn call(self: &Arc<CudaDevice>, of: Call<&Tensor, &mut Tensor>) -> Result<()> {
        let read = |operand, tensor| self.read(operand, tensor);
        let of = of.try_map(read, |operand, tensor| self.written(operand, tensor))?;
        call(&self.executor, &self.stream, of)
    }

    fn read<'t>(self: &Arc<CudaDevice>, operand: Operand, tensor: &'t Tensor) -> Result<Slice<'t>> {
        match &tensor.storage {
            Storage::Cuda(of) if Arc::ptr_eq(&of.owner, self) => Ok(of.slice()),
            _ => Err(self.other(operand, tensor)),
        }
    }

    fn written<'t>(
        self: &Arc<CudaDevice>,
        operand: Operand,
        tensor: &'t mut Tensor,
    ) -> Result<SliceMut<'t>> {
        if let Storage::Cuda(of) = &tensor.storage
            && Arc::ptr_eq(&of.owner, self)
        {
            return match &mut tensor.storage {
                Storage::Cuda(of) => of.slice_mut(),
                _ => Err(Error::Missing { operand }),
            };
        }
        Err(self.other(operand, tensor))
    }

    fn other(&self, operand: Operand, tensor: &Tensor) -> Error {
        let (expected, got) = (self.name.clone(), tensor.device_name().to_owned());
        Error::OtherDevice { operand, expected, got }
    }

    pub(super) fn wait(&self) -> Result<()> {
        self.stream.synchronize().map_err(|error| fault::of("synchronize", error))
    }
}

/// The memory of a tensor. Clones share it until one of them is written.
#[derive(Debug, Clone)]
pub(super) struct Allocation {
    owner: Arc<CudaDevice>,
    memory: Arc<Memory>,
    len: usize,
}

/// Elements on the device; at least one, because no driver allocates nothing.
#[derive(Debug)]
enum Memory {
    F32(CudaSlice<f32>),
    Halves(CudaSlice<u16>, DType),
}

impl Memory {
    fn zeros(stream: &Arc<CudaStream>, dtype: DType, len: usize) -> Result<Memory> {
        let bytes = len.checked_mul(dtype.size()).filter(|&bytes| isize::try_from(bytes).is_ok());
        let bytes = bytes.ok_or(Error::OutOfMemory { bytes: usize::MAX })?;
        let failed = |error| fault::of_alloc(bytes, error);
        Ok(match dtype {
            DType::F32 => Memory::F32(stream.alloc_zeros(len.max(1)).map_err(failed)?),
            DType::F16 | DType::Bf16 => {
                Memory::Halves(stream.alloc_zeros(len.max(1)).map_err(failed)?, dtype)
            }
        })
    }

    fn dtype(&self) -> DType {
        match self {
            Memory::F32(_) => DType::F32,
            Memory::Halves(_, dtype) => *dtype,
        }
    }
}

impl Allocation {
    pub(super) fn zeros(owner: &Arc<CudaDevice>, dtype: DType, len: usize) -> Result<Allocation> {
        let memory = Arc::new(Memory::zeros(&owner.stream, dtype, len)?);
        Ok(Allocation { owner: owner.clone(), memory, len })
    }

    pub(super) fn device_name(&self) -> &str {
        &self.owner.name
    }

    pub(super) fn dtype(&self) -> DType {
        self.memory.dtype()
    }

    pub(super) fn slice(&self) -> Slice<'_> {
        match &*self.memory {
            Memory::F32(of) => of.slice(..self.len).into(),
            Memory::Halves(of, DType::F16) => Slice::f16_bits(of.slice(..self.len)),
            Memory::Halves(of, _) => Slice::bf16_bits(of.slice(..self.len)),
        }
    }

    fn slice_mut(&mut self) -> Result<SliceMut<'_>> {
        let len = self.len;
        Ok(match self.own()? {
            Memory::F32(of) => of.slice_mut(..len).into(),
            Memory::Halves(of, DType::F16) => SliceMut::f16_bits(of.slice_mut(..len)),
            Memory::Halves(of, _) => SliceMut::bf16_bits(of.slice_mut(..len)),
        })
    }

    /// The memory, made this tensor's alone.
    fn own(&mut self) -> Result<&mut Memory> {
        if Arc::get_mut(&mut self.memory).is_none() {
            let stream = &self.owner.stream;
            let failed = |error| fault::of("copy", error);
            let mut own = Memory::zeros(stream, self.memory.dtype(), self.len)?;
            match (&*self.memory, &mut own) {
                (Memory::F32(from), Memory::F32(to)) => stream.memcpy_dtod(from, to),
                (Memory::Halves(from, _), Memory::Halves(to, _)) => stream.memcpy_dtod(from, to),
                // Made of one type just now.
                _ => Ok(()),
            }
            .map_err(failed)?;
            self.memory = Arc::new(own);
        }
        // Made unique above, and nobody else can reach it: `self` is borrowed.
        Arc::get_mut(&mut self.memory).ok_or(Error::OutOfMemory { bytes: 0 })
    }

    /// Overwrites all elements with as many of the same type.
    pub(super) fn write(&mut self, data: &HostData) -> Result<()> {
        let stream = self.owner.stream.clone();
        match self.own()? {
            Memory::F32(of) => {
                stream.memcpy_htod(bytemuck::cast_slice::<u8, f32>(data.bytes()), of)
            }
            Memory::Halves(of, _) => {
                stream.memcpy_htod(bytemuck::cast_slice::<u8, u16>(data.bytes()), of)
            }
        }
        .map_err(|error| fault::of("upload", error))
    }

    /// The elements, when all that runs on the device is done.
    pub(super) fn read(&self) -> Result<HostData> {
        let stream = &self.owner.stream;
        let mut data = HostData::zeros(self.dtype(), self.len)?;
        if self.len > 0 {
            let bytes = data.bytes_mut();
            match &*self.memory {
                Memory::F32(of) => {
                    stream.memcpy_dtoh(of, bytemuck::cast_slice_mut::<u8, f32>(bytes))
                }
                Memory::Halves(of, _) => {
                    stream.memcpy_dtoh(of, bytemuck::cast_slice_mut::<u8, u16>(bytes))
                }
            }
            .map_err(|error| fault::of("readback", error))?;
        }
        self.owner.wait()?;
        Ok(data)
    }
}

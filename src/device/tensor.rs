//! Matrices that a [`Device`](crate::Device) owns, in its memory.

use half::{bf16, f16};

#[cfg(feature = "cuda")]
use super::cuda;
#[cfg(feature = "wgpu")]
use super::wgpu;
use crate::cpu::{Slice, SliceMut};
use crate::{Buffer, DType, Element, Error, Matrix, Place, Result};

/// A row-major matrix on a device.
#[derive(Debug, Clone)]
pub struct Tensor {
    rows: usize,
    cols: usize,
    pub(super) storage: Storage,
}

#[derive(Debug, Clone)]
pub(super) enum Storage {
    Host(HostData),
    #[cfg(feature = "wgpu")]
    Wgpu(wgpu::Allocation),
    #[cfg(feature = "cuda")]
    Cuda(cuda::Allocation),
}

impl Storage {
    /// `f` of the buffer, whichever it is.
    fn with<R>(&self, f: impl FnOnce(&dyn Buffer) -> R) -> R {
        match self {
            Storage::Host(of) => f(&of.slice()),
            #[cfg(feature = "wgpu")]
            Storage::Wgpu(of) => f(&of.slice()),
            #[cfg(feature = "cuda")]
            Storage::Cuda(of) => f(&of.slice()),
        }
    }
}

/// Elements on their way to the host.
enum Coming {
    Here(Vec<f32>),
    #[cfg(feature = "wgpu")]
    Wgpu(wgpu::Reading),
}

/// Elements in host memory.
#[derive(Debug, Clone)]
pub(super) enum HostData {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl HostData {
    pub(super) fn zeros(dtype: DType, len: usize) -> Result<HostData> {
        Ok(match dtype {
            DType::F32 => HostData::F32(zeroed(len)?),
            DType::F16 => HostData::F16(zeroed(len)?),
            DType::Bf16 => HostData::Bf16(zeroed(len)?),
        })
    }

    /// `values`, each rounded. As many as there are elements.
    pub(super) fn write(&mut self, values: &[f32]) {
        match self {
            HostData::F32(of) => of.copy_from_slice(values),
            HostData::F16(of) => round_into(values, of),
            HostData::Bf16(of) => round_into(values, of),
        }
    }

    pub(super) fn to_f32(&self) -> Vec<f32> {
        match self {
            HostData::F32(of) => of.clone(),
            HostData::F16(of) => of.iter().map(|value| value.to_f32()).collect(),
            HostData::Bf16(of) => of.iter().map(|value| value.to_f32()).collect(),
        }
    }

    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            HostData::F32(of) => bytemuck::cast_slice(of),
            HostData::F16(of) => bytemuck::cast_slice(of),
            HostData::Bf16(of) => bytemuck::cast_slice(of),
        }
    }

    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            HostData::F32(of) => bytemuck::cast_slice_mut(of),
            HostData::F16(of) => bytemuck::cast_slice_mut(of),
            HostData::Bf16(of) => bytemuck::cast_slice_mut(of),
        }
    }

    fn slice(&self) -> Slice<'_> {
        match self {
            HostData::F32(of) => of.into(),
            HostData::F16(of) => of.into(),
            HostData::Bf16(of) => of.into(),
        }
    }

    fn slice_mut(&mut self) -> SliceMut<'_> {
        match self {
            HostData::F32(of) => of.into(),
            HostData::F16(of) => of.into(),
            HostData::Bf16(of) => of.into(),
        }
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

fn round_into<T: Element>(values: &[f32], elements: &mut [T]) {
    for (element, value) in elements.iter_mut().zip(values) {
        *element = T::from_f32(*value);
    }
}

impl Tensor {
    pub(super) fn new(rows: usize, cols: usize, storage: Storage) -> Tensor {
        Tensor { rows, cols, storage }
    }

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
        self.storage.with(|of| of.dtype())
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
    /// What the device reports; the CPU nothing. [`Error::Blocking`] in a browser: [`Tensor::to_f32_async`].
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        match &self.storage {
            Storage::Host(of) => Ok(of.to_f32()),
            #[cfg(feature = "wgpu")]
            Storage::Wgpu(of) => Ok(of.read()?.to_f32()),
            #[cfg(feature = "cuda")]
            Storage::Cuda(of) => Ok(of.read()?.to_f32()),
        }
    }

    /// The elements as they are now, row by row, when the device has brought them; in a browser as well. The
    /// tensor may be written meanwhile, and several that are asked for before the first is awaited come
    /// together. Natively the future waits where it is first polled.
    ///
    /// ```
    /// # async fn read() -> Result<(), fused_lora::Error> {
    /// use fused_lora::{DType, Device};
    ///
    /// let mut x = Device::cpu().tensor(1, 2, DType::F32, &[1.0, 2.0])?;
    /// let before = x.to_f32_async();
    /// x.write(&[3.0, 4.0])?;
    /// assert_eq!(before.await?, [1.0, 2.0]);
    /// # Ok(())
    /// # }
    /// # pollster::block_on(read()).unwrap();
    /// ```
    ///
    /// # Errors
    /// As [`Tensor::to_f32`]; in a browser whatever it reports to any call before.
    pub fn to_f32_async(&self) -> impl Future<Output = Result<Vec<f32>>> + use<> {
        let coming = match &self.storage {
            #[cfg(feature = "wgpu")]
            Storage::Wgpu(of) => of.begin_read().map(Coming::Wgpu),
            _ => self.to_f32().map(Coming::Here),
        };
        async move {
            match coming? {
                Coming::Here(values) => Ok(values),
                #[cfg(feature = "wgpu")]
                Coming::Wgpu(reading) => Ok(reading.finish_async().await?.to_f32()),
            }
        }
    }

    /// Overwrites the elements, row by row, each rounded to the tensor's type.
    ///
    /// # Errors
    /// [`Error::TensorLen`]; what the device reports.
    pub fn write(&mut self, values: &[f32]) -> Result<()> {
        let (shape, expected) = ([self.rows, self.cols], self.rows * self.cols);
        if values.len() != expected {
            return Err(Error::TensorLen { shape, expected, got: values.len() });
        }
        match &mut self.storage {
            Storage::Host(of) => of.write(values),
            #[cfg(feature = "wgpu")]
            Storage::Wgpu(of) => {
                let mut rounded = HostData::zeros(of.slice().dtype(), expected)?;
                rounded.write(values);
                of.write(&rounded)?;
            }
            #[cfg(feature = "cuda")]
            Storage::Cuda(of) => {
                let mut rounded = HostData::zeros(of.dtype(), expected)?;
                rounded.write(values);
                of.write(&rounded)?;
            }
        }
        Ok(())
    }

    /// The elements themselves, row by row, where they lie in host memory: on the CPU.
    pub fn on_host(&self) -> Option<Slice<'_>> {
        match &self.storage {
            Storage::Host(of) => Some(of.slice()),
            #[cfg(any(feature = "cuda", feature = "wgpu"))]
            _ => None,
        }
    }

    /// The same, to write.
    pub(super) fn on_host_mut(&mut self) -> Option<SliceMut<'_>> {
        match &mut self.storage {
            Storage::Host(of) => Some(of.slice_mut()),
            #[cfg(any(feature = "cuda", feature = "wgpu"))]
            _ => None,
        }
    }

    /// Where it is, for errors.
    pub(super) fn device_name(&self) -> &str {
        match &self.storage {
            Storage::Host(_) => "cpu",
            #[cfg(feature = "wgpu")]
            Storage::Wgpu(of) => of.device_name(),
            #[cfg(feature = "cuda")]
            Storage::Cuda(of) => of.device_name(),
        }
    }
}

/// All of it: [`Tensor::matrix`].
impl<'a> From<&'a Tensor> for Matrix<&'a Tensor> {
    fn from(of: &'a Tensor) -> Self {
        of.matrix()
    }
}

/// All of it: [`Tensor::matrix_mut`].
impl<'a> From<&'a mut Tensor> for Matrix<&'a mut Tensor> {
    fn from(of: &'a mut Tensor) -> Self {
        of.matrix_mut()
    }
}

impl Buffer for &Tensor {
    fn dtype(&self) -> DType {
        Tensor::dtype(self)
    }
    fn len(&self) -> usize {
        self.storage.with(|of| of.len())
    }
    fn place(&self) -> Place {
        self.storage.with(|of| of.place())
    }
}

impl Buffer for &mut Tensor {
    fn dtype(&self) -> DType {
        Tensor::dtype(self)
    }
    fn len(&self) -> usize {
        self.storage.with(|of| of.len())
    }
    fn place(&self) -> Place {
        self.storage.with(|of| of.place())
    }
}

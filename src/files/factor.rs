//! One tensor of an adapter file, in the bits that the file has: a factor, or a whole weight beside them.
//! Made by `read`, and by callers who write.

use half::{bf16, f16};
use safetensors::tensor::Dtype;

use crate::{DType, Element, Error, Result};

/// lora_A or lora_B as stored: a row-major matrix of f32, f16 or bf16. Keeps the file's bits, so
/// that what is read and written again is the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Factor {
    rows: usize,
    cols: usize,
    dtype: DType,
    /// Little endian, `rows · cols` elements.
    bytes: Vec<u8>,
}

impl Factor {
    /// `values` row by row, each rounded to `dtype`.
    ///
    /// # Errors
    /// [`Error::TensorLen`] where there are not `rows · cols` of them.
    pub fn new(rows: usize, cols: usize, dtype: DType, values: &[f32]) -> Result<Factor> {
        let (shape, expected) = ([rows, cols], rows.saturating_mul(cols));
        if values.len() != expected {
            return Err(Error::TensorLen { shape, expected, got: values.len() });
        }
        let bytes = match dtype {
            DType::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            DType::F16 => values.iter().flat_map(|&of| f16::from_f32(of).to_le_bytes()).collect(),
            DType::Bf16 => values.iter().flat_map(|&of| bf16::from_f32(of).to_le_bytes()).collect(),
        };
        Ok(Factor { rows, cols, dtype, bytes })
    }

    /// Of `rows · cols` elements: a caller has checked that.
    pub(super) fn from_bytes(rows: usize, cols: usize, dtype: DType, bytes: &[u8]) -> Factor {
        Factor { rows, cols, dtype, bytes: bytes.to_vec() }
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
        self.dtype
    }

    /// The elements row by row, widened exactly.
    pub fn values(&self) -> Vec<f32> {
        widened(self.dtype, &self.bytes)
    }

    /// The elements as stored, little endian.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A whole weight of the base model that the file has beside the factors, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weight {
    shape: Vec<usize>,
    dtype: DType,
    /// Little endian.
    bytes: Vec<u8>,
}

impl Weight {
    /// As many elements as the shape has: a caller has checked that.
    pub(super) fn from_bytes(shape: &[usize], dtype: DType, bytes: &[u8]) -> Weight {
        Weight { shape: shape.to_vec(), dtype, bytes: bytes.to_vec() }
    }

    /// Its sizes, the outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Storage type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The elements, widened exactly.
    pub fn values(&self) -> Vec<f32> {
        widened(self.dtype, &self.bytes)
    }

    /// The elements as stored, little endian.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn widened(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let wide = bytes.chunks_exact(4);
    let narrow = bytes.chunks_exact(2).map(|of| [of[0], of[1]]);
    match dtype {
        DType::F32 => wide.map(|of| f32::from_le_bytes([of[0], of[1], of[2], of[3]])).collect(),
        DType::F16 => narrow.map(|of| f16::from_le_bytes(of).to_f32()).collect(),
        DType::Bf16 => narrow.map(|of| Element::to_f32(bf16::from_le_bytes(of))).collect(),
    }
}

/// The file's name for a storage type.
pub(super) fn stored(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::Bf16 => Dtype::BF16,
    }
}

/// The storage type of a file's tensor, if it is one of ours.
pub(super) fn loaded(dtype: Dtype) -> Option<DType> {
    DType::ALL.iter().copied().find(|&of| stored(of) == dtype)
}

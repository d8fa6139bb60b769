//! The CPU's buffers: slices of any storage type, as values that operands can hold.

use half::{bf16, f16};

use crate::{Buffer, DType, Place};

/// Elements that are read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Slice<'a> {
    /// Of [`DType::F32`].
    F32(&'a [f32]),
    /// Of [`DType::F16`].
    F16(&'a [f16]),
    /// Of [`DType::Bf16`].
    Bf16(&'a [bf16]),
}

/// Elements that are written.
#[derive(Debug, PartialEq)]
pub enum SliceMut<'a> {
    /// Of [`DType::F32`].
    F32(&'a mut [f32]),
    /// Of [`DType::F16`].
    F16(&'a mut [f16]),
    /// Of [`DType::Bf16`].
    Bf16(&'a mut [bf16]),
}

impl SliceMut<'_> {
    /// The same elements, to read.
    pub fn as_slice(&self) -> Slice<'_> {
        match self {
            SliceMut::F32(of) => Slice::F32(of),
            SliceMut::F16(of) => Slice::F16(of),
            SliceMut::Bf16(of) => Slice::Bf16(of),
        }
    }
}

impl Buffer for Slice<'_> {
    fn dtype(&self) -> DType {
        match self {
            Slice::F32(_) => DType::F32,
            Slice::F16(_) => DType::F16,
            Slice::Bf16(_) => DType::Bf16,
        }
    }

    fn len(&self) -> usize {
        match self {
            Slice::F32(of) => of.len(),
            Slice::F16(of) => of.len(),
            Slice::Bf16(of) => of.len(),
        }
    }

    fn place(&self) -> Place {
        let byte = match self {
            Slice::F32(of) => of.as_ptr().addr(),
            Slice::F16(of) => of.as_ptr().addr(),
            Slice::Bf16(of) => of.as_ptr().addr(),
        };
        Place { allocation: 0, byte: byte as u64 }
    }
}

impl Buffer for SliceMut<'_> {
    fn dtype(&self) -> DType {
        self.as_slice().dtype()
    }

    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn place(&self) -> Place {
        self.as_slice().place()
    }
}

macro_rules! from_slices {
    ($($element:ty => $variant:ident),*) => {$(
        impl<'a> From<&'a [$element]> for Slice<'a> {
            fn from(of: &'a [$element]) -> Self {
                Slice::$variant(of)
            }
        }
        impl<'a> From<&'a Vec<$element>> for Slice<'a> {
            fn from(of: &'a Vec<$element>) -> Self {
                Slice::$variant(of)
            }
        }
        impl<'a> From<&'a mut [$element]> for SliceMut<'a> {
            fn from(of: &'a mut [$element]) -> Self {
                SliceMut::$variant(of)
            }
        }
        impl<'a> From<&'a mut Vec<$element>> for SliceMut<'a> {
            fn from(of: &'a mut Vec<$element>) -> Self {
                SliceMut::$variant(of)
            }
        }
    )*};
}

from_slices!(f32 => F32, f16 => F16, bf16 => Bf16);

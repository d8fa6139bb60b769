//! The CPU's buffers: slices of any storage type, as values that operands can hold.

use core::mem::MaybeUninit;

use half::{bf16, f16};

use crate::{Buffer, DType, Matrix, Place};

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

/// Elements that are written. Made from slices, vectors and arrays of `f32`, `half::f16` and `half::bf16`,
/// or of `MaybeUninit` of them: what an operation overwrites need not have been initialised. Another
/// `SliceMut` gives one by a reborrow, from `&mut`.
#[derive(Debug)]
pub struct SliceMut<'a> {
    elements: ElementsMut<'a>,
    initialised: bool,
}

/// The elements, which are written before they are read unless they were initialised.
#[derive(Debug)]
pub(super) enum ElementsMut<'a> {
    F32(&'a mut [MaybeUninit<f32>]),
    F16(&'a mut [MaybeUninit<f16>]),
    Bf16(&'a mut [MaybeUninit<bf16>]),
}

impl<'a> SliceMut<'a> {
    /// The same elements, to read; `None` where they may hold no values.
    pub fn as_slice(&self) -> Option<Slice<'_>> {
        // Only called below, behind the question.
        fn as_init<T>(of: &[MaybeUninit<T>]) -> &[T] {
            // SAFETY: called where they were initialised, and of one layout with T.
            unsafe { &*(core::ptr::from_ref(of) as *const [T]) }
        }
        self.initialised.then(|| match &self.elements {
            ElementsMut::F32(of) => Slice::F32(as_init(of)),
            ElementsMut::F16(of) => Slice::F16(as_init(of)),
            ElementsMut::Bf16(of) => Slice::Bf16(as_init(of)),
        })
    }

    pub(super) fn into_elements(self) -> ElementsMut<'a> {
        self.elements
    }
}

/// Does the same with whichever type of elements it is.
macro_rules! of_any {
    ($kind:ident, $self:expr, $of:ident => $body:expr) => {
        match $self {
            $kind::F32($of) => $body,
            $kind::F16($of) => $body,
            $kind::Bf16($of) => $body,
        }
    };
}

macro_rules! dtype {
    ($kind:ident, $self:expr) => {
        match $self {
            $kind::F32(_) => DType::F32,
            $kind::F16(_) => DType::F16,
            $kind::Bf16(_) => DType::Bf16,
        }
    };
}

impl Buffer for Slice<'_> {
    fn dtype(&self) -> DType {
        dtype!(Slice, self)
    }
    fn len(&self) -> usize {
        of_any!(Slice, self, of => of.len())
    }
    fn place(&self) -> Place {
        Place { allocation: 0, byte: of_any!(Slice, self, of => of.as_ptr().addr()) as u64 }
    }
}

impl Buffer for SliceMut<'_> {
    fn dtype(&self) -> DType {
        dtype!(ElementsMut, &self.elements)
    }
    fn len(&self) -> usize {
        of_any!(ElementsMut, &self.elements, of => of.len())
    }
    fn place(&self) -> Place {
        let byte = of_any!(ElementsMut, &self.elements, of => of.as_ptr().addr());
        Place { allocation: 0, byte: byte as u64 }
    }
    fn is_initialised(&self) -> bool {
        self.initialised
    }
}

/// A reborrow.
impl<'a> From<&'a mut SliceMut<'_>> for SliceMut<'a> {
    fn from(of: &'a mut SliceMut<'_>) -> Self {
        let elements = match &mut of.elements {
            ElementsMut::F32(of) => ElementsMut::F32(of),
            ElementsMut::F16(of) => ElementsMut::F16(of),
            ElementsMut::Bf16(of) => ElementsMut::Bf16(of),
        };
        SliceMut { elements, initialised: of.initialised }
    }
}

/// Values of `T` where nothing but values may be written.
fn as_uninit<T>(of: &mut [T]) -> &mut [MaybeUninit<T>] {
    // SAFETY: `MaybeUninit<T>` has the layout of T, and this executor writes values alone.
    unsafe { &mut *(core::ptr::from_mut(of) as *mut [MaybeUninit<T>]) }
}

macro_rules! from_slices {
    ($($element:ty => $variant:ident),*) => {$(
        impl<'a> From<&'a [$element]> for Slice<'a> {
            fn from(of: &'a [$element]) -> Self {
                Slice::$variant(of)
            }
        }
        impl<'a> From<&'a mut [$element]> for SliceMut<'a> {
            fn from(of: &'a mut [$element]) -> Self {
                SliceMut { elements: ElementsMut::$variant(as_uninit(of)), initialised: true }
            }
        }
        impl<'a> From<&'a mut [MaybeUninit<$element>]> for SliceMut<'a> {
            fn from(of: &'a mut [MaybeUninit<$element>]) -> Self {
                SliceMut { elements: ElementsMut::$variant(of), initialised: false }
            }
        }
        from_slices!(@of $element, Vec<$element>);
        from_slices!(@of $element, [$element; LEN], LEN);
        matrices!(Slice: &'a [$element], &'a Vec<$element>);
        matrices!(SliceMut: &'a mut [$element], &'a mut Vec<$element>, &'a mut [MaybeUninit<$element>]);
        impl<'a, const LEN: usize> From<Matrix<&'a [$element; LEN]>> for Matrix<Slice<'a>> {
            fn from(of: Matrix<&'a [$element; LEN]>) -> Self {
                of.map(Into::into)
            }
        }
        impl<'a, const LEN: usize> From<Matrix<&'a mut [$element; LEN]>> for Matrix<SliceMut<'a>> {
            fn from(of: Matrix<&'a mut [$element; LEN]>) -> Self {
                of.map(Into::into)
            }
        }
    )*};
    (@of $element:ty, $owner:ty $(, $len:ident)?) => {
        impl<'a $(, const $len: usize)?> From<&'a $owner> for Slice<'a> {
            fn from(of: &'a $owner) -> Self {
                of.as_slice().into()
            }
        }
        impl<'a $(, const $len: usize)?> From<&'a mut $owner> for SliceMut<'a> {
            fn from(of: &'a mut $owner) -> Self {
                of.as_mut_slice().into()
            }
        }
    };
}

/// A matrix over what becomes a slice becomes a matrix over the slice.
macro_rules! matrices {
    ($slice:ident: $($buffer:ty),*) => {$(
        impl<'a> From<Matrix<$buffer>> for Matrix<$slice<'a>> {
            fn from(of: Matrix<$buffer>) -> Self {
                of.map(Into::into)
            }
        }
    )*};
}

from_slices!(f32 => F32, f16 => F16, bf16 => Bf16);
matrices!(SliceMut: &'a mut SliceMut<'_>);

//! CUDA's buffers as operands: cudarc's slices and views with the storage type that they hold
//! (the safe tier), and bare addresses (the raw one).

use core::fmt;

use cudarc::driver::sys::CUdeviceptr;
use cudarc::driver::{
    CudaContext, CudaSlice, CudaStream, CudaView, CudaViewMut, DevicePtr, DeviceSlice, SyncOnDrop,
};
use half::{bf16, f16};

use crate::{Buffer, DType, Error, Place, Result};

/// Elements that are read: a part of a `CudaSlice`.
///
/// Made from `&CudaSlice<T>` or `CudaView<T>` with `T` one of `f32`, `half::f16` and
/// `half::bf16`; hosts that keep halves as their bits go through [`Slice::f16_bits`] and
/// [`Slice::bf16_bits`].
pub struct Slice<'a>(TypedView<'a>);

/// Elements that are written: a part of a `CudaSlice`. Made as [`Slice`] is.
pub struct SliceMut<'a>(TypedViewMut<'a>);

enum TypedView<'a> {
    F32(CudaView<'a, f32>),
    F16(CudaView<'a, f16>),
    Bf16(CudaView<'a, bf16>),
    Bits(CudaView<'a, u16>, DType),
}

enum TypedViewMut<'a> {
    F32(CudaViewMut<'a, f32>),
    F16(CudaViewMut<'a, f16>),
    Bf16(CudaViewMut<'a, bf16>),
    Bits(CudaViewMut<'a, u16>, DType),
}

impl<'a> Slice<'a> {
    /// Of [`DType::F16`], kept as their bits.
    pub fn f16_bits(view: CudaView<'a, u16>) -> Slice<'a> {
        Slice(TypedView::Bits(view, DType::F16))
    }

    /// Of [`DType::Bf16`], kept as their bits.
    pub fn bf16_bits(view: CudaView<'a, u16>) -> Slice<'a> {
        Slice(TypedView::Bits(view, DType::Bf16))
    }
}

impl<'a> SliceMut<'a> {
    /// Of [`DType::F16`], kept as their bits.
    pub fn f16_bits(view: CudaViewMut<'a, u16>) -> SliceMut<'a> {
        SliceMut(TypedViewMut::Bits(view, DType::F16))
    }

    /// Of [`DType::Bf16`], kept as their bits.
    pub fn bf16_bits(view: CudaViewMut<'a, u16>) -> SliceMut<'a> {
        SliceMut(TypedViewMut::Bits(view, DType::Bf16))
    }
}

macro_rules! from_views {
    ($($element:ty => $variant:ident),*) => {$(
        impl<'a> From<CudaView<'a, $element>> for Slice<'a> {
            fn from(of: CudaView<'a, $element>) -> Self {
                Slice(TypedView::$variant(of))
            }
        }
        impl<'a> From<&'a CudaSlice<$element>> for Slice<'a> {
            fn from(of: &'a CudaSlice<$element>) -> Self {
                of.as_view().into()
            }
        }
        impl<'a> From<CudaViewMut<'a, $element>> for SliceMut<'a> {
            fn from(of: CudaViewMut<'a, $element>) -> Self {
                SliceMut(TypedViewMut::$variant(of))
            }
        }
        impl<'a> From<&'a mut CudaSlice<$element>> for SliceMut<'a> {
            fn from(of: &'a mut CudaSlice<$element>) -> Self {
                of.as_view_mut().into()
            }
        }
    )*};
}

from_views!(f32 => F32, f16 => F16, bf16 => Bf16);

/// Does the same with whichever view it is.
macro_rules! of_any {
    ($kind:ident, $self:expr, $view:ident => $body:expr) => {
        match $self {
            $kind::F32($view) => $body,
            $kind::F16($view) => $body,
            $kind::Bf16($view) => $body,
            $kind::Bits($view, _) => $body,
        }
    };
}

/// The address without a guard: the view's own stream has its writes behind it already.
fn address<T>(view: &impl DevicePtr<T>) -> CUdeviceptr {
    let (address, guard) = view.device_ptr(view.stream());
    // Nothing is read, so nothing is to be recorded.
    core::mem::forget(guard);
    address
}

macro_rules! buffer {
    ($slice:ident, $kind:ident) => {
        impl Buffer for $slice<'_> {
            fn dtype(&self) -> DType {
                match &self.0 {
                    $kind::F32(_) => DType::F32,
                    $kind::F16(_) => DType::F16,
                    $kind::Bf16(_) => DType::Bf16,
                    $kind::Bits(_, dtype) => *dtype,
                }
            }
            fn len(&self) -> usize {
                of_any!($kind, &self.0, view => view.len())
            }
            fn place(&self) -> Place {
                let byte = of_any!($kind, &self.0, view => address(view));
                Place { allocation: 0, byte }
            }
        }

        impl fmt::Debug for $slice<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($slice))
                    .field("dtype", &self.dtype())
                    .field("len", &self.len())
                    .finish_non_exhaustive()
            }
        }

        impl<'a> $slice<'a> {
            /// The context that its memory belongs to.
            pub(super) fn context(&self) -> &CudaContext {
                of_any!($kind, &self.0, view => view.stream().context().as_ref())
            }
        }
    };
}

buffer!(Slice, TypedView);
buffer!(SliceMut, TypedViewMut);

/// An operand whose guard is held: `stream` comes after what others did with it, and they
/// come after `stream` once it is dropped.
pub(super) struct Held<'a> {
    dtype: DType,
    len: usize,
    address: CUdeviceptr,
    _guard: SyncOnDrop<'a>,
}

impl<'a> Slice<'a> {
    pub(super) fn hold(self, stream: &'a CudaStream) -> Held<'a> {
        let (dtype, len) = (self.dtype(), self.len());
        let (address, _guard) = of_any!(TypedView, self.0, view => view.view_ptr(stream));
        Held { dtype, len, address, _guard }
    }
}

impl<'a> SliceMut<'a> {
    pub(super) fn hold(self, stream: &'a CudaStream) -> Held<'a> {
        let (dtype, len) = (self.dtype(), self.len());
        let (address, _guard) = of_any!(TypedViewMut, self.0, view => view.view_ptr_mut(stream));
        Held { dtype, len, address, _guard }
    }
}

impl Buffer for Held<'_> {
    fn dtype(&self) -> DType {
        self.dtype
    }
    fn len(&self) -> usize {
        self.len
    }
    fn place(&self) -> Place {
        Place { allocation: 0, byte: self.address }
    }
}

/// Elements at an address of the device, read or written: the raw tier's operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raw {
    /// Of the first element.
    pub address: CUdeviceptr,
    /// Elements that may be addressed.
    pub len: usize,
    /// Their storage type.
    pub dtype: DType,
}

impl Raw {
    /// `len` elements of `dtype` at `address`.
    pub fn new(address: CUdeviceptr, len: usize, dtype: DType) -> Raw {
        Raw { address, len, dtype }
    }
}

impl Buffer for Raw {
    fn dtype(&self) -> DType {
        self.dtype
    }
    fn len(&self) -> usize {
        self.len
    }
    fn place(&self) -> Place {
        Place { allocation: 0, byte: self.address }
    }
}

/// What is `what` must belong to `context`.
pub(super) fn check_context(
    what: impl fmt::Display,
    got: &CudaContext,
    context: &CudaContext,
) -> Result<()> {
    match got == context {
        true => Ok(()),
        false => Err(Error::OtherContext { what: what.to_string() }),
    }
}

//! CUDA's buffers as operands: cudarc's slices and views with the storage type that they hold
//! (the safe tier), and bare addresses (the raw one).

use core::fmt;

use cudarc::driver::sys::CUdeviceptr;
use cudarc::driver::{
    CudaContext, CudaSlice, CudaStream, CudaView, CudaViewMut, DevicePtr, DeviceSlice, SyncOnDrop,
};
use half::{bf16, f16};

use crate::{Buffer, DType, Error, Matrix, Place, Result};

/// Elements that are read: a part of a `CudaSlice`.
///
/// Made from `&CudaSlice<T>` or `CudaView<T>` with `T` one of `f32`, `half::f16` and
/// `half::bf16`, or by an [`Arena`](super::Arena); hosts that keep halves as their bits go through [`Slice::f16_bits`] and
/// [`Slice::bf16_bits`].
pub struct Slice<'a>(TypedView<'a>);

/// Elements that are written: a part of a `CudaSlice`. Made as [`Slice`] is.
pub struct SliceMut<'a>(TypedViewMut<'a>);

enum TypedView<'a> {
    F32(CudaView<'a, f32>),
    F16(CudaView<'a, f16>),
    Bf16(CudaView<'a, bf16>),
    Bits(CudaView<'a, u16>, DType),
    Part(Part<CudaView<'a, u8>>),
}

enum TypedViewMut<'a> {
    F32(CudaViewMut<'a, f32>),
    F16(CudaViewMut<'a, f16>),
    Bf16(CudaViewMut<'a, bf16>),
    Bits(CudaViewMut<'a, u16>, DType),
    Part(Part<CudaViewMut<'a, u8>>),
}

/// A part of an arena.
#[derive(Clone)]
pub(super) struct Part<V> {
    /// Of all of it, because its guard is.
    pub(super) view: V,
    /// Byte in it at which the part begins.
    pub(super) begin: usize,
    /// Elements of the part.
    pub(super) len: usize,
    pub(super) dtype: DType,
}

impl Clone for Slice<'_> {
    fn clone(&self) -> Self {
        // A view of all of a view is the view.
        Slice(match &self.0 {
            TypedView::F32(of) => TypedView::F32(of.slice(..)),
            TypedView::F16(of) => TypedView::F16(of.slice(..)),
            TypedView::Bf16(of) => TypedView::Bf16(of.slice(..)),
            TypedView::Bits(of, dtype) => TypedView::Bits(of.slice(..), *dtype),
            TypedView::Part(of) => TypedView::Part(Part { view: of.view.slice(..), ..*of }),
        })
    }
}

impl<'a> Slice<'a> {
    pub(super) fn part(of: Part<CudaView<'a, u8>>) -> Slice<'a> {
        Slice(TypedView::Part(of))
    }

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
    pub(super) fn part(of: Part<CudaViewMut<'a, u8>>) -> SliceMut<'a> {
        SliceMut(TypedViewMut::Part(of))
    }

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
        matrices!(Slice: CudaView<'a, $element>, &'a CudaSlice<$element>);
        matrices!(SliceMut: CudaViewMut<'a, $element>, &'a mut CudaSlice<$element>);
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

from_views!(f32 => F32, f16 => F16, bf16 => Bf16);

/// Does the same with whichever view it is.
macro_rules! of_any {
    ($kind:ident, $self:expr, $view:ident => $body:expr) => {
        match $self {
            $kind::F32($view) => $body,
            $kind::F16($view) => $body,
            $kind::Bf16($view) => $body,
            $kind::Bits($view, _) => $body,
            $kind::Part(Part { view: $view, .. }) => $body,
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
                    $kind::Bits(_, dtype) | $kind::Part(Part { dtype, .. }) => *dtype,
                }
            }
            fn len(&self) -> usize {
                match &self.0 {
                    $kind::Part(of) => of.len,
                    other => of_any!($kind, other, view => view.len()),
                }
            }
            fn place(&self) -> Place {
                let start = of_any!($kind, &self.0, view => address(view));
                Place { allocation: 0, byte: start + self.begin() as u64 }
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
            /// Byte of what is guarded at which it begins.
            fn begin(&self) -> usize {
                match &self.0 {
                    $kind::Part(of) => of.begin,
                    _ => 0,
                }
            }

            /// The context that its memory belongs to.
            pub(super) fn context(&self) -> &CudaContext {
                of_any!($kind, &self.0, view => view.stream().context().as_ref())
            }
        }
    };
}

buffer!(Slice, TypedView);
buffer!(SliceMut, TypedViewMut);

/// An operand at its address, whose guard is held: as long as this lives, `stream` comes after what others
/// did with it, and they come after `stream` once it is dropped. For [`Cuda::run_raw`](super::Cuda::run_raw)
/// and hosts that launch themselves.
#[must_use = "dropped, it guards nothing"]
pub struct Guarded<'a> {
    raw: Raw,
    _guard: SyncOnDrop<'a>,
}

impl Guarded<'_> {
    /// Its address, length and type.
    pub fn raw(&self) -> Raw {
        self.raw
    }
}

impl fmt::Debug for Guarded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.raw.fmt(f)
    }
}

impl Buffer for Guarded<'_> {
    fn dtype(&self) -> DType {
        self.raw.dtype
    }
    fn len(&self) -> usize {
        self.raw.len
    }
    fn place(&self) -> Place {
        self.raw.place()
    }
}

impl<'a> Slice<'a> {
    /// Guards it, to be read on `stream`.
    pub fn guard(self, stream: &'a CudaStream) -> Guarded<'a> {
        let (dtype, len, begin) = (self.dtype(), self.len(), self.begin() as u64);
        let (address, _guard) = of_any!(TypedView, self.0, view => view.view_ptr(stream));
        Guarded { raw: Raw::new(address + begin, len, dtype), _guard }
    }
}

impl<'a> SliceMut<'a> {
    /// Guards it, to be written on `stream`.
    pub fn guard(self, stream: &'a CudaStream) -> Guarded<'a> {
        let (dtype, len, begin) = (self.dtype(), self.len(), self.begin() as u64);
        let (address, _guard) = of_any!(TypedViewMut, self.0, view => view.view_ptr_mut(stream));
        Guarded { raw: Raw::new(address + begin, len, dtype), _guard }
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

//! Many operands in one allocation, as frameworks that sub-allocate have them: parts to be read and parts
//! to be written of a single `CudaSlice`. Called by hosts of the safe tier.

use core::fmt;
use core::ops::Range;

use cudarc::driver::{CudaSlice, CudaViewMut};
use half::{bf16, f16};

use super::slice::Part;
use super::{Slice, SliceMut};
use crate::DType;

/// An allocation that operands are parts of. cudarc gives a slice out to be read or to be written; an arena
/// borrows it once, to be written, and gives out parts of either kind. That no output overlaps another
/// operand is checked with every run.
///
/// ```no_run
/// use fused_lora::cuda::{Arena, Cuda, cudarc::driver::CudaContext};
/// use fused_lora::{DType, Forward, Matrix};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// let context = CudaContext::new(0)?;
/// let stream = context.default_stream();
/// let mut memory = stream.alloc_zeros::<u8>(1 << 20)?;
/// let arena = Arena::from(&mut memory);
/// let x = Matrix::new(arena.read(0..1024, DType::Bf16), 8, 64);
/// let w = Matrix::new(arena.read(1024..5120, DType::Bf16), 32, 64);
/// let y = Matrix::new(arena.write(5120..5632, DType::Bf16), 8, 32);
/// Cuda::new(&context)?.forward(&stream, Forward::new(x, w, y))?;
/// # Ok(())
/// # }
/// ```
pub struct Arena<'a>(CudaViewMut<'a, u8>);

impl fmt::Debug for Arena<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("bytes", &self.0.len()).finish()
    }
}

impl<'a> From<CudaViewMut<'a, u8>> for Arena<'a> {
    fn from(view: CudaViewMut<'a, u8>) -> Arena<'a> {
        Arena(view)
    }
}

impl<'a> From<&'a mut CudaSlice<u8>> for Arena<'a> {
    fn from(slice: &'a mut CudaSlice<u8>) -> Arena<'a> {
        Arena(slice.as_view_mut())
    }
}

macro_rules! from_slices {
    ($($element:ty),*) => {$(
        impl<'a> From<&'a mut CudaSlice<$element>> for Arena<'a> {
            fn from(slice: &'a mut CudaSlice<$element>) -> Arena<'a> {
                let bytes = slice.len() * size_of::<$element>();
                // SAFETY: every pattern of bits is a number, and numbers are bytes.
                let view = unsafe { slice.transmute_mut::<u8>(bytes) };
                Arena(view.expect("as many bytes as it has"))
            }
        }
    )*};
}

from_slices!(f32, u16, f16, bf16);

impl Arena<'_> {
    /// The elements in these bytes, to be read. They begin at a multiple of an element's size; what lies
    /// behind the arena's end is no part.
    pub fn read(&self, bytes: Range<usize>, dtype: DType) -> Slice<'_> {
        let (begin, len) = self.elements(bytes, dtype);
        Slice::part(Part { view: self.0.as_view(), begin, len, dtype })
    }

    /// The same, to be written.
    pub fn write(&self, bytes: Range<usize>, dtype: DType) -> SliceMut<'_> {
        let (begin, len) = self.elements(bytes, dtype);
        // SAFETY: a view is an address and its events, without a destructor. Copies of this one live in
        // `SliceMut`s alone, which nothing but a run of this crate takes, after it has made sure that no
        // output overlaps another operand; and the slice is borrowed as long as they live.
        let view = unsafe { core::ptr::read(&self.0) };
        SliceMut::part(Part { view, begin, len, dtype })
    }

    /// First byte and number of elements.
    fn elements(&self, bytes: Range<usize>, dtype: DType) -> (usize, usize) {
        let end = bytes.end.min(self.0.len());
        let begin = bytes.start.min(end);
        (begin, (end - begin) / dtype.size())
    }
}

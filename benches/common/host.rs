//! Plain vectors, and the `gemm` crate on all its threads: what a user has without this
//! crate. Used by `gemm_calls.rs`.

use fused_lora::cpu::Slice;
use fused_lora::{DType, Element};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

/// Elements that one task widens or narrows.
const CHUNK: usize = 1 << 16;

/// A vector in its storage type.
#[derive(Clone)]
pub enum Host {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Host {
    /// `values`, each rounded to `dtype`.
    pub fn new(dtype: DType, values: Vec<f32>) -> Host {
        fn round<T: Element>(values: &[f32]) -> Vec<T> {
            values.iter().map(|value| T::from_f32(*value)).collect()
        }
        match dtype {
            DType::F32 => Host::F32(values),
            DType::F16 => Host::F16(round(&values)),
            DType::Bf16 => Host::Bf16(round(&values)),
        }
    }

    /// As [`widened`].
    pub fn widened<'a>(&'a self, room: &'a mut Vec<f32>) -> &'a [f32] {
        widened(
            match self {
                Host::F32(of) => of.into(),
                Host::F16(of) => of.into(),
                Host::Bf16(of) => of.into(),
            },
            room,
        )
    }

    /// Overwrites the elements by `values`, rounded by all threads.
    pub fn narrow(&mut self, values: &[f32]) {
        match self {
            Host::F32(of) => of.copy_from_slice(values),
            Host::F16(of) => of
                .par_chunks_mut(CHUNK)
                .zip(values.par_chunks(CHUNK))
                .for_each(|(to, from)| to.convert_from_f32_slice(from)),
            Host::Bf16(of) => {
                of.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK)).for_each(|(to, from)| {
                    // Rounds to nearest even; NaN does not occur here.
                    pulp::Arch::new().dispatch(|| {
                        for (to, from) in to.iter_mut().zip(from) {
                            let bits = from.to_bits();
                            let even = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
                            *to = bf16::from_bits(even as u16);
                        }
                    });
                });
            }
        }
    }

    /// All elements in f32, in a vector of their own.
    pub fn to_f32(&self) -> Vec<f32> {
        self.widened(&mut Vec::new()).to_vec()
    }
}

/// The elements in f32: where they are stored so themselves, else `room`, into which all
/// threads widen them.
pub fn widened<'a>(elements: Slice<'a>, room: &'a mut Vec<f32>) -> &'a [f32] {
    match elements {
        Slice::F32(of) => of,
        Slice::F16(of) => {
            room.resize(of.len(), 0.0);
            room.par_chunks_mut(CHUNK)
                .zip(of.par_chunks(CHUNK))
                .for_each(|(to, from)| from.convert_to_f32_slice(to));
            room
        }
        Slice::Bf16(of) => {
            room.resize(of.len(), 0.0);
            room.par_chunks_mut(CHUNK).zip(of.par_chunks(CHUNK)).for_each(|(to, from)| {
                // A shift, without `half`'s care for signalling NaN: vector code.
                pulp::Arch::new().dispatch(|| {
                    for (to, from) in to.iter_mut().zip(from) {
                        *to = f32::from_bits(u32::from(from.to_bits()) << 16);
                    }
                });
            });
            room
        }
    }
}

/// A matrix: row-major, or its transpose.
#[derive(Clone, Copy)]
pub struct View<'a, T = f32> {
    elements: &'a [T],
    rows: usize,
    cols: usize,
    steps: [usize; 2],
}

impl<'a, T> View<'a, T> {
    /// Row-major, without gaps.
    pub fn new(elements: &'a [T], rows: usize, cols: usize) -> View<'a, T> {
        assert_eq!(elements.len(), rows * cols);
        View { elements, rows, cols, steps: [cols, 1] }
    }

    pub fn transposed(self) -> View<'a, T> {
        let View { elements, rows, cols, steps: [row, col] } = self;
        View { elements, rows: cols, cols: rows, steps: [col, row] }
    }
}

/// `out = keep·out + factor·lhs·rhs`, row-major, on all of rayon's threads. In f32 or f64.
pub fn product<T: Copy + Default + PartialEq + 'static>(
    out: &mut [T],
    keep: T,
    factor: T,
    lhs: View<'_, T>,
    rhs: View<'_, T>,
) {
    let (rows, cols) = (lhs.rows, rhs.cols);
    assert!(lhs.cols == rhs.rows && out.len() == rows * cols);
    // SAFETY: a view's constructor finds its elements inside its slice, a transpose reaches
    // the same ones, and `out` holds rows · cols elements.
    unsafe {
        gemm::gemm(
            rows,
            cols,
            lhs.cols,
            out.as_mut_ptr(),
            1,
            cols as isize,
            keep != T::default(),
            lhs.elements.as_ptr(),
            lhs.steps[1] as isize,
            lhs.steps[0] as isize,
            rhs.elements.as_ptr(),
            rhs.steps[1] as isize,
            rhs.steps[0] as isize,
            keep,
            factor,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(0),
        );
    }
}

//! Between f32 and the storage types, whole slices at a time. Used by `source` and `target`.

use core::mem::MaybeUninit;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::Element;

/// Conversions of whole slices, at the speed of the widest vectors there are.
pub(super) trait Convert: Element {
    /// Stored rows of `width` elements, `stride` apart, without their gaps.
    fn widen(from: &[Self], stride: usize, width: usize, to: &mut [f32]);
    /// Writes every element of `to`, whose old values are not looked at.
    fn narrow(from: &[f32], to: &mut [MaybeUninit<Self>]);
}

impl Convert for f32 {
    fn widen(from: &[f32], stride: usize, width: usize, to: &mut [f32]) {
        for (from, to) in from.chunks(stride).zip(to.chunks_exact_mut(width)) {
            to.copy_from_slice(&from[..width]);
        }
    }
    fn narrow(from: &[f32], to: &mut [MaybeUninit<f32>]) {
        write_all(from, to);
    }
}

impl Convert for f16 {
    fn widen(from: &[f16], stride: usize, width: usize, to: &mut [f32]) {
        for (from, to) in from.chunks(stride).zip(to.chunks_exact_mut(width)) {
            from[..width].convert_to_f32_slice(to);
        }
    }
    fn narrow(from: &[f32], to: &mut [MaybeUninit<f16>]) {
        // `half` converts into values alone.
        let mut values = [f16::ZERO; 256];
        for (from, to) in from.chunks(values.len()).zip(to.chunks_mut(values.len())) {
            values[..from.len()].convert_from_f32_slice(from);
            write_all(&values[..from.len()], to);
        }
    }
}

impl Convert for bf16 {
    fn widen(from: &[bf16], stride: usize, width: usize, to: &mut [f32]) {
        pulp::Arch::new().dispatch(|| {
            for (from, to) in from.chunks(stride).zip(to.chunks_exact_mut(width)) {
                for (to, from) in to.iter_mut().zip(&from[..width]) {
                    *to = f32::from_bits(u32::from(from.to_bits()) << 16);
                }
            }
        });
    }
    fn narrow(from: &[f32], to: &mut [MaybeUninit<bf16>]) {
        // `bf16::from_f32` without its branch, so that it becomes vector code.
        pulp::Arch::new().dispatch(|| {
            for (to, from) in to.iter_mut().zip(from) {
                let bits = from.to_bits();
                let even = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
                let quiet = (bits >> 16) | 0x40;
                let rounded = if from.is_nan() { quiet } else { even };
                to.write(bf16::from_bits(rounded as u16));
            }
        });
    }
}

fn write_all<T: Copy>(from: &[T], to: &mut [MaybeUninit<T>]) {
    assert_eq!(from.len(), to.len());
    // SAFETY: as many elements as `to` has, of its type; a copy of values initialises them, and the two
    // are borrowed apart.
    unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), to.as_mut_ptr().cast(), from.len()) }
}

/// Widens stored rows of `width` elements, `stride` apart, and closes the gaps.
pub(super) fn widen_rows<'s, T: Convert>(
    from: &[T],
    stride: usize,
    width: usize,
    room: &'s mut [f32],
) -> &'s [f32] {
    if width == 0 || from.is_empty() {
        return &[];
    }
    // Without gaps it is one long row.
    let (stride, width) = if stride == width { (from.len(), from.len()) } else { (stride, width) };
    let room = &mut room[..from.len().div_ceil(stride) * width];
    T::widen(from, stride, width, room);
    room
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The branchless conversions against `half`'s own, over every bf16 and its neighbours.
    #[test]
    fn bf16_conversions_are_those_of_half() {
        let mut floats = Vec::new();
        for upper in 0..=u16::MAX {
            let base = u32::from(upper) << 16;
            floats.extend(
                [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff].map(|low| f32::from_bits(base | low)),
            );
        }
        let mut narrowed = vec![MaybeUninit::new(bf16::ZERO); floats.len()];
        bf16::narrow(&floats, &mut narrowed);
        // SAFETY: they were values from the start.
        let narrowed: Vec<_> = narrowed.iter().map(|of| unsafe { of.assume_init() }).collect();
        for (float, narrowed) in floats.iter().zip(&narrowed) {
            assert_eq!(
                narrowed.to_bits(),
                bf16::from_f32(*float).to_bits(),
                "{:#x}",
                float.to_bits()
            );
        }
        let mut widened = vec![0.0; narrowed.len()];
        bf16::widen(&narrowed, narrowed.len(), narrowed.len(), &mut widened);
        for (narrowed, widened) in narrowed.iter().zip(&widened) {
            assert_eq!(widened.to_bits(), narrowed.to_f32().to_bits());
        }
    }
}

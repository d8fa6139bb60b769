//! How shrunk is rounded, and stored for the caller who keeps it. Called by `linear` and `decode`.

use core::ops::Range;

use super::bound::BoundBorder;
use super::target::Rounding;
use crate::DType;
use crate::product::Shrunk;

impl BoundBorder<'_> {
    /// Rounds `t` to what `shrunk` stores: one part, or the sum of the high and the low one.
    pub(super) fn round(&self, t: &mut [f32]) {
        let dtype = self.shrunk.dtype;
        if dtype == DType::F32 {
            return;
        }
        for value in t {
            let high = dtype.round(*value);
            *value = match self.shrunk.precise {
                true => high + low_part(dtype, *value, high),
                false => high,
            };
        }
    }

    /// [`BoundBorder::keep`] by whoever alone has `t`: at once, where it is stored as it is.
    ///
    /// # Safety
    /// As there.
    pub(super) unsafe fn keep_own(&self, rows: Range<usize>, t: &mut [f32]) {
        let Shrunk { dtype, precise, padded_rank, .. } = self.shrunk;
        match self.kept {
            Some(kept) if dtype == DType::F32 && !precise => {
                let rounding = Rounding::default();
                // SAFETY: the caller's.
                unsafe { kept.finish(rows, 0..padded_rank, t, padded_rank, rounding) };
            }
            // SAFETY: the caller's.
            _ => unsafe { self.keep(rows, t) },
        }
    }

    /// Writes rows of `t` to the caller's `shrunk`, if it is kept: the high part and its pad, then,
    /// if precise, the low one.
    ///
    /// # Safety
    /// Nobody else may use these rows of `shrunk` meanwhile.
    pub(super) unsafe fn keep(&self, rows: Range<usize>, t: &[f32]) {
        let Some(kept) = self.kept else { return };
        let (padded_rank, dtype) = (self.shrunk.padded_rank, self.shrunk.dtype);
        for (row, t) in rows.zip(t.chunks_exact(padded_rank)) {
            // One row at a time, eight elements at a time: parts are multiples of 8.
            for (at, t) in t.chunks_exact(8).enumerate() {
                let mut high: [f32; 8] = core::array::from_fn(|i| dtype.round(t[i]));
                let mut low: [f32; 8] = core::array::from_fn(|i| low_part(dtype, t[i], high[i]));
                let cols = 8 * at..8 * at + 8;
                let rounding = Rounding::default();
                // SAFETY: the caller's.
                unsafe {
                    kept.finish(row..row + 1, cols.clone(), &mut high, 8, rounding);
                    if self.shrunk.precise {
                        let cols = padded_rank + cols.start..padded_rank + cols.end;
                        kept.finish(row..row + 1, cols, &mut low, 8, rounding);
                    }
                }
            }
        }
    }
}

/// What is left of `value` beside its high part; 0 where that is not finite.
fn low_part(dtype: DType, value: f32, high: f32) -> f32 {
    if high.is_finite() { dtype.round(value - high) } else { 0.0 }
}

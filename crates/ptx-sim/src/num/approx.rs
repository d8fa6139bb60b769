//! Moves `.approx` results within the error the ISA documents, so that a tolerance tuned here is
//! not tighter than hardware. On only when a launch asks for it.

use super::mix;
use super::round::{decode, encode};
use crate::isa::inst::{Float, FloatOp, Round};

/// `bits` (one value of `float`), moved by at most the documented error of `op`; the same seed and
/// the same operand give the same result.
pub(crate) fn perturb(op: FloatOp, float: Float, bits: u64, seed: u64) -> u64 {
    let x = decode(bits, float);
    if !x.is_finite() || x == 0.0 {
        return bits;
    }
    let ulp = (2.0f64).powi(-23);
    // Relative and absolute parts of the ISA's "maximum error" entries.
    let (relative, absolute) = match op {
        FloatOp::Ex2 if float == Float::F16 => ((2.0f64).powf(-9.9), 0.0),
        FloatOp::Ex2 if float == Float::Bf16 => ((2.0f64).powi(-7), 0.0),
        FloatOp::Tanh if float == Float::F16 => (0.0, (2.0f64).powf(-10.987)),
        FloatOp::Tanh if float == Float::Bf16 => (0.0, (2.0f64).powi(-8)),
        FloatOp::Div | FloatOp::DivApprox => (2.0 * ulp, 0.0),
        FloatOp::Rcp => (ulp, 0.0),
        FloatOp::Sqrt => ((2.0f64).powi(-23), 0.0),
        FloatOp::Rsqrt => ((2.0f64).powf(-22.9), 0.0),
        FloatOp::Ex2 => ((2.0f64).powf(-22.5), 0.0),
        FloatOp::Lg2 => (0.0, (2.0f64).powi(-22)),
        FloatOp::Sin | FloatOp::Cos => (0.0, (2.0f64).powf(-20.5)),
        FloatOp::Tanh => ((2.0f64).powi(-11), 0.0),
        _ => return bits,
    };
    let random = (mix(seed, bits) >> 11) as f64 / (1u64 << 52) as f64 - 1.0;
    // Truncation keeps the rounding itself from stepping over the bound.
    encode(x + random * (relative * x.abs() + absolute), float, Round::Zero)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_within_the_bound_and_moves() {
        let bits = u64::from(1.5f32.to_bits());
        let mut moved = 0;
        for seed in 0..200 {
            let y = decode(perturb(FloatOp::Tanh, Float::F32, bits, seed), Float::F32);
            assert!((y - 1.5).abs() <= 1.5 * (2.0f64).powi(-11) + 1e-7);
            moved += u32::from(y != 1.5);
        }
        assert!(moved > 190);
    }
}

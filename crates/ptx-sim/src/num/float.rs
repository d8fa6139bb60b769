//! Scalar float arithmetic on bits, one rounding per operation. Called per lane by `exec::float`.

use super::round::{add_odd, decode, encode, flush, to_odd};
use crate::isa::inst::{Float, FloatFlags, FloatOp, Round};

/// `op` on values of `flags.float`; an unused operand is ignored. `.approx` comes correctly
/// rounded; [`approx::perturb`](super::approx::perturb) moves it.
pub(crate) fn scalar(op: FloatOp, flags: &FloatFlags, s: [u64; 3]) -> u64 {
    let float = flags.float;
    let s = if flags.ftz { s.map(|x| flush(x, float)) } else { s };
    let sign = 1u64 << (width(float) - 1);
    // Sign operations touch no other bit, NaN included.
    match op {
        FloatOp::Neg => return s[0] ^ sign,
        FloatOp::Abs => return s[0] & !sign,
        _ => {}
    }
    let [a, b, c] = s.map(|x| decode(x, float));
    let round = flags.round;
    let mut out = match op {
        FloatOp::Min | FloatOp::Max | FloatOp::MinNan | FloatOp::MaxNan => extreme(op, float, a, b),
        _ if float == Float::F64 && flags.approx && flags.ftz => upper_word(op, a),
        _ if float == Float::F64 => encode(double(op, a, b, c), float, round),
        _ if float == Float::F32 && round == Round::Nearest => match op {
            FloatOp::Add => canonical(a as f32 + b as f32),
            FloatOp::Sub => canonical(a as f32 - b as f32),
            FloatOp::Mul => canonical(a as f32 * b as f32),
            FloatOp::Div => canonical(a as f32 / b as f32),
            // a · (1/b) whose reciprocal has been flushed.
            FloatOp::DivApprox if b.abs() > (2.0f64).powi(126) && b.is_finite() => {
                canonical(if a.is_finite() { (a * b).signum() as f32 * 0.0 } else { f32::NAN })
            }
            FloatOp::DivApprox => canonical(a as f32 / b as f32),
            FloatOp::Sqrt => canonical((a as f32).sqrt()),
            FloatOp::Fma => canonical((a as f32).mul_add(b as f32, c as f32)),
            _ => encode(wide(op, a, b, c), float, round),
        },
        _ => {
            let x = wide(op, a, b, c);
            // An exact cancellation is -0 when rounding down, by IEEE 754.
            let both = matches!(op, FloatOp::Add | FloatOp::Sub | FloatOp::Fma);
            if x == 0.0 && both && round == Round::Down && !zero_keeps_sign(op, a, b, c) {
                sign
            } else {
                encode(x, float, round)
            }
        }
    };
    if flags.ftz {
        out = flush(out, float);
    }
    if flags.sat {
        let v = decode(out, float);
        // NaN saturates to +0.
        out = encode(if v.is_nan() || v <= 0.0 { 0.0 } else { v.min(1.0) }, float, Round::Nearest);
    }
    if flags.relu {
        let v = decode(out, float);
        out = if v.is_nan() {
            out
        } else if v <= 0.0 {
            0
        } else {
            out
        };
    }
    out
}

fn zero_keeps_sign(op: FloatOp, a: f64, b: f64, c: f64) -> bool {
    let (x, y) = match op {
        FloatOp::Add => (a, b),
        FloatOp::Sub => (a, -b),
        _ => (a * b, c),
    };
    x == 0.0 && y == 0.0 && x.is_sign_negative() == y.is_sign_negative()
}

pub(crate) fn width(float: Float) -> u32 {
    match float {
        Float::F16 | Float::Bf16 => 16,
        Float::F32 => 32,
        Float::F64 => 64,
    }
}

fn canonical(x: f32) -> u64 {
    u64::from(if x.is_nan() { 0x7FFF_FFFF } else { x.to_bits() })
}

fn extreme(op: FloatOp, float: Float, a: f64, b: f64) -> u64 {
    let strict = matches!(op, FloatOp::MinNan | FloatOp::MaxNan);
    let smaller = matches!(op, FloatOp::Min | FloatOp::MinNan);
    let x = if a.is_nan() || b.is_nan() {
        if strict || (a.is_nan() && b.is_nan()) {
            f64::NAN
        } else if a.is_nan() {
            b
        } else {
            a
        }
    } else if a == b {
        // -0 counts as less than +0.
        if a.is_sign_negative() == smaller { a } else { b }
    } else if (a < b) == smaller {
        a
    } else {
        b
    };
    encode(x, float, Round::Nearest)
}

fn double(op: FloatOp, a: f64, b: f64, c: f64) -> f64 {
    match op {
        FloatOp::Add => a + b,
        FloatOp::Sub => a - b,
        FloatOp::Mul => a * b,
        FloatOp::Fma => a.mul_add(b, c),
        FloatOp::Div => a / b,
        FloatOp::Rcp => 1.0 / a,
        FloatOp::Sqrt => a.sqrt(),
        FloatOp::Rsqrt => 1.0 / a.sqrt(),
        _ => f64::NAN,
    }
}

/// `.approx.ftz` in f64: what the upper half of the result can hold, the lower half is zero.
fn upper_word(op: FloatOp, a: f64) -> u64 {
    let x = double(op, a, 0.0, 0.0);
    let bits = encode(x, Float::F64, Round::Nearest);
    if x.is_nan() { bits } else { flush(bits & !0xFFFF_FFFF, Float::F64) }
}

/// The result in f64, rounded to odd where it is not exact, so that one more rounding is right.
fn wide(op: FloatOp, a: f64, b: f64, c: f64) -> f64 {
    match op {
        FloatOp::Add => add_odd(a, b),
        FloatOp::Sub => add_odd(a, -b),
        // Two significands of at most 24 bits: exact.
        FloatOp::Mul => a * b,
        FloatOp::Fma => add_odd(a * b, c),
        FloatOp::Div => quotient(a, b),
        FloatOp::Rcp => quotient(1.0, a),
        FloatOp::Sqrt => {
            let r = a.sqrt();
            to_odd(r, (-r).mul_add(r, a))
        }
        FloatOp::Rsqrt => 1.0 / a.sqrt(),
        FloatOp::Ex2 => a.exp2(),
        FloatOp::Lg2 => a.log2(),
        FloatOp::Sin => a.sin(),
        FloatOp::Cos => a.cos(),
        FloatOp::Tanh => a.tanh(),
        _ => f64::NAN,
    }
}

fn quotient(a: f64, b: f64) -> f64 {
    let q = a / b;
    if q == 0.0 || !q.is_finite() {
        return q;
    }
    let rest = (-q).mul_add(b, a);
    to_odd(q, if b > 0.0 { rest } else { -rest })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(float: Float, round: Round) -> FloatFlags {
        FloatFlags {
            float,
            packed: false,
            round,
            ftz: false,
            sat: false,
            relu: false,
            approx: false,
        }
    }

    #[test]
    fn half_fma_rounds_once() {
        // 1.0009765625² + -1.001953125 = 2^-20 exactly; two roundings give 0.
        let f = flags(Float::F16, Round::Nearest);
        let got = scalar(FloatOp::Fma, &f, [0x3C01, 0x3C01, 0xBC02]);
        assert_eq!(got, u64::from(half::f16::from_f64((2.0f64).powi(-20)).to_bits()));
    }

    #[test]
    fn minimum_of_zeros_and_nans() {
        let f = flags(Float::F32, Round::Nearest);
        let (nan, zero, minus) = (0x7FC0_0000, 0, 0x8000_0000);
        assert_eq!(scalar(FloatOp::Min, &f, [zero, minus, 0]), minus);
        assert_eq!(scalar(FloatOp::Max, &f, [minus, zero, 0]), zero);
        assert_eq!(scalar(FloatOp::Min, &f, [nan, zero, 0]), zero);
        assert_eq!(scalar(FloatOp::MinNan, &f, [nan, zero, 0]), 0x7FFF_FFFF);
    }

    #[test]
    fn flushing_and_saturation() {
        let ftz = FloatFlags { ftz: true, ..flags(Float::F32, Round::Nearest) };
        assert_eq!(scalar(FloatOp::Add, &ftz, [1, 1, 0]), 0);
        assert_eq!(scalar(FloatOp::Mul, &ftz, [0x0080_0000, 0x3F00_0000, 0]), 0);
        let sat = FloatFlags { sat: true, ..flags(Float::F32, Round::Nearest) };
        assert_eq!(scalar(FloatOp::Add, &sat, [0x7FC0_0000, 0, 0]), 0);
        assert_eq!(scalar(FloatOp::Add, &sat, [0x4000_0000, 0, 0]), 0x3F80_0000);
    }

    #[test]
    fn directed_division() {
        let third = |r| scalar(FloatOp::Div, &flags(Float::F32, r), [0x3F80_0000, 0x4040_0000, 0]);
        assert_eq!(third(Round::Down), 0x3EAA_AAAA);
        assert_eq!(third(Round::Up), 0x3EAA_AAAB);
        assert_eq!(third(Round::Nearest), 0x3EAA_AAAB);
    }
}

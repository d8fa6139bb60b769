//! One rounding routine for all formats, and sums whose f64 result may be rounded again.

use crate::isa::inst::{Float, Round};

/// A binary format: significand bits (hidden one included) and largest exponent.
#[derive(Clone, Copy)]
struct Format {
    p: i32,
    emax: i32,
    /// Bits of the whole, for the place of sign and exponent.
    width: u32,
    nan: u64,
}

const fn format(float: Float) -> Format {
    match float {
        Float::F16 => Format { p: 11, emax: 15, width: 16, nan: 0x7FFF },
        Float::Bf16 => Format { p: 8, emax: 127, width: 16, nan: 0x7FFF },
        Float::F32 => Format { p: 24, emax: 127, width: 32, nan: 0x7FFF_FFFF },
        Float::F64 => Format { p: 53, emax: 1023, width: 64, nan: 0x7FFF_FFFF_FFFF_FFFF },
    }
}

/// tf32 has f16's significand and f32's exponent, kept in the upper bits of an f32.
const TF32: Format = Format { p: 11, emax: 127, width: 19, nan: 0x3FFFF };

/// The bits of `x` rounded to `float`. NaN becomes the canonical NaN of the ISA.
pub(crate) fn encode(x: f64, float: Float, round: Round) -> u64 {
    if float == Float::F64 {
        return if x.is_nan() { format(float).nan } else { x.to_bits() };
    }
    pack(x, format(float), round)
}

/// `x` as tf32 in a 32-bit register, the low 13 bits zero.
pub(crate) fn encode_tf32(x: f64, round: Round) -> u64 {
    pack(x, TF32, round) << 13
}

fn pack(x: f64, f: Format, round: Round) -> u64 {
    let negative = x.is_sign_negative();
    let sign = u64::from(negative) << (f.width - 1);
    let infinity = ((2 * f.emax + 1) as u64) << (f.p - 1);
    if x.is_nan() {
        return f.nan;
    }
    if x.is_infinite() {
        return sign | infinity;
    }
    let bits = x.abs().to_bits();
    let field = (bits >> 52) as i32;
    // x = m · 2^e
    let (m, e) =
        if field == 0 { (bits, -1074) } else { (bits & ((1 << 52) - 1) | 1 << 52, field - 1075) };
    if m == 0 {
        return sign;
    }
    let top = 63 - m.leading_zeros() as i32 + e;
    let emin = 1 - f.emax;
    let mut q = top.max(emin) - (f.p - 1);
    let shift = q - e;
    let mut kept = if shift <= 0 {
        m << -shift
    } else if shift < 64 {
        m >> shift
    } else {
        0
    };
    if shift > 0 {
        let rest = if shift < 64 { m & ((1 << shift) - 1) } else { m };
        // Beyond 64 bits what is left is far below one half.
        let half = if shift <= 63 { 1u64 << (shift - 1) } else { u64::MAX };
        let up = match round {
            Round::Nearest => rest > half || (rest == half && kept & 1 == 1),
            Round::Away => rest >= half,
            Round::Zero => false,
            Round::Down => negative && rest > 0,
            Round::Up => !negative && rest > 0,
        };
        kept += u64::from(up);
    }
    if kept >> f.p == 1 {
        kept >>= 1;
        q += 1;
    }
    if kept >> (f.p - 1) == 0 {
        return sign | kept;
    }
    let exponent = q + f.p - 1;
    if exponent > f.emax {
        let finite = match round {
            Round::Zero => true,
            Round::Down => !negative,
            Round::Up => negative,
            _ => false,
        };
        return sign | if finite { infinity - 1 } else { infinity };
    }
    sign | ((exponent + f.emax) as u64) << (f.p - 1) | kept & ((1 << (f.p - 1)) - 1)
}

/// The value of `bits` in `float`; exact.
pub(crate) fn decode(bits: u64, float: Float) -> f64 {
    match float {
        Float::F64 => f64::from_bits(bits),
        Float::F32 => f64::from(f32::from_bits(bits as u32)),
        Float::Bf16 => f64::from(f32::from_bits((bits as u32) << 16)),
        Float::F16 => {
            let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
            let (exponent, m) = ((bits >> 10 & 31) as i32, (bits & 1023) as f64);
            match exponent {
                31 if m == 0.0 => sign * f64::INFINITY,
                31 => f64::NAN,
                0 => sign * m * (2.0f64).powi(-24),
                _ => sign * (m + 1024.0) * f64::from_bits(((exponent - 25 + 1023) as u64) << 52),
            }
        }
    }
}

/// Zero in place of a subnormal, the sign kept.
pub(crate) fn flush(bits: u64, float: Float) -> u64 {
    let f = format(float);
    let exponent = bits >> (f.p - 1) & ((2 * f.emax + 1) as u64);
    if exponent == 0 { bits & 1 << (f.width - 1) } else { bits }
}

/// Makes the last bit of an inexact `x` odd, towards `rest`: then rounding `x` once more, to a
/// narrower format, gives what rounding the exact value would have given.
pub(crate) fn to_odd(x: f64, rest: f64) -> f64 {
    if rest == 0.0 || !x.is_finite() || rest.is_nan() || x.to_bits() & 1 == 1 {
        return x;
    }
    if x == 0.0 {
        return if rest > 0.0 { f64::from_bits(1) } else { -f64::from_bits(1) };
    }
    let outward = (rest > 0.0) == (x > 0.0);
    f64::from_bits(if outward { x.to_bits() + 1 } else { x.to_bits() - 1 })
}

/// `a + b`, rounded to odd.
pub(crate) fn add_odd(a: f64, b: f64) -> f64 {
    let s = a + b;
    let t = s - a;
    to_odd(s, (a - (s - t)) + (b - t))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_and_bf16_agree_with_half_on_every_f16_and_on_neighbours() {
        for bits in 0..=u16::MAX {
            let want = half::f16::from_bits(bits).to_f64();
            let got = decode(u64::from(bits), Float::F16);
            assert!(want == got || want.is_nan() && got.is_nan(), "{bits:#x}");
            for step in [-1i32, 0, 1] {
                let x = f32::from_bits((want as f32).to_bits().wrapping_add_signed(step));
                if x.is_nan() {
                    continue;
                }
                let h = u64::from(half::f16::from_f32(x).to_bits());
                assert_eq!(encode(f64::from(x), Float::F16, Round::Nearest), h, "{x:e}");
                let b = u64::from(half::bf16::from_f32(x).to_bits());
                assert_eq!(encode(f64::from(x), Float::Bf16, Round::Nearest), b, "{x:e}");
            }
        }
    }

    #[test]
    fn directed_roundings_by_hand() {
        let x = 1.0 + (2.0f64).powi(-11);
        let f = |r| encode(x, Float::F16, r);
        // Halfway between 0x3C00 (even) and 0x3C01.
        assert_eq!(
            [f(Round::Nearest), f(Round::Zero), f(Round::Down), f(Round::Up)],
            [0x3C00, 0x3C00, 0x3C00, 0x3C01]
        );
        let g = |r| encode(-x, Float::F16, r);
        assert_eq!(
            [g(Round::Nearest), g(Round::Zero), g(Round::Down), g(Round::Up)],
            [0xBC00, 0xBC00, 0xBC01, 0xBC00]
        );
        assert_eq!(encode(65520.0, Float::F16, Round::Nearest), 0x7C00);
        assert_eq!(encode(65520.0, Float::F16, Round::Zero), 0x7BFF);
        assert_eq!(encode_tf32(x, Round::Away), 0x3F80_2000);
        assert_eq!(encode_tf32(x, Round::Nearest), 0x3F80_0000);
        assert_eq!(encode(f64::NAN, Float::F32, Round::Nearest), 0x7FFF_FFFF);
    }

    #[test]
    fn a_sum_rounded_to_odd_survives_a_second_rounding() {
        // 1 + 2^-24 + 2^-80 lies just above a tie of f32: nearest must go up.
        let s = add_odd(1.0 + (2.0f64).powi(-24), (2.0f64).powi(-80));
        assert_eq!(encode(s, Float::F32, Round::Nearest), 0x3F80_0001);
        let s = add_odd(1.0 + (2.0f64).powi(-24), -(2.0f64).powi(-80));
        assert_eq!(encode(s, Float::F32, Round::Nearest), 0x3F80_0000);
    }
}

//! The eight-bit floats e4m3 and e5m2 of `cvt`, rounded to nearest and saturated. Called by
//! `exec::float`.

use crate::isa::inst::Fp8;

/// Fraction bits, smallest normal exponent, largest finite value.
fn shape(fp8: Fp8) -> (i32, i32, f64) {
    match fp8 {
        Fp8::E4m3 => (3, -6, 448.0),
        Fp8::E5m2 => (2, -14, 57344.0),
    }
}

/// `.rn.satfinite`: what is too large, infinity included, becomes the largest finite value.
pub(crate) fn encode(x: f64, fp8: Fp8) -> u64 {
    if x.is_nan() {
        return 0x7F;
    }
    let (fraction, least, largest) = shape(fp8);
    let sign = u64::from(x.is_sign_negative()) << 7;
    let x = x.abs().min(largest);
    // The exponent of the last place, then the value in units of it.
    let exponent = (((x.to_bits() >> 52) as i32) - 1023).max(least);
    let units = (x * (2.0f64).powi(fraction - exponent)).round_ties_even() as u64;
    // A subnormal's units are its bits; a carry into the next exponent comes out right by itself.
    sign | (units + (((exponent - least) as u64) << fraction))
}

/// Exact.
pub(crate) fn decode(bits: u64, fp8: Fp8) -> f64 {
    let (fraction, least, largest) = shape(fp8);
    let sign = if bits & 0x80 == 0 { 1.0 } else { -1.0 };
    let (field, rest) = ((bits & 0x7F) >> fraction, bits & ((1 << fraction) - 1));
    let x = match field {
        0 => rest as f64 * (2.0f64).powi(least - fraction),
        _ => (rest + (1 << fraction)) as f64 * (2.0f64).powi(least - fraction + field as i32 - 1),
    };
    match fp8 {
        _ if x <= largest => sign * x,
        Fp8::E5m2 if rest == 0 => sign * f64::INFINITY,
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_written_out() {
        // The tables of the OCP 8-bit floating point specification, section 5.
        for (bits, e4m3, e5m2) in [
            (0x00, 0.0, 0.0),
            (0x01, 0.001953125, 0.0000152587890625),
            (0x38, 1.0, 0.5),
            (0x3C, 1.5, 1.0),
            (0x7B, 352.0, 57344.0),
            (0xBC, -1.5, -1.0),
        ] {
            assert_eq!(
                (decode(bits, Fp8::E4m3), decode(bits, Fp8::E5m2)),
                (e4m3, e5m2),
                "{bits:#x}"
            );
        }
        assert_eq!(decode(0x7E, Fp8::E4m3), 448.0);
        assert_eq!(decode(0x7C, Fp8::E5m2), f64::INFINITY);
        assert!(decode(0x7F, Fp8::E4m3).is_nan() && decode(0xFF, Fp8::E5m2).is_nan());
    }

    #[test]
    fn every_value_comes_back_and_what_lies_between_goes_to_the_nearer() {
        for fp8 in [Fp8::E4m3, Fp8::E5m2] {
            let finite: Vec<u64> = (0..0x7F).filter(|&b| decode(b, fp8).is_finite()).collect();
            for pair in finite.windows(2) {
                let (low, high) = (decode(pair[0], fp8), decode(pair[1], fp8));
                assert!(low < high);
                assert_eq!(encode(low, fp8), pair[0]);
                assert_eq!(encode(-low, fp8), pair[0] | 0x80);
                let middle = (low + high) / 2.0;
                let even = if pair[0] & 1 == 0 { pair[0] } else { pair[1] };
                assert_eq!(encode(middle, fp8), even);
                assert_eq!(encode(middle.next_down(), fp8), pair[0]);
                assert_eq!(encode(middle.next_up(), fp8), pair[1]);
            }
            let last = *finite.last().unwrap();
            assert_eq!(
                [encode(1e9, fp8), encode(f64::INFINITY, fp8), encode(-1e9, fp8)],
                [last, last, last | 0x80]
            );
            assert_eq!(encode(f64::NAN, fp8), 0x7F);
        }
    }
}

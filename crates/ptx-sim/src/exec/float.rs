//! Float arithmetic and conversions over the lanes of a warp.

use super::env::Env;
use super::int::sign_extend;
use super::trouble::Res;
use super::warp::Files;
use crate::isa::inst::{CvtKind, Float, FloatFlags, FloatOp, Fp8, Round, Slot};
use crate::isa::types::mask as ones;
use crate::lanes::lanes;
use crate::num::approx::perturb;
use crate::num::float::{scalar, width};
use crate::num::fp8;
use crate::num::round::{decode, encode, encode_tf32, flush};

pub(super) fn arithmetic(
    f: &mut Files,
    env: &Env<'_>,
    op: FloatOp,
    flags: &FloatFlags,
    d: Slot,
    s: &[Slot],
    mask: u32,
) -> Res<()> {
    let mut x = [[0; 32]; 3];
    for (x, &slot) in x.iter_mut().zip(s) {
        *x = *f.read(slot, mask)?;
    }
    let [a, b, c] = &x;
    let mut v = [0; 32];
    let plain =
        flags.float == Float::F32 && flags.round == Round::Nearest && !flags.ftz && !flags.sat;
    let single = |bits: u64| f32::from_bits(bits as u32);
    let bits = |x: f32| u64::from(if x.is_nan() { 0x7FFF_FFFF } else { x.to_bits() });
    // What inner loops are made of, without a call per lane.
    match op {
        FloatOp::Fma if plain => {
            for l in 0..32 {
                v[l] = bits(single(a[l]).mul_add(single(b[l]), single(c[l])));
            }
        }
        FloatOp::Add if plain => {
            for l in 0..32 {
                v[l] = bits(single(a[l]) + single(b[l]));
            }
        }
        FloatOp::Mul if plain => {
            for l in 0..32 {
                v[l] = bits(single(a[l]) * single(b[l]));
            }
        }
        _ => {
            for l in lanes(mask) {
                let one = |s: [u64; 3]| {
                    let exact = scalar(op, flags, s);
                    if !(flags.approx && env.options.perturb) {
                        return exact;
                    }
                    let seed = env.options.seed ^ s[0] << 32 ^ s[1];
                    let moved = perturb(op, flags.float, exact, seed);
                    if flags.ftz { flush(moved, flags.float) } else { moved }
                };
                let part = |n: u32| one([a[l], b[l], c[l]].map(|x| x >> n & 0xFFFF));
                v[l] =
                    if flags.packed { part(0) | part(16) << 16 } else { one([a[l], b[l], c[l]]) };
            }
        }
    }
    f.store(d, mask, &v);
    Ok(())
}

fn relu(x: f64, on: bool) -> f64 {
    // NaN passes; -0 becomes +0.
    if on && x <= 0.0 { 0.0 } else { x }
}

/// The largest finite value in the place of infinity.
fn finite(bits: u64, float: Float) -> u64 {
    if decode(bits, float).is_infinite() { bits - 1 } else { bits }
}

/// `x` rounded to an integer.
fn integral(x: f64, round: Round) -> f64 {
    match round {
        Round::Nearest => x.round_ties_even(),
        Round::Zero => x.trunc(),
        Round::Down => x.floor(),
        Round::Up => x.ceil(),
        Round::Away => x.round(),
    }
}

pub(super) fn cvt(
    f: &mut Files,
    kind: CvtKind,
    d: Slot,
    a: Slot,
    extend: u32,
    mask: u32,
) -> Res<()> {
    let a = *f.read(a, mask)?;
    let v = a.map(|x| convert(kind, x, extend));
    f.store(d, mask, &v);
    Ok(())
}

/// One value; an integer result narrower than the register is extended to `extend` bits.
fn convert(kind: CvtKind, x: u64, extend: u32) -> u64 {
    let integer = |x: u64, (bits, signed): (u32, bool)| -> i128 {
        if signed { i128::from(sign_extend(x, bits)) } else { i128::from(x & ones(bits)) }
    };
    let limits = |(bits, signed): (u32, bool)| -> (i128, i128) {
        if signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
    };
    let fit = |v: i128, to: (u32, bool)| -> u64 {
        let low = v as u64 & ones(to.0);
        if to.1 { sign_extend(low, to.0) as u64 & ones(extend) } else { low }
    };
    match kind {
        CvtKind::IntInt { from, to, sat } => {
            let v = integer(x, from);
            let (low, high) = limits(to);
            fit(if sat { v.clamp(low, high) } else { v }, to)
        }
        CvtKind::IntFloat { from, to, round, sat } => {
            let v = integer(x, from);
            let mut out = encode(int_to_odd(v, to, round), to, round);
            if sat {
                out = encode(decode(out, to).clamp(0.0, 1.0), to, Round::Nearest);
            }
            out
        }
        CvtKind::FloatInt { from, to, round, ftz } => {
            let v = integral(decode(if ftz { flush(x, from) } else { x }, from), round);
            let (low, high) = limits(to);
            // The ISA's rule for NaN: the top bit alone when a side has 64 bits, else zero.
            let v = if !v.is_nan() {
                (v as i128).clamp(low, high)
            } else if from == Float::F64 || to.0 == 64 {
                1 << (to.0 - 1)
            } else {
                0
            };
            fit(v, to)
        }
        CvtKind::FloatFloat { from, to, round, ftz, sat, relu: r, satfinite, integral: whole } => {
            let x = if ftz && from == Float::F32 { flush(x, from) } else { x };
            let mut v = decode(x, from);
            if whole {
                let rounded = integral(v, round);
                v = if rounded == 0.0 { rounded.copysign(v) } else { rounded };
            }
            v = relu(v, r);
            if sat {
                v = if v.is_nan() || v <= 0.0 { 0.0 } else { v.min(1.0) };
            }
            let mut out = encode(v, to, if whole { Round::Nearest } else { round });
            if satfinite {
                out = finite(out, to);
            }
            if ftz && to == Float::F32 { flush(out, to) } else { out }
        }
        CvtKind::Tf32 { round, relu: r, satfinite } => {
            let out = encode_tf32(relu(decode(x, Float::F32), r), round);
            // The largest tf32: infinity's bits less one unit of its last place.
            if satfinite && out & 0x7FFF_FFFF == 0x7F80_0000 { out - 0x2000 } else { out }
        }
        CvtKind::ToFp8 { fp8, relu: r } => {
            let part = |n: u32| fp8::encode(relu(decode(x >> n & 0xFFFF, Float::F16), r), fp8);
            part(0) | part(16) << 8
        }
        CvtKind::FromFp8 { fp8, relu: r } => {
            let part = |n: u32| {
                encode(relu(fp8::decode(x >> n & 0xFF, fp8), r), Float::F16, Round::Nearest)
            };
            part(0) | part(8) << 16
        }
    }
}

/// `s`: destination, upper byte, lower byte.
pub(super) fn cvt_fp8(f: &mut Files, fp8: Fp8, r: bool, s: [Slot; 3], mask: u32) -> Res<()> {
    let (a, b) = (*f.read(s[1], mask)?, *f.read(s[2], mask)?);
    let one = |x: u64| fp8::encode(relu(decode(x, Float::F32), r), fp8);
    let v = std::array::from_fn(|l| one(a[l]) << 8 | one(b[l]));
    f.store(s[0], mask, &v);
    Ok(())
}

/// An integer as f64: exact, or rounded so that the next rounding is right.
fn int_to_odd(v: i128, to: Float, round: Round) -> f64 {
    if v.unsigned_abs() < 1 << 53 || (to == Float::F64 && round == Round::Nearest) {
        return v as f64;
    }
    // Two halves that are exact each; their sum rounded to odd.
    let low = v & 0xFFFF_FFFF;
    let (high, low) = ((v - low) as f64, low as f64);
    let odd = crate::num::round::add_odd(high, low);
    if to != Float::F64 {
        return odd;
    }
    // Directed rounding to f64 itself.
    let exact = |x: f64| x as i128;
    let near = high + low;
    match round {
        Round::Down if exact(near) > v => near.next_down(),
        Round::Up if exact(near) < v => near.next_up(),
        Round::Zero if near > 0.0 && exact(near) > v => near.next_down(),
        Round::Zero if near < 0.0 && exact(near) < v => near.next_up(),
        _ => near,
    }
}

/// `s`: destination, upper half, lower half.
pub(super) fn cvt_pair(
    f: &mut Files,
    (to, round): (Float, Round),
    r: bool,
    satfinite: bool,
    s: [Slot; 3],
    mask: u32,
) -> Res<()> {
    let (a, b) = (*f.read(s[1], mask)?, *f.read(s[2], mask)?);
    let one = |x: u64| {
        let out = encode(relu(decode(x, Float::F32), r), to, round);
        if satfinite { finite(out, to) } else { out }
    };
    let v = std::array::from_fn(|l| one(a[l]) << width(to) | one(b[l]));
    f.store(s[0], mask, &v);
    Ok(())
}

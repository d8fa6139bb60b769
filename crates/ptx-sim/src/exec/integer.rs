//! Carries, sums of products and differences, packed halves and bytes, and questions whose answer is a
//! predicate or a number.

use super::access::resolve;
use super::int::{compare, compare_pair, high, saturate, sign_extend};
use super::trouble::Res;
use super::warp::Files;
use crate::isa::inst::{
    Carry, CarryOp, Cmp, CmpTy, Logic, PSlot, Packed, PackedOp, Slot, Space, Ternary, Test,
};
use crate::isa::types::mask as ones;

/// `add.cc`, `addc` and their kin; the flag of a difference is its borrow.
pub(super) fn carry(f: &mut Files, c: &Carry, mask: u32) -> Res<()> {
    let (a, b) = (*f.read(c.a, mask)?, *f.read(c.b, mask)?);
    let addend = match c.c {
        Some(slot) => *f.read(slot, mask)?,
        None => [0; 32],
    };
    let flags = if c.reads { f.pred(c.flag, mask)? } else { 0 };
    let m = ones(c.bits);
    let (mut v, mut out) = ([0; 32], 0);
    for lane in 0..32 {
        let (x, y) = match c.op {
            CarryOp::Add | CarryOp::Sub => (a[lane], b[lane]),
            CarryOp::MadLo => (a[lane].wrapping_mul(b[lane]) & m, addend[lane]),
            CarryOp::MadHi => (high(a[lane], b[lane], c.bits, c.signed), addend[lane]),
        };
        let flag = u128::from(flags >> lane & 1);
        let (x, y) = (u128::from(x), u128::from(y));
        let wide = if c.op == CarryOp::Sub { x.wrapping_sub(y + flag) } else { x + y + flag };
        v[lane] = wide as u64 & m;
        out |= ((wide >> c.bits & 1) as u32) << lane;
    }
    f.store(c.d, mask, &v);
    if c.writes {
        f.set_pred(c.flag, mask, out);
    }
    Ok(())
}

/// What `op` makes of three values; called for the operations that `int::ternary` leaves here.
pub(super) fn ternary(op: Ternary, bits: u32, signed: bool, [a, b, c]: [u64; 3]) -> u64 {
    let m = ones(bits);
    let part = |x: u64, i: u32, n: u32, signed: bool| {
        let v = x >> (n * i) & ones(n);
        if signed { sign_extend(v, n) } else { v as i64 }
    };
    match op {
        Ternary::Mad24 { high, sat } => {
            let product = part(a, 0, 24, signed) * part(b, 0, 24, signed);
            let product = if high { (product >> 16) as u64 & m } else { product as u64 & m };
            if sat {
                saturate(sign_extend(product, 32) + sign_extend(c, 32))
            } else {
                product.wrapping_add(c) & m
            }
        }
        Ternary::Sad => {
            let difference = if signed {
                (i128::from(sign_extend(a, bits)) - i128::from(sign_extend(b, bits))).unsigned_abs()
                    as u64
            } else {
                a.abs_diff(b)
            };
            c.wrapping_add(difference) & m
        }
        Ternary::Dp4a((sa, sb)) => {
            let sum: i64 = (0..4).map(|i| part(a, i, 8, sa) * part(b, i, 8, sb)).sum();
            c.wrapping_add(sum as u64) & m
        }
        Ternary::Dp2a((sa, sb), upper) => {
            let from = if upper { 2 } else { 0 };
            let sum: i64 = (0..2).map(|i| part(a, i, 16, sa) * part(b, from + i, 8, sb)).sum();
            c.wrapping_add(sum as u64) & m
        }
        Ternary::Bmsk(wrap) => {
            let (from, n) = if wrap { (a & 31, b & 31) } else { (a.min(32), b.min(32)) };
            ones(n as u32) << from & m
        }
        Ternary::Szext(wrap) => {
            let n = if wrap { b & 31 } else { b.min(32) } as u32;
            match n {
                0 => 0,
                _ if signed => sign_extend(a & ones(n), n) as u64 & m,
                _ => a & ones(n),
            }
        }
        Ternary::Fns => nth_set(a as u32, b as u32, c as u32 as i32),
        Ternary::CvtPack((to, signed)) => {
            let (low, top) = if signed {
                (-(1i64 << (to - 1)), (1 << (to - 1)) - 1)
            } else {
                (0, (1 << to) - 1)
            };
            let clamp = |x: u64| sign_extend(x, 32).clamp(low, top) as u64 & ones(to);
            // The wide form fills the register; the narrow one pushes `c` up by 16 bits.
            let above = if to == 8 { c << 16 } else { 0 };
            (above | clamp(a) << to | clamp(b)) & m
        }
        Ternary::Copysign => {
            let sign = 1u64 << (bits - 1);
            a & sign | b & !sign
        }
        _ => 0,
    }
}

/// The ISA's loop: from `base` on, upwards or downwards, the bit that is the |offset|-th set.
fn nth_set(mask: u32, base: u32, offset: i32) -> u64 {
    const NONE: u64 = 0xFFFF_FFFF;
    if base > 31 {
        return NONE;
    }
    if offset == 0 {
        return if mask >> base & 1 == 1 { base.into() } else { NONE };
    }
    let set = |&i: &u32| mask >> i & 1 == 1;
    let nth = offset.unsigned_abs() as usize - 1;
    let found = if offset > 0 {
        (base..32).filter(set).nth(nth)
    } else {
        (0..=base).rev().filter(set).nth(nth)
    };
    found.map_or(NONE, u64::from)
}

pub(super) fn packed(f: &mut Files, p: &Packed, mask: u32) -> Res<()> {
    let (a, b, c) = (*f.read(p.a, mask)?, *f.read(p.b, mask)?, *f.read(p.c, mask)?);
    let v = std::array::from_fn(|lane| pack_one(p, a[lane], b[lane], c[lane]));
    f.store(p.d, mask, &v);
    Ok(())
}

fn pack_one(p: &Packed, a: u64, b: u64, c: u64) -> u64 {
    let bits = 32 / p.n;
    let part = |x: u64, i: u32, signed: bool| {
        let v = x >> (bits * i) & ones(bits);
        if signed { sign_extend(v, bits) } else { v as i64 }
    };
    let (mut out, mut sum) = (0u64, c);
    for i in 0..p.n {
        let (x, y) = (part(a, i, p.signs[1]), part(b, i, p.signs[2]));
        let mut v = match p.op {
            PackedOp::Add => x + y,
            PackedOp::Sub => x - y,
            // Halves are rounded away from below zero.
            PackedOp::Average => (x + y + i64::from(x + y >= 0)) >> 1,
            PackedOp::Difference => (x - y).abs(),
            PackedOp::Min => x.min(y),
            PackedOp::Max => x.max(y),
            PackedOp::Set(cmp) => i64::from(match cmp {
                Cmp::Eq => x == y,
                Cmp::Ne => x != y,
                Cmp::Lt => x < y,
                Cmp::Le => x <= y,
                Cmp::Gt => x > y,
                _ => x >= y,
            }),
        };
        if p.relu {
            v = v.max(0);
        }
        if p.sat {
            let (low, top) = if p.signs[0] {
                (-(1i64 << (bits - 1)), (1 << (bits - 1)) - 1)
            } else {
                (0, (1 << bits) - 1)
            };
            v = v.clamp(low, top);
        }
        out |= (v as u64 & ones(bits)) << (bits * i);
        sum = sum.wrapping_add(v as u64);
    }
    if p.sum { sum & ones(32) } else { out }
}

/// `set`: `yes` where the comparison holds, the halves of a pair each for itself.
#[allow(clippy::too_many_arguments)] // the instruction's own operands
pub(super) fn set(
    f: &mut Files,
    cmp: Cmp,
    ty: CmpTy,
    bits: u32,
    yes: u32,
    s: [Slot; 3],
    and: Option<(Logic, PSlot, bool)>,
    mask: u32,
) -> Res<()> {
    let [d, a, b] = s;
    let (mut low, mut up) = match ty {
        CmpTy::Pair(float, ftz) => compare_pair(f, cmp, CmpTy::Float(float, ftz), [a, b], mask)?,
        _ => {
            let t = compare(f, cmp, ty, bits, [a, b], mask)?;
            (t, t)
        }
    };
    if let Some((logic, c, negate)) = and {
        let c = f.pred(c, mask)? ^ if negate { u32::MAX } else { 0 };
        (low, up) = (super::step::combine(logic, low, c), super::step::combine(logic, up, c));
    }
    let part = |on: u32, lane: usize, of: u64| if on >> lane & 1 == 1 { of } else { 0 };
    let yes = u64::from(yes);
    let v = std::array::from_fn(|lane| {
        part(low, lane, yes & 0xFFFF) | part(up, lane, yes & 0xFFFF_0000)
    });
    f.store(d, mask, &v);
    Ok(())
}

pub(super) fn testp(
    f: &mut Files,
    test: Test,
    double: bool,
    p: PSlot,
    a: Slot,
    mask: u32,
) -> Res<()> {
    let a = f.read(a, mask)?;
    // f32 is decided on its own bits: what is subnormal there is normal in f64.
    let holds = |x: u64| {
        use std::num::FpCategory::{Infinite, Nan, Normal, Subnormal, Zero};
        let class =
            if double { f64::from_bits(x).classify() } else { f32::from_bits(x as u32).classify() };
        match test {
            Test::Finite => !matches!(class, Infinite | Nan),
            Test::Infinite => class == Infinite,
            Test::Number => class != Nan,
            Test::NotANumber => class == Nan,
            Test::Normal => class == Normal,
            Test::Subnormal => matches!(class, Subnormal) && class != Zero,
        }
    };
    let v = (0..32).fold(0, |m, l| m | u32::from(holds(a[l])) << l);
    f.set_pred(p, mask, v);
    Ok(())
}

/// The cluster's shared memory holds the CTA's own.
pub(super) fn isspacep(f: &mut Files, space: Space, p: PSlot, a: Slot, mask: u32) -> Res<()> {
    let a = f.read(a, mask)?;
    let v = (0..32).fold(0, |m, l| {
        let lies = resolve(Space::Generic, a[l]).0;
        let inside = lies == space || (space == Space::Cluster && lies == Space::Shared);
        m | u32::from(inside) << l
    });
    f.set_pred(p, mask, v);
    Ok(())
}

pub(super) fn lop3(table: u8, [a, b, c]: [u64; 3]) -> u64 {
    let term = |i: u32, x: u64| if i == 1 { x } else { !x };
    (0..8u32)
        .filter(|i| table >> i & 1 == 1)
        .fold(0, |r, i| r | term(i >> 2 & 1, a) & term(i >> 1 & 1, b) & term(i & 1, c))
        & ones(32)
}

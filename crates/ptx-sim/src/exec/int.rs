//! Integers, logic, bit fields, comparisons. Values are kept masked to their width.

use super::integer::{self, lop3};
use super::trouble::{Res, trouble};
use super::warp::Files;
use crate::isa::inst::{Binary, Cmp, CmpTy, Prmt, Slot, Ternary, Unary};
use crate::isa::types::mask as ones;
use crate::lanes::lanes;
use crate::num::round::{decode, flush};
use crate::report::FaultKind;

#[inline]
pub(crate) fn sign_extend(x: u64, bits: u32) -> i64 {
    (x << (64 - bits)) as i64 >> (64 - bits)
}

#[inline]
fn map1(f: &mut Files, d: Slot, a: Slot, mask: u32, op: impl Fn(u64) -> u64) -> Res<()> {
    let a = *f.read(a, mask)?;
    f.store(d, mask, &a.map(op));
    Ok(())
}

#[inline]
fn map2(
    f: &mut Files,
    d: Slot,
    a: Slot,
    b: Slot,
    mask: u32,
    op: impl Fn(u64, u64) -> u64,
) -> Res<()> {
    let (a, b) = (*f.read(a, mask)?, *f.read(b, mask)?);
    let mut v = [0; 32];
    for (v, (a, b)) in v.iter_mut().zip(a.iter().zip(&b)) {
        *v = op(*a, *b);
    }
    f.store(d, mask, &v);
    Ok(())
}

#[inline]
fn map3(f: &mut Files, s: [Slot; 4], mask: u32, op: impl Fn(u64, u64, u64) -> u64) -> Res<()> {
    let (a, b, c) = (*f.read(s[1], mask)?, *f.read(s[2], mask)?, *f.read(s[3], mask)?);
    let mut v = [0; 32];
    for lane in 0..32 {
        v[lane] = op(a[lane], b[lane], c[lane]);
    }
    f.store(s[0], mask, &v);
    Ok(())
}

pub(super) fn unary(f: &mut Files, op: Unary, bits: u32, d: Slot, a: Slot, mask: u32) -> Res<()> {
    let m = ones(bits);
    match op {
        Unary::Not => map1(f, d, a, mask, |x| !x & m),
        Unary::Neg => map1(f, d, a, mask, |x| x.wrapping_neg() & m),
        Unary::Abs => map1(f, d, a, mask, |x| sign_extend(x, bits).unsigned_abs() & m),
        Unary::Cnot => map1(f, d, a, mask, |x| u64::from(x & m == 0)),
        Unary::Popc => map1(f, d, a, mask, |x| u64::from((x & m).count_ones())),
        Unary::Clz => map1(f, d, a, mask, |x| u64::from((x & m).leading_zeros() + bits - 64)),
        Unary::Bfind { signed, shift } => map1(f, d, a, mask, |x| {
            let negative = signed && x >> (bits - 1) & 1 == 1;
            let differing = (if negative { !x } else { x }) & m;
            if differing == 0 {
                return 0xFFFF_FFFF;
            }
            let at = u64::from(63 - differing.leading_zeros());
            if shift { u64::from(bits) - 1 - at } else { at }
        }),
        Unary::Brev => map1(f, d, a, mask, |x| x.reverse_bits() >> (64 - bits)),
    }
}

pub(super) fn high(a: u64, b: u64, bits: u32, signed: bool) -> u64 {
    let wide = if signed {
        (i128::from(sign_extend(a, bits)) * i128::from(sign_extend(b, bits))) as u128
    } else {
        u128::from(a) * u128::from(b)
    };
    (wide >> bits) as u64 & ones(bits)
}

fn wide(a: u64, b: u64, bits: u32, signed: bool) -> u64 {
    let product = if signed {
        sign_extend(a, bits).wrapping_mul(sign_extend(b, bits)) as u64
    } else {
        a.wrapping_mul(b)
    };
    product & ones(2 * bits)
}

/// `s`: destination, then the two sources.
pub(super) fn binary(
    f: &mut Files,
    op: Binary,
    bits: u32,
    signed: bool,
    s: [Slot; 3],
    mask: u32,
) -> Res<()> {
    let m = ones(bits);
    let [d, a, b] = s;
    let sx = |x| sign_extend(x, bits);
    match op {
        Binary::Add => map2(f, d, a, b, mask, |x, y| x.wrapping_add(y) & m),
        Binary::Sub => map2(f, d, a, b, mask, |x, y| x.wrapping_sub(y) & m),
        Binary::MulLo => map2(f, d, a, b, mask, |x, y| x.wrapping_mul(y) & m),
        Binary::MulHi => map2(f, d, a, b, mask, |x, y| high(x, y, bits, signed)),
        Binary::MulWide => map2(f, d, a, b, mask, |x, y| wide(x, y, bits, signed)),
        // A 64-bit sum of two 32-bit values cannot overflow.
        Binary::AddSat => map2(f, d, a, b, mask, |x, y| saturate(sx(x) + sx(y))),
        Binary::SubSat => map2(f, d, a, b, mask, |x, y| saturate(sx(x) - sx(y))),
        Binary::And => map2(f, d, a, b, mask, |x, y| x & y),
        Binary::Or => map2(f, d, a, b, mask, |x, y| x | y),
        Binary::Xor => map2(f, d, a, b, mask, |x, y| x ^ y),
        Binary::Min if signed => map2(f, d, a, b, mask, |x, y| sx(x).min(sx(y)) as u64 & m),
        Binary::Max if signed => map2(f, d, a, b, mask, |x, y| sx(x).max(sx(y)) as u64 & m),
        Binary::Min => map2(f, d, a, b, mask, |x, y| x.min(y)),
        Binary::Max => map2(f, d, a, b, mask, |x, y| x.max(y)),
        // Amounts above the width count as the width.
        Binary::Shl => {
            map2(f, d, a, b, mask, |x, y| if y >= u64::from(bits) { 0 } else { x << y & m })
        }
        Binary::Shr if signed => map2(f, d, a, b, mask, |x, y| (sx(x) >> y.min(63)) as u64 & m),
        Binary::Shr => map2(f, d, a, b, mask, |x, y| if y >= u64::from(bits) { 0 } else { x >> y }),
        Binary::Div | Binary::Rem => {
            let divisor = f.read(b, mask)?;
            let zero = lanes(mask).filter(|&l| divisor[l] == 0).fold(0, |z, l| z | 1 << l);
            if zero != 0 {
                return trouble(FaultKind::DivisionByZero, zero, "integer division by zero");
            }
            let divide = op == Binary::Div;
            // Lanes outside of the mask may still hold a zero.
            map2(f, d, a, b, mask, |x, y| match (signed, divide, y) {
                (_, _, 0) => 0,
                (true, true, _) => sx(x).wrapping_div(sx(y)) as u64 & m,
                (true, false, _) => sx(x).wrapping_rem(sx(y)) as u64 & m,
                (false, true, _) => x / y,
                (false, false, _) => x % y,
            })
        }
    }
}

pub(super) fn ternary(
    f: &mut Files,
    op: Ternary,
    bits: u32,
    signed: bool,
    s: [Slot; 4],
    mask: u32,
) -> Res<()> {
    let m = ones(bits);
    match op {
        Ternary::MadLo => map3(f, s, mask, |a, b, c| a.wrapping_mul(b).wrapping_add(c) & m),
        Ternary::MadHi => map3(f, s, mask, |a, b, c| high(a, b, bits, signed).wrapping_add(c) & m),
        Ternary::MadWide => {
            map3(f, s, mask, |a, b, c| wide(a, b, bits, signed).wrapping_add(c) & ones(2 * bits))
        }
        Ternary::Bfe => map3(f, s, mask, |a, b, c| bfe(a, b, c, bits, signed)),
        Ternary::MadHiSat => map3(f, s, mask, |a, b, c| {
            saturate(sign_extend(high(a, b, bits, true), bits) + sign_extend(c, bits))
        }),
        Ternary::Prmt => map3(f, s, mask, prmt),
        Ternary::PrmtMode(mode) => {
            map3(f, s, mask, |a, b, c| prmt(a, b, selectors(mode, c as u32 & 3)))
        }
        Ternary::Lop3(table) => map3(f, s, mask, |a, b, c| lop3(table, [a, b, c])),
        Ternary::Shf(left, wrap) => map3(f, s, mask, |a, b, c| {
            let n = if wrap { c & 31 } else { c.min(32) };
            let both = b << 32 | a;
            if left { (both << n) >> 32 & m } else { both >> n & m }
        }),
        _ => map3(f, s, mask, |a, b, c| integer::ternary(op, bits, signed, [a, b, c])),
    }
}

pub(super) fn saturate(x: i64) -> u64 {
    x.clamp(i32::MIN.into(), i32::MAX.into()) as u32 as u64
}

/// The general selectors that a mode of `prmt` stands for, by the ISA's table.
fn selectors(mode: Prmt, c: u32) -> u64 {
    let row: [u64; 4] = match mode {
        Prmt::ForwardExtract => [0x3210, 0x4321, 0x5432, 0x6543],
        Prmt::BackwardExtract => [0x5670, 0x6701, 0x7012, 0x0123],
        Prmt::Replicate8 => [0x0000, 0x1111, 0x2222, 0x3333],
        Prmt::EdgeLeft => [0x3210, 0x3211, 0x3222, 0x3333],
        Prmt::EdgeRight => [0x0000, 0x1110, 0x2210, 0x3210],
        Prmt::Replicate16 => [0x1010, 0x3232, 0x1010, 0x3232],
    };
    row[c as usize]
}

/// The ISA's loop written out: the field's sign fills what lies above, also above the word.
fn bfe(a: u64, b: u64, c: u64, bits: u32, signed: bool) -> u64 {
    let (pos, len) = ((b & 0xFF) as u32, (c & 0xFF) as u32);
    if len == 0 {
        return 0;
    }
    let top = (pos + len - 1).min(bits - 1);
    let sign = signed && a >> top & 1 == 1;
    let mut out = if sign { ones(bits) } else { 0 };
    let field = len.min(bits.saturating_sub(pos)).min(bits);
    if field > 0 {
        out = out & !ones(field) | a >> pos & ones(field);
    }
    out
}

fn prmt(a: u64, b: u64, c: u64) -> u64 {
    let bytes = b << 32 | a;
    (0..4).fold(0, |out, i| {
        let select = c >> (4 * i) & 0xF;
        let byte = bytes >> (8 * (select & 7)) & 0xFF;
        // Bit 3 of a selector replicates the byte's sign.
        let byte = if select & 8 == 0 { byte } else { (byte >> 7) * 0xFF };
        out | byte << (8 * i)
    })
}

/// `s`: destination, field, base, position, length.
pub(super) fn bfi(f: &mut Files, bits: u32, s: [Slot; 5], mask: u32) -> Res<()> {
    let [a, b] = [*f.read(s[1], mask)?, *f.read(s[2], mask)?];
    let [c, e] = [*f.read(s[3], mask)?, *f.read(s[4], mask)?];
    let v = std::array::from_fn(|l| {
        let (pos, len) = ((c[l] & 0xFF) as u32, (e[l] & 0xFF) as u32);
        if pos >= bits {
            return b[l];
        }
        let field = ones(len.min(bits - pos)) << pos;
        b[l] & !field | a[l] << pos & field
    });
    f.store(s[0], mask, &v);
    Ok(())
}

pub(super) fn pack(f: &mut Files, d: Slot, s: &[Slot], bits: u32, mask: u32) -> Res<()> {
    let mut v = [0; 32];
    for (i, &slot) in s.iter().enumerate() {
        let part = f.read(slot, mask)?;
        for (v, p) in v.iter_mut().zip(part) {
            *v |= (p & ones(bits)) << (bits * i as u32);
        }
    }
    f.store(d, mask, &v);
    Ok(())
}

pub(super) fn unpack(f: &mut Files, d: &[Option<Slot>], s: Slot, bits: u32, mask: u32) -> Res<()> {
    let v = *f.read(s, mask)?;
    for (i, slot) in d.iter().enumerate() {
        if let Some(slot) = slot {
            f.store(*slot, mask, &v.map(|x| x >> (bits * i as u32) & ones(bits)));
        }
    }
    Ok(())
}

pub(super) fn slct(f: &mut Files, float: bool, ftz: bool, s: [Slot; 4], mask: u32) -> Res<()> {
    map3(f, s, mask, |a, b, c| {
        let first = if float {
            let c = if ftz { flush(c, crate::isa::inst::Float::F32) } else { c };
            f32::from_bits(c as u32) >= 0.0
        } else {
            c as u32 as i32 >= 0
        };
        if first { a } else { b }
    })
}

/// One bit a lane, of the lower and of the upper halves.
pub(super) fn compare_pair(
    f: &Files,
    cmp: Cmp,
    ty: CmpTy,
    s: [Slot; 2],
    mask: u32,
) -> Res<(u32, u32)> {
    let (a, b) = (f.read(s[0], mask)?, f.read(s[1], mask)?);
    let half = |n: u32| {
        (0..32).fold(0, |m, l| {
            m | u32::from(test(cmp, ty, 16, a[l] >> n & 0xFFFF, b[l] >> n & 0xFFFF)) << l
        })
    };
    Ok((half(0), half(16)))
}

/// One comparison.
fn test(cmp: Cmp, ty: CmpTy, bits: u32, x: u64, y: u64) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let order = match ty {
        CmpTy::Unsigned => Some(x.cmp(&y)),
        CmpTy::Signed => Some(sign_extend(x, bits).cmp(&sign_extend(y, bits))),
        CmpTy::Float(float, ftz) | CmpTy::Pair(float, ftz) => {
            let v = |x| decode(if ftz { flush(x, float) } else { x }, float);
            v(x).partial_cmp(&v(y))
        }
    };
    match cmp {
        Cmp::Eq => order == Some(Equal),
        Cmp::Ne => matches!(order, Some(Less | Greater)),
        Cmp::Lt => order == Some(Less),
        Cmp::Le => matches!(order, Some(Less | Equal)),
        Cmp::Gt => order == Some(Greater),
        Cmp::Ge => matches!(order, Some(Greater | Equal)),
        Cmp::Equ => matches!(order, None | Some(Equal)),
        Cmp::Neu => order != Some(Equal),
        Cmp::Ltu => matches!(order, None | Some(Less)),
        Cmp::Leu => order != Some(Greater),
        Cmp::Gtu => matches!(order, None | Some(Greater)),
        Cmp::Geu => order != Some(Less),
        Cmp::Num => order.is_some(),
        Cmp::Nan => order.is_none(),
    }
}

/// One bit a lane.
pub(super) fn compare(
    f: &Files,
    cmp: Cmp,
    ty: CmpTy,
    bits: u32,
    s: [Slot; 2],
    mask: u32,
) -> Res<u32> {
    let (a, b) = (f.read(s[0], mask)?, f.read(s[1], mask)?);
    // The frequent cases without a call per lane.
    let signed = |test: fn(&i64, &i64) -> bool| {
        (0..32).fold(0, |m, l| {
            m | u32::from(test(&sign_extend(a[l], bits), &sign_extend(b[l], bits))) << l
        })
    };
    let plain = |test: fn(&u64, &u64) -> bool| {
        (0..32).fold(0, |m, l| m | u32::from(test(&a[l], &b[l])) << l)
    };
    Ok(match (ty, cmp) {
        (CmpTy::Signed, Cmp::Lt) => signed(i64::lt),
        (CmpTy::Signed, Cmp::Ge) => signed(i64::ge),
        (CmpTy::Unsigned, Cmp::Lt) => plain(u64::lt),
        (CmpTy::Unsigned, Cmp::Ge) => plain(u64::ge),
        (CmpTy::Unsigned, Cmp::Eq) => plain(u64::eq),
        (CmpTy::Unsigned, Cmp::Ne) => plain(u64::ne),
        _ => (0..32).fold(0, |m, l| m | u32::from(test(cmp, ty, bits, a[l], b[l])) << l),
    })
}

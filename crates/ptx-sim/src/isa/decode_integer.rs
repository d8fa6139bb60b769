//! Integer instructions beyond plain arithmetic: carries, sums of products and differences, masks, packed
//! halves and bytes.

use super::context::Context;
use super::inst::{Carry, CarryOp, Cmp, Logic, Op, Packed, PackedOp, Ternary};
use super::mods::{Mods, Res};
use super::types::Ty;
use crate::text::ast::Operand;

const WORD: &[Ty] = &[Ty::U32, Ty::S32];

/// `add sub mad` with `.cc`, `addc subc madc`.
pub(super) fn carry(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let name = m.inst.op.as_str();
    let reads = name.ends_with('c');
    let op = match name {
        "add" | "addc" => CarryOp::Add,
        "sub" | "subc" => CarryOp::Sub,
        _ => m.want("`.lo` or `.hi`", &[("lo", CarryOp::MadLo), ("hi", CarryOp::MadHi)])?,
    };
    let writes = if reads { m.has("cc") } else { m.need("cc").map(|()| true)? };
    let ty = m.ty(&[Ty::U32, Ty::S32, Ty::U64, Ty::S64])?;
    m.done()?;
    let n = if matches!(op, CarryOp::Add | CarryOp::Sub) { 2 } else { 3 };
    m.count(n + 1)?;
    let o = &m.inst.operands;
    let (d, a, b) = (cx.dst(&o[0], ty)?, cx.src(&o[1], ty)?, cx.src(&o[2], ty)?);
    let c = if n == 3 { Some(cx.src(&o[3], ty)?) } else { None };
    let (bits, signed, flag) = (ty.bits(), ty.signed(), cx.carry());
    Ok(Op::Carry(Box::new(Carry { op, bits, signed, d, a, b, c, flag, reads, writes })))
}

/// `mul24 mad24`
pub(super) fn short_product(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let mad = m.inst.op == "mad24";
    let high = m.want("`.lo` or `.hi`", &[("lo", false), ("hi", true)])?;
    let sat = mad && high && m.has("sat");
    let ty = m.ty(if sat { &[Ty::S32] } else { WORD })?;
    m.done()?;
    m.count(if mad { 4 } else { 3 })?;
    let o = &m.inst.operands;
    let (d, a, b) = (cx.dst(&o[0], ty)?, cx.src(&o[1], ty)?, cx.src(&o[2], ty)?);
    let c = if mad { cx.src(&o[3], ty)? } else { cx.zero()? };
    let op = Ternary::Mad24 { high, sat };
    Ok(Op::Ternary { op, bits: 32, signed: ty.signed(), d, a, b, c })
}

/// `sad`: `c + |a - b|`
pub(super) fn differences(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let ty = m.ty(&[Ty::U16, Ty::U32, Ty::U64, Ty::S16, Ty::S32, Ty::S64])?;
    m.done()?;
    m.count(4)?;
    let o = &m.inst.operands;
    let (d, a) = (cx.dst(&o[0], ty)?, cx.src(&o[1], ty)?);
    let (b, c) = (cx.src(&o[2], ty)?, cx.src(&o[3], ty)?);
    Ok(Op::Ternary { op: Ternary::Sad, bits: ty.bits(), signed: ty.signed(), d, a, b, c })
}

/// `dp4a dp2a`
pub(super) fn dot(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let half = if m.inst.op == "dp2a" {
        Some(m.want("`.lo` or `.hi`", &[("lo", false), ("hi", true)])?)
    } else {
        None
    };
    let (ta, tb) = (m.ty(WORD)?, m.ty(WORD)?);
    m.done()?;
    m.count(4)?;
    let signs = (ta.signed(), tb.signed());
    let tc = if signs == (false, false) { Ty::U32 } else { Ty::S32 };
    let o = &m.inst.operands;
    let d = cx.dst(&o[0], tc)?;
    let (a, b, c) = (cx.src(&o[1], Ty::B32)?, cx.src(&o[2], Ty::B32)?, cx.src(&o[3], tc)?);
    let op = match half {
        None => Ternary::Dp4a(signs),
        Some(high) => Ternary::Dp2a(signs, high),
    };
    Ok(Op::Ternary { op, bits: 32, signed: tc.signed(), d, a, b, c })
}

/// `bmsk`: ones from a place; `szext`: the sign or zero from a place upwards.
pub(super) fn masks(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let make = m.inst.op == "bmsk";
    let wrap = m.want("`.clamp` or `.wrap`", &[("clamp", false), ("wrap", true)])?;
    let ty = m.ty(if make { &[Ty::B32] } else { WORD })?;
    m.done()?;
    m.count(3)?;
    let o = &m.inst.operands;
    let (d, a, b) = (cx.dst(&o[0], ty)?, cx.src(&o[1], ty)?, cx.src(&o[2], Ty::U32)?);
    let op = if make { Ternary::Bmsk(wrap) } else { Ternary::Szext(wrap) };
    Ok(Op::Ternary { op, bits: 32, signed: ty.signed(), d, a, b, c: a })
}

/// `fns`: the place of the n-th bit that is set.
pub(super) fn nth_set(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    m.need("b32")?;
    m.done()?;
    m.count(4)?;
    let o = &m.inst.operands;
    let (d, a) = (cx.dst(&o[0], Ty::B32)?, cx.src(&o[1], Ty::B32)?);
    let (b, c) = (cx.src(&o[2], Ty::B32)?, cx.src(&o[3], Ty::S32)?);
    Ok(Op::Ternary { op: Ternary::Fns, bits: 32, signed: false, d, a, b, c })
}

/// `lop3` that also says whether the result, with a predicate, is anything.
pub(super) fn logic_with_predicate(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let op = m.want("`.or` or `.and`", &[("or", Logic::Or), ("and", Logic::And)])?;
    m.need("b32")?;
    m.done()?;
    m.count(6)?;
    let o = &m.inst.operands;
    let Operand::Pair(d, p) = &o[0] else { return m.fail("lop3 with a predicate writes `d|p`") };
    let d = if **d == Operand::Sink { None } else { Some(cx.dst(d, Ty::B32)?) };
    let (a, b, c) = (cx.src(&o[1], Ty::B32)?, cx.src(&o[2], Ty::B32)?, cx.src(&o[3], Ty::B32)?);
    let table = cx.literal(&o[4], 255)? as u8;
    Ok(Op::Lop3Pred { op, table, d, p: cx.pred(p)?, s: [a, b, c], q: cx.pred_not(&o[5])? })
}

/// `cvt.pack.sat`: two integers clamped and packed; narrow ones push `c` up.
pub(super) fn pack(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    m.need("pack")?;
    m.need("sat")?;
    let to = m.want(
        "`.u16`, `.s16`, `.u8` or `.s8`",
        &[("u16", (16, false)), ("s16", (16, true)), ("u8", (8, false)), ("s8", (8, true))],
    )?;
    m.need("s32")?;
    let narrow = to.0 == 8;
    if narrow {
        m.need("b32")?;
    }
    m.done()?;
    m.count(if narrow { 4 } else { 3 })?;
    let o = &m.inst.operands;
    let d = cx.dst(&o[0], Ty::B32)?;
    let (a, b) = (cx.src(&o[1], Ty::S32)?, cx.src(&o[2], Ty::S32)?);
    let c = if narrow { cx.src(&o[3], Ty::B32)? } else { cx.zero()? };
    Ok(Op::Ternary { op: Ternary::CvtPack(to), bits: 32, signed: false, d, a, b, c })
}

/// `add min max` of two integers of 16 bits in one register.
pub(super) fn halves(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let op = match m.inst.op.as_str() {
        "add" => PackedOp::Add,
        "min" => PackedOp::Min,
        _ => PackedOp::Max,
    };
    let relu = op != PackedOp::Add && m.has("relu");
    let signed = m.want("`.u16x2` or `.s16x2`", &[("u16x2", false), ("s16x2", true)])?;
    m.done()?;
    m.since(90)?;
    if relu && !signed {
        return m.fail("`.relu` is for signed integers");
    }
    m.count(3)?;
    let o = &m.inst.operands;
    let (d, a, b) = (cx.dst(&o[0], Ty::B32)?, cx.src(&o[1], Ty::B32)?, cx.src(&o[2], Ty::B32)?);
    let signs = [signed; 3];
    let packed = Packed { op, n: 2, signs, sat: false, relu, sum: false, d, a, b, c: a };
    Ok(Op::Packed(Box::new(packed)))
}

/// The video instructions of two halves or four bytes, all parts in order and none left out.
pub(super) fn video(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let name = m.inst.op.as_str();
    let n = if name.ends_with('4') { 4 } else { 2 };
    let kind = name.trim_end_matches(['2', '4']);
    let signs = [m.ty(WORD)?.signed(), m.ty(WORD)?.signed()];
    let (signs, mut op) = match kind {
        // The type of the result is 0 or 1.
        "vset" => ([false, signs[0], signs[1]], PackedOp::Set(Cmp::Eq)),
        _ => ([signs[0], signs[1], m.ty(WORD)?.signed()], PackedOp::Add),
    };
    op = match kind {
        "vset" => PackedOp::Set(m.want(
            "a comparison",
            &[
                ("eq", Cmp::Eq),
                ("ne", Cmp::Ne),
                ("lt", Cmp::Lt),
                ("le", Cmp::Le),
                ("gt", Cmp::Gt),
                ("ge", Cmp::Ge),
            ],
        )?),
        "vsub" => PackedOp::Sub,
        "vavrg" => PackedOp::Average,
        "vabsdiff" => PackedOp::Difference,
        "vmin" => PackedOp::Min,
        "vmax" => PackedOp::Max,
        _ => op,
    };
    let sat = kind != "vset" && m.has("sat");
    let sum = m.has("add");
    m.done()?;
    if sat && sum {
        return m.fail("`.sat` and `.add` exclude each other");
    }
    m.count(4)?;
    let o = &m.inst.operands;
    let (d, a) = (cx.dst(&o[0], Ty::U32)?, cx.src(&o[1], Ty::U32)?);
    let (b, c) = (cx.src(&o[2], Ty::U32)?, cx.src(&o[3], Ty::U32)?);
    let packed = Packed { op, n, signs, sat, relu: false, sum, d, a, b, c };
    Ok(Op::Packed(Box::new(packed)))
}

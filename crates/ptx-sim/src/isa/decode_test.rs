//! Questions about values and addresses: `set`, `testp`, `copysign`, `isspacep`.

use super::context::Context;
use super::inst::{Cmp, CmpTy, Float, Logic, Op, Space, Ternary, Test};
use super::mods::{Mods, Res};
use super::types::{Class, Ty};

/// What `setp` and `set` compare, and how.
pub(super) const COMPARISONS: &[(&str, (Cmp, bool))] = &[
    ("eq", (Cmp::Eq, false)),
    ("ne", (Cmp::Ne, false)),
    ("lt", (Cmp::Lt, false)),
    ("le", (Cmp::Le, false)),
    ("gt", (Cmp::Gt, false)),
    ("ge", (Cmp::Ge, false)),
    // The unsigned names of `lt le gt ge`.
    ("lo", (Cmp::Lt, true)),
    ("ls", (Cmp::Le, true)),
    ("hi", (Cmp::Gt, true)),
    ("hs", (Cmp::Ge, true)),
    ("equ", (Cmp::Equ, false)),
    ("neu", (Cmp::Neu, false)),
    ("ltu", (Cmp::Ltu, false)),
    ("leu", (Cmp::Leu, false)),
    ("gtu", (Cmp::Gtu, false)),
    ("geu", (Cmp::Geu, false)),
    ("num", (Cmp::Num, false)),
    ("nan", (Cmp::Nan, false)),
];

/// How values of `ty` are compared, if they can be so.
pub(super) fn comparison(
    m: &Mods<'_>,
    (cmp, unsigned): (Cmp, bool),
    ty: Ty,
    ftz: bool,
) -> Res<CmpTy> {
    let float = match ty {
        Ty::F16 | Ty::F16x2 => Some(Float::F16),
        Ty::Bf16 | Ty::Bf16x2 => Some(Float::Bf16),
        Ty::F32 => Some(Float::F32),
        Ty::F64 => Some(Float::F64),
        _ => None,
    };
    let equality = matches!(cmp, Cmp::Eq | Cmp::Ne);
    let ordering = matches!(cmp, Cmp::Lt | Cmp::Le | Cmp::Gt | Cmp::Ge);
    let legal = match ty.class() {
        _ if float.is_some() => !unsigned && (!ftz || matches!(ty, Ty::F16 | Ty::F16x2 | Ty::F32)),
        Class::Bits => equality && !ftz,
        Class::Unsigned => (equality || ordering) && !ftz,
        _ => (equality || ordering) && !unsigned && !ftz,
    };
    if !legal {
        return m.fail("this comparison does not exist for this type");
    }
    if float == Some(Float::Bf16) {
        m.since(90)?;
    }
    Ok(match float {
        Some(f) if matches!(ty, Ty::F16x2 | Ty::Bf16x2) => CmpTy::Pair(f, ftz),
        Some(f) => CmpTy::Float(f, ftz),
        None if ty.signed() => CmpTy::Signed,
        None => CmpTy::Unsigned,
    })
}

/// `set`: a comparison whose result is a number.
pub(super) fn set(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let cmp = m.want("a comparison", COMPARISONS)?;
    let combine = m.pick(&[("and", Logic::And), ("or", Logic::Or), ("xor", Logic::Xor)]);
    let ftz = m.has("ftz");
    let to = m.ty(&[
        Ty::U32,
        Ty::S32,
        Ty::F32,
        Ty::U16,
        Ty::S16,
        Ty::F16,
        Ty::Bf16,
        Ty::F16x2,
        Ty::Bf16x2,
    ])?;
    let from = m.ty(&[
        Ty::B16,
        Ty::B32,
        Ty::B64,
        Ty::U16,
        Ty::U32,
        Ty::U64,
        Ty::S16,
        Ty::S32,
        Ty::S64,
        Ty::F16,
        Ty::F16x2,
        Ty::Bf16,
        Ty::Bf16x2,
        Ty::F32,
        Ty::F64,
    ])?;
    m.done()?;
    m.count(if combine.is_some() { 4 } else { 3 })?;
    let pair = |ty| matches!(ty, Ty::F16x2 | Ty::Bf16x2);
    let small = |ty| matches!(ty, Ty::F16 | Ty::Bf16);
    // 16 bits come from the 16-bit floats alone, which in turn give no f32.
    let exists = match to {
        Ty::U32 | Ty::S32 => true,
        _ if pair(to) || pair(from) => to == from,
        Ty::U16 | Ty::S16 => small(from),
        Ty::F16 => from != Ty::Bf16,
        Ty::F32 => !small(from),
        _ => true,
    };
    if !exists {
        return m.fail(format!("set of {to:?} from {from:?} does not exist"));
    }
    if to == Ty::Bf16 {
        m.since(90)?;
        if ftz {
            return m.fail("set to bf16 has no `.ftz`");
        }
    }
    let ty = comparison(&m, cmp, from, ftz)?;
    let yes = match to {
        Ty::F32 => 0x3F80_0000,
        Ty::F16 => 0x3C00,
        Ty::Bf16 => 0x3F80,
        Ty::F16x2 => 0x3C00_3C00,
        Ty::Bf16x2 => 0x3F80_3F80,
        Ty::U16 | Ty::S16 => 0xFFFF,
        _ => 0xFFFF_FFFF,
    };
    let o = &m.inst.operands;
    let and = match combine {
        Some(op) => {
            let (c, negate) = cx.pred_not(&o[3])?;
            Some((op, c, negate))
        }
        None => None,
    };
    let d = cx.dst(&o[0], to)?;
    let (a, b) = (cx.src(&o[1], from)?, cx.src(&o[2], from)?);
    Ok(Op::Set { cmp: cmp.0, ty, bits: from.bits(), yes, d, a, b, and })
}

pub(super) fn testp(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let test = m.want(
        "a property",
        &[
            ("finite", Test::Finite),
            ("infinite", Test::Infinite),
            ("number", Test::Number),
            ("notanumber", Test::NotANumber),
            ("normal", Test::Normal),
            ("subnormal", Test::Subnormal),
        ],
    )?;
    let ty = m.ty(&[Ty::F32, Ty::F64])?;
    m.done()?;
    m.count(2)?;
    let o = &m.inst.operands;
    Ok(Op::Testp { test, double: ty == Ty::F64, p: cx.pred(&o[0])?, a: cx.src(&o[1], ty)? })
}

/// `copysign`: the sign of `a`, all else of `b`.
pub(super) fn copysign(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let ty = m.ty(&[Ty::F32, Ty::F64])?;
    m.done()?;
    m.count(3)?;
    let o = &m.inst.operands;
    let (d, a, b) = (cx.dst(&o[0], ty)?, cx.src(&o[1], ty)?, cx.src(&o[2], ty)?);
    Ok(Op::Ternary { op: Ternary::Copysign, bits: ty.bits(), signed: false, d, a, b, c: a })
}

/// Does a generic address lie in a space?
pub(super) fn isspacep(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let space = m.want(
        "a state space",
        &[
            ("global", Space::Global),
            ("const", Space::Const),
            ("local", Space::Local),
            ("shared", Space::Shared),
            ("shared::cta", Space::Shared),
            ("shared::cluster", Space::Cluster),
            ("param", Space::Param),
        ],
    )?;
    m.done()?;
    if space == Space::Cluster {
        m.since(90)?;
    }
    m.count(2)?;
    let o = &m.inst.operands;
    Ok(Op::Isspacep { space, p: cx.pred(&o[0])?, a: cx.src(&o[1], Ty::B64)? })
}

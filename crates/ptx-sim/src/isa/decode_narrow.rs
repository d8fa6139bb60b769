//! Matrices of bytes, half bytes, eight-bit floats and f64: `mma.sync` of shapes other than those of f16, and
//! the element types that `wgmma` shares with it.

use super::context::Context;
use super::inst::{Element, Fp8, NarrowMma, Op, Sums};
use super::mods::{Mods, Res};
use super::types::Ty;

/// Words that name an element of A or B here.
pub(super) const ELEMENTS: &[(&str, Element)] = &[
    ("s8", Element::Int(8, true)),
    ("u8", Element::Int(8, false)),
    ("s4", Element::Int(4, true)),
    ("u4", Element::Int(4, false)),
    ("e4m3", Element::Fp8(Fp8::E4m3)),
    ("e5m2", Element::Fp8(Fp8::E5m2)),
    ("f64", Element::F64),
];

/// The instruction is of these.
pub(super) fn is_narrow(m: &Mods<'_>) -> bool {
    ELEMENTS.iter().any(|(word, _)| m.says(word))
}

/// Two types that can be multiplied with each other.
pub(super) fn kin(a: Element, b: Element) -> bool {
    match (a, b) {
        (Element::Int(x, _), Element::Int(y, _)) => x == y,
        (Element::Fp8(_), Element::Fp8(_)) => true,
        (Element::F64, Element::F64) => true,
        _ => false,
    }
}

/// What the sums are: the type of D, which C has too.
pub(super) const SUMS: &[(&str, Sums)] = &[
    ("s32", Sums::Int { saturate: false }),
    ("f32", Sums::F32),
    ("f16", Sums::F16),
    ("f64", Sums::F64),
];

/// Sums of these elements exist.
pub(super) fn sums_fit(sums: Sums, a: Element) -> bool {
    match sums {
        Sums::Int { .. } => matches!(a, Element::Int(..)),
        Sums::F32 | Sums::F16 => matches!(a, Element::Fp8(_)),
        Sums::F64 => a == Element::F64,
    }
}

/// `mma.sync`, the shape still to come.
pub(super) fn mma(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let (rows, k) = m.want(
        "a shape of bytes, half bytes, eight-bit floats or f64",
        &[
            ("m8n8k4", (8, 4)),
            ("m8n8k16", (8, 16)),
            ("m8n8k32", (8, 32)),
            ("m16n8k4", (16, 4)),
            ("m16n8k8", (16, 8)),
            ("m16n8k16", (16, 16)),
            ("m16n8k32", (16, 32)),
            ("m16n8k64", (16, 64)),
        ],
    )?;
    m.need("row")?;
    m.need("col")?;
    let mut saturate = m.has("satfinite");
    let nearest = m.has("rn");
    let mut sums = m.want("the type of D", SUMS)?;
    let a = m.want("the type of A", ELEMENTS)?;
    let b = m.want("the type of B", ELEMENTS)?;
    let same = m.want("the type of D again", SUMS)?;
    saturate |= m.has("satfinite");
    m.done()?;
    let shape: &[(u32, u32)] = match a {
        Element::Int(8, _) => &[(8, 16), (16, 16), (16, 32)],
        Element::Int(..) => &[(8, 32), (16, 32), (16, 64)],
        Element::Fp8(_) => &[(16, 16), (16, 32)],
        Element::F64 => &[(8, 4), (16, 4), (16, 8), (16, 16)],
    };
    let whole = matches!(sums, Sums::Int { .. });
    if !kin(a, b)
        || same != sums
        || !sums_fit(sums, a)
        || !shape.contains(&(rows, k))
        || (saturate && !whole)
        || (nearest && a != Element::F64)
    {
        return m.fail("this mma does not exist, or is not simulated");
    }
    match a {
        Element::Fp8(_) => m.since(89)?,
        Element::F64 if rows == 16 => m.since(90)?,
        _ => {}
    }
    if saturate {
        sums = Sums::Int { saturate };
    }
    m.count(4)?;
    let (part, sum) = match sums {
        Sums::F64 => (Ty::F64, Ty::F64),
        Sums::F32 => (Ty::B32, Ty::F32),
        Sums::F16 => (Ty::B32, Ty::B32),
        Sums::Int { .. } => (Ty::B32, Ty::S32),
    };
    let per = a.per_register();
    let (na, nb) = ((rows * k / 32 / per) as usize, (8 * k / 32 / per) as usize);
    let nc = (rows / 4) as usize / if sums == Sums::F16 { 2 } else { 1 };
    let o = &m.inst.operands;
    let d = cx.dsts(&o[0], nc, sum)?;
    let (ra, rb) = (cx.srcs(&o[1], na, part)?, cx.srcs(&o[2], nb, part)?);
    let rc = cx.srcs(&o[3], nc, sum)?;
    let types = (a, b);
    Ok(Op::NarrowMma(Box::new(NarrowMma { rows, k, types, sums, d, a: ra, b: rb, c: rc })))
}

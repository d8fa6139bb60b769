//! Floating-point arithmetic and `cvt`.

use super::context::Context;
use super::inst::{CvtKind, Float, FloatFlags, FloatOp, Fp8, Op, Round};
use super::mods::{Mods, Res};
use super::types::Ty;

const ROUND: &[(&str, Round)] =
    &[("rn", Round::Nearest), ("rz", Round::Zero), ("rm", Round::Down), ("rp", Round::Up)];
const INTEGRAL: &[(&str, Round)] =
    &[("rni", Round::Nearest), ("rzi", Round::Zero), ("rmi", Round::Down), ("rpi", Round::Up)];
const FLOATS: &[Ty] = &[Ty::F16, Ty::F16x2, Ty::Bf16, Ty::Bf16x2, Ty::F32, Ty::F64];

fn float_of(ty: Ty) -> Float {
    match ty {
        Ty::F16 | Ty::F16x2 => Float::F16,
        Ty::Bf16 | Ty::Bf16x2 => Float::Bf16,
        Ty::F64 => Float::F64,
        _ => Float::F32,
    }
}

/// `add sub mul fma min max neg abs div`.
pub(super) fn arithmetic(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let name = m.inst.op.as_str();
    let division = name == "div";
    let short = division && m.has("approx");
    let approx = short || (division && m.has("full"));
    let written = m.pick(ROUND);
    let ftz = m.has("ftz");
    let (mut sat, mut relu, mut nan) = (false, false, false);
    match name {
        "min" | "max" => nan = m.has("NaN"),
        "fma" | "mad" => {
            sat = m.has("sat");
            relu = m.has("relu");
        }
        "add" | "sub" | "mul" => sat = m.has("sat"),
        _ => {}
    }
    let ty = m.ty(FLOATS)?;
    m.done()?;
    let float = float_of(ty);
    let small = matches!(float, Float::F16 | Float::Bf16);
    // What the ISA's syntax tables leave out does not exist.
    let wrong = match name {
        "fma" => written.is_none() || (relu && !small) || (sat && relu),
        // The older name, of f32 and f64.
        "mad" => written.is_none() || relu || small,
        "div" => {
            small
                || (!approx && written.is_none())
                || (approx && (written.is_some() || ty != Ty::F32))
        }
        "min" | "max" | "neg" | "abs" => written.is_some(),
        _ => false,
    } || (small && !matches!(written, None | Some(Round::Nearest)))
        || (ftz && matches!(float, Float::Bf16 | Float::F64))
        || (sat && matches!(float, Float::Bf16 | Float::F64))
        || (nan && float == Float::F64);
    if wrong {
        return m.fail(format!("`{name}` with these modifiers does not exist for {ty:?}"));
    }
    if float == Float::F64 && !matches!(written, None | Some(Round::Nearest)) {
        return m.fail("f64 is rounded to nearest here: `.rz`, `.rm` and `.rp` are not simulated");
    }
    if float == Float::Bf16 && matches!(name, "add" | "sub" | "mul") {
        m.since(90)?;
    }
    let op = match (name, nan) {
        ("add", _) => FloatOp::Add,
        ("sub", _) => FloatOp::Sub,
        ("mul", _) => FloatOp::Mul,
        ("fma" | "mad", _) => FloatOp::Fma,
        ("div", _) if short => FloatOp::DivApprox,
        ("div", _) => FloatOp::Div,
        ("min", false) => FloatOp::Min,
        ("min", true) => FloatOp::MinNan,
        ("max", false) => FloatOp::Max,
        ("max", true) => FloatOp::MaxNan,
        ("neg", _) => FloatOp::Neg,
        _ => FloatOp::Abs,
    };
    let n = match op {
        FloatOp::Fma => 3,
        FloatOp::Neg | FloatOp::Abs => 1,
        _ => 2,
    };
    m.count(n + 1)?;
    let packed = matches!(ty, Ty::F16x2 | Ty::Bf16x2);
    let round = written.unwrap_or(Round::Nearest);
    operands(cx, &m, op, FloatFlags { float, packed, round, ftz, sat, relu, approx }, ty, n)
}

fn operands(
    cx: &mut Context<'_>,
    m: &Mods<'_>,
    op: FloatOp,
    flags: FloatFlags,
    ty: Ty,
    n: usize,
) -> Res<Op> {
    let o = &m.inst.operands;
    let d = cx.dst(&o[0], ty)?;
    let mut s = [d; 3];
    for i in 0..n {
        s[i] = cx.src(&o[i + 1], ty)?;
    }
    Ok(Op::Float { op, flags, d, s, n: n as u8 })
}

/// `rcp sqrt` rounded or approximate, and the functions that are approximate only.
pub(super) fn function(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let (op, exact) = match m.inst.op.as_str() {
        "rcp" => (FloatOp::Rcp, true),
        "sqrt" => (FloatOp::Sqrt, true),
        "rsqrt" => (FloatOp::Rsqrt, false),
        "ex2" => (FloatOp::Ex2, false),
        "lg2" => (FloatOp::Lg2, false),
        "sin" => (FloatOp::Sin, false),
        "cos" => (FloatOp::Cos, false),
        _ => (FloatOp::Tanh, false),
    };
    let approx = m.has("approx");
    let mut round = Round::Nearest;
    if !approx {
        if !exact {
            return m.unknown("`.approx`");
        }
        round = m.want("`.approx` or a rounding", ROUND)?;
    }
    let ftz = op != FloatOp::Tanh && m.has("ftz");
    let ty = m.ty(match (op, ftz) {
        (FloatOp::Ex2, true) => &[Ty::F32, Ty::Bf16, Ty::Bf16x2],
        (FloatOp::Ex2, false) => &[Ty::F32, Ty::F16, Ty::F16x2],
        (FloatOp::Tanh, _) => &[Ty::F32, Ty::F16, Ty::F16x2, Ty::Bf16, Ty::Bf16x2],
        (FloatOp::Rcp, true) | (FloatOp::Rsqrt, _) if approx => &[Ty::F32, Ty::F64],
        _ if approx || ftz => &[Ty::F32],
        _ => &[Ty::F32, Ty::F64],
    })?;
    m.done()?;
    if float_of(ty) == Float::Bf16 {
        m.since(90)?;
    }
    if ty == Ty::F64 && round != Round::Nearest {
        return m.fail("f64 is rounded to nearest here: `.rz`, `.rm` and `.rp` are not simulated");
    }
    if op == FloatOp::Rcp && ty == Ty::F64 && approx && !ftz {
        return m.fail("rcp.approx of f64 is `.ftz`");
    }
    m.count(2)?;
    let flags = FloatFlags {
        float: float_of(ty),
        packed: matches!(ty, Ty::F16x2 | Ty::Bf16x2),
        round,
        ftz,
        sat: false,
        relu: false,
        approx,
    };
    operands(cx, &m, op, flags, ty, 1)
}

fn int_of(ty: Ty) -> (u32, bool) {
    (ty.bits(), ty.signed())
}

const FP8: &[(&str, Fp8)] = &[("e4m3x2", Fp8::E4m3), ("e5m2x2", Fp8::E5m2)];

/// `cvt` to and from pairs of eight-bit floats, the rounding still to come.
fn cvt_fp8(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    m.need("rn")?;
    let satfinite = m.has("satfinite");
    let relu = m.has("relu");
    let o = &m.inst.operands;
    if let Some(fp8) = m.pick(FP8) {
        let from = m.ty(&[Ty::F32, Ty::F16x2])?;
        m.done()?;
        m.since(89)?;
        if !satfinite {
            return m.fail("cvt to eight-bit floats is `.satfinite`");
        }
        m.count(if from == Ty::F32 { 3 } else { 2 })?;
        let d = cx.dst(&o[0], Ty::B16)?;
        if from == Ty::F32 {
            let (a, b) = (cx.src(&o[1], Ty::F32)?, cx.src(&o[2], Ty::F32)?);
            return Ok(Op::CvtFp8 { fp8, relu, d, a, b });
        }
        let kind = CvtKind::ToFp8 { fp8, relu };
        return Ok(Op::Cvt { kind, d, a: cx.src(&o[1], Ty::B32)?, extend: 16 });
    }
    m.need("f16x2")?;
    let fp8 = m.want("`.e4m3x2` or `.e5m2x2`", FP8)?;
    m.done()?;
    m.since(89)?;
    if satfinite {
        return m.fail("cvt from eight-bit floats has no `.satfinite`");
    }
    m.count(2)?;
    let kind = CvtKind::FromFp8 { fp8, relu };
    Ok(Op::Cvt { kind, d: cx.dst(&o[0], Ty::B32)?, a: cx.src(&o[1], Ty::B16)?, extend: 32 })
}

/// All forms of `cvt` between integers and f16, bf16, f32, f64, to tf32, and those of eight bits.
pub(super) fn cvt(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    if m.inst.mods.iter().any(|word| FP8.iter().any(|(name, _)| name == word)) {
        return cvt_fp8(cx, m);
    }
    let away = m.has("rna");
    let integral = m.pick(INTEGRAL);
    let round = if integral.is_none() && !away { m.pick(ROUND) } else { None };
    let mut relu = m.has("relu");
    let satfinite = m.has("satfinite");
    relu |= m.has("relu");
    let ftz = m.has("ftz");
    let sat = m.has("sat");
    let legal = [
        &[Ty::U8, Ty::U16, Ty::U32, Ty::U64, Ty::S8, Ty::S16, Ty::S32, Ty::S64][..],
        &[Ty::F16, Ty::Bf16, Ty::F32, Ty::F64],
    ]
    .concat();
    let to = m.ty(&[&legal[..], &[Ty::Tf32, Ty::F16x2, Ty::Bf16x2]].concat())?;
    let from = m.ty(&legal)?;
    m.done()?;
    let o = &m.inst.operands;
    let plain = integral.is_none() && !ftz && !sat;
    if matches!(to, Ty::F16x2 | Ty::Bf16x2) {
        let round = match round {
            Some(r @ (Round::Nearest | Round::Zero)) if plain && from == Ty::F32 => r,
            _ => return m.fail("packed cvt is `.rn` or `.rz`, optionally `.relu`, from two f32"),
        };
        m.count(3)?;
        let (a, b) = (cx.src(&o[1], Ty::F32)?, cx.src(&o[2], Ty::F32)?);
        let (to, d) = (float_of(to), cx.dst(&o[0], Ty::B32)?);
        return Ok(Op::CvtPair { to, round, relu, satfinite, d, a, b });
    }
    m.count(2)?;
    if to == Ty::Tf32 {
        let legal = plain
            && from == Ty::F32
            && (away && !relu || matches!(round, Some(Round::Nearest | Round::Zero)));
        if !legal {
            return m.fail("cvt to tf32 is `.rna`, `.rn` or `.rz` from f32");
        }
        let round = if away { Round::Away } else { round.unwrap_or(Round::Nearest) };
        if !away {
            m.since(if satfinite { 100 } else { 90 })?;
        }
        if matches!(cx.register(&o[0])?.1, Ty::F32) {
            return m.fail("tf32 lies in a .b32 register");
        }
        let kind = CvtKind::Tf32 { round, relu, satfinite };
        return Ok(Op::Cvt {
            kind,
            d: cx.dst(&o[0], Ty::B32)?,
            a: cx.src(&o[1], Ty::F32)?,
            extend: 32,
        });
    }
    if away {
        return m.fail("`.rna` exists for tf32 only");
    }
    let missing = || m.fail("this cvt needs another rounding, or none");
    let short = from == Ty::F32
        && matches!(to, Ty::F16 | Ty::Bf16)
        && matches!(round, Some(Round::Nearest | Round::Zero))
        && !ftz;
    let (relu_wrong, finite_wrong) = (relu && !short, satfinite && !short);
    let ftz_wrong = ftz && from != Ty::F32 && to != Ty::F32;
    let sat_wrong =
        sat && (relu || satfinite || to == Ty::Bf16 || from == Ty::Bf16 || !may_exceed(from, to));
    let eight = |ty| matches!(ty, Ty::U8 | Ty::S8);
    let small_wrong = (to == Ty::Bf16 && eight(from)) || (from == Ty::Bf16 && eight(to));
    if relu_wrong || ftz_wrong || finite_wrong || sat_wrong || small_wrong {
        return m.fail("a modifier does not exist for these types");
    }
    if (to == Ty::Bf16 && from != Ty::F32) || (from == Ty::Bf16 && (to != Ty::F32 || ftz)) {
        m.since(90)?;
    }
    let kind = match (from.is_int(), to.is_int()) {
        (true, true) => {
            if round.is_some() || integral.is_some() || ftz {
                return missing();
            }
            CvtKind::IntInt { from: int_of(from), to: int_of(to), sat }
        }
        (true, false) => match round {
            Some(round) => CvtKind::IntFloat { from: int_of(from), to: float_of(to), round, sat },
            None => return missing(),
        },
        // The ISA clamps these always; `.sat` changes nothing and is allowed.
        (false, true) => match integral {
            Some(round) if round_free(m.inst.mods.as_slice()) => {
                CvtKind::FloatInt { from: float_of(from), to: int_of(to), round, ftz }
            }
            _ => return missing(),
        },
        (false, false) => {
            let (f, t) = (float_of(from), float_of(to));
            let narrows = match (f, t) {
                _ if f == t => false,
                (Float::F64, _) | (Float::F32, Float::F16 | Float::Bf16) => true,
                (Float::F16, Float::Bf16) | (Float::Bf16, Float::F16) => true,
                _ => false,
            };
            if (round.is_some() != narrows) || (integral.is_some() && f != t) {
                return missing();
            }
            let rounding = round.or(integral).unwrap_or(Round::Nearest);
            let integral = integral.is_some();
            CvtKind::FloatFloat {
                from: f,
                to: t,
                round: rounding,
                ftz,
                sat,
                relu,
                satfinite,
                integral,
            }
        }
    };
    let a = cx.src_wide(&o[1], from)?;
    let (d, extend) = cx.dst_wide(&o[0], to)?;
    Ok(Op::Cvt { kind, d, a, extend })
}

/// An integer may leave the range of an integer; whatever becomes a float may leave 0 to 1.
fn may_exceed(from: Ty, to: Ty) -> bool {
    match (from.is_int(), to.is_int()) {
        (true, true) if from.signed() == to.signed() => from.bits() > to.bits(),
        (true, true) if to.signed() => from.bits() >= to.bits(),
        _ => true,
    }
}

/// No floating rounding stands beside the integral one.
fn round_free(mods: &[String]) -> bool {
    !mods.iter().any(|m| ROUND.iter().any(|(word, _)| word == m))
}

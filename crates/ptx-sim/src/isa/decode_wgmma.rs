//! `wgmma.*`, `setmaxnreg`, `stmatrix`, `elect.sync`.

use super::context::Context;
use super::decode_narrow as narrow;
use super::hopper::{Hopper, ScaleD, Wgmma, WgmmaA};
use super::inst::{Element, MmaTy, Op, Slot, Space, Sums};
use super::mods::{Mods, Res};
use super::types::Ty;
use crate::text::ast::Operand;

pub(super) fn wgmma(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    m.only_90a()?;
    let what = m.want(
        "`.fence`, `.mma_async`, `.commit_group` or `.wait_group`",
        &[("fence", 0), ("mma_async", 1), ("commit_group", 2), ("wait_group", 3)],
    )?;
    m.need("sync")?;
    m.need("aligned")?;
    let op = match what {
        0 | 2 => {
            m.done()?;
            m.count(0)?;
            if what == 0 { Hopper::WgmmaFence } else { Hopper::WgmmaCommit }
        }
        3 => {
            m.done()?;
            m.count(1)?;
            Hopper::WgmmaWait { left: cx.literal(&m.inst.operands[0], u64::from(u32::MAX))? as u32 }
        }
        _ => multiply(cx, m)?,
    };
    Ok(Op::Hopper(Box::new(op)))
}

/// `m64nNkK`, taken apart.
fn shape(m: &mut Mods<'_>) -> Res<(u32, u32)> {
    let found = m.peek().and_then(|word| {
        let (n, k) = word.strip_prefix("m64n")?.split_once('k')?;
        Some((n.parse::<u32>().ok()?, k.parse::<u32>().ok()?))
    });
    match found {
        Some((n, k)) if n % 8 == 0 && (8..=256).contains(&n) && matches!(k, 8 | 16 | 32) => {
            m.skip();
            Ok((n, k))
        }
        _ => m.unknown("`.m64nNk8`, `.m64nNk16` or `.m64nNk32`, N a multiple of 8 up to 256"),
    }
}

/// An immediate factor: 1, or -1 that negates.
fn factor(cx: &Context<'_>, op: &Operand) -> Res<bool> {
    match op {
        Operand::Int(1, false) => Ok(false),
        Operand::Int(v, true) if *v as i64 == -1 => Ok(true),
        _ => cx.fail(format!("expected 1 or -1, found {op:?}")),
    }
}

fn multiply(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Hopper> {
    let (n, k) = shape(&mut m)?;
    if narrow::is_narrow(&m) {
        return multiply_narrow(cx, m, n, k);
    }
    let half = m.want("`.f32` or `.f16`", &[("f32", false), ("f16", true)])?;
    let table = &[("f16", MmaTy::F16), ("bf16", MmaTy::Bf16), ("tf32", MmaTy::Tf32)];
    let ty = m.want("f16, bf16 or tf32", table)?;
    let same = m.want("the type of A again", table)?;
    m.done()?;
    let right_k = k == if ty == MmaTy::Tf32 { 8 } else { 16 };
    if ty != same || !right_k || (half && ty != MmaTy::F16) {
        return m.fail("this wgmma does not exist, or is not simulated");
    }
    let o = &m.inst.operands;
    let (parts, part) = if half { (n / 4, Ty::B32) } else { (n / 2, Ty::F32) };
    // tf32 lies along k always; of A in registers there is no other way either.
    let registers = matches!(o.get(1), Some(Operand::Vector(_)));
    let majors = if ty == MmaTy::Tf32 { 0 } else { 2 - usize::from(registers) };
    m.count(6 + majors)?;
    let d = cx.dsts(&o[0], parts as usize, part)?;
    let (a, b, scale_d) = sources(cx, o)?;
    let (negate_a, negate_b) = (factor(cx, &o[4])?, factor(cx, &o[5])?);
    let major = |i: usize| -> Res<bool> {
        match o.get(i) {
            Some(op) => Ok(cx.literal(op, 1)? == 1),
            None => Ok(false),
        }
    };
    let (transpose_a, transpose_b) = match majors {
        0 => (false, false),
        1 => (false, major(6)?),
        _ => (major(6)?, major(7)?),
    };
    Ok(Hopper::Wgmma(Box::new(Wgmma {
        ty,
        narrow: None,
        n,
        half,
        d,
        a,
        b,
        scale_d,
        negate_a,
        negate_b,
        transpose_a,
        transpose_b,
    })))
}

/// A, B and scale-d, which every form has.
fn sources(cx: &mut Context<'_>, o: &[Operand]) -> Res<(WgmmaA, Slot, ScaleD)> {
    let a = if matches!(&o[1], Operand::Vector(_)) {
        let a = cx.dsts(&o[1], 4, Ty::B32)?;
        WgmmaA::Registers([a[0], a[1], a[2], a[3]])
    } else {
        WgmmaA::Shared(cx.register_of(&o[1], Ty::B64)?)
    };
    let b = cx.register_of(&o[2], Ty::B64)?;
    let scale_d = match &o[3] {
        Operand::Int(v @ 0..=1, false) => ScaleD::Known(*v == 1),
        op => {
            let (p, negate) = cx.pred_not(op)?;
            ScaleD::Pred(p, negate)
        }
    };
    Ok((a, b, scale_d))
}

/// Bytes and eight-bit floats: they lie along k always, and integers have no factors.
fn multiply_narrow(cx: &mut Context<'_>, mut m: Mods<'_>, n: u32, k: u32) -> Res<Hopper> {
    let mut saturate = m.has("satfinite");
    let mut sums = m.want("the type of D", narrow::SUMS)?;
    let ta = m.want("the type of A", narrow::ELEMENTS)?;
    let tb = m.want("the type of B", narrow::ELEMENTS)?;
    saturate |= m.has("satfinite");
    m.done()?;
    let whole = matches!(sums, Sums::Int { .. });
    let there = matches!(ta, Element::Int(8, _) | Element::Fp8(_))
        && narrow::kin(ta, tb)
        && narrow::sums_fit(sums, ta)
        && k == 32
        && (!saturate || whole)
        // The integers have fewer widths.
        && (!whole || n.is_multiple_of(16) || n <= 24);
    if !there {
        return m.fail("this wgmma does not exist, or is not simulated");
    }
    if saturate {
        sums = Sums::Int { saturate };
    }
    m.count(if whole { 4 } else { 6 })?;
    let o = &m.inst.operands;
    let half = sums == Sums::F16;
    let (parts, part) = match sums {
        Sums::F16 => (n / 4, Ty::B32),
        Sums::F32 => (n / 2, Ty::F32),
        _ => (n / 2, Ty::S32),
    };
    let d = cx.dsts(&o[0], parts as usize, part)?;
    let (a, b, scale_d) = sources(cx, o)?;
    let (negate_a, negate_b) =
        if whole { (false, false) } else { (factor(cx, &o[4])?, factor(cx, &o[5])?) };
    Ok(Hopper::Wgmma(Box::new(Wgmma {
        ty: MmaTy::F16,
        narrow: Some((ta, tb, sums)),
        n,
        half,
        d,
        a,
        b,
        scale_d,
        negate_a,
        negate_b,
        transpose_a: false,
        transpose_b: false,
    })))
}

pub(super) fn setmaxnreg(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    m.only_90a()?;
    let more = m.want("`.inc` or `.dec`", &[("inc", true), ("dec", false)])?;
    m.need("sync")?;
    m.need("aligned")?;
    m.need("u32")?;
    m.done()?;
    m.count(1)?;
    let count = cx.literal(&m.inst.operands[0], 256)? as u32;
    if count < 24 || !count.is_multiple_of(8) {
        return m.fail(format!("{count} registers: a multiple of 8 from 24 to 256 is needed"));
    }
    Ok(Op::Hopper(Box::new(Hopper::MaxRegisters { more, count })))
}

pub(super) fn stmatrix(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    m.since(90)?;
    m.need("sync")?;
    m.need("aligned")?;
    m.need("m8n8")?;
    let n = m.want("`.x1`, `.x2` or `.x4`", &[("x1", 1), ("x2", 2), ("x4", 4)])?;
    let transpose = m.has("trans");
    let space =
        if m.has("shared") || m.has("shared::cta") { Space::Shared } else { Space::Generic };
    m.need("b16")?;
    m.done()?;
    m.count(2)?;
    let o = &m.inst.operands;
    let addr = cx.address(&o[0], space)?;
    let s = cx.srcs(&o[1], n, Ty::B32)?;
    Ok(Op::Hopper(Box::new(Hopper::Stmatrix { addr, transpose, s })))
}

pub(super) fn elect(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    m.since(90)?;
    m.need("sync")?;
    m.done()?;
    m.count(2)?;
    let o = &m.inst.operands;
    let Operand::Pair(d, p) = &o[0] else {
        return m.fail("elect.sync writes `register|predicate`");
    };
    let d = if **d == Operand::Sink { None } else { Some(cx.dst(d, Ty::B32)?) };
    let (p, members) = (cx.pred(p)?, cx.src(&o[1], Ty::B32)?);
    Ok(Op::Hopper(Box::new(Hopper::Elect { d, p, members })))
}

//! What a warp does together: matrices, shuffles, votes, barriers.

use super::context::Context;
use super::decode_narrow as narrow;
use super::inst::{BarKind, Mma, MmaTy, Op, ReduxOp, ShflMode, Space, VoteMode};
use super::mods::{Mods, Res};
use super::types::Ty;
use crate::text::ast::Operand;

pub(super) fn ldmatrix(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
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
    Ok(Op::Ldmatrix { addr: cx.address(&o[1], space)?, transpose, d: cx.dsts(&o[0], n, Ty::B32)? })
}

pub(super) fn movmatrix(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    for word in ["sync", "aligned", "m8n8", "trans", "b16"] {
        m.need(word)?;
    }
    m.done()?;
    m.count(2)?;
    let o = &m.inst.operands;
    Ok(Op::Movmatrix { d: cx.dst(&o[0], Ty::B32)?, a: cx.src(&o[1], Ty::B32)? })
}

pub(super) fn mma(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    m.need("sync")?;
    m.need("aligned")?;
    if narrow::is_narrow(&m) {
        return narrow::mma(cx, m);
    }
    let k = m.want(
        "m16n8k4, m16n8k8 or m16n8k16",
        &[("m16n8k4", 4), ("m16n8k8", 8), ("m16n8k16", 16)],
    )?;
    m.need("row")?;
    m.need("col")?;
    let half = m.want("`.f32` or `.f16`", &[("f32", false), ("f16", true)])?;
    let table = &[("f16", MmaTy::F16), ("bf16", MmaTy::Bf16), ("tf32", MmaTy::Tf32)];
    let ty = m.want("f16, bf16 or tf32", table)?;
    let same = m.want("the type of A again", table)?;
    let half_c = m.want("`.f32` or `.f16`", &[("f32", false), ("f16", true)])?;
    m.done()?;
    let shape = match ty {
        MmaTy::Tf32 => k == 4 || k == 8,
        _ => k == 8 || k == 16,
    };
    if ty != same || half != half_c || !shape || (half && ty != MmaTy::F16) {
        return m.fail("this mma does not exist, or is not simulated");
    }
    m.count(4)?;
    let o = &m.inst.operands;
    // Registers per lane: 16·k and 8·k elements over 32 lanes, two or one to a register.
    let per = if ty == MmaTy::Tf32 { 1 } else { 2 };
    let (na, nb) = ((16 * k / 32 / per) as usize, (8 * k / 32 / per) as usize);
    let (nc, tc) = if half { (2, Ty::B32) } else { (4, Ty::F32) };
    let d = cx.dsts(&o[0], nc, tc)?;
    let a = cx.srcs(&o[1], na, Ty::B32)?;
    let b = cx.srcs(&o[2], nb, Ty::B32)?;
    let c = cx.srcs(&o[3], nc, tc)?;
    Ok(Op::Mma(Box::new(Mma { ty, k, half, d, a, b, c })))
}

pub(super) fn shfl(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    m.need("sync")?;
    let mode = m.want(
        "a mode",
        &[
            ("up", ShflMode::Up),
            ("down", ShflMode::Down),
            ("bfly", ShflMode::Bfly),
            ("idx", ShflMode::Idx),
        ],
    )?;
    m.need("b32")?;
    m.done()?;
    m.count(5)?;
    let o = &m.inst.operands;
    let (d, p) = match &o[0] {
        Operand::Pair(d, p) => (cx.dst(d, Ty::B32)?, Some(cx.pred(p)?)),
        d => (cx.dst(d, Ty::B32)?, None),
    };
    let (a, b, c) = (cx.src(&o[1], Ty::B32)?, cx.src(&o[2], Ty::B32)?, cx.src(&o[3], Ty::B32)?);
    Ok(Op::Shfl { mode, d, p, a, b, c, members: cx.src(&o[4], Ty::B32)? })
}

pub(super) fn vote(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    m.need("sync")?;
    let mode = m.want(
        "a mode",
        &[
            ("all", VoteMode::All),
            ("any", VoteMode::Any),
            ("uni", VoteMode::Uni),
            ("ballot", VoteMode::Ballot),
        ],
    )?;
    m.need(if mode == VoteMode::Ballot { "b32" } else { "pred" })?;
    m.done()?;
    m.count(3)?;
    let o = &m.inst.operands;
    let d = if mode == VoteMode::Ballot { cx.dst(&o[0], Ty::B32)? } else { cx.pred(&o[0])? };
    let (a, negate) = cx.pred_not(&o[1])?;
    Ok(Op::Vote { mode, d, a, negate, members: cx.src(&o[2], Ty::B32)? })
}

pub(super) fn redux(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    m.need("sync")?;
    let op = m.want(
        "an operation",
        &[
            ("add", ReduxOp::Add),
            ("min", ReduxOp::Min),
            ("max", ReduxOp::Max),
            ("and", ReduxOp::And),
            ("or", ReduxOp::Or),
            ("xor", ReduxOp::Xor),
        ],
    )?;
    let bitwise = matches!(op, ReduxOp::And | ReduxOp::Or | ReduxOp::Xor);
    let ty = m.ty(if bitwise { &[Ty::B32] } else { &[Ty::U32, Ty::S32] })?;
    m.done()?;
    m.count(3)?;
    let o = &m.inst.operands;
    let (d, a) = (cx.dst(&o[0], ty)?, cx.src(&o[1], ty)?);
    Ok(Op::Redux { op, signed: ty.signed(), d, a, members: cx.src(&o[2], Ty::B32)? })
}

/// `match.sync`: who holds the same value.
pub(super) fn matching(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let any = m.want("`.any` or `.all`", &[("any", true), ("all", false)])?;
    m.need("sync")?;
    let ty = m.ty(&[Ty::B32, Ty::B64])?;
    m.done()?;
    m.count(3)?;
    let o = &m.inst.operands;
    let (d, p) = match &o[0] {
        Operand::Pair(d, p) if !any => (cx.dst(d, Ty::B32)?, Some(cx.pred(p)?)),
        d => (cx.dst(d, Ty::B32)?, None),
    };
    Ok(Op::Match { any, d, p, a: cx.src(&o[1], ty)?, members: cx.src(&o[2], Ty::B32)? })
}

/// `bar.warp.sync`, `bar{.cta}.sync/.arrive/.red`, `barrier{.cta}.…{.aligned}`.
pub(super) fn barrier(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let o = &m.inst.operands;
    let short = m.inst.op == "bar";
    if short && m.has("warp") {
        m.need("sync")?;
        m.done()?;
        m.count(1)?;
        return Ok(Op::WarpSync { members: cx.src(&o[0], Ty::B32)? });
    }
    m.has("cta");
    let what = m.want("`.sync`, `.arrive` or `.red`", &[("sync", 0), ("arrive", 1), ("red", 2)])?;
    let op = match what {
        2 => Some(m.want(
            "`.and`, `.or` or `.popc`",
            &[("and", BarKind::RedAnd), ("or", BarKind::RedOr), ("popc", BarKind::RedPopc)],
        )?),
        _ => None,
    };
    // `bar` is `barrier….aligned`.
    let aligned = short || m.has("aligned");
    if let Some(kind) = op {
        m.need(if kind == BarKind::RedPopc { "u32" } else { "pred" })?;
    }
    m.done()?;
    let mut args = o.iter();
    let next = |args: &mut std::slice::Iter<'_, _>| args.next().cloned();
    let d = match op {
        Some(BarKind::RedPopc) => match next(&mut args) {
            Some(d) => cx.dst(&d, Ty::U32)?,
            None => return m.fail("bar.red takes a destination"),
        },
        Some(_) => match next(&mut args) {
            Some(d) => cx.pred(&d)?,
            None => return m.fail("bar.red takes a destination"),
        },
        None => 0,
    };
    let Some(id) = next(&mut args) else { return m.fail("a barrier's number is missing") };
    let id = cx.src(&id, Ty::U32)?;
    let p = match op {
        Some(_) => match o.last() {
            Some(p) if o.len() >= 3 => Some(cx.pred_not(p)?),
            _ => return m.fail("bar.red takes a predicate"),
        },
        None => None,
    };
    let middle = args.len() - usize::from(p.is_some());
    let count = match (middle, next(&mut args)) {
        (0, _) => None,
        (1, Some(c)) => Some(cx.src(&c, Ty::U32)?),
        _ => return m.fail("a barrier takes a number and a count"),
    };
    let kind = match (what, op) {
        (0, _) => BarKind::Sync,
        (1, _) if count.is_none() => return m.fail("bar.arrive needs a count"),
        (1, _) => BarKind::Arrive,
        (_, Some(kind)) => kind,
        _ => BarKind::RedAnd,
    };
    Ok(Op::Bar { kind, aligned, id, count, d, p })
}

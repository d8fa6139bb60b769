//! Clusters: `barrier.cluster`, `mapa`, `getctarank`, `st.async`, `red.async`; `griddepcontrol`; the
//! fences between proxies.

use super::context::Context;
use super::hopper::{Hopper, RedTy};
use super::inst::{AtomOp, Op, Space};
use super::mods::{Mods, Res};
use super::types::Ty;

fn hopper(op: Hopper) -> Res<Op> {
    Ok(Op::Hopper(Box::new(op)))
}

/// `barrier.cluster` has been read.
pub(super) fn barrier(mut m: Mods<'_>) -> Res<Op> {
    m.since(90)?;
    let arrive = m.want("`.arrive` or `.wait`", &[("arrive", true), ("wait", false)])?;
    let relaxed = if arrive {
        m.pick(&[("release", false), ("relaxed", true)]).unwrap_or(false)
    } else {
        m.has("acquire");
        false
    };
    let aligned = m.has("aligned");
    m.done()?;
    m.count(0)?;
    hopper(if arrive {
        Hopper::ClusterArrive { aligned, relaxed }
    } else {
        Hopper::ClusterWait { aligned }
    })
}

pub(super) fn mapa(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    m.since(90)?;
    let generic = !m.has("shared::cluster");
    let ty = m.ty(&[Ty::U32, Ty::U64])?;
    m.done()?;
    m.count(3)?;
    let o = &m.inst.operands;
    cx.specials = true;
    let d = cx.dst(&o[0], ty)?;
    let a = cx.src(&o[1], ty)?;
    cx.specials = false;
    hopper(Hopper::Mapa { d, a, rank: cx.src(&o[2], Ty::U32)?, generic })
}

pub(super) fn getctarank(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    m.since(90)?;
    let generic = !m.has("shared::cluster");
    let ty = m.ty(&[Ty::U32, Ty::U64])?;
    m.done()?;
    m.count(2)?;
    let o = &m.inst.operands;
    cx.specials = true;
    let d = cx.dst(&o[0], Ty::U32)?;
    let a = cx.src(&o[1], ty)?;
    cx.specials = false;
    hopper(Hopper::CtaRank { d, a, generic })
}

pub(super) fn griddepcontrol(mut m: Mods<'_>) -> Res<Op> {
    m.since(90)?;
    let wait =
        m.want("`.wait` or `.launch_dependents`", &[("wait", true), ("launch_dependents", false)])?;
    m.done()?;
    m.count(0)?;
    hopper(if wait { Hopper::GridWait } else { Hopper::GridLaunch })
}

/// `fence.proxy` has been read.
pub(super) fn proxy(mut m: Mods<'_>) -> Res<Op> {
    if m.has("alias") {
        // Between virtual addresses of one location; here every location has one.
        m.done()?;
        m.count(0)?;
        return Ok(Op::Fence { scope: super::inst::Scope::Sys, sc: false });
    }
    m.since(90)?;
    m.need("async")?;
    let (shared, global) = m
        .pick(&[
            ("global", (false, true)),
            ("shared::cta", (true, false)),
            ("shared::cluster", (true, false)),
        ])
        .unwrap_or((true, true));
    m.done()?;
    m.count(0)?;
    hopper(Hopper::ProxyFence { shared, global })
}

/// `fence.mbarrier_init` has been read.
pub(super) fn init(mut m: Mods<'_>) -> Res<Op> {
    m.since(90)?;
    m.need("release")?;
    m.need("cluster")?;
    m.done()?;
    m.count(0)?;
    hopper(Hopper::InitFence)
}

/// `st.async` or `red.async`, both words read.
pub(super) fn store_async(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    m.since(90)?;
    let is_red = m.inst.op == "red";
    if is_red {
        m.need("relaxed")?;
        m.need("cluster")?;
    } else {
        if m.has("weak") {}
    }
    m.has("shared::cluster");
    m.need("mbarrier::complete_tx::bytes")?;
    let (mut n, mut op) = (1, None);
    if is_red {
        op = Some(m.want(
            "an operation",
            &[
                ("add", AtomOp::Add),
                ("min", AtomOp::Min),
                ("max", AtomOp::Max),
                ("inc", AtomOp::Inc),
                ("dec", AtomOp::Dec),
                ("and", AtomOp::And),
                ("or", AtomOp::Or),
                ("xor", AtomOp::Xor),
            ],
        )?);
    } else {
        n = m.pick(&[("v2", 2), ("v4", 4)]).unwrap_or(1);
    }
    let ty = m.ty(match op {
        None if n == 4 => &[Ty::B32, Ty::U32, Ty::S32, Ty::F32],
        None => &[Ty::B32, Ty::B64, Ty::U32, Ty::U64, Ty::S32, Ty::S64, Ty::F32, Ty::F64],
        Some(AtomOp::Add) => &[Ty::U32, Ty::S32, Ty::U64],
        Some(AtomOp::Min | AtomOp::Max) => &[Ty::U32, Ty::S32],
        Some(AtomOp::Inc | AtomOp::Dec) => &[Ty::U32],
        Some(_) => &[Ty::B32],
    })?;
    m.done()?;
    m.count(3)?;
    let o = &m.inst.operands;
    let addr = cx.address(&o[0], Space::Cluster)?;
    let s = cx.srcs(&o[1], n, ty)?;
    let barrier = cx.address(&o[2], Space::Cluster)?;
    let reduce = op.map(|op| {
        let bits = ty.bits();
        let ty = match ty {
            t if t.signed() => RedTy::Signed(bits),
            Ty::B32 => RedTy::Bits(bits),
            _ => RedTy::Unsigned(bits),
        };
        (op, ty)
    });
    hopper(Hopper::StoreAsync { addr, barrier, size: ty.bits() / 8, s, reduce })
}

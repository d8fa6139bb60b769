//! `cp.async.bulk.*`, `cp.reduce.async.bulk.*`, tensors included.

use super::context::Context;
use super::hopper::{Bulk, BulkEnd, Hopper, RedTy};
use super::inst::{Addr, AtomOp, Float, Op, Slot, Space};
use super::mods::{Mods, Res};
use super::types::Ty;
use crate::text::ast::Operand;

const RED: &[(&str, AtomOp)] = &[
    ("add", AtomOp::Add),
    ("min", AtomOp::Min),
    ("max", AtomOp::Max),
    ("inc", AtomOp::Inc),
    ("dec", AtomOp::Dec),
    ("and", AtomOp::And),
    ("or", AtomOp::Or),
    ("xor", AtomOp::Xor),
];

fn hopper(op: Hopper) -> Op {
    Op::Hopper(Box::new(op))
}

/// After `cp.async.bulk` or `cp.reduce.async.bulk`.
pub(super) fn bulk(cx: &mut Context<'_>, mut m: Mods<'_>, reduce: bool) -> Res<Op> {
    m.since(90)?;
    let o = &m.inst.operands;
    if !reduce && m.has("commit_group") {
        m.done()?;
        m.count(0)?;
        return Ok(hopper(Hopper::BulkCommit));
    }
    if !reduce && m.has("wait_group") {
        let read = m.has("read");
        m.done()?;
        m.count(1)?;
        let left = cx.literal(&o[0], u64::from(u32::MAX))? as u32;
        return Ok(hopper(Hopper::BulkWait { left, read }));
    }
    if !reduce && m.has("prefetch") {
        return prefetch(cx, m);
    }
    if m.has("tensor") {
        return tensor(cx, m, reduce);
    }
    let to = m.want(
        "where the bytes go",
        &[
            ("shared::cluster", Space::Cluster),
            ("shared::cta", Space::Shared),
            ("global", Space::Global),
        ],
    )?;
    let from =
        m.want("whence they come", &[("global", Space::Global), ("shared::cta", Space::Shared)])?;
    let legal = match (to, from) {
        (Space::Shared, _) | (Space::Cluster, Space::Global) => !reduce && from == Space::Global,
        (Space::Cluster, _) => true,
        _ => from == Space::Shared,
    };
    if !legal {
        return m.fail("no bulk copy goes this way");
    }
    let grouped = to == Space::Global;
    m.need(if grouped { "bulk_group" } else { "mbarrier::complete_tx::bytes" })?;
    let multicast = to == Space::Cluster && from == Space::Global && m.has("multicast::cluster");
    let hinted = (grouped || from == Space::Global) && m.has("L2::cache_hint");
    let op = if reduce { Some(reduction(&mut m, to)?) } else { None };
    m.done()?;
    let extra = usize::from(multicast) + usize::from(hinted);
    m.count(if grouped { 3 } else { 4 } + extra)?;
    if hinted {
        cx.src(&o[o.len() - 1], Ty::B64)?;
    }
    let size = Some(cx.src(&o[2], Ty::U32)?);
    let end = |addr: Addr| {
        if addr.space == Space::Global { BulkEnd::Global(addr) } else { BulkEnd::Shared(addr) }
    };
    let (to, source) = (cx.address(&o[0], to)?, cx.address(&o[1], from)?);
    let barrier = if grouped { None } else { Some(cx.address(&o[3], to.space)?) };
    let multicast = if multicast { Some(cx.src(&o[4], Ty::B16)?) } else { None };
    let reduce = op.map(|(op, ty)| (op, Some(ty)));
    Ok(hopper(Hopper::Bulk(Bulk {
        to: end(to),
        from: end(source),
        size,
        barrier,
        multicast,
        reduce,
    })))
}

/// `.add.f32` and its kin, without a tensor map to give the type.
fn reduction(m: &mut Mods<'_>, to: Space) -> Res<(AtomOp, RedTy)> {
    let op = m.want("an operation", RED)?;
    let global = to == Space::Global;
    let noftz = global && op == AtomOp::Add && m.has("noftz");
    let ty = m.ty(match op {
        AtomOp::Add if noftz => &[Ty::F16, Ty::Bf16],
        AtomOp::Add if global => &[Ty::U32, Ty::S32, Ty::U64, Ty::F32, Ty::F64],
        AtomOp::Add => &[Ty::U32, Ty::S32, Ty::U64],
        AtomOp::Min | AtomOp::Max if global => {
            &[Ty::U32, Ty::S32, Ty::U64, Ty::S64, Ty::F16, Ty::Bf16]
        }
        AtomOp::Min | AtomOp::Max => &[Ty::U32, Ty::S32],
        AtomOp::Inc | AtomOp::Dec => &[Ty::U32],
        _ if global => &[Ty::B32, Ty::B64],
        _ => &[Ty::B32],
    })?;
    Ok((
        op,
        match ty {
            Ty::F16 => RedTy::Float(Float::F16),
            Ty::Bf16 => RedTy::Float(Float::Bf16),
            Ty::F32 => RedTy::Float(Float::F32),
            Ty::F64 => RedTy::Float(Float::F64),
            t if t.signed() => RedTy::Signed(t.bits()),
            Ty::U32 | Ty::U64 => RedTy::Unsigned(ty.bits()),
            _ => RedTy::Bits(ty.bits()),
        },
    ))
}

const RANK: &[(&str, usize)] = &[("1d", 1), ("2d", 2), ("3d", 3), ("4d", 4), ("5d", 5)];

/// `[map, {x, y}]`
fn map(cx: &mut Context<'_>, op: &Operand, rank: usize) -> Res<(Addr, Vec<Slot>)> {
    let Operand::Tensor(base, offset, coords) = op else {
        return cx.fail(format!("expected a tensor map with coordinates, found {op:?}"));
    };
    if coords.len() != rank {
        return cx.fail(format!("{} coordinates of a tensor of {rank} dimensions", coords.len()));
    }
    let addr = cx.address(&Operand::Address(base.clone(), *offset), Space::Generic)?;
    let coords = coords.iter().map(|c| cx.src(c, Ty::S32)).collect::<Res<_>>()?;
    Ok((addr, coords))
}

fn tensor(cx: &mut Context<'_>, mut m: Mods<'_>, reduce: bool) -> Res<Op> {
    let rank = m.want("`.1d` to `.5d`", RANK)?;
    let o = &m.inst.operands;
    if m.has("global") {
        m.need("shared::cta")?;
        let op = if reduce { Some((m.want("an operation", RED)?, None)) } else { None };
        m.has("tile");
        m.need("bulk_group")?;
        let hinted = m.has("L2::cache_hint");
        m.done()?;
        m.count(2 + usize::from(hinted))?;
        if hinted {
            cx.src(&o[2], Ty::B64)?;
        }
        let (map, coords) = map(cx, &o[0], rank)?;
        return Ok(hopper(Hopper::Bulk(Bulk {
            to: BulkEnd::Tensor(map, coords),
            from: BulkEnd::Shared(cx.address(&o[1], Space::Shared)?),
            size: None,
            barrier: None,
            multicast: None,
            reduce: op,
        })));
    }
    if reduce {
        return m.unknown("`.global`");
    }
    let to = m.want(
        "`.shared::cluster`, `.shared::cta` or `.global`",
        &[("shared::cluster", Space::Cluster), ("shared::cta", Space::Shared)],
    )?;
    m.need("global")?;
    m.has("tile");
    m.need("mbarrier::complete_tx::bytes")?;
    let multicast = to == Space::Cluster && m.has("multicast::cluster");
    let hinted = m.has("L2::cache_hint");
    m.done()?;
    m.count(3 + usize::from(multicast) + usize::from(hinted))?;
    if hinted {
        cx.src(&o[o.len() - 1], Ty::B64)?;
    }
    let (map, coords) = map(cx, &o[1], rank)?;
    Ok(hopper(Hopper::Bulk(Bulk {
        to: BulkEnd::Shared(cx.address(&o[0], to)?),
        from: BulkEnd::Tensor(map, coords),
        size: None,
        barrier: Some(cx.address(&o[2], to)?),
        multicast: if multicast { Some(cx.src(&o[3], Ty::B16)?) } else { None },
        reduce: None,
    })))
}

/// `cp.async.bulk.prefetch…`: moves nothing that a kernel could see.
fn prefetch(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let o = &m.inst.operands;
    let rank = if m.has("tensor") { Some(m.want("`.1d` to `.5d`", RANK)?) } else { None };
    m.need("L2")?;
    m.need("global")?;
    if rank.is_some() {
        m.has("tile");
    }
    let hinted = m.has("L2::cache_hint");
    m.done()?;
    m.count(2 - usize::from(rank.is_some()) + usize::from(hinted))?;
    if hinted {
        cx.src(&o[o.len() - 1], Ty::B64)?;
    }
    let Some(rank) = rank else {
        cx.address(&o[0], Space::Global)?;
        cx.src(&o[1], Ty::U32)?;
        return Ok(Op::Prefetch);
    };
    let (addr, _) = map(cx, &o[0], rank)?;
    Ok(hopper(Hopper::PrefetchMap { addr }))
}

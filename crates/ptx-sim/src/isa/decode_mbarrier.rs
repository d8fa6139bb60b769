//! `mbarrier.*` and `cp.async.mbarrier.arrive`.

use super::context::Context;
use super::hopper::{Hopper, Mbarrier, MbarrierOp, MbarrierWait, Order};
use super::inst::{Op, Space};
use super::mods::{Mods, Res};
use super::types::Ty;
use crate::text::ast::Operand;

/// `.shared` and its kin, or generic; `.shared::cluster` where `cluster` allows it.
fn space(m: &mut Mods<'_>, cluster: bool) -> Res<Space> {
    if cluster && m.has("shared::cluster") {
        m.since(90)?;
        return Ok(Space::Cluster);
    }
    Ok(if m.has("shared") || m.has("shared::cta") { Space::Shared } else { Space::Generic })
}

/// `{.sem}{.scope}`: both or none, as ptxas has it.
fn order(m: &mut Mods<'_>, strong: (&str, Order), cluster: bool) -> Res<Order> {
    let order = if m.has(strong.0) {
        strong.1
    } else if m.has("relaxed") {
        Order::Relaxed
    } else {
        return Ok(strong.1);
    };
    let scopes: &[_] =
        if cluster { &[("cta", false), ("cluster", true)] } else { &[("cta", false)] };
    if m.want("a scope", scopes)? || order == Order::Relaxed {
        m.since(90)?;
    }
    Ok(order)
}

pub(super) fn mbarrier(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    let what = m.want(
        "what to do",
        &[
            ("init", 0),
            ("inval", 1),
            ("arrive", 2),
            ("arrive_drop", 3),
            ("expect_tx", 4),
            ("complete_tx", 5),
            ("test_wait", 6),
            ("try_wait", 7),
            ("pending_count", 8),
        ],
    )?;
    let o = &m.inst.operands;
    let op = match what {
        0 | 1 => {
            let space = space(&mut m, false)?;
            m.need("b64")?;
            m.done()?;
            m.count(2 - what)?;
            let addr = cx.address(&o[0], space)?;
            let n = if what == 0 { Some(cx.src(&o[1], Ty::U32)?) } else { None };
            let op = if what == 0 { MbarrierOp::Init } else { MbarrierOp::Inval };
            Hopper::Mbarrier(Mbarrier { op, addr, n, d: None })
        }
        2 | 3 => arrive(cx, &mut m, what == 3)?,
        4 | 5 => {
            m.since(90)?;
            if m.has("relaxed") {
                m.want("`.cta` or `.cluster`", &[("cta", ()), ("cluster", ())])?;
            }
            let space = space(&mut m, true)?;
            m.need("b64")?;
            m.done()?;
            m.count(2)?;
            let op = if what == 4 { MbarrierOp::ExpectTx } else { MbarrierOp::CompleteTx };
            let addr = cx.address(&o[0], space)?;
            Hopper::Mbarrier(Mbarrier { op, addr, n: Some(cx.src(&o[1], Ty::U32)?), d: None })
        }
        6 | 7 => wait(cx, &mut m, what == 7)?,
        _ => {
            m.need("b64")?;
            m.done()?;
            m.count(2)?;
            Hopper::PendingCount { d: cx.dst(&o[0], Ty::U32)?, state: cx.src(&o[1], Ty::B64)? }
        }
    };
    Ok(Op::Hopper(Box::new(op)))
}

fn arrive(cx: &mut Context<'_>, m: &mut Mods<'_>, drop: bool) -> Res<Hopper> {
    let (mut expect, mut no_complete) = (m.has("expect_tx"), false);
    if expect {
        m.since(90)?;
    } else {
        no_complete = m.has("noComplete");
    }
    let order = order(m, ("release", Order::Release), !no_complete)?;
    if no_complete && order == Order::Relaxed {
        return m.fail("`.noComplete` arrives with release");
    }
    let space = space(m, !no_complete)?;
    m.need("b64")?;
    m.done()?;
    let o = &m.inst.operands;
    // The count may be left out; bytes and `.noComplete` need theirs.
    if expect || no_complete || o.len() != 2 {
        m.count(3)?;
    }
    let n = match o.get(2) {
        Some(n) => Some(cx.src(n, Ty::U32)?),
        None => None,
    };
    if n.is_some() && !no_complete {
        m.since(90)?;
    }
    let d = match &o[0] {
        Operand::Sink => None,
        _ if space == Space::Cluster => {
            return m.fail("an arrival in `.shared::cluster` returns no state: write `_`");
        }
        d => Some(cx.dst(d, Ty::B64)?),
    };
    expect &= n.is_some();
    let op = MbarrierOp::Arrive { expect, drop, no_complete, order };
    Ok(Hopper::Mbarrier(Mbarrier { op, addr: cx.address(&o[1], space)?, n, d }))
}

fn wait(cx: &mut Context<'_>, m: &mut Mods<'_>, suspends: bool) -> Res<Hopper> {
    let parity = m.has("parity");
    if suspends {
        m.since(90)?;
    }
    let order = order(m, ("acquire", Order::Acquire), true)?;
    let space = space(m, false)?;
    m.need("b64")?;
    m.done()?;
    let o = &m.inst.operands;
    if !(suspends && o.len() == 4) {
        m.count(3)?;
    }
    if let Some(hint) = o.get(3) {
        cx.src(hint, Ty::U32)?;
    }
    let phase = cx.src(&o[2], if parity { Ty::U32 } else { Ty::B64 })?;
    let addr = cx.address(&o[1], space)?;
    Ok(Hopper::Wait(MbarrierWait { addr, d: cx.pred(&o[0])?, parity, phase, suspends, order }))
}

/// `cp.async.mbarrier.arrive{.noinc}`; `cp.async.mbarrier` has been read.
pub(super) fn copies(cx: &mut Context<'_>, mut m: Mods<'_>) -> Res<Op> {
    m.need("arrive")?;
    let counted = m.has("noinc");
    let space = space(&mut m, false)?;
    m.need("b64")?;
    m.done()?;
    m.count(1)?;
    let addr = cx.address(&m.inst.operands[0], space)?;
    Ok(Op::Hopper(Box::new(Hopper::CopiesArrive { addr, counted })))
}

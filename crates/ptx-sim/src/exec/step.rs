//! One instruction of one warp.

use super::env::Reach;
use super::flow::Flow;
use super::group::Lanes;
use super::trouble::{Res, trouble};
use super::warp::Warp;
use super::{copy, float, group, int, integer, matrix, memory, narrow};
use crate::check::clock::GPU;
use crate::isa::inst::{CmpTy, Logic, Op};
use crate::report::FaultKind;

/// Runs the warp's next instruction; `reach.pc` is set here.
#[inline]
pub(crate) fn step(warp: &mut Warp, reach: &mut Reach<'_, '_>) -> Res<Flow> {
    let kernel = reach.env.kernel;
    let at = warp.choose(&kernel.insts);
    let fragment = warp.fragments[at];
    reach.pc = fragment.pc;
    let inst = &kernel.insts[fragment.pc as usize];
    let mask = match inst.guard {
        None => fragment.mask,
        Some((slot, negated)) => {
            let p = warp.files.pred(slot, fragment.mask)?;
            fragment.mask & if negated { !p } else { p }
        }
    };
    reach.env.ticks += 1;
    reach.env.counters.executed(fragment.pc, mask);
    match &inst.op {
        Op::Bra { target, uniform } => {
            if *uniform && mask != 0 && mask != fragment.mask {
                return trouble(
                    FaultKind::DivergentUniform,
                    mask,
                    "bra.uni: some lanes branch, some do not",
                );
            }
            warp.branch(at, mask, *target, reach.env.progress);
            return Ok(Flow::Next);
        }
        _ if mask == 0 => {
            warp.advance(at);
            return Ok(Flow::Next);
        }
        Op::BraTable { index, targets, uniform } => {
            let goes = table(warp, *index, targets, mask)?;
            let apart = goes.len() > 1 || mask != fragment.mask;
            if *uniform && apart {
                let message = "brx.idx.uni: the lanes go different ways";
                return trouble(FaultKind::DivergentUniform, mask, message);
            }
            warp.scatter(at, &goes, reach.env.progress);
            return Ok(Flow::Next);
        }
        Op::Exit => {
            if let Some((pc, lanes, missing)) = warp.waits_for(mask, &kernel.insts) {
                reach.pc = pc;
                let message = format!("members {missing:#010x} exit, and do not take part");
                return trouble(FaultKind::PartialWarp, lanes, message);
            }
            if kernel.engines {
                super::hopper::leave(warp, reach, mask)?;
            }
            // Copies that nobody has waited for may outlive the thread; here they never land.
            warp.copies.retain(|c| mask >> c.lane & 1 == 0);
            warp.exit(at, mask);
            reach.env.progress += 1;
            return Ok(if warp.fragments.is_empty() { Flow::Done } else { Flow::Next });
        }
        op if op.collective() => {
            let whole = if op.among_the_living() { warp.live() } else { u32::MAX };
            if mask != whole {
                let message =
                    format!("an .aligned instruction runs in lanes {mask:#010x} of {whole:#010x}");
                return trouble(FaultKind::PartialWarp, mask, message);
            }
        }
        _ => {}
    }
    if let Some(watched) = kernel.watch.get(fragment.pc as usize)
        && !watched.is_empty()
    {
        let touched = warp.hopper.hazards.touch(watched);
        touched.or_else(|message| trouble(FaultKind::MatrixRegister, mask, message))?;
    }
    let flow = operate(warp, reach, &inst.op, mask)?;
    if flow.passes() {
        warp.advance(at);
    }
    Ok(flow)
}

/// Where the lanes of a `brx.idx` go.
fn table(warp: &Warp, index: u16, targets: &[u32], mask: u32) -> Res<Vec<(u32, u32)>> {
    let index = warp.files.read(index, mask)?;
    let mut goes: Vec<(u32, u32)> = Vec::new();
    for lane in crate::lanes::lanes(mask) {
        let Some(&target) = targets.get(index[lane] as usize) else {
            let message =
                format!("brx.idx: index {} of {} targets", index[lane] as u32, targets.len());
            return trouble(FaultKind::OutOfBounds, 1 << lane, message);
        };
        match goes.iter_mut().find(|(_, to)| *to == target) {
            Some((lanes, _)) => *lanes |= 1 << lane,
            None => goes.push((1 << lane, target)),
        }
    }
    Ok(goes)
}

fn operate(warp: &mut Warp, reach: &mut Reach<'_, '_>, op: &Op, mask: u32) -> Res<Flow> {
    let lanes = Lanes { mask, live: warp.live() };
    let files = &mut warp.files;
    match op {
        Op::Mov { d, a } => {
            let x = *files.read(*a, mask)?;
            files.store(*d, mask, &x);
        }
        Op::Unary { op, bits, d, a } => int::unary(files, *op, *bits, *d, *a, mask)?,
        Op::Binary { op, bits, signed, d, a, b } => {
            int::binary(files, *op, *bits, *signed, [*d, *a, *b], mask)?
        }
        Op::Ternary { op, bits, signed, d, a, b, c } => {
            int::ternary(files, *op, *bits, *signed, [*d, *a, *b, *c], mask)?;
        }
        Op::Bfi { bits, d, a, b, c, e } => int::bfi(files, *bits, [*d, *a, *b, *c, *e], mask)?,
        Op::Pack { d, s, bits } => int::pack(files, *d, s, *bits, mask)?,
        Op::Unpack { d, s, bits } => int::unpack(files, d, *s, *bits, mask)?,
        Op::Setp { cmp, ty, bits, p, q, a, b, and } => {
            let (mut yes, mut no) = match ty {
                CmpTy::Pair(float, ftz) => {
                    int::compare_pair(files, *cmp, CmpTy::Float(*float, *ftz), [*a, *b], mask)?
                }
                _ => {
                    let t = int::compare(files, *cmp, *ty, *bits, [*a, *b], mask)?;
                    (t, !t)
                }
            };
            if let Some((logic, c, negate)) = and {
                let c = files.pred(*c, mask)? ^ if *negate { u32::MAX } else { 0 };
                (yes, no) = (combine(*logic, yes, c), combine(*logic, no, c));
            }
            files.set_pred(*p, mask, yes);
            if let Some(q) = q {
                files.set_pred(*q, mask, no);
            }
        }
        Op::Carry(c) => integer::carry(files, c, mask)?,
        Op::Packed(p) => integer::packed(files, p, mask)?,
        Op::Lop3Pred { op, table, d, p, s, q } => {
            let [a, b, c] =
                [*files.read(s[0], mask)?, *files.read(s[1], mask)?, *files.read(s[2], mask)?];
            let v: [u64; 32] = std::array::from_fn(|l| integer::lop3(*table, [a[l], b[l], c[l]]));
            let some = (0..32).fold(0, |m, l| m | u32::from(v[l] != 0) << l);
            let q = files.pred(q.0, mask)? ^ if q.1 { u32::MAX } else { 0 };
            files.set_pred(*p, mask, combine(*op, some, q));
            if let Some(d) = d {
                files.store(*d, mask, &v);
            }
        }
        Op::Set { cmp, ty, bits, yes, d, a, b, and } => {
            integer::set(files, *cmp, *ty, *bits, *yes, [*d, *a, *b], *and, mask)?
        }
        Op::Testp { test, double, p, a } => integer::testp(files, *test, *double, *p, *a, mask)?,
        Op::Isspacep { space, p, a } => integer::isspacep(files, *space, *p, *a, mask)?,
        Op::Movmatrix { d, a } => matrix::movmatrix(files, *d, *a)?,
        Op::MovPred { d, a, negate } => {
            let a = files.pred(*a, mask)?;
            files.set_pred(*d, mask, if *negate { !a } else { a });
        }
        Op::SetPred { d, value } => files.set_pred(*d, mask, if *value { u32::MAX } else { 0 }),
        Op::LogicPred { op, d, a, b } => {
            let read = |(p, negate): (u16, bool)| -> Res<u32> {
                Ok(files.pred(p, mask)? ^ if negate { u32::MAX } else { 0 })
            };
            let value = combine(*op, read(*a)?, read(*b)?);
            files.set_pred(*d, mask, value);
        }
        Op::Selp { d, a, b, p } => {
            let p = files.pred(*p, mask)?;
            let (a, b) = (*files.read(*a, mask)?, *files.read(*b, mask)?);
            let v = std::array::from_fn(|l| if p >> l & 1 == 1 { a[l] } else { b[l] });
            files.store(*d, mask, &v);
        }
        Op::Slct { float, ftz, d, a, b, c } => {
            int::slct(files, *float, *ftz, [*d, *a, *b, *c], mask)?
        }
        Op::Clock { d, bits, high } => {
            let now =
                (reach.env.ticks >> if *high { 32 } else { 0 }) & crate::isa::types::mask(*bits);
            files.store(*d, mask, &[now; 32]);
        }
        Op::Float { op, flags, d, s, n } => {
            float::arithmetic(files, reach.env, *op, flags, *d, &s[..*n as usize], mask)?
        }
        Op::Cvt { kind, d, a, extend } => float::cvt(files, *kind, *d, *a, *extend, mask)?,
        Op::CvtPair { to, round, relu, satfinite, d, a, b } => {
            float::cvt_pair(files, (*to, *round), *relu, *satfinite, [*d, *a, *b], mask)?
        }
        Op::CvtFp8 { fp8, relu, d, a, b } => {
            float::cvt_fp8(files, *fp8, *relu, [*d, *a, *b], mask)?
        }
        Op::Load(load) => memory::load(warp, reach, load, mask)?,
        Op::Store(store) => memory::store(warp, reach, store, mask)?,
        Op::Atom(atom) => memory::atom(warp, reach, atom, mask)?,
        Op::Fence { scope, sc } => {
            let strength = memory::strength(*scope);
            for lane in crate::lanes::lanes(mask) {
                warp.clock.fence(lane as u8, strength, *sc && strength == GPU);
            }
        }
        Op::Cvta { d, a, space, to_space } => memory::cvta(files, *d, *a, *space, *to_space, mask)?,
        Op::Prefetch => {}
        Op::CpAsync(c) => copy::issue(warp, reach, c, mask)?,
        Op::CpCommit => copy::commit(warp, reach, mask),
        Op::CpWait { left } => copy::wait(warp, reach, *left, mask),
        Op::Ldmatrix { addr, transpose, d } => matrix::ldmatrix(warp, reach, addr, *transpose, d)?,
        Op::Mma(m) => matrix::mma(files, reach, m)?,
        Op::NarrowMma(m) => narrow::mma(files, reach, m)?,
        Op::Shfl { mode, d, p, a, b, c, members } => {
            group::shfl(files, *mode, (*d, *p), [*a, *b, *c], *members, lanes)?
        }
        Op::Vote { mode, d, a, negate, members } => {
            group::vote(files, *mode, *d, (*a, *negate), *members, lanes)?
        }
        Op::Redux { op, signed, d, a, members } => {
            group::redux(files, *op, *signed, *d, *a, *members, lanes)?
        }
        Op::Match { any, d, p, a, members } => {
            group::matching(files, *any, (*d, *p), *a, *members, lanes)?
        }
        Op::Activemask { d } => files.store(*d, mask, &[u64::from(mask); 32]),
        Op::WarpSync { members } => group::warp_sync(warp, *members, lanes)?,
        Op::Bar { kind, aligned, id, count, d, p } => {
            return super::barrier::arrive(warp, *kind, *aligned, *id, *count, *d, *p, mask)
                .map(Flow::Barrier);
        }
        Op::Hopper(op) => return super::hopper::operate(warp, reach, op, mask),
        Op::Nanosleep => return Ok(Flow::Yield),
        Op::Trap => return trouble(FaultKind::Trap, mask, "trap"),
        // Handled before the mask was known to be whole.
        Op::Bra { .. } | Op::BraTable { .. } | Op::Exit => {}
    }
    Ok(Flow::Next)
}

pub(super) fn combine(op: Logic, a: u32, b: u32) -> u32 {
    match op {
        Logic::And => a & b,
        Logic::Or => a | b,
        Logic::Xor => a ^ b,
    }
}

//! Shuffles, votes and reductions among the lanes of a member mask, and `bar.warp.sync`.

use super::trouble::{Res, trouble};
use super::warp::{Files, Warp};
use crate::isa::inst::{PSlot, ReduxOp, ShflMode, Slot, VoteMode};
use crate::lanes::lanes;
use crate::report::FaultKind;

/// The lanes that run: those that do it now, and all that have not exited.
#[derive(Clone, Copy)]
pub(super) struct Lanes {
    pub(super) mask: u32,
    pub(super) live: u32,
}

/// The members of each lane's group, checked: a lane is a member of its own mask, and all members that
/// have not exited run the instruction with the same mask. Exited ones drop out, as the ISA has it.
pub(super) fn members(files: &Files, slot: Slot, at: Lanes) -> Res<[u32; 32]> {
    let mask = at.mask;
    let m = files.read(slot, mask)?.map(|x| x as u32);
    for lane in lanes(mask) {
        if m[lane] >> lane & 1 == 0 {
            let message = format!("lane {lane} is not in its own member mask {:#010x}", m[lane]);
            return trouble(FaultKind::PartialWarp, 1 << lane, message);
        }
        let missing = m[lane] & !mask & at.live;
        if missing != 0 {
            let message =
                format!("members {missing:#010x} of mask {:#010x} do not take part", m[lane]);
            return trouble(FaultKind::PartialWarp, 1 << lane, message);
        }
        if let Some(other) = lanes(m[lane] & mask).find(|&o| m[o] != m[lane]) {
            let message = format!("lanes {lane} and {other} name different members");
            return trouble(FaultKind::PartialWarp, 1 << lane | 1 << other, message);
        }
    }
    Ok(m.map(|m| m & mask))
}

/// `d`: value and predicate; `s`: value, lane operand, clamp and segment.
pub(super) fn shfl(
    files: &mut Files,
    mode: ShflMode,
    (d, p): (Slot, Option<PSlot>),
    s: [Slot; 3],
    member: Slot,
    at: Lanes,
) -> Res<()> {
    let (members, mask) = (members(files, member, at)?, at.mask);
    let (a, b, c) = (*files.read(s[0], mask)?, *files.read(s[1], mask)?, *files.read(s[2], mask)?);
    let (mut out, mut inside) = ([0; 32], 0);
    for lane in lanes(mask) {
        let (here, bval) = (lane as i32, (b[lane] & 31) as i32);
        let (clamp, segment) = ((c[lane] & 31) as i32, (c[lane] >> 8 & 31) as i32);
        let max = here & segment | clamp & !segment;
        let min = here & segment;
        let (from, ok) = match mode {
            ShflMode::Up => (here - bval, here - bval >= max),
            ShflMode::Down => (here + bval, here + bval <= max),
            ShflMode::Bfly => (here ^ bval, here ^ bval <= max),
            ShflMode::Idx => (min | bval & !segment, min | bval & !segment <= max),
        };
        let from = if ok { from } else { here } as usize;
        if members[lane] >> (from & 31) & 1 == 0 {
            let message =
                format!("lane {lane} reads from lane {from}, which is no member or has exited");
            return trouble(FaultKind::PartialWarp, 1 << lane, message);
        }
        out[lane] = a[from & 31];
        inside |= u32::from(ok) << lane;
    }
    files.store(d, mask, &out);
    if let Some(p) = p {
        files.set_pred(p, mask, inside);
    }
    Ok(())
}

pub(super) fn vote(
    files: &mut Files,
    mode: VoteMode,
    d: u16,
    (a, negate): (PSlot, bool),
    member: Slot,
    at: Lanes,
) -> Res<()> {
    let (members, mask) = (members(files, member, at)?, at.mask);
    let p = files.pred(a, mask)? ^ if negate { u32::MAX } else { 0 };
    let yes = |lane: usize| {
        let (m, v) = (members[lane], p & members[lane]);
        match mode {
            VoteMode::All => v == m,
            VoteMode::Any => v != 0,
            _ => v == m || v == 0,
        }
    };
    if mode == VoteMode::Ballot {
        let v = std::array::from_fn(|l| u64::from(p & members[l]));
        files.store(d, mask, &v);
    } else {
        let v = lanes(mask).fold(0, |v, l| v | u32::from(yes(l)) << l);
        files.set_pred(d, mask, v);
    }
    Ok(())
}

pub(super) fn redux(
    files: &mut Files,
    op: ReduxOp,
    signed: bool,
    d: Slot,
    a: Slot,
    member: Slot,
    at: Lanes,
) -> Res<()> {
    let (members, mask) = (members(files, member, at)?, at.mask);
    let a = *files.read(a, mask)?;
    let mut out = [0; 32];
    for lane in lanes(mask) {
        let values = lanes(members[lane]).map(|l| a[l] as u32);
        let fold = |f: fn(u32, u32) -> u32| values.reduce(f).unwrap_or(0);
        out[lane] = u64::from(match op {
            ReduxOp::Add => fold(u32::wrapping_add),
            ReduxOp::Min if signed => fold(|x, y| (x as i32).min(y as i32) as u32),
            ReduxOp::Max if signed => fold(|x, y| (x as i32).max(y as i32) as u32),
            ReduxOp::Min => fold(u32::min),
            ReduxOp::Max => fold(u32::max),
            ReduxOp::And => fold(|x, y| x & y),
            ReduxOp::Or => fold(|x, y| x | y),
            ReduxOp::Xor => fold(|x, y| x ^ y),
        });
    }
    files.store(d, mask, &out);
    Ok(())
}

pub(super) fn matching(
    files: &mut Files,
    any: bool,
    (d, p): (Slot, Option<PSlot>),
    a: Slot,
    member: Slot,
    at: Lanes,
) -> Res<()> {
    let (members, mask) = (members(files, member, at)?, at.mask);
    let a = *files.read(a, mask)?;
    let (mut out, mut all) = ([0; 32], 0);
    for lane in lanes(mask) {
        let same = lanes(members[lane]).filter(|&l| a[l] == a[lane]).fold(0, |m, l| m | 1u32 << l);
        let whole = same == members[lane];
        out[lane] = u64::from(if any || whole { same } else { 0 });
        all |= u32::from(whole) << lane;
    }
    files.store(d, mask, &out);
    if let Some(p) = p {
        files.set_pred(p, mask, all);
    }
    Ok(())
}

/// Orders memory among the members; shuffles and votes do not.
pub(super) fn warp_sync(warp: &mut Warp, member: Slot, at: Lanes) -> Res<()> {
    let members = members(&warp.files, member, at)?;
    let mut left = at.mask;
    while left != 0 {
        let group = members[left.trailing_zeros() as usize];
        if group == at.live {
            warp.clock.meet();
        } else {
            warp.clock.meet_some(group);
        }
        left &= !group;
    }
    Ok(())
}

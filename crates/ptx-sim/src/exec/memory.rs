//! Loads, stores, atomics. Every lane's access goes through [`Reach::bytes`].

use super::access::{refuse, resolve};
use super::atomic::apply;
use super::env::Reach;
use super::trouble::{Res, trouble};
use super::warp::{Files, Warp};

use crate::check::clock::{CLUSTER, CTA, GPU, MARK_ALIKE, MARK_NC, Stamp};
use crate::check::region::{Checks, Mode, Refusal, Region};
use crate::isa::inst::{Addr, Atom, Load, Scope, Sem, Slot, Space, Store};
use crate::isa::types::mask as ones;
use crate::lanes::lanes;
use crate::mem::{CONST_WINDOW, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, SMALL_BASE};
use crate::report::FaultKind;

/// Strength of a scope in a stamp.
pub(super) fn strength(scope: Scope) -> u32 {
    match scope {
        Scope::Cta => CTA,
        Scope::Cluster => CLUSTER,
        Scope::Gpu | Scope::Sys => GPU,
    }
}

/// Strength, acquires, releases.
fn order(sem: Sem) -> (u32, bool, bool) {
    match sem {
        Sem::Weak | Sem::NonCoherent => (0, false, false),
        Sem::Relaxed(s) => (strength(s), false, false),
        Sem::Acquire(s) => (strength(s), true, false),
        Sem::Release(s) => (strength(s), false, true),
        Sem::AcqRel(s) => (strength(s), true, true),
    }
}

fn addresses(files: &Files, addr: &Addr, mask: u32) -> Res<[u64; 32]> {
    Ok(files.read(addr.base, mask)?.map(|x| x.wrapping_add_signed(addr.offset)))
}

/// The bytes of `range` of the parameters or of the constants.
fn constant<'b>(bytes: &'b [u8], what: &str, at: u64, size: u32, lane: usize) -> Res<&'b [u8]> {
    let range = at as usize..(at as usize).saturating_add(size as usize);
    match bytes.get(range) {
        Some(_) if !at.is_multiple_of(u64::from(size)) => {
            trouble(FaultKind::Misaligned, 1 << lane, format!("{what} byte {at} is not aligned"))
        }
        Some(bytes) => Ok(bytes),
        None => {
            let message =
                format!("{what} byte {} leaves the {} that there are", at as i64, bytes.len());
            trouble(FaultKind::OutOfBounds, 1 << lane, message)
        }
    }
}

/// The checked bytes of a lane's own memory.
fn own(
    local: &mut Region,
    (per_lane, stride): (u64, u64),
    address: u64,
    size: u32,
    mode: Mode,
    checks: Checks,
    lane: usize,
) -> Res<&mut [u8]> {
    let at = address.wrapping_sub(SMALL_BASE);
    if at >= per_lane || per_lane - at < u64::from(size) {
        let refusal = Refusal::Bounds(per_lane);
        return Err(refuse(refusal, Space::Local, address, at, size, mode, 1 << lane));
    }
    local
        .private(lane as u64 * stride + at, size, size, mode, checks)
        .map_err(|r| refuse(r, Space::Local, address, at, size, mode, 1 << lane))
}

fn element(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

/// Memory that other threads reach too.
fn common(space: Space) -> bool {
    matches!(space, Space::Global | Space::Shared | Space::Cluster)
}

pub(super) fn load(warp: &mut Warp, r: &mut Reach<'_, '_>, l: &Load, mask: u32) -> Res<()> {
    let at = addresses(&warp.files, &l.addr, mask)?;
    let total = l.size * l.d.len() as u32;
    let (strong, acquire, _) = order(l.sem);
    let nc = if l.sem == Sem::NonCoherent { MARK_NC } else { 0 };
    let packed = Stamp::pack(r.pc, strong) | nc;
    let mut out = [[0; 32]; 8];
    let mut space_seen = l.addr.space;
    for lane in lanes(mask) {
        let (space, address) = resolve(l.addr.space, at[lane]);
        space_seen = space;
        let bytes = match space {
            Space::Param => constant(r.env.params, "parameter", address, total, lane)?,
            Space::Const => {
                let at = address.wrapping_sub(SMALL_BASE);
                constant(&r.env.kernel.consts, "constant", at, total, lane)?
            }
            Space::Local => {
                let (sizes, checks) = (r.env.kernel.local_sizes(), r.env.checks);
                own(&mut warp.local, sizes, address, total, Mode::Read, checks, lane)?
            }
            _ => {
                let who = r.who(warp, lane, packed);
                r.bytes(space, address, (total, total), Mode::Read, &who)?
            }
        };
        for (i, out) in out.iter_mut().take(l.d.len()).enumerate() {
            let size = l.size as usize;
            let v = element(&bytes[i * size..(i + 1) * size]);
            out[lane] = match l.sign {
                Some(bits) => super::int::sign_extend(v, l.size * 8) as u64 & ones(bits),
                None => v,
            };
        }
        if strong > 0 && !r.env.sync.is_empty() && common(space) {
            let (key, by) = r.flag(warp, space, address, strong);
            r.env.sync.read(key, by, acquire, &mut warp.clock, lane as u8);
        }
    }
    for (values, slot) in out.iter().zip(&l.d) {
        if let Some(slot) = slot {
            warp.files.store(*slot, mask, values);
        }
    }
    if common(space_seen) {
        r.count(space_seen, &at, mask, total);
    }
    Ok(())
}

/// Lanes that store the same to one place at once, of which it does not matter who comes last: they
/// leave one stamp together. `None`: every lane has a place of its own.
fn alike(at: &[u64; 32], values: &[[u64; 32]], mask: u32) -> Option<[u32; 32]> {
    let mut last = None;
    if lanes(mask).all(|lane| last.replace(at[lane]).is_none_or(|before| before < at[lane])) {
        return None;
    }
    let mut out = [0; 32];
    for lane in lanes(mask) {
        let same =
            |&other: &usize| at[other] == at[lane] && values.iter().all(|v| v[other] == v[lane]);
        out[lane] = lanes(mask).filter(same).fold(0, |m, other| m | 1 << other);
    }
    Some(out)
}

pub(super) fn store(warp: &mut Warp, r: &mut Reach<'_, '_>, s: &Store, mask: u32) -> Res<()> {
    let at = addresses(&warp.files, &s.addr, mask)?;
    let total = s.size * s.s.len() as u32;
    let (strong, _, release) = order(s.sem);
    let packed = Stamp::pack(r.pc, strong);
    let mut values = [[0; 32]; 8];
    for (v, &slot) in values.iter_mut().zip(&s.s) {
        *v = *warp.files.read(slot, mask)?;
    }
    let mut space_seen = s.addr.space;
    let alike = alike(&at, &values[..s.s.len()], mask);
    for lane in lanes(mask) {
        let (space, address) = resolve(s.addr.space, at[lane]);
        space_seen = space;
        let bytes = match space {
            Space::Const | Space::Param => {
                let message = format!("{address:#x} lies among the constants or parameters");
                return trouble(FaultKind::OutOfBounds, 1 << lane, message);
            }
            Space::Local => {
                let (sizes, checks) = (r.env.kernel.local_sizes(), r.env.checks);
                own(&mut warp.local, sizes, address, total, Mode::Write, checks, lane)?
            }
            _ => {
                let mut who = r.who(warp, lane, packed);
                if let Some(alike) = alike.as_ref().map(|a| a[lane]).filter(|a| *a != 1 << lane) {
                    (who.stamp.lanes, who.stamp.packed) = (alike, packed | MARK_ALIKE);
                }
                r.bytes(space, address, (total, total), Mode::Write, &who)?
            }
        };
        let mut changed = false;
        for (part, v) in bytes.chunks_exact_mut(s.size as usize).zip(&values) {
            let new = &v[lane].to_le_bytes()[..part.len()];
            changed |= part != new;
            part.copy_from_slice(new);
        }
        r.env.progress += u64::from(changed);
        if (strong > 0 || !r.env.sync.is_empty()) && common(space) {
            let (key, by) = r.flag(warp, space, address, strong);
            if strong == 0 {
                r.env.sync.forget(key);
            } else {
                r.env.sync.write(key, by, release, false, &mut warp.clock, lane as u8);
            }
        }
    }
    if common(space_seen) {
        r.count(space_seen, &at, mask, total);
    }
    Ok(())
}

pub(super) fn atom(warp: &mut Warp, r: &mut Reach<'_, '_>, a: &Atom, mask: u32) -> Res<()> {
    let at = addresses(&warp.files, &a.addr, mask)?;
    let bits = a.ty.bits();
    let (size, total) = (bits / 8, bits / 8 * a.a.len() as u32);
    let mut x = [[0; 32]; 4];
    for (x, &slot) in x.iter_mut().zip(&a.a) {
        *x = *warp.files.read(slot, mask)?;
    }
    let y = match a.b {
        Some(b) => *warp.files.read(b, mask)?,
        None => [0; 32],
    };
    let (strong, acquire, release) = order(a.sem);
    let packed = Stamp::pack(r.pc, strong);
    let mut out = [[0; 32]; 4];
    let mut space_seen = a.addr.space;
    // Lanes one after the other: an order the hardware may choose.
    for lane in lanes(mask) {
        let (space, address) = resolve(a.addr.space, at[lane]);
        space_seen = space;
        if !common(space) {
            let message = format!("{:#x}: atomics are for global and shared memory", at[lane]);
            return trouble(FaultKind::OutOfBounds, 1 << lane, message);
        }
        let who = r.who(warp, lane, packed);
        let bytes = r.bytes(space, address, (total, total), Mode::Atomic, &who)?;
        let mut changed = false;
        for (i, part) in bytes.chunks_exact_mut(size as usize).enumerate() {
            let old = element(part);
            let new = apply(a.op, a.ty, space, old, x[i][lane], y[lane]);
            part.copy_from_slice(&new.to_le_bytes()[..size as usize]);
            out[i][lane] = old;
            changed |= old != new;
        }
        r.env.progress += u64::from(changed);
        let (key, by) = r.flag(warp, space, address, strong);
        r.env.sync.read(key, by, acquire, &mut warp.clock, lane as u8);
        r.env.sync.write(key, by, release, true, &mut warp.clock, lane as u8);
    }
    for (values, slot) in out.iter().zip(&a.d) {
        if let Some(slot) = slot {
            warp.files.store(*slot, mask, values);
        }
    }
    r.count(space_seen, &at, mask, total);
    Ok(())
}

pub(super) fn cvta(
    files: &mut Files,
    d: Slot,
    a: Slot,
    space: Space,
    to_space: bool,
    mask: u32,
) -> Res<()> {
    let a = *files.read(a, mask)?;
    let window = match space {
        Space::Shared | Space::Cluster => SHARED_WINDOW,
        Space::Param => PARAM_WINDOW,
        Space::Local => LOCAL_WINDOW,
        Space::Const => CONST_WINDOW,
        _ => 0,
    };
    let v = a.map(|x| if to_space { x.wrapping_sub(window) } else { x.wrapping_add(window) });
    files.store(d, mask, &v);
    Ok(())
}

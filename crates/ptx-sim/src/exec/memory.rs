//! Loads, stores, atomics. Every lane's access goes through [`reach`].

use super::sync::Strong;
use super::trouble::{Res, Trouble, trouble};
use super::warp::{Files, Warp};
use super::{Reach, lanes};
use crate::check::clock::{MARK_NC, Stamp};
use crate::check::region::{Checks, Mode, Refusal, Region};
use crate::check::shadow::{Clash, Who};
use crate::isa::inst::{
    Addr, Atom, AtomOp, AtomTy, FloatFlags, FloatOp, Load, Round, Scope, Sem, Slot, Space, Store,
};
use crate::isa::types::mask as ones;
use crate::mem::{Memory, OFFSET_BITS, SHARED_BASE, SHARED_WINDOW, split};
use crate::report::FaultKind;

/// Strength of a scope in a stamp.
pub(super) fn strength(scope: Scope) -> u32 {
    if scope == Scope::Cta { 1 } else { 2 }
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

/// A generic address as the space it lies in.
#[inline]
pub(super) fn resolve(space: Space, address: u64) -> (Space, u64) {
    match space {
        Space::Generic if address >> 32 == SHARED_WINDOW >> 32 => {
            (Space::Shared, address - SHARED_WINDOW)
        }
        Space::Generic => (Space::Global, address),
        _ => (space, address),
    }
}

/// The checked bytes at `address` of global or shared memory.
#[inline]
#[allow(clippy::too_many_arguments)]
pub(super) fn reach<'m>(
    memory: &'m mut Memory,
    shared: &'m mut Region,
    space: Space,
    address: u64,
    (size, align): (u32, u32),
    mode: Mode,
    checks: Checks,
    who: &Who<'_>,
) -> Res<&'m mut [u8]> {
    let lanes = who.stamp.lanes;
    let (found, at) = match space {
        Space::Shared => (Some(shared), address.wrapping_sub(SHARED_BASE)),
        _ => {
            let (index, at) = split(address);
            (memory.region(index), at)
        }
    };
    let Some(region) = found else {
        return trouble(
            FaultKind::OutOfBounds,
            lanes,
            format!("{address:#x} lies in no live allocation"),
        );
    };
    region
        .access(at, size, align, mode, checks, who)
        .map_err(|r| refuse(r, space, address, at, size, mode, lanes))
}

#[cold]
fn refuse(
    refusal: Refusal,
    space: Space,
    address: u64,
    at: u64,
    size: u32,
    mode: Mode,
    lanes: u32,
) -> Box<Trouble> {
    let place = match space {
        Space::Shared => format!("shared address {address:#x} (byte {})", at as i64),
        _ => format!(
            "global address {address:#x} (allocation {}, byte {at})",
            address >> OFFSET_BITS
        ),
    };
    let verb = match mode {
        Mode::Read => "read",
        Mode::Write => "write",
        Mode::Atomic => "atomic",
    };
    let mut other = None;
    let (kind, message) = match refusal {
        Refusal::Bounds(len) => (
            FaultKind::OutOfBounds,
            format!("{verb} of {size} bytes at {place} leaves its {len} bytes"),
        ),
        Refusal::Misaligned => {
            (FaultKind::Misaligned, format!("{verb} of {size} bytes at {place} is not aligned"))
        }
        Refusal::Uninitialised(byte) => (
            FaultKind::UninitialisedMemory,
            format!("{verb} of {size} bytes at {place}: byte {byte} was never written"),
        ),
        Refusal::Clash(Clash::Race(stamp, write)) => {
            other = Some((stamp, write));
            (FaultKind::Race, format!("{verb} of {size} bytes at {place} races"))
        }
        Refusal::Clash(Clash::NonCoherent(stamp, write)) => {
            other = Some((stamp, write));
            let what = if write { "was written" } else { "was read through .nc" };
            (
                FaultKind::NonCoherent,
                format!("{verb} of {size} bytes at {place}, which {what} in this launch"),
            )
        }
    };
    Box::new(Trouble { kind, message, lanes, other })
}

impl Reach<'_, '_> {
    pub(super) fn who<'w>(&self, warp: &'w Warp, lane: usize, packed: u32) -> Who<'w> {
        let stamp =
            Stamp { agent: warp.clock.agent, epoch: warp.clock.epoch, lanes: 1 << lane, packed };
        Who { clock: &warp.clock, lane: lane as u8, stamp }
    }

    /// Names the CTA among all CTAs of all launches.
    fn cta(&self, warp: &Warp) -> u32 {
        warp.clock.cta()
    }

    /// Names a location for the flags' table; shared addresses are told apart by CTA.
    fn key(&self, space: Space, address: u64, cta: u32) -> u64 {
        if space == Space::Shared { 1 << 63 | u64::from(cta) << 32 | address } else { address }
    }

    /// Addresses of the lanes, all in one space, for counting.
    fn count(&mut self, space: Space, addresses: &[u64; 32], mask: u32, size: u32) {
        match space {
            Space::Shared => self.env.counters.shared(self.pc, addresses, mask, size),
            _ => {
                let touched = &mut *self.env.touched;
                self.env.counters.global(self.pc, addresses, mask, size, |s| touched.first(s));
            }
        }
    }
}

fn addresses(files: &Files, addr: &Addr, mask: u32) -> Res<[u64; 32]> {
    Ok(files.read(addr.base, mask)?.map(|x| x.wrapping_add_signed(addr.offset)))
}

fn element(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

pub(super) fn load(warp: &mut Warp, r: &mut Reach<'_, '_>, l: &Load, mask: u32) -> Res<()> {
    let at = addresses(&warp.files, &l.addr, mask)?;
    let total = l.size * l.d.len() as u32;
    let (strong, acquire, _) = order(l.sem);
    let nc = if l.sem == Sem::NonCoherent { MARK_NC } else { 0 };
    let packed = Stamp::pack(r.pc, strong) | nc;
    let mut out = [[0; 32]; 4];
    let mut space_seen = l.addr.space;
    for lane in lanes(mask) {
        let (space, address) = resolve(l.addr.space, at[lane]);
        space_seen = space;
        let who = r.who(warp, lane, packed);
        let bytes = if space == Space::Param {
            let range = address as usize..(address as usize).saturating_add(total as usize);
            match r.env.params.get(range) {
                Some(_) if address % u64::from(total) != 0 => {
                    return trouble(
                        FaultKind::Misaligned,
                        1 << lane,
                        format!("parameter byte {address} is not aligned"),
                    );
                }
                Some(bytes) => bytes,
                None => {
                    let message =
                        format!("parameter byte {} leaves the parameters", address as i64);
                    return trouble(FaultKind::OutOfBounds, 1 << lane, message);
                }
            }
        } else {
            reach(
                r.env.memory,
                r.shared,
                space,
                address,
                (total, total),
                Mode::Read,
                r.env.checks,
                &who,
            )?
        };
        for (i, out) in out.iter_mut().take(l.d.len()).enumerate() {
            let size = l.size as usize;
            let v = element(&bytes[i * size..(i + 1) * size]);
            out[lane] = match l.sign {
                Some(bits) => super::int::sign_extend(v, l.size * 8) as u64 & ones(bits),
                None => v,
            };
        }
        if strong > 0 && !r.env.sync.is_empty() {
            let cta = r.cta(warp);
            let key = r.key(space, address, cta);
            r.env.sync.read(
                key,
                Strong { strength: strong, cta },
                acquire,
                &mut warp.clock,
                lane as u8,
            );
        }
    }
    for (values, slot) in out.iter().zip(&l.d) {
        if let Some(slot) = slot {
            warp.files.store(*slot, mask, values);
        }
    }
    if space_seen != Space::Param {
        r.count(space_seen, &at, mask, total);
    }
    Ok(())
}

pub(super) fn store(warp: &mut Warp, r: &mut Reach<'_, '_>, s: &Store, mask: u32) -> Res<()> {
    let at = addresses(&warp.files, &s.addr, mask)?;
    let total = s.size * s.s.len() as u32;
    let (strong, _, release) = order(s.sem);
    let packed = Stamp::pack(r.pc, strong);
    let mut values = [[0; 32]; 4];
    for (v, &slot) in values.iter_mut().zip(&s.s) {
        *v = *warp.files.read(slot, mask)?;
    }
    let mut space_seen = s.addr.space;
    for lane in lanes(mask) {
        let (space, address) = resolve(s.addr.space, at[lane]);
        space_seen = space;
        let who = r.who(warp, lane, packed);
        let bytes = reach(
            r.env.memory,
            r.shared,
            space,
            address,
            (total, total),
            Mode::Write,
            r.env.checks,
            &who,
        )?;
        let mut changed = false;
        for (part, v) in bytes.chunks_exact_mut(s.size as usize).zip(&values) {
            let new = &v[lane].to_le_bytes()[..part.len()];
            changed |= part != new;
            part.copy_from_slice(new);
        }
        r.env.progress += u64::from(changed);
        if strong > 0 || !r.env.sync.is_empty() {
            let cta = r.cta(warp);
            let key = r.key(space, address, cta);
            if strong == 0 {
                r.env.sync.forget(key);
            } else {
                r.env.sync.write(
                    key,
                    Strong { strength: strong, cta },
                    release,
                    false,
                    &mut warp.clock,
                    lane as u8,
                );
            }
        }
    }
    r.count(space_seen, &at, mask, total);
    Ok(())
}

pub(super) fn atom(warp: &mut Warp, r: &mut Reach<'_, '_>, a: &Atom, mask: u32) -> Res<()> {
    let at = addresses(&warp.files, &a.addr, mask)?;
    let bits = match a.ty {
        AtomTy::Bits(b) | AtomTy::Unsigned(b) | AtomTy::Signed(b) => b,
        AtomTy::F32 => 32,
    };
    let size = bits / 8;
    let x = *warp.files.read(a.a, mask)?;
    let y = match a.b {
        Some(b) => *warp.files.read(b, mask)?,
        None => [0; 32],
    };
    let (strong, acquire, release) = order(a.sem);
    let packed = Stamp::pack(r.pc, strong);
    let mut out = [0; 32];
    // Lanes one after the other: an order the hardware may choose.
    for lane in lanes(mask) {
        let (space, address) = resolve(a.addr.space, at[lane]);
        let who = r.who(warp, lane, packed);
        let bytes = reach(
            r.env.memory,
            r.shared,
            space,
            address,
            (size, size),
            Mode::Atomic,
            r.env.checks,
            &who,
        )?;
        let old = element(bytes);
        let new = apply(a.op, a.ty, bits, old, x[lane], y[lane]);
        bytes.copy_from_slice(&new.to_le_bytes()[..size as usize]);
        out[lane] = old;
        r.env.progress += u64::from(old != new);
        let cta = r.cta(warp);
        let key = r.key(space, address, cta);
        r.env.sync.read(
            key,
            Strong { strength: strong, cta },
            acquire,
            &mut warp.clock,
            lane as u8,
        );
        r.env.sync.write(
            key,
            Strong { strength: strong, cta },
            release,
            true,
            &mut warp.clock,
            lane as u8,
        );
    }
    if let Some(d) = a.d {
        warp.files.store(d, mask, &out);
    }
    Ok(())
}

fn apply(op: AtomOp, ty: AtomTy, bits: u32, old: u64, x: u64, y: u64) -> u64 {
    let m = ones(bits);
    let signed = matches!(ty, AtomTy::Signed(_));
    let less = if signed {
        super::int::sign_extend(x, bits) < super::int::sign_extend(old, bits)
    } else {
        x < old
    };
    match op {
        AtomOp::Add if ty == AtomTy::F32 => {
            let float = crate::isa::inst::Float::F32;
            let round = Round::Nearest;
            let flags = FloatFlags {
                float,
                packed: false,
                round,
                ftz: false,
                sat: false,
                relu: false,
                approx: false,
            };
            crate::num::float::scalar(FloatOp::Add, &flags, [old, x, 0])
        }
        AtomOp::Add => old.wrapping_add(x) & m,
        AtomOp::Min => {
            if less {
                x
            } else {
                old
            }
        }
        AtomOp::Max => {
            if less {
                old
            } else {
                x
            }
        }
        AtomOp::And => old & x,
        AtomOp::Or => old | x,
        AtomOp::Xor => old ^ x,
        AtomOp::Inc => {
            if old >= x {
                0
            } else {
                old + 1
            }
        }
        AtomOp::Dec => {
            if old == 0 || old > x {
                x
            } else {
                old - 1
            }
        }
        AtomOp::Exch => x,
        AtomOp::Cas => {
            if old == x {
                y
            } else {
                old
            }
        }
    }
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
    let v = match (space, to_space) {
        (Space::Shared, false) => a.map(|x| x.wrapping_add(SHARED_WINDOW)),
        (Space::Shared, true) => a.map(|x| x.wrapping_sub(SHARED_WINDOW)),
        _ => a,
    };
    files.store(d, mask, &v);
    Ok(())
}

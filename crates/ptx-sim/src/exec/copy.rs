//! `cp.async`: checked when issued, in the name of the warp's copy queue; the bytes land early,
//! late or at random. Their stamp is the group's future number, so touching them before the wait
//! is a race whatever the timing.

use super::env::Reach;
use super::trouble::{Res, trouble};
use super::warp::{Copy, Warp};
use crate::check::clock::Stamp;
use crate::check::region::Mode;
use crate::isa::inst::{CpAsync, Space};
use crate::lanes::lanes;
use crate::mem::{SHARED_BASE, split};
use crate::options::CopyTiming;
use crate::report::FaultKind;

pub(super) fn issue(warp: &mut Warp, r: &mut Reach<'_, '_>, c: &CpAsync, mask: u32) -> Res<()> {
    let dst = *warp.files.read(c.dst.base, mask)?;
    let src = *warp.files.read(c.src.base, mask)?;
    let sizes = match c.src_size {
        Some(slot) => *warp.files.read(slot, mask)?,
        None => [u64::from(c.size); 32],
    };
    let ignored = match c.ignore {
        Some((p, negate)) => warp.files.pred(p, mask)? ^ if negate { u32::MAX } else { 0 },
        None => 0,
    };
    let packed = Stamp::pack(r.pc, 0);
    let (mut to, mut from) = ([0; 32], [0; 32]);
    let mut read_mask = 0;
    for lane in lanes(mask) {
        to[lane] = dst[lane].wrapping_add_signed(c.dst.offset);
        from[lane] = src[lane].wrapping_add_signed(c.src.offset);
        let read = if ignored >> lane & 1 == 1 { 0 } else { sizes[lane] };
        if read > u64::from(c.size) {
            let message = format!("src-size {read} is above cp-size {}", c.size);
            return trouble(FaultKind::AsyncCopy, 1 << lane, message);
        }
        let group = warp.clock.committed[lane] + 1;
        let mut who = r.who(warp, lane, packed);
        who.stamp.agent += 1;
        who.stamp.epoch = group;
        let (region, at) = split(from[lane]);
        if read > 0 {
            read_mask |= 1 << lane;
            let source = r.bytes(Space::Global, from[lane], (read as u32, 1), Mode::Read, &who);
            source?;
        }
        // The alignment is cp-size's, however little is read.
        if from[lane] % u64::from(c.size) != 0 {
            let message = format!("source {:#x} is not aligned to {} bytes", from[lane], c.size);
            return trouble(FaultKind::Misaligned, 1 << lane, message);
        }
        r.bytes(Space::Shared, to[lane], (c.size, c.size), Mode::Write, &who)?;
        let copy = Copy {
            lane: lane as u8,
            group,
            to: (to[lane] - SHARED_BASE) as u32,
            region: region as u32,
            from: at,
            size: c.size as u8,
            read: read as u8,
        };
        let now = match r.env.options.copies {
            CopyTiming::Early => true,
            CopyTiming::Late => false,
            CopyTiming::Random => r.env.draw() & 1 == 1,
        };
        if now {
            land(r, &copy);
        } else {
            warp.copies.push(copy);
        }
    }
    r.env.counters.shared(r.pc, &to, mask, c.size);
    let touched = &mut *r.env.touched;
    r.env.counters.global(r.pc, &from, read_mask, c.size, |sector| touched.first(sector));
    Ok(())
}

/// Moves the bytes; both sides were checked at issue.
fn land(r: &mut Reach<'_, '_>, c: &Copy) {
    let mut bytes = [0; 16];
    let read = usize::from(c.read);
    if read > 0
        && let Some(region) = r.env.memory.region(c.region as usize)
    {
        bytes[..read].copy_from_slice(region.landed(c.from as usize, read));
    }
    let size = usize::from(c.size);
    r.banks[r.rank].shared.landed(c.to as usize, size).copy_from_slice(&bytes[..size]);
    r.env.progress += 1;
}

pub(super) fn commit(warp: &mut Warp, r: &mut Reach<'_, '_>, mask: u32) {
    for lane in lanes(mask) {
        warp.clock.committed[lane] += 1;
    }
    if r.env.options.copies == CopyTiming::Random {
        // Some of what is in flight lands out of order.
        let draw = r.env.draw();
        land_if(warp, r, |c| crate::num::mix(draw, u64::from(c.to)) & 3 == 0);
    }
}

pub(super) fn wait(warp: &mut Warp, r: &mut Reach<'_, '_>, left: Option<u32>, mask: u32) {
    for lane in lanes(mask) {
        if left.is_none() {
            warp.clock.committed[lane] += 1;
        }
        let done = warp.clock.waited(lane as u8, left.unwrap_or(0));
        warp.clock.done[lane] = warp.clock.done[lane].max(done);
    }
    let done = warp.clock.done;
    land_if(warp, r, |c| c.group <= done[c.lane as usize]);
}

/// Lands a lane's copies up to a number, for an mbarrier that waits for them.
pub(super) fn land_batch(warp: &mut Warp, r: &mut Reach<'_, '_>, lane: u8, batch: u32) {
    land_if(warp, r, |c| c.lane == lane && c.group <= batch);
}

fn land_if(warp: &mut Warp, r: &mut Reach<'_, '_>, now: impl Fn(&Copy) -> bool) {
    warp.copies.retain(|c| {
        let lands = now(c);
        if lands {
            land(r, c);
        }
        !lands
    });
}

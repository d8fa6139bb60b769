//! Smaller instructions of sm_90: `elect.sync`, `stmatrix`, `mapa`, `getctarank`, `st.async`, `red.async`.

use super::super::access::resolve;
use super::super::env::Reach;
use super::super::group::{Lanes, members};
use super::super::trouble::{Res, trouble};
use super::super::warp::Warp;
use super::flight::{Far, Incoming};
use super::ops::locate;
use crate::check::clock::{Stamp, WHOLE_WARP};
use crate::check::region::Mode;
use crate::isa::hopper::Hopper;
use crate::isa::inst::{Addr, PSlot, Slot, Space};
use crate::lanes::lanes;
use crate::mem::{RANK_BITS, RANK_MASK, SHARED_BASE, SHARED_WINDOW};
use crate::options::Schedule;
use crate::report::FaultKind;

/// One member is elected: the same for the same members, and which it is is nobody's business.
pub(super) fn elect(
    warp: &mut Warp,
    r: &Reach<'_, '_>,
    (d, p): (Option<Slot>, PSlot),
    member: Slot,
    mask: u32,
) -> Res<()> {
    let members = members(&warp.files, member, Lanes { mask, live: warp.live() })?;
    let leader = |lane: usize| {
        let group = members[lane];
        match r.env.options.schedule {
            Schedule::RoundRobin | Schedule::OneFar => group.trailing_zeros(),
            Schedule::Reverse => 31 - group.leading_zeros(),
            Schedule::Random => {
                let n = crate::num::mix(r.env.options.seed, u64::from(group))
                    % u64::from(group.count_ones());
                lanes(group).nth(n as usize).unwrap_or(0) as u32
            }
        }
    };
    let leaders: [u64; 32] =
        std::array::from_fn(|l| if mask >> l & 1 == 1 { u64::from(leader(l)) } else { 0 });
    let chosen = lanes(mask).filter(|&l| leaders[l] == l as u64).fold(0, |m, l| m | 1 << l);
    if let Some(d) = d {
        warp.files.store(d, mask, &leaders);
    }
    warp.files.set_pred(p, mask, chosen);
    Ok(())
}

/// The reverse of `ldmatrix`: lane `8i + r` gives the address of row `r` of matrix `i`; lane `l` holds of
/// row `l / 4` the elements `2(l % 4)` and the next, transposed: of column `l / 4`.
pub(super) fn stmatrix(
    warp: &mut Warp,
    r: &mut Reach<'_, '_>,
    addr: &Addr,
    transpose: bool,
    s: &[Slot],
) -> Res<()> {
    let rows = 8 * s.len();
    let mask = if rows == 32 { u32::MAX } else { (1 << rows) - 1 };
    let at = warp.files.read(addr.base, mask)?.map(|x| x.wrapping_add_signed(addr.offset));
    let mut matrices = [[[0u16; 8]; 8]; 4];
    for (m, &slot) in matrices.iter_mut().zip(s) {
        for (l, &word) in warp.files.read(slot, u32::MAX)?.iter().enumerate() {
            let (row, column) = (l / 4, 2 * (l % 4));
            for (e, x) in [word as u16, (word >> 16) as u16].into_iter().enumerate() {
                if transpose {
                    m[column + e][row] = x;
                } else {
                    m[row][column + e] = x;
                }
            }
        }
    }
    let mut flat = [0; 32];
    for lane in 0..rows {
        let (space, address) = resolve(addr.space, at[lane]);
        if space != Space::Shared {
            let message = format!("{address:#x} is not in the CTA's shared memory");
            return trouble(FaultKind::OutOfBounds, 1 << lane, message);
        }
        flat[lane] = address;
        // A row comes from several lanes: it is all of the warp's.
        let mut who = r.who(warp, 0, Stamp::pack(r.pc, 0));
        who.lane = WHOLE_WARP;
        who.stamp.lanes = u32::MAX;
        let bytes = r.bytes(space, address, (16, 16), Mode::Write, &who).map_err(|mut t| {
            t.lanes = 1 << lane;
            t
        })?;
        for (to, x) in bytes.chunks_exact_mut(2).zip(matrices[lane / 8][lane % 8]) {
            to.copy_from_slice(&x.to_le_bytes());
        }
    }
    r.env.progress += 1;
    r.env.counters.ldmatrix(r.pc, &flat, rows);
    Ok(())
}

/// The offset of an address in the CTA's own shared memory window, or in the cluster's.
fn within(a: u64, generic: bool, lane: usize) -> Res<u64> {
    if !generic {
        return Ok(a & 0xFFFF_FFFF);
    }
    if a >> 32 != SHARED_WINDOW >> 32 {
        let message = format!("{a:#x} is not an address of shared memory");
        return trouble(FaultKind::OutOfBounds, 1 << lane, message);
    }
    Ok(a - SHARED_WINDOW)
}

/// Above every rank, and within what an address of 32 bits holds.
const NO_RANK: u64 = 0x7E;

pub(super) fn mapa(
    warp: &mut Warp,
    (d, a, rank): (Slot, Slot, Slot),
    generic: bool,
    mask: u32,
) -> Res<()> {
    let (a, rank) = (*warp.files.read(a, mask)?, *warp.files.read(rank, mask)?);
    let mut out = [0; 32];
    for lane in lanes(mask) {
        // A rank that there is none of gives an address that nobody may use: kernels ask in every lane and
        // let few of them arrive.
        let rank = rank[lane].min(NO_RANK);
        let at = within(a[lane], generic, lane)? & RANK_MASK;
        let window = if generic { SHARED_WINDOW } else { 0 };
        out[lane] = window + (at | (rank + 1) << RANK_BITS);
    }
    warp.files.store(d, mask, &out);
    Ok(())
}

pub(super) fn rank(
    warp: &mut Warp,
    r: &Reach<'_, '_>,
    d: Slot,
    a: Slot,
    generic: bool,
    mask: u32,
) -> Res<()> {
    let a = *warp.files.read(a, mask)?;
    let mut out = [0; 32];
    for lane in lanes(mask) {
        let field = within(a[lane], generic, lane)? >> RANK_BITS;
        out[lane] = if field == 0 { r.rank as u64 } else { field - 1 };
    }
    warp.files.store(d, mask, &out);
    Ok(())
}

pub(super) fn store_async(
    warp: &mut Warp,
    r: &mut Reach<'_, '_>,
    op: &Hopper,
    mask: u32,
) -> Res<()> {
    let Hopper::StoreAsync { addr, barrier, size, s, reduce } = op else { return Ok(()) };
    let value = |a: &Addr, lane: usize| -> Res<u64> {
        Ok(warp.files.read(a.base, 1 << lane)?[lane].wrapping_add_signed(a.offset))
    };
    for lane in lanes(mask) {
        let signal = locate(r, (Space::Cluster, value(barrier, lane)?), lane)?;
        let to = match resolve(Space::Cluster, value(addr, lane)?) {
            (Space::Cluster, at) => ((at >> RANK_BITS) as usize - 1, at & RANK_MASK),
            (_, at) => (r.rank, at),
        };
        if to.0 != signal.rank {
            let message = format!(
                "the value goes to CTA rank {}, its mbarrier is in rank {}",
                to.0, signal.rank
            );
            return trouble(FaultKind::AsyncCopy, 1 << lane, message);
        }
        let mut bytes = Vec::new();
        for &slot in s {
            let word = warp.files.read(slot, 1 << lane)?[lane];
            bytes.extend_from_slice(&word.to_le_bytes()[..*size as usize]);
        }
        let copy = Incoming {
            by: (r.pc, r.rank, warp.index),
            rank: signal.rank,
            to: to.1.wrapping_sub(SHARED_BASE) as u32,
            bytes: bytes.len() as u32,
            from: Far::Bytes(bytes),
            barrier: signal.at,
            reduce: *reduce,
        };
        super::bulk::depart(warp, r, copy, lane, false)?;
    }
    Ok(())
}

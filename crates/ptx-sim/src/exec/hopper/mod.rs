//! Hopper's engines: mbarriers, bulk copies and tensors, warpgroup matrices, register pools, clusters.
//! [`operate`] is called by `step` for what the decoder put into [`Hopper`]; the scheduler calls the
//! rest when an engine may move.

pub(crate) mod barrier;
mod bulk;
pub(crate) mod flight;
mod hazards;
mod lanes_ops;
mod layout;
pub(crate) mod matrix;
pub(crate) mod mbarrier;
mod ops;
pub(crate) mod queue;
pub(crate) mod registers;
pub(crate) mod state;

use super::env::Reach;
use super::flow::Flow;
use super::trouble::{Res, trouble};
use super::warp::{Waiting, Warp};
use crate::isa::hopper::Hopper;
use crate::lanes::lanes;
use crate::report::FaultKind;
use queue::Ask;

/// Runs one instruction of a warp.
pub(super) fn operate(warp: &mut Warp, r: &mut Reach<'_, '_>, op: &Hopper, mask: u32) -> Res<Flow> {
    let group = warp.index as usize / 4;
    match op {
        Hopper::Mbarrier(m) => ops::operate(warp, r, m, mask)?,
        Hopper::Wait(w) => return ops::wait(warp, r, w, mask),
        Hopper::PendingCount { d, state } => {
            let pending = warp.files.read(*state, mask)?.map(|s| s >> 32);
            warp.files.store(*d, mask, &pending);
        }
        Hopper::CopiesArrive { addr, counted } => {
            ops::copies_arrive(warp, r, addr, *counted, mask)?;
        }
        Hopper::Bulk(b) => bulk::issue(warp, r, b, mask)?,
        Hopper::BulkCommit => {
            lanes(mask).for_each(|lane| warp.hopper.bulk.committed[lane] += 1);
        }
        Hopper::BulkWait { left, read } => bulk::wait(warp, r, *left, *read, mask),
        Hopper::PrefetchMap { addr } => {
            for lane in lanes(mask) {
                bulk::map(warp, r, addr, lane)?;
            }
        }
        Hopper::Wgmma(w) => {
            let Some(queue) = r.banks[r.rank].queues.get(group) else {
                return trouble(FaultKind::Warpgroup, mask, "there is no such warpgroup");
            };
            let committed = queue.committed_by(warp.index as usize % 4);
            return matrix::prepare(warp, w, committed).map(Flow::Matrix);
        }
        Hopper::WgmmaFence => warp.hopper.hazards.fence(),
        Hopper::WgmmaCommit => return Ok(Flow::Matrix(Ask::Commit)),
        Hopper::WgmmaWait { left } => return Ok(Flow::Matrix(Ask::Wait { left: *left })),
        Hopper::ProxyFence { shared, global } => {
            warp.clock.fence_proxy(mask, *shared, *global);
            if *shared {
                show(warp, r, mask);
            }
        }
        Hopper::InitFence => {
            lanes(mask).for_each(|lane| warp.clock.release_inits(lane as u8));
            show(warp, r, mask);
        }
        Hopper::MaxRegisters { more, count } => {
            let bank = &mut r.banks[r.rank];
            let asked = bank.registers.ask(warp.index as usize, *more, *count);
            match asked.or_else(|message| trouble(FaultKind::RegisterPool, mask, message))? {
                true => {
                    bank.barriers.woken = true;
                    r.env.progress += 1;
                }
                false => return Ok(Flow::Retry(Waiting::Registers(*count))),
            }
        }
        Hopper::Elect { d, p, members } => lanes_ops::elect(warp, r, (*d, *p), *members, mask)?,
        Hopper::GridWait => {
            if let Some(follows) = r.env.follows {
                match follows.get() {
                    Some(past) => warp.clock.follow(past),
                    None => return Ok(Flow::Retry(Waiting::Grids)),
                }
            }
        }
        Hopper::GridLaunch => return Ok(Flow::GridLaunch),
        Hopper::Stmatrix { addr, transpose, s } => {
            lanes_ops::stmatrix(warp, r, addr, *transpose, s)?;
        }
        Hopper::Mapa { d, a, rank, generic } => {
            lanes_ops::mapa(warp, (*d, *a, *rank), *generic, mask)?;
        }
        Hopper::CtaRank { d, a, generic } => lanes_ops::rank(warp, r, *d, *a, *generic, mask)?,
        Hopper::ClusterArrive { aligned, relaxed } => {
            barrier::whole(warp, *aligned, mask)?;
            return Ok(Flow::Cluster { arrive: true, relaxed: *relaxed, mask });
        }
        Hopper::ClusterWait { aligned } => {
            barrier::whole(warp, *aligned, mask)?;
            return Ok(Flow::Cluster { arrive: false, relaxed: false, mask });
        }
        Hopper::StoreAsync { .. } => lanes_ops::store_async(warp, r, op, mask)?,
    }
    Ok(Flow::Next)
}

/// The inits that these lanes made are seen by the asynchronous proxy from now on.
fn show(warp: &Warp, r: &mut Reach<'_, '_>, mask: u32) {
    let agent = warp.clock.inits();
    r.banks.iter_mut().for_each(|bank| bank.barriers.show(agent, mask));
}

/// Some lanes end.
pub(super) fn leave(warp: &mut Warp, r: &mut Reach<'_, '_>, mask: u32) -> Res<()> {
    if !warp.hopper.arrivals.is_empty() {
        ops::fire(warp, r, |a| mask >> a.lane & 1 == 1)?;
    }
    bulk::leave(warp, mask)?;
    if mask == warp.live() { matrix::leave(warp) } else { Ok(()) }
}

/// Enters what a warp asks of the matrix queue; false when it has to wait.
pub(super) fn ask(warps: &mut [Warp], index: usize, r: &mut Reach<'_, '_>, ask: Ask) -> Res<bool> {
    matrix::enter(warps, index, r, ask)
}

/// Lets the arrivals of a lane that wait for its copies come; false when there is none.
pub(super) fn fire_one(warp: &mut Warp, r: &mut Reach<'_, '_>) -> Res<bool> {
    let Some(first) = warp.hopper.arrivals.first().copied() else { return Ok(false) };
    ops::fire(warp, r, |a| (a.lane, a.batch) == (first.lane, first.batch))?;
    Ok(true)
}

//! The mbarrier instructions, and arrivals that wait for `cp.async`.

use super::super::access::{peer, resolve};
use super::super::env::Reach;
use super::super::flow::Flow;
use super::super::trouble::{Res, trouble};
use super::super::warp::{Waiting, Warp};
use super::mbarrier::Said;
use super::state::Arrival;
use crate::check::clock::Stamp;
use crate::check::region::Mode;
use crate::check::shadow::Who;
use crate::isa::hopper::{Mbarrier, MbarrierOp, MbarrierWait, Order};
use crate::isa::inst::{Addr, Slot, Space};
use crate::lanes::lanes;
use crate::mem::{RANK_BITS, RANK_MASK, SHARED_BASE};
use crate::options::CopyTiming;
use crate::report::FaultKind;

/// Whose mbarrier, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Located {
    pub(super) rank: usize,
    pub(super) at: u32,
}

/// A misused mbarrier on its way up.
pub(super) fn misuse<T>(said: Said<T>, lanes: u32) -> Res<T> {
    said.or_else(|message| trouble(FaultKind::Mbarrier, lanes, message))
}

pub(super) fn locate(
    r: &mut Reach<'_, '_>,
    (space, address): (Space, u64),
    lane: usize,
) -> Res<Located> {
    let (rank, offset) = match resolve(space, address) {
        (Space::Shared, at) => (r.rank, at.wrapping_sub(SHARED_BASE)),
        (Space::Cluster, at) => {
            peer(r.banks, at, 1 << lane)?;
            ((at >> RANK_BITS) as usize - 1, (at & RANK_MASK).wrapping_sub(SHARED_BASE))
        }
        _ => {
            let message = format!("an mbarrier at {address:#x}, which is not in shared memory");
            return trouble(FaultKind::OutOfBounds, 1 << lane, message);
        }
    };
    let len = r.banks[rank].shared.len() as u64;
    if offset.saturating_add(8) > len {
        let message = format!("an mbarrier at byte {} leaves the {len} bytes", offset as i64);
        return trouble(FaultKind::OutOfBounds, 1 << lane, message);
    }
    if offset % 8 != 0 {
        let message = format!("an mbarrier at byte {offset} is not aligned to 8 bytes");
        return trouble(FaultKind::Misaligned, 1 << lane, message);
    }
    Ok(Located { rank, at: offset as u32 })
}

/// The mbarrier is there, and the lane knows of its init; the asynchronous proxy too if `proxy`.
pub(super) fn known(
    warp: &Warp,
    r: &Reach<'_, '_>,
    b: Located,
    lane: usize,
    proxy: bool,
) -> Res<()> {
    let barrier = misuse(r.banks[b.rank].barriers.get(b.at), 1 << lane)?;
    if r.env.checks.races && !warp.clock.knows(lane as u8, &barrier.init) {
        let mut fault = misuse::<()>(
            Err(format!("the init of the mbarrier at byte {} is not ordered before this", b.at)),
            1 << lane,
        );
        if let Err(trouble) = &mut fault {
            trouble.other = Some((barrier.init, true));
        }
        return fault;
    }
    if proxy && !barrier.visible {
        return trouble(
            FaultKind::Proxy,
            1 << lane,
            format!(
                "the init of the mbarrier at byte {} has not been made visible to the asynchronous proxy: \
                 fence.mbarrier_init or fence.proxy.async after it",
                b.at
            ),
        );
    }
    Ok(())
}

fn values(warp: &Warp, addr: &Addr, mask: u32) -> Res<[u64; 32]> {
    Ok(warp.files.read(addr.base, mask)?.map(|x| x.wrapping_add_signed(addr.offset)))
}

fn counts(warp: &Warp, n: Option<Slot>, mask: u32) -> Res<[u64; 32]> {
    match n {
        Some(n) => Ok(*warp.files.read(n, mask)?),
        None => Ok([1; 32]),
    }
}

pub(super) fn operate(warp: &mut Warp, r: &mut Reach<'_, '_>, m: &Mbarrier, mask: u32) -> Res<()> {
    let (at, n) = (values(warp, &m.addr, mask)?, counts(warp, m.n, mask)?);
    let mut out = [0; 32];
    // Lanes that arrive at one mbarrier hand in what they know together: a full warp at once.
    let first = at[mask.trailing_zeros() as usize];
    let together = mask == u32::MAX && at.iter().all(|&a| a == first);
    let mut common = None;
    for lane in lanes(mask) {
        let b = locate(r, (m.addr.space, at[lane]), lane)?;
        let bit = 1 << lane;
        match m.op {
            MbarrierOp::Init => init(warp, r, b, n[lane], lane)?,
            MbarrierOp::Inval => {
                known(warp, r, b, lane, false)?;
                let bank = &mut r.banks[b.rank];
                misuse(bank.barriers.inval(b.at), bit)?;
                bank.shared.set_written(b.at as usize, &[false; 8]);
            }
            MbarrierOp::ExpectTx | MbarrierOp::CompleteTx => {
                known(warp, r, b, lane, false)?;
                let bytes = n[lane] as i64;
                let sign = if m.op == MbarrierOp::ExpectTx { 1 } else { -1 };
                misuse(r.banks[b.rank].barriers.transfer(b.at, sign * bytes), bit)?;
            }
            MbarrierOp::Arrive { expect, drop, no_complete, order } => {
                known(warp, r, b, lane, false)?;
                let (count, bytes) = if expect { (1, n[lane]) } else { (n[lane], 0) };
                let epoch = warp.clock.epoch;
                let clock = match (order, &common) {
                    (Order::Relaxed, _) => match warp.clock.fenced(lane as u8) {
                        Some((published, _)) => published.clone(),
                        None => warp.clock.clean(),
                    },
                    (_, Some(clock)) => Clone::clone(clock),
                    // Unless the phase ends among them: then each counts for itself.
                    _ if together && enough(r, b, n, expect) => {
                        let clock = warp.clock.release_all(mask);
                        common = Some(clock.clone());
                        clock
                    }
                    _ => warp.clock.release(lane as u8),
                };
                let owner = warp.clock.cta_of(b.rank as u32);
                let clock = clock.of(owner);
                let own = b.rank == r.rank;
                let barriers = &mut r.banks[b.rank].barriers;
                let barrier = misuse(barriers.get_mut(b.at), bit)?;
                out[lane] = barrier.state();
                if no_complete && count >= u64::from(barrier.pending()) {
                    return misuse(
                        Err("an arrival with .noComplete completes the phase".into()),
                        bit,
                    );
                }
                if !own {
                    let packed = Stamp::pack(r.pc, 0);
                    let stamp = Stamp { agent: warp.clock.agent, epoch, lanes: bit, packed };
                    barrier.note_remote(stamp);
                }
                if expect {
                    misuse(barriers.transfer(b.at, bytes as i64), bit)?;
                }
                misuse(barriers.arrive(b.at, count, &clock, drop), bit)?;
            }
        }
    }
    r.env.progress += 1;
    if let Some(d) = m.d {
        warp.files.store(d, mask, &out);
    }
    Ok(())
}

/// The phase waits for at least as many arrivals as a whole warp brings.
fn enough(r: &Reach<'_, '_>, b: Located, n: [u64; 32], expect: bool) -> bool {
    let arrivals = if expect { 32 } else { n.iter().sum() };
    r.banks[b.rank].barriers.get(b.at).is_ok_and(|m| u64::from(m.pending()) >= arrivals)
}

fn init(warp: &Warp, r: &mut Reach<'_, '_>, b: Located, count: u64, lane: usize) -> Res<()> {
    let agents = warp.clock.agents;
    let init = Stamp {
        agent: warp.clock.inits(),
        epoch: warp.clock.epoch,
        lanes: 1 << lane,
        packed: Stamp::pack(r.pc, 0),
    };
    let who = Who { clock: &warp.clock, lane: lane as u8, stamp: init, proxy: None, wide: None };
    let address = u64::from(b.at) + SHARED_BASE;
    if r.banks[b.rank].barriers.get(b.at).is_err() {
        r.bytes(Space::Shared, address, (8, 8), Mode::Write, &who)?.fill(0x5A);
    }
    let clean = warp.clock.clean();
    let engine = |slot: u32| warp.clock.engine(agents.barrier(slot));
    misuse(r.banks[b.rank].barriers.init(b.at, count, init, clean, engine), 1 << lane)
}

/// `test_wait` and `try_wait`.
pub(super) fn wait(
    warp: &mut Warp,
    r: &mut Reach<'_, '_>,
    w: &MbarrierWait,
    mask: u32,
) -> Res<Flow> {
    let at = values(warp, &w.addr, mask)?;
    let phases = *warp.files.read(w.phase, mask)?;
    let first = mask.trailing_zeros() as usize;
    let uniform = lanes(mask).all(|l| at[l] == at[first] && phases[l] == phases[first]);
    let mut done = 0;
    let mut learnt = None;
    let mut place = None;
    for lane in lanes(mask) {
        let b = locate(r, (w.addr.space, at[lane]), lane)?;
        if b.rank != r.rank {
            let message = "a wait at an mbarrier of another CTA";
            return trouble(FaultKind::Mbarrier, 1 << lane, message);
        }
        known(warp, r, b, lane, false)?;
        let who = (warp.index, lane as u8);
        let barrier = misuse(r.banks[b.rank].barriers.get_mut(b.at), 1 << lane)?;
        let phase = barrier.phase;
        let over = if w.parity {
            barrier.by_parity(phases[lane], who)
        } else {
            barrier.by_state(phases[lane])
        };
        place = Some((b.at, phase));
        let Some(published) = misuse(over, 1 << lane)? else { continue };
        done |= 1 << lane;
        if w.order == Order::Relaxed {
            warp.clock.see(lane as u8, published);
        } else if uniform && mask == warp.live() {
            // All lanes learn the same.
            learnt = Some(b.at);
        } else {
            warp.clock.acquire(lane as u8, published);
        }
    }
    if let Some(at) = learnt
        && let Ok(barrier) = r.banks[r.rank].barriers.get(at)
    {
        warp.clock.learn(barrier.published());
    }
    let alone = warp.fragments.len() == 1 && uniform;
    if let (true, 0, Some((at, phase))) = (w.suspends && alone, done, place)
        && !std::mem::take(&mut warp.hopper.timed_out)
        && warp.hopper.tried.replace((at, phase)) == Some((at, phase))
    {
        return Ok(Flow::Retry(Waiting::Mbarrier { at, phase }));
    }
    warp.files.set_pred(w.d, mask, done);
    Ok(if done == 0 { Flow::Yield } else { Flow::Next })
}

/// `cp.async.mbarrier.arrive`: the arrival comes when the lane's copies so far have landed.
pub(super) fn copies_arrive(
    warp: &mut Warp,
    r: &mut Reach<'_, '_>,
    addr: &Addr,
    counted: bool,
    mask: u32,
) -> Res<()> {
    let at = values(warp, addr, mask)?;
    for lane in lanes(mask) {
        let b = locate(r, (addr.space, at[lane]), lane)?;
        known(warp, r, b, lane, false)?;
        if !counted {
            misuse(r.banks[b.rank].barriers.raise(b.at), 1 << lane)?;
        }
        // What is copied after this has a number of its own.
        warp.clock.committed[lane] += 1;
        let batch = warp.clock.committed[lane];
        warp.clock.phantoms.push((lane as u8, batch));
        warp.hopper.arrivals.push(Arrival { lane: lane as u8, batch, at: b.at, rank: b.rank });
    }
    let now = match r.env.options.copies {
        CopyTiming::Early => mask,
        CopyTiming::Late => 0,
        CopyTiming::Random => r.env.draw() as u32 & mask,
    };
    fire(warp, r, |a| now >> a.lane & 1 == 1)
}

/// Lands the copies of some arrivals and lets these arrive.
pub(super) fn fire(
    warp: &mut Warp,
    r: &mut Reach<'_, '_>,
    wanted: impl Fn(&Arrival) -> bool,
) -> Res<()> {
    let all = std::mem::take(&mut warp.hopper.arrivals);
    let (mut now, mut later) = (Vec::new(), Vec::new());
    for a in all {
        // An earlier one of the same lane does not overtake.
        let blocked = later.iter().any(|l: &Arrival| l.lane == a.lane);
        if wanted(&a) && !blocked { now.push(a) } else { later.push(a) }
    }
    warp.hopper.arrivals = later;
    for a in now {
        super::super::copy::land_batch(warp, r, a.lane, a.batch);
        let mut known = warp.clock.clean();
        known.raise_lane(warp.clock.agent + 1, a.lane, a.batch);
        misuse(r.banks[a.rank].barriers.arrive(a.at, 1, &known, false), 1 << a.lane)?;
        r.env.progress += 1;
    }
    Ok(())
}

//! Bulk copies, tensors or plain runs of bytes: checked in the name of the engine when issued, in flight
//! from then on ([`flight`](super::flight)). What completes on an mbarrier carries the number of its
//! phase; what belongs to a bulk group carries the group's.

use std::sync::Arc;

use super::super::access::resolve;
use super::super::env::Reach;
use super::super::trouble::{Res, trouble};
use super::super::warp::Warp;
use super::flight::{Far, Incoming, Outgoing};
use super::ops::{Located, locate, misuse};
use crate::check::clock::{GPU, MARK_ASYNC, Stamp};
use crate::check::region::Mode;
use crate::check::shadow::{Who, Wide};
use crate::isa::hopper::{Bulk, BulkEnd, RedTy};
use crate::isa::inst::{Addr, AtomOp, Float, Space};
use crate::lanes::lanes;
use crate::mem::{RANK_BITS, SHARED_BASE};
use crate::options::CopyTiming;
use crate::report::FaultKind;
use crate::tensor::{TENSOR_MAP_BYTES, TensorMap, TensorType};

/// A lane's value of an address operand.
fn value(warp: &Warp, addr: &Addr, lane: usize) -> Res<u64> {
    Ok(warp.files.read(addr.base, 1 << lane)?[lane].wrapping_add_signed(addr.offset))
}

pub(super) fn issue(warp: &mut Warp, r: &mut Reach<'_, '_>, b: &Bulk, mask: u32) -> Res<()> {
    for lane in lanes(mask) {
        match (&b.to, &b.barrier) {
            (BulkEnd::Shared(to), Some(barrier)) => incoming(warp, r, b, (to, barrier), lane)?,
            _ => outgoing(warp, r, b, lane)?,
        }
    }
    Ok(())
}

/// The tensor map at an address, and the coordinates.
fn tensor(
    warp: &Warp,
    r: &mut Reach<'_, '_>,
    (addr, coords): (&Addr, &[u16]),
    lane: usize,
) -> Res<(Arc<TensorMap>, [i32; 5])> {
    let map = map(warp, r, addr, lane)?;
    if map.dims.len() != coords.len() {
        let message = format!(
            "the instruction is for {} dimensions, the tensor map has {}",
            coords.len(),
            map.dims.len()
        );
        return trouble(FaultKind::AsyncCopy, 1 << lane, message);
    }
    let simple = map.interleave == 0 && map.element_strides.iter().all(|&s| s == 1);
    let full = map.swizzle.span() == 0 || map.row_bytes() == map.swizzle.span();
    if !simple || !full {
        let message = "a tensor map with interleaving, element strides, or rows shorter than the \
                       swizzle's span is not simulated";
        return trouble(FaultKind::NotSimulated, 1 << lane, message);
    }
    let mut at = [0; 5];
    for (at, &slot) in at.iter_mut().zip(coords) {
        *at = warp.files.read(slot, 1 << lane)?[lane] as i32;
    }
    Ok((Arc::new(map), at))
}

/// Reads a tensor map from a parameter, a constant or global memory.
pub(super) fn map(warp: &Warp, r: &mut Reach<'_, '_>, addr: &Addr, lane: usize) -> Res<TensorMap> {
    let (space, address) = resolve(addr.space, value(warp, addr, lane)?);
    let n = TENSOR_MAP_BYTES as u32;
    let decoded = match space {
        Space::Param | Space::Const => {
            let (bytes, at) = match space {
                Space::Param => (r.env.params, address),
                _ => (r.env.kernel.consts.as_slice(), address.wrapping_sub(crate::mem::SMALL_BASE)),
            };
            let end = at.saturating_add(u64::from(n)) as usize;
            bytes.get(at as usize..end).and_then(TensorMap::decode)
        }
        Space::Global => {
            let who = r.who(warp, lane, Stamp::pack(r.pc, 0));
            TensorMap::decode(r.bytes(space, address, (n, 64), Mode::Read, &who)?)
        }
        _ => None,
    };
    match decoded {
        Some(map) if address.is_multiple_of(64) => Ok(map),
        Some(_) => trouble(
            FaultKind::Misaligned,
            1 << lane,
            format!("the tensor map at {address:#x} is not aligned to 64 bytes"),
        ),
        None => trouble(
            FaultKind::AsyncCopy,
            1 << lane,
            format!("at {address:#x} ({space:?}) lies no tensor map"),
        ),
    }
}

/// The number of bytes of a plain copy.
fn size(warp: &Warp, b: &Bulk, lane: usize) -> Res<u32> {
    let bytes = match b.size {
        Some(slot) => warp.files.read(slot, 1 << lane)?[lane] as u32,
        None => 0,
    };
    if bytes == 0 || !bytes.is_multiple_of(16) {
        let message = format!("a bulk copy of {bytes} bytes: a multiple of 16 is needed");
        return trouble(FaultKind::AsyncCopy, 1 << lane, message);
    }
    Ok(bytes)
}

/// What a tensor's copy needs of its place in shared memory.
fn shared_alignment(far: &Far) -> u32 {
    match far {
        Far::Tensor(map, _) => map.swizzle.period().max(128),
        _ => 16,
    }
}

fn incoming(
    warp: &mut Warp,
    r: &mut Reach<'_, '_>,
    b: &Bulk,
    (to, barrier): (&Addr, &Addr),
    lane: usize,
) -> Res<()> {
    let (from, bytes) = match &b.from {
        BulkEnd::Tensor(addr, coords) => {
            let (map, at) = tensor(warp, r, (addr, coords), lane)?;
            let bytes = map.box_bytes();
            (Far::Tensor(map, at), bytes)
        }
        BulkEnd::Global(addr) => (Far::Global(value(warp, addr, lane)?), size(warp, b, lane)?),
        BulkEnd::Shared(addr) => {
            let (_, address) = resolve(addr.space, value(warp, addr, lane)?);
            let at = address.wrapping_sub(SHARED_BASE) as u32;
            (Far::Shared(r.rank, at), size(warp, b, lane)?)
        }
    };
    let place = resolve(to.space, value(warp, to, lane)?);
    let signal = locate(r, (barrier.space, value(warp, barrier, lane)?), lane)?;
    let rank = match place.0 {
        Space::Shared => r.rank,
        Space::Cluster => (place.1 >> RANK_BITS) as usize - 1,
        _ => {
            let message = format!("{:#x} is not in shared memory", place.1);
            return trouble(FaultKind::OutOfBounds, 1 << lane, message);
        }
    };
    if rank != signal.rank {
        let message =
            format!("the copy goes to CTA rank {rank}, its mbarrier is in rank {}", signal.rank);
        return trouble(FaultKind::AsyncCopy, 1 << lane, message);
    }
    let offset = (place.1 & crate::mem::RANK_MASK).wrapping_sub(SHARED_BASE) as u32;
    let ranks: Vec<usize> = match b.multicast {
        None => vec![rank],
        Some(slot) => {
            let set = warp.files.read(slot, 1 << lane)?[lane] as u32 & 0xFFFF;
            if set == 0 || set >> r.banks.len() != 0 {
                let message =
                    format!("multicast to {set:#x} in a cluster of {} CTAs", r.banks.len());
                return trouble(FaultKind::Cluster, 1 << lane, message);
            }
            lanes(set).collect()
        }
    };
    for (i, &rank) in ranks.iter().enumerate() {
        let reduce = b.reduce.and_then(|(op, ty)| Some((op, ty?)));
        let by = (r.pc, r.rank, warp.index);
        let from = from.clone();
        let copy = Incoming { by, from, rank, to: offset, bytes, barrier: signal.at, reduce };
        // The source is read once, and noted with the first receiver's phase.
        depart(warp, r, copy, lane, i == 0)?;
    }
    Ok(())
}

/// Checks both sides of a copy into shared memory in the name of its mbarrier, and sends it off.
pub(super) fn depart(
    warp: &Warp,
    r: &mut Reach<'_, '_>,
    copy: Incoming,
    lane: usize,
    read: bool,
) -> Res<()> {
    let signal = Located { rank: copy.rank, at: copy.barrier };
    // Values out of registers (st.async) go through the generic proxy.
    let proxy = !matches!(copy.from, Far::Bytes(_));
    super::ops::known(warp, r, signal, lane, proxy)?;
    let barriers = &mut r.banks[copy.rank].barriers;
    let (agent, epoch, _) = misuse(barriers.depart(copy.barrier), 1 << lane)?;
    let stamp = Stamp { agent, epoch, lanes: 1 << lane, packed: Stamp::pack(r.pc, 0) };
    let wide = Wide::default();
    let who = Who {
        clock: &warp.clock,
        lane: lane as u8,
        stamp,
        proxy: proxy.then_some(true),
        wide: Some(&wide),
    };
    let address = (u64::from(copy.to) + SHARED_BASE) | (copy.rank as u64 + 1) << RANK_BITS;
    let mode = if copy.reduce.is_some() { Mode::Atomic } else { Mode::Write };
    let align = match &copy.from {
        Far::Bytes(bytes) => bytes.len() as u32,
        far => shared_alignment(far),
    };
    r.bytes(Space::Cluster, address, (copy.bytes, align), mode, &who)?;
    // After its place was found to be there, which bounds a box.
    if read {
        source(r, &copy.from, copy.bytes, &who)?;
    }
    r.flights.incoming.push(copy);
    if now(r) {
        let last = r.flights.incoming.len() - 1;
        misuse(r.flights.land(last, r.env.memory, r.banks), 1 << lane)?;
        r.env.progress += 1;
    }
    Ok(())
}

/// Whether a step that may be taken at once is.
pub(super) fn now(r: &mut Reach<'_, '_>) -> bool {
    match r.env.options.copies {
        CopyTiming::Early => true,
        CopyTiming::Late => false,
        CopyTiming::Random => r.env.draw() & 3 == 0,
    }
}

fn source(r: &mut Reach<'_, '_>, from: &Far, bytes: u32, who: &Who<'_>) -> Res<()> {
    let wide = Wide::default();
    let global = Who {
        clock: who.clock,
        lane: who.lane,
        stamp: who.stamp,
        proxy: Some(false),
        wide: Some(&wide),
    };
    match from {
        Far::Tensor(map, at) => {
            for row in map.rows(*at).filter(|row| row.bytes > 0) {
                r.bytes(Space::Global, row.address, (row.bytes, 1), Mode::Read, &global)?;
            }
        }
        Far::Global(address) => {
            r.bytes(Space::Global, *address, (bytes, 16), Mode::Read, &global)?;
        }
        Far::Shared(_, at) => {
            r.bytes(Space::Shared, u64::from(*at) + SHARED_BASE, (bytes, 16), Mode::Read, who)?;
        }
        Far::Bytes(_) => {}
    }
    Ok(())
}

/// The element type of a tensor that is reduced into.
fn tensor_type(map: &TensorMap, op: AtomOp, lane: usize) -> Res<RedTy> {
    let ty = match map.ty {
        TensorType::U32 => RedTy::Unsigned(32),
        TensorType::I32 => RedTy::Signed(32),
        TensorType::U64 => RedTy::Unsigned(64),
        TensorType::I64 => RedTy::Signed(64),
        TensorType::F16 => RedTy::Float(Float::F16),
        TensorType::Bf16 => RedTy::Float(Float::Bf16),
        TensorType::F32 | TensorType::F32Ftz => RedTy::Float(Float::F32),
        other => {
            let message = format!("a reduction into elements of type {other:?} is not simulated");
            return trouble(FaultKind::NotSimulated, 1 << lane, message);
        }
    };
    let float = matches!(ty, RedTy::Float(_));
    let legal = match op {
        AtomOp::Add => true,
        AtomOp::Min | AtomOp::Max => map.ty != TensorType::F32 && map.ty != TensorType::F32Ftz,
        AtomOp::Inc | AtomOp::Dec => ty == RedTy::Unsigned(32),
        _ => !float,
    };
    if !legal {
        let message = format!("{op:?} of elements of type {:?} does not exist", map.ty);
        return trouble(FaultKind::AsyncCopy, 1 << lane, message);
    }
    Ok(ty)
}

fn outgoing(warp: &mut Warp, r: &mut Reach<'_, '_>, b: &Bulk, lane: usize) -> Res<()> {
    let BulkEnd::Shared(from) = &b.from else {
        return trouble(FaultKind::AsyncCopy, 1 << lane, "a bulk copy without a shared side");
    };
    let (space, address) = resolve(from.space, value(warp, from, lane)?);
    let (to, bytes, reduce) = match &b.to {
        BulkEnd::Tensor(addr, coords) => {
            let (map, at) = tensor(warp, r, (addr, coords), lane)?;
            let reduce = match b.reduce {
                Some((op, _)) => Some((op, tensor_type(&map, op, lane)?)),
                None => None,
            };
            let bytes = map.box_bytes();
            (Far::Tensor(map, at), bytes, reduce)
        }
        BulkEnd::Global(addr) => {
            let reduce = b.reduce.and_then(|(op, ty)| Some((op, ty?)));
            (Far::Global(value(warp, addr, lane)?), size(warp, b, lane)?, reduce)
        }
        BulkEnd::Shared(_) => {
            return trouble(FaultKind::AsyncCopy, 1 << lane, "a bulk group within shared memory");
        }
    };
    let group = warp.hopper.bulk.committed[lane] + 1;
    let agents = warp.clock.agents;
    let strength = if reduce.is_some() { GPU } else { 0 };
    let stamp = |agent: u32, strength| Stamp {
        agent: warp.clock.engine(agent),
        epoch: group,
        lanes: 1 << lane,
        packed: Stamp::pack(r.pc, strength) | MARK_ASYNC,
    };
    let (reads, writes) =
        (stamp(agents.bulk_reads(warp.index), 0), stamp(agents.bulk_writes(warp.index), strength));
    let (to_read, to_write) = (Wide::default(), Wide::default());
    let who = |stamp, proxy| Who {
        clock: &warp.clock,
        lane: lane as u8,
        stamp,
        proxy: Some(proxy),
        wide: Some(if proxy { &to_read } else { &to_write }),
    };
    r.bytes(space, address, (bytes, shared_alignment(&to)), Mode::Read, &who(reads, true))?;
    let mode = if reduce.is_some() { Mode::Atomic } else { Mode::Write };
    match &to {
        Far::Tensor(map, at) => {
            for row in map.rows(*at).filter(|row| row.bytes > 0) {
                let who = who(writes, false);
                r.bytes(Space::Global, row.address, (row.bytes, 1), mode, &who)?;
            }
        }
        Far::Global(address) => {
            r.bytes(Space::Global, *address, (bytes, 16), mode, &who(writes, false))?;
        }
        Far::Shared(..) | Far::Bytes(_) => {}
    }
    let at = (address - SHARED_BASE) as u32;
    warp.hopper.bulk.last[lane] = group;
    let owner = (r.rank, warp.index, lane as u8, group);
    r.flights.outgoing.push(Outgoing::new(owner, (at, bytes), to, reduce));
    if now(r) {
        let late = r.env.options.copies == CopyTiming::Random && r.env.draw() & 1 == 0;
        let mine = |c: &Outgoing| (c.rank, c.warp, c.lane, c.group) == owner && c.from == at;
        if late {
            r.flights.read(r.banks, mine);
        } else {
            r.flights.write(r.env.memory, r.banks, mine);
        }
        r.env.progress += 1;
    }
    Ok(())
}

/// `wait_group`: all groups of the lane but the last `left` have been read, or are wholly done.
pub(super) fn wait(warp: &mut Warp, r: &mut Reach<'_, '_>, left: u32, read: bool, mask: u32) {
    let (rank, index, agents) = (r.rank, warp.index, warp.clock.agents);
    for lane in lanes(mask) {
        let groups = &mut warp.hopper.bulk;
        let upto = groups.committed[lane].saturating_sub(left);
        groups.read[lane] = groups.read[lane].max(upto);
        let mut known = warp.clock.clean();
        known.raise_lane(warp.clock.engine(agents.bulk_reads(index)), lane as u8, upto);
        let mine = |c: &Outgoing| {
            (c.rank, c.warp, usize::from(c.lane)) == (rank, index, lane) && c.group <= upto
        };
        let moved = if read {
            r.flights.read(r.banks, mine)
        } else {
            groups.done[lane] = groups.done[lane].max(upto);
            known.raise_lane(warp.clock.engine(agents.bulk_writes(index)), lane as u8, upto);
            r.flights.write(r.env.memory, r.banks, mine)
        };
        r.env.progress += u64::from(moved);
        warp.clock.acquire(lane as u8, &known);
    }
}

/// A thread ends: what it copies out must have been read, for its shared memory goes.
pub(super) fn leave(warp: &Warp, mask: u32) -> Res<()> {
    let groups = &warp.hopper.bulk;
    match lanes(mask).find(|&lane| groups.last[lane] > groups.read[lane]) {
        None => Ok(()),
        Some(lane) => trouble(
            FaultKind::InFlight,
            1 << lane,
            "the thread ends, and a bulk copy out of shared memory may not have read it: \
             cp.async.bulk.wait_group.read first",
        ),
    }
}

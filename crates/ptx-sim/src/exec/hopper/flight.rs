//! Bulk copies under way, and what happens when one lands. Both sides were checked when it was issued;
//! the bytes are read and written here, as early or as late as the launch's timing has it.

use std::sync::Arc;

use super::super::atomic::{apply, float_add};
use super::super::bank::Bank;
use crate::isa::hopper::RedTy;
use crate::isa::inst::{AtomOp, AtomTy, Float, FloatFlags, FloatOp, Round, Space};
use crate::mem::{Memory, split};
use crate::num::float::scalar;
use crate::tensor::TensorMap;

/// The other side of a copy.
#[derive(Clone, Debug)]
pub(crate) enum Far {
    Tensor(Arc<TensorMap>, [i32; 5]),
    Global(u64),
    /// Shared memory of a CTA of the cluster, by rank.
    Shared(usize, u32),
    Bytes(Vec<u8>),
}

/// A copy into shared memory; it completes on an mbarrier of the same CTA.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// The instruction, and the rank and warp that issued it.
    pub(crate) by: (u32, usize, u32),
    pub(crate) from: Far,
    pub(crate) rank: usize,
    pub(crate) to: u32,
    pub(crate) bytes: u32,
    pub(crate) barrier: u32,
    pub(crate) reduce: Option<(AtomOp, RedTy)>,
}

/// A copy out of shared memory; it belongs to a lane's bulk group.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// Rank, warp, lane and group.
    pub(crate) rank: usize,
    pub(crate) warp: u32,
    pub(crate) lane: u8,
    pub(crate) group: u32,
    pub(crate) from: u32,
    pub(crate) bytes: u32,
    pub(crate) to: Far,
    pub(crate) reduce: Option<(AtomOp, RedTy)>,
    /// What was read, once it was.
    held: Option<Vec<u8>>,
}

impl Outgoing {
    pub(crate) fn new(
        (rank, warp, lane, group): (usize, u32, u8, u32),
        (from, bytes): (u32, u32),
        to: Far,
        reduce: Option<(AtomOp, RedTy)>,
    ) -> Self {
        Outgoing { rank, warp, lane, group, from, bytes, to, reduce, held: None }
    }
}

/// All of a cluster's.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    pub(crate) incoming: Vec<Incoming>,
    pub(crate) outgoing: Vec<Outgoing>,
}

impl Flights {
    /// Lands the copy at `index`; what is wrong with its mbarrier comes back.
    pub(crate) fn land(
        &mut self,
        index: usize,
        memory: &mut Memory,
        banks: &mut [Bank],
    ) -> Result<(), String> {
        let copy = self.incoming.remove(index);
        if banks[copy.rank].ended {
            return Err("a copy lands in the shared memory of a CTA that has ended".into());
        }
        match &copy.from {
            Far::Tensor(map, at) => {
                let mut row_bytes = Vec::new();
                let shared = &mut banks[copy.rank].shared;
                for row in map.rows(*at) {
                    fill(&mut row_bytes, map);
                    let (skip, n) = (row.skip as usize, row.bytes as usize);
                    if n > 0 {
                        row_bytes[skip..skip + n].copy_from_slice(global(memory, row.address, n));
                    }
                    for (chunk, part) in row_bytes.chunks_exact(16).enumerate() {
                        let to = map.swizzle.apply(copy.to + row.at + 16 * chunk as u32);
                        shared.landed(to as usize, 16).copy_from_slice(part);
                    }
                }
            }
            far => {
                let n = copy.bytes as usize;
                let bytes = match far {
                    Far::Global(address) => global(memory, *address, n).to_vec(),
                    Far::Shared(rank, at) => banks[*rank].shared.landed(*at as usize, n).to_vec(),
                    Far::Bytes(bytes) => bytes.clone(),
                    Far::Tensor(..) => Vec::new(),
                };
                let to = banks[copy.rank].shared.landed(copy.to as usize, n);
                combine(to, &bytes, copy.reduce, Space::Shared);
            }
        }
        banks[copy.rank].barriers.land(copy.barrier, copy.bytes)
    }

    /// Reads the sources of those that `wanted` names.
    pub(crate) fn read(&mut self, banks: &mut [Bank], wanted: impl Fn(&Outgoing) -> bool) -> bool {
        let mut any = false;
        for copy in self.outgoing.iter_mut().filter(|c| c.held.is_none() && wanted(c)) {
            let shared = &mut banks[copy.rank].shared;
            let mut bytes = Vec::with_capacity(copy.bytes as usize);
            if let Far::Tensor(map, _) = &copy.to {
                for chunk in (0..copy.bytes).step_by(16) {
                    let from = map.swizzle.apply(copy.from + chunk);
                    bytes.extend_from_slice(shared.landed(from as usize, 16));
                }
            } else {
                bytes.extend_from_slice(shared.landed(copy.from as usize, copy.bytes as usize));
            }
            copy.held = Some(bytes);
            any = true;
        }
        any
    }

    /// Writes those that `wanted` names, reading them first if that has not been done.
    pub(crate) fn write(
        &mut self,
        memory: &mut Memory,
        banks: &mut [Bank],
        wanted: impl Fn(&Outgoing) -> bool,
    ) -> bool {
        self.read(banks, &wanted);
        let before = self.outgoing.len();
        self.outgoing.retain(|copy| {
            let now = wanted(copy);
            if let (true, Some(bytes)) = (now, &copy.held) {
                match &copy.to {
                    Far::Tensor(map, at) => {
                        for row in map.rows(*at).filter(|row| row.bytes > 0) {
                            let from = (row.at + row.skip) as usize;
                            let part = &bytes[from..from + row.bytes as usize];
                            let to = global(memory, row.address, part.len());
                            combine(to, part, copy.reduce, Space::Global);
                        }
                    }
                    Far::Global(address) => {
                        let to = global(memory, *address, bytes.len());
                        combine(to, bytes, copy.reduce, Space::Global);
                    }
                    Far::Shared(..) | Far::Bytes(_) => {}
                }
            }
            !now
        });
        before != self.outgoing.len()
    }
}

/// A row of elements that lie outside.
fn fill(row: &mut Vec<u8>, map: &TensorMap) {
    let (element, n) = (map.fill(), map.ty.bytes() as usize);
    row.clear();
    row.resize(map.row_bytes() as usize, 0);
    if map.nan_fill {
        row.chunks_exact_mut(n).for_each(|to| to.copy_from_slice(&element[..n]));
    }
}

/// Bytes that were checked when the copy was issued.
fn global(memory: &mut Memory, address: u64, n: usize) -> &mut [u8] {
    let (region, at) = split(address);
    match memory.region(region) {
        Some(region) => region.landed(at as usize, n),
        // Freed while the copy was under way: the free has said so.
        None => &mut [],
    }
}

/// Puts `bytes` there, or what comes of them and of what is there.
fn combine(to: &mut [u8], bytes: &[u8], reduce: Option<(AtomOp, RedTy)>, space: Space) {
    if to.len() != bytes.len() {
        return;
    }
    let Some((op, ty)) = reduce else {
        to.copy_from_slice(bytes);
        return;
    };
    let n = ty.bytes() as usize;
    for (to, from) in to.chunks_exact_mut(n).zip(bytes.chunks_exact(n)) {
        let word = |bytes: &[u8]| {
            let mut word = [0; 8];
            word[..n].copy_from_slice(bytes);
            u64::from_le_bytes(word)
        };
        let new = reduced(op, ty, space, word(to), word(from));
        to.copy_from_slice(&new.to_le_bytes()[..n]);
    }
}

fn reduced(op: AtomOp, ty: RedTy, space: Space, old: u64, new: u64) -> u64 {
    let ty = match ty {
        RedTy::Unsigned(bits) => AtomTy::Unsigned(bits),
        RedTy::Signed(bits) => AtomTy::Signed(bits),
        RedTy::Bits(bits) => AtomTy::Bits(bits),
        RedTy::Float(float) => match op {
            AtomOp::Min => return least(FloatOp::Min, float, old, new),
            AtomOp::Max => return least(FloatOp::Max, float, old, new),
            _ => return float_add(float, float == Float::F32, old, new),
        },
    };
    apply(op, ty, space, old, new, 0)
}

fn least(op: FloatOp, float: Float, a: u64, b: u64) -> u64 {
    let flags = FloatFlags {
        float,
        packed: false,
        round: Round::Nearest,
        ftz: false,
        sat: false,
        relu: false,
        approx: false,
    };
    scalar(op, &flags, [a, b, 0])
}

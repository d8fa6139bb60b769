//! The dense form of what came with Hopper: mbarriers, bulk copies, warpgroup matrices, clusters. One
//! variant of [`Op`](super::inst::Op) holds them all, so that the other instructions stay small.

use super::operand::{Addr, AtomOp, Element, Float, MmaTy, PSlot, Slot, Sums};

/// What an mbarrier's arrival says of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Release,
    Acquire,
    Relaxed,
}

/// What is done to an mbarrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MbarrierOp {
    Init,
    Inval,
    /// `expect` says that `n` is a byte count that is announced with one arrival.
    Arrive {
        expect: bool,
        drop: bool,
        /// The arrival must not complete the phase.
        no_complete: bool,
        order: Order,
    },
    ExpectTx,
    CompleteTx,
}

#[derive(Clone, Debug)]
pub(crate) struct Mbarrier {
    pub(crate) op: MbarrierOp,
    pub(crate) addr: Addr,
    /// Count of arrivals or bytes; 1 arrival where none is given.
    pub(crate) n: Option<Slot>,
    /// The state before, where it is asked for.
    pub(crate) d: Option<Slot>,
}

#[derive(Clone, Debug)]
pub(crate) struct MbarrierWait {
    pub(crate) addr: Addr,
    pub(crate) d: PSlot,
    /// A phase's parity, or else the state that an arrival returned.
    pub(crate) parity: bool,
    pub(crate) phase: Slot,
    /// `try_wait`: the thread may be suspended.
    pub(crate) suspends: bool,
    pub(crate) order: Order,
}

/// Element types of `cp.reduce.async.bulk` and `red.async`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RedTy {
    Unsigned(u32),
    Signed(u32),
    Bits(u32),
    Float(Float),
}

impl RedTy {
    pub(crate) fn bytes(self) -> u32 {
        match self {
            RedTy::Unsigned(b) | RedTy::Signed(b) | RedTy::Bits(b) => b / 8,
            RedTy::Float(Float::F16 | Float::Bf16) => 2,
            RedTy::Float(Float::F32) => 4,
            RedTy::Float(Float::F64) => 8,
        }
    }
}

/// Where a bulk copy begins or ends.
#[derive(Clone, Debug)]
pub(crate) enum BulkEnd {
    Global(Addr),
    Shared(Addr),
    /// The map's address and the coordinates, innermost first.
    Tensor(Addr, Vec<Slot>),
}

#[derive(Clone, Debug)]
pub(crate) struct Bulk {
    pub(crate) to: BulkEnd,
    pub(crate) from: BulkEnd,
    /// Bytes; a tensor's box has its own.
    pub(crate) size: Option<Slot>,
    /// The mbarrier that it completes on; without one it joins the thread's bulk group.
    pub(crate) barrier: Option<Addr>,
    /// CTAs of the cluster that receive it, one bit each.
    pub(crate) multicast: Option<Slot>,
    /// Combined with what is there; a tensor's map has the type.
    pub(crate) reduce: Option<(AtomOp, Option<RedTy>)>,
}

/// `wgmma.mma_async`.
#[derive(Clone, Debug)]
pub(crate) struct Wgmma {
    pub(crate) ty: MmaTy,
    /// Bytes or eight-bit floats instead: of A, of B, and their sums.
    pub(crate) narrow: Option<(Element, Element, Sums)>,
    pub(crate) n: u32,
    /// D holds f16 pairs instead of f32.
    pub(crate) half: bool,
    pub(crate) d: Vec<Slot>,
    pub(crate) a: WgmmaA,
    pub(crate) b: Slot,
    pub(crate) scale_d: ScaleD,
    pub(crate) negate_a: bool,
    pub(crate) negate_b: bool,
    /// The operand is stored with its rows or columns together instead of k.
    pub(crate) transpose_a: bool,
    pub(crate) transpose_b: bool,
}

impl Wgmma {
    pub(crate) fn k(&self) -> u32 {
        match self.narrow {
            Some(_) => 32,
            None if self.ty == MmaTy::Tf32 => 8,
            None => 16,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum WgmmaA {
    Registers([Slot; 4]),
    Shared(Slot),
}

/// Whether D's old value is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScaleD {
    Known(bool),
    Pred(PSlot, bool),
}

#[derive(Clone, Debug)]
pub(crate) enum Hopper {
    Mbarrier(Mbarrier),
    Wait(MbarrierWait),
    /// Arrivals still to come, out of a state.
    PendingCount {
        d: Slot,
        state: Slot,
    },
    /// Arrives when the thread's copies so far have landed.
    CopiesArrive {
        addr: Addr,
        /// The arrival is one of those that the phase waits for.
        counted: bool,
    },
    Bulk(Bulk),
    BulkCommit,
    BulkWait {
        left: u32,
        /// Only until the sources have been read.
        read: bool,
    },
    /// Looks at the tensor map's address, moves nothing.
    PrefetchMap {
        addr: Addr,
    },
    Wgmma(Box<Wgmma>),
    WgmmaFence,
    WgmmaCommit,
    WgmmaWait {
        left: u32,
    },
    ProxyFence {
        shared: bool,
        global: bool,
    },
    InitFence,
    MaxRegisters {
        more: bool,
        count: u32,
    },
    Elect {
        d: Option<Slot>,
        p: PSlot,
        members: Slot,
    },
    GridWait,
    GridLaunch,
    Stmatrix {
        addr: Addr,
        transpose: bool,
        s: Vec<Slot>,
    },
    /// An address of another CTA's shared memory; `generic` as cvta makes it.
    Mapa {
        d: Slot,
        a: Slot,
        rank: Slot,
        generic: bool,
    },
    /// Whose shared memory an address lies in.
    CtaRank {
        d: Slot,
        a: Slot,
        generic: bool,
    },
    ClusterArrive {
        aligned: bool,
        relaxed: bool,
    },
    ClusterWait {
        aligned: bool,
    },
    /// `st.async`, `red.async`: values into another CTA's shared memory, completing on its mbarrier.
    StoreAsync {
        addr: Addr,
        barrier: Addr,
        size: u32,
        s: Vec<Slot>,
        reduce: Option<(AtomOp, RedTy)>,
    },
}

impl Hopper {
    /// Every lane of the warp must run it at once.
    pub(crate) fn collective(&self) -> bool {
        match self {
            Hopper::Wgmma(_)
            | Hopper::WgmmaFence
            | Hopper::WgmmaCommit
            | Hopper::WgmmaWait { .. }
            | Hopper::MaxRegisters { .. }
            | Hopper::Stmatrix { .. } => true,
            Hopper::ClusterArrive { aligned, .. } | Hopper::ClusterWait { aligned } => *aligned,
            _ => false,
        }
    }
}

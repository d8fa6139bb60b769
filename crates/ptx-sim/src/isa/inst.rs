//! The dense instruction. Operands are slots of the warp's register file; immediates and the
//! specials that never change (`%tid.x`) are slots filled before the first instruction, so that
//! execution has one kind of operand.

use super::hopper::Hopper;
pub(crate) use super::operand::*;

#[derive(Clone, Debug)]
pub(crate) struct Inst {
    pub(crate) guard: Option<(PSlot, bool)>,
    pub(crate) line: u32,
    pub(crate) op: Op,
}

#[derive(Clone, Debug)]
pub(crate) struct Mma {
    pub(crate) ty: MmaTy,
    pub(crate) k: u32,
    /// D and C are f16 pairs instead of f32.
    pub(crate) half: bool,
    pub(crate) d: Vec<Slot>,
    pub(crate) a: Vec<Slot>,
    pub(crate) b: Vec<Slot>,
    pub(crate) c: Vec<Slot>,
}

/// `mma` of other elements: see [`Element`].
#[derive(Clone, Debug)]
pub(crate) struct NarrowMma {
    /// Of A: 16 or 8.
    pub(crate) rows: u32,
    pub(crate) k: u32,
    /// Of A and of B.
    pub(crate) types: (Element, Element),
    pub(crate) sums: Sums,
    pub(crate) d: Vec<Slot>,
    pub(crate) a: Vec<Slot>,
    pub(crate) b: Vec<Slot>,
    pub(crate) c: Vec<Slot>,
}

#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) addr: Addr,
    pub(crate) sem: Sem,
    /// Bytes of one element.
    pub(crate) size: u32,
    /// `Some` sign-extends; the value is the destination's bits.
    pub(crate) sign: Option<u32>,
    pub(crate) d: Vec<Option<Slot>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) addr: Addr,
    pub(crate) sem: Sem,
    pub(crate) size: u32,
    pub(crate) s: Vec<Slot>,
}

#[derive(Clone, Debug)]
pub(crate) struct Atom {
    pub(crate) addr: Addr,
    pub(crate) sem: Sem,
    pub(crate) op: AtomOp,
    pub(crate) ty: AtomTy,
    /// An element each of a vector; `None` for `red` and for `_`.
    pub(crate) d: Vec<Option<Slot>>,
    pub(crate) a: Vec<Slot>,
    /// `cas`: the new value.
    pub(crate) b: Option<Slot>,
}

#[derive(Clone, Debug)]
pub(crate) struct CpAsync {
    pub(crate) dst: Addr,
    pub(crate) src: Addr,
    pub(crate) size: u32,
    pub(crate) src_size: Option<Slot>,
    /// Lanes in which this holds copy zeros.
    pub(crate) ignore: Option<(PSlot, bool)>,
}

/// Sums whose carry is kept, or comes in.
#[derive(Clone, Debug)]
pub(crate) struct Carry {
    pub(crate) op: CarryOp,
    pub(crate) bits: u32,
    pub(crate) signed: bool,
    pub(crate) d: Slot,
    pub(crate) a: Slot,
    pub(crate) b: Slot,
    pub(crate) c: Option<Slot>,
    /// The predicate that stands for `CC.CF`.
    pub(crate) flag: PSlot,
    pub(crate) reads: bool,
    pub(crate) writes: bool,
}

/// An operation on each of `n` parts of a register.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    pub(crate) op: PackedOp,
    pub(crate) n: u32,
    /// Of the result, of `a`, of `b`.
    pub(crate) signs: [bool; 3],
    pub(crate) sat: bool,
    pub(crate) relu: bool,
    /// The sum of all parts and of `c`.
    pub(crate) sum: bool,
    pub(crate) d: Slot,
    pub(crate) a: Slot,
    pub(crate) b: Slot,
    pub(crate) c: Slot,
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Mov {
        d: Slot,
        a: Slot,
    },
    MovPred {
        d: PSlot,
        a: PSlot,
        negate: bool,
    },
    SetPred {
        d: PSlot,
        value: bool,
    },
    Clock {
        d: Slot,
        bits: u32,
        /// The upper half of the count.
        high: bool,
    },
    /// `mov.b64 d, {a, b}`: elements of `bits`, the first lowest.
    Pack {
        d: Slot,
        s: Vec<Slot>,
        bits: u32,
    },
    Unpack {
        d: Vec<Option<Slot>>,
        s: Slot,
        bits: u32,
    },
    Unary {
        op: Unary,
        bits: u32,
        d: Slot,
        a: Slot,
    },
    Binary {
        op: Binary,
        bits: u32,
        signed: bool,
        d: Slot,
        a: Slot,
        b: Slot,
    },
    Ternary {
        op: Ternary,
        bits: u32,
        signed: bool,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    Bfi {
        bits: u32,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
        e: Slot,
    },
    Carry(Box<Carry>),
    Packed(Box<Packed>),
    Lop3Pred {
        op: Logic,
        table: u8,
        d: Option<Slot>,
        p: PSlot,
        s: [Slot; 3],
        q: (PSlot, bool),
    },
    /// `yes` where the comparison holds, else zero.
    Set {
        cmp: Cmp,
        ty: CmpTy,
        bits: u32,
        yes: u32,
        d: Slot,
        a: Slot,
        b: Slot,
        and: Option<(Logic, PSlot, bool)>,
    },
    Testp {
        test: Test,
        double: bool,
        p: PSlot,
        a: Slot,
    },
    Isspacep {
        space: Space,
        p: PSlot,
        a: Slot,
    },
    /// An 8×8 matrix of 16 bits, its rows and columns exchanged.
    Movmatrix {
        d: Slot,
        a: Slot,
    },
    Float {
        op: FloatOp,
        flags: FloatFlags,
        d: Slot,
        s: [Slot; 3],
        n: u8,
    },
    Cvt {
        kind: CvtKind,
        d: Slot,
        a: Slot,
        extend: u32,
    },
    /// Two f32 into one packed pair: `a` above, `b` below.
    CvtPair {
        to: Float,
        round: Round,
        relu: bool,
        satfinite: bool,
        d: Slot,
        a: Slot,
        b: Slot,
    },
    /// Two f32 into two bytes: `a` above, `b` below.
    CvtFp8 {
        fp8: Fp8,
        relu: bool,
        d: Slot,
        a: Slot,
        b: Slot,
    },
    Setp {
        cmp: Cmp,
        ty: CmpTy,
        bits: u32,
        p: PSlot,
        q: Option<PSlot>,
        a: Slot,
        b: Slot,
        and: Option<(Logic, PSlot, bool)>,
    },
    /// Each source may be negated.
    LogicPred {
        op: Logic,
        d: PSlot,
        a: (PSlot, bool),
        b: (PSlot, bool),
    },
    Selp {
        d: Slot,
        a: Slot,
        b: Slot,
        p: PSlot,
    },
    Slct {
        float: bool,
        ftz: bool,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    /// `uniform`: all lanes must agree.
    Bra {
        target: u32,
        uniform: bool,
    },
    /// `brx.idx`: to the target that the index names.
    BraTable {
        index: Slot,
        targets: Vec<u32>,
        uniform: bool,
    },
    Exit,
    Trap,
    Nanosleep,
    Load(Load),
    Store(Store),
    Atom(Atom),
    Fence {
        scope: Scope,
        sc: bool,
    },
    /// No effect: an address that does not exist is no error, by the ISA.
    Prefetch,
    /// Adds (`to` generic) or removes the shared window.
    Cvta {
        d: Slot,
        a: Slot,
        space: Space,
        to_space: bool,
    },
    CpAsync(CpAsync),
    CpCommit,
    /// `None`: `wait_all`.
    CpWait {
        left: Option<u32>,
    },
    Ldmatrix {
        addr: Addr,
        transpose: bool,
        d: Vec<Slot>,
    },
    Mma(Box<Mma>),
    NarrowMma(Box<NarrowMma>),
    Shfl {
        mode: ShflMode,
        d: Slot,
        p: Option<PSlot>,
        a: Slot,
        b: Slot,
        c: Slot,
        members: Slot,
    },
    Vote {
        mode: VoteMode,
        d: Slot,
        a: PSlot,
        negate: bool,
        members: Slot,
    },
    Redux {
        op: ReduxOp,
        signed: bool,
        d: Slot,
        a: Slot,
        members: Slot,
    },
    /// `any`: lanes with the same value; else all of them or none, with a predicate.
    Match {
        any: bool,
        d: Slot,
        p: Option<PSlot>,
        a: Slot,
        members: Slot,
    },
    Activemask {
        d: Slot,
    },
    WarpSync {
        members: Slot,
    },
    Bar {
        kind: BarKind,
        aligned: bool,
        id: Slot,
        count: Option<Slot>,
        d: u16,
        p: Option<(PSlot, bool)>,
    },
    /// What came with Hopper.
    Hopper(Box<Hopper>),
}

/// Who comes together in an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meeting {
    /// All lanes that still live.
    All,
    /// Those that a register names.
    Members(Slot),
}

impl Op {
    /// Who must run the instruction at once.
    pub(crate) fn meeting(&self) -> Option<Meeting> {
        match self {
            Op::Shfl { members, .. }
            | Op::Vote { members, .. }
            | Op::Redux { members, .. }
            | Op::Match { members, .. }
            | Op::WarpSync { members } => Some(Meeting::Members(*members)),
            Op::Bar { .. } => Some(Meeting::All),
            Op::Hopper(op) => match **op {
                Hopper::Elect { members, .. } => Some(Meeting::Members(members)),
                Hopper::ClusterArrive { .. } | Hopper::ClusterWait { .. } => Some(Meeting::All),
                _ => op.collective().then_some(Meeting::All),
            },
            _ => self.collective().then_some(Meeting::All),
        }
    }

    /// `mma` and `ldmatrix` need all 32 lanes; `.aligned` barriers every lane that still lives.
    pub(crate) fn collective(&self) -> bool {
        match self {
            Op::Mma(_)
            | Op::Ldmatrix { .. }
            | Op::Movmatrix { .. }
            | Op::Bar { aligned: true, .. } => true,
            Op::Hopper(op) => op.collective(),
            _ => false,
        }
    }

    /// Of those, the ones that only lanes that still live have to meet in.
    pub(crate) fn among_the_living(&self) -> bool {
        match self {
            Op::Bar { .. } => true,
            Op::Hopper(op) => {
                matches!(**op, Hopper::ClusterArrive { .. } | Hopper::ClusterWait { .. })
            }
            _ => false,
        }
    }
}

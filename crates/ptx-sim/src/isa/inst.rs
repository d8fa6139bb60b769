//! The dense instruction. Operands are slots of the warp's register file; immediates and the
//! specials that never change (`%tid.x`) are slots filled before the first instruction, so that
//! execution has one kind of operand.

use super::hopper::Hopper;

/// Index into the register file.
pub(crate) type Slot = u16;
/// Index into the predicate file.
pub(crate) type PSlot = u16;

#[derive(Clone, Debug)]
pub(crate) struct Inst {
    pub(crate) guard: Option<(PSlot, bool)>,
    pub(crate) line: u32,
    pub(crate) op: Op,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unary {
    Not,
    Neg,
    Abs,
    Popc,
    Clz,
    Brev,
    /// Position of the highest bit that differs from the sign, or how far it is from the top.
    Bfind {
        signed: bool,
        shift: bool,
    },
}

/// Modes of `prmt` other than the general one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prmt {
    ForwardExtract,
    BackwardExtract,
    Replicate8,
    EdgeLeft,
    EdgeRight,
    Replicate16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binary {
    Add,
    Sub,
    MulLo,
    MulHi,
    MulWide,
    /// `.sat`, of s32 alone.
    AddSat,
    SubSat,
    Div,
    Rem,
    Min,
    Max,
    And,
    Or,
    Xor,
    Shl,
    Shr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ternary {
    MadLo,
    MadHi,
    MadWide,
    MadHiSat,
    Bfe,
    Prmt,
    PrmtMode(Prmt),
    Lop3(u8),
    /// `left`, `wrap`
    Shf(bool, bool),
}

/// Formats that float arithmetic works in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Float {
    F16,
    Bf16,
    F32,
    F64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FloatOp {
    Add,
    Sub,
    Mul,
    Fma,
    Div,
    /// `div.approx`: zero, or NaN for infinity, above 2^126.
    DivApprox,
    Min,
    Max,
    MinNan,
    MaxNan,
    Neg,
    Abs,
    Rcp,
    Sqrt,
    Rsqrt,
    Ex2,
    Lg2,
    Sin,
    Cos,
    Tanh,
}

/// Rounding, as `.rn` and its kin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    Nearest,
    Zero,
    Down,
    Up,
    /// Ties away from zero: `cvt.rna.tf32`.
    Away,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct FloatFlags {
    pub(crate) float: Float,
    pub(crate) packed: bool,
    pub(crate) round: Round,
    pub(crate) ftz: bool,
    pub(crate) sat: bool,
    pub(crate) relu: bool,
    /// The result may differ on hardware within a documented error.
    pub(crate) approx: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cmp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// Unordered forms: true when an operand is NaN.
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    Num,
    Nan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CmpTy {
    Unsigned,
    Signed,
    /// With `.ftz` or without.
    Float(Float, bool),
    /// Two of 16 bits: `p` is of the lower ones, `q` of the upper.
    Pair(Float, bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logic {
    And,
    Or,
    Xor,
}

/// Operands of `cvt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CvtKind {
    /// From (bits, signed) to (bits, signed), clamped with `.sat`.
    IntInt {
        from: (u32, bool),
        to: (u32, bool),
        sat: bool,
    },
    IntFloat {
        from: (u32, bool),
        to: Float,
        round: Round,
        sat: bool,
    },
    FloatInt {
        from: Float,
        to: (u32, bool),
        round: Round,
        ftz: bool,
    },
    /// `integral`: `.rni` and its kin round to an integer in the same format.
    FloatFloat {
        from: Float,
        to: Float,
        round: Round,
        ftz: bool,
        sat: bool,
        relu: bool,
        satfinite: bool,
        integral: bool,
    },
    Tf32 {
        round: Round,
        relu: bool,
        satfinite: bool,
    },
    /// Two f16 into two bytes.
    ToFp8 {
        fp8: Fp8,
        relu: bool,
    },
    /// Two bytes into two f16.
    FromFp8 {
        fp8: Fp8,
        relu: bool,
    },
}

/// The formats of eight bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fp8 {
    E4m3,
    E5m2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    Global,
    Shared,
    /// Shared memory of any CTA of the cluster.
    Cluster,
    Param,
    Local,
    Const,
    Generic,
}

/// How strongly an access is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sem {
    Weak,
    /// `.nc`: only for bytes nobody writes during the launch.
    NonCoherent,
    Relaxed(Scope),
    Acquire(Scope),
    Release(Scope),
    AcqRel(Scope),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    Cta,
    Cluster,
    Gpu,
    Sys,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Addr {
    pub(crate) base: Slot,
    pub(crate) offset: i64,
    pub(crate) space: Space,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtomOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Inc,
    Dec,
    Exch,
    Cas,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtomTy {
    Bits(u32),
    Unsigned(u32),
    Signed(u32),
    Float(Float),
    /// Two of 16 bits, added each for itself.
    Pair(Float),
}

impl AtomTy {
    pub(crate) fn bits(self) -> u32 {
        match self {
            AtomTy::Bits(b) | AtomTy::Unsigned(b) | AtomTy::Signed(b) => b,
            AtomTy::Float(Float::F16 | Float::Bf16) => 16,
            AtomTy::Float(Float::F64) => 64,
            AtomTy::Float(Float::F32) | AtomTy::Pair(_) => 32,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShflMode {
    Up,
    Down,
    Bfly,
    Idx,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VoteMode {
    All,
    Any,
    Uni,
    Ballot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReduxOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BarKind {
    Sync,
    Arrive,
    /// `bar.red.and`, `.or` and `.popc`.
    RedAnd,
    RedOr,
    RedPopc,
}

/// Operand formats of `mma.sync`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MmaTy {
    F16,
    Bf16,
    Tf32,
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
    Exit,
    Trap,
    Nanosleep,
    Load(Load),
    Store(Store),
    Atom(Atom),
    Fence {
        scope: Scope,
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

impl Op {
    /// `mma` and `ldmatrix` need all 32 lanes; `.aligned` barriers every lane that still lives.
    pub(crate) fn collective(&self) -> bool {
        match self {
            Op::Mma(_) | Op::Ldmatrix { .. } | Op::Bar { aligned: true, .. } => true,
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

//! What instructions are made of: slots, formats, spaces, orders, the names of operations. Knows no
//! instruction.

/// Index into the register file.
pub(crate) type Slot = u16;
/// Index into the predicate file.
pub(crate) type PSlot = u16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unary {
    Not,
    Neg,
    Abs,
    Popc,
    /// 1 where there is nothing.
    Cnot,
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
    /// Factors of 24 bits; `mul24` adds zero.
    Mad24 {
        high: bool,
        sat: bool,
    },
    Sad,
    /// Whether the bytes of each factor are signed.
    Dp4a((bool, bool)),
    /// Likewise, and whether the upper bytes of `b` are meant.
    Dp2a((bool, bool), bool),
    /// `wrap`; the third operand is none.
    Bmsk(bool),
    Szext(bool),
    Fns,
    /// Bits and sign of each of the two.
    CvtPack((u32, bool)),
    Copysign,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CarryOp {
    Add,
    Sub,
    MadLo,
    MadHi,
}

/// What is done to each half or byte of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PackedOp {
    Add,
    Sub,
    Average,
    Difference,
    Min,
    Max,
    Set(Cmp),
}

/// What `testp` asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    Finite,
    Infinite,
    Number,
    NotANumber,
    Normal,
    Subnormal,
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

/// Elements of the matrices that are not of 16 bits or tf32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    /// Bits, and whether there is a sign.
    Int(u32, bool),
    Fp8(Fp8),
    F64,
}

impl Element {
    pub(crate) fn per_register(self) -> u32 {
        match self {
            Element::Int(bits, _) => 32 / bits,
            Element::Fp8(_) => 4,
            Element::F64 => 1,
        }
    }
}

/// Their sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sums {
    Int { saturate: bool },
    F32,
    F16,
    F64,
}

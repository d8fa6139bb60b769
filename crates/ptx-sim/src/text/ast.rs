//! The syntax tree: what was written, with its place, before any of it has a meaning.

/// Line and column, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) target: String,
    pub(crate) vars: Vec<Var>,
    pub(crate) funcs: Vec<Func>,
    pub(crate) entries: Vec<Entry>,
}

/// A variable of some state space, or a `.param`.
#[derive(Debug)]
pub(crate) struct Var {
    pub(crate) name: String,
    pub(crate) space: String,
    pub(crate) is_extern: bool,
    pub(crate) align: u32,
    /// Bytes; 0 for `name[]`.
    pub(crate) bytes: u64,
    /// Initial bytes of a `.global` or `.const` variable; what is left out is zero.
    pub(crate) init: Vec<u8>,
    pub(crate) span: Span,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) params: Vec<Var>,
    pub(crate) maxntid: Option<[u32; 3]>,
    pub(crate) reqntid: Option<[u32; 3]>,
    pub(crate) minnctapersm: u32,
    pub(crate) maxnreg: Option<u32>,
    /// `.reqnctapercluster`
    pub(crate) cluster: Option<[u32; 3]>,
    pub(crate) max_cluster_rank: Option<u32>,
    pub(crate) body: Vec<Stmt>,
    pub(crate) span: Span,
}

/// A device function.
#[derive(Debug)]
pub(crate) struct Func {
    pub(crate) name: String,
    pub(crate) returns: Vec<Formal>,
    pub(crate) params: Vec<Formal>,
    /// `None`: declared only.
    pub(crate) body: Option<Vec<Stmt>>,
    pub(crate) span: Span,
}

/// What a function takes or returns: bytes that are passed, or a register.
#[derive(Debug)]
pub(crate) enum Formal {
    Param(Var),
    Reg { ty: String, name: String },
}

#[derive(Debug)]
pub(crate) enum Stmt {
    Reg {
        ty: String,
        name: String,
        count: Option<u32>,
        span: Span,
    },
    Var(Var),
    /// `name: .branchtargets a, b;`
    Targets(String, Vec<String>, Span),
    Label(String, Span),
    Block(Vec<Stmt>),
    Inst(Inst),
}

#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) name: String,
    pub(crate) negated: bool,
}

#[derive(Debug)]
pub(crate) struct Inst {
    pub(crate) guard: Option<Guard>,
    pub(crate) op: String,
    pub(crate) mods: Vec<String>,
    pub(crate) operands: Vec<Operand>,
    pub(crate) span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand {
    /// A register, label or variable; `%tid.x` keeps its dot.
    Name(String),
    /// `name+4` outside of brackets.
    NameOffset(String, i64),
    /// Two's complement and whether a minus was written.
    Int(u64, bool),
    F32(u32),
    F64(u64),
    Vector(Vec<Operand>),
    /// `(a, b)` of a call.
    Arguments(Vec<Operand>),
    /// `[base+offset]`
    Address(Box<Operand>, i64),
    /// `[map+offset, {x, y}]`
    Tensor(Box<Operand>, i64, Vec<Operand>),
    /// `a|b`
    Pair(Box<Operand>, Box<Operand>),
    /// `!p`
    Not(Box<Operand>),
    /// `_`
    Sink,
}

//! What a launch that failed a check reports: what, where, who else, and the seed to replay it.

use std::fmt;

/// The kind of a [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// An access leaves its allocation, or lies in none.
    OutOfBounds,
    /// An address is not a multiple of the access's size.
    Misaligned,
    /// A byte of shared or global memory is read that nobody wrote.
    UninitialisedMemory,
    /// A register or predicate is read that was never written.
    UnwrittenRegister,
    /// Two accesses conflict and neither happens before the other.
    Race,
    /// Bytes read through `.nc` are written in the same launch.
    NonCoherent,
    /// A barrier's number, count or use is wrong.
    Barrier,
    /// An instruction that needs the whole warp ran in a part of it, or a member is missing.
    PartialWarp,
    /// No warp can go on.
    Deadlock,
    /// The instruction budget is spent.
    Budget,
    /// `bra.uni` and lanes disagree.
    DivergentUniform,
    /// Integer division by zero.
    DivisionByZero,
    /// `trap`.
    Trap,
    /// An asynchronous copy is misused: src-size above cp-size.
    AsyncCopy,
    /// The asynchronous proxy meets generic writes without a proxy fence in between.
    Proxy,
    /// An mbarrier is misused: its life, its counts, its phases.
    Mbarrier,
    /// A register of `wgmma` is touched while it may be read or written, or without a fence.
    MatrixRegister,
    /// The warps of a group do not run the same `wgmma` or `setmaxnreg`.
    Warpgroup,
    /// `setmaxnreg` goes against what the CTA has.
    RegisterPool,
    /// A cluster's barrier is misused, or a CTA's shared memory is used when the CTA is gone.
    Cluster,
    /// A CTA ends while copies are under way that need it.
    InFlight,
    /// Something legal that is not simulated.
    NotSimulated,
}

/// The earlier access that a race is with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// Whose it was, when not the same launch's: another launch, a copy, the host.
    pub by: Option<String>,
    /// Line in the PTX text; 0 when no kernel did it.
    pub line: u32,
    /// Linear number of the CTA.
    pub cta: u32,
    /// Warp in the CTA.
    pub warp: u32,
    /// Lanes, one bit each.
    pub lanes: u32,
    /// The access was an asynchronous copy.
    pub asynchronous: bool,
    /// It wrote.
    pub write: bool,
}

/// Where a warp stands when a launch stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarpState {
    /// Linear number of the CTA.
    pub cta: u32,
    /// Warp in the CTA.
    pub warp: u32,
    /// Line of the next instruction.
    pub line: u32,
    /// Lanes that stand there.
    pub lanes: u32,
    /// What it waits for.
    pub waits: String,
}

/// A failed check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What kind.
    pub kind: FaultKind,
    /// Name of the text.
    pub file: String,
    /// Entry that ran, or what else it was: a copy, a free.
    pub entry: String,
    /// Line in the PTX text; 0 when no kernel did it.
    pub line: u32,
    /// CTA, as `%ctaid`.
    pub cta: [u32; 3],
    /// Warp in the CTA.
    pub warp: u32,
    /// Lanes concerned, one bit each.
    pub lanes: u32,
    /// What happened, in words.
    pub message: String,
    /// The other access of a race.
    pub other: Option<Other>,
    /// Every live warp, for deadlocks and spent budgets.
    pub warps: Vec<WarpState>,
    /// The launch's seed: the same seed, schedule and timing replay the fault.
    pub seed: u64,
}

impl Fault {
    /// A fault of something that is no kernel.
    pub(crate) fn of(name: &str, kind: FaultKind, message: String) -> Fault {
        Fault {
            kind,
            file: String::new(),
            entry: name.into(),
            line: 0,
            cta: [0; 3],
            warp: 0,
            lanes: 0,
            message,
            other: None,
            warps: Vec::new(),
            seed: 0,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.cta;
        if self.line == 0 {
            write!(f, "{}: {:?}: {}", self.entry, self.kind, self.message)?;
        } else {
            write!(f, "{}:{}: {:?}: {}", self.file, self.line, self.kind, self.message)?;
            write!(
                f,
                " [entry {}, CTA ({x},{y},{z}), warp {}, lanes {:#010x}]",
                self.entry, self.warp, self.lanes
            )?;
        }
        if let Some(o) = &self.other {
            let verb = if o.write { "write" } else { "read" };
            let how = if o.asynchronous { "asynchronous " } else { "" };
            write!(f, "; the other access: {how}{verb}")?;
            if o.line > 0 {
                write!(f, " at line {}", o.line)?;
                write!(f, " by CTA {}, warp {}, lanes {:#010x}", o.cta, o.warp, o.lanes)?;
            }
            if let Some(by) = &o.by {
                write!(f, " of {by}")?;
            }
        }
        for w in &self.warps {
            write!(
                f,
                "\n  CTA {} warp {} lanes {:#010x} at line {}: {}",
                w.cta, w.warp, w.lanes, w.line, w.waits
            )?;
        }
        if self.line > 0 { write!(f, "; seed {}", self.seed) } else { Ok(()) }
    }
}

impl std::error::Error for Fault {}

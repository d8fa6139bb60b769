//! What handles lead to: contexts, streams, events, modules, graphs, captures. Data alone: the calls that
//! work on it stand in the files of these names, and [`Driver`](crate::driver::Driver) holds it all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use ptx_sim::Module;

use crate::code::{Code, Res, fail};
use crate::queue::{OpId, Work};

pub(crate) type Handle = usize;

/// Where a call comes from.
#[derive(Clone, Copy)]
pub(crate) struct Site {
    /// The C function.
    pub(crate) name: &'static str,
    /// Whether stream 0 is the thread's own: the `_ptsz` and `_ptds` names.
    pub(crate) per_thread: bool,
    /// The host thread.
    pub(crate) thread: u64,
}

#[derive(Default)]
pub(crate) struct Context {
    pub(crate) flags: u32,
    /// The first failed check: what all calls return from then on.
    pub(crate) fault: Option<Code>,
    pub(crate) limits: HashMap<i32, usize>,
    pub(crate) cache: i32,
    /// Last work of streams that are destroyed, and whether they were blocking ones.
    pub(crate) orphans: Vec<(OpId, bool)>,
}

#[derive(Default)]
pub(crate) struct Primary {
    pub(crate) ctx: Option<Handle>,
    pub(crate) refs: u32,
    pub(crate) flags: u32,
}

/// A stream of a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StreamKey {
    Legacy(Handle),
    /// A thread's own default stream.
    PerThread(Handle, u64),
    Made(Handle),
}

pub(crate) struct Stream {
    pub(crate) ctx: Handle,
    /// Takes part in the legacy stream's order.
    pub(crate) blocking: bool,
    pub(crate) priority: i32,
    pub(crate) tail: Option<OpId>,
    /// The capture that it takes part in, and the nodes that its next one comes after.
    pub(crate) capture: Option<(u64, Vec<usize>)>,
}

impl Stream {
    pub(crate) fn new(ctx: Handle, blocking: bool, priority: i32) -> Self {
        Stream { ctx, blocking, priority, tail: None, capture: None }
    }
}

/// What an event was last recorded in.
pub(crate) enum Recorded {
    Never,
    Stream(OpId),
    /// In a capture: the nodes that it stands for.
    Capture(u64, Vec<usize>),
}

pub(crate) struct Event {
    pub(crate) ctx: Handle,
    /// When it happened, unless the event keeps no time.
    pub(crate) time: Option<Arc<Mutex<Option<Instant>>>>,
    pub(crate) recorded: Recorded,
}

pub(crate) struct Loaded {
    pub(crate) ctx: Handle,
    pub(crate) module: Arc<Module>,
    /// `.version` times ten.
    pub(crate) version: i32,
}

#[derive(Clone)]
pub(crate) struct Function {
    pub(crate) module: Handle,
    pub(crate) code: Arc<Module>,
    pub(crate) entry: String,
    pub(crate) version: i32,
    /// Dynamic shared memory that a launch may ask for.
    pub(crate) dynamic: u32,
    pub(crate) carveout: i32,
}

/// One operation of a graph and the nodes that it comes after.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) after: Vec<usize>,
    pub(crate) work: Work,
}

#[derive(Clone)]
pub(crate) struct Graph {
    pub(crate) ctx: Handle,
    /// Each after all that it comes after.
    pub(crate) nodes: Arc<[Node]>,
}

/// A graph ready to be launched.
pub(crate) struct Exec {
    pub(crate) graph: Graph,
    /// Its last launch: it never runs beside itself.
    pub(crate) last: Option<OpId>,
}

/// How strict a capture is with calls that could do harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Forbids them to every thread.
    Global,
    /// Forbids them to the thread that captures.
    ThreadLocal,
    Relaxed,
}

impl Mode {
    pub(crate) fn parse(mode: u32) -> Res<Mode> {
        match mode {
            0 => Ok(Mode::Global),
            1 => Ok(Mode::ThreadLocal),
            2 => Ok(Mode::Relaxed),
            _ => fail(Code::INVALID_VALUE, format!("capture mode {mode}, expected 0, 1 or 2")),
        }
    }
}

pub(crate) struct Capture {
    pub(crate) ctx: Handle,
    pub(crate) origin: StreamKey,
    pub(crate) mode: Mode,
    pub(crate) thread: u64,
    pub(crate) valid: bool,
    pub(crate) nodes: Vec<Node>,
}

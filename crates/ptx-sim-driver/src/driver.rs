//! The one object of the process: contexts and the tables in which handles are looked up. Handles
//! are numbers that are never used again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ptx_sim::Fault;

use crate::allocations::Allocations;
use crate::code::{Code, Error, Res, fail};
use crate::config::Config;
use crate::objects::{
    Capture, Context, Event, Exec, Function, Graph, Handle, Loaded, Primary, Stream, StreamKey,
};
use crate::queue::Queue;
use crate::report;

pub(crate) struct Driver {
    pub(crate) config: Arc<Config>,
    /// What is wrong with the environment.
    pub(crate) config_error: Option<String>,
    pub(crate) ready: bool,
    /// The device is gone for good.
    pub(crate) lost: Option<Code>,
    pub(crate) launches: u64,
    pub(crate) queue: Queue,
    pub(crate) contexts: BTreeMap<Handle, Context>,
    pub(crate) primary: Primary,
    pub(crate) streams: BTreeMap<StreamKey, Stream>,
    pub(crate) events: HashMap<Handle, Event>,
    pub(crate) modules: HashMap<Handle, Loaded>,
    pub(crate) functions: HashMap<Handle, Function>,
    pub(crate) graphs: HashMap<Handle, Graph>,
    pub(crate) execs: HashMap<Handle, Exec>,
    pub(crate) captures: BTreeMap<u64, Capture>,
    pub(crate) memory: Allocations,
    next: Handle,
}

impl Driver {
    pub(crate) fn new(config: Result<Config, String>) -> Self {
        let (config, config_error) = match config {
            Ok(config) => (config, None),
            Err(error) => (Config::default(), Some(error)),
        };
        let config = Arc::new(config);
        Driver {
            config_error,
            ready: false,
            lost: None,
            launches: 0,
            queue: Queue::new(Arc::clone(&config)),
            contexts: BTreeMap::new(),
            primary: Primary::default(),
            streams: BTreeMap::new(),
            events: HashMap::new(),
            modules: HashMap::new(),
            functions: HashMap::new(),
            graphs: HashMap::new(),
            execs: HashMap::new(),
            captures: BTreeMap::new(),
            memory: Allocations::default(),
            // Above the streams that have fixed handles.
            next: 0x1000,
            config,
        }
    }

    /// `cuInit`.
    pub(crate) fn init(&mut self, flags: u32) -> Res<()> {
        if let Some(error) = &self.config_error {
            return fail(Code::INVALID_VALUE, error.clone());
        }
        if flags != 0 {
            return fail(Code::INVALID_VALUE, format!("flags {flags:#x}, expected 0"));
        }
        if let Some(code) = self.config.init {
            return fail(code, format!("{}INIT says so", crate::config::PREFIX));
        }
        self.ready = true;
        Ok(())
    }

    /// A number that nobody had before.
    pub(crate) fn handle(&mut self) -> Handle {
        self.next += 0x10;
        self.next
    }

    /// A failed check: said once, and from then on what every call returns.
    pub(crate) fn fault(&mut self, fault: &Fault) -> Error {
        report::fault(fault);
        let code = report::code_of(fault.kind);
        for context in self.contexts.values_mut() {
            context.fault.get_or_insert(code);
        }
        self.queue.abandon();
        Error::silent(code)
    }

    pub(crate) fn checked<T>(&mut self, result: Result<T, Box<Fault>>) -> Res<T> {
        result.map_err(|fault| self.fault(&fault))
    }
}

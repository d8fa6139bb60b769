//! Errors of the text: what the parser, the decoder and the launch checks refuse.
//! What a *running* kernel does wrong is a [`Fault`](crate::Fault).

use thiserror::Error;

use crate::mem::MemoryError;

/// A PTX text that is malformed, or that uses something this simulator does not know.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct PtxError {
    /// The name under which the text was given.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// What is wrong, with the offending word.
    pub message: String,
}

/// A launch that the simulated chip refuses before anything runs.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LaunchError {
    /// No entry of that name.
    #[error("no entry `{0}` in the module")]
    NoEntry(String),
    /// A grid or block dimension of zero, or above the chip's limit.
    #[error("{what}: {got} is outside 1..={limit}")]
    Dimension {
        /// Which dimension.
        what: &'static str,
        /// What was asked for.
        got: u64,
        /// The largest legal value.
        limit: u64,
    },
    /// The block contradicts `.reqntid` or exceeds `.maxntid`.
    #[error("block {got:?} contradicts {directive} {limit:?} of entry `{entry}`")]
    Ntid {
        /// The entry.
        entry: String,
        /// `.reqntid` or `.maxntid`.
        directive: &'static str,
        /// Its value.
        limit: [u32; 3],
        /// The block asked for.
        got: [u32; 3],
    },
    /// Static and dynamic shared memory together exceed the chip's limit.
    #[error("shared memory: {got} bytes, {chip} gives a block at most {limit}")]
    SharedMemory {
        /// Bytes asked for.
        got: u64,
        /// The chip's limit.
        limit: u64,
        /// The chip.
        chip: &'static str,
    },
    /// The number of parameters differs from the entry's.
    #[error("entry `{entry}` takes {want} parameters, {got} given")]
    ParamCount {
        /// The entry.
        entry: String,
        /// Parameters declared.
        want: usize,
        /// Parameters given.
        got: usize,
    },
    /// A parameter's size differs from its declaration.
    #[error("parameter `{name}` of entry `{entry}` has {want} bytes, {got} given")]
    ParamSize {
        /// The entry.
        entry: String,
        /// The parameter.
        name: String,
        /// Bytes declared.
        want: usize,
        /// Bytes given.
        got: usize,
    },
    /// There is no room for the module's global variables.
    #[error("the module's global variables: {0}")]
    Globals(MemoryError),
    /// The module's target cannot run on the chip.
    #[error("module for {target} cannot run on {chip}")]
    Target {
        /// The module's `.target`.
        target: String,
        /// The chip.
        chip: &'static str,
    },
    /// No such cluster fits the entry, the grid or the chip.
    #[error("cluster of entry `{entry}`: {message}")]
    Cluster {
        /// The entry.
        entry: String,
        /// Why.
        message: String,
    },
    /// The simulator has numbered all agents that it can tell apart.
    #[error("too many warps since the host last waited for everything (simulator's limit)")]
    Agents,
}

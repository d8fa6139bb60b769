//! What one instruction reaches: what all warps of a launch share, and what those of a cluster do. Put
//! together by `run` for a turn of a warp; knows no instruction.

use super::bank::Bank;
use super::hopper::flight::Flights;
use super::sync::SyncTable;
use crate::check::past::Past;
use crate::check::region::Checks;
use crate::counters::Counters;
use crate::isa::Kernel;
use crate::mem::{Memory, Touched};
use crate::options::Options;

use std::sync::{Arc, OnceLock};

/// What all warps of a launch share, put together for one turn of a warp.
pub(crate) struct Env<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) memory: &'a mut Memory,
    pub(crate) options: &'a Options,
    pub(crate) checks: Checks,
    pub(crate) params: &'a [u8],
    pub(crate) counters: &'a mut Counters,
    pub(crate) touched: &'a mut Touched,
    pub(crate) sync: &'a mut SyncTable,
    /// The launches that `griddepcontrol.wait` waits for: set when they are over.
    pub(crate) follows: Option<&'a OnceLock<Arc<Past>>>,
    /// Warp instructions executed; what `%clock` reads.
    pub(crate) ticks: u64,
    /// Counts everything that could let a waiting loop go on: changed bytes, barriers, exits.
    pub(crate) progress: u64,
    pub(crate) random: u64,
}

impl Env<'_> {
    pub(crate) fn draw(&mut self) -> u64 {
        self.random = crate::num::mix(self.random, 1);
        self.random
    }
}

/// What an instruction reaches outside of its warp.
pub(crate) struct Reach<'e, 'a> {
    pub(crate) env: &'e mut Env<'a>,
    /// The shared memories of the cluster, and which of them is the warp's own.
    pub(crate) banks: &'e mut [Bank],
    pub(crate) rank: usize,
    /// Bulk copies of the cluster that have not landed.
    pub(crate) flights: &'e mut Flights,
    pub(crate) pc: u32,
}

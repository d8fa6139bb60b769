//! Execution: warps run the dense form under a mask. [`Several`](several::Several) launches run
//! interleaved; called by `launch` and `machine`.

mod barrier;
pub(crate) mod book;
mod copy;
mod float;
mod group;
mod int;
mod matrix;
mod memory;
pub(crate) mod run;
pub(crate) mod several;
mod start;
mod step;
mod sync;
mod trouble;
mod warp;

use crate::check::region::{Checks, Region};
use crate::counters::Counters;
use crate::isa::Kernel;
use crate::launch::Options;
use crate::mem::{Memory, Touched};

/// What all warps of a launch share, put together for one turn of a warp.
pub(crate) struct Env<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) memory: &'a mut Memory,
    pub(crate) options: &'a Options,
    pub(crate) checks: Checks,
    pub(crate) params: &'a [u8],
    pub(crate) counters: &'a mut Counters,
    pub(crate) touched: &'a mut Touched,
    pub(crate) sync: &'a mut sync::SyncTable,
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

/// Lanes of a mask, lowest first.
pub(crate) fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut left = mask;
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let lane = left.trailing_zeros() as usize;
        left &= left - 1;
        Some(lane)
    })
}

/// What an instruction reaches outside of its warp.
pub(crate) struct Reach<'e, 'a> {
    pub(crate) env: &'e mut Env<'a>,
    pub(crate) shared: &'e mut Region,
    pub(crate) pc: u32,
}

//! Execution: warps run the dense form under a mask. [`Several`](several::Several) launches run
//! interleaved; called by `launch` and `machine`.
//!
//! Every access to memory, whoever makes it, goes through [`access`]; a `cp.async` lands in [`copy`], a
//! bulk copy in [`hopper::flight`], a `wgmma` is carried out in [`hopper::matrix`].

mod access;
mod atomic;
mod bank;
mod barrier;
pub(crate) mod blame;
mod book;
mod cluster;
mod copy;
mod env;
mod float;
mod flow;
mod group;
mod hopper;
mod int;
mod integer;
mod matrix;
mod memory;
mod narrow;
pub(crate) mod run;
pub(crate) mod several;
mod start;
mod step;
mod sync;
mod trouble;
mod warp;

pub(crate) use hopper::registers::Registers;

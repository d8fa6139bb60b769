//! The kernels' texts without an executor: parsed, translated, assembled, counted, and run in the simulator.
//!
//! ```text
//! shaders   naga parses, validates and translates every rendering of the WGSL
//! ptx_*     every PTX text in `crates/ptx-sim`, all of its checks on
//! ptx_mutants  their main loops spoilt, statement by statement: each noticed, or explained in `mutants.txt`
//! chosen    each text of a layer is the fastest of some layer on some card, by the plan's price
//! counters  what each PTX text does, counted and held to `counters/golden.txt`
//! probes    instructions alone: vectors that a card is held against
//! waves     how full a card is, by a discrete model of tickets; held to `waves.txt`
//! gate      ptxas assembles every PTX text for every target; held to `gate/snapshot.txt`
//! ```

mod banks;
mod chosen;
mod counters;
mod gate;
mod probes;
mod ptx_adapter;
mod ptx_decode;
mod ptx_far;
mod ptx_flags;
mod ptx_linear;
mod ptx_linear_f32;
mod ptx_mutants;
mod ptx_walk;
mod shaders;
mod waves;

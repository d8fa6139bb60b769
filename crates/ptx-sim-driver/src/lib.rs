//! A stand-in for `libcuda` whose launches run in `ptx-sim`. Programs load it by name, as they load
//! a driver (cudarc does, unmodified); `README.md` says how to place it and what can be set.
//!
//! ```text
//! exports   the C functions: unpack arguments, lock, call the rest; the only unsafe code beside
//!           `ffi` (pointers of a call) and `pinned` (host memory that the driver gives out)
//! driver    the one object behind the lock: contexts and tables of handles
//! ctx stream event memory module launch graph capture     one idea of the API each
//! queue     what was asked for and not yet done, its order, and the machine that does it
//! config    the environment          report    stderr and the file of counters
//! ```
//!
//! Everything between `exports` and `queue` is safe code on plain data: handles are numbers looked
//! up in tables, so a freed or foreign one is an error and never a crash.

mod allocations;
mod capture;
mod code;
mod config;
mod ctx;
mod device;
mod driver;
mod event;
mod exports;
mod ffi;
mod graph;
mod launch;
mod memory;
mod module;
mod objects;
mod pinned;
mod queue;
mod report;
mod stream;

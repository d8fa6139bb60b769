//! The layer against burn's own autodiff, PEFT's golden files, and itself from many threads, on every backend
//! that the features name.

#![expect(unreachable_pub, reason = "nothing of a test can be reached from outside")]

mod adapters;
mod case;
mod errors;
mod files;
mod gradients;
mod share;
mod threads;
mod views;

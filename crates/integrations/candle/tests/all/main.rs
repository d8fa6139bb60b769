//! The layer against candle's own autograd, PEFT's golden files, and itself from many threads.

#![expect(unreachable_pub, reason = "nothing of a test can be reached from outside")]

mod adapters;
mod case;
mod errors;
mod files;
mod gradients;
mod share;
mod threads;
mod views;

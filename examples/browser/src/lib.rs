//! The page's side in Rust: a network of frozen layers with LoRA adapters that learns to read shifted digits, on the
//! browser's WebGPU or, without it, on the CPU. `page.js` calls [`Trainer`] and draws. All but `network` and
//! `trainer`, which await what the device brings, is the code of `examples/finetune`.
#![cfg(target_family = "wasm")]
#![expect(
    unreachable_pub,
    reason = "files of examples/finetune, from which nothing can be reached"
)]

#[path = "../../finetune/adam.rs"]
mod adam;
#[path = "../../finetune/data.rs"]
mod data;
#[expect(dead_code, reason = "no adapter is written, so no layer's name")]
#[path = "../../finetune/layer.rs"]
mod layer;
#[path = "../../finetune/naive.rs"]
mod naive;
mod network;
#[path = "../../finetune/schedule.rs"]
mod schedule;
mod trainer;

pub use trainer::Trainer;

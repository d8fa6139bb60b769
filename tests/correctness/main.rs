//! Every executor's results against the reference, by routes that complete one another:
//!
//! ```text
//! drawn       problems drawn at random: all options, sizes and ranks, every candidate of the plan
//! pairwise    problems by system: every two options meet in one of few rows (a covering array)
//! exact       small integers, whose results are known bit for bit
//! scalars     one plan serves every scale and β
//! batch_invariant  a row alone has the bits that it has among others
//! golden      what the real PEFT and torch computed
//! tolerance   the bound that all of these use is tight enough to see a missing term
//! repeatable  the same bits over runs, threads and whatever the workspace held
//! ```
//!
//! `FUSED_LORA_DEVICE` and `FUSED_LORA_STRATEGY` leave some executors or kernels alone; the same tests
//! run on lavapipe, on the simulated CUDA driver and, in the bundle, on cards.

mod batch_invariant;
mod drawn;
mod exact;
mod golden;
mod pairwise;
mod repeatable;
mod scalars;
mod tolerance;

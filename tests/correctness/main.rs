//! Every executor's results against the reference, by routes that complete one another:
//!
//! ```text
//! drawn         problems drawn at random: all options, sizes and ranks, every candidate of the plan
//! pairwise      problems by system: every two options meet in one of few rows (a covering array)
//! factors       LoHa and LoKr against the definition of ΔW
//! convolution   layers on images: every operation, whole calls, what is refused
//! exact         small integers, whose results are known bit for bit
//! batch_invariant  a row alone has the bits that it has among others
//! gain          a factor of each output column: ones, PEFT's DoRA, what is refused
//! kronecker     LoKr with a whole w2: w + s·w1 ⊗ w2 as w is read, its gradients, merge, norm
//! golden        what the real PEFT and torch computed
//! share         all of a small adapter arrives: y is rounded once
//! merge_cycles  merge and unmerge neither restore w's bits nor drift
//! tolerance     the bound that all of these use is tight enough to see a missing term
//! calls         operands in, done: the bits of the plans that it stands for, from any thread
//! scalars       one plan serves every scale and β
//! repeatable    the same bits over runs, threads and whatever the workspace held
//! ```
//!
//! `FUSED_LORA_DEVICE` and `FUSED_LORA_STRATEGY` leave some executors or kernels alone; the same tests
//! run on lavapipe, on the simulated CUDA driver and, in the bundle, on cards.

mod batch_invariant;
mod calls;
mod convolution;
mod definition;
mod drawn;
mod exact;
mod factors;
mod gain;
mod golden;
mod kronecker;
mod merge_cycles;
mod merged;
mod pairwise;
mod repeatable;
mod scalars;
mod share;
mod tolerance;

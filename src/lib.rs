//! A frozen linear layer and its LoRA adapter in one fused pass, forward and backward.
//!
//! ```text
//! forward           y  = x·wᵀ + shrunk·bᵀ (+ bias)      shrunk  = s·x·aᵀ
//! backward_input    dx = dy·w + dshrunk·a               dshrunk = s·dy·b
//! backward_adapter  db = dyᵀ·shrunk   da = dshrunkᵀ·x
//! merge, unmerge    w ± s·b·a
//! compose, chain    a and b of the factors of LoHa or LoKr; the factors' gradients of da and db
//! norm              gain = magnitude / ‖w + s·b·a‖         forward then gain∘(x·wᵀ + shrunk·bᵀ) (+ bias)
//! backward_gain     scaled_dy = gain∘dy, for the other gradients; dmagnitude
//! ```
//!
//! | word | meaning | shape |
//! |---|---|---|
//! | `x`, `w`, `bias`, `y` | input, frozen weight, optional bias, output | `[tokens, in_features]`, `[out_features, in_features]`, `[1, out_features]`, `[tokens, out_features]` |
//! | `a` (lora_A), `b` (lora_B), `s` | the adapter; s = alpha / r, or alpha / √r for rsLoRA | `[rank, in_features]`, `[out_features, rank]` |
//! | `shrunk`, `dshrunk` | what goes through the rank, kept for `backward_adapter` | `[tokens, rank rounded up to 8]` |
//!
//! The mathematics is that of Hu et al., 2021, arXiv:2106.09685. Adapters of LoHa and LoKr are LoRA of a higher rank,
//! exactly: [`Method`] says how, and a call does it ([`Forward::loha`], [`Forward::lokr`]).
//!
//! # Where to begin
//!
//! ```
//! use fused_lora::{DType, Device, Forward};
//!
//! let device = Device::best();
//! let x = device.tensor(1, 2, DType::F32, &[1.0, 2.0])?;
//! let w = device.tensor(3, 2, DType::F32, &[1.0; 6])?;
//! let (a, b) = (device.tensor(1, 2, DType::F32, &[1.0; 2])?, device.tensor(3, 1, DType::F32, &[1.0; 3])?);
//! let mut y = device.zeros(1, 3, DType::F32)?;
//! device.forward(Forward::new(&x, &w, &mut y).adapter(&a, &b).scale(0.5))?;
//! assert_eq!(y.to_f32()?, [4.5; 3]);
//! # Ok::<(), fused_lora::Error>(())
//! ```
//!
//! * An application: [`Device`] and [`Tensor`].
//! * A framework with buffers of its own: an executor ([`cpu::Cpu`], `wgpu::Wgpu` on an open pass,
//!   `cuda::Cuda` on a stream), with [`Forward`], [`Backward`] and [`Merge`] over its buffers; [`Executor`]
//!   is what the three have in common.
//! * A framework that compiles and launches kernels itself: [`Hosted`], over two functions of its own.
//! * A host that keeps plans itself or captures CUDA graphs: one level below, [`Problem`] → [`Plan`] → an
//!   executor's `run`, or the plan's [`Launch`]es.
//! * Checking numerics: [`mod@reference`], the definition in f64 with the tolerance of each
//!   output.
//!
//! ```text
//! problem ──► product ──► plan ──► executors (cpu, wgpu, cuda)
//!   what    mathematics    how         where
//! ```
//!
//! A plan is a pure function of the problem and the device's capabilities; it says what it
//! chose, why, and what it costs ([`Plan::explain`]).
//!
//! # Numerics
//!
//! Storage is f32, f16 or bf16, with types of their own for the activations, the adapter and
//! its gradients; `y` and `dx` may be f32 beside 16-bit activations ([`Problem::with_output`]).
//! Sums are f32, always; every output is rounded once, so that the term of an adapter that is small beside the weight
//! reaches `y` whole, also in 16 bits. `shrunk` is rounded
//! once to the activations' type, or kept in two parts ([`Problem::with_precise`]). In f16 it
//! may overflow where `y` would not: infinity then propagates, it is never clamped. Factors in
//! f32 are rounded to tf32 only where [`Problem::with_tf32`] allows it. No sum
//! is formed by atomics, and the same plan gives the same bits, run after run. Another plan may not: the number of
//! tokens and, on the CPU, of workers decide how sums are cut, so that the bits of one row of `y` depend on how many
//! rows there are (not on what these hold). Merging and unmerging does not bring back every bit of `w`, and
//! does not drift ([`Operation::Unmerge`]).
//!
//! # In a browser
//!
//! Built for `wasm32-unknown-unknown`, with the feature `webgpu` of wgpu in the application, everything above runs in
//! a page. A page cannot wait, so what waits is awaited there: [`Device::open_async`], [`Tensor::to_f32_async`],
//! [`Device::wait_async`], `wgpu::Wgpu::settled`; these work natively, too. The CPU executor has one thread there.
//!
//! # Features
//!
//! | feature | default | brings |
//! |---|---|---|
//! | `cuda` | yes | the executor on CUDA; cudarc, re-exported |
//! | `wgpu` | yes | the executor on wgpu; wgpu, re-exported: an application enables its backends |
//! | `files` | no | adapter files: PEFT's folders, and those of kohya, LyCORIS, ComfyUI and diffusers; `peft` is its old name |
//! | `serde` | no | [`Plan`] can be written down, for hosts in other languages |

// On docs.rs every item says which feature brings it.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod device;
mod dtype;
mod error;
mod executor;
#[cfg(feature = "files")]
pub mod files;
mod operands;
mod plan;
mod problem;
mod product;
pub mod reference;
#[cfg(feature = "wgpu")]
pub mod wgpu;

/// Its `f16` and `bf16` are the elements of 16-bit slices.
pub use half;

/// PEFT's folders by their old path.
#[cfg(feature = "files")]
pub use files::peft;

#[cfg(not(target_family = "wasm"))]
pub use device::Timing;
pub use device::{DEVICE_VARIABLE, Device, Tensor};
pub use dtype::{DType, Element};
pub use error::{Error, Result};
pub use executor::{Executor, Host, HostBinding, Hosted};
pub use operands::{
    Adapter, Backward, BackwardAdapter, BackwardGain, BackwardInput, BackwardShrink, Buffer,
    Factor, FactorGradients, Forward, GradientA, GradientB, Matrix, Merge, Norm, Operands, Place,
};
pub use plan::{
    AdapterKind, Binding, BoundBinding, Candidate, Capabilities, Choice, CpuCapabilities,
    CudaCapabilities, Language, Launch, Outcome, Plan, Scaled, Source, Strategy, WgpuCapabilities,
};
pub use problem::{
    Access, Channels, Convolution, Gradients, Kronecker, Layout, Major, Method, Operand, Operation,
    Problem, Spec, Taps, shrunk_stride,
};

/// The README's example is compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

// Frameworks keep plans and share executors between threads. In a browser what belongs to wgpu stays on the
// page's one thread.
const _: () = {
    const fn is_send_sync_static<T: Send + Sync + 'static>() {}
    is_send_sync_static::<Plan>();
    #[cfg(not(all(feature = "wgpu", target_family = "wasm")))]
    {
        is_send_sync_static::<Device>();
        is_send_sync_static::<Tensor>();
    }
    is_send_sync_static::<cpu::Cpu>();
    is_send_sync_static::<cpu::Workspace>();
    #[cfg(feature = "cuda")]
    {
        is_send_sync_static::<cuda::Cuda>();
        is_send_sync_static::<cuda::Workspace>();
    }
    #[cfg(all(feature = "wgpu", not(target_family = "wasm")))]
    {
        is_send_sync_static::<wgpu::Wgpu>();
        is_send_sync_static::<wgpu::Prepared>();
    }
};

//! Plans for CUDA: the presets, and for each the launches with their PTX texts: `linear`,
//! `decode`, `merge`, `gradient`, `pack`, a file each. What a problem's operands are to the kernels
//! is settled in `roles`; `variants` has the texts, `params` fills their parameter blocks (`abi`),
//! `scratch` lays out the workspace, `model` ranks the candidates.

mod decode;
mod gradient;
mod linear;
mod merge;
mod model;
mod pack;
mod params;
mod roles;
mod scratch;
mod variants;

/// What `build.rs` alone reads of it is not read here.
#[path = "../../../kernels/abi.rs"]
#[allow(dead_code)]
mod abi;
#[path = "../../../kernels/numbers.rs"]
mod numbers;

use core::ops::RangeInclusive;

pub(crate) use self::abi::HEADER;
use self::abi::{FLAGS, Word};
use self::numbers::Numbers;
use self::params::Params;
use self::roles::Roles;
use self::variants::Variant;
use super::{CudaCapabilities, Draft, Language, Launch, Preset, Refusal, Source, Strategy};
use crate::{Operation, Problem};

/// A kernel of `kernels/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CudaKernel {
    Linear,
    Decode,
    Shrink,
    Merge,
    Gradient,
}

impl Kernel for CudaKernel {
    fn serves(&self) -> Serves {
        use FinishStep::{Beta, Bias, Factor};
        let (product, finish): (_, &[FinishStep]) = match self {
            CudaKernel::Linear | CudaKernel::Decode => (Kind::Layer, &[Bias, Beta]),
            CudaKernel::Shrink => (Kind::Shrink, &[]),
            CudaKernel::Gradient => (Kind::Gradients, &[Beta]),
            CudaKernel::Merge => (Kind::Merge, &[Factor, Beta]),
        };
        Serves { product, loads: &[LoadKind::Stored], finish }
    }
}

type Range = RangeInclusive<usize>;
const TOKENS: Range = 1..=ANY;
/// What `decode` multiplies as one fragment's columns, or two.
const FEW: Range = 1..=16;
const ALL: Range = 0..=ANY;
const NONE: Range = 0..=0;
/// Ranks that a main loop can carry beside its columns.
const CARRIED: Range = 1..=64;
const RANKS: Range = 1..=ANY;

/// Bytes of shared memory that texts declare beside what a launch asks for, rounded up to the
/// alignment of that.
const DECLARED: usize = 128;
/// Bytes of which the addresses and rows of operands are multiples, unless a layout says so.
const VECTOR: usize = 16;

pub(crate) const PRESETS: &[Preset<CudaKernel>] = &[
    preset(Strategy::Leader, "decode", CudaKernel::Decode, FEW, CARRIED),
    preset(Strategy::Leader, "large", CudaKernel::Linear, TOKENS, CARRIED),
    preset(Strategy::Leader, "small", CudaKernel::Linear, TOKENS, CARRIED),
    preset(Strategy::Recompute, "large", CudaKernel::Linear, TOKENS, CARRIED),
    preset(Strategy::Recompute, "small", CudaKernel::Linear, TOKENS, CARRIED),
    preset(Strategy::TwoPass, "large", CudaKernel::Linear, TOKENS, RANKS),
    preset(Strategy::TwoPass, "small", CudaKernel::Linear, TOKENS, RANKS),
    preset(Strategy::TwoPass, "unaligned", CudaKernel::Linear, TOKENS, RANKS),
    preset(Strategy::Direct, "decode", CudaKernel::Decode, FEW, NONE),
    preset(Strategy::Direct, "large", CudaKernel::Linear, TOKENS, NONE),
    preset(Strategy::Direct, "small", CudaKernel::Linear, TOKENS, NONE),
    preset(Strategy::Direct, "unaligned", CudaKernel::Linear, TOKENS, NONE),
    preset(Strategy::Direct, "shrink", CudaKernel::Shrink, TOKENS, ALL),
    preset(Strategy::Direct, "merge", CudaKernel::Merge, ALL, ALL),
    preset(Strategy::Direct, "gradient", CudaKernel::Gradient, ALL, ALL),
    tf32(Strategy::Leader, 1..=16),
    tf32(Strategy::TwoPass, RANKS),
    tf32(Strategy::Direct, NONE),
];

const fn preset(
    strategy: Strategy,
    name: &'static str,
    kernel: CudaKernel,
    tokens: Range,
    ranks: Range,
) -> Preset<CudaKernel> {
    Preset::new(strategy, name, kernel, tokens, ranks)
}

const fn tf32(strategy: Strategy, ranks: Range) -> Preset<CudaKernel> {
    let (name, kernel, tokens, rounds_to_tf32) = ("tf32", CudaKernel::Linear, TOKENS, true);
    Preset { strategy, name, kernel, tokens, ranks, rounds_to_tf32 }
}

/// Launches, and what they cost, as they are put together.
struct Building<'a> {
    problem: &'a Problem,
    cuda: &'a CudaCapabilities,
    launches: Vec<Launch>,
    micros: f64,
    bytes: u64,
    flops: u64,
}

pub(crate) fn draft(
    preset: &Preset<CudaKernel>,
    problem: &Problem,
    _product: &Product,
    cuda: &CudaCapabilities,
) -> Result<Build, Refusal> {
    if cuda.compute_capability < (8, 0) {
        let (major, minor) = cuda.compute_capability;
        return Err(reason(format!("compute capability {major}.{minor} is below 8.0")));
    }
    let mut building =
        Building { problem, cuda, launches: Vec::new(), micros: 0.0, bytes: 0, flops: 0 };
    let workspace_len = match preset.kernel {
        CudaKernel::Merge => building.merge()?,
        CudaKernel::Gradient => building.gradient()?,
        CudaKernel::Decode => building.decode(&Roles::new(problem)?)?,
        _ => building.build(preset, &Roles::new(problem)?)?,
    };
    Ok(Build {
        launches: building.launches,
        workspace_len,
        flops: building.flops,
        bytes: building.bytes,
        micros: building.micros,
        schedule: None,
    })
}

fn reason(text: String) -> Refusal {
    Refusal::Reason(text)
}

impl Building<'_> {
    /// Bytes of an activation, and of an element of the adapter as the kernels load it.
    fn size(&self) -> usize {
        self.problem.activation().size()
    }

    /// Refuses a text that takes more shared memory than the device grants a block.
    fn check_smem(&self, of: &Numbers) -> Result<(), Refusal> {
        let (takes, grants) = (of.smem_bytes + DECLARED, self.cuda.shared_bytes as usize);
        match takes <= grants {
            true => Ok(()),
            false => {
                Err(reason(format!("{takes} bytes of shared memory, the device grants {grants}")))
            }
        }
    }

    fn push<T: Word + Default>(
        &mut self,
        variant: &'static Variant,
        grid: [u32; 3],
        params: Params<T>,
    ) {
        self.push_sized(variant, grid, variant.threads, variant.smem_bytes, params);
    }

    /// A launch of fewer threads than the text was made for, or more shared memory.
    fn push_sized<T: Word + Default>(
        &mut self,
        variant: &'static Variant,
        grid: [u32; 3],
        threads: usize,
        smem_bytes: usize,
        params: Params<T>,
    ) {
        let (params, bindings) = params.finish();
        let entry = variant.kind.entry();
        self.launches.push(Launch {
            kernel: entry,
            source: Some(Source { language: Language::Ptx, text: variant.source(), entry }),
            grid,
            // Small sums of the lists' constants.
            block: [threads as u32, 1, 1],
            shared_bytes: smem_bytes as u32,
            bindings,
            params,
        });
    }
}

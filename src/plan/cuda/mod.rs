//! Plans for CUDA: for each preset the launches with their PTX texts and parameters. A file a
//! kernel: `layer` and `linear`, `transposed`, `decode`, `merge`, `gradient`, and `pack` before any of them; `contract`, which
//! `kronecker`, with its `blocks`, and `merged` put beside them; `gain`.
//!
//! `kernel` says what each serves, `sm80` has the presets and the model that ranks them;
//! `variants` finds texts, `params` fills their parameter blocks (`abi`), `address` and `factor`
//! say where operands lie, `taps` how they are gathered, `scratch` lays out the workspace.

mod address;
mod blocks;
mod contract;
mod decode;
mod factor;
mod gain;
mod gradient;
mod kernel;
mod kronecker;
mod layer;
mod linear;
mod merge;
mod merged;
mod pack;
mod params;
mod scratch;
mod sm80;
mod split;
mod taps;
mod transposed;
mod variants;

/// What `build.rs` alone reads of it is not read here.
#[path = "../../../kernels/abi.rs"]
#[allow(dead_code)]
mod abi;
// In a page there are no texts.
#[cfg_attr(target_family = "wasm", expect(dead_code))]
#[path = "../../../kernels/embedded.rs"]
mod embedded;
// The same.
#[cfg_attr(target_family = "wasm", expect(dead_code))]
#[path = "../../../kernels/numbers.rs"]
mod numbers;

pub(crate) use self::abi::HEADER;
use self::abi::Word;
#[cfg(feature = "cuda")]
pub(crate) use self::abi::is_idle;
pub(crate) use self::kernel::CudaKernel;
use self::numbers::Numbers;
use self::params::Params;
pub(crate) use self::sm80::PRESETS;
use self::variants::Variant;
use super::{Build, CudaCapabilities, Draft, Launch, Preset, Refusal, Source, Strategy};
use crate::problem::Scalars;
use crate::product::Product;
use crate::{DType, Error, Problem, Result};

/// Bytes of shared memory that texts declare beside what a launch asks for, rounded up to the
/// alignment of that.
const DECLARED: usize = 128;

/// Launches as they are gone through: priced, and if asked for, put together.
struct Building<'a> {
    cuda: &'a CudaCapabilities,
    /// Of the activations.
    activation: DType,
    scalars: Scalars,
    launches: Option<Vec<Launch>>,
    micros: f64,
    bytes: u64,
    flops: u64,
}

/// A candidate, priced.
pub(crate) struct Priced<'a> {
    strategy: Strategy,
    kernel: CudaKernel,
    problem: &'a Problem,
    product: &'a Product,
    cuda: &'a CudaCapabilities,
    micros: f64,
}

impl Draft for Priced<'_> {
    fn micros(&self) -> f64 {
        self.micros
    }

    fn build(self) -> Result<Build, Refusal> {
        let Priced { strategy, kernel, problem, product, cuda, .. } = self;
        let mut building = Building::new(problem, cuda, Some(Vec::with_capacity(3)));
        let workspace_len = building.work(strategy, kernel, problem, product)?;
        let Building { launches, bytes, flops, .. } = building;
        let launches = launches.unwrap_or_default();
        Ok(Build { launches, workspace_len, flops, bytes, schedule: None })
    }
}

pub(crate) fn draft<'a>(
    preset: &Preset<CudaKernel>,
    problem: &'a Problem,
    product: &'a Product,
    cuda: &'a CudaCapabilities,
) -> Result<Priced<'a>, Refusal> {
    if cuda.compute_capability < sm80::LEAST {
        let ((major, minor), (least, _)) = (cuda.compute_capability, sm80::LEAST);
        return Err(reason(format!("compute capability {major}.{minor} is below {least}.0")));
    }
    let Preset { strategy, kernel, .. } = *preset;
    let mut building = Building::new(problem, cuda, None);
    building.work(strategy, kernel, problem, product)?;
    Ok(Priced { strategy, kernel, problem, product, cuda, micros: building.micros })
}

fn reason(text: String) -> Refusal {
    Refusal::Reason(text)
}

/// What no kernel can have more of, whatever the preset.
fn at_most(what: &'static str, limit: usize, got: usize) -> Result<(), Refusal> {
    match got <= limit {
        true => Ok(()),
        false => {
            let (limit, got) = (limit as u64, got as u64);
            Err(Refusal::Limit(Error::DeviceLimit { what, limit, got }))
        }
    }
}

/// What the kernels' 32-bit counts hold.
fn check_sizes(sizes: &[usize], most: usize) -> Result<(), Refusal> {
    sizes.iter().try_for_each(|&size| at_most("elements that kernels count", most, size))
}

impl<'a> Building<'a> {
    fn new(
        problem: &Problem,
        cuda: &'a CudaCapabilities,
        launches: Option<Vec<Launch>>,
    ) -> Building<'a> {
        let (activation, scalars) = (problem.activation(), Scalars::of(problem));
        Building { cuda, activation, scalars, launches, micros: 0.0, bytes: 0, flops: 0 }
    }

    /// Goes through the launches of `kernel`; bytes of workspace.
    fn work(
        &mut self,
        strategy: Strategy,
        kernel: CudaKernel,
        problem: &Problem,
        product: &Product,
    ) -> Result<usize, Refusal> {
        match (kernel, product) {
            (CudaKernel::Linear { tile, aligned }, Product::Layer(of)) => {
                self.layer(strategy, tile, aligned, of)
            }
            (CudaKernel::Transposed { tile, aligned }, Product::Transposed(of)) => {
                self.transposed(tile, aligned, of)
            }
            (CudaKernel::Shrink, Product::Shrink(of)) => self.shrink_alone(of),
            (CudaKernel::Decode, Product::Layer(of)) => self.decode(problem, of),
            (CudaKernel::Merge, Product::Merge(of)) => self.merge(&of.along_storage()),
            (CudaKernel::Gradient, Product::Gradients(of)) => self.gradient(problem, of),
            (CudaKernel::Mixed { tile, aligned }, Product::Layer(of)) => {
                self.mixed(tile, aligned, of)
            }
            (CudaKernel::MixedTransposed { tile, aligned }, Product::Transposed(of)) => {
                self.mixed_transposed(tile, aligned, of)
            }
            (CudaKernel::Merged { tile, aligned }, Product::Layer(of)) => {
                self.merged(tile, aligned, of)
            }
            (CudaKernel::Contract, Product::Factors(of)) => self.contract(of),
            (CudaKernel::Kronecker, Product::Kronecker(of)) => self.kronecker(of),
            (CudaKernel::Norm, Product::Norm(of)) => self.norm(problem, of),
            (CudaKernel::BackwardGain, Product::GainGradient(of)) => {
                self.backward_gain(problem, of)
            }
            // Presets of other products are no candidates.
            _ => Err(reason(format!("does not do {}", problem.operation()))),
        }
    }

    /// A block for one of the launches.
    fn params<T: Word + Default>(&self) -> Params<T> {
        Params::new(self.launches.is_none())
    }

    /// Bytes of an activation, and of an element of the adapter as the kernels multiply it.
    fn size(&self) -> usize {
        self.activation.size()
    }

    fn multiprocessors(&self) -> usize {
        self.cuda.multiprocessors.max(1) as usize
    }

    /// Refuses so many bytes of shared memory where the device does not grant them to a block.
    fn check_smem(&self, bytes: usize) -> Result<(), Refusal> {
        let grants = self.cuda.shared_bytes as usize;
        at_most("bytes of shared memory of a block", grants, bytes + DECLARED)
    }

    /// CTAs of a text that run at once.
    fn slots(&self, of: &Numbers) -> usize {
        self.multiprocessors() * sm80::resident(of, self.cuda)
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
        let Some(launches) = &mut self.launches else { return };
        launches.push(Launch {
            source: Some(variant.source()),
            grid,
            // Small sums of the lists' constants.
            block: [threads as u32, 1, 1],
            shared_bytes: smem_bytes as u32,
            ..params.launch(variant.kind.entry())
        });
    }
}

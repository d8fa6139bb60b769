//! Plans for the CPU: the schedule that `cpu` follows. One file a kernel cuts the product into
//! tickets and blocks and says what that costs by the model; `presets` has the kernels' tiles.
//!
//! Tiles depend on the problem and the number of workers the plan was made for, never on the number
//! of threads that happen to run it, so the bits of a result belong to the plan.

mod backward_gain;
mod contract;
mod cut;
mod decode;
mod gradient;
mod kronecker;
mod linear;
mod merge;
mod merged;
mod model;
mod norm;
mod presets;
mod transposed;

pub(crate) use self::backward_gain::BackwardGainTiles;
pub(crate) use self::contract::{ContractCut, ContractTiles, ROUND};
pub(crate) use self::decode::{COLUMNS_AT_ONCE, DecodeTiles, ROWS_AT_ONCE};
pub(crate) use self::gradient::GradientTiles;
pub(crate) use self::kronecker::KroneckerTiles;
pub(crate) use self::linear::{LinearTiles, STEPS, guard};
pub(crate) use self::merge::MergeTiles;
pub(crate) use self::merged::MergedTiles;
pub(crate) use self::norm::NormTiles;
pub(crate) use self::presets::{CpuKernel, PRESETS};
pub(crate) use self::transposed::TransposedTiles;
use super::{Binding, Build, CpuCapabilities, Draft, Launch, Preset, Refusal};
use crate::problem::Specs;
use crate::product::{Load, LoadKind, Product, Summand};
use crate::{DType, Operand, Problem, Result, Spec};

/// f32 elements of a cache line, which no two workers should write into.
pub(crate) const CACHE_LINE: usize = 16;

/// What `cpu` follows. Lengths of scratch are in f32 elements.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Schedule {
    /// Workers the scratch is laid out for.
    pub(crate) workers: usize,
    /// Tickets that the workers draw, in order.
    pub(crate) tickets: usize,
    /// Scratch that all workers have together.
    pub(crate) common_scratch: usize,
    /// Scratch of each worker.
    pub(crate) worker_scratch: usize,
    pub(crate) tiles: Tiles,
}

/// How each kernel's work is cut.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Tiles {
    Linear(LinearTiles),
    Decode(DecodeTiles),
    Transposed(TransposedTiles),
    Gradient(GradientTiles),
    Merge(MergeTiles),
    Merged(Box<MergedTiles>),
    Contract(ContractTiles),
    Kronecker(KroneckerTiles),
    Norm(NormTiles),
    BackwardGain(BackwardGainTiles),
}

/// A schedule, and what it costs.
struct Cut {
    schedule: Schedule,
    /// How often w is read from memory.
    reads_of_w: usize,
    /// By the model.
    micros: f64,
}

/// What the tiles depend on beside the product.
#[derive(Clone, Copy)]
struct Storage {
    activation: DType,
    adapter: DType,
    output: DType,
    /// Operations of the problem, and bytes of its operands.
    flops: u64,
    bytes: u64,
    /// Sums are formed in one order, whatever the tokens and the workers.
    is_invariant: bool,
    /// Something is gathered, and so copied together whatever its type is.
    gathers: bool,
}

impl Storage {
    fn new(problem: &Problem, product: &Product) -> Storage {
        Storage {
            activation: problem.activation(),
            adapter: problem.adapter(),
            output: problem.output(),
            flops: problem.flops(),
            bytes: problem.bytes(),
            is_invariant: problem.is_batch_invariant(),
            gathers: product.loads().any(|of| of.kind == LoadKind::Gathered),
        }
    }

    fn flops(&self) -> f64 {
        self.flops as f64
    }

    /// Room for `len` activations in f32: none where they are f32 already, and where they lie.
    fn activations(&self, len: usize) -> usize {
        if self.activation == DType::F32 && !self.gathers { 0 } else { len }
    }

    /// Room for `len` elements of w in f32, likewise, or with a `summand` added.
    fn weights(&self, len: usize, summand: Option<Summand>) -> usize {
        if summand.is_some() { len } else { self.activations(len) }
    }

    /// Room for `len` elements of the adapter, likewise.
    fn adapter(&self, len: usize) -> usize {
        if self.adapter == DType::F32 { 0 } else { len }
    }

    /// Microseconds to widen `len` activations.
    fn widening(&self, len: usize) -> f64 {
        self.activations(len) as f64 / model::WIDENED
    }
}

/// Elements of those that are stored in 16 bits, which are widened as a whole before any worker starts.
pub(crate) fn widened_len<'a>(loads: impl IntoIterator<Item = &'a Load>) -> usize {
    let halves = loads.into_iter().filter(|of| of.spec.dtype != DType::F32);
    halves.map(|of| of.spec.rows.saturating_mul(of.spec.cols)).fold(0, usize::saturating_add)
}

/// [`widened_len`] of the factors that are added to w.
fn widened_of(summand: Option<Summand>) -> usize {
    summand.map_or(0, |of| widened_len(of.loads()))
}

/// A candidate that was cut.
pub(crate) struct CpuDraft<'a> {
    kernel: CpuKernel,
    specs: &'a Specs,
    storage: Storage,
    cut: Cut,
}

pub(crate) fn draft<'a>(
    preset: &Preset<CpuKernel>,
    problem: &Problem,
    specs: &'a Specs,
    product: &Product,
    cpu: &CpuCapabilities,
) -> Result<CpuDraft<'a>, Refusal> {
    let storage = Storage::new(problem, product);
    // A problem too small to be worth a second thread runs where it was called. Its bytes
    // count as if they came from memory: the weights of other layers were in the cache last.
    let few = problem.tokens() <= presets::DECODE_TOKENS;
    let rate = if few { model::DOTS } else { model::FLOPS };
    let alone = (storage.flops() / rate).max(storage.bytes as f64 / model::BYTES);
    // Results of sums over factors lie in the caches of whoever read them last, and wait for those: two get them sooner.
    let worth = if preset.kernel == CpuKernel::Contract { model::FORK } else { 4.0 * model::FORK };
    let workers = if alone < worth { 1 } else { cpu.workers.clamp(1, 1 << 16) };
    let cut = match (preset.kernel, product) {
        (CpuKernel::Linear(tile), Product::Layer(of)) => linear::layer(tile, of, storage, workers),
        (CpuKernel::Transposed { rows, columns, depth }, Product::Transposed(of)) => {
            transposed::cut([rows, columns, depth], of, storage, workers)
        }
        (CpuKernel::Shrink { rows, depth }, Product::Shrink(of)) => {
            linear::shrink([rows, depth], of, storage, workers)
        }
        (CpuKernel::Decode, Product::Layer(of)) => decode::cut(of, storage, workers),
        (CpuKernel::Gradient { tokens, columns }, Product::Gradients(of)) => {
            gradient::cut([tokens, columns], of, storage, workers)
        }
        (CpuKernel::Merge { rows, columns }, Product::Merge(of)) => {
            merge::cut([rows, columns], of, storage, workers)
        }
        (CpuKernel::Merged(tile), Product::Layer(of)) => merged::cut(tile, problem, of, workers)?,
        (CpuKernel::Contract, Product::Factors(of)) => contract::cut(of, storage, workers),
        (CpuKernel::Kronecker { tokens, columns }, Product::Kronecker(of)) => {
            kronecker::cut([tokens, columns], of, storage, workers)
        }
        (CpuKernel::Norm { rows, columns }, Product::Norm(of)) => {
            norm::cut([rows, columns], of, storage, workers)
        }
        (CpuKernel::BackwardGain { tokens, columns }, Product::GainGradient(of)) => {
            backward_gain::cut([tokens, columns], of, storage, workers)
        }
        // The preset has refused every other product.
        _ => return Err(Refusal::Reason("another product".to_owned())),
    };
    Ok(CpuDraft { kernel: preset.kernel, specs, storage, cut })
}

impl Draft for CpuDraft<'_> {
    fn micros(&self) -> f64 {
        let fork = if self.cut.schedule.workers > 1 { model::FORK } else { 0.0 };
        self.cut.micros + fork
    }

    fn build(self) -> Result<Build, Refusal> {
        let CpuDraft { kernel, specs, storage, cut: Cut { mut schedule, reads_of_w, .. } } = self;
        schedule.common_scratch = schedule.common_scratch.next_multiple_of(CACHE_LINE);
        schedule.worker_scratch = schedule.worker_scratch.next_multiple_of(CACHE_LINE);
        let bind = |(&operand, spec): (&Operand, &Option<Spec>)| {
            let access = spec.as_ref()?.access;
            Some(Binding { operand: Some(operand), access, rows: None, at: None })
        };
        let launch = Launch {
            grid: [u32::try_from(schedule.tickets).unwrap_or(u32::MAX), 1, 1],
            bindings: Operand::ALL.iter().zip(specs).filter_map(bind).collect(),
            ..Launch::of(kernel.name())
        };
        let w = specs[Operand::W as usize].map_or(0, |spec| spec.bytes());
        let w_again = w.saturating_mul(reads_of_w.saturating_sub(1) as u64);
        Ok(Build {
            launches: vec![launch],
            // Saturated where nobody has so much memory: the workspace is then refused.
            workspace_len: schedule
                .workers
                .saturating_mul(schedule.worker_scratch)
                .saturating_add(schedule.common_scratch)
                .saturating_mul(size_of::<f32>()),
            flops: storage.flops,
            bytes: storage.bytes.saturating_add(w_again),
            schedule: Some(schedule),
        })
    }
}

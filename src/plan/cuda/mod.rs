//! Plans for CUDA: the presets, and for each the launches with their PTX texts: `linear`,
//! `decode`, `merge`, `gradient`. What a problem's operands are to the kernels is settled in `roles`,
//! bytes of parameters in `params`, the texts come from `build.rs` (`texts`), `model` ranks them.

mod decode;
mod gradient;
mod linear;
mod merge;
mod model;
mod params;
mod roles;
pub(crate) mod texts;

use core::ops::RangeInclusive;

use self::params::{Params, Place};
use self::roles::{Roles, Side};
use self::texts::{Text, job_at};
use super::{
    ANY, Build, CudaCapabilities, Kernel, Language, Launch, Preset, Refusal, Serves, Source,
    Strategy,
};
use crate::product::{FinishStep, Kind, LoadKind, Product};
use crate::{Access, Operand, Problem};

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

/// Bytes at the head of the workspace that all launches share: epoch, ticket and done, 128
/// bytes each, then flags. Zeroed once, when a workspace is made; a launch leaves it ready.
pub(crate) const HEADER: usize = 64 << 10;
/// Rows of tiles that have a flag; behind the flags lie the counters of `decode`.
const FLAGS: usize = (texts::COUNTERS - 384) / 4;
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

    /// One launch that brings the adapter into a form that `linear` can load.
    fn pack(&mut self, jobs: &[(Job, Packed)]) -> Result<(), Refusal> {
        let (from, to) = (self.problem.adapter().to_string(), self.problem.activation());
        let to = to.to_string();
        let text = texts::TEXTS
            .iter()
            .find(|of| (of.kind, of.tile_name, of.dtype) == ("pack", from.as_str(), &to))
            .ok_or_else(|| reason(format!("no text of `pack` from {from} to {to}")))?;
        let mut params = Params::new(texts::JOBS * job_at::LEN);
        let mut most = 1;
        for (index, (job, packed)) in jobs.iter().enumerate() {
            let at = |field: usize| index * job_at::LEN + field;
            params.address(at(job_at::FROM), Some(job.operand), Access::Read);
            params.address(at(job_at::TO), None, Access::Write);
            params.u64(at(job_at::HIGH_OFFSET), packed.high.offset);
            params.u64(at(job_at::LOW_OFFSET), packed.low.map_or(0, |low| low.offset));
            params.u64(at(job_at::OUTER_STRIDE), job.outer_stride as u64);
            params.u64(at(job_at::INNER_STRIDE), job.inner_stride as u64);
            params.u32(at(job_at::OUTER), job.outer);
            params.u32(at(job_at::INNER), job.inner);
            params.u32(at(job_at::ROWS), job.rows);
            params.u32(at(job_at::PADDED), job.padded);
            params.u32(at(job_at::PITCH), job.pitch);
            params.u32(at(job_at::LOW), usize::from(packed.low.is_some()));
            let elements = job.rows.saturating_mul(job.padded);
            if job.rows.saturating_mul(job.pitch) > i32::MAX as usize {
                return Err(reason(format!("{}: {elements} elements to convert", job.operand)));
            }
            most = most.max(elements.div_ceil(text.threads));
            let parts = if packed.low.is_some() { 2 } else { 1 };
            let read = job.outer * job.inner * self.problem.adapter().size();
            self.bytes += (read + self.size() * elements * parts) as u64;
        }
        self.micros += 4.0;
        // Below 2³¹ / 256 blocks.
        self.push(text, [most as u32, jobs.len() as u32, 1], params);
        Ok(())
    }

    /// Refuses a text that takes more shared memory than the device grants a block.
    fn check_shared(&self, text: &Text) -> Result<(), Refusal> {
        let (takes, grants) = (text.shared_bytes + DECLARED, self.cuda.shared_bytes as usize);
        match takes <= grants {
            true => Ok(()),
            false => {
                Err(reason(format!("{takes} bytes of shared memory, the device grants {grants}")))
            }
        }
    }

    fn push(&mut self, text: &'static Text, grid: [u32; 3], params: Params) {
        self.push_sized(text, grid, text.threads, text.shared_bytes, params);
    }

    /// A launch of fewer threads than the text was made for, or more shared memory.
    fn push_sized(
        &mut self,
        text: &'static Text,
        grid: [u32; 3],
        threads: usize,
        shared_bytes: usize,
        params: Params,
    ) {
        let Params { bytes, bindings } = params;
        self.launches.push(Launch {
            kernel: text.entry,
            source: Some(Source {
                language: Language::Ptx,
                text: text.source(),
                entry: text.entry,
            }),
            grid,
            // Small sums of build.rs's constants.
            block: [threads as u32, 1, 1],
            shared_bytes: shared_bytes as u32,
            bindings,
            params: bytes,
        });
    }
}

/// A matrix of the adapter as `linear` loads it; low: what rounding took from the high part.
#[derive(Debug, Clone, Copy)]
struct Packed {
    high: Place,
    low: Option<Place>,
}

/// One conversion of `pack`.
#[derive(Debug, Clone, Copy)]
struct Job {
    operand: Operand,
    outer: usize,
    inner: usize,
    outer_stride: usize,
    inner_stride: usize,
    /// Rows and their elements that are written, zero beyond `outer` and `inner`.
    rows: usize,
    padded: usize,
    /// Elements from one row that is written to the next.
    pitch: usize,
}

impl Job {
    /// Rows of whole chunks, one behind the other.
    fn new(side: &Side, turned: bool) -> Job {
        let [outer, inner] = side.shape(turned);
        let [outer_stride, inner_stride] = side.strides(turned);
        let padded = inner.next_multiple_of(8);
        let (operand, rows, pitch) = (side.operand, outer, padded);
        Job { operand, outer, inner, outer_stride, inner_stride, rows, padded, pitch }
    }

    /// Bytes from one row that is written to the next, of elements of `size`.
    fn stride(&self, size: usize) -> u32 {
        u32::try_from(self.pitch.saturating_mul(size)).unwrap_or(u32::MAX)
    }
}

/// The workspace as it is laid out: the header, then scratch on 256-byte boundaries.
struct Workspace {
    len: usize,
    used: bool,
}

impl Workspace {
    /// `bytes` of scratch; where they begin.
    fn take(&mut self, bytes: usize) -> u64 {
        let at = self.len;
        self.used = true;
        // Saturated where nobody has so much memory: the workspace is then refused.
        self.len = at.saturating_add(bytes.saturating_add(255) & !255);
        at as u64
    }

    /// Room for one matrix of the adapter, and what fills it.
    fn pack(&mut self, side: &Side, turned: bool) -> (Job, Packed) {
        let job = Job::new(side, turned);
        let bytes = job.rows.saturating_mul(job.pitch).saturating_mul(side.size);
        let stride = job.stride(side.size);
        let mut part = || Place { operand: None, offset: self.take(bytes), stride };
        let high = part();
        let low = side.splits().then(part);
        (job, Packed { high, low })
    }

    /// Room for `down` in two parts as a main loop carries it: one matrix of `ranks` ranks, the
    /// low part in their upper half, what no rank fills zero.
    fn pack_as_ranks(&mut self, side: &Side, turned: bool, ranks: usize) -> (Job, Packed) {
        let half = ranks / 2;
        let mut job = Job::new(side, turned);
        // Turned, ranks are columns.
        let low = match turned {
            true => {
                (job.padded, job.pitch) = (half, ranks);
                half
            }
            false => {
                job.rows = half;
                half.saturating_mul(job.pitch)
            }
        };
        let all = if turned { job.rows } else { ranks };
        let offset = self.take(all.saturating_mul(job.pitch).saturating_mul(2));
        let high = Place { operand: None, offset, stride: job.stride(2) };
        (job, Packed { high, low: Some(high.later(low)) })
    }

    /// Bytes in all: none where neither header nor scratch is used.
    fn finish(self) -> usize {
        if self.used { self.len } else { 0 }
    }
}

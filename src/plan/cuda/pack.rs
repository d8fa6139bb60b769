//! The launch of `pack`: matrices of the adapter brought into a form that the kernels can load.
//! Called by every kernel that takes an adapter.

use super::abi::{JOBS, Job as Entry, Pack};
use super::address::Address;
use super::factor::Factor;
use super::numbers::Kind;
use super::params::{pointer, word};
use super::variants::Variant;
use super::{Building, Refusal};
use crate::{Access, DType, Error, Operand};

/// A matrix of the adapter as kernels load it; low: what rounding took from the high part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packed {
    pub(super) high: Address,
    pub(super) low: Option<Address>,
}

/// One conversion.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job {
    operand: Operand,
    from: DType,
    outer: usize,
    inner: usize,
    outer_stride: usize,
    inner_stride: usize,
    /// Rows and their elements that are written, zero beyond `outer` and `inner`.
    pub(super) rows: usize,
    pub(super) padded: usize,
    /// Elements from one row that is written to the next.
    pub(super) pitch: usize,
}

impl Job {
    /// Rows of whole chunks, one behind the other.
    pub(super) fn new(factor: &Factor, k_major: bool) -> Job {
        let [outer, inner] = factor.shape(k_major);
        let [outer_stride, inner_stride] = factor.strides(k_major);
        let padded = inner.next_multiple_of(8);
        let (operand, from) = (factor.load.operand, factor.load.spec.dtype);
        let (rows, pitch) = (outer, padded);
        Job { operand, from, outer, inner, outer_stride, inner_stride, rows, padded, pitch }
    }

    /// Bytes from one row that is written to the next, of elements of `size`.
    pub(super) fn stride(&self, size: usize) -> u32 {
        word(self.pitch.saturating_mul(size))
    }
}

impl Building<'_> {
    /// One launch for all of them; none where there are none.
    pub(super) fn pack(&mut self, jobs: &[(Job, Packed)]) -> Result<(), Refusal> {
        let Some((first, _)) = jobs.first() else { return Ok(()) };
        let (from, to) = (first.from, self.activation);
        let variant = Variant::find(
            Kind::Pack,
            0,
            |of| (of.adapter, of.dtype) == (from, to),
            || format!("no text of `pack` from {from} to {to}"),
        )?;
        let mut params = self.params::<Pack>();
        let mut most = 1;
        for (index, (job, packed)) in jobs.iter().enumerate().take(JOBS) {
            params.bind(pointer!(Pack, jobs[index], Entry, from), Some(job.operand), Access::Read);
            params.bind(pointer!(Pack, jobs[index], Entry, to), None, Access::Write);
            params.block.jobs[index] = Entry {
                high_offset: packed.high.offset,
                low_offset: packed.low.map_or(0, |low| low.offset),
                outer_stride: job.outer_stride as u64,
                inner_stride: job.inner_stride as u64,
                outer: word(job.outer),
                inner: word(job.inner),
                rows: word(job.rows),
                padded: word(job.padded),
                pitch: word(job.pitch),
                low: packed.low.is_some().into(),
                ..Entry::default()
            };
            let elements = job.rows.saturating_mul(job.padded);
            let (limit, got) = (i32::MAX as u64, job.rows.saturating_mul(job.pitch) as u64);
            if got > limit {
                let (operand, what) = (job.operand, "elements that `pack` converts");
                return Err(Refusal::Limit(Error::Limit { operand, what, limit, got }));
            }
            most = most.max(elements.div_ceil(variant.threads));
            let parts = if packed.low.is_some() { 2 } else { 1 };
            let read = job.outer * job.inner * from.size();
            self.bytes += (read + to.size() * elements * parts) as u64;
        }
        self.micros += 4.0;
        // Below 2³¹ / 256 blocks.
        self.push(variant, [most as u32, jobs.len() as u32, 1], params);
        Ok(())
    }
}

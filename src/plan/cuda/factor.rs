//! One factor of the adapter as a kernel comes by it: where it lies, or packed into scratch first.

use super::Refusal;
use super::address::Address;
use super::pack::{Job, Packed};
use super::scratch::ScratchLayout;
use crate::DType;
use crate::product::Load;

/// A matrix `[rows, cols]` as the product sees it, whose sum runs along `cols`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Factor {
    pub(super) load: Load,
    pub(super) address: Address,
    rows: usize,
    cols: usize,
    /// Of the activations, as which the kernels multiply it.
    activation: DType,
}

impl Factor {
    pub(super) fn new(
        load: &Load,
        [rows, cols]: [usize; 2],
        activation: DType,
    ) -> Result<Factor, Refusal> {
        Ok(Factor { load: *load, address: Address::of_load(load)?, rows, cols, activation })
    }

    /// Another storage type than the activations'.
    pub(super) fn converts(&self) -> bool {
        self.load.spec.dtype != self.activation
    }

    /// Takes a high and a low part in the activations' type; f32 holds every adapter in one.
    pub(super) fn is_pair(&self) -> bool {
        self.converts() && self.activation != DType::F32
    }

    /// Bytes of an element as it is packed.
    pub(super) fn packed_size(&self) -> usize {
        self.activation.size()
    }

    /// Whether four elements at a time can be loaded where it lies.
    pub(super) fn in_fours(&self) -> bool {
        let bytes = 4 * self.load.spec.dtype.size();
        let stride = self.address.stride as usize;
        self.load.spec.align.is_multiple_of(bytes) && stride.is_multiple_of(bytes)
    }

    /// Stored rows and columns if its sum ran along stored rows, or not.
    pub(super) fn shape(&self, k_major: bool) -> [usize; 2] {
        if k_major { [self.rows, self.cols] } else { [self.cols, self.rows] }
    }

    /// Elements from one to the next along each of [`Factor::shape`], where it lies.
    pub(super) fn strides(&self, k_major: bool) -> [usize; 2] {
        let stride = self.load.spec.stride;
        if k_major == self.load.k_major { [stride, 1] } else { [1, stride] }
    }

    /// Where it lies, if `linear` can load it there.
    fn in_place(&self, k_major: bool, aligned: bool) -> Option<Packed> {
        let there = !self.converts() && self.load.k_major == k_major;
        (there && (self.address.aligned || !aligned))
            .then_some(Packed { high: self.address, low: None })
    }

    /// Where it lies, or in scratch, with a job that brings it there; of `down` that a main loop
    /// carries as `ranks` ranks, a pair beside each other.
    pub(super) fn place(
        &self,
        k_major: bool,
        aligned: bool,
        ranks: Option<usize>,
        scratch: &mut ScratchLayout,
        jobs: &mut Vec<(Job, Packed)>,
    ) -> Packed {
        if let Some(there) = self.in_place(k_major, aligned) {
            return there;
        }
        let (job, packed) = match ranks {
            Some(ranks) if self.is_pair() => scratch.pack_as_ranks(self, k_major, ranks),
            _ => scratch.pack(self, k_major),
        };
        jobs.push((job, packed));
        packed
    }
}

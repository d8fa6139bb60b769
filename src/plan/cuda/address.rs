//! Where a matrix lies as kernels address it, and how many bytes of it they may load at a time.

use super::{Refusal, reason};
use crate::product::{Load, Store};
use crate::{Error, Operand, Spec};

/// Bytes of which the addresses and rows of operands are multiples, unless a layout says so.
pub(super) const VECTOR: usize = 16;

/// A matrix of the caller's, or in the workspace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Address {
    /// `None`: the workspace.
    pub(super) operand: Option<Operand>,
    /// Bytes from its start.
    pub(super) offset: u64,
    /// Bytes from one stored row to the next.
    pub(super) stride: u32,
    /// Rows can be loaded 16 bytes at a time.
    pub(super) aligned: bool,
}

impl Address {
    pub(super) fn of_load(load: &Load) -> Result<Address, Refusal> {
        Address::new(load.operand, &load.spec)
    }

    pub(super) fn of_store(store: &Store) -> Result<Address, Refusal> {
        Address::new(store.operand, &store.spec)
    }

    fn new(operand: Operand, spec: &Spec) -> Result<Address, Refusal> {
        let bytes = spec.stride.checked_mul(spec.dtype.size());
        // No second row: its distance is free, and what is never read lies aligned like the first.
        let bytes = match spec.stored().0 {
            0 | 1 => bytes.and_then(|bytes| bytes.checked_next_multiple_of(VECTOR)),
            _ => bytes,
        };
        let got = bytes.unwrap_or(usize::MAX) as u64;
        let (what, limit) = ("bytes from row to row", u64::from(u32::MAX));
        let stride = u32::try_from(got)
            .map_err(|_| Refusal::Limit(Error::Limit { operand, what, limit, got }))?;
        let aligned = spec.align.is_multiple_of(VECTOR) && (stride as usize).is_multiple_of(VECTOR);
        Ok(Address { operand: Some(operand), offset: 0, stride, aligned })
    }

    /// In the workspace, on a boundary that scratch begins on.
    pub(super) fn in_scratch(offset: u64, stride: u32) -> Address {
        Address { operand: None, offset, stride, aligned: true }
    }

    /// The same, `elements` of 16 bits further on.
    pub(super) fn later(self, elements: usize) -> Address {
        Address { offset: self.offset + 2 * elements as u64, ..self }
    }

    /// Refuses it where it cannot be loaded 16 bytes at a time.
    pub(super) fn check_aligned(&self) -> Result<(), Refusal> {
        match self.operand {
            Some(operand) if !self.aligned => Err(reason(format!(
                "{operand}: not rows of 16-byte multiples at 16-byte addresses"
            ))),
            _ => Ok(()),
        }
    }
}

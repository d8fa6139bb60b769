//! Parameter blocks of CUDA launches: bytes at the places that `build.rs` gave their names,
//! and the bindings whose addresses the executor writes into them.

use crate::plan::Binding;
use crate::{Access, Operand};

/// A matrix as a kernel addresses it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// `None`: the workspace.
    pub(super) operand: Option<Operand>,
    /// Bytes from its start.
    pub(super) offset: u64,
    /// Bytes from one stored row to the next.
    pub(super) stride: u32,
}

impl Place {
    /// The same, `elements` of 16 bits further on.
    pub(super) fn later(self, elements: usize) -> Place {
        Place { offset: self.offset + 2 * elements as u64, ..self }
    }
}

/// A parameter block under construction.
pub(super) struct Params {
    pub(super) bytes: Vec<u8>,
    pub(super) bindings: Vec<Binding>,
}

impl Params {
    pub(super) fn new(len: usize) -> Params {
        Params { bytes: vec![0; len], bindings: Vec::new() }
    }

    pub(super) fn u32(&mut self, at: usize, value: usize) {
        // The draft has refused sizes that do not fit.
        let value = u32::try_from(value).unwrap_or(u32::MAX);
        self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    pub(super) fn f32(&mut self, at: usize, value: f32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, at: usize, value: u64) {
        self.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// The executor writes the operand's address at `at`.
    pub(super) fn address(&mut self, at: usize, operand: Option<Operand>, access: Access) {
        // Offsets are below the length of a parameter block.
        let at = Some(at as u32);
        self.bindings.push(Binding { operand, access, rows: None, at });
    }

    /// Address, offset and stride of a matrix.
    pub(super) fn place(&mut self, at: [usize; 3], place: Place, access: Access) {
        let [address, offset, stride] = at;
        self.address(address, place.operand, access);
        self.u64(offset, place.offset);
        self.u32(stride, place.stride as usize);
    }
}

//! The parameter block of one launch as it is filled in, and the bindings whose addresses the
//! executor writes into it. Called by each kernel's file.

use super::abi::{Window, Word};
use super::address::Address;
use crate::plan::{Binding, Launch};
use crate::problem::Scalars;
use crate::product::{Multiplier, Old};
use crate::{Access, Operand};

/// A block, and what is bound into it.
#[derive(Debug)]
pub(super) struct Params<T> {
    pub(super) block: T,
    /// What of a window lies behind it, in texts that gather.
    pub(super) window: Option<Window>,
    /// `None` while a launch is only priced.
    bindings: Option<Vec<Binding>>,
    scale_at: Option<u32>,
    beta_at: Option<u32>,
}

/// More than most launches bind.
const BINDINGS: usize = 16;

impl<T: Word + Default> Params<T> {
    /// Nothing filled in; `is_priced`: and nothing will be launched.
    pub(super) fn new(is_priced: bool) -> Params<T> {
        let bindings = (!is_priced).then(|| Vec::with_capacity(BINDINGS));
        Params { block: T::default(), window: None, bindings, scale_at: None, beta_at: None }
    }

    /// The executor writes the operand's address at the pointer `at` of the block.
    pub(super) fn bind(&mut self, at: usize, operand: Option<Operand>, access: Access) {
        // Below the length of a block.
        let at = Some(at as u32);
        if let Some(bindings) = &mut self.bindings {
            bindings.push(Binding { operand, access, rows: None, at });
        }
    }

    /// The same of a matrix that is read.
    pub(super) fn bind_read(&mut self, at: usize, address: &Address) {
        self.bind(at, address.operand, Access::Read);
    }

    /// `factor`, which stands at `at` of the block; a run writes its own there.
    pub(super) fn scale(&mut self, at: usize, factor: Multiplier, of: Scalars) -> f32 {
        self.scale_at = (factor != Multiplier::One).then_some(at as u32);
        factor.value(of)
    }

    /// What old values are multiplied with, likewise.
    pub(super) fn beta(&mut self, at: usize, old: Old, of: Scalars) -> f32 {
        self.beta_at = (old == Old::Beta).then_some(at as u32);
        old.value(of)
    }

    /// A launch of it, of which the caller fills in the rest.
    pub(super) fn launch(self, kernel: &'static str) -> Launch {
        let mut params = Vec::with_capacity(size_of::<T>());
        self.block.put(&mut params);
        if let Some(window) = &self.window {
            window.put(&mut params);
        }
        let (bindings, scale_at, beta_at) =
            (self.bindings.unwrap_or_default(), self.scale_at, self.beta_at);
        Launch { bindings, params, scale_at, beta_at, ..Launch::of(kernel) }
    }
}

/// Where a pointer lies in its block; a field of another type does not compile.
macro_rules! pointer {
    ($block:ident, $field:ident) => {{
        const _: fn(&$block) -> &$crate::plan::cuda::abi::Pointer = |of| &of.$field;
        core::mem::offset_of!($block, $field)
    }};
    ($block:ident, $table:ident[$index:expr], $entry:ident, $field:ident) => {{
        const _: fn(&$block) -> &[$entry] = |of| &of.$table;
        core::mem::offset_of!($block, $table)
            + $index * size_of::<$entry>()
            + pointer!($entry, $field)
    }};
}
pub(super) use pointer;

/// A size as kernels count; the draft has refused what does not fit.
pub(super) fn word(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

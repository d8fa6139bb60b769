//! A launch bound to a host's memory: which bytes each binding is, and the parameter block with addresses,
//! offsets, scale and β in place. Called by hosts that launch kernels themselves, and by the executor on wgpu.

use core::ops::Range;

use super::{Capabilities, Launch, Scaled, WgpuCapabilities};
use crate::problem::extent;
use crate::{Access, Operand, Spec};

/// A storage binding of WGSL has at least so many bytes where its buffer does: what a shader declares may be
/// as large as a vector of four words.
pub(crate) const LEAST_BINDING: u64 = 16;

/// One binding of a launch, bound.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BoundBinding {
    /// Which operand; `None` for the workspace.
    pub operand: Option<Operand>,
    /// Addresses on CUDA; in WGSL the bytes of the operand's buffer to bind, from a multiple of
    /// [`WgpuCapabilities::binding_align`] to whole words, 16 bytes at least: what lies behind the buffer's
    /// end is left out. Empty for an operand without elements, to which any 16 bytes are bound.
    pub bytes: Range<u64>,
    /// Whether WGSL declares it `storage, read_write`, else `storage, read`.
    pub read_write: bool,
}

/// Where the bound rows of an operand are in its buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// Byte at which the binding begins.
    pub(crate) start: u64,
    /// Byte behind the last element's word.
    pub(crate) end: u64,
    /// Elements from the start of the binding to the first one.
    pub(crate) offset: u32,
}

impl Window {
    /// Of stored rows `rows` (`None`: all) of an operand that begins at byte `begin`; `None` where there is no
    /// element.
    pub(crate) fn new(
        spec: &Spec,
        rows: Option<(usize, usize)>,
        begin: u64,
        align: u32,
    ) -> Option<Window> {
        let size = spec.dtype.size() as u64;
        let (all, cols) = spec.stored();
        let (first, count) = rows.unwrap_or((0, all));
        let bytes = extent(count, cols, spec.stride)? as u64 * size;
        let begin = begin + first as u64 * spec.stride as u64 * size;
        let start = begin - begin % u64::from(align.max(1));
        // Less than the alignment, which is a u32.
        let offset = ((begin - start) / size) as u32;
        // Whole words are bound: the last one may belong to a neighbour in part.
        (bytes > 0).then_some(Window { start, end: (begin + bytes).next_multiple_of(4), offset })
    }
}

/// Whether a shader declares a binding `read_write`.
pub(crate) fn read_write(
    operand: Option<Operand>,
    access: Access,
    planned: &WgpuCapabilities,
) -> bool {
    operand.is_none() || access != Access::Read || planned.shared_buffers
}

impl Scaled<'_> {
    /// Binds `launch`, one of the plan's: `params` becomes its parameter block, `bindings` what is bound in
    /// the order of the kernel's parameters. `begin` says where an operand's first element is, and the
    /// workspace's first byte (`None`): its address on CUDA, the byte of its buffer in WGSL. Both vectors keep
    /// their memory, so that a host that hands in the same ones allocates nothing.
    ///
    /// ```
    /// use fused_lora::{Capabilities, Plan, Problem, Scaled, WgpuCapabilities};
    ///
    /// let problem = Problem::forward(8, 64, 32, 4);
    /// let plan = Plan::new(&problem, &Capabilities::Wgpu(WgpuCapabilities::default()))?;
    /// // Every operand lies 1008 bytes into its buffer, the workspace at the start of its own.
    /// let (mut params, mut bindings) = (Vec::new(), Vec::new());
    /// for launch in plan.launches() {
    ///     let begin = |operand: Option<_>| if operand.is_some() { 1008 } else { 0 };
    ///     Scaled::from(&plan).bind(launch, begin, &mut params, &mut bindings);
    ///     assert!(bindings.iter().all(|of| of.bytes.start % 256 == 0));
    ///     // A bind group of `bindings`, then of `params`; dispatch_workgroups(launch.grid).
    /// }
    /// # Ok::<(), fused_lora::Error>(())
    /// ```
    pub fn bind(
        &self,
        launch: &Launch,
        begin: impl Fn(Option<Operand>) -> u64,
        params: &mut Vec<u8>,
        bindings: &mut Vec<BoundBinding>,
    ) {
        params.clear();
        params.extend_from_slice(&launch.params);
        self.write(launch, params);
        bindings.clear();
        let plan = self.plan();
        for binding in &launch.bindings {
            let (operand, place) = (binding.operand, binding.at.map(|at| at as usize));
            let begin = begin(operand);
            let spec = operand.and_then(|of| plan.specs()[of as usize].as_ref());
            let mut write = |number: &[u8]| {
                let to = place.and_then(|at| params.get_mut(at..)?.get_mut(..number.len()));
                if let Some(to) = to {
                    to.copy_from_slice(number);
                }
            };
            let Capabilities::Wgpu(planned) = plan.capabilities() else {
                write(&begin.to_le_bytes());
                let len = spec.map_or(plan.workspace_len() as u64, |spec| {
                    spec.extent().unwrap_or(0) as u64 * spec.dtype.size() as u64
                });
                let bytes = begin..begin.saturating_add(len);
                let read_write = binding.access != Access::Read;
                bindings.push(BoundBinding { operand, bytes, read_write });
                continue;
            };
            let window = match spec {
                Some(spec) => Window::new(spec, binding.rows, begin, planned.binding_align),
                None => {
                    let end = begin + (plan.workspace_len() as u64).next_multiple_of(4);
                    Some(Window { start: begin, end, offset: 0 })
                }
            };
            let bytes = match window {
                None => 0..0,
                Some(Window { start, end, offset }) => {
                    write(&offset.to_le_bytes());
                    start..end.max(start + LEAST_BINDING)
                }
            };
            let read_write = read_write(operand, binding.access, planned);
            bindings.push(BoundBinding { operand, bytes, read_write });
        }
    }
}

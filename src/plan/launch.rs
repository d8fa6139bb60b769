//! One kernel launch as data: enough for somebody who launches kernels himself.

use core::hash::{Hash, Hasher};
use std::sync::Arc;

use super::key;
use crate::{Access, Operand};

/// One launch of a plan: what an executor does, for somebody who does it himself.
///
/// The launches of a plan run in their order, each behind the end of the one before (on CUDA: on
/// one stream; on wgpu: in one compute pass). Before them [`Operands::check`](crate::Operands::check)
/// says whether the operands are the plan's, and of what to bind beside them
/// [`Plan::workspace_len`](crate::Plan::workspace_len) and
/// [`Plan::workspace_zeroed`](crate::Plan::workspace_zeroed) tell the size and the state. A run with
/// another scale or β than the planned problem's writes these into `params` as well, at `scale_at`
/// and `beta_at`.
///
/// # PTX
///
/// The kernel has one parameter, the block `params`. Into it goes, for each binding, the address
/// of the operand's first element (of the workspace's first byte, a multiple of 256) as a
/// little-endian u64 at byte `at`. Operands begin where their layouts promise, at multiples of 16
/// bytes where these say nothing. More than 48 KiB of `shared_bytes` has to be announced
/// (`CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`).
///
/// ```
/// use fused_lora::{Capabilities, CudaCapabilities, DType, Operand, Plan, Problem, Scaled};
///
/// let problem = Problem::forward(512, 4096, 4096, 16).with_dtype(DType::Bf16);
/// let plan = Plan::new(&problem, &Capabilities::Cuda(CudaCapabilities::default()))?;
/// // Where a host keeps its operands, and the workspace.
/// let address = |operand: Option<Operand>| match operand {
///     None => 0x7000_0000_0000u64,
///     Some(operand) => 0x7100_0000_0000 + ((operand as u64) << 32),
/// };
/// let (mut params, mut bindings) = (Vec::new(), Vec::new());
/// for launch in plan.launches() {
///     let source = launch.source.as_ref().expect("kernels on the CPU alone have no text");
///     Scaled::from(&plan).bind(launch, address, &mut params, &mut bindings);
///     assert!(source.text.contains(&format!(".entry {}(", source.entry)));
///     // cuModuleLoadData(source.text), cuModuleGetFunction(source.entry), and then
///     // cuLaunchKernel(function, launch.grid, launch.block, launch.shared_bytes, stream, [params]).
/// }
/// # Ok::<(), fused_lora::Error>(())
/// ```
///
/// # WGSL
///
/// Bind group 0 has the bindings in their order, then the block `params`: a uniform buffer, or with
/// [`WgpuCapabilities::storage_params`](crate::WgpuCapabilities::storage_params) a storage buffer
/// that is read. A binding is `storage, read` where its access is [`Access::Read`] and the plan is
/// not for [`shared_buffers`](crate::WgpuCapabilities::shared_buffers), else `storage, read_write`.
/// It reaches from the first bound row's first element, rounded down to
/// [`binding_align`](crate::WgpuCapabilities::binding_align), to the end of the last one's, rounded
/// up to 4 bytes, and has at least 16; how many elements were added at its start goes into `params`
/// as a little-endian u32 at byte `at`. An operand without elements is bound to any 16 bytes.
/// `block` and `shared_bytes` stand in the text.
///
/// [`Scaled::bind`](crate::Scaled::bind) works all of this out.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Launch {
    /// The kernel's name: that of its file and of the function that runs it.
    pub kernel: &'static str,
    /// The kernel's text, or `None` where it is compiled into this crate (CPU).
    pub source: Option<Source>,
    /// Workgroups (CTAs, or tickets on the CPU) along x, y, z.
    pub grid: [u32; 3],
    /// Threads of a workgroup along x, y, z.
    pub block: [u32; 3],
    /// Bytes of shared (workgroup) memory: on CUDA to be asked for at launch, in WGSL declared by
    /// the text.
    pub shared_bytes: u32,
    /// The operands the kernel binds, in the order of its parameters.
    pub bindings: Vec<Binding>,
    /// The parameter block, little-endian, as the kernel declares it, with the scale and the β of
    /// the problem that was planned.
    pub params: Vec<u8>,
    /// Where in it the scale stands, an f32 (for unmerge: its negative), and where β; `None` where
    /// the kernel has none. [`Scaled::write`](crate::Scaled::write) writes those of a run.
    pub scale_at: Option<u32>,
    /// See `scale_at`.
    pub beta_at: Option<u32>,
}

impl Launch {
    /// One of `kernel` that binds nothing yet.
    pub(crate) fn of(kernel: &'static str) -> Launch {
        Launch {
            kernel,
            source: None,
            grid: [1; 3],
            block: [1; 3],
            shared_bytes: 0,
            bindings: Vec::new(),
            params: Vec::new(),
            scale_at: None,
            beta_at: None,
        }
    }
}

/// A kernel's text. Cheap to clone, and a key for maps of what was compiled of it: it is hashed by
/// `key` and compared by address first, so that neither walks the text. Plans share equal texts.
#[derive(Debug, Clone, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Source {
    /// The language of `text`.
    pub language: Language,
    /// The whole module.
    #[cfg_attr(feature = "serde", serde(serialize_with = "super::serialize::text"))]
    pub text: Arc<str>,
    /// The entry point to launch.
    pub entry: &'static str,
    /// A number worked out of `text`, when the crate was built or the text was rendered. Others may
    /// have it, too.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub key: u64,
}

impl Source {
    /// Of WGSL that was rendered now.
    pub(crate) fn wgsl(text: &str, entry: &'static str) -> Source {
        Source { language: Language::Wgsl, text: text.into(), entry, key: key::of(text) }
    }

    /// Of PTX that the build has embedded and numbered.
    pub(super) fn ptx(text: &str, entry: &'static str, key: u64) -> Source {
        Source { language: Language::Ptx, text: text.into(), entry, key }
    }
}

impl PartialEq for Source {
    fn eq(&self, other: &Source) -> bool {
        let same = (self.key, self.entry, self.language);
        same == (other.key, other.entry, other.language)
            && (Arc::ptr_eq(&self.text, &other.text) || self.text == other.text)
    }
}

impl Hash for Source {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

/// The languages kernels are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Language {
    /// NVIDIA's virtual assembly.
    Ptx,
    /// WebGPU's shading language.
    Wgsl,
}

/// One operand of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Binding {
    /// Which operand; `None` for the workspace.
    pub operand: Option<Operand>,
    /// What the kernel does with it.
    pub access: Access,
    /// First stored row that is bound, and how many; `None`: all of them. An operand that is
    /// larger than a binding may be is bound in several windows, or run in several launches.
    pub rows: Option<(usize, usize)>,
    /// Where in the parameter block the executor writes, as a little-endian u32, how many
    /// elements after the start of the binding the first bound row begins (WGSL: the start is
    /// rounded down to what the device aligns bindings to), or, as a u64, its address (PTX);
    /// `None` where it writes neither.
    pub at: Option<u32>,
}

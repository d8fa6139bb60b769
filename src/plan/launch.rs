//! One kernel launch as data: enough for somebody who launches kernels himself.

use std::sync::Arc;

use crate::{Access, Operand};

/// One launch of a plan.
#[derive(Debug, Clone, PartialEq)]
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
    /// Bytes of shared (workgroup) memory asked for at launch.
    pub shared_bytes: u32,
    /// The operands the kernel binds, in the order of its parameters.
    pub bindings: Vec<Binding>,
    /// The parameter block, little-endian, as the kernel declares it.
    pub params: Vec<u8>,
}

/// A kernel's text. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Source {
    /// The language of `text`.
    pub language: Language,
    /// The whole module.
    pub text: Arc<str>,
    /// The entry point to launch.
    pub entry: &'static str,
}

/// The languages kernels are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Language {
    /// NVIDIA's virtual assembly.
    Ptx,
    /// WebGPU's shading language.
    Wgsl,
}

/// One operand of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

//! One kernel launch as data: enough for somebody who launches kernels himself.

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

/// A kernel's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Source {
    /// The language of `text`.
    pub language: Language,
    /// The whole module.
    pub text: &'static str,
    /// The entry point to launch.
    pub entry: &'static str,
}

/// The languages kernels are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// Where in the parameter block the executor writes this binding's address (PTX) or its
    /// element offset (WGSL); `None` where it writes neither.
    pub at: Option<u32>,
}

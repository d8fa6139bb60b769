//! The storage types, by the names of `src/dtype.rs`, which knows more of them than a build
//! script has at hand. The emitted table names the library's.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DType {
    F32,
    F16,
    Bf16,
}

impl DType {
    pub(crate) const ALL: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

    pub(crate) const fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::Bf16 => 2,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
        })
    }
}

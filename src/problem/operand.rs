//! The operands by name, and what an operation does with each. Used by everything that speaks of
//! operands: problems, checks, plans, bindings, errors.

use core::fmt;

/// The names of the operands; errors, bindings and tables use them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[repr(u8)]
#[non_exhaustive]
pub enum Operand {
    /// Input `[tokens, in_features]`.
    X,
    /// Frozen weight `[out_features, in_features]`.
    W,
    /// Optional bias `[1, out_features]`.
    Bias,
    /// lora_A `[rank, in_features]`.
    A,
    /// lora_B `[out_features, rank]`.
    B,
    /// Output `[tokens, out_features]`.
    Y,
    /// `s·x·aᵀ`, `[tokens, shrunk_stride]`.
    Shrunk,
    /// Gradient of the output `[tokens, out_features]`.
    Dy,
    /// Gradient of the input `[tokens, in_features]`.
    Dx,
    /// `s·dy·b`, `[tokens, shrunk_stride]`.
    Dshrunk,
    /// Gradient of lora_A `[rank, in_features]`.
    Da,
    /// Gradient of lora_B `[out_features, rank]`.
    Db,
}

impl Operand {
    /// How many names there are: the length of tables by operand.
    pub(crate) const COUNT: usize = Operand::ALL.len();

    /// Every name, in the order of the enumeration. A later version may have more.
    pub const ALL: &[Operand] = &[
        Operand::X,
        Operand::W,
        Operand::Bias,
        Operand::A,
        Operand::B,
        Operand::Y,
        Operand::Shrunk,
        Operand::Dy,
        Operand::Dx,
        Operand::Dshrunk,
        Operand::Da,
        Operand::Db,
    ];

    /// Whether the operand may be stored with its columns contiguous. The weight, the
    /// adapter and the adapter's gradients may: frameworks keep them either way.
    pub const fn either_major(self) -> bool {
        matches!(self, Operand::W | Operand::A | Operand::B | Operand::Da | Operand::Db)
    }

    /// The name as errors and kernels write it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Operand::X => "x",
            Operand::W => "w",
            Operand::Bias => "bias",
            Operand::A => "a",
            Operand::B => "b",
            Operand::Y => "y",
            Operand::Shrunk => "shrunk",
            Operand::Dy => "dy",
            Operand::Dx => "dx",
            Operand::Dshrunk => "dshrunk",
            Operand::Da => "da",
            Operand::Db => "db",
        }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What an operation does with an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Access {
    /// Reads it.
    Read,
    /// Writes it; what it held before does not matter.
    Write,
    /// Reads what it holds and writes it anew (β ≠ 0, merge).
    Update,
}

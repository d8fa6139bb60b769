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
    /// LoKr's first factor `[rows, columns]`, where it is stored whole.
    W1,
    /// LoHa `[out_features, rank]`; of LoKr's w1 `[rows, rank]`.
    W1a,
    /// LoHa `[rank, in_features]`; of LoKr's w1 `[rank, columns]`.
    W1b,
    /// LoKr's second factor `[out_features / rows, in_features / columns]`, where it is stored whole.
    W2,
    /// LoHa `[out_features, rank]`; LoKr `[out_features / rows, rank]`.
    W2a,
    /// LoHa `[rank, in_features]`; LoKr `[rank, in_features / columns]`.
    W2b,
    /// Gradient of w1.
    Dw1,
    /// Gradient of w1a.
    Dw1a,
    /// Gradient of w1b.
    Dw1b,
    /// Gradient of w2.
    Dw2,
    /// Gradient of w2a.
    Dw2a,
    /// Gradient of w2b.
    Dw2b,
    /// Optional factor of each output column `[1, out_features]`, in f32.
    Gain,
    /// DoRA's m, `[1, out_features]`, in f32.
    Magnitude,
    /// `gain∘dy`, `[tokens, out_features]`: what backward_input and backward_adapter take for `dy`.
    ScaledDy,
    /// Gradient of the magnitude `[1, out_features]`.
    Dmagnitude,
    /// LoCon's lora_down beside a core, `[rank, channels]`.
    Down,
    /// LoCon's core, `[rank, rank · taps]`.
    Core,
    /// LoCon's lora_up beside a core, `[out_features, rank]`.
    Up,
    /// Gradient of lora_down beside a core.
    Ddown,
    /// Gradient of the core.
    Dcore,
    /// Gradient of lora_up beside a core.
    Dup,
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
        Operand::W1,
        Operand::W1a,
        Operand::W1b,
        Operand::W2,
        Operand::W2a,
        Operand::W2b,
        Operand::Dw1,
        Operand::Dw1a,
        Operand::Dw1b,
        Operand::Dw2,
        Operand::Dw2a,
        Operand::Dw2b,
        Operand::Gain,
        Operand::Magnitude,
        Operand::ScaledDy,
        Operand::Dmagnitude,
        Operand::Down,
        Operand::Core,
        Operand::Up,
        Operand::Ddown,
        Operand::Dcore,
        Operand::Dup,
    ];

    /// Whether the operand may be stored with its columns contiguous. The weight, the
    /// adapter and the adapter's gradients may: frameworks keep them either way.
    pub const fn either_major(self) -> bool {
        use Operand::*;
        match self {
            W | A | B | Da | Db => true,
            W1 | W1a | W1b | W2 | W2a | W2b | Dw1 | Dw1a | Dw1b | Dw2 | Dw2a | Dw2b => true,
            Down | Core | Up | Ddown | Dcore | Dup => true,
            X | Bias | Y | Shrunk | Dy | Dx | Dshrunk => false,
            Gain | Magnitude | ScaledDy | Dmagnitude => false,
        }
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
            Operand::W1 => "w1",
            Operand::W1a => "w1a",
            Operand::W1b => "w1b",
            Operand::W2 => "w2",
            Operand::W2a => "w2a",
            Operand::W2b => "w2b",
            Operand::Dw1 => "dw1",
            Operand::Dw1a => "dw1a",
            Operand::Dw1b => "dw1b",
            Operand::Dw2 => "dw2",
            Operand::Dw2a => "dw2a",
            Operand::Dw2b => "dw2b",
            Operand::Gain => "gain",
            Operand::Magnitude => "magnitude",
            Operand::ScaledDy => "scaled_dy",
            Operand::Dmagnitude => "dmagnitude",
            Operand::Down => "down",
            Operand::Core => "core",
            Operand::Up => "up",
            Operand::Ddown => "ddown",
            Operand::Dcore => "dcore",
            Operand::Dup => "dup",
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

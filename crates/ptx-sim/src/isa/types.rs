//! Types as they are written after a dot.

/// What a type's bits mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Bits,
    Unsigned,
    Signed,
    Float,
    Pred,
}

/// A fundamental or packed type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ty {
    Pred,
    B8,
    B16,
    B32,
    B64,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    Tf32,
    F32,
    F64,
}

impl Ty {
    pub(crate) fn parse(word: &str) -> Option<Ty> {
        Some(match word {
            "pred" => Ty::Pred,
            "b8" => Ty::B8,
            "b16" => Ty::B16,
            "b32" => Ty::B32,
            "b64" => Ty::B64,
            "u8" => Ty::U8,
            "u16" => Ty::U16,
            "u32" => Ty::U32,
            "u64" => Ty::U64,
            "s8" => Ty::S8,
            "s16" => Ty::S16,
            "s32" => Ty::S32,
            "s64" => Ty::S64,
            "f16" => Ty::F16,
            "f16x2" => Ty::F16x2,
            "bf16" => Ty::Bf16,
            "bf16x2" => Ty::Bf16x2,
            "tf32" => Ty::Tf32,
            "f32" => Ty::F32,
            "f64" => Ty::F64,
            _ => return None,
        })
    }

    pub(crate) fn bits(self) -> u32 {
        match self {
            Ty::Pred => 1,
            Ty::B8 | Ty::U8 | Ty::S8 => 8,
            Ty::B16 | Ty::U16 | Ty::S16 | Ty::F16 | Ty::Bf16 => 16,
            Ty::B32 | Ty::U32 | Ty::S32 | Ty::F16x2 | Ty::Bf16x2 | Ty::Tf32 | Ty::F32 => 32,
            Ty::B64 | Ty::U64 | Ty::S64 | Ty::F64 => 64,
        }
    }

    pub(crate) fn class(self) -> Class {
        match self {
            Ty::Pred => Class::Pred,
            Ty::B8 | Ty::B16 | Ty::B32 | Ty::B64 => Class::Bits,
            Ty::U8 | Ty::U16 | Ty::U32 | Ty::U64 => Class::Unsigned,
            Ty::S8 | Ty::S16 | Ty::S32 | Ty::S64 => Class::Signed,
            // No register has the types bf16, tf32 or a packed pair: they live in .b16 and .b32.
            Ty::Bf16 | Ty::Bf16x2 | Ty::Tf32 => Class::Bits,
            Ty::F16 | Ty::F16x2 | Ty::F32 | Ty::F64 => Class::Float,
        }
    }

    pub(crate) fn signed(self) -> bool {
        self.class() == Class::Signed
    }

    pub(crate) fn is_int(self) -> bool {
        matches!(self.class(), Class::Unsigned | Class::Signed)
    }

    /// The ISA's table of operand agreement: same size, and integers do not meet floats unless one
    /// side is untyped bits.
    pub(crate) fn agrees(self, register: Ty) -> bool {
        use Class::{Bits, Float, Pred, Signed, Unsigned};
        self.bits() == register.bits()
            && match (self.class(), register.class()) {
                (Pred, Pred) => true,
                (Pred, _) | (_, Pred) => false,
                (Bits, _) | (_, Bits) => true,
                (Unsigned | Signed, Unsigned | Signed) | (Float, Float) => true,
                _ => false,
            }
    }
}

/// All ones in the low `bits`.
pub(crate) fn mask(bits: u32) -> u64 {
    if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}

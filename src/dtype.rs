//! Storage types of tensors, and the one trait that ties them to Rust types.
//! Used by every other module; knows none of them.

use core::fmt;

use half::{bf16, f16};

/// How the numbers of an operand are stored. Sums are always formed in `f32`. These three and no
/// more, so that a host may match them all; a quantised w would have a type of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: the upper half of a binary32.
    Bf16,
}

impl DType {
    /// Every storage type, for tests and tables that walk them all.
    pub const ALL: &[DType] = &[DType::F32, DType::F16, DType::Bf16];

    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::Bf16 => 2,
        }
    }

    /// Unit roundoff u: rounding to nearest changes a normal value by at most `u·|value|`.
    pub const fn roundoff(self) -> f64 {
        match self {
            DType::F32 => 1.0 / (1u64 << 24) as f64,
            DType::F16 => 1.0 / (1u64 << 11) as f64,
            DType::Bf16 => 1.0 / (1u64 << 8) as f64,
        }
    }

    /// Half the smallest subnormal: the error of rounding a value that underflows.
    pub fn half_subnormal(self) -> f64 {
        match self {
            DType::F32 => 2f64.powi(-150),
            DType::F16 => 2f64.powi(-25),
            DType::Bf16 => 2f64.powi(-134),
        }
    }

    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
        }
    }

    /// `value` rounded to nearest even in this type, back as `f32`.
    pub fn round(self, value: f32) -> f32 {
        match self {
            DType::F32 => value,
            DType::F16 => f16::from_f32(value).to_f32(),
            DType::Bf16 => bf16::from_f32(value).to_f32(),
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::f16 {}
    impl Sealed for half::bf16 {}
}

/// A Rust type that stores a [`DType`]. Sealed: the kernels know these three.
pub trait Element: sealed::Sealed + bytemuck::Pod + Send + Sync + fmt::Debug {
    /// The storage type.
    const DTYPE: DType;
    /// Widens, exactly.
    fn to_f32(self) -> f32;
    /// Rounds to nearest even.
    fn from_f32(value: f32) -> Self;
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
    #[inline]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline]
    fn from_f32(value: f32) -> Self {
        value
    }
}

impl Element for f16 {
    const DTYPE: DType = DType::F16;
    #[inline]
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }
    #[inline]
    fn from_f32(value: f32) -> Self {
        f16::from_f32(value)
    }
}

impl Element for bf16 {
    const DTYPE: DType = DType::Bf16;
    #[inline]
    fn to_f32(self) -> f32 {
        bf16::to_f32(self)
    }
    #[inline]
    fn from_f32(value: f32) -> Self {
        bf16::from_f32(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The constants of the error bound, found by bisection on the conversions themselves.
    #[test]
    fn roundoff_and_subnormal_are_those_of_the_conversions() {
        for dtype in [DType::F16, DType::Bf16] {
            let u = dtype.roundoff() as f32;
            assert_eq!(dtype.round(1.0 + u), 1.0, "{dtype}: 1 + u is a tie, and even is 1");
            assert!(dtype.round(1.0 + 1.01 * u) > 1.0, "{dtype}: past the tie it rounds up");
            let eta = dtype.half_subnormal();
            assert_eq!(
                dtype.round(eta as f32),
                0.0,
                "{dtype}: half the smallest subnormal is a tie"
            );
            assert!(dtype.round((1.5 * eta) as f32) > 0.0, "{dtype}: above it does not vanish");
        }
    }
}

//! Numbers: rounding into every format, scalar float arithmetic, models of the tensor core.
//! Knows nothing of lanes or registers; called by `exec`.

pub(crate) mod approx;
pub(crate) mod float;
pub(crate) mod fp8;
pub(crate) mod mma;
pub(crate) mod round;
pub(crate) mod wgmma;

/// A cheap mixing of seeds: the same inputs give the same bits everywhere (splitmix64).
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let mut z =
        a.wrapping_add(b.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

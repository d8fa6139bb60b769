//! The inputs of `main.rs` and `rivals.py`, the same to the bit in both.

/// M, K, N, r, alpha.
pub const TOKENS: usize = 512;
pub const IN: usize = 1280;
pub const OUT: usize = 1280;
pub const RANK: usize = 16;
pub const ALPHA: usize = 32;
/// |s·b·a| / |w|.
pub const SIZES: [f64; 5] = [1e-2, 3e-3, 1e-3, 3e-4, 1e-4];

/// Seeds.
pub const X: u64 = 1;
pub const W: u64 = 2;
pub const A: u64 = 3;
pub const B: u64 = 4;
pub const DY: u64 = 5;

/// Uniform in ±`size`: splitmix64 of a counter, its upper 24 bits as an odd multiple of 2⁻²⁴.
pub fn uniform(seed: u64, len: usize, size: f64) -> Vec<f32> {
    let value = |at: usize| {
        let mut z = ((seed << 32) + at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let odd = 2 * (z >> 40) as i64 + 1 - (1 << 24);
        odd as f32 * 2f32.powi(-24) * size as f32
    };
    (0..len).map(value).collect()
}

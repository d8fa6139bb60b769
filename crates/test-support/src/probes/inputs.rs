//! What the probes are given: the same on every machine and in every version of every library, because
//! vectors hold outputs alone.

use super::Factor;

/// SplitMix64: small, and nobody else's to change.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number whose exponent is one of `from`, with all bits of an f32.
    fn single(&mut self, exponents: std::ops::Range<i32>) -> f32 {
        let bits = self.next();
        let span = (exponents.end - exponents.start) as u64;
        let exponent = exponents.start + (bits >> 40) as i32 % span as i32;
        let sign = ((bits >> 23) & 1) as u32;
        let (high, low) = ((sign << 8) | (exponent + 127) as u32, bits as u32 & 0x7f_ffff);
        f32::from_bits((high << 23) | low)
    }
}

/// Bytes of which no two beside each other are alike.
pub(super) fn counting(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

fn bytes(words: impl IntoIterator<Item = u32>) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// As it lies in a register of the factor's type, one of two.
fn stored(factor: Factor, value: f32) -> u32 {
    match factor {
        Factor::Bf16 => half::bf16::from_f32(value).to_bits().into(),
        Factor::F16 => half::f16::from_f32(value).to_bits().into(),
        // What the instruction ignores is zero.
        Factor::Tf32 => value.to_bits() & !0x1fff,
    }
}

/// A register of the factor's type: two numbers, or one.
fn register(factor: Factor, mut value: impl FnMut() -> f32) -> u32 {
    match factor {
        Factor::Tf32 => stored(factor, value()),
        _ => stored(factor, value()) | (stored(factor, value()) << 16),
    }
}

/// Tiles with a one in one register of A in eight lanes, of eight rows, and B full of integers of which no
/// two are alike: D is a row of B for each.
pub(super) fn one_hot(factor: Factor) -> Vec<u8> {
    let parts = if factor == Factor::Tf32 { 1 } else { 2 };
    let mut words = Vec::new();
    for of in 0..4 {
        for part in 0..parts {
            for place in 0..4 {
                for lane in 0..32 {
                    let hot = stored(factor, 1.0) << (16 * part);
                    let a = |at| if at == of && lane % 4 == place { hot } else { 0 };
                    words.extend((0..4).map(a));
                    for first in [2 * lane, 64 + 2 * lane] {
                        let mut numbers = first..;
                        let mut next = || numbers.next().unwrap_or(first) as f32;
                        words.push(register(factor, &mut next));
                    }
                    words.extend((0..4u8).map(|at| f32::from(at).to_bits()));
                }
            }
        }
    }
    bytes(words)
}

/// Tiles of random numbers: of one size, of many, and with a C that is larger or smaller than the
/// products.
pub(super) fn random(factor: Factor, items: usize, seed: u64) -> Vec<u8> {
    let mut numbers = Numbers(seed ^ ((factor as u64) << 32));
    let mut words = Vec::with_capacity(items * 320);
    for item in 0..items {
        let (factors, c) = match item % 4 {
            0 => (-1..1, -1..1),
            1 => (-4..4, -8..8),
            2 => (-7..7, -14..14),
            _ => (-2..2, 8..12),
        };
        for _ in 0..32 {
            for _ in 0..6 {
                words.push(register(factor, || numbers.single(factors.clone())));
            }
            words.extend((0..4).map(|_| numbers.single(c.clone()).to_bits()));
        }
    }
    bytes(words)
}

/// f32 in pairs: ties of every type that they are rounded to and their neighbours, ends of ranges,
/// infinities, NaNs, subnormals, and any bits.
pub(super) fn singles() -> Vec<u8> {
    let mut words = Vec::new();
    // Half of what bf16, and f16 or tf32, keep of a fraction; an odd and an even one.
    for half in [0x8000, 0x1000] {
        for exponent in [-126, -25, -24, -15, -14, -1, 0, 1, 14, 15, 16, 127] {
            for kept in [0, 2 * half, 0x7f_ffff & !(2 * half - 1)] {
                let base = (((exponent + 127) as u32) << 23) | kept;
                words.extend([base + half - 1, base + half, base + half + 1]);
            }
        }
    }
    // Subnormals of f32, f16 and bf16.
    words.extend([0, 1, 0x7fff, 0x8000, 0x8001, 0x18000, 0x7f_ffff, 0x80_0000]);
    words.extend([0x3300_0000, 0x3300_0001, 0x3380_0000, 0x33c0_0000, 0x387f_ffff, 0x3880_0000]);
    // 65504, 65519.99, 65520 and 65536; the largest of bf16 and f32 and what rounds past them.
    words.extend([0x477f_e000, 0x477f_efff, 0x477f_f000, 0x4780_0000]);
    words.extend([0x7f7f_0000, 0x7f7f_7fff, 0x7f7f_8000, 0x7f7f_ffff]);
    words.extend([0x7f80_0000, 0x7f80_0001, 0x7fa0_0000, 0x7fc0_0000, 0x7fff_ffff]);
    let negative: Vec<u32> = words.iter().map(|word| word | (1 << 31)).collect();
    words.extend(negative);
    let mut numbers = Numbers(7);
    while words.len() < 768 {
        words.push(numbers.next() as u32);
    }
    // Each is once the first of a pair and once the second.
    let shifted = words.clone().into_iter().cycle().skip(1);
    bytes(words.iter().zip(shifted).flat_map(|(&x, y)| [x, y]))
}

/// f16 in the lower half of every other word.
pub(super) fn halves() -> Vec<u8> {
    let edges = [0, 1, 2, 0x3ff, 0x400, 0x401, 0x3c00, 0x7bff, 0x7c00, 0x7c01, 0x7e00, 0x7fff];
    let mut words: Vec<u32> = edges.into_iter().flat_map(|half| [half, half | 0x8000]).collect();
    let mut numbers = Numbers(8);
    while words.len() < 256 {
        words.push(numbers.next() as u32 & 0xffff);
    }
    bytes(words.into_iter().flat_map(|word| [word, 0]))
}

//! `D = A·B + C` of one `m16n8` tile under several models of the tensor core's sum.
//! The ISA leaves the order and the intermediate precision open; a kernel's test must pass in all.

use super::mix;
use super::round::encode;
use crate::isa::inst::{Float, Round};

/// How the sums inside `mma.sync` are formed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MmaModel {
    /// Exact products, summed in f64, rounded once.
    #[default]
    Exact,
    /// Exact products, summed in f32 in an order drawn from the seed.
    RandomOrder,
    /// Truncating sums as measured on sm_80: blocks of 8 products (4 for tf32), aligned to the
    /// largest exponent with one extra bit.
    Ampere,
    /// Truncating sums as measured on sm_90: blocks of 16 products (8 for tf32), two extra bits.
    Hopper,
}

/// One tile: `a[row][k]`, `b[k][column]`, `c[row][column]`.
pub(crate) struct Tile {
    pub(crate) a: [[f32; 16]; 16],
    pub(crate) b: [[f32; 8]; 16],
    pub(crate) c: [[f32; 8]; 16],
}

impl Tile {
    /// Leaves the bits of D in `out`; `k` products, `tf32` halves the blocks, `half` rounds to f16.
    pub(crate) fn multiply(
        &self,
        model: MmaModel,
        k: usize,
        tf32: bool,
        half: bool,
        seed: u64,
        out: &mut [[u32; 8]; 16],
    ) {
        let float = if half { Float::F16 } else { Float::F32 };
        if model == MmaModel::Exact {
            let sums = self.exact(k);
            for (row, sums) in out.iter_mut().zip(&sums) {
                for (d, &s) in row.iter_mut().zip(sums) {
                    *d = if half { encode(s, float, Round::Nearest) as u32 } else { single(s) };
                }
            }
            return;
        }
        for (i, row) in out.iter_mut().enumerate() {
            for (j, d) in row.iter_mut().enumerate() {
                let s = match model {
                    MmaModel::RandomOrder => self.shuffled(i, j, k, mix(seed, (i * 8 + j) as u64)),
                    MmaModel::Ampere => self.truncated(i, j, k, if tf32 { 4 } else { 8 }, 1),
                    _ => self.truncated(i, j, k, if tf32 { 8 } else { 16 }, 2),
                };
                *d = if half { encode(s, float, Round::Nearest) as u32 } else { single(s) };
            }
        }
    }

    /// All sums in f64, with the widest vectors that the machine has. Products of two operands are
    /// exact in f64, so that a fused multiply-add gives the same bits as two steps.
    fn exact(&self, k: usize) -> [[f64; 8]; 16] {
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx2,fma")]
            fn wide(tile: &Tile, k: usize) -> [[f64; 8]; 16] {
                tile.sums(k, f64::mul_add)
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                // SAFETY: the machine has both features; the function is safe otherwise.
                return unsafe { wide(self, k) };
            }
        }
        self.sums(k, |x, y, s| s + x * y)
    }

    #[inline(always)]
    fn sums(&self, k: usize, add: impl Fn(f64, f64, f64) -> f64) -> [[f64; 8]; 16] {
        let b = self.b.map(|row| row.map(f64::from));
        let mut out = [[0.0; 8]; 16];
        // Two rows at once, in registers: their sums do not wait for each other.
        for i in (0..16).step_by(2) {
            let (mut upper, mut lower) = (self.c[i].map(f64::from), self.c[i + 1].map(f64::from));
            for (kk, b) in b.iter().enumerate().take(k) {
                let (x, y) = (f64::from(self.a[i][kk]), f64::from(self.a[i + 1][kk]));
                for j in 0..8 {
                    upper[j] = add(x, b[j], upper[j]);
                    lower[j] = add(y, b[j], lower[j]);
                }
            }
            (out[i], out[i + 1]) = (upper, lower);
        }
        out
    }

    fn product(&self, i: usize, j: usize, k: usize) -> f64 {
        f64::from(self.a[i][k]) * f64::from(self.b[k][j])
    }

    fn shuffled(&self, i: usize, j: usize, k: usize, seed: u64) -> f64 {
        let mut terms = [0f32; 17];
        for (kk, term) in terms.iter_mut().enumerate().take(k) {
            *term = self.product(i, j, kk) as f32;
        }
        terms[k] = self.c[i][j];
        let mut sum = -0.0f32;
        let mut state = seed;
        for left in (1..=k + 1).rev() {
            state = mix(state, left as u64);
            terms.swap(left - 1, (state % left as u64) as usize);
            sum += terms[left - 1];
        }
        f64::from(sum)
    }

    fn truncated(&self, i: usize, j: usize, k: usize, block: usize, extra: i32) -> f64 {
        let mut sum = f64::from(self.c[i][j]);
        for start in (0..k).step_by(block) {
            let end = (start + block).min(k);
            let (mut top, mut special, mut plain) = (exponent(sum), !sum.is_finite(), sum);
            for kk in start..end {
                let p = self.product(i, j, kk);
                plain += p;
                special |= !p.is_finite();
                if p != 0.0 && p.is_finite() {
                    // Operand exponents add up before the product is normalised.
                    let (x, y) = (f64::from(self.a[i][kk]), f64::from(self.b[kk][j]));
                    top = top.max(exponent(x) + exponent(y));
                }
            }
            if special {
                sum = plain;
                continue;
            }
            if top == i32::MIN {
                continue;
            }
            // 23 fraction bits and the extra ones below the largest exponent survive.
            let step = 23 + extra - top;
            let cut = |x: f64| scale(scale(x, step).trunc(), -step);
            let mut total = cut(sum);
            for kk in start..end {
                total += cut(self.product(i, j, kk));
            }
            sum = f64::from(f32::from_bits(encode(total, Float::F32, Round::Zero) as u32));
        }
        sum
    }
}

/// Nearest f32 with the canonical NaN.
fn single(x: f64) -> u32 {
    if x.is_nan() { 0x7FFF_FFFF } else { (x as f32).to_bits() }
}

fn exponent(x: f64) -> i32 {
    if x == 0.0 || !x.is_finite() { i32::MIN } else { ((x.to_bits() >> 52 & 2047) as i32) - 1023 }
}

/// `x · 2^n` in two steps, so that neither factor leaves f64's range.
fn scale(x: f64, n: i32) -> f64 {
    let half = n / 2;
    x * (2.0f64).powi(half) * (2.0f64).powi(n - half)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tile() -> Tile {
        Tile { a: [[0.0; 16]; 16], b: [[0.0; 8]; 16], c: [[0.0; 8]; 16] }
    }

    fn run(t: &Tile, model: MmaModel) -> f32 {
        let mut out = [[0; 8]; 16];
        t.multiply(model, 16, false, false, 1, &mut out);
        f32::from_bits(out[0][0])
    }

    #[test]
    fn exact_keeps_what_truncation_loses() {
        // 2^24 + eight times 1/4: exact 2^24 + 2; with one extra bit each quarter is cut to zero.
        let mut t = tile();
        t.c[0][0] = 16_777_216.0;
        for k in 0..8 {
            t.a[0][k] = 0.25;
            t.b[k][0] = 1.0;
        }
        assert_eq!(run(&t, MmaModel::Exact), 16_777_218.0);
        assert_eq!(run(&t, MmaModel::Ampere), 16_777_216.0);
        // Units of 2^24 · 2^-25 = 1/2 on sm_90 too: 1/4 is still below.
        assert_eq!(run(&t, MmaModel::Hopper), 16_777_216.0);
        for k in 0..8 {
            t.a[0][k] = 0.5;
        }
        // 1/2 is the sm_90 unit, below the sm_80 unit of 1.
        assert_eq!(run(&t, MmaModel::Ampere), 16_777_216.0);
        assert_eq!(run(&t, MmaModel::Hopper), 16_777_220.0);
    }

    #[test]
    fn infinities_pass_through_every_model() {
        let mut t = tile();
        t.a[0][3] = f32::INFINITY;
        t.b[3][0] = 1.0;
        for model in [MmaModel::Exact, MmaModel::RandomOrder, MmaModel::Ampere, MmaModel::Hopper] {
            assert_eq!(run(&t, model), f32::INFINITY);
        }
    }
}

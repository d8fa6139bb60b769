//! `D = A·B + C` of one `m16n8` tile under several models of the tensor core's sum.
//! The ISA leaves the order and the intermediate precision open; a kernel's test must pass in all.
//!
//! The truncating models and their parameters are those of F. A. Khattak and M. Mikaitis, "Accurate Models
//! of NVIDIA Tensor Cores", arXiv:2512.07004, and of the authors' program. The test below holds them to
//! results that the authors read from an A100 and an H100 (`tests/data/tensor_cores.txt`).

use super::mix;
use super::round::{decode, encode};
use crate::isa::inst::{Float, MmaTy, Round};

/// How the sums inside `mma.sync` are formed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MmaModel {
    /// Exact products, summed in f64, rounded once.
    #[default]
    Exact,
    /// Exact products, summed in f32 in an order drawn from the seed.
    RandomOrder,
    /// Truncating sums as published for the A100: blocks of 8 products (4 for tf32), aligned to the
    /// largest exponent with one extra bit.
    Ampere,
    /// Truncating sums as published for the H100: blocks of 16 products (8 for tf32), two extra bits.
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
        ty: MmaTy,
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
        let truncation = Truncation::new(model, ty, half);
        for (i, row) in out.iter_mut().enumerate() {
            for (j, d) in row.iter_mut().enumerate() {
                let s = match model {
                    MmaModel::RandomOrder => self.shuffled(i, j, k, mix(seed, (i * 8 + j) as u64)),
                    _ => self.truncated(i, j, k, &truncation),
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

    fn truncated(&self, i: usize, j: usize, k: usize, t: &Truncation) -> f64 {
        let mut sum = f64::from(self.c[i][j]);
        for start in (0..k).step_by(t.block) {
            let end = (start + t.block).min(k);
            let plain = (start..end).fold(sum, |s, kk| s + self.product(i, j, kk));
            if !plain.is_finite() {
                sum = plain;
                continue;
            }
            let mut top = if sum == 0.0 { i32::MIN } else { exponent(sum, -126) };
            for kk in (start..end).filter(|&kk| self.product(i, j, kk) != 0.0) {
                // Operand exponents add up before the product is normalised.
                let (x, y) = (f64::from(self.a[i][kk]), f64::from(self.b[kk][j]));
                top = top.max(exponent(x, t.least) + exponent(y, t.least));
            }
            if top == i32::MIN {
                // Nothing but zeros, whose sign survives in none of the models.
                sum = 0.0;
                continue;
            }
            // 23 fraction bits and the extra ones below the largest exponent survive.
            let step = 23 + t.extra - top.max(t.floor);
            let cut = |x: f64| scale(scale(x, step).trunc(), -step);
            let total = (start..end).fold(cut(sum), |s, kk| s + cut(self.product(i, j, kk)));
            sum = t.round(total);
        }
        sum
    }
}

/// What distinguishes the truncating models.
struct Truncation {
    /// Products that are added at once.
    block: usize,
    /// Bits kept below the 23 of an f32's fraction.
    extra: i32,
    /// Smallest exponent that a sum is aligned to.
    floor: i32,
    /// Smallest exponent of an operand; subnormals have it too.
    least: i32,
    half: bool,
}

impl Truncation {
    fn new(model: MmaModel, ty: MmaTy, half: bool) -> Truncation {
        let hopper = model == MmaModel::Hopper;
        let block = if hopper { 16 } else { 8 } / if ty == MmaTy::Tf32 { 2 } else { 1 };
        let extra = if hopper { 2 } else { 1 };
        let floor = if half { -19 } else { -131 } - extra;
        let least = if ty == MmaTy::F16 { -14 } else { -126 };
        Truncation { block, extra, floor, least, half }
    }

    /// The end of a block: towards zero into f32, to nearest into f16; too large is infinite.
    fn round(&self, total: f64) -> f64 {
        if self.half {
            return decode(encode(total, Float::F16, Round::Nearest), Float::F16);
        }
        if total.abs() >= (2.0f64).powi(128) {
            return f64::INFINITY.copysign(total);
        }
        decode(encode(total, Float::F32, Round::Zero), Float::F32)
    }
}

/// Nearest f32 with the canonical NaN.
pub(super) fn single(x: f64) -> u32 {
    if x.is_nan() { 0x7FFF_FFFF } else { (x as f32).to_bits() }
}

/// Of a finite value that is not zero.
fn exponent(x: f64, least: i32) -> i32 {
    (((x.to_bits() >> 52 & 2047) as i32) - 1023).max(least)
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
        t.multiply(model, 16, MmaTy::F16, false, 1, &mut out);
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

    /// Rows of `GPU, format of A and B, format of D, a, b, c, d`, all as the bits of an f32; read on the
    /// GPUs by the authors of the models.
    #[test]
    fn results_read_from_an_a100_and_an_h100() {
        let rows = include_str!("../../tests/data/tensor_cores.txt");
        let (mut checked, mut wrong) = (0, Vec::new());
        for row in rows.lines().filter(|l| !l.starts_with('#')) {
            let words: Vec<&str> = row.split(' ').collect();
            let bits: Vec<u32> =
                words[3..].iter().map(|w| u32::from_str_radix(w, 16).unwrap()).collect();
            let k = bits.len() / 2 - 1;
            let model = if words[0] == "A100" { MmaModel::Ampere } else { MmaModel::Hopper };
            let ty = match words[1] {
                "bf16" => MmaTy::Bf16,
                "fp16" => MmaTy::F16,
                _ => MmaTy::Tf32,
            };
            let half = words[2] == "fp16";
            let mut t = tile();
            for kk in 0..k {
                t.a[0][kk] = f32::from_bits(bits[kk]);
                t.b[kk][0] = f32::from_bits(bits[k + kk]);
            }
            t.c[0][0] = f32::from_bits(bits[2 * k]);
            if half {
                t.c[0][0] = half::f16::from_f32(t.c[0][0]).to_f32();
            }
            let mut out = [[0; 8]; 16];
            t.multiply(model, k, ty, half, 1, &mut out);
            let got = match half {
                true => half::f16::from_bits(out[0][0] as u16).to_f32(),
                false => f32::from_bits(out[0][0]),
            };
            let want = f32::from_bits(bits[2 * k + 1]);
            checked += 1;
            if got != want && !(got.is_nan() && want.is_nan()) {
                wrong.push(format!(
                    "{} {} {}: {got:e}, the GPU gave {want:e}: {row}",
                    words[0], words[1], words[2]
                ));
            }
        }
        assert!(checked >= 400, "{checked}");
        assert!(
            wrong.is_empty(),
            "{} of {checked}:\n{}",
            wrong.len(),
            wrong[..wrong.len().min(8)].join("\n")
        );
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

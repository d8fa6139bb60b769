//! `D = A·B + C` of one `m64nNkK`, in the models of [`mma`](super::mma). Exact sums have a loop of their
//! own, since a kernel for Hopper does little else; the other models go tile by tile.

use super::mma::{MmaModel, Tile, single};
use super::round::encode;
use crate::isa::inst::{Float, MmaTy, Round};

/// `a[row][k]`, `b[k][column]`, `c[row][column]`, each in one run.
pub(crate) struct Product {
    n: usize,
    k: usize,
    pub(crate) a: Vec<f32>,
    pub(crate) b: Vec<f32>,
    /// Wide enough for what integers sum to.
    pub(crate) c: Vec<f64>,
}

impl Product {
    pub(crate) fn new(n: usize, k: usize) -> Self {
        Product { n, k, a: vec![0.0; 64 * k], b: vec![0.0; k * n], c: vec![0.0; 64 * n] }
    }

    /// The bits of D, f16 if `half`.
    pub(crate) fn multiply(&self, model: MmaModel, ty: MmaTy, half: bool, seed: u64) -> Vec<u32> {
        if model != MmaModel::Exact {
            return self.by_tiles(model, ty, half, seed);
        }
        let finish = |s: f64| {
            if half { encode(s, Float::F16, Round::Nearest) as u32 } else { single(s) }
        };
        self.exact().into_iter().map(finish).collect()
    }

    /// All sums, before they are rounded.
    pub(crate) fn exact(&self) -> Vec<f64> {
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx2,fma")]
            fn wide(p: &Product) -> Vec<f64> {
                p.sums(f64::mul_add)
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                // SAFETY: the machine has both features; the function is safe otherwise.
                return unsafe { wide(self) };
            }
        }
        self.sums(|x, y, s| s + x * y)
    }

    /// Products of two operands are exact in f64, so that fused and separate steps agree.
    #[inline(always)]
    fn sums(&self, add: impl Fn(f64, f64, f64) -> f64) -> Vec<f64> {
        let (n, k) = (self.n, self.k);
        let b: Vec<f64> = self.b.iter().map(|&x| f64::from(x)).collect();
        let mut out = self.c.clone();
        // Two rows and eight columns at a time stay in registers.
        for pair in 0..32 {
            let (upper, lower) = (2 * pair * n, (2 * pair + 1) * n);
            let a = &self.a[2 * pair * k..2 * (pair + 1) * k];
            for j in (0..n).step_by(8) {
                let (mut s, mut t) = ([0.0; 8], [0.0; 8]);
                s.copy_from_slice(&out[upper + j..upper + j + 8]);
                t.copy_from_slice(&out[lower + j..lower + j + 8]);
                for kk in 0..k {
                    let (x, y) = (f64::from(a[kk]), f64::from(a[k + kk]));
                    let row = &b[kk * n + j..kk * n + j + 8];
                    for l in 0..8 {
                        s[l] = add(x, row[l], s[l]);
                        t[l] = add(y, row[l], t[l]);
                    }
                }
                out[upper + j..upper + j + 8].copy_from_slice(&s);
                out[lower + j..lower + j + 8].copy_from_slice(&t);
            }
        }
        out
    }

    fn by_tiles(&self, model: MmaModel, ty: MmaTy, half: bool, seed: u64) -> Vec<u32> {
        let (n, k) = (self.n, self.k);
        let mut out = vec![0; 64 * n];
        let mut tile = Tile { a: [[0.0; 16]; 16], b: [[0.0; 8]; 16], c: [[0.0; 8]; 16] };
        for (i, j) in (0..64).step_by(16).flat_map(|i| (0..n).step_by(8).map(move |j| (i, j))) {
            for row in 0..16 {
                tile.a[row][..k].copy_from_slice(&self.a[(i + row) * k..][..k]);
                let sums = &self.c[(i + row) * n + j..][..8];
                tile.c[row].iter_mut().zip(sums).for_each(|(to, &x)| *to = x as f32);
            }
            for kk in 0..k {
                tile.b[kk].copy_from_slice(&self.b[kk * n + j..][..8]);
            }
            let mut d = [[0; 8]; 16];
            tile.multiply(model, k, ty, half, super::mix(seed, (i * n + j) as u64), &mut d);
            for (row, d) in d.iter().enumerate() {
                out[(i + row) * n + j..][..8].copy_from_slice(d);
            }
        }
        out
    }
}

//! ΔW of a module in f64 by its definition, for the other files of `tests/files`: products, `∘`, `⊗` and Tucker's
//! sums as they are written down, not the factored path of the library.

use std::cell::Cell;

use fused_lora::files::{Factor, Factors, Module, Side};

/// Row-major, in f64.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wide {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) values: Vec<f64>,
}

impl Wide {
    pub(crate) fn of(factor: &Factor) -> Wide {
        let values = factor.values().into_iter().map(f64::from).collect();
        Wide { rows: factor.rows(), cols: factor.cols(), values }
    }

    pub(crate) fn at(&self, row: usize, col: usize) -> f64 {
        self.values[row * self.cols + col]
    }

    fn times(&self, right: &Wide) -> Wide {
        assert_eq!(self.cols, right.rows);
        let mut values = vec![0.0; self.rows * right.cols];
        for row in 0..self.rows {
            for inner in 0..self.cols {
                for col in 0..right.cols {
                    values[row * right.cols + col] += self.at(row, inner) * right.at(inner, col);
                }
            }
        }
        Wide { rows: self.rows, cols: right.cols, values }
    }

    fn transposed(&self) -> Wide {
        let of = |nth: usize| self.at(nth % self.rows, nth / self.rows);
        let values = (0..self.values.len()).map(of).collect();
        Wide { rows: self.cols, cols: self.rows, values }
    }
}

/// `Σ_pq core[p, q, uv]·up[o, p]·down[q, i]`, columns (i, uv).
fn tucker(core: &Factor, up: &Wide, down: &Wide) -> Wide {
    let (r, t) = (core.rows(), core.cols() / core.rows());
    let core = Wide::of(core);
    let cols = down.cols * t;
    let mut values = vec![0.0; up.rows * cols];
    for o in 0..up.rows {
        for i in 0..down.cols {
            for uv in 0..t {
                for p in 0..r {
                    for q in 0..r {
                        values[o * cols + i * t + uv] +=
                            core.at(p, q * t + uv) * up.at(o, p) * down.at(q, i);
                    }
                }
            }
        }
    }
    Wide { rows: up.rows, cols, values }
}

fn side(of: &Side, core: Option<&Factor>) -> Wide {
    match (of, core) {
        (Side::Full(of), _) => Wide::of(of),
        (Side::Low(a, b), None) => Wide::of(a).times(&Wide::of(b)),
        (Side::Low(a, b), Some(core)) => tucker(core, &Wide::of(a).transposed(), &Wide::of(b)),
    }
}

/// ΔW / s, `[N, K]`.
pub(crate) fn unscaled(module: &Module) -> Wide {
    match &module.factors {
        Factors::Lora { a, b, core: None } => Wide::of(b).times(&Wide::of(a)),
        Factors::Lora { a, b, core: Some(core) } => tucker(core, &Wide::of(b), &Wide::of(a)),
        Factors::Loha { w1a, w1b, w2a, w2b, cores } => {
            let [one, other] = match cores {
                None => [(w1a, w1b), (w2a, w2b)].map(|(a, b)| Wide::of(a).times(&Wide::of(b))),
                Some([t1, t2]) => [(t1, w1a, w1b), (t2, w2a, w2b)]
                    .map(|(t, a, b)| tucker(t, &Wide::of(a).transposed(), &Wide::of(b))),
            };
            let product = one.values.iter().zip(&other.values).map(|(one, other)| one * other);
            Wide { values: product.collect(), ..one }
        }
        Factors::Lokr { w1, w2, core } => {
            let (left, right) = (side(w1, None), side(w2, core.as_ref()));
            let (rows, cols) = (left.rows * right.rows, left.cols * right.cols);
            let at = |nth: usize| {
                let (n, k) = (nth / cols, nth % cols);
                left.at(n / right.rows, k / right.cols) * right.at(n % right.rows, k % right.cols)
            };
            Wide { rows, cols, values: (0..rows * cols).map(at).collect() }
        }
        other => panic!("{other:?}"),
    }
}

/// ΔW.
pub(crate) fn delta(module: &Module) -> Vec<f64> {
    unscaled(module).values.into_iter().map(|value| value * f64::from(module.scale)).collect()
}

/// The largest distance, over the largest of `wanted`.
pub(crate) fn distance(got: &[f64], wanted: &[f64]) -> f64 {
    assert_eq!(got.len(), wanted.len());
    let largest = wanted.iter().fold(0f64, |most, value| most.max(value.abs()));
    let far = got.iter().zip(wanted).map(|(got, wanted)| (got - wanted).abs());
    far.fold(0.0, |most, far| if far.is_nan() { f64::INFINITY } else { most.max(far) }) / largest
}

/// SplitMix64, for factors of any size.
pub(crate) struct Random(Cell<u64>);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(Cell::new(seed))
    }

    /// In -1 … 1, of 7 bits, so that 16-bit types hold it.
    pub(crate) fn value(&self) -> f32 {
        self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mut z = self.0.get();
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z >> 57) as f32 - 63.5) / 64.0
    }

    pub(crate) fn factor(&self, rows: usize, cols: usize, dtype: fused_lora::DType) -> Factor {
        let values: Vec<f32> = (0..rows * cols).map(|_| self.value()).collect();
        Factor::new(rows, cols, dtype, &values).unwrap()
    }
}

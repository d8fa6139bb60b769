//! The LoRA that another method exactly is, and a scale taken into a factor. Called through [`Module`].
//!
//! The identities, with p and q over the rank and R their pairs:
//!
//! ```text
//! LoCon, core   a'[p, (i, uv)] = Σ_q core[p, (q, uv)]·a[q, i]
//! LoHa          a[(p, q), k] = w1b[p, k]·w2b[q, k]             b[n, (p, q)] = w1a[n, p]·w2a[n, q]
//! LoKr          a[(i, p), (j, e)] = w1[i, j]·w2b[p, e]         b[(i, m), (i', p)] = δ(i, i')·w2a[m, p]
//! ```
//!
//! Every element is formed in f64 and rounded to f32 once: not at all for products of 16-bit factors, which f32 holds.

use super::factors::{Factors, Side, taps};
use super::{Factor, Module, of_module};
use crate::{DType, Result};

/// The most that R may be: what the plans serve, and a bound on what a small file can ask for.
pub(super) const MAX_INNER_RANK: usize = 4096;

/// A matrix of f64, as `matrix` makes them.
pub(super) struct Wide {
    rows: usize,
    cols: usize,
    values: Vec<f64>,
}

impl Wide {
    pub(super) fn of(factor: &Factor) -> Wide {
        let values = factor.values().into_iter().map(f64::from).collect();
        Wide { rows: factor.rows(), cols: factor.cols(), values }
    }

    fn from_fn(rows: usize, cols: usize, at: impl Fn(usize, usize) -> f64) -> Wide {
        let values = (0..rows * cols).map(|nth| at(nth / cols, nth % cols)).collect();
        Wide { rows, cols, values }
    }

    fn at(&self, row: usize, col: usize) -> f64 {
        self.values[row * self.cols + col]
    }

    pub(super) fn transposed(&self) -> Wide {
        Wide::from_fn(self.cols, self.rows, |row, col| self.at(col, row))
    }

    pub(super) fn rounded(&self) -> Result<Factor> {
        let values: Vec<f32> = self.values.iter().map(|&value| value as f32).collect();
        Factor::new(self.rows, self.cols, DType::F32, &values)
    }

    /// `[r, I·T]`: `Σ_q core[p, (q, uv)]·self[q, i]`.
    pub(super) fn through(&self, core: Option<&Factor>) -> Wide {
        let Some(core) = core else {
            return Wide { values: self.values.clone(), ..*self };
        };
        let (t, core) = (taps(core), Wide::of(core));
        Wide::from_fn(core.rows, self.cols * t, |p, k| {
            (0..self.rows).map(|q| core.at(p, q * t + k % t) * self.at(q, k / t)).sum()
        })
    }
}

impl Side {
    fn whole(&self) -> Wide {
        match self {
            Side::Full(of) => Wide::of(of),
            Side::Low(a, b) => {
                let (a, b) = (Wide::of(a), Wide::of(b));
                Wide::from_fn(a.rows, b.cols, |row, col| {
                    (0..b.rows).map(|p| a.at(row, p) * b.at(p, col)).sum()
                })
            }
        }
    }
}

impl Module {
    /// The same ΔW as LoRA of rank R ([`Module::inner_rank`]), factors in f32: for inference on hosts that serve plain
    /// LoRA alone, R·(N + K) elements. Plain LoRA is returned as it is; a magnitude and the kernel stay.
    ///
    /// Each element of `a` and `b` is rounded once, to f32, and is exact where the factors have 16 bits and no sum is
    /// in it (LoHa, LoKr with a full w1).
    ///
    /// # Errors
    /// [`Error::Adapter`](crate::Error::Adapter) for LoKr with a full w2, which has no low rank, and for R above 4096.
    pub fn to_lora(&self) -> Result<Module> {
        self.check().map_err(of_module)?;
        let rank = self.inner_rank();
        let limit = || {
            let why = format!("expected an inner rank of at most {MAX_INNER_RANK}, got {rank}");
            Err(of_module(format!("{}: {why}", self.method())))
        };
        let (a, b) = match &self.factors {
            Factors::Lora { core: None, .. } => return Ok(self.clone()),
            _ if rank > MAX_INNER_RANK => return limit(),
            Factors::Lora { a, b, core } => (Wide::of(a).through(core.as_ref()), Wide::of(b)),
            Factors::Loha { w1a, w1b, w2a, w2b, cores } => {
                let core = |at: usize| cores.as_ref().map(|cores| &cores[at]);
                let up = |of: &Factor| match cores {
                    Some(_) => Wide::of(of).transposed(),
                    None => Wide::of(of),
                };
                let (u1, u2) = (up(w1a), up(w2a));
                let (d1, d2) = (Wide::of(w1b).through(core(0)), Wide::of(w2b).through(core(1)));
                let r = d2.rows;
                let a = Wide::from_fn(rank, d1.cols, |pq, k| d1.at(pq / r, k) * d2.at(pq % r, k));
                (a, Wide::from_fn(u1.rows, rank, |n, pq| u1.at(n, pq / r) * u2.at(n, pq % r)))
            }
            Factors::Lokr { w2: Side::Full(_), .. } => {
                return Err(of_module(
                    "LoKr with a full w2 has no low rank: Module::to_adapter takes it as it is"
                        .into(),
                ));
            }
            Factors::Lokr { w1, w2: Side::Low(w2a, w2b), core } => {
                let (w1, down) = (w1.whole(), Wide::of(w2b).through(core.as_ref()));
                let up = if core.is_some() { Wide::of(w2a).transposed() } else { Wide::of(w2a) };
                let (r, c, d) = (down.rows, up.rows, down.cols);
                let a = Wide::from_fn(rank, w1.cols * d, |ip, je| {
                    w1.at(ip / r, je / d) * down.at(ip % r, je % d)
                });
                let b = Wide::from_fn(w1.rows * c, rank, |im, ip| {
                    if im / c == ip / r { up.at(im % c, ip % r) } else { 0.0 }
                });
                (a, b)
            }
        };
        let factors = Factors::Lora { a: a.rounded()?, b: b.rounded()?, core: None };
        Ok(Module { factors, ..self.clone() })
    }

    /// The same ΔW with a scale of 1: it is multiplied into `b` (`w1a` of LoHa, `w1` or `w1a` of LoKr), in f64, and
    /// rounded to f32 once; nothing is rounded where it is a power of two, and nothing happens where it is 1. All
    /// factors become f32, so that they stay of one type.
    ///
    /// # Errors
    /// [`Error::Adapter`](crate::Error::Adapter) where the factors do not fit each other.
    pub fn fold_scale(&self) -> Result<Module> {
        self.check().map_err(of_module)?;
        if self.scale == 1.0 {
            return Ok(self.clone());
        }
        let mut module = Module { scale: 1.0, ..self.clone() };
        let widen = |of: &mut Factor, scale: f64| {
            *of = scaled(of, scale)?;
            Ok::<(), crate::Error>(())
        };
        let s = f64::from(self.scale);
        match &mut module.factors {
            Factors::Lora { a, b, core } => {
                widen(b, s)?;
                for of in core.iter_mut().chain([a]) {
                    widen(of, 1.0)?;
                }
            }
            Factors::Loha { w1a, w1b, w2a, w2b, cores } => {
                widen(w1a, s)?;
                for of in cores.iter_mut().flatten().chain([w1b, w2a, w2b]) {
                    widen(of, 1.0)?;
                }
            }
            Factors::Lokr { w1, w2, core } => {
                let (first, second) = match w1 {
                    Side::Full(of) => (of, None),
                    Side::Low(a, b) => (a, Some(b)),
                };
                widen(first, s)?;
                let w2 = match w2 {
                    Side::Full(of) => [Some(of), None],
                    Side::Low(a, b) => [Some(a), Some(b)],
                };
                for of in core.iter_mut().chain(second).chain(w2.into_iter().flatten()) {
                    widen(of, 1.0)?;
                }
            }
        }
        Ok(module)
    }
}

/// In f32, each element times `scale`.
pub(super) fn scaled(of: &Factor, scale: f64) -> Result<Factor> {
    let wide = Wide::of(of);
    Wide::from_fn(wide.rows, wide.cols, |row, col| wide.at(row, col) * scale).rounded()
}

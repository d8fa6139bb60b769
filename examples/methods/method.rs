//! The methods, their first values, and their adapters as the calls and the files take them. Called by `layer` and
//! `fused`.

use fused_lora::cpu::Slice;
use fused_lora::files::{self, Factors, Module, Side};
use fused_lora::{DType, Factor, Matrix};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::adam::Adam;

/// alpha of every adapter, as the scale alpha / rank: 2.
const SCALE: f32 = 2.0;

/// How a layer is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// w itself.
    Full,
    /// LoRA; on a convolution LoCon.
    Lora,
    /// LoRA, and the norm of each row by itself.
    Dora,
    /// Of twice the factors of LoRA and rank².
    Loha,
    /// Of low rank in w2: `factor` is the most rows and columns of w1.
    Lokr { factor: usize },
    /// Whole factors.
    LokrWhole { factor: usize },
}

impl Method {
    /// The rows of the table.
    pub const ALL: [Method; 8] = [
        Method::Full,
        Method::Lora,
        Method::Dora,
        Method::Loha,
        Method::Lokr { factor: 4 },
        Method::Lokr { factor: 16 },
        Method::LokrWhole { factor: 4 },
        Method::LokrWhole { factor: 16 },
    ];

    pub fn name(self, rank: usize) -> String {
        match self {
            Method::Full => "full fine-tuning".into(),
            Method::Lora => format!("LoRA, LoCon, rank {rank}"),
            Method::Dora => format!("DoRA, rank {rank}"),
            Method::Loha => format!("LoHa, rank {rank}"),
            Method::Lokr { factor } => format!("LoKr, factor {factor}, rank {rank}"),
            Method::LokrWhole { factor } => format!("LoKr, factor {factor}, full"),
        }
    }

    /// As a file's name.
    pub fn file(self) -> String {
        match self {
            Method::Full => "full".into(),
            Method::Lora => "lora".into(),
            Method::Dora => "dora".into(),
            Method::Loha => "loha".into(),
            Method::Lokr { factor } => format!("lokr-{factor}"),
            Method::LokrWhole { factor } => format!("lokr-{factor}-full"),
        }
    }

    /// Of Adam in the first step: what trained each best, of 1, 2 and 5 times a power of ten.
    pub fn learning_rate(self) -> f32 {
        match self {
            Method::Full => 2e-3,
            _ => 1e-2,
        }
    }

    /// s. Two whole factors of LoKr have no rank, and 1 in LyCORIS' files.
    pub fn scale(self) -> f32 {
        match self {
            Method::LokrWhole { .. } | Method::Full => 1.0,
            _ => SCALE,
        }
    }

    /// Factors of a weight `[n, channels · taps]` whose ΔW is zero, of the variances that LyCORIS begins with.
    pub fn fresh(
        self,
        [n, channels, taps]: [usize; 3],
        rank: usize,
        rng: &mut StdRng,
    ) -> Vec<Values> {
        let k = channels * taps;
        let mut uniform = |rows: usize, cols: usize, variance: f32| {
            let bound = (3.0 * variance).sqrt();
            Values::new(cols, (0..rows * cols).map(|_| rng.random_range(-bound..bound)).collect())
        };
        let zero = |rows: usize, cols: usize| Values::new(cols, vec![0.0; rows * cols]);
        // torch's kaiming_uniform with a = √5.
        let kaiming = |cols: usize| 1.0 / (3.0 * cols as f32);
        match self {
            Method::Full => Vec::new(),
            Method::Lora | Method::Dora => vec![uniform(rank, k, kaiming(k)), zero(n, rank)],
            Method::Loha => vec![
                uniform(n, rank, 0.01),
                uniform(rank, k, 1.0),
                zero(n, rank),
                uniform(rank, k, 1.0),
            ],
            Method::Lokr { factor } | Method::LokrWhole { factor } => {
                // w1 is [a, b], w2 [c, d] with c = n / a and d = k / b, whose taps stay together.
                let (a, b) = (divisor(n, factor), divisor(channels, factor));
                let (c, d) = (n / a, k / b);
                let w1 = uniform(a, b, kaiming(b));
                match self {
                    Method::Lokr { .. } => vec![w1, zero(c, rank), uniform(rank, d, kaiming(d))],
                    _ => vec![w1, zero(c, d)],
                }
            }
        }
    }

    /// As calls take it.
    pub fn adapter(self, of: &[Values]) -> Option<fused_lora::Adapter<Slice<'_>>> {
        use fused_lora::Adapter;
        let m = |at: usize| of[at].matrix();
        Some(match self {
            Method::Full => return None,
            Method::Lora | Method::Dora => Adapter::new(m(0), m(1)),
            Method::Loha => Adapter::loha(m(0), m(1), m(2), m(3)),
            Method::Lokr { .. } => Adapter::lokr(Factor::whole(m(0)), Factor::low(m(1), m(2))),
            Method::LokrWhole { .. } => Adapter::lokr(Factor::whole(m(0)), Factor::whole(m(1))),
        })
    }

    /// As files take it, in the names and shapes of LyCORIS.
    pub fn module(self, of: &[Values], kernel: &[usize]) -> fused_lora::Result<Module> {
        let factor = |at: usize| {
            let Values { cols, adam } = &of[at];
            let values = adam.values();
            files::Factor::new(values.len() / cols, *cols, DType::F32, values)
        };
        let factors = match self {
            Method::Lora | Method::Dora | Method::Full => {
                Factors::Lora { a: factor(0)?, b: factor(1)?, core: None }
            }
            Method::Loha => Factors::Loha {
                w1a: factor(0)?,
                w1b: factor(1)?,
                w2a: factor(2)?,
                w2b: factor(3)?,
                cores: None,
            },
            Method::Lokr { .. } => Factors::Lokr {
                w1: Side::Full(factor(0)?),
                w2: Side::Low(factor(1)?, factor(2)?),
                core: None,
            },
            Method::LokrWhole { .. } => {
                Factors::Lokr { w1: Side::Full(factor(0)?), w2: Side::Full(factor(1)?), core: None }
            }
        };
        Module::new(factors, self.scale(), kernel)
    }
}

/// The factors of a file's module, in the order of [`Method::fresh`].
pub fn factors(of: &Module) -> Vec<Values> {
    let read = |of: &files::Factor| Values::new(of.cols(), of.values());
    let side = |of: &Side| match of {
        Side::Full(of) => vec![read(of)],
        Side::Low(a, b) => vec![read(a), read(b)],
    };
    match &of.factors {
        Factors::Lora { a, b, .. } => vec![read(a), read(b)],
        Factors::Loha { w1a, w1b, w2a, w2b, .. } => [w1a, w1b, w2a, w2b].map(read).into(),
        Factors::Lokr { w1, w2, .. } => side(w1).into_iter().chain(side(w2)).collect(),
        // The example writes no other.
        _ => Vec::new(),
    }
}

/// The largest divisor of `of` up to `most`.
fn divisor(of: usize, most: usize) -> usize {
    (1..=most.min(of)).rev().find(|part| of.is_multiple_of(*part)).unwrap_or(1)
}

/// A trained matrix.
pub struct Values {
    pub cols: usize,
    pub adam: Adam,
}

impl Values {
    pub fn new(cols: usize, values: Vec<f32>) -> Values {
        Values { cols, adam: Adam::new(values) }
    }

    pub fn values(&self) -> &[f32] {
        self.adam.values()
    }

    pub fn rows(&self) -> usize {
        self.values().len() / self.cols
    }

    pub fn matrix(&self) -> Matrix<Slice<'_>> {
        Matrix::new(self.values().into(), self.rows(), self.cols)
    }
}

//! The factors of each method, with the names and the shapes that they have in LyCORIS. Held by `module`.

use super::Factor;

/// What an adapter stores for one layer of `[out_features, in_features]` = `[N, K]`, by LyCORIS' names. Matrices are
/// row-major; a convolution's K is `I·T` for I input channels and T = kh·kw taps, in the order of PyTorch's
/// `[N, I, kh, kw]`. r is the rank, `p` and `q` run over it.
///
/// | method | ΔW / s | with a Tucker core (convolutions alone) |
/// |---|---|---|
/// | LoRA, LoCon | `b·a` | `a[p, (i, uv)] = Σ_q core[p, (q, uv)]·a[q, i]` first |
/// | LoHa | `(w1a·w1b) ∘ (w2a·w2b)` | `Σ_pq t[p, (q, uv)]·wa[p, n]·wb[q, i]` for each side |
/// | LoKr | `w1 ⊗ w2` | w2 as one of LoHa's sides |
///
/// Hu et al., 2021, arXiv:2106.09685; Hyeon-Woo et al., 2021, arXiv:2108.06098 (LoHa); Yeh et al., 2023,
/// arXiv:2309.14859 (LoCon, LoKr).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Factors {
    /// LoRA, LoCon.
    Lora {
        /// lora_A, lora_down: `[r, K]`; with a core `[r, I]`.
        a: Factor,
        /// lora_B, lora_up: `[N, r]`.
        b: Factor,
        /// lora_mid: `[r, r·T]`.
        core: Option<Factor>,
    },
    /// LoHa.
    Loha {
        /// `[N, r]`; with cores `[r, N]`.
        w1a: Factor,
        /// `[r, K]`; with cores `[r, I]`.
        w1b: Factor,
        /// As `w1a`.
        w2a: Factor,
        /// As `w1b`.
        w2b: Factor,
        /// `t1`, `t2`: `[r, r·T]` each.
        cores: Option<[Factor; 2]>,
    },
    /// LoKr: N = a·c, K = b·d, row `i·c + m` and column `j·d + e` of ΔW belong to `w1[i, j]·w2[m, e]`.
    Lokr {
        /// `[a, b]`.
        w1: Side,
        /// `[c, d]`; of a convolution d is its I/b channels times T.
        w2: Side,
        /// `t2`: `[r, r·T]`; then w2 is low-rank, its factors `[r, c]` and `[r, I/b]`.
        core: Option<Factor>,
    },
}

/// A side of LoKr's product.
#[derive(Debug, Clone, PartialEq)]
pub enum Side {
    /// The matrix itself.
    Full(Factor),
    /// Of low rank: `[rows, r]` and `[r, columns]`.
    Low(Factor, Factor),
}

impl Side {
    /// `[rows, columns]`; of one with a core its factors' outer sizes are not these.
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Side::Full(of) => [of.rows(), of.cols()],
            Side::Low(a, b) => [a.rows(), b.cols()],
        }
    }
}

impl Factors {
    /// `[N, K]`.
    pub(super) fn shape(&self) -> [usize; 2] {
        match self {
            Factors::Lora { a, b, core } => {
                [b.rows(), a.cols().saturating_mul(core.as_ref().map_or(1, taps))]
            }
            Factors::Loha { w1a, w1b, cores: None, .. } => [w1a.rows(), w1b.cols()],
            Factors::Loha { w1a, w1b, cores: Some([t1, _]), .. } => {
                [w1a.cols(), w1b.cols().saturating_mul(taps(t1))]
            }
            Factors::Lokr { w1, w2, core } => {
                let ([a, b], [c, d]) = (w1.shape(), right(w2, core.as_ref()));
                [a.saturating_mul(c), b.saturating_mul(d)]
            }
        }
    }

    /// r; 0 for LoKr of two full factors.
    pub(super) fn rank(&self) -> usize {
        match self {
            Factors::Lora { a, .. } => a.rows(),
            Factors::Loha { w1b, .. } => w1b.rows(),
            Factors::Lokr { w2: Side::Low(_, b), .. }
            | Factors::Lokr { w1: Side::Low(_, b), .. } => b.rows(),
            Factors::Lokr { .. } => 0,
        }
    }

    /// The core that says how many taps there are.
    pub(super) fn core(&self) -> Option<&Factor> {
        match self {
            Factors::Lora { core, .. } | Factors::Lokr { core, .. } => core.as_ref(),
            Factors::Loha { cores, .. } => cores.as_ref().map(|[t1, _]| t1),
        }
    }

    /// All that there are, by name.
    pub(super) fn named(&self) -> Vec<(&'static str, &Factor)> {
        let mut named = Vec::new();
        match self {
            Factors::Lora { a, b, core } => {
                named.extend([("lora_A", a), ("lora_B", b)]);
                named.extend(core.iter().map(|core| ("lora_mid", core)));
            }
            Factors::Loha { w1a, w1b, w2a, w2b, cores } => {
                named.extend([("w1a", w1a), ("w1b", w1b), ("w2a", w2a), ("w2b", w2b)]);
                named.extend(cores.iter().flat_map(|[t1, t2]| [("t1", t1), ("t2", t2)]));
            }
            Factors::Lokr { w1, w2, core } => {
                let names = [["w1", "w1a", "w1b"], ["w2", "w2a", "w2b"]];
                for (side, names) in [w1, w2].into_iter().zip(names) {
                    match side {
                        Side::Full(of) => named.push((names[0], of)),
                        Side::Low(a, b) => named.extend([(names[1], a), (names[2], b)]),
                    }
                }
                named.extend(core.iter().map(|core| ("t2", core)));
            }
        }
        named
    }

    /// Whether the factors fit each other. Errors are reasons.
    pub(super) fn check(&self) -> Result<(), String> {
        let shape = |(name, of): &(&str, &Factor)| format!("{name} [{}, {}]", of.rows(), of.cols());
        let named = self.named();
        let shapes = || named.iter().map(shape).collect::<Vec<_>>().join(", ");
        if named.iter().any(|(_, of)| of.rows() == 0 || of.cols() == 0) {
            return Err(format!("expected sizes of at least 1, got {}", shapes()));
        }
        let r = self.rank();
        let is_core = |core: &Factor| core.rows() == r && core.cols().is_multiple_of(r);
        let same = |a: &Factor, b: &Factor| (a.rows(), a.cols()) == (b.rows(), b.cols());
        match self {
            Factors::Lora { a, b, .. } if a.rows() != b.cols() => {
                let ranks = format!("lora_A has rank {}, lora_B rank {}", a.rows(), b.cols());
                Err(format!("{ranks}; expected one rank"))
            }
            Factors::Lora { core, .. } => match core.as_ref().is_none_or(is_core) {
                true => Ok(()),
                false => Err(format!("expected a core of [{r}, {r}·taps], got {}", shapes())),
            },
            Factors::Loha { w1a, w1b, w2a, w2b, cores } => {
                let own = if cores.is_some() { w1a.rows() } else { w1a.cols() };
                let cored = cores.as_ref().is_none_or(|[t1, t2]| is_core(t1) && same(t1, t2));
                match own == r && same(w1a, w2a) && same(w1b, w2b) && cored {
                    true => Ok(()),
                    false => {
                        Err(format!("expected two sides of one rank and shape, got {}", shapes()))
                    }
                }
            }
            Factors::Lokr { w1, w2, core } => {
                let low = |side: &Side, core: Option<&Factor>| match (side, core) {
                    (Side::Full(_), core) => core.is_none(),
                    (Side::Low(a, b), None) => a.cols() == r && b.rows() == r,
                    (Side::Low(a, b), Some(core)) => {
                        a.rows() == r && b.rows() == r && is_core(core)
                    }
                };
                match low(w1, None) && low(w2, core.as_ref()) {
                    true => Ok(()),
                    false => Err(format!(
                        "expected low-rank sides of one rank, and a core beside a low-rank w2 alone, got {}",
                        shapes()
                    )),
                }
            }
        }
    }
}

/// T, of a core of `[r, r·T]`.
pub(super) fn taps(core: &Factor) -> usize {
    core.cols() / core.rows().max(1)
}

/// `[c, d]`, with the core's taps in d.
pub(super) fn right(w2: &Side, core: Option<&Factor>) -> [usize; 2] {
    match (w2, core) {
        (Side::Low(a, b), Some(core)) => [a.cols(), b.cols().saturating_mul(taps(core))],
        _ => w2.shape(),
    }
}

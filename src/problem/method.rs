//! How the factors that an adapter stores make the `a` and `b` that the layer's kernels see. Part of a
//! [`Problem`](super::Problem), of the operations on factors alone.

/// What an adapter's factors are. `∘` multiplies element by element, `⊗` is Kronecker's product.
///
/// | method | ΔW | factors | inner rank R | a `[R, in_features]`, b `[out_features, R]` |
/// |---|---|---|---|---|
/// | LoRA | s·b·a | a, b | r | themselves |
/// | LoHa | s·(w1a·w1b) ∘ (w2a·w2b) | w1a, w2a `[out_features, r]`; w1b, w2b `[r, in_features]` | r² | a\[(p,q),k\] = w1b\[p,k\]·w2b\[q,k\]; b\[n,(p,q)\] = w1a\[n,p\]·w2a\[n,q\] |
/// | LoKr | s·w1 ⊗ (w2a·w2b) | w1 `[rows, columns]`, or w1a·w1b of rank r; w2a `[out_features/rows, r]`; w2b `[r, in_features/columns]` | rows·r | a\[(i,p),(j,e)\] = w1\[i,j\]·w2b\[p,e\]; b\[(i,m),(i',p)\] = w2a\[m,p\] where i = i', else 0 |
///
/// | LoKr, w2 whole | s·w1 ⊗ w2 | w1 as above; w2 `[out_features/rows, in_features/columns]` | 0 | none: the layer takes w1 and w2 |
/// | LoCon with a core | s·up·T, T\[p,(i,t)\] = Σ core\[p,(q,t)\]·down\[q,i\] | down `[r, channels]`, core `[r, r · taps]`, up `[out_features, r]` | r | a = T; b = up |
///
/// Of a weight on images whose channels lie last, columns of LoKr count taps before the rest: see [`Kronecker::taps`].
/// Pairs are counted as `(p,q) = p·r + q`. So the first three are exactly LoRA of rank R, and its kernels serve them.
/// ΔW of a whole w2 is of no low rank: kernels form `w + s·w1 ⊗ w2` in f32 while they read w, or, on CUDA, x·w2ᵀ first,
/// which w1 then mixes.
///
/// The mathematics: Hyeon-Woo et al., 2022, arXiv:2108.06098 (LoHa) and Yeh et al., 2024, arXiv:2309.14859
/// (LoKr, and LyCORIS, whose names the factors have).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Method {
    /// `a` and `b` are what is stored.
    #[default]
    Lora,
    /// Two low-rank products, multiplied element by element.
    Loha,
    /// Kronecker's product of a small matrix and a low-rank one.
    Lokr(Kronecker),
    /// A convolution's low-rank product with a Tucker core between its sides.
    Tucker(Taps),
}

/// The columns of a convolution's weight: a number for each channel and each element of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Taps {
    /// Elements of the kernel; they divide in_features.
    pub count: usize,
    /// Columns of the weight, and so of `a`, count elements of the kernel first and channels in each, as those of a weight on
    /// images do whose channels lie last; otherwise channels first. Those of the core count ranks first, as PyTorch stores it.
    pub first: bool,
}

impl Taps {
    /// So many, of PyTorch's weight `[out_features, channels, rows, columns]`.
    pub const fn new(count: usize) -> Taps {
        Taps { count, first: false }
    }

    /// The same, of a weight `[out_features, rows, columns, channels]`.
    pub const fn first(self) -> Taps {
        Taps { first: true, ..self }
    }
}

/// The factors of [`Method::Lokr`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Kronecker {
    /// Rows of w1: they divide out_features.
    pub rows: usize,
    /// Columns of w1: they divide in_features.
    pub columns: usize,
    /// w1 is stored as w1a·w1b, of the rank of w2 (LyCORIS' `decompose_both`). Where w2 is whole, the layer's own
    /// operations take a w1 in f32, whatever the adapter's type: that which
    /// [`Operation::Compose`](crate::Operation::Compose) makes of the two.
    pub low: bool,
    /// w2 is stored whole. The layer's own operations then have this method, w1 and w2, and rank 0; the rank is that of
    /// a w1 of two factors, which alone is composed.
    pub whole: bool,
    /// Elements of the kernel that columns of the weight count before channels, as those of a weight on images do whose
    /// channels lie last; w2's columns then count them first, too. 1 for a linear layer, and where channels come first:
    /// a block of w2's columns is then one of w's.
    pub taps: usize,
}

impl Kronecker {
    /// A w1 of this shape, stored as it is.
    pub const fn new(rows: usize, columns: usize) -> Kronecker {
        Kronecker { rows, columns, low: false, whole: false, taps: 1 }
    }

    /// The same, stored as w1a·w1b.
    pub const fn low(rows: usize, columns: usize) -> Kronecker {
        Kronecker { rows, columns, low: true, whole: false, taps: 1 }
    }

    /// The same beside a w2 that is stored whole.
    pub const fn whole(self) -> Kronecker {
        Kronecker { whole: true, ..self }
    }

    /// The same of a weight `[out_features, rows, columns, channels]` whose kernel has so many elements:
    /// w\[(i,m),(t,j,e)] has w1\[i,j]·w2\[m,(t,e)].
    pub const fn taps_first(self, taps: usize) -> Kronecker {
        Kronecker { taps, ..self }
    }

    /// The column of w1, and that of a w2 of so many, that a column of the weight has.
    pub(crate) fn columns_of(self, all_of_w2: usize, column: usize) -> [usize; 2] {
        let of_tap = all_of_w2 / self.taps;
        let (tap, channel) = (column / (self.columns * of_tap), column % (self.columns * of_tap));
        [channel / of_tap, tap * of_tap + channel % of_tap]
    }
}

impl Method {
    /// Its name, for errors.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Method::Lora => "LoRA",
            Method::Loha => "LoHa",
            Method::Lokr(_) => "LoKr",
            Method::Tucker(_) => "LoCon with a core",
        }
    }

    /// The factors of a LoKr that layers take as they are.
    pub(crate) const fn kronecker(self) -> Option<Kronecker> {
        match self {
            Method::Lokr(of) if of.whole => Some(of),
            _ => None,
        }
    }

    /// R of factors of rank `rank`.
    pub const fn inner_rank(self, rank: usize) -> usize {
        match self {
            Method::Lora | Method::Tucker(_) => rank,
            Method::Loha => rank.saturating_mul(rank),
            Method::Lokr(Kronecker { whole: true, .. }) => 0,
            Method::Lokr(of) => of.rows.saturating_mul(rank),
        }
    }
}

/// The largest inner rank of factors: beyond it ΔW itself is smaller in every layer that has such an adapter.
pub(crate) const MOST_INNER_RANK: usize = 4096;

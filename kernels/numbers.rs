//! What a rendered text is, in enums and numbers: all that the plan chooses by and launches with.
//! `build.rs` includes this file and fills it from the lists beside the templates; `plan::cuda`
//! includes it and reads the table that comes of them.

use crate::DType;

/// What a text does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As many products as there are segments.
    Plain,
    /// The first tile of a row computes shrunk for all of them.
    Leader,
    /// Every tile computes its own shrunk.
    Recompute,
    Shrink,
    Merge,
    Decode,
    Gradient,
    Pack,
    /// Sums over an adapter's factors.
    Contract,
    /// A magnitude over the norms of w's rows.
    Norm,
    /// dy times the gain, and the magnitude's gradient.
    BackwardGain,
}

impl Kind {
    pub(crate) const ALL: &'static [Kind] = &[
        Kind::Plain,
        Kind::Leader,
        Kind::Recompute,
        Kind::Shrink,
        Kind::Merge,
        Kind::Decode,
        Kind::Gradient,
        Kind::Pack,
        Kind::Contract,
        Kind::Norm,
        Kind::BackwardGain,
    ];

    /// As templates, names of texts and refusals write it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Kind::Plain => "plain",
            Kind::Leader => "leader",
            Kind::Recompute => "recompute",
            _ => self.entry(),
        }
    }

    /// The entry point of its texts, and the name of their launches.
    pub(crate) const fn entry(self) -> &'static str {
        match self {
            Kind::Plain | Kind::Leader | Kind::Recompute => "linear",
            Kind::Shrink => "shrink",
            Kind::Merge => "merge",
            Kind::Decode => "decode",
            Kind::Gradient => "gradient",
            Kind::Pack => "pack",
            Kind::Contract => "contract",
            Kind::Norm => "norm",
            Kind::BackwardGain => "backward_gain",
        }
    }
}

/// Which of a kernel's tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tile {
    /// Most reuse.
    Large,
    /// Half of it, two at once: for grids that end in a wave of few large tiles.
    Medium,
    /// For grids that large tiles would leave empty.
    Small,
    /// Large, in f32 that is rounded for the tensor cores.
    Tf32,
    /// The kernel has no other.
    Only,
}

impl Tile {
    /// As names of texts and refusals write it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Tile::Large => "large",
            Tile::Medium => "medium",
            Tile::Small => "small",
            Tile::Tf32 => "tf32",
            Tile::Only => "only",
        }
    }
}

/// One text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) kind: Kind,
    pub(crate) tile: Tile,
    /// Of the activations; of `pack`, what it writes.
    pub(crate) dtype: DType,
    /// Of the adapter as this text loads it.
    pub(crate) adapter: DType,
    /// The adapter comes as a pair of matrices, high and low.
    pub(crate) pair: bool,
    /// The sum runs along stored rows of w and of `down`.
    pub(crate) k_major: bool,
    /// Loads 16 bytes at a time.
    pub(crate) aligned: bool,
    /// Rows of x may be pixels under the taps of a convolution.
    pub(crate) gathers: bool,
    /// Its leaders can work out shrunk before their tile: with `alone` of the launch above 0.
    pub(crate) walks: bool,
    /// Most ranks that it carries beside its columns.
    pub(crate) ranks: usize,
    /// The tile of the result, and what of the sum is one step.
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) depth: usize,
    pub(crate) stages: usize,
    pub(crate) threads: usize,
    /// Bytes of shared memory of a CTA; of `decode`, of each warp that streams.
    pub(crate) smem_bytes: usize,
    /// Bytes of it beside those: what the adapter's warp of `decode` has.
    pub(crate) aside_bytes: usize,
    /// CTAs of a multiprocessor that the registers are divided for.
    pub(crate) resident: usize,
}

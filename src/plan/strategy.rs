//! Who computes `shrunk`: what presets and choices name first.

use core::fmt;

/// Who computes `shrunk`, and when the others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Strategy {
    /// The first tiles of a row of tiles compute `shrunk` and publish it; the others meet it
    /// at their end.
    Leader,
    /// Every tile computes the part of `shrunk` that it needs.
    Recompute,
    /// One launch computes `shrunk`, a second one the layer.
    TwoPass,
    /// The operation has no `shrunk` to share: gradients of the adapter, merge, rank 0.
    Direct,
    /// `w' = w + ΔW` is formed in the workspace, and the plain layer runs on it: forward without a kept `shrunk`, and
    /// backward_input, of LoRA (and what is composed to it) and of LoKr with a whole w2.
    ///
    /// w' has w's type. In 16 bits it is rounded to that, so that of a small adapter only a part arrives (0.42 at a
    /// thousandth of the weight's size in bf16): there a plan takes it only where the caller names it, as the choice
    /// `merged` or `merged/large`; so too for LoRA in any type. In f32 a LoKr with a whole w2 may get it by itself.
    ///
    /// A run forms w' anew, because nothing tells a plan that w or the adapter has changed: it reads w and writes w'
    /// beside the layer, as large as w in the workspace. To pay for that once, [`merge`](crate::Operation::Merge).
    Merged,
}

impl Strategy {
    /// Every strategy. A later version may have more.
    pub const ALL: &[Strategy] = &[
        Strategy::Leader,
        Strategy::Recompute,
        Strategy::TwoPass,
        Strategy::Direct,
        Strategy::Merged,
    ];
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Strategy::Leader => "leader",
            Strategy::Recompute => "recompute",
            Strategy::TwoPass => "two_pass",
            Strategy::Direct => "direct",
            Strategy::Merged => "merged",
        })
    }
}

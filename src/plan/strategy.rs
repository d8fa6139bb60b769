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
}

impl Strategy {
    /// Every strategy. A later version may have more.
    pub const ALL: &[Strategy] =
        &[Strategy::Leader, Strategy::Recompute, Strategy::TwoPass, Strategy::Direct];
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Strategy::Leader => "leader",
            Strategy::Recompute => "recompute",
            Strategy::TwoPass => "two_pass",
            Strategy::Direct => "direct",
        })
    }
}

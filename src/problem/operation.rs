//! What can be done with a frozen layer and its adapter. Part of a [`Problem`](super::Problem).

use core::fmt;

/// The things one can do with a frozen layer and its adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Operation {
    /// `y = x·wᵀ + shrunk·bᵀ (+ bias)` with `shrunk = s·x·aᵀ`.
    Forward,
    /// `dx = dy·w + dshrunk·a` with `dshrunk = s·dy·b`.
    BackwardInput,
    /// `dshrunk = s·dy·b` alone: for a first layer, whose `dx` nobody needs.
    BackwardShrink,
    /// `db = dyᵀ·shrunk`, `da = dshrunkᵀ·x`.
    BackwardAdapter,
    /// `w += s·b·a`, rounded to w's storage: of an adapter that is small beside w 16 bits lose what lies below
    /// half a step of w.
    Merge,
    /// `w -= s·b·a`. After a merge of the same adapter it does not bring back every bit of w, because the merge
    /// has rounded; nor do more merges and unmerges drift: each pair ends where the first one did.
    Unmerge,
    /// `a` and `b` of the factors of a [`Method`](crate::Method).
    Compose,
    /// The gradients of a method's factors, of `da` and `db`.
    Chain,
    /// `gain = magnitude / ‖w + s·b·a‖`, of each row: DoRA's (Liu et al., 2024, arXiv:2402.09353, eq. 5). It reads w
    /// once, keeps nothing of its size, and is needed when the adapter or the magnitude has changed: once a step of
    /// an optimiser, not once a forward pass.
    Norm,
    /// `scaled_dy = gain∘dy`, which the other gradients take for `dy`, and `dmagnitude = Σ dy∘(y − bias) / magnitude`
    /// over the tokens, of forward's `y` with the same gain. The norm counts as a constant (§4.3 there), as in PEFT.
    BackwardGain,
}

impl Operation {
    /// Every operation on a layer, for tests and tables that walk them all. A later version may have more.
    pub const ALL: &[Operation] = &[
        Operation::Forward,
        Operation::BackwardInput,
        Operation::BackwardShrink,
        Operation::BackwardAdapter,
        Operation::Merge,
        Operation::Unmerge,
    ];

    /// Those on the factors of a [`Method`](crate::Method) other than LoRA, beside the layer.
    pub const FACTORS: &[Operation] = &[Operation::Compose, Operation::Chain];

    /// Those on a gain and the magnitude that it comes of, beside the layer.
    pub const GAINS: &[Operation] = &[Operation::Norm, Operation::BackwardGain];
}

impl Operation {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Operation::Forward => "forward",
            Operation::BackwardInput => "backward_input",
            Operation::BackwardShrink => "backward_shrink",
            Operation::BackwardAdapter => "backward_adapter",
            Operation::Merge => "merge",
            Operation::Unmerge => "unmerge",
            Operation::Compose => "compose",
            Operation::Chain => "chain",
            Operation::Norm => "norm",
            Operation::BackwardGain => "backward_gain",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Which of the adapter's gradients [`Operation::BackwardAdapter`] forms, and [`Operation::Chain`] takes back
/// to the factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Gradients {
    /// `da` and `db`.
    #[default]
    Both,
    /// `da` alone: `dy` and `shrunk` are not operands. Of factors those that follow from it: LoHa's w1b and
    /// w2b, LoKr's w1 and w2b. Of LoKr with a whole w2, w1 alone.
    A,
    /// `db` alone: `x` and `dshrunk` are not operands. Of factors those that follow from it: LoHa's w1a and
    /// w2a, LoKr's w2a. Of LoKr with a whole w2, w2 alone.
    B,
}

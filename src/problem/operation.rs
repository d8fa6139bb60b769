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
}

impl Operation {
    /// Every operation, for tests and tables that walk them all. A later version may have more.
    pub const ALL: &[Operation] = &[
        Operation::Forward,
        Operation::BackwardInput,
        Operation::BackwardShrink,
        Operation::BackwardAdapter,
        Operation::Merge,
        Operation::Unmerge,
    ];
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
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Which of the adapter's gradients [`Operation::BackwardAdapter`] forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Gradients {
    /// `da` and `db`.
    #[default]
    Both,
    /// `da` alone: `dy` and `shrunk` are not operands.
    A,
    /// `db` alone: `x` and `dshrunk` are not operands.
    B,
}

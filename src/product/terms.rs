//! What products are made of: how an operand comes in, how a result goes out, and what becomes of
//! the sums between the two.

use core::fmt;

use crate::{Major, Operand, Spec};

/// An operand that is multiplied.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Load {
    pub(crate) operand: Operand,
    pub(crate) spec: Spec,
    /// The sum runs along its stored rows: the words of CUTLASS and the PTX manual for that.
    pub(crate) k_major: bool,
    pub(crate) kind: LoadKind,
}

/// How the elements of a load come from what is stored. A kernel says which kinds it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoadKind {
    /// They are what is stored.
    Stored,
}

impl fmt::Display for LoadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            LoadKind::Stored => "stored",
        })
    }
}

impl Load {
    /// An operand as it is stored.
    pub(crate) fn stored(operand: Operand, spec: Spec, k_major: bool) -> Load {
        Load { operand, spec, k_major, kind: LoadKind::Stored }
    }
}

/// An operand that takes a result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Store {
    pub(crate) operand: Operand,
    pub(crate) spec: Spec,
    /// As the product sees its result: [`Major::Row`] where the product's rows are stored rows.
    pub(crate) major: Major,
}

/// What becomes of the sums: `out = factor·sums (+ bias) (+ beta·old)`, rounded once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Finish {
    pub(crate) out: Store,
    pub(crate) factor: f32,
    pub(crate) beta: f32,
    pub(crate) bias: Option<Load>,
}

/// A step of a finish that is more than rounding. A kernel says which ones it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FinishStep {
    /// All sums times one number.
    Factor,
    /// One number a column is added.
    Bias,
    /// The old value times one number is added.
    Beta,
}

impl fmt::Display for FinishStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            FinishStep::Factor => "a factor",
            FinishStep::Bias => "a bias",
            FinishStep::Beta => "old values",
        })
    }
}

impl Finish {
    /// Rounding alone.
    pub(crate) fn of(out: Store) -> Finish {
        Finish { out, factor: 1.0, beta: 0.0, bias: None }
    }

    /// The steps that it has.
    pub(crate) fn steps(&self) -> impl Iterator<Item = FinishStep> + use<> {
        let steps = [
            (self.factor != 1.0, FinishStep::Factor),
            (self.bias.is_some(), FinishStep::Bias),
            (self.beta != 0.0, FinishStep::Beta),
        ];
        steps.into_iter().filter_map(|(has, step)| has.then_some(step))
    }
}

//! What products are made of: how an operand comes in, how a result goes out, and what becomes of
//! the sums between the two.

use core::fmt;

use super::window::Window;
use crate::problem::Scalars;
use crate::{Major, Operand, Spec};

/// An operand that is multiplied.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Load {
    pub(crate) operand: Operand,
    pub(crate) spec: Spec,
    /// The sum runs along its stored rows: the words of CUTLASS and the PTX manual for that.
    pub(crate) k_major: bool,
    pub(crate) kind: LoadKind,
    /// Of one that is gathered.
    pub(crate) window: Option<Window>,
}

/// How the elements of a load come from what is stored. A kernel says which kinds it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoadKind {
    /// They are what is stored.
    Stored,
    /// A Kronecker product is added to what is stored, in f32: a [`Summand`](super::Summand).
    Summed,
    /// They are pixels under a convolution's window, and zeros around the images.
    Gathered,
}

impl fmt::Display for LoadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            LoadKind::Stored => "stored",
            LoadKind::Summed => "summed with w1 ⊗ w2",
            LoadKind::Gathered => "gathered",
        })
    }
}

impl Load {
    /// An operand as it is stored.
    pub(crate) fn stored(operand: Operand, spec: Spec, k_major: bool) -> Load {
        Load { operand, spec, k_major, kind: LoadKind::Stored, window: None }
    }

    /// The same with a Kronecker product added, where there is one.
    pub(super) fn summed_with(self, summand: Option<&super::Summand>) -> Load {
        match summand {
            Some(_) => Load { kind: LoadKind::Summed, ..self },
            None => self,
        }
    }

    /// Rows and depth, as the product has them.
    pub(crate) fn shape(&self) -> [usize; 2] {
        let (outer, inner) = self.spec.stored();
        if self.k_major { [outer, inner] } else { [inner, outer] }
    }
}

/// An operand that takes a result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Store {
    pub(crate) operand: Operand,
    pub(crate) spec: Spec,
    /// As the product sees its result: [`Major::Row`] where the product's rows are stored rows.
    pub(crate) major: Major,
    /// Of images stored channels first.
    pub(crate) planes: Option<Planes>,
}

/// Images whose planes are the columns of a product: what is stored is `[images · columns, pixels]`, and its rows are neither
/// rows nor columns of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Planes {
    /// Of each image.
    pub(crate) pixels: usize,
    pub(crate) columns: usize,
}

/// What all sums are multiplied with. Its number comes with the run, and is no part of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Multiplier {
    One,
    Scale,
    MinusScale,
}

impl Multiplier {
    pub(crate) fn value(self, of: Scalars) -> f32 {
        match self {
            Multiplier::One => 1.0,
            Multiplier::Scale => of.scale,
            Multiplier::MinusScale => -of.scale,
        }
    }
}

/// What becomes of old values; that β is not 0 is part of a product, its number comes with the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Old {
    /// They are not read.
    Replaced,
    /// They are added as they are.
    Added,
    /// β times them is added.
    Beta,
}

impl Old {
    pub(crate) fn new(beta: f32) -> Old {
        if beta == 0.0 { Old::Replaced } else { Old::Beta }
    }

    /// What they are multiplied with.
    pub(crate) fn value(self, of: Scalars) -> f32 {
        match self {
            Old::Replaced => 0.0,
            Old::Added => 1.0,
            Old::Beta => of.beta,
        }
    }
}

/// What becomes of the sums: `out = factor·gain∘sums (+ bias) (+ β·old)`, rounded once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Finish {
    pub(crate) out: Store,
    pub(crate) factor: Multiplier,
    /// A number of each column.
    pub(crate) gain: Option<Load>,
    pub(crate) old: Old,
    pub(crate) bias: Option<Load>,
}

/// A step of a finish that is more than rounding. A kernel says which ones it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FinishStep {
    /// All sums times one number.
    Factor,
    /// Those of each column times a number of its own.
    Gain,
    /// One number a column is added.
    Bias,
    /// The old value times one number is added.
    Beta,
}

impl fmt::Display for FinishStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            FinishStep::Factor => "a factor",
            FinishStep::Gain => "a gain",
            FinishStep::Bias => "a bias",
            FinishStep::Beta => "old values",
        })
    }
}

impl Finish {
    /// Rounding alone.
    pub(crate) fn of(out: Store) -> Finish {
        Finish { out, factor: Multiplier::One, gain: None, old: Old::Replaced, bias: None }
    }

    /// The steps that it has.
    pub(crate) fn steps(&self) -> impl Iterator<Item = FinishStep> + use<> {
        let steps = [
            (self.factor != Multiplier::One, FinishStep::Factor),
            (self.gain.is_some(), FinishStep::Gain),
            (self.bias.is_some(), FinishStep::Bias),
            (self.old != Old::Replaced, FinishStep::Beta),
        ];
        steps.into_iter().filter_map(|(has, step)| has.then_some(step))
    }
}

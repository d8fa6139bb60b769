//! A problem as mathematics: which operand is multiplied with which, along which index, and what
//! becomes of the sums. Pure, and the only code that knows forward from backward_input; made from a
//! problem once a plan, and read by the plans and executors of every backend.
//!
//! Every operation is one product with parts left out, or two plain ones:
//!
//! ```text
//!         [ right  up ]     [ left   ]
//!         [ down   ·  ]  ·  [ shrunk ]        shrunk = scale · left·downᵀ
//!
//! operation          rows × columns   depth   left  right  down  up   finish
//! forward              M  ×  N          K      x     w      a     b    y      (gain∘) (+ bias)
//! backward_input       M  ×  K          N      dy    wᵀ     bᵀ    aᵀ   dx
//! backward_shrink      M  ×  ·          N      dy    ·      bᵀ    ·
//! merge                N  ×  K          r      b     aᵀ     ·     ·    w ± s·
//! backward_adapter     r  ×  K, r × N   M      dshrunkᵀ·x → da,  shrunkᵀ·dy → dbᵀ
//! of a convolution     x and dy are gathered (`window`), and backward_input is `transposed`
//! compose, chain       sums over the factors that a and b are made of: `factors`
//! LoKr, w2 whole       the same on w + s·w1 ⊗ w2, which is formed as w is loaded, merge as a sum over factors, and
//!                      the gradients of w1 and w2: `kronecker`
//! norm, backward_gain  what a gain comes of, and what becomes of it: `gain`
//! ```

mod bordered;
mod factors;
mod gain;
mod kronecker;
mod outer;
mod terms;
#[cfg(test)]
mod tests;
mod transposed;
mod window;

pub(crate) use bordered::{Body, Border, Bordered, Shrunk};
pub(crate) use factors::{Contraction, Factors, INDICES, Indexed, Place};
pub(crate) use gain::{GainGradient, Norm};
pub(crate) use kronecker::{FactorGradient, KroneckerGradients, Summand};
pub(crate) use outer::Outer;
pub(crate) use terms::{Finish, FinishStep, Load, LoadKind, Multiplier, Old, Planes, Store};
pub(crate) use transposed::Transposed;
pub(crate) use window::Window;

use crate::problem::Specs;
use crate::{Operation, Problem};

/// What a problem is.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "made once a plan")]
pub(crate) enum Product {
    /// No output has an element that would change: there is nothing to launch.
    Nothing,
    /// The frozen layer, with its adapter where the rank is not 0.
    Layer(Bordered),
    /// The gradient of a convolution's input.
    Transposed(Transposed),
    /// The border rows alone: shrunk without the layer.
    Shrink(Bordered),
    /// The adapter's own product, onto the weight.
    Merge(Bordered),
    /// da and db, those that are asked for.
    Gradients([Option<Outer>; 2]),
    /// The factors of which a and b are made, or their gradients.
    Factors(Factors),
    /// dw1 and dw2 of a LoKr with a whole w2.
    Kronecker(KroneckerGradients),
    /// The gain of a magnitude.
    Norm(Norm),
    /// The gradient of a magnitude, and what of dy its gain leaves to the others.
    GainGradient(GainGradient),
}

/// What kernels declare that they serve: the variants of [`Product`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Layer,
    Transposed,
    Shrink,
    Merge,
    Gradients,
    Factors,
    Kronecker,
    Norm,
    GainGradient,
}

impl Kind {
    /// In words, for what no kernel serves.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Layer => "layer",
            Kind::Transposed => "transposed convolution",
            Kind::Shrink => "shrink",
            Kind::Merge => "merge",
            Kind::Gradients => "gradient",
            Kind::Factors => "sum over factors",
            Kind::Kronecker => "gradient of w1 ⊗ w2",
            Kind::Norm => "norm",
            Kind::GainGradient => "gradient of a magnitude",
        }
    }
}

impl Product {
    /// What `problem`, of which `specs` are the operands, is.
    pub(crate) fn new(problem: &Problem, specs: &Specs) -> Product {
        let (tokens, rank) = (problem.tokens(), problem.rank());
        let is_kronecker = problem.method().kronecker().is_some();
        match problem.operation() {
            Operation::Merge | Operation::Unmerge if is_kronecker => {
                kronecker::merge(problem, specs).map(Product::Factors)
            }
            // Without tokens they are β·old, which has to be written.
            Operation::BackwardAdapter if is_kronecker => {
                KroneckerGradients::new(problem, specs).map(Product::Kronecker)
            }
            Operation::Forward | Operation::BackwardInput if tokens > 0 => match problem.window() {
                Some(of) if problem.operation() == Operation::BackwardInput => {
                    Transposed::new(problem, of, specs).map(Product::Transposed)
                }
                _ => Bordered::layer(problem, specs).map(Product::Layer),
            },
            Operation::BackwardShrink if tokens > 0 && rank > 0 => {
                Bordered::layer(problem, specs).map(Product::Shrink)
            }
            Operation::Merge | Operation::Unmerge if rank > 0 => {
                Bordered::merge(problem, specs).map(Product::Merge)
            }
            // Without tokens they are β·old, which has to be written.
            Operation::BackwardAdapter if rank > 0 => {
                Some(Product::Gradients(Outer::gradients(problem, specs)))
            }
            Operation::Compose | Operation::Chain if rank > 0 => {
                Some(Product::Factors(Factors::new(problem, specs)))
            }
            Operation::Norm => Norm::new(problem, specs).map(Product::Norm),
            // Without tokens dmagnitude is β·old, which has to be written.
            Operation::BackwardGain => GainGradient::new(problem, specs).map(Product::GainGradient),
            _ => None,
        }
        .unwrap_or(Product::Nothing)
    }

    /// Its kind; `None` where there is nothing to do.
    pub(crate) fn kind(&self) -> Option<Kind> {
        match self {
            Product::Nothing => None,
            Product::Layer(_) => Some(Kind::Layer),
            Product::Transposed(_) => Some(Kind::Transposed),
            Product::Shrink(_) => Some(Kind::Shrink),
            Product::Merge(_) => Some(Kind::Merge),
            Product::Gradients(_) => Some(Kind::Gradients),
            Product::Factors(_) => Some(Kind::Factors),
            Product::Kronecker(_) => Some(Kind::Kronecker),
            Product::Norm(_) => Some(Kind::Norm),
            Product::GainGradient(_) => Some(Kind::GainGradient),
        }
    }

    /// Everything that is loaded.
    pub(crate) fn loads(&self) -> impl Iterator<Item = &Load> {
        let (bordered, outer, transposed) = match self {
            // What is multiplied of factors is read by strides, however it is stored; and all loads of a
            // gain's products but a norm's w are as stored.
            Product::Nothing
            | Product::Factors(_)
            | Product::Kronecker(_)
            | Product::Norm(_)
            | Product::GainGradient(_) => (None, None, None),
            Product::Layer(of) | Product::Shrink(of) | Product::Merge(of) => (Some(of), None, None),
            Product::Gradients(of) => (None, Some(of), None),
            Product::Transposed(of) => (None, None, Some(of)),
        };
        let bordered = bordered.into_iter().flat_map(Bordered::loads);
        let outer = outer.into_iter().flatten().flatten();
        let norm = match self {
            Product::Norm(of) => Some(&of.w),
            _ => None,
        };
        let kronecker = match self {
            Product::Kronecker(of) => Some([&of.dy, &of.x]),
            _ => None,
        };
        let gain = match self {
            Product::GainGradient(of) => Some([&of.dy, &of.y]),
            _ => None,
        };
        let transposed = transposed.into_iter().flat_map(Transposed::loads);
        let pairs = kronecker.into_iter().chain(gain).flatten();
        let outer = outer.flat_map(|of| [&of.left, &of.right]);
        bordered.chain(outer).chain(transposed).chain(norm).chain(pairs)
    }

    /// What becomes of the sums, step by step.
    pub(crate) fn finish_steps(&self) -> impl Iterator<Item = FinishStep> {
        let finishes = match self {
            Product::Nothing
            | Product::Factors(_)
            | Product::Kronecker(_)
            | Product::Norm(_)
            | Product::GainGradient(_) => [None, None],
            Product::Layer(of) | Product::Shrink(of) | Product::Merge(of) => {
                [of.body.as_ref().map(|body| &body.finish), None]
            }
            Product::Transposed(of) => [Some(&of.finish), None],
            Product::Gradients(of) => of.each_ref().map(|of| of.as_ref().map(|of| &of.finish)),
        };
        // Of sums over factors a kernel has all but this one.
        let factor = match self {
            Product::Factors(of) if of.factor() != Multiplier::One => Some(FinishStep::Factor),
            _ => None,
        };
        finishes.into_iter().flatten().flat_map(Finish::steps).chain(factor)
    }
}

//! LoKr with a whole w2: what w1 and w2 add to a load of w, and the product that their gradients are. No a and b
//! stand between, since ΔW is of no low rank.

use super::factors::{Contraction, Factors};
use super::terms::{Load, Multiplier, Old, Store};
use super::window::Window;
use crate::problem::Specs;
use crate::{Access, Channels, Major, Operand, Problem};

/// `s·w1 ⊗ w2`, which a load has beside what is stored. Both sides as the product has them: of the load's rows and of its
/// depth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summand {
    pub(crate) w1: Load,
    pub(crate) w2: Load,
    /// Taps that w's columns, and w2's, count first: [`Kronecker::taps`](crate::Kronecker::taps).
    pub(crate) taps: usize,
    /// The product has w's columns for rows.
    transposed: bool,
}

impl Summand {
    /// Of a problem that has w1 and w2; `transposed`: the product has w's columns for rows.
    pub(super) fn new(problem: &Problem, specs: &Specs, transposed: bool) -> Option<Summand> {
        let taps = problem.method().kronecker()?.taps;
        let load = |operand: Operand| {
            let spec = specs[operand as usize]?;
            Some(Load::stored(operand, spec, (spec.major == Major::Row) != transposed))
        };
        Some(Summand { w1: load(Operand::W1)?, w2: load(Operand::W2)?, taps, transposed })
    }

    /// Rows and depth of w2.
    pub(crate) fn block(&self) -> [usize; 2] {
        self.w2.shape()
    }

    /// Taps that rows and depth of the load, and of w2, count first.
    pub(crate) fn taps_along(&self) -> [usize; 2] {
        if self.transposed { [self.taps, 1] } else { [1, self.taps] }
    }

    pub(crate) fn loads(&self) -> [&Load; 2] {
        [&self.w1, &self.w2]
    }
}

/// The gradients of w1 `[rows, columns]` and of w2 `[c, d]`, those that are asked for; with m a token:
///
/// ```text
/// dw1[i,j] = s·Σ over m, e of u[m,i,e]·x[m,(j,e)]        u[m,i,e] = Σ over p of dy[m,(i,p)]·w2[p,e]
/// dw2[p,e] = s·Σ over m, j of v[m,j,p]·x[m,(j,e)]        v[m,j,p] = Σ over i of w1[i,j]·dy[m,(i,p)]
/// ```
///
/// Where x's columns count taps first, e is (t,e) and x[m,(t,j,e)].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct KroneckerGradients {
    pub(crate) tokens: usize,
    /// Rows and columns of w1.
    pub(crate) outer: [usize; 2],
    /// Rows and columns of w2.
    pub(crate) inner: [usize; 2],
    /// Taps that columns of x and of w2 count first.
    pub(crate) taps: usize,
    /// `[tokens, rows·c]`.
    pub(crate) dy: Load,
    /// `[tokens, columns·d]`.
    pub(crate) x: Load,
    pub(crate) factor: Multiplier,
    pub(crate) of_w1: Option<FactorGradient>,
    pub(crate) of_w2: Option<FactorGradient>,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct FactorGradient {
    /// The other factor, as its shape is.
    pub(crate) other: Load,
    pub(crate) out: Store,
    pub(crate) old: Old,
}

impl KroneckerGradients {
    pub(super) fn new(problem: &Problem, specs: &Specs) -> Option<KroneckerGradients> {
        use Operand::{Dw1, Dw2, Dy, W1, W2, X};
        let of = problem.method().kronecker()?;
        let load = |operand: Operand| {
            let spec = specs[operand as usize]?;
            Some(Load::stored(operand, spec, spec.major == Major::Row))
        };
        // Of a convolution both are read through a window, as `Outer` has them.
        let (k, n) = (problem.in_features(), problem.out_features());
        let seen = |operand: Operand, window: Option<Window>| match window {
            Some(window) => Some(Load::gathered(operand, specs[operand as usize]?, true, window)),
            None => load(operand),
        };
        let images = problem.window();
        let of_x = images.map(|of| Window::of_input(&of, k / of.taps()));
        let planes = images.filter(|of| of.channels == Channels::First);
        let of_dy = planes.map(|of| Window::planes(&of, n));
        let gradient = |other, out: Operand| {
            let spec = specs[out as usize]?;
            let old = match spec.access {
                Access::Update => Old::new(problem.beta()),
                _ => Old::Replaced,
            };
            let out = Store { operand: out, spec, major: spec.major, planes: None };
            Some(FactorGradient { other: load(other)?, out, old })
        };
        Some(KroneckerGradients {
            tokens: problem.tokens(),
            outer: [of.rows, of.columns],
            inner: [n / of.rows, k / of.columns],
            taps: of.taps,
            dy: seen(Dy, of_dy)?,
            x: seen(X, of_x)?,
            factor: Multiplier::Scale,
            of_w1: gradient(W2, Dw1),
            of_w2: gradient(W1, Dw2),
        })
    }
}

impl KroneckerGradients {
    /// dw1 of parts that lie in the plan's memory, one below the other.
    pub(crate) fn sum_of_parts(&self, parts: usize) -> Option<Contraction> {
        let of = self.of_w1?;
        Some(Contraction::of_parts(self.outer, parts, (of.out, of.old, self.factor)))
    }

    /// dw2 without a token: its old values.
    pub(crate) fn nothing_of_w2(&self) -> Option<Contraction> {
        let of = self.of_w2?;
        Some(Contraction::of_parts(self.inner, 0, (of.out, of.old, self.factor)))
    }
}

/// `w ± s·w1 ⊗ w2`: a sum of factors without an index to sum over.
pub(super) fn merge(problem: &Problem, specs: &Specs) -> Option<Factors> {
    Some(Factors { sums: vec![Contraction::merge(problem, specs)?] })
}

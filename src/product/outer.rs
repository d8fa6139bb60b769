//! The gradients: products whose sums run over the tokens.

use super::terms::{Finish, Load, Old, Store};
use super::window::Window;
use crate::problem::Specs;
use crate::{Channels, Major, Operand, Problem};

/// `out[rank, columns] = Σ over tokens left[token]ᵀ·right[token]`: da, or the transpose of db.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Outer {
    /// Length of the sums.
    pub(crate) tokens: usize,
    pub(crate) rank: usize,
    pub(crate) columns: usize,
    /// dshrunk or shrunk, `[tokens, padded_rank]`, in one part or two.
    pub(crate) left: Load,
    /// x or dy, `[tokens, columns]`.
    pub(crate) right: Load,
    /// Elements of a row of one part of `left`.
    pub(crate) padded_rank: usize,
    /// `left` is in two parts, high and low, which are added.
    pub(crate) precise: bool,
    pub(crate) finish: Finish,
}

impl Outer {
    /// da and db, those that the problem has.
    pub(super) fn gradients(problem: &Problem, specs: &Specs) -> [Option<Outer>; 2] {
        use Operand::*;
        // db is [columns, rank]: its transpose is the product.
        [(Dshrunk, X, Da, false), (Shrunk, Dy, Db, true)].map(
            |(left, right, out, is_transposed)| {
                let load =
                    |operand: Operand| Some(Load::stored(operand, specs[operand as usize]?, false));
                let spec = specs[out as usize]?;
                let is_row = (spec.major == Major::Row) != is_transposed;
                let major = if is_row { Major::Row } else { Major::Col };
                let out = Store { operand: out, spec, major, planes: None };
                let finish = Finish { old: Old::new(problem.beta()), ..Finish::of(out) };
                let (left, mut right) = (load(left)?, load(right)?);
                let columns = match is_transposed {
                    false => problem.in_features(),
                    true => problem.out_features(),
                };
                if let Some(of) = problem.window() {
                    let window = match (is_transposed, of.channels) {
                        (false, _) => Some(Window::of_input(&of, columns / of.taps())),
                        (true, Channels::First) => Some(Window::planes(&of, columns)),
                        (true, Channels::Last) => None,
                    };
                    if let Some(window) = window {
                        right = Load::gathered(right.operand, right.spec, false, window);
                    }
                }
                Some(Outer {
                    tokens: problem.tokens(),
                    rank: problem.rank(),
                    columns,
                    left,
                    right,
                    padded_rank: problem.padded_rank(),
                    precise: problem.is_precise(),
                    finish,
                })
            },
        )
    }

    /// Parts of `left`: one, or two.
    pub(crate) fn parts(&self) -> usize {
        if self.precise { 2 } else { 1 }
    }
}

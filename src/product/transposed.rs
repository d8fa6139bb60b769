//! The gradient of a convolution's input: a convolution transposed, whose border has taps as the layer has. What it meets of
//! `dshrunk` are the rows of a pixel's neighbours, so that is made whole before.

use super::bordered::Bordered;
use super::kronecker::Summand;
use super::terms::{Finish, Load, Old, Planes, Store};
use super::window::Window;
use crate::problem::Specs;
use crate::{Channels, Convolution, Major, Operand, Problem};

/// `dx[pixel] = Σ over taps dy[neighbour]·w[tap] + dshrunk[neighbour]·a[tap]`; or, since each neighbour is one of a token's
/// taps, `dy[token]·w[tap] + dshrunk[token]·a[tap]` added to the pixel that the token's tap sees.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Transposed {
    /// Pixels of all images, and channels of each.
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Length of the sums of one tap.
    pub(crate) depth: usize,
    pub(crate) taps: usize,
    /// Makes `dshrunk`; `None` where there is no rank.
    pub(crate) shrink: Option<Bordered>,
    /// `[rows, taps · depth]`, taps first.
    pub(crate) dy: Load,
    /// The same token by token, `[tokens, depth]`.
    pub(crate) of_tokens: Load,
    /// Which pixel of the input each tap of a token sees.
    pub(crate) window: Window,
    /// `[out_features, in_features]` and `[rank, in_features]`, whose columns `column` finds.
    pub(crate) w: Load,
    /// What w has beside what is stored.
    pub(crate) summand: Option<Summand>,
    pub(crate) a: Option<Load>,
    pub(crate) finish: Finish,
    /// Rows and columns of an image.
    pub(crate) size: [usize; 2],
    /// The window through which `dshrunk`, `[tokens, padded_rank]`, is read.
    pub(crate) neighbours: Window,
    /// From one channel to the next and from one tap to the next, in columns of `w` and `a`.
    pub(crate) steps: [usize; 2],
}

impl Transposed {
    /// backward_input of `problem`, which is `of` images.
    pub(super) fn new(problem: &Problem, of: Convolution, specs: &Specs) -> Option<Transposed> {
        let spec = |operand: Operand| specs[operand as usize];
        // The sum runs over the rows of w and a.
        let factor = |operand: Operand| {
            let spec = spec(operand)?;
            Some(Load::stored(operand, spec, spec.major == Major::Col))
        };
        let (taps, depth, out) = (of.taps(), problem.out_features(), spec(Operand::Dx)?);
        let columns = problem.in_features() / taps;
        let planes = Planes { pixels: of.planes()[0], columns };
        let planes = (of.channels == Channels::First).then_some(planes);
        let out = Store { operand: Operand::Dx, spec: out, major: out.major, planes };
        let window = Window::of_output(&of, depth, of.channels);
        let summand = Summand::new(problem, specs, true);
        Some(Transposed {
            rows: of.pixels(),
            columns,
            depth,
            taps,
            shrink: if problem.rank() > 0 { Bordered::shrink(problem, specs) } else { None },
            dy: Load::gathered(Operand::Dy, spec(Operand::Dy)?, true, window),
            of_tokens: match of.channels {
                Channels::First => {
                    let planes = Window::planes(&of, depth);
                    Load::gathered(Operand::Dy, spec(Operand::Dy)?, true, planes)
                }
                Channels::Last => Load::stored(Operand::Dy, spec(Operand::Dy)?, true),
            },
            window: Window::of_input(&of, columns),
            w: factor(Operand::W)?.summed_with(summand.as_ref()),
            summand,
            a: factor(Operand::A),
            finish: Finish { old: Old::new(problem.beta()), ..Finish::of(out) },
            size: of.size,
            neighbours: Window::of_output(&of, problem.rank(), Channels::Last),
            steps: match of.channels {
                Channels::First => [taps, 1],
                Channels::Last => [1, columns],
            },
        })
    }

    /// Everything that is loaded.
    pub(super) fn loads(&self) -> impl Iterator<Item = &Load> {
        let shrink = self.shrink.iter().flat_map(Bordered::loads);
        let summand = self.summand.iter().flat_map(Summand::loads);
        [&self.dy, &self.w].into_iter().chain(&self.a).chain(summand).chain(shrink)
    }

    /// The rank; 0 without an adapter.
    pub(crate) fn rank(&self) -> usize {
        self.shrink.as_ref().map_or(0, Bordered::rank)
    }
}

//! What a gain comes of and what becomes of it backward: the norms of w's rows with their adapter, and the gradient of
//! the magnitude.

use super::kronecker::Summand;
use super::terms::{Load, Multiplier, Old, Planes, Store};
use super::window::Window;
use crate::problem::Specs;
use crate::{Channels, Major, Operand, Problem};

/// `gain = magnitude / ‖w + s·b·a‖`: a merge of which no element is kept but its square in a row's sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Norm {
    /// Norms.
    pub(crate) rows: usize,
    /// Elements of each row.
    pub(crate) columns: usize,
    pub(crate) rank: usize,
    /// `[rows, columns]`.
    pub(crate) w: Load,
    /// What it has beside what is stored.
    pub(crate) summand: Option<Summand>,
    /// b `[rows, rank]` and a as `[columns, rank]`; `None` where there is no rank.
    pub(crate) adapter: Option<[Load; 2]>,
    /// What the adapter's product is multiplied with.
    pub(crate) factor: Multiplier,
    pub(crate) magnitude: Load,
    pub(crate) out: Store,
}

impl Norm {
    pub(super) fn new(problem: &Problem, specs: &Specs) -> Option<Norm> {
        use Operand::{A, B, Gain, Magnitude, W};
        let spec = |operand: Operand| specs[operand as usize];
        let load = |operand: Operand, along_rows| {
            let spec = spec(operand)?;
            Some(Load::stored(operand, spec, spec.major == along_rows))
        };
        let out = spec(Gain)?;
        let summand = Summand::new(problem, specs, false);
        Some(Norm {
            rows: problem.out_features(),
            columns: problem.in_features(),
            rank: problem.rank(),
            w: load(W, Major::Row)?.summed_with(summand.as_ref()),
            summand,
            // The sum runs along the rows of b [N, r] and the columns of a [r, K].
            adapter: load(B, Major::Row).zip(load(A, Major::Col)).map(|(b, a)| [b, a]),
            factor: Multiplier::Scale,
            magnitude: load(Magnitude, Major::Row)?,
            out: Store { operand: Gain, spec: out, major: Major::Row, planes: None },
        })
    }
}

/// `scaled_dy = gain∘dy`, and `dmagnitude = β·old + Σ dy∘(y − bias) / magnitude` over the tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct GainGradient {
    pub(crate) tokens: usize,
    pub(crate) columns: usize,
    /// Both `[tokens, columns]`.
    pub(crate) dy: Load,
    pub(crate) y: Load,
    /// `[1, columns]`, all three.
    pub(crate) bias: Option<Load>,
    pub(crate) gain: Load,
    pub(crate) magnitude: Load,
    pub(crate) scaled: Store,
    pub(crate) gradient: Store,
    /// Of the magnitude's gradient.
    pub(crate) old: Old,
}

impl GainGradient {
    pub(super) fn new(problem: &Problem, specs: &Specs) -> Option<GainGradient> {
        use Operand::{Bias, Dmagnitude, Dy, Gain, Magnitude, ScaledDy, Y};
        let load = |operand: Operand| Some(Load::stored(operand, specs[operand as usize]?, true));
        let columns = problem.out_features();
        // Stored in planes they are read and written by tokens all the same.
        let images = problem.window().filter(|of| of.channels == Channels::First);
        let seen = |operand: Operand| match images {
            Some(of) => {
                let window = Window::planes(&of, columns);
                Some(Load::gathered(operand, specs[operand as usize]?, true, window))
            }
            None => load(operand),
        };
        let store = |operand: Operand| {
            let spec = specs[operand as usize]?;
            let planes = images.filter(|_| operand == ScaledDy);
            let planes = planes.map(|of| Planes { pixels: of.planes()[1], columns });
            Some(Store { operand, spec, major: Major::Row, planes })
        };
        Some(GainGradient {
            tokens: problem.tokens(),
            columns,
            dy: seen(Dy)?,
            y: seen(Y)?,
            bias: load(Bias),
            gain: load(Gain)?,
            magnitude: load(Magnitude)?,
            scaled: store(ScaledDy)?,
            gradient: store(Dmagnitude)?,
            old: Old::new(problem.beta()),
        })
    }
}

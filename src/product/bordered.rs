//! The bordered product: the layer with the adapter as its border, and with parts left out the
//! adapter's shrink alone, or its merge. The one place where roles are turned.

use super::kronecker::Summand;
use super::terms::{Finish, Load, Multiplier, Old, Planes, Store};
use super::window::Window;
use crate::problem::Specs;
use crate::{Channels, DType, Major, Operand, Operation, Problem, Spec};

/// `left` times the rows of `right` and of `down`; what comes of `down` is `shrunk`, and meets `up`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bordered {
    /// Rows of the result.
    pub(crate) rows: usize,
    /// Length of the sums.
    pub(crate) depth: usize,
    /// `[rows, depth]`.
    pub(crate) left: Load,
    /// `None` where only the border's rows are asked for.
    pub(crate) body: Option<Body>,
    /// `None` where there is no rank.
    pub(crate) border: Option<Border>,
}

/// What `left` is multiplied with beside the border, and what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Body {
    /// `[columns, depth]`.
    pub(crate) right: Load,
    /// What `right` has beside what is stored.
    pub(crate) summand: Option<Summand>,
    /// Columns of the result.
    pub(crate) columns: usize,
    /// Of `[rows, columns]`.
    pub(crate) finish: Finish,
}

/// The adapter: down to the rank, and up from it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Border {
    pub(crate) rank: usize,
    /// `[rank, depth]`.
    pub(crate) down: Load,
    /// `[columns, rank]`; `None` where there is no body.
    pub(crate) up: Option<Load>,
    /// What the two make, times the scale.
    pub(crate) shrunk: Shrunk,
}

/// How `scale · left·downᵀ` is stored, `[rows, padded_rank]`, and once more behind it if precise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Shrunk {
    /// The caller's, where it is kept.
    pub(crate) kept: Option<Store>,
    /// The type that it is rounded to, kept or not.
    pub(crate) dtype: DType,
    /// Elements of a row of one part: the pad is zero.
    pub(crate) padded_rank: usize,
    /// In two parts, high and low.
    pub(crate) precise: bool,
}

impl Shrunk {
    /// One part, or two.
    pub(crate) fn parts(&self) -> usize {
        if self.precise { 2 } else { 1 }
    }

    /// Elements of a row of all parts.
    pub(crate) fn row(&self) -> usize {
        self.padded_rank.saturating_mul(self.parts())
    }
}

/// The operands by their part, whichever direction it is.
struct Roles {
    left: Operand,
    out: Operand,
    down: Operand,
    up: Operand,
    kept: Operand,
    /// Whether the roles want the transpose of what w, a and b are.
    transposed: bool,
}

impl Roles {
    /// backward_input is forward with w, a and b transposed, and a and b exchanged.
    fn of(operation: Operation) -> Roles {
        use Operand::*;
        match operation == Operation::Forward {
            true => Roles { left: X, out: Y, down: A, up: B, kept: Shrunk, transposed: false },
            false => Roles { left: Dy, out: Dx, down: B, up: A, kept: Dshrunk, transposed: true },
        }
    }
}

impl Bordered {
    /// The border's rows of backward_input alone, whatever the operation is.
    pub(super) fn shrink(problem: &Problem, specs: &Specs) -> Option<Bordered> {
        let of = Bordered::layer(&problem.with_operation(Operation::BackwardShrink), specs)?;
        let border = of.border.map(|border| Border { up: None, ..border });
        Some(Bordered { body: None, border, ..of })
    }

    /// Forward, backward_input and backward_shrink. Of a convolution what is gathered is forward's `x`; of its backward_input
    /// the border's rows alone are a layer, and [`Transposed`](super::Transposed) has the rest.
    pub(super) fn layer(problem: &Problem, specs: &Specs) -> Option<Bordered> {
        let roles = Roles::of(problem.operation());
        let (depth, columns) = match roles.transposed {
            false => (problem.in_features(), problem.out_features()),
            true => (problem.out_features(), problem.in_features()),
        };
        let spec = |operand: Operand| specs[operand as usize];
        // Of w, a and b the sum runs along the rows of the shape; transposed, along its columns.
        let factor = |operand: Operand| {
            let spec = spec(operand)?;
            Some(Load::stored(operand, spec, (spec.major == Major::Row) != roles.transposed))
        };
        let rows_of = |operand: Operand| Some(Load::stored(operand, spec(operand)?, true));
        let planes = problem.window().filter(|of| of.channels == Channels::First);
        let window = match roles.transposed {
            false => problem.window().map(|of| Window::of_input(&of, depth / of.taps())),
            true if problem.shrinks_input() => {
                problem.window().map(|of| Window::of_input(&of, depth / of.taps()))
            }
            true => planes.map(|of| Window::planes(&of, depth)),
        };
        let left = match window {
            None => rows_of(roles.left)?,
            Some(window) => Load::gathered(roles.left, spec(roles.left)?, true, window),
        };
        let store = |operand: Operand| {
            let spec: Spec = spec(operand)?;
            let planes = planes.filter(|_| operand == roles.out);
            let planes = planes.map(|of| Planes { pixels: of.planes()[1], columns });
            Some(Store { operand, spec, major: spec.major, planes })
        };
        let body = factor(Operand::W).zip(store(roles.out)).map(|(right, out)| {
            let (gain, bias) = (rows_of(Operand::Gain), rows_of(Operand::Bias));
            let old = Old::new(problem.beta());
            let summand = Summand::new(problem, specs, roles.transposed);
            let right = right.summed_with(summand.as_ref());
            let finish = Finish { gain, old, bias, ..Finish::of(out) };
            Body { right, summand, columns, finish }
        });
        let shrunk = Shrunk {
            kept: store(roles.kept),
            dtype: problem.activation(),
            padded_rank: problem.padded_rank(),
            precise: problem.is_precise(),
        };
        let border = factor(roles.down).map(|down| Border {
            rank: problem.rank(),
            down,
            up: body.and_then(|_| factor(roles.up)),
            shrunk,
        });
        Some(Bordered { rows: problem.tokens(), depth, left, body, border })
    }

    /// `w ± s·b·a`.
    pub(super) fn merge(problem: &Problem, specs: &Specs) -> Option<Bordered> {
        let spec = |operand: Operand| specs[operand as usize];
        let (w, a, b) = (spec(Operand::W)?, spec(Operand::A)?, spec(Operand::B)?);
        // The sum runs along the rows of b [N, r] and the columns of a [r, K].
        let a = Load::stored(Operand::A, a, a.major == Major::Col);
        let b = Load::stored(Operand::B, b, b.major == Major::Row);
        let factor = match problem.operation() {
            Operation::Unmerge => Multiplier::MinusScale,
            _ => Multiplier::Scale,
        };
        let out = Store { operand: Operand::W, spec: w, major: w.major, planes: None };
        let finish = Finish { factor, old: Old::Added, ..Finish::of(out) };
        let body = Some(Body { right: a, summand: None, columns: problem.in_features(), finish });
        let (rows, depth) = (problem.out_features(), problem.rank());
        Some(Bordered { rows, depth, left: b, body, border: None })
    }

    /// The same elements with rows that are stored rows, for kernels that write those: where they
    /// are columns, left and right change places. Of a body without gain, bias or border.
    pub(crate) fn along_storage(&self) -> Bordered {
        let Some(Body { right, columns, finish, .. }) = self.body else { return self.clone() };
        if finish.out.major == Major::Row {
            return self.clone();
        }
        let out = Store { major: Major::Row, ..finish.out };
        let finish = Finish { out, ..finish };
        let body = Some(Body { right: self.left, summand: None, columns: self.rows, finish });
        Bordered { rows: columns, left: right, body, ..self.clone() }
    }

    /// Everything that is loaded.
    pub(super) fn loads(&self) -> impl Iterator<Item = &Load> {
        let body = self
            .body
            .iter()
            .flat_map(|of| [Some(&of.right), of.finish.gain.as_ref(), of.finish.bias.as_ref()]);
        let border = self.border.iter().flat_map(|of| [Some(&of.down), of.up.as_ref()]);
        let summand = self.body.iter().flat_map(|of| of.summand.iter().flat_map(Summand::loads));
        let all = [Some(&self.left)].into_iter().chain(body).chain(border).flatten();
        all.chain(summand)
    }

    /// What w has beside what is stored.
    pub(crate) fn summand(&self) -> Option<Summand> {
        self.body?.summand
    }

    /// The rank; 0 without a border.
    pub(crate) fn rank(&self) -> usize {
        self.border.map_or(0, |border| border.rank)
    }

    /// Columns of the result; 0 without a body.
    pub(crate) fn columns(&self) -> usize {
        self.body.map_or(0, |body| body.columns)
    }
}

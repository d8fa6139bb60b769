//! The gradients of a LoKr with a whole w2 as operations of a backward pass: one for w1 and one for w2, since old
//! values are not added to a dw1 that is taken on to two factors. Called by `steps`.

use super::options::Options;
use super::{Matrix, Operands};
use crate::{Operand, Operation};

/// dw1 or dw2.
#[derive(Debug)]
pub(crate) struct OfFactor<I, O> {
    x: Matrix<I>,
    dy: Matrix<I>,
    /// The factor that it needs; `None` for a w1 that is composed.
    other: Option<Matrix<I>>,
    /// Where it goes; `None` for a dw1 that is taken on.
    out: Option<Matrix<O>>,
    /// The names of both.
    names: [Operand; 2],
    options: Options,
}

impl<I, O> OfFactor<I, O> {
    /// With the w1 that was composed, and where the dw1 goes that is taken on.
    pub(crate) fn with(self, w1: Option<Matrix<I>>, dw1: Option<Matrix<O>>) -> Operands<I, O> {
        let OfFactor { x, dy, other, out, names, options } = self;
        let mut operands = Operands::with(Operation::BackwardAdapter, options);
        operands.set_read(Operand::X, Some(x));
        operands.set_read(Operand::Dy, Some(dy));
        operands.set_read(names[0], other.or(w1));
        operands.set_written(names[1], out.or(dw1));
        operands
    }
}

/// Those that are wanted, of all operands of a pass, whose w1 and w2 stay there. `chained`: dw1 is taken on to two factors.
pub(super) fn of_factors<I: Clone, O>(
    all: &mut Operands<I, O>,
    x: &Matrix<I>,
    dy: &Matrix<I>,
    chained: bool,
    options: Options,
) -> [Option<OfFactor<I, O>>; 2] {
    let Options { scale, beta, convolution, .. } = options;
    let options = Options { scale, beta, convolution, ..Options::default() };
    let mut of = |names: [Operand; 2], chained: bool| {
        let out = all.take_written(names[1]).ok();
        (out.is_some() || chained).then(|| OfFactor {
            x: x.clone(),
            dy: dy.clone(),
            other: all.get_read(names[0]).ok(),
            out,
            names,
            options: if chained { Options { beta: None, ..options } } else { options },
        })
    };
    [of([Operand::W2, Operand::Dw1], chained), of([Operand::W1, Operand::Dw2], false)]
}

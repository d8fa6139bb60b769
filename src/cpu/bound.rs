//! A bordered product with its operands: what `linear` and `decode` run on, whichever direction.

use core::ops::Range;

use super::source::Source;
use super::target::{Rounding, Target};
use super::workspace::Scratch;
use super::{Slice, SliceMut};
use crate::problem::Scalars;
use crate::product::{Bordered, Shrunk};
use crate::{Operands, Result};

/// The operands by their part in the product.
pub(super) struct Bound<'a> {
    /// `[rows, depth]`.
    pub(super) left: Source<'a>,
    /// `[columns, depth]` and `[rows, columns]`; neither where only shrunk is asked for.
    pub(super) body: Option<BoundBody<'a>>,
    pub(super) border: Option<BoundBorder<'a>>,
}

#[derive(Clone, Copy)]
pub(super) struct BoundBody<'a> {
    pub(super) right: Source<'a>,
    /// `[1, columns]`, both.
    pub(super) gain: Option<Source<'a>>,
    pub(super) bias: Option<Source<'a>>,
    pub(super) out: Target<'a>,
    pub(super) factor: f32,
    pub(super) beta: f32,
}

#[derive(Clone, Copy)]
pub(super) struct BoundBorder<'a> {
    pub(super) rank: usize,
    pub(super) scale: f32,
    /// `[rank, depth]`.
    pub(super) down: Source<'a>,
    /// `[columns, rank]`.
    pub(super) up: Option<Source<'a>>,
    pub(super) shrunk: Shrunk,
    /// `[rows, padded_rank]`, in one part or two.
    pub(super) kept: Option<Target<'a>>,
}

impl BoundBody<'_> {
    /// What becomes of the sums of `columns`; what has to be widened for it goes into `room`.
    pub(super) fn rounding<'s>(
        &'s self,
        columns: Range<usize>,
        room: &'s mut [f32],
    ) -> Rounding<'s> {
        // A gain is f32, and lies where it is.
        let gain = self.gain.as_ref().map(|gain| gain.panel(0..1, columns.clone(), &mut []).row(0));
        let bias = self.bias.as_ref().map(|bias| bias.panel(0..1, columns, room).row(0));
        Rounding { beta: self.beta, gain, bias }
    }
}

impl<'a> Bound<'a> {
    pub(super) fn take<'o: 'a>(
        product: &Bordered,
        scalars: Scalars,
        operands: &mut Operands<Slice<'o>, SliceMut<'o>>,
        scratch: Scratch<'a>,
    ) -> Result<Bound<'a>> {
        let left = Source::take(&product.left, operands)?;
        let body = product.body.as_ref().map(|of| {
            Ok(BoundBody {
                right: Source::take_summed(
                    &of.right,
                    of.summand.as_ref(),
                    scalars.scale,
                    operands,
                    scratch,
                )?,
                gain: of.finish.gain.map(|gain| Source::take(&gain, operands)).transpose()?,
                bias: of.finish.bias.map(|bias| Source::take(&bias, operands)).transpose()?,
                out: Target::take(&of.finish.out, operands)?,
                factor: of.finish.factor.value(scalars),
                beta: of.finish.old.value(scalars),
            })
        });
        let body = body.transpose()?;
        let border = product.border.as_ref().map(|of| {
            Ok(BoundBorder {
                rank: of.rank,
                scale: scalars.scale,
                down: Source::take(&of.down, operands)?,
                up: of.up.map(|up| Source::take(&up, operands)).transpose()?,
                shrunk: of.shrunk,
                kept: of.shrunk.kept.map(|kept| Target::take(&kept, operands)).transpose()?,
            })
        });
        Ok(Bound { left, body, border: border.transpose()? })
    }

    /// The rank; 0 without a border.
    pub(super) fn rank(&self) -> usize {
        self.border.map_or(0, |border| border.rank)
    }

    /// Elements of a row of shrunk's f32 copy; 0 without a border.
    pub(super) fn padded_rank(&self) -> usize {
        self.border.map_or(0, |border| border.shrunk.padded_rank)
    }

    /// Columns of the result; 0 without a body.
    pub(super) fn columns(&self) -> usize {
        self.body.map_or(0, |body| body.right.rows())
    }
}

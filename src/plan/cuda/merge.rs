//! The launch of `merge`: `w ± s·b·a` is one product of `linear` that ends on old values.

use super::address::Address;
use super::factor::Factor;
use super::linear::{LinearLaunch, variant};
use super::numbers::{Kind, Tile};
use super::scratch::ScratchLayout;
use super::{Building, Refusal};
use crate::product::{Bordered, Finish, Load};

impl Building<'_> {
    /// Onto w where it lies; bytes of workspace.
    pub(super) fn merge(&mut self, of: &Bordered) -> Result<usize, Refusal> {
        let Some(body) = &of.body else { return Ok(0) };
        let (y, sizes) = (Address::of_store(&body.finish.out)?, [of.rows, body.columns, of.depth]);
        let mut scratch = ScratchLayout::new(false);
        self.merge_onto(y, [&of.left, &body.right], sizes, &body.finish, &mut scratch)?;
        Ok(scratch.finish())
    }

    /// `left`, which the kernel wants along the sum, times `right` as it lies, onto `y`.
    pub(super) fn merge_onto(
        &mut self,
        y: Address,
        [left, right]: [&Load; 2],
        [rows, columns, rank]: [usize; 3],
        finish: &Finish,
        scratch: &mut ScratchLayout,
    ) -> Result<(), Refusal> {
        let left = Factor::new(left, [rows, rank], self.activation)?;
        let right = Factor::new(right, [columns, rank], self.activation)?;
        let k_major = right.load.k_major;
        let mut jobs = Vec::new();
        let x = left.place(true, true, None, scratch, &mut jobs);
        let w = right.place(k_major, true, None, scratch, &mut jobs);
        self.pack(&jobs)?;
        let variant =
            variant(Kind::Merge, Tile::Small, self.activation, None, k_major, true, false)?;
        let mut segments = vec![(x.high, w.high, rank)];
        segments.extend(x.low.map(|low| (low, w.high, rank)));
        segments.extend(w.low.map(|low| (x.high, low, rank)));
        self.flops += 2 * (rows * columns * rank * segments.len()) as u64;
        let elements = 2 * rows * columns + (rows + columns) * rank;
        self.linear(LinearLaunch {
            variant,
            params: self.params(),
            segments: &segments,
            window: None,
            rows,
            columns,
            stored_columns: columns,
            rank,
            shrunk: None,
            main_steps: segments.len() * rank.div_ceil(variant.depth),
            border_steps: 0,
            y,
            y_dtype: self.activation,
            finish: Some(finish),
            factor: finish.factor,
            carried: 0,
            bytes: (self.size() * elements) as u64,
        })
    }
}

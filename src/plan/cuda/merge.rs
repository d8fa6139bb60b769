//! The launch of `merge`: `w ± s·b·a` is one product of `linear` that ends on old values.

use super::address::Address;
use super::factor::Factor;
use super::linear::{LinearLaunch, variant};
use super::numbers::{Kind, Tile};
use super::scratch::ScratchLayout;
use super::{Building, Refusal};
use crate::product::Bordered;

impl Building<'_> {
    /// `left`, which the kernel wants along the sum, times `right` as it lies; bytes of workspace.
    pub(super) fn merge(&mut self, of: &Bordered) -> Result<usize, Refusal> {
        let Some(body) = &of.body else { return Ok(0) };
        let (rows, columns, rank) = (of.rows, body.columns, of.depth);
        let left = Factor::new(&of.left, [rows, rank], self.activation)?;
        let right = Factor::new(&body.right, [columns, rank], self.activation)?;
        let y = Address::of_store(&body.finish.out)?;
        let k_major = right.load.k_major;
        let (mut scratch, mut jobs) = (ScratchLayout::new(false), Vec::new());
        let x = left.place(true, true, None, &mut scratch, &mut jobs);
        let w = right.place(k_major, true, None, &mut scratch, &mut jobs);
        self.pack(&jobs)?;
        let variant = variant(Kind::Merge, Tile::Small, self.activation, None, k_major, true)?;
        let mut segments = vec![(x.high, w.high, rank)];
        segments.extend(x.low.map(|low| (low, w.high, rank)));
        segments.extend(w.low.map(|low| (x.high, low, rank)));
        self.flops += 2 * (rows * columns * rank * segments.len()) as u64;
        let elements = 2 * rows * columns + (rows + columns) * rank;
        self.linear(LinearLaunch {
            variant,
            params: self.params(),
            segments: &segments,
            rows,
            columns,
            stored_columns: columns,
            rank,
            shrunk: None,
            main_steps: segments.len() * rank.div_ceil(variant.depth),
            border_steps: 0,
            y,
            y_dtype: self.activation,
            finish: Some(&body.finish),
            factor: body.finish.factor,
            carried: 0,
            bytes: (self.size() * elements) as u64,
        })?;
        Ok(scratch.finish())
    }
}

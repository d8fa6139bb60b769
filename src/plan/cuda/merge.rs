//! The launch of merge: `w ± s·b·a` is one product of `linear` that ends on old values.

use super::linear::{LinearLaunch, variant};
use super::numbers::{Kind, Tile};
use super::pack::Packed;
use super::params::Params;
use super::roles::{self, Factor, Merge};
use super::scratch::ScratchLayout;
use super::{Building, Refusal};
use crate::Operation;

impl Building<'_> {
    /// `w ± s·b·a` as one product with β = 1 of whichever factor lies along w's rows and the
    /// other; bytes of workspace.
    pub(super) fn merge(&mut self) -> Result<usize, Refusal> {
        let problem = self.problem;
        let rank = problem.rank();
        let Merge { y, y_aligned, left, right } = roles::merge(problem)?;
        let mut scratch = ScratchLayout::new(false);
        let mut jobs = Vec::new();
        let mut load = |factor: &Factor, k_major: bool| {
            if !factor.converts && factor.k_major == k_major && factor.aligned {
                return Packed { high: factor.place, low: None };
            }
            let (job, packed) = scratch.pack(factor, k_major);
            jobs.push((job, packed));
            packed
        };
        let (x, w) = (load(&left, true), load(&right, right.k_major));
        self.pack(&jobs)?;
        let variant = variant(Kind::Merge, Tile::Small, problem, right.k_major, true)?;
        let mut segments = vec![(x.high, w.high, rank)];
        segments.extend(x.low.map(|low| (low, w.high, rank)));
        segments.extend(w.low.map(|low| (x.high, low, rank)));
        let [rows, columns] = [left.rows, right.rows];
        let sizes = rows * columns + (rows + columns) * rank;
        self.flops += 2 * (rows * columns * rank * segments.len()) as u64;
        let scale = match problem.operation() {
            Operation::Unmerge => -problem.scale(),
            _ => problem.scale(),
        };
        self.linear(LinearLaunch {
            variant,
            params: Params::default(),
            segments: &segments,
            rows,
            columns,
            stored_columns: columns,
            main_steps: segments.len() * rank.div_ceil(variant.depth),
            border_steps: 0,
            y,
            y_bytes: self.size(),
            vectors: y_aligned,
            bias: None,
            scale,
            beta: 1.0,
            carried: 0,
            bytes: (self.size() * (sizes + rows * columns)) as u64,
        })?;
        Ok(scratch.finish())
    }
}

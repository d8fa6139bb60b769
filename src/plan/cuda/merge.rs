//! The launch of merge: `w ± s·b·a` is one product of `linear` that ends on old values.

use super::linear::{LinearLaunch, text};
use super::params::Params;
use super::roles::{self, Merge, Side};
use super::texts::linear_at;
use super::{Building, HEADER, Packed, Refusal, Workspace};
use crate::Operation;

impl Building<'_> {
    /// `w ± s·b·a` as one product with β = 1 of whichever factor lies along w's rows and the
    /// other; bytes of workspace.
    pub(super) fn merge(&mut self) -> Result<usize, Refusal> {
        let problem = self.problem;
        let rank = problem.rank();
        let Merge { y, y_aligned, left, right } = roles::merge(problem)?;
        let mut workspace = Workspace { len: HEADER, used: false };
        let mut jobs = Vec::new();
        let mut load = |side: &Side, turned: bool| {
            if !side.converts && side.turned == turned && side.aligned {
                return Packed { high: side.place, low: None };
            }
            let (job, packed) = workspace.pack(side, turned);
            jobs.push((job, packed));
            packed
        };
        let (x, w) = (load(&left, false), load(&right, right.turned));
        if !jobs.is_empty() {
            self.pack(&jobs)?;
        }
        let text = text("merge", "small", problem, right.turned, true)?;
        let mut segments = vec![(x.high, w.high, rank)];
        segments.extend(x.low.map(|low| (low, w.high, rank)));
        segments.extend(w.low.map(|low| (x.high, low, rank)));
        let [tokens, wide] = [left.rows, right.rows];
        let sizes = tokens * wide + (tokens + wide) * rank;
        self.flops += 2 * (tokens * wide * rank * segments.len()) as u64;
        let scale = match problem.operation() {
            Operation::Unmerge => -problem.scale(),
            _ => problem.scale(),
        };
        self.linear(LinearLaunch {
            text,
            params: Params::new(linear_at::LEN),
            segments: &segments,
            tokens,
            wide,
            columns: wide,
            main_steps: segments.len() * rank.div_ceil(text.tile[2]),
            border_steps: 0,
            y,
            y_bytes: self.size(),
            vectors: y_aligned,
            bias: None,
            scale,
            beta: 1.0,
            carried: 0,
            bytes: (self.size() * (sizes + tokens * wide)) as u64,
        })?;
        Ok(workspace.finish())
    }
}

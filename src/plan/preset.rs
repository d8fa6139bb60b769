//! One way to run a kernel: the rows that a plan picks from, and what each of them serves. Each
//! backend lists its own, with a kernel type of its own.

use core::ops::RangeInclusive;

use super::Strategy;
use crate::Problem;
use crate::product::{FinishStep, Kind, LoadKind, Product};

/// A range without an end, for [`Preset::tokens`] and [`Preset::ranks`].
pub(crate) const ANY: usize = usize::MAX;

/// What a kernel can do: a plan refuses it all else, by name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Serves {
    pub(crate) product: Kind,
    pub(crate) loads: &'static [LoadKind],
    pub(crate) finish: &'static [FinishStep],
}

/// A backend's kernels: which one, and its tile.
pub(crate) trait Kernel: 'static {
    fn serves(&self) -> Serves;

    /// Whether plans for `product`, of the kind that it serves, name it at all.
    fn concerns(&self, _product: &Product) -> bool {
        true
    }
}

/// A kernel with its tile, under the name that choices know it by.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Preset<K> {
    pub(crate) strategy: Strategy,
    pub(crate) name: &'static str,
    pub(crate) kernel: K,
    pub(crate) tokens: RangeInclusive<usize>,
    pub(crate) ranks: RangeInclusive<usize>,
    /// Rounds factors to tf32: a candidate only where the problem allows it.
    pub(crate) rounds_to_tf32: bool,
}

impl<K: Kernel> Preset<K> {
    pub(super) const fn new(
        strategy: Strategy,
        name: &'static str,
        kernel: K,
        tokens: RangeInclusive<usize>,
        ranks: RangeInclusive<usize>,
    ) -> Preset<K> {
        Preset { strategy, name, kernel, tokens, ranks, rounds_to_tf32: false }
    }

    /// Why the preset does not serve `problem`, which is `product`, of its own kind, if it does not.
    pub(super) fn refuses(&self, problem: &Problem, product: &Product) -> Option<String> {
        let Serves { loads, finish, .. } = self.kernel.serves();
        if let Some(load) = product.loads().find(|of| !loads.contains(&of.kind)) {
            return Some(format!("does not load {} {}", load.kind, load.operand));
        }
        if let Some(step) = product.finish_steps().find(|of| !finish.contains(of)) {
            return Some(format!("does not finish with {step}"));
        }
        let outside = |what, range: &RangeInclusive<usize>, got| {
            (!range.contains(&got)).then(|| match *range.end() {
                ANY => format!("{what} {got} is below {}", range.start()),
                end => format!("{what} {got} is outside {}..={end}", range.start()),
            })
        };
        let tokens = match (problem.is_batch_invariant(), *self.tokens.end()) {
            (true, ANY) => None,
            (true, end) => {
                Some(format!("tokens up to {end}: a row's bits must not depend on their number"))
            }
            (false, _) => outside("tokens", &self.tokens, problem.tokens()),
        };
        tokens.or_else(|| outside("rank", &self.ranks, problem.rank()))
    }
}

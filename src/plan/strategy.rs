//! Strategies, presets and the caller's choice among them: the rows that a plan picks
//! from. Data only; each backend lists its own presets.

use core::fmt;
use core::ops::RangeInclusive;
use core::str::FromStr;

use crate::{DType, Error, Operation, Problem};

/// Who computes `shrunk`, and when the others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// The first tiles of a row of tiles compute `shrunk` and publish it; the others meet it
    /// at their end.
    Leader,
    /// Every tile computes the part of `shrunk` that it needs.
    Recompute,
    /// One launch computes `shrunk`, a second one the layer.
    TwoPass,
    /// The operation has no `shrunk` to share: gradients of the adapter, merge, rank 0.
    Direct,
}

impl Strategy {
    /// Every strategy.
    pub const ALL: [Strategy; 4] =
        [Strategy::Leader, Strategy::Recompute, Strategy::TwoPass, Strategy::Direct];
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Strategy::Leader => "leader",
            Strategy::Recompute => "recompute",
            Strategy::TwoPass => "two_pass",
            Strategy::Direct => "direct",
        })
    }
}

/// What the caller insists on; the rest is the plan's to choose. Its text form
/// (`leader/panel`, `leader`, `auto`) can be saved and read back.
///
/// ```
/// use fused_lora::{Choice, Strategy};
///
/// let choice: Choice = "leader/panel".parse()?;
/// assert_eq!(choice.strategy, Some(Strategy::Leader));
/// assert_eq!(choice.to_string(), "leader/panel");
/// # Ok::<(), fused_lora::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Choice {
    /// This strategy and no other.
    pub strategy: Option<Strategy>,
    /// The preset of this name and no other.
    pub preset: Option<String>,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.strategy, &self.preset) {
            (None, None) => f.write_str("auto"),
            (Some(strategy), None) => write!(f, "{strategy}"),
            (Some(strategy), Some(preset)) => write!(f, "{strategy}/{preset}"),
            (None, Some(preset)) => write!(f, "auto/{preset}"),
        }
    }
}

impl FromStr for Choice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Choice, Error> {
        let (first, preset) = match text.split_once('/') {
            Some((first, preset)) => (first, Some(preset.to_owned())),
            None => (text, None),
        };
        let strategy = Strategy::ALL.into_iter().find(|of| of.to_string() == first);
        if (strategy.is_none() && first != "auto") || preset.as_deref() == Some("") {
            return Err(Error::Choice { got: text.to_owned() });
        }
        Ok(Choice { strategy, preset })
    }
}

/// One way to run a kernel, and what it serves. The plan discards it outside of that.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Preset {
    pub(crate) strategy: Strategy,
    pub(crate) name: &'static str,
    pub(crate) kernel: &'static str,
    pub(crate) operations: &'static [Operation],
    pub(crate) activations: &'static [DType],
    pub(crate) tokens: RangeInclusive<usize>,
    pub(crate) ranks: RangeInclusive<usize>,
    /// Largest tile: tokens, columns of the output, depth of one step.
    pub(crate) tile: [usize; 3],
}

/// A row of a backend's presets, for every storage type.
pub(super) const fn preset(
    strategy: Strategy,
    name: &'static str,
    kernel: &'static str,
    operations: &'static [Operation],
    tokens: RangeInclusive<usize>,
    ranks: RangeInclusive<usize>,
    tile: [usize; 3],
) -> Preset {
    Preset { strategy, name, kernel, operations, activations: &DType::ALL, tokens, ranks, tile }
}

impl Preset {
    /// Why the preset does not serve `problem`, if it does not.
    pub(crate) fn refuses(&self, problem: &Problem) -> Option<String> {
        let outside = |what, range: &RangeInclusive<usize>, got| {
            (!range.contains(&got)).then(|| match *range.end() {
                usize::MAX => format!("{what} {got} is below {}", range.start()),
                end => format!("{what} {got} is outside {}..={end}", range.start()),
            })
        };
        if !self.operations.contains(&problem.operation()) {
            return Some(format!("does not do {}", problem.operation()));
        }
        if !self.activations.contains(&problem.activation()) {
            return Some(format!("does not store {}", problem.activation()));
        }
        outside("tokens", &self.tokens, problem.tokens())
            .or_else(|| outside("rank", &self.ranks, problem.rank()))
    }
}

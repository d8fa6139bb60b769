//! What the caller insists on among strategies and presets, and its text form.

use core::fmt;
use core::str::FromStr;

use super::Strategy;
use crate::Error;

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

impl Choice {
    /// Whether it leaves this one among the candidates.
    pub(super) fn leaves(&self, strategy: Strategy, preset: &str) -> bool {
        self.strategy.is_none_or(|wanted| wanted == strategy)
            && self.preset.as_deref().is_none_or(|wanted| wanted == preset)
    }
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
        let strategy = Strategy::ALL.iter().copied().find(|of| of.to_string() == first);
        if (strategy.is_none() && first != "auto") || preset.as_deref() == Some("") {
            return Err(Error::Choice { got: text.to_owned() });
        }
        Ok(Choice { strategy, preset })
    }
}

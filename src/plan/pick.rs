//! Goes through a backend's presets, prices those that serve, and picks the cheapest. Called by
//! `Plan::choose`.

use super::preset::{Kernel, Preset};
use super::{Capabilities, Choice, Launch, Strategy, cpu};
use crate::product::Product;
use crate::{DType, Error, Problem, Result};

/// One way in which the problem could be run, and what became of it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Candidate {
    /// Its strategy.
    pub strategy: Strategy,
    /// Its preset.
    pub preset: &'static str,
    /// Chosen, possible, or why not.
    pub outcome: Outcome,
}

/// What became of a candidate.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// This one runs; microseconds by the model.
    Chosen(f64),
    /// It could run, but another is faster; microseconds by the model.
    Slower(f64),
    /// It serves the problem, but the caller forced another.
    NotForced,
    /// It does not serve the problem.
    Refused(String),
}

/// A candidate that could run, priced; what it launches is worked out for the chosen one.
pub(crate) trait Draft {
    /// Microseconds by the backend's model: only their order matters.
    fn micros(&self) -> f64;
    /// Its launches, with their texts.
    ///
    /// # Errors
    /// What a text lacks.
    fn build(self) -> Result<Build, Refusal>;
}

/// All that is left of a candidate in a plan.
#[derive(Debug, Default)]
pub(crate) struct Build {
    pub(crate) launches: Vec<Launch>,
    pub(crate) workspace_len: usize,
    pub(crate) flops: u64,
    pub(crate) bytes: u64,
    /// What the CPU's executor goes by; elsewhere the launches say it all.
    pub(crate) schedule: Option<cpu::Schedule>,
}

/// Why a backend cannot work a candidate out.
pub(crate) enum Refusal {
    /// The preset does not serve the problem on this device.
    Reason(String),
    /// The device's limits forbid it, whatever the preset.
    Limit(Error),
}

/// What is asked of a backend's presets.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) problem: &'a Problem,
    pub(super) product: &'a Product,
    pub(super) choice: &'a Choice,
    pub(super) capabilities: &'a Capabilities,
    /// No preset but this one, which was picked before.
    pub(super) only: Option<(Strategy, &'static str)>,
}

/// Every candidate, and the chosen one by its place among them.
pub(super) struct Picked {
    pub(super) candidates: Vec<Candidate>,
    pub(super) chosen: usize,
    pub(super) build: Build,
}

/// When a plan may take [`Strategy::Merged`].
struct Merged {
    /// The caller has named it.
    is_named: bool,
    /// An adapter of low rank, which other strategies serve.
    has_border: bool,
    has_summand: bool,
}

impl Merged {
    fn of(product: &Product, choice: &Choice) -> Merged {
        let is_named = choice.strategy == Some(Strategy::Merged);
        let (has_border, has_summand) = match product {
            Product::Layer(of) => (of.border.is_some(), of.summand().is_some()),
            _ => (false, false),
        };
        Merged { is_named, has_border, has_summand }
    }

    /// Whether it is a candidate at all.
    fn is_listed(&self) -> bool {
        self.has_summand || self.has_border && self.is_named
    }

    /// Why not, where it is not named.
    fn refuses(&self, problem: &Problem) -> Option<String> {
        let rounds = !self.is_named && problem.activation() != DType::F32;
        let dtype = problem.activation();
        rounds.then(|| format!("rounds w + ΔW to {dtype}: only where it is asked for by name"))
    }
}

/// Why a LoKr whose w2 is whole finds nothing.
const NO_KRONECKER: &str = "nothing here forms w1 ⊗ w2 of a whole w2";

impl Wanted<'_> {
    /// The cheapest of `presets` by what `draft` says of each.
    pub(super) fn pick<K: Kernel, D: Draft>(
        &self,
        presets: &[Preset<K>],
        mut draft: impl FnMut(&Preset<K>) -> Result<D, Refusal>,
    ) -> Result<Picked> {
        let Wanted { problem, product, choice, .. } = *self;
        let mut candidates = Vec::with_capacity(presets.len().min(12));
        let mut best: Option<(usize, D)> = None;
        // What a device's limits forbid has an error of its own.
        let mut limit = None;
        let merged = Merged::of(product, choice);
        let serves = |of: &&Preset<K>| {
            let is_of_product = Some(of.kernel.serves().product) == product.kind();
            let only = self.only.is_none_or(|only| only == (of.strategy, of.name));
            let is_listed = of.strategy != Strategy::Merged || merged.is_listed();
            let concerns = || of.kernel.concerns(product) && is_listed;
            is_of_product && only && (!of.rounds_to_tf32 || problem.is_tf32()) && concerns()
        };
        let refuses = |of: &Preset<K>| match of.strategy {
            Strategy::Merged => merged.refuses(problem).or_else(|| of.refuses(problem, product)),
            _ => of.refuses(problem, product),
        };
        for preset in presets.iter().filter(serves) {
            let outcome = if let Some(reason) = refuses(preset) {
                Outcome::Refused(reason)
            } else if !choice.leaves(preset.strategy, preset.name) {
                Outcome::NotForced
            } else {
                match draft(preset) {
                    Ok(draft) => {
                        let micros = draft.micros();
                        if best.as_ref().is_none_or(|(_, best)| micros < best.micros()) {
                            best = Some((candidates.len(), draft));
                        }
                        Outcome::Slower(micros)
                    }
                    Err(Refusal::Reason(reason)) => Outcome::Refused(reason),
                    Err(Refusal::Limit(error)) => {
                        let reason = error.to_string();
                        limit.get_or_insert(error);
                        Outcome::Refused(reason)
                    }
                }
            };
            candidates.push(Candidate { strategy: preset.strategy, preset: preset.name, outcome });
        }
        let Some((chosen, best)) = best else {
            return Err(match limit {
                Some(limit) if *choice == Choice::default() => limit,
                _ => {
                    let all = presets.iter().filter(serves);
                    let could = |of: &&Preset<K>| refuses(of).is_none() && draft(of).is_ok();
                    let name = |of: &Preset<K>| format!("{}/{}", of.strategy, of.name);
                    self.refusal(&candidates, all.filter(could).map(name).collect())
                }
            });
        };
        candidates[chosen].outcome = Outcome::Chosen(best.micros());
        let build = best.build().map_err(|refusal| match refusal {
            Refusal::Limit(error) => error,
            Refusal::Reason(reasons) => self.no_strategy(reasons),
        })?;
        Ok(Picked { candidates, chosen, build })
    }

    fn no_strategy(&self, reasons: String) -> Error {
        let device = self.capabilities.to_string();
        let reasons = match self.problem.method().kronecker() {
            None => reasons,
            Some(_) if reasons.is_empty() => NO_KRONECKER.to_owned(),
            Some(_) => format!("{reasons}; {NO_KRONECKER}"),
        };
        Error::NoStrategy { operation: self.problem.operation(), device, reasons }
    }

    /// Why nothing is left: the reasons of those that the choice names, each reason once.
    fn refusal(&self, candidates: &[Candidate], available: Vec<String>) -> Error {
        let Wanted { problem, choice, capabilities, .. } = *self;
        let mut reasons: Vec<(String, &str)> = Vec::new();
        let named = candidates.iter().filter(|of| choice.leaves(of.strategy, of.preset));
        for Candidate { strategy, preset, outcome } in named {
            if let Outcome::Refused(reason) = outcome {
                let name = format!("{strategy}/{preset}");
                match reasons.iter_mut().find(|of| of.1 == reason) {
                    Some((names, _)) => names.extend([", ", &name]),
                    None => reasons.push((name, reason)),
                }
            }
        }
        let said = |(names, reason): &(String, &str)| format!("{names}: {reason}");
        let reasons = reasons.iter().map(said).collect::<Vec<_>>().join("; ");
        if *choice == Choice::default() {
            let reasons = match (candidates, self.product.kind()) {
                ([], Some(kind)) => format!("there is no kernel of a {}", kind.name()),
                _ => reasons,
            };
            return self.no_strategy(reasons);
        }
        let reason = match reasons.is_empty() {
            true => format!("no candidate of it on {capabilities}"),
            false => reasons,
        };
        let (operation, choice) = (problem.operation(), choice.to_string());
        Error::Forced { operation, choice, reason, available }
    }
}

/// The plan of a problem with nothing to do, whatever was forced: nothing is launched.
pub(super) fn nothing() -> Picked {
    let (strategy, outcome) = (Strategy::Direct, Outcome::Chosen(0.0));
    let candidates = vec![Candidate { strategy, preset: "nothing", outcome }];
    Picked { candidates, chosen: 0, build: Build::default() }
}

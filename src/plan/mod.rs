//! How a problem is run: a pure function of the problem and the device's capabilities.
//! Lists the candidates, discards each with a reason, picks the cheapest of the rest by a
//! model, and says what it costs. Knows no device type; the executors carry it out.

mod capabilities;
pub(crate) mod cpu;
pub(crate) mod cuda;
mod launch;
mod strategy;
pub(crate) mod wgpu;

use core::fmt;
use std::fmt::Write as _;

pub use capabilities::{
    AdapterKind, Capabilities, CpuCapabilities, CudaCapabilities, WgpuCapabilities,
};
pub use launch::{Binding, Language, Launch, Source};
pub(crate) use strategy::Preset;
pub use strategy::{Choice, Strategy};

use crate::problem::Specs;
use crate::{Error, Problem, Result};

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
    /// It could run, but another is cheaper; microseconds by the model.
    Dearer(f64),
    /// It serves the problem, but the caller forced another.
    NotForced,
    /// It does not serve the problem.
    Refused(String),
}

/// What an executor needs beyond the launches; one variant a backend.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Schedule {
    Cpu(cpu::Schedule),
    /// The launches say it all.
    Launches,
}

/// A candidate worked out: what a backend returns for one preset.
pub(crate) struct Draft {
    pub(crate) launches: Vec<Launch>,
    pub(crate) workspace_len: usize,
    pub(crate) flops: u64,
    pub(crate) bytes: u64,
    /// Microseconds by the backend's model: only their order matters.
    pub(crate) micros: f64,
    pub(crate) schedule: Schedule,
}

/// Why a backend cannot work a candidate out.
pub(crate) enum Refusal {
    /// The preset does not serve the problem on this device.
    Reason(String),
    /// The device's limits forbid it, whatever the preset.
    Limit(Error),
}

/// How one problem runs on one kind of device. Made once, run often: everything that
/// decides or computes sizes happens here. Hosts keep plans by what they were made from: a
/// [`Problem`], [`Capabilities`] and a [`Choice`] can be keys of a map.
///
/// ```
/// use fused_lora::{Capabilities, Plan, Problem, Strategy};
///
/// let problem = Problem::forward(512, 4096, 4096, 16).with_scale(2.0);
/// let plan = Plan::new(&problem, &Capabilities::cpu())?;
/// assert_eq!(plan.launches().len(), 1);
/// println!("{}", plan.explain());
///
/// // For benchmarks: insist on one strategy and preset, by name.
/// let forced = Plan::choose(&problem, &Capabilities::cpu(), &"leader/panel".parse()?)?;
/// assert_eq!(forced.strategy(), Strategy::Leader);
/// # Ok::<(), fused_lora::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    problem: Problem,
    specs: Specs,
    capabilities: Capabilities,
    candidates: Vec<Candidate>,
    strategy: Strategy,
    preset: &'static str,
    launches: Vec<Launch>,
    workspace_len: usize,
    flops: u64,
    bytes: u64,
    schedule: Schedule,
}

impl Plan {
    /// The cheapest way, by the model, to run `problem` on a device with `capabilities`.
    ///
    /// # Errors
    /// What [`Problem::validate`] finds; [`Error::NoStrategy`] where nothing serves.
    pub fn new(problem: &Problem, capabilities: &Capabilities) -> Result<Plan> {
        Plan::choose(problem, capabilities, &Choice::default())
    }

    /// [`Plan::new`] among the candidates that `choice` leaves.
    ///
    /// # Errors
    /// As [`Plan::new`]; [`Error::Forced`] where the choice does not serve the problem.
    pub fn choose(problem: &Problem, capabilities: &Capabilities, choice: &Choice) -> Result<Plan> {
        problem.validate()?;
        let presets = match capabilities {
            Capabilities::Cpu(_) => cpu::PRESETS,
            Capabilities::Cuda(_) => cuda::presets(problem),
            Capabilities::Wgpu(_) => wgpu::PRESETS,
        };
        let mut candidates = Vec::with_capacity(presets.len());
        let mut best: Option<(usize, Draft)> = None;
        // What a device's limits forbid has an error of its own.
        let mut limit = None;
        for preset in presets {
            let forced_out = choice.strategy.is_some_and(|strategy| strategy != preset.strategy)
                || choice.preset.as_deref().is_some_and(|name| name != preset.name);
            let outcome = if let Some(reason) = preset.refuses(problem) {
                Outcome::Refused(reason)
            } else if forced_out {
                Outcome::NotForced
            } else {
                let draft = match capabilities {
                    Capabilities::Cpu(cpu) => Ok(cpu::draft(preset, problem, cpu)),
                    Capabilities::Cuda(cuda) => cuda::draft(preset, problem, cuda),
                    Capabilities::Wgpu(wgpu) => wgpu::draft(preset, problem, wgpu),
                };
                match draft {
                    Ok(draft) => {
                        let micros = draft.micros;
                        if best.as_ref().is_none_or(|(_, best)| micros < best.micros) {
                            best = Some((candidates.len(), draft));
                        }
                        Outcome::Dearer(micros)
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
        let Some((chosen, draft)) = best else {
            return Err(match limit {
                Some(limit) if *choice == Choice::default() => limit,
                _ => refusal(choice, &candidates),
            });
        };
        candidates[chosen].outcome = Outcome::Chosen(draft.micros);
        Ok(Plan {
            problem: *problem,
            specs: problem.all_specs(),
            capabilities: *capabilities,
            strategy: candidates[chosen].strategy,
            preset: candidates[chosen].preset,
            candidates,
            launches: draft.launches,
            workspace_len: draft.workspace_len,
            flops: draft.flops,
            bytes: draft.bytes,
            schedule: draft.schedule,
        })
    }

    /// What is run.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }
    /// What it was planned for.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }
    /// The strategy that was picked.
    pub fn strategy(&self) -> Strategy {
        self.strategy
    }
    /// The preset that was picked.
    pub fn preset(&self) -> &'static str {
        self.preset
    }
    /// Strategy and preset as a choice: save its text, and force it later.
    pub fn choice(&self) -> Choice {
        Choice { strategy: Some(self.strategy), preset: Some(self.preset.to_owned()) }
    }
    /// Every candidate with what became of it.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }
    /// The launches, in order. Empty where there is nothing to do.
    pub fn launches(&self) -> &[Launch] {
        &self.launches
    }
    /// Bytes of workspace that a run needs.
    pub fn workspace_len(&self) -> usize {
        self.workspace_len
    }
    /// Bytes at the head of the workspace that are zeroed once, before its first use, and that
    /// nobody but the launches of plans touches from then on: they leave it ready for the next
    /// launch, of any plan. The rest may hold anything. 0 on the CPU and on wgpu.
    pub fn workspace_zeroed(&self) -> usize {
        match self.capabilities {
            Capabilities::Cuda(_) => self.workspace_len.min(cuda::HEADER),
            Capabilities::Cpu(_) | Capabilities::Wgpu(_) => 0,
        }
    }
    /// Operations of this plan: at least [`Problem::flops`], more where parts are recomputed.
    pub fn flops(&self) -> u64 {
        self.flops
    }
    /// Bytes that this plan moves to and from memory: at least [`Problem::bytes`], more
    /// where an operand is read several times.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
    /// The floor: operations of the fused layer over those of the plain one. Forward and
    /// backward_input only; 1 elsewhere, where there is no plain operation.
    pub fn floor(&self) -> f64 {
        let plain = self.problem.plain().flops();
        if plain == 0 { 1.0 } else { self.problem.flops() as f64 / plain as f64 }
    }

    /// What is known of each of the problem's operands.
    pub(crate) fn specs(&self) -> &Specs {
        &self.specs
    }

    /// A plan of hand-made launches, for tests of executors.
    #[cfg(test)]
    pub(crate) fn of_launches(
        problem: Problem,
        capabilities: Capabilities,
        launches: Vec<Launch>,
        workspace_len: usize,
    ) -> Plan {
        Plan {
            problem,
            specs: problem.all_specs(),
            capabilities,
            candidates: Vec::new(),
            strategy: Strategy::Direct,
            preset: "by hand",
            launches,
            workspace_len,
            flops: 0,
            bytes: 0,
            schedule: Schedule::Launches,
        }
    }

    pub(crate) fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// The plan in words: problem, candidates with reasons, launches and cost.
    pub fn explain(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problem = &self.problem;
        writeln!(
            f,
            "{}: tokens {}, in_features {}, out_features {}, rank {}, {}{}{} (adapter {}, gradient {})",
            problem.operation(),
            problem.tokens(),
            problem.in_features(),
            problem.out_features(),
            problem.rank(),
            problem.activation(),
            if problem.output() != problem.activation() { ", output f32" } else { "" },
            if problem.is_tf32() { ", may round to tf32" } else { "" },
            problem.adapter(),
            problem.gradient(),
        )?;
        writeln!(f, "device: {:?}", self.capabilities)?;
        for candidate in &self.candidates {
            let name = format!("{}/{}", candidate.strategy, candidate.preset);
            match &candidate.outcome {
                Outcome::Chosen(micros) => {
                    writeln!(f, "  {name:<18} chosen   {micros:.0} µs (model)")?
                }
                Outcome::Dearer(micros) => {
                    writeln!(f, "  {name:<18} possible {micros:.0} µs (model)")?
                }
                Outcome::NotForced => writeln!(f, "  {name:<18} not the forced choice")?,
                Outcome::Refused(reason) => writeln!(f, "  {name:<18} refused: {reason}")?,
            }
        }
        for launch in &self.launches {
            writeln!(
                f,
                "launch {}: grid {:?}, block {:?}",
                launch.kernel, launch.grid, launch.block
            )?;
        }
        let giga = |of: u64| of as f64 / 1e9;
        write!(
            f,
            "cost: {:.3} GFLOP (floor {:.3} of the plain layer), {:.4} GB, workspace {} bytes",
            giga(self.flops),
            self.floor(),
            giga(self.bytes),
            self.workspace_len,
        )
    }
}

fn refusal(choice: &Choice, candidates: &[Candidate]) -> Error {
    let named = |of: &&Candidate| {
        choice.strategy.is_none_or(|strategy| strategy == of.strategy)
            && choice.preset.as_deref().is_none_or(|preset| preset == of.preset)
    };
    let mut reasons = String::new();
    for Candidate { strategy, preset, outcome } in candidates.iter().filter(named) {
        if let Outcome::Refused(reason) = outcome {
            let separator = if reasons.is_empty() { "" } else { "; " };
            // Writing to a String cannot fail.
            let _ = write!(reasons, "{separator}{strategy}/{preset}: {reason}");
        }
    }
    if *choice == Choice::default() {
        Error::NoStrategy { reasons }
    } else if reasons.is_empty() {
        Error::Forced {
            choice: choice.to_string(),
            reason: "this device has no such preset".into(),
        }
    } else {
        Error::Forced { choice: choice.to_string(), reason: reasons }
    }
}

//! The way in for one launch at a time. Called by tests and by whoever needs no machine.

use thiserror::Error;

use crate::check::past::Past;
use crate::counters::Counters;
use crate::error::LaunchError;
use crate::exec::several::Several;
use crate::isa::Module;
use crate::mem::Memory;
use crate::options::Options;
use crate::plan::{Launch, prepare};
use crate::report::Fault;

/// Why a launch failed.
#[derive(Debug, Error)]
pub enum RunError {
    /// Refused before it started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// A check failed while it ran.
    #[error(transparent)]
    Fault(Box<Fault>),
}

impl RunError {
    /// The fault, when it was one.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            RunError::Fault(fault) => Some(fault),
            RunError::Launch(_) => None,
        }
    }
}

/// Runs a launch to its end on `memory`.
///
/// # Errors
/// What the chip refuses ([`LaunchError`]) before anything ran, or the first check that failed
/// ([`Fault`]); memory then holds what was written up to there.
pub fn run_launch(
    module: &Module,
    memory: &mut Memory,
    launch: &Launch,
    options: &Options,
) -> Result<Counters, RunError> {
    let (kernel, mut plan) = prepare(module, launch, options)?;
    plan.globals = memory.globals(module.id, &module.globals).map_err(LaunchError::Globals)?;
    let mut several = Several::new(options.sms, options.schedule, options.seed);
    several.start(launch.entry.clone(), (kernel, plan), *options, Past::new(), None)?;
    let result = several.run(memory);
    memory.forget();
    result.map(|job| job.into_counters()).map_err(RunError::Fault)
}

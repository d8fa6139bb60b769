//! How a problem is run: a pure function of the problem and the device's capabilities.
//! Lists the candidates, discards each with a reason, picks the cheapest of the rest by a
//! model, and says what it costs. Knows no device type; the executors carry it out.
//!
//! `cpu`, `cuda` and `wgpu` list their presets and draft candidates; `pick` goes through them.

mod bind;
mod capabilities;
mod choice;
pub(crate) mod cpu;
pub(crate) mod cuda;
mod explain;
pub(crate) mod key;
mod launch;
mod pick;
mod preset;
mod scaled;
#[cfg(feature = "serde")]
mod serialize;
mod strategy;
pub(crate) mod wgpu;

pub use bind::BoundBinding;
#[cfg(feature = "wgpu")]
pub(crate) use bind::{LEAST_BINDING, Window, read_write};
pub use capabilities::{
    AdapterKind, Capabilities, CpuCapabilities, CudaCapabilities, WgpuCapabilities,
};
pub use choice::Choice;
pub use launch::{Binding, Language, Launch, Source};
pub(crate) use pick::{Build, Draft, Refusal};
pub use pick::{Candidate, Outcome};
pub(crate) use preset::{ANY, Kernel, Preset, Serves};
pub use scaled::Scaled;
pub use strategy::Strategy;

use self::pick::{Picked, Wanted};
use crate::problem::Specs;
use crate::product::Product;
use crate::{Problem, Result};

/// How one problem runs on one kind of device. Made once, run often: everything that
/// decides or computes sizes happens here. Hosts keep plans by what they were made from:
/// [`Problem::identity`], [`Capabilities`] and a [`Choice`] can be keys of a map; each run brings its
/// scale and β ([`Plan::with_scalars`]).
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
    product: Product,
    capabilities: Capabilities,
    candidates: Vec<Candidate>,
    strategy: Strategy,
    preset: &'static str,
    launches: Vec<Launch>,
    workspace_len: usize,
    flops: u64,
    bytes: u64,
    schedule: Option<cpu::Schedule>,
}

impl Plan {
    /// The cheapest way, by the model, to run `problem` on a device with `capabilities`.
    ///
    /// # Errors
    /// What [`Problem::validate`] finds; [`Error::NoStrategy`](crate::Error::NoStrategy) where nothing serves.
    pub fn new(problem: &Problem, capabilities: &Capabilities) -> Result<Plan> {
        Plan::choose(problem, capabilities, &Choice::default())
    }

    /// [`Plan::new`] among the candidates that `choice` leaves.
    ///
    /// # Errors
    /// As [`Plan::new`]; [`Error::Forced`](crate::Error::Forced) where the choice does not serve the problem.
    pub fn choose(problem: &Problem, capabilities: &Capabilities, choice: &Choice) -> Result<Plan> {
        problem.validate()?;
        let specs = problem.all_specs();
        let product = Product::new(problem, &specs);
        let wanted = Wanted { problem, product: &product, choice, capabilities, only: None };
        let Picked { candidates, chosen, build } = match product {
            Product::Nothing => pick::nothing(),
            _ if problem.is_batch_invariant() => {
                // Picked for one number of tokens, and then cut for those that there are.
                let batch = problem.of_batch();
                let (specs_of_batch, of_batch) = (batch.all_specs(), &product_of(&batch));
                let wanted = Wanted { problem: &batch, product: of_batch, ..wanted };
                let picked = pick_on(&wanted, &specs_of_batch)?;
                let Candidate { strategy, preset, .. } = picked.candidates[picked.chosen];
                let only = Some((strategy, preset));
                let Picked { build, .. } =
                    pick_on(&Wanted { problem, product: &product, only, ..wanted }, &specs)?;
                Picked { build, ..picked }
            }
            _ => pick_on(&wanted, &specs)?,
        };
        Ok(Plan {
            problem: *problem,
            specs,
            product,
            capabilities: *capabilities,
            strategy: candidates[chosen].strategy,
            preset: candidates[chosen].preset,
            candidates,
            launches: build.launches,
            workspace_len: build.workspace_len,
            flops: build.flops,
            bytes: build.bytes,
            schedule: build.schedule,
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
    #[cfg(all(test, feature = "wgpu"))]
    pub(crate) fn of_launches(
        problem: Problem,
        capabilities: Capabilities,
        launches: Vec<Launch>,
        workspace_len: usize,
    ) -> Plan {
        Plan {
            problem,
            specs: problem.all_specs(),
            product: Product::Nothing,
            capabilities,
            candidates: Vec::new(),
            strategy: Strategy::Direct,
            preset: "by hand",
            launches,
            workspace_len,
            flops: 0,
            bytes: 0,
            schedule: None,
        }
    }

    /// What the CPU's executor goes by.
    pub(crate) fn schedule(&self) -> Option<&cpu::Schedule> {
        self.schedule.as_ref()
    }

    /// The problem as mathematics.
    pub(crate) fn product(&self) -> &Product {
        &self.product
    }

    /// The plan in words: problem, candidates with reasons, launches and cost.
    pub fn explain(&self) -> String {
        self.to_string()
    }
}

fn product_of(problem: &Problem) -> Product {
    Product::new(problem, &problem.all_specs())
}

/// The cheapest of the backend's presets.
fn pick_on(wanted: &Wanted<'_>, specs: &Specs) -> Result<Picked> {
    let Wanted { problem, product, .. } = *wanted;
    match wanted.capabilities {
        Capabilities::Cpu(of) => {
            wanted.pick(cpu::PRESETS, |preset| cpu::draft(preset, problem, specs, product, of))
        }
        Capabilities::Cuda(of) => {
            wanted.pick(cuda::PRESETS, |preset| cuda::draft(preset, problem, product, of))
        }
        Capabilities::Wgpu(of) => {
            wanted.pick(wgpu::PRESETS, |preset| wgpu::draft(preset, problem, product, of))
        }
    }
}

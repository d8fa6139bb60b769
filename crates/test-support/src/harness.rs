//! Takes problems through every executor and every candidate of its plan, or through those
//! alone that `FUSED_LORA_DEVICE`, `FUSED_LORA_STRATEGY` (`leader/panel`) and `FUSED_LORA_KERNEL`
//! (`gradient`) leave.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use fused_lora::{Capabilities, Choice, Error, Outcome, Plan, Problem};

use crate::{Buffers, Case, Executor, Rows, bits, executors};

/// What a workspace may hold before a run: anything.
pub const WORKSPACE_GARBAGE: [f32; 3] = [f32::NAN, f32::from_bits(u32::MAX), 0.0];

/// Forces a strategy, or a strategy and a preset, for all that a test runs.
const STRATEGY_VARIABLE: &str = "FUSED_LORA_STRATEGY";

/// Leaves the candidates that launch the kernel of this name, or have this strategy and preset, and
/// asks of no test that there are some.
const KERNEL_VARIABLE: &str = "FUSED_LORA_KERNEL";

/// Lets plans of wgpu use cooperative matrices, for a whole run of tests; fails where a device has none.
const COOPERATIVE_VARIABLE: &str = "FUSED_LORA_COOPERATIVE";

/// Whether this run is about cooperative matrices.
pub fn wants_matrices() -> bool {
    std::env::var(COOPERATIVE_VARIABLE).is_ok_and(|value| value == "1")
}

/// One test's way through the executors; counts what ran.
pub struct Harness {
    test: &'static str,
    executors: Vec<Box<dyn Executor>>,
    rows: Rows,
    /// What is taken or spared as a whole, where it is not each run by itself.
    row: Option<String>,
    /// How many times rarer than other draws its problems are taken where a sample is.
    rarer: u64,
    /// Whether a sample need not have a run of every executor.
    may_be_empty: bool,
    /// Problems that an executor serves; of others nothing is asked of it.
    serves: fn(&str, &Problem) -> bool,
    /// The first row of each executor, strategy/preset and activation type: part of every sample.
    first: BTreeMap<String, String>,
    forced: Choice,
    kernel: Option<String>,
    /// Runs by executor, strategy/preset and activation type.
    ran: BTreeMap<String, usize>,
    left_out: usize,
    /// Runs that a slow executor had no time for.
    spared: usize,
}

impl Harness {
    /// Through every executor that this run has.
    pub fn new(test: &'static str) -> Harness {
        Harness::of(test, executors())
    }

    /// Through these executors alone.
    pub fn of(test: &'static str, executors: Vec<Box<dyn Executor>>) -> Harness {
        let forced = std::env::var(STRATEGY_VARIABLE).unwrap_or("auto".to_owned());
        let forced = forced.parse().unwrap_or_else(|error| panic!("{STRATEGY_VARIABLE}: {error}"));
        Harness {
            test,
            executors,
            rows: Rows::Drawn,
            row: None,
            rarer: 1,
            may_be_empty: false,
            serves: |_, _| true,
            first: BTreeMap::new(),
            forced,
            kernel: std::env::var(KERNEL_VARIABLE).ok(),
            ran: BTreeMap::new(),
            left_out: 0,
            spared: 0,
        }
    }

    /// For one case of many: of its runs a sample may have none.
    pub fn of_a_case(test: &'static str) -> Harness {
        Harness { may_be_empty: true, ..Harness::new(test) }
    }

    /// Leaves out what `serves` says that an executor of this name does not serve.
    pub fn where_served(self, serves: fn(&str, &Problem) -> bool) -> Harness {
        Harness { serves, ..self }
    }

    /// For problems that are rows of `pairwise`.
    pub fn paired(test: &'static str) -> Harness {
        Harness { rows: Rows::Paired, ..Harness::new(test) }
    }

    /// What follows is one row: a sample takes all of a candidate's runs or none, because they
    /// share their kernels; and none is so small that a candidate has no row of some activation type.
    pub fn row(&mut self, name: String) {
        self.row = Some(name);
    }

    /// Executors that have time for a sample only take one in `times` of it.
    pub fn rarer(self, times: u64) -> Harness {
        Harness { rarer: times, ..self }
    }

    /// Calls `with` for every executor and every feasible candidate of `problem`. `variant`
    /// picks one of the executor's capabilities; `None` takes them all.
    pub fn each(
        &mut self,
        problem: &Problem,
        variant: Option<u64>,
        mut with: impl FnMut(&dyn Executor, &Plan),
    ) {
        for executor in &self.executors {
            if !(self.serves)(executor.name(), problem) {
                continue;
            }
            let mut capabilities = executor.capabilities();
            if let Some(variant) = variant {
                let at = variant as usize % capabilities.len();
                capabilities = vec![capabilities[at]];
            }
            for capabilities in capabilities {
                let choices = feasible(problem, &capabilities, &self.forced);
                self.left_out += usize::from(choices.is_empty());
                for choice in choices {
                    if !self.launches_the_kernel(problem, &capabilities, &choice) {
                        continue;
                    }
                    let key = match &self.row {
                        Some(row) => format!("{row} {choice}"),
                        None => format!("{problem:?} {capabilities:?} {choice}"),
                    };
                    let name = format!("{} {choice} {}", executor.name(), problem.activation());
                    // Of rows one of each name; elsewhere, and on CUDA, where no row need have what a kernel serves and
                    // `drawn` asks for that, one of all that it has time for: no sample is empty.
                    let of_rows = self.row.is_some() && executor.name() != "cuda";
                    let of = if of_rows { &*name } else { executor.name() };
                    let is_first = !self.may_be_empty
                        && (of_rows || problem.flops() <= executor.most_flops())
                        && self.first.entry(of.to_owned()).or_insert(key.clone()) == &key;
                    let takes = || takes(executor.as_ref(), self.rows, self.rarer, problem, &key);
                    if !is_first && !takes() {
                        self.spared += 1;
                        continue;
                    }
                    let plan = Plan::choose(problem, &capabilities, &choice)
                        .unwrap_or_else(|error| panic!("{choice} was possible, but: {error}"));
                    assert_eq!(plan.choice(), choice, "another strategy was planned");
                    let kind = executor.name().split(':').next();
                    assert_eq!(Some(plan.capabilities().executor()), kind);
                    with(executor.as_ref(), &plan);
                    *self.ran.entry(name).or_default() += 1;
                }
            }
        }
    }

    /// Whether a candidate launches the kernel that this run is about.
    fn launches_the_kernel(
        &self,
        problem: &Problem,
        capabilities: &Capabilities,
        choice: &Choice,
    ) -> bool {
        let Some(kernel) = &self.kernel else { return true };
        if kernel.contains('/') {
            return choice.to_string() == *kernel;
        }
        let plan = Plan::choose(problem, capabilities, choice);
        plan.is_ok_and(|plan| plan.launches().iter().any(|launch| launch.kernel == kernel))
    }

    /// Whether nothing is forced, so that a test may ask for full coverage.
    pub fn is_free(&self) -> bool {
        self.forced == Choice::default() && self.kernel.is_none()
    }

    /// Runs by executor, strategy/preset and activation type.
    pub fn ran(&self) -> &BTreeMap<String, usize> {
        &self.ran
    }

    /// Prints what ran. For tests of one operation, which a forced choice may not serve.
    pub fn report(&self) {
        let ran: usize = self.ran.values().sum();
        println!(
            "{}: {ran} runs, {} problems left out ({})",
            self.test, self.left_out, self.forced
        );
        if self.spared > 0 {
            println!("  {} runs spared slow executors", self.spared);
        }
        for name in self.idle() {
            println!("  NOTHING ran on {name}");
        }
    }

    /// Executors on which nothing ran.
    fn idle(&self) -> Vec<&str> {
        let names = self.executors.iter().map(|executor| executor.name());
        let ran = |name: &str| self.ran.keys().any(|of| of.starts_with(&format!("{name} ")));
        names.filter(|name| !ran(name)).collect()
    }

    /// Prints what ran, by executor, candidate and type, too.
    pub fn list(&self) {
        self.report();
        for (name, runs) in &self.ran {
            println!("  {name:<32} {runs:>6}");
        }
    }

    /// Prints what ran and fails if nothing did, on any executor: a sample must not shrink to
    /// nothing. One kernel alone need not occur in every test: `tests/run --kernel` asks that it
    /// occurs in one.
    pub fn finish(&self) {
        self.list();
        let nothing = self.ran.is_empty() && self.kernel.is_none();
        assert!(!nothing, "{}: nothing ran under `{}`", self.test, self.forced);
        let idle = self.idle();
        assert!(!self.is_free() || idle.is_empty(), "{}: nothing ran on {idle:?}", self.test);
    }
}

/// Whether the run named `key` is among those that the executor has time for: the same ones
/// every time, spread over everything that keys differ by. Where it takes a sample, one in
/// `rarer` of that.
pub fn takes(
    executor: &dyn Executor,
    rows: Rows,
    rarer: u64,
    problem: &Problem,
    key: &str,
) -> bool {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    let one_in = match executor.one_in(rows) {
        1 => 1,
        one_in => one_in * rarer,
    };
    problem.flops() <= executor.most_flops() && hasher.finish().is_multiple_of(one_in)
}

/// The candidates that serve `problem` and that `forced` leaves. None: the forced choice is
/// refused, by name.
pub fn feasible(problem: &Problem, capabilities: &Capabilities, forced: &Choice) -> Vec<Choice> {
    match Plan::choose(problem, capabilities, forced) {
        Ok(plan) => {
            let serves =
                |outcome: &Outcome| matches!(outcome, Outcome::Chosen(_) | Outcome::Slower(_));
            let all = plan.candidates().iter().filter(|of| serves(&of.outcome));
            all.map(|of| Choice { strategy: Some(of.strategy), preset: Some(of.preset.into()) })
                .collect()
        }
        Err(Error::Forced { .. }) if *forced != Choice::default() => Vec::new(),
        Err(error) => panic!("every legal problem has a strategy, but {problem:?}: {error}"),
    }
}

/// One run on fresh buffers and a poisoned workspace; guards and inputs are checked.
pub fn launch(executor: &dyn Executor, plan: &Plan, before: &Buffers, case: &Case) -> Buffers {
    let mut after = before.clone();
    let mut scratch = executor.scratch(plan.workspace_len());
    let garbage = WORKSPACE_GARBAGE[case.seed as usize % WORKSPACE_GARBAGE.len()];
    executor.fill(&mut scratch, garbage);
    if let Err(error) = executor.run(plan, &mut after, &mut scratch) {
        panic!("{error}\n{:?}, seed {}\n{}", case.fill, case.seed, plan.explain());
    }
    after.assert_guards(before);
    bits::note(plan, before, &after);
    after
}

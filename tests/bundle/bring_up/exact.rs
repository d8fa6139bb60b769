//! Stages 5 and 6: small integers, whose sums are exact, so that every result is the reference's bit for bit: every
//! candidate of every plan, first those whose kernels have no flags, from one tile to several. Called by
//! `main`. The plans that reach every text are those of `tests/kernels/counters`.

use std::collections::BTreeSet;

use fused_lora::{DType, Operation, Plan, Problem};
use test_support::cuda::Gpu;
use test_support::sim::walk::texts as texts_of;
use test_support::{
    Buffers, Case, Executor, Fill, Harness, Reference, Rows, assert_exact, launch, shrunk_is_exact,
    takes,
};

use crate::problems::plans;
use crate::{Options, Result, Scale, texts};

/// Of the runs of a full bring-up a small one takes one in so many.
const ONE_IN: &str = "48";
/// Cases that run under compute-sanitizer.
const CASES: usize = 10;

/// One tile of every kernel and less, then several: tokens, in_features, out_features.
const SIZES: [[usize; 3]; 7] = [
    [1, 40, 56],
    [8, 256, 136],
    [9, 96, 264],
    [16, 320, 72],
    [64, 64, 64],
    [130, 128, 256],
    [200, 136, 328],
];
const RANKS: [usize; 5] = [1, 5, 16, 17, 64];

pub(crate) fn without_flags(options: &Options) -> Result {
    run(options, "exact, without flags", |plan| !has_flags(plan))
}

pub(crate) fn with_flags(options: &Options) -> Result {
    run(options, "exact, with flags", has_flags)
}

/// Whether a CTA of it waits for another, or counts who has left: whatever is done by atomics.
fn has_flags(plan: &Plan) -> bool {
    let mut sources = plan.launches().iter().filter_map(|launch| launch.source.as_ref());
    sources.any(|of| of.text.contains("atom.") || of.text.contains("ld.acquire"))
}

fn scaled(options: &Options) {
    if options.scale == Scale::Small {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var("FUSED_LORA_ONE_IN", ONE_IN) };
    }
}

/// What has run.
#[derive(Default)]
struct Ran {
    runs: usize,
    texts: BTreeSet<String>,
}

impl Ran {
    fn once(
        &mut self,
        executor: &dyn Executor,
        plan: &Plan,
        case: &Case,
        before: &Buffers,
        reference: &mut Reference<'_>,
    ) {
        let expected = reference.of(executor.sums(&case.problem));
        assert!(shrunk_is_exact(&case.problem, expected), "{:?} is no exact case", case.problem);
        let after = launch(executor, plan, before, case);
        assert_exact(plan, &after, expected, case);
        self.runs += 1;
        self.texts.extend(texts_of(plan));
    }
}

fn run(options: &Options, name: &'static str, is_wanted: impl Fn(&Plan) -> bool) -> Result {
    scaled(options);
    fused_lora::cuda::probe()?;
    let mut ran = Ran::default();
    let mut harness = Harness::of(name, vec![Box::new(Gpu::new())]);
    for (seed, problem) in problems().into_iter().enumerate() {
        let case = Case::new(problem, Fill::Integers, seed as u64);
        let before = case.buffers();
        let mut reference = Reference::new(&problem, &before);
        harness.each(&problem, None, |executor, plan| {
            if is_wanted(plan) {
                ran.once(executor, plan, &case, &before, &mut reference);
            }
        });
    }
    println!("* {} runs of one tile to several", ran.runs);
    let (small, gpu, mut reached) = (ran.runs, Gpu::new(), BTreeSet::new());
    for (seed, planned) in plans().iter().enumerate() {
        let problem = planned.plan.problem().with_scale(0.5);
        let choice = planned.plan.choice();
        // What an A100 takes may be refused here, by name.
        let Ok(plan) = Plan::choose(&problem, &gpu.executor.capabilities(), &choice) else {
            continue;
        };
        let key = format!("{problem:?} {choice}");
        let is_new = texts_of(&plan).any(|text| !reached.contains(&text));
        if is_new && is_wanted(&plan) && takes(&gpu, Rows::Drawn, 1, &problem, &key) {
            let case = Case::new(problem, Fill::Integers, seed as u64);
            let before = case.aligned_buffers();
            let mut reference = Reference::new(&problem, &before);
            ran.once(&gpu, &plan, &case, &before, &mut reference);
            reached.extend(texts_of(&plan));
        }
    }
    let all: BTreeSet<&str> = texts::names().collect();
    let count = all.iter().filter(|name| ran.texts.contains(**name)).count();
    println!(
        "* {} runs of two by two tiles; {count} of {} texts have run",
        ran.runs - small,
        all.len()
    );
    match small > 0 && ran.runs > small {
        true => Ok(()),
        false => Err("nothing ran".into()),
    }
}

/// Sizes first: what fails is then as small as it can be.
fn problems() -> Vec<Problem> {
    let mut all = Vec::new();
    for [tokens, in_features, out_features] in SIZES {
        for &operation in Operation::ALL {
            for rank in RANKS {
                for &dtype in DType::ALL {
                    let problem = Problem::new(operation, tokens, in_features, out_features, rank)
                        .with_dtype(dtype)
                        .with_scale(0.5)
                        .with_bias(rank % 2 == 1);
                    all.push(problem);
                    if dtype != DType::F32 {
                        all.push(problem.with_adapter(DType::F32));
                        all.push(problem.with_precise(true));
                    }
                }
            }
        }
    }
    all
}

/// Ten plans, each with a kernel or a strategy that none before it has: what compute-sanitizer looks at.
pub(crate) fn cases(_: &Options) -> Result {
    fused_lora::cuda::probe()?;
    let gpu = Gpu::new();
    let (mut seen, mut ran) = (BTreeSet::new(), Ran::default());
    // Those of 16 bits come first: the main loops with copies and tensor cores.
    let mut all = plans();
    all.sort_by_key(|planned| planned.plan.problem().activation() == DType::F32);
    for planned in &all {
        let problem = planned.plan.problem().with_scale(0.5);
        let choice = planned.plan.choice();
        let Ok(plan) = Plan::choose(&problem, &gpu.executor.capabilities(), &choice) else {
            continue;
        };
        let kernels: Vec<&str> = plan.launches().iter().map(|launch| launch.kernel).collect();
        if ran.runs < CASES && seen.insert(format!("{} {kernels:?}", plan.strategy())) {
            let case = Case::new(problem, Fill::Integers, ran.runs as u64);
            let before = case.aligned_buffers();
            let mut reference = Reference::new(&problem, &before);
            ran.once(&gpu, &plan, &case, &before, &mut reference);
        }
    }
    println!("{} cases, {} texts", ran.runs, ran.texts.len());
    match ran.runs == CASES {
        true => Ok(()),
        false => Err(format!("{} cases, expected {CASES}", ran.runs).into()),
    }
}

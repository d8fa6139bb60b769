//! What every kernel does, counted by the simulator and held to `golden.txt`: instructions, passes
//! over shared memory, sectors, bytes, on a shape of whole tiles. What can be worked out is
//! asserted as well: no tile load meets a bank twice, no access of an aligned text touches a sector
//! that it need not, the bytes are the plan's, and so are the multiplications.
//!
//! Renew the file with `FUSED_LORA_COUNTERS_BLESS=1 cargo test --test kernels counters::`. Texts are found
//! through the plans of `problems`; one that no plan here asks for fails by its name.

mod problems;

use std::collections::{BTreeMap, BTreeSet};

use super::gate::texts;
use fused_lora::{Access, DType, Operation, Plan, Problem};
use problems::{Planned, plans};
use ptx_sim::{Counters, Options};
use rayon::prelude::*;
use test_support::sim::walk::texts as names;
use test_support::sim::{Gpu, gpu};
use test_support::{Case, Fill};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernels/counters/golden.txt");
const HEAD: &str = "\
# Counts of one launch of each text on the problem beside it, run by one CTA at a time. Columns: warp
# instructions; mma, ldmatrix and cp.async among them; passes over shared memory; sectors of global
# memory; bytes of it that are touched. Renew: FUSED_LORA_COUNTERS_BLESS=1 cargo test --test kernels counters::
";

/// One statement or several of a line: what opcode they are counted under.
fn counted(counters: &Counters, lines: &[&str], opcode: &str) -> u64 {
    let holds = |line: u32| lines[line as usize - 1].contains(opcode);
    counters.lines().iter().filter(|of| holds(of.line)).map(|of| of.warps).sum()
}

/// What one plan did.
struct Counted {
    /// A row for each of its texts.
    rows: Vec<(String, String)>,
    /// What can be worked out, and is not so.
    wrong: Vec<String>,
}

/// Runs one plan with every check on.
fn count(planned: &Planned) -> Counted {
    let Planned { plan, aligned } = planned;
    let problem = plan.problem();
    let title = title(plan);
    let mut buffers = Case::new(*problem, Fill::Uniform, 5).aligned_buffers();
    let mut gpu = Gpu::new(plan.workspace_len());
    // One CTA at a time: it draws every ticket and waits for none, so that no count depends on
    // who runs when.
    let options = Options { sms: 1, blocks_per_sm: 1, ..Options::default() };
    let counters = gpu
        .run(plan, &mut buffers, &options)
        .unwrap_or_else(|error| panic!("{title}: {error}\n{}", plan.explain()));
    let (mut rows, mut wrong) = (Vec::new(), Vec::new());
    let (mut touched, mut multiplied) = (0, 0);
    for ((launch, counters), name) in plan.launches().iter().zip(&counters).zip(names(plan)) {
        let lines: Vec<&str> = launch.source.as_ref().unwrap().text.lines().collect();
        for of in counters.lines() {
            let line = lines[of.line as usize - 1].trim();
            for (what, got, least, must) in [
                ("wavefronts", of.wavefronts, of.wavefronts_ideal, true),
                ("sectors", of.sectors, of.sectors_ideal, *aligned),
            ] {
                if must && got != least {
                    wrong.push(format!("{name}: {got} {what}, at least {least}: {line}"));
                }
            }
        }
        let total = counters.total();
        touched += counters.bytes_first_touched();
        multiplied += total.macs;
        let of = |opcode| counted(counters, &lines, opcode);
        let (mma, ldmatrix, copies) = (of("mma.sync"), of("ldmatrix"), of("cp.async.c"));
        let row = format!(
            "{name:<36} {title:<60} {:>9} {mma:>7} {ldmatrix:>7} {copies:>7} {:>8} {:>8} {:>9}",
            total.warps,
            total.wavefronts,
            total.sectors,
            counters.bytes_first_touched(),
        );
        rows.push((name, row));
    }
    let bytes = touched - gpu.header_bytes();
    // What is updated is read and written, but touched once; an operand that begins inside of a
    // sector touches one more.
    let updated = problem.specs().filter(|(_, spec)| spec.access == Access::Update);
    let expected = plan.bytes() - updated.map(|(_, spec)| spec.bytes()).sum::<u64>();
    let more = if *aligned { 0 } else { 32 * problem.specs().count() as u64 };
    if !(expected..=expected + more).contains(&bytes) {
        wrong.push(format!("{bytes} bytes touched, the plan says {expected}"));
    }
    // Where the adapter of `decode` lies turned, half of each of its fragments is zero.
    if multiplied > 0 && plan.preset() != "decode" {
        // Adding up partial sums is counted by the plan, but no multiplication.
        let expected = match problem.operation() {
            Operation::BackwardAdapter => problem.flops(),
            _ => plan.flops() + half_empty(problem),
        };
        if 2 * multiplied != expected {
            wrong.push(format!("{} operations in mma, expected {expected}", 2 * multiplied));
        }
    }
    let wrong = wrong.into_iter().map(|what| format!("{title}: {what}")).collect();
    Counted { rows, wrong }
}

/// Operations on pad: a border meets sixteen ranks at a time, and a text for pairs of eight, each
/// part once.
fn half_empty(problem: &Problem) -> u64 {
    let pad = problem.rank().next_multiple_of(16) - problem.rank();
    let columns = match problem.operation() {
        Operation::Forward => problem.out_features(),
        _ => problem.in_features(),
    };
    (2 * 2 * problem.tokens() * columns * pad) as u64
}

/// A plan in a few words without spaces.
fn title(plan: &Plan) -> String {
    let problem = plan.problem();
    format!(
        "{}:{}/{}:{}x{}x{}:r{}:{}+{}",
        problem.operation(),
        plan.strategy(),
        plan.preset(),
        problem.tokens(),
        problem.in_features(),
        problem.out_features(),
        problem.rank(),
        problem.activation(),
        problem.adapter(),
    )
}

#[test]
fn counts_are_those_of_the_golden_file() {
    let mut seen = BTreeSet::new();
    // One plan for each text that none before it runs.
    let chosen: Vec<Planned> = plans()
        .into_iter()
        .filter(|of| names(&of.plan).filter(|name| seen.insert(name.clone())).count() > 0)
        .collect();
    let missing: Vec<_> =
        texts::rendered().into_iter().map(|of| of.name).filter(|of| !seen.contains(of)).collect();
    assert!(missing.is_empty(), "no plan of tests/kernels/counters/problems.rs runs {missing:?}");
    let counted: Vec<Counted> = chosen.par_iter().map(count).collect();
    let wrong: Vec<&str> = counted.iter().flat_map(|of| &of.wrong).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    let mut first = BTreeMap::new();
    for (name, row) in counted.into_iter().flat_map(|of| of.rows) {
        first.entry(name).or_insert(row);
    }
    let now: Vec<String> = first.into_values().collect();
    if std::env::var_os("FUSED_LORA_COUNTERS_BLESS").is_some() {
        std::fs::write(GOLDEN, format!("{HEAD}{}\n", now.join("\n"))).unwrap();
        return;
    }
    let golden = std::fs::read_to_string(GOLDEN).unwrap();
    let then: Vec<&str> = golden.lines().filter(|line| !line.starts_with('#')).collect();
    let gone = then.iter().filter(|line| !now.iter().any(|of| of == *line));
    let come = now.iter().filter(|line| !then.contains(&line.as_str()));
    let gone: Vec<String> = gone.map(|line| format!("- {line}")).collect();
    let come: Vec<String> = come.map(|line| format!("+ {line}")).collect();
    assert!(gone.is_empty() && come.is_empty(), "\n{}\n{}", gone.join("\n"), come.join("\n"));
}

/// A training step is three launches: one forward and two backward. With an adapter of another type
/// `pack` comes before the first of each direction.
#[test]
fn launches_are_those_that_run() {
    for (adapter, packs) in [(DType::Bf16, 0), (DType::F32, 1)] {
        for (operation, launches) in [
            (Operation::Forward, 1 + packs),
            (Operation::BackwardInput, 1 + packs),
            (Operation::BackwardAdapter, 1),
        ] {
            let problem = Problem::new(operation, 256, 64, 512, 16)
                .with_activation(DType::Bf16)
                .with_adapter(adapter);
            let plan = Plan::new(&problem, &gpu(3)).unwrap();
            let mut buffers = Case::new(problem, Fill::Uniform, 5).aligned_buffers();
            let mut gpu = Gpu::new(plan.workspace_len());
            let options = Options { sms: 3, ..Options::default() };
            let ran = gpu.run(&plan, &mut buffers, &options).unwrap();
            assert_eq!((ran.len(), plan.launches().len()), (launches, launches), "{plan}");
            assert!(ran.iter().all(|of| of.total().warps > 0), "{plan}");
        }
    }
}

//! Spoils one statement of an interior loop of `linear` at a time, and runs what is left on three machines with all of the
//! simulator's checks on: each mutant must be noticed, by a check or by other bits, or stand in `mutants.txt` with
//! the reason for which it changes nothing. What the tests of `ptx_linear` are worth.
//!
//! Statements are deleted, guards negated, each constant of an operand made one larger, `lt` made `le` and `ge`
//! `gt`. By default one in [`ONE_IN`]; all, and whether the list has no more than is true:
//! `FUSED_LORA_MUTANTS_ONE_IN=1 cargo test --release --test kernels ptx_mutants:: -- --nocapture`.

use std::collections::{BTreeMap, BTreeSet};

use fused_lora::reference::Sums;
use fused_lora::{DType, Operation, Plan, Problem};
use ptx_sim::{CopyTiming, Module, Options, Schedule};
use test_support::sim::{Gpu, gpu};
use test_support::{Buffers, Case, Fill, assert_exact, results};

const ONE_IN: usize = 64;
const ONE_IN_VARIABLE: &str = "FUSED_LORA_MUTANTS_ONE_IN";

/// A plan's choice and its ranks.
const WAYS: [(&str, usize); 5] = [
    ("direct/medium", 0),
    ("leader/medium", 16),
    ("leader/large", 16),
    ("leader/small", 16),
    ("recompute/medium", 32),
];
/// Where its loops begin and end: of leaders both.
const LOOPS: [(&str, &str); 2] =
    [("INTERIOR:", "@p1 bra.uni INTERIOR;"), ("INTERIOR_RANKED:", "@p1 bra.uni INTERIOR_RANKED;")];

/// A plan whose text is spoilt, and a place in it.
struct Loop {
    plan: Plan,
    case: Case,
    text: String,
    name: String,
    lines: std::ops::Range<usize>,
}

/// A statement that was spoilt.
struct Mutant<'a> {
    of: &'a Loop,
    line: usize,
    how: &'static str,
    /// The statement as it was, and as it is.
    code: String,
    spoilt: String,
}

/// Every loop of the lists, forward and backward_input: both majors of w.
fn loops() -> Vec<Loop> {
    let mut all = Vec::new();
    for (choice, rank) in WAYS {
        let [tokens, deep, wide] = [120, 344, 400];
        for operation in [Operation::Forward, Operation::BackwardInput] {
            let (k, n) = if operation == Operation::Forward { (deep, wide) } else { (wide, deep) };
            let problem = Problem::new(operation, tokens, k, n, rank)
                .with_dtype(DType::Bf16)
                .with_scale(0.5)
                .with_bias(operation == Operation::Forward);
            let found = all.len();
            for (from, to) in LOOPS {
                let plan = Plan::choose(&problem, &gpu(3), &choice.parse().unwrap()).unwrap();
                let text = plan.launches()[0].source.as_ref().unwrap().text.to_string();
                let lines: Vec<&str> = text.lines().collect();
                let Some(first) = lines.iter().position(|line| *line == from) else { continue };
                let last = lines.iter().rposition(|line| line.ends_with(to)).unwrap();
                let name = lines[0].trim_start_matches("// ").split(':').next().unwrap();
                let name = format!("{name} {}", from.trim_end_matches(':'));
                let case = Case::new(problem, Fill::Integers, 7);
                all.push(Loop { plan, case, name, lines: first + 1..last + 1, text });
            }
            assert!(all.len() > found, "{choice}: no loop");
        }
    }
    all
}

/// The code with each of its constants one larger, one at a time.
fn larger(code: &str) -> Vec<String> {
    let is_digit = |at: usize| code.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
    let begins =
        |at: &usize| is_digit(*at) && [b' ', b',', b'+'].contains(&code.as_bytes()[at - 1]);
    let places = (1..code.len()).filter(begins);
    let one = |at: usize| {
        let end = (at..code.len()).find(|of| !is_digit(*of)).unwrap_or(code.len());
        // Not the first digit of 0x1f, or of a register's name.
        let number: u64 = code[at..end].parse().ok()?;
        let whole = code[end..].starts_with([']', ',', ';', '}']);
        whole.then(|| format!("{}{}{}", &code[..at], number + 1, &code[end..]))
    };
    places.filter_map(one).collect()
}

fn mutants(of: &Loop) -> Vec<Mutant<'_>> {
    let mut all = Vec::new();
    for (line, code) in of.text.lines().enumerate().filter(|(line, _)| of.lines.contains(line)) {
        if !code.ends_with(';') {
            continue;
        }
        let mut spoilt = vec![("deleted", String::new())];
        if let Some(rest) = code.strip_prefix("@!") {
            spoilt.push(("guard negated", format!("@{rest}")));
        } else if let Some(rest) = code.strip_prefix('@') {
            spoilt.push(("guard negated", format!("@!{rest}")));
        }
        spoilt.extend(larger(code).into_iter().map(|text| ("constant + 1", text)));
        for (from, to) in [(".lt.", ".le."), (".ge.", ".gt.")] {
            if code.starts_with("setp") && code.contains(from) {
                spoilt.push(("edge moved", code.replacen(from, to, 1)));
            }
        }
        let mutant = |(how, spoilt)| Mutant { of, line, how, code: code.to_owned(), spoilt };
        all.extend(spoilt.into_iter().map(mutant));
    }
    all
}

/// The machines on which a mutant is run, until one notices it.
fn machines() -> [Options; 3] {
    let of = |schedule, copies, sms, seed| Options {
        schedule,
        copies,
        sms,
        seed,
        budget: 1 << 22,
        ..Options::default()
    };
    [
        of(Schedule::RoundRobin, CopyTiming::Late, 3, 1),
        of(Schedule::Reverse, CopyTiming::Early, 1, 2),
        of(Schedule::Random, CopyTiming::Random, 2, 3),
    ]
}

/// What the outputs hold on each machine, or what a check says.
fn run(of: &Loop, text: String, machine: &Options) -> Result<Buffers, String> {
    let mut buffers = of.case.aligned_buffers();
    let mut gpu = Gpu::new(of.plan.workspace_len());
    gpu.edit(move |_| text.clone());
    gpu.run(&of.plan, &mut buffers, machine).map(|_| buffers)
}

fn bits(buffers: &Buffers) -> Vec<&[u8]> {
    buffers.stored.iter().map(|of| of.data.bytes()).collect()
}

impl Mutant<'_> {
    /// Under which it stands in `mutants.txt`: the texts of one template share their loops.
    fn name(&self) -> String {
        format!("{}: {}", self.how, self.code)
    }

    fn is_noticed(&self, right: &Buffers) -> bool {
        let spoilt = |(at, line)| if at == self.line { &*self.spoilt } else { line };
        let text: Vec<&str> = self.of.text.lines().enumerate().map(spoilt).collect();
        let text = text.join("\n");
        if Module::parse("mutant", &text).is_err() {
            return true;
        }
        let differs = |machine| match run(self.of, text.clone(), machine) {
            Ok(buffers) => bits(&buffers) != bits(right),
            Err(_) => true,
        };
        machines().iter().any(differs)
    }
}

#[test]
fn spoilt_loops_are_noticed() {
    let variable = std::env::var(ONE_IN_VARIABLE).ok();
    let one_in = variable.map_or(ONE_IN, |n| n.parse().expect("a number above 0"));
    let explained: BTreeMap<&str, &str> = include_str!("mutants.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(" = "))
        .collect();
    let (mut survivors, mut all, mut ran) = (BTreeSet::new(), 0, 0);
    for of in loops() {
        // As it is, it is right, and ends within the budget on every machine.
        let expected = results(of.plan.problem(), Sums::TensorCore, &of.case.aligned_buffers());
        let right = machines().map(|machine| {
            let right =
                run(&of, of.text.clone(), &machine).unwrap_or_else(|e| panic!("{}: {e}", of.name));
            assert_exact(&of.plan, &right, &expected, &of.case);
            right
        });
        let (mut here, mut noticed) = (0, 0);
        for mutant in mutants(&of) {
            all += 1;
            if all % one_in != 0 {
                continue;
            }
            here += 1;
            if mutant.is_noticed(&right[0]) {
                noticed += 1;
            } else {
                survivors.insert(mutant.name());
            }
        }
        println!("{}: {noticed} of {here} noticed", of.name);
        ran += here;
    }
    println!("{ran} of {all} mutants; {} kinds survive:", survivors.len());
    let reason = |name: &str| explained.get(name).copied().unwrap_or("");
    survivors.iter().for_each(|name| println!("{name} = {}", reason(name)));
    let unexplained: Vec<_> = survivors.iter().filter(|name| reason(name).is_empty()).collect();
    assert!(unexplained.is_empty(), "{unexplained:#?}");
    if one_in == 1 {
        let stale: Vec<_> = explained.keys().filter(|name| !survivors.contains(**name)).collect();
        assert!(stale.is_empty(), "explained, and noticed: {stale:#?}");
    }
}

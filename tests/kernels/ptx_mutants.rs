//! Spoils one statement of a kernel at a time, and runs what is left on several layers and on three machines
//! with all of the simulator's checks on: each mutant must be noticed, by a check, by other bits or by [`TIMES`] the
//! instructions, or stand in `mutants.txt` with the reason for which it changes nothing. What the tests of `ptx_linear`,
//! `ptx_decode`, the gradients, images and what stands beside a layer are worth.
//!
//! Statements are deleted, guards negated, each constant of an operand made one larger, `lt` made `le` and `ge`
//! `gt`. By default one in [`ONE_IN`]; all, and whether the list has no more than is true:
//! `FUSED_LORA_MUTANTS_ONE_IN=1 cargo test --release --test kernels ptx_mutants:: -- --nocapture`. Of 0 those alone that the
//! list has: whether each still survives.

mod contract;
mod factors;
mod gathered;
mod layers;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use fused_lora::reference::Sums;
use ptx_sim::{CopyTiming, Module, Options, Schedule};
use test_support::sim::Gpu;
use test_support::{Buffers, Usage, assert_exact, results};

use layers::{Data, Layer, Loop};

const ONE_IN: usize = 64;
const ONE_IN_VARIABLE: &str = "FUSED_LORA_MUTANTS_ONE_IN";
/// Spoils loops alone whose names have this in them.
const ONLY_VARIABLE: &str = "FUSED_LORA_MUTANTS_ONLY";
/// Of what the right text needs: a mutant that takes so many times the instructions never ends, or as good as never.
const TIMES: u64 = 4;

/// A statement that was spoilt.
struct Mutant<'a> {
    of: &'a Loop,
    line: usize,
    how: &'static str,
    /// The statement as it was, and as it is.
    code: String,
    spoilt: String,
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
        // A label, or a declaration.
        if !code.ends_with(';') || code.starts_with('.') {
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
fn machines() -> [Options; MACHINES] {
    let of = |schedule, copies, sms, seed| {
        // Nobody asks how often a bank was met.
        Options { schedule, copies, sms, seed, count: false, ..Options::default() }
    };
    [
        of(Schedule::RoundRobin, CopyTiming::Late, 3, 1),
        of(Schedule::Reverse, CopyTiming::Early, 1, 2),
        of(Schedule::Random, CopyTiming::Random, 2, 3),
    ]
}
const MACHINES: usize = 3;

/// What the right text makes of a layer.
struct Right {
    before: Buffers,
    after: Buffers,
    /// Instructions that a launch may take on each machine.
    budgets: [u64; MACHINES],
}

/// What the outputs hold on a machine and the instructions of the longest launch, or what a check says.
fn run(
    of: &Loop,
    layer: &Layer,
    before: &Buffers,
    text: &str,
    machine: &Options,
) -> Result<(Buffers, u64), String> {
    let mut buffers = before.clone();
    let mut gpu = Gpu::new(layer.plan.workspace_len());
    let (right, text) = (of.text.clone(), text.to_owned());
    gpu.edit(move |of| if of == &*right { text.clone() } else { of.to_owned() });
    let counters = gpu.run(&layer.plan, &mut buffers, machine)?;
    let longest = counters.iter().map(|of| of.total().warps).max().unwrap_or(0);
    Ok((buffers, longest))
}

fn bits(buffers: &Buffers) -> Vec<&[u8]> {
    buffers.stored.iter().map(|of| of.data.bytes()).collect()
}

impl Loop {
    /// What it leaves of each layer as it is: it is right, on every machine.
    fn right(&self) -> Vec<Right> {
        let of = |layer: &Layer| {
            let Layer { plan, case, data } = layer;
            let before = layer.buffers();
            let expected = results(plan.problem(), Sums::TensorCore, &before);
            let all = machines().map(|machine| {
                let right = run(self, layer, &before, &self.text, &machine);
                let (right, longest) =
                    right.unwrap_or_else(|error| panic!("{}: {error}", self.name));
                right.assert_guards(&before);
                match data {
                    Data::Integers => assert_exact(plan, &right, &expected, case),
                    Data::Uniform => Usage::default().check(plan, &right, &expected, case),
                    // The reference sums infinities of both signs in another order.
                    _ => {}
                }
                (right, longest)
            });
            all[1..].iter().for_each(|other| other.0.assert_same_bits(&all[0].0, &self.name));
            let budgets = all.each_ref().map(|(_, longest)| TIMES * longest);
            let [(after, _), ..] = all;
            Right { before, after, budgets }
        };
        self.layers.iter().map(of).collect()
    }
}

impl Mutant<'_> {
    /// Under which it stands in `mutants.txt`: the texts of one template share their loops.
    fn name(&self) -> String {
        format!("{}: {}: {}", self.of.group, self.how, self.code)
    }

    /// Where it stands: the text and the line.
    fn place(&self) -> String {
        let text = self.of.name.split(' ').next().unwrap_or_default();
        format!("{text}:{}", self.line + 1)
    }

    /// Whether a layer on a machine comes out otherwise than in `right`; the number of the layer.
    fn noticed(&self, right: &[Right]) -> Option<usize> {
        let spoilt = |(at, line)| if at == self.line { &*self.spoilt } else { line };
        let text: Vec<&str> = self.of.text.lines().enumerate().map(spoilt).collect();
        let text = text.join("\n");
        if Module::parse("mutant", &text).is_err() {
            return Some(0);
        }
        let differs = |at: &usize| {
            let Right { before, after, budgets } = &right[*at];
            machines().iter().zip(budgets).any(|(machine, &budget)| {
                let machine = Options { budget, ..*machine };
                let run = run(self.of, &self.of.layers[*at], before, &text, &machine);
                run.map_or(true, |(buffers, _)| bits(&buffers) != bits(after))
            })
        };
        (0..right.len()).find(differs)
    }
}

#[test]
fn spoilt_loops_are_noticed() {
    let variable = std::env::var(ONE_IN_VARIABLE).ok();
    let one_in = variable.map_or(ONE_IN, |n| n.parse().expect("a number above 0"));
    let only = std::env::var(ONLY_VARIABLE).unwrap_or_default();
    let list = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernels/mutants.txt");
    let list = std::fs::read_to_string(list).expect("the list");
    let explained: BTreeMap<&str, &str> = list
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(" = "))
        .collect();
    let (mut survivors, mut all, mut ran) = (BTreeSet::new(), 0, 0);
    let (mut right, mut of_layers) = (Vec::new(), None);
    for of in layers::all().iter().filter(|of| of.name.contains(&only)) {
        // The loops of one text share their layers.
        if !of_layers.is_some_and(|layers| Rc::ptr_eq(layers, &of.layers)) {
            (right, of_layers) = (of.right(), Some(&of.layers));
        }
        let chosen: Vec<Mutant<'_>> = mutants(of)
            .into_iter()
            .filter(|of| {
                all += 1;
                match one_in {
                    0 => explained.contains_key(&*of.name()),
                    _ => all % one_in == 0,
                }
            })
            .collect();
        // Which layer notices how many.
        let mut by = vec![0; right.len()];
        for mutant in &chosen {
            match mutant.noticed(&right) {
                Some(layer) => by[layer] += 1,
                None => {
                    println!("{} survives: {}", mutant.place(), mutant.name());
                    survivors.insert(mutant.name());
                }
            }
        }
        let noticed: usize = by.iter().sum();
        println!("{}: {noticed} of {} noticed, by layer {by:?}", of.name, chosen.len());
        ran += chosen.len();
    }
    println!("{ran} of {all} mutants; {} kinds survive:", survivors.len());
    let reason = |name: &str| explained.get(name).copied().unwrap_or("");
    survivors.iter().for_each(|name| println!("{name} = {}", reason(name)));
    let unexplained: Vec<_> = survivors.iter().filter(|name| reason(name).is_empty()).collect();
    assert!(unexplained.is_empty(), "{unexplained:#?}");
    if one_in <= 1 && only.is_empty() {
        let stale: Vec<_> = explained.keys().filter(|name| !survivors.contains(**name)).collect();
        assert!(stale.is_empty(), "explained, and noticed: {stale:#?}");
    }
}

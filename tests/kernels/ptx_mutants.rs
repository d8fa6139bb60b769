//! Spoils one statement of a main loop at a time, and runs what is left on several layers and on three machines
//! with all of the simulator's checks on: each mutant must be noticed, by a check or by other bits, or stand in
//! `mutants.txt` with the reason for which it changes nothing. What the tests of `ptx_linear`, `ptx_decode` and
//! the gradients are worth.
//!
//! Statements are deleted, guards negated, each constant of an operand made one larger, `lt` made `le` and `ge`
//! `gt`. By default one in [`ONE_IN`]; all, and whether the list has no more than is true:
//! `FUSED_LORA_MUTANTS_ONE_IN=1 cargo test --release --test kernels ptx_mutants:: -- --nocapture`.

use std::collections::{BTreeMap, BTreeSet};

use fused_lora::reference::Sums;
use fused_lora::{DType, Major, Operand, Operation, Plan, Problem};
use ptx_sim::{CopyTiming, Module, Options, Schedule};
use test_support::sim::{Gpu, gpu};
use test_support::{Buffers, Case, Fill, Usage, assert_exact, results};

use super::ptx_decode::{machine, plan as decode_plan, tidy};

const ONE_IN: usize = 64;
const ONE_IN_VARIABLE: &str = "FUSED_LORA_MUTANTS_ONE_IN";
/// Spoils loops alone whose names have this in them.
const ONLY_VARIABLE: &str = "FUSED_LORA_MUTANTS_ONLY";

/// Of `linear` a plan's choice and its ranks.
const LINEAR: [(&str, usize); 5] = [
    ("direct/medium", 0),
    ("leader/medium", 16),
    ("leader/large", 16),
    ("leader/small", 16),
    ("recompute/medium", 32),
];
/// Where its loops begin and end: of leaders both.
const INTERIORS: [(&str, &str); 2] =
    [("INTERIOR:", "@p1 bra.uni INTERIOR;"), ("INTERIOR_RANKED:", "@p1 bra.uni INTERIOR_RANKED;")];

/// What is in a layer's operands.
#[derive(Clone, Copy, PartialEq)]
enum Data {
    /// All is exact, in the activations' type.
    Integers,
    /// With y in f32 and a precise shrunk: 16 bits would not show the low part of an adapter in f32.
    Uniform,
    /// The same, and for every other rank, from this one on, an element of a is infinite: shrunk has no low part.
    InfiniteRanks(usize),
    /// The same, and an element of a token of each eight: what lies beyond the rank must be made zero.
    InfiniteTokens,
    /// Every other element of a is infinite, and has no low part.
    InfiniteDown(usize),
    /// The same of b.
    InfiniteUp(usize),
}
use Data::{InfiniteDown, InfiniteRanks, InfiniteTokens, InfiniteUp, Integers, Uniform};

/// Layers for `decode`, [tokens, along the sum, columns, rank], and their machines: multiprocessors, and KiB of
/// shared memory, which say how many warps stream. Sums leave a step each number of its rows, columns a strip each
/// quarter, ranks a turn each eight.
const DECODE: [([usize; 4], u32, u32, Data); 22] = [
    // The second fragment of tokens half full; strips cut among CTAs.
    ([11, 515, 197, 16], 3, 70, Integers),
    // Several strips one after another in one CTA, no adapter.
    ([3, 201, 331, 0], 1, 163, Integers),
    // All ranks, in parts of more than a ring; a single warp.
    ([16, 582, 139, 64], 2, 48, Uniform),
    // A long sum for six warps in two CTAs.
    ([1, 2053, 84, 5], 2, 163, Uniform),
    // Whole steps of a sum, and a strip that is not whole.
    ([8, 128, 90, 35], 2, 99, Uniform),
    // Parts of shrunk as long as the ring, so that it wraps at the end.
    ([2, 380, 70, 6], 1, 48, Uniform),
    ([5, 250, 40, 15], 1, 70, Uniform),
    ([9, 47, 72, 17], 2, 48, Uniform),
    ([4, 21, 24, 27], 1, 48, Uniform),
    ([4, 23, 24, 44], 1, 48, Uniform),
    ([4, 25, 24, 52], 1, 48, Uniform),
    ([4, 30, 24, 60], 1, 48, Uniform),
    ([16, 100, 72, 16], 2, 48, InfiniteRanks(0)),
    ([16, 100, 72, 16], 2, 48, InfiniteRanks(1)),
    ([12, 36, 24, 4], 1, 48, InfiniteTokens),
    ([12, 36, 24, 5], 1, 48, InfiniteTokens),
    ([12, 36, 24, 6], 1, 48, InfiniteTokens),
    ([12, 36, 24, 7], 1, 48, InfiniteTokens),
    ([3, 40, 70, 64], 1, 48, InfiniteDown(0)),
    ([3, 40, 70, 64], 1, 48, InfiniteDown(1)),
    ([3, 40, 70, 64], 1, 48, InfiniteUp(0)),
    ([3, 40, 70, 64], 1, 48, InfiniteUp(1)),
];
/// Its loops: what streams w, what adds up a part of shrunk, what copies up, rounds shrunk, and multiplies both.
const STREAMS: [(&str, &str); 5] = [
    ("STEP:", "bra.uni STEP;"),
    ("SHRINK:", "bra.uni SHRINK;"),
    ("COPY:", "@p0 bra.uni COPY;"),
    ("ROUND:", "@p0 bra.uni ROUND;"),
    ("MEET:", "@p0 bra.uni MEET;"),
];

/// Layers for `gradient`, [tokens, k, n, rank]: two tiles of ranks, and less than one; tokens that leave a step
/// each eight of its rows, and one; so many that there are several partial sums.
const GRADIENT: [[usize; 4]; 6] = [
    [333, 136, 200, 72],
    [70, 75, 261, 17],
    [33, 264, 72, 45],
    [52, 40, 40, 20],
    [60, 24, 8, 33],
    [2600, 128, 128, 64],
];
/// Its loops: over tokens, and over partial sums.
const TOKENS: [(&str, &str); 2] = [("STEP:", "@p0 bra.uni STEP;"), ("ADD:", "@p0 bra.uni ADD;")];

/// What a text is run for.
#[derive(Clone)]
struct Layer {
    plan: Plan,
    case: Case,
    data: Data,
}

impl Layer {
    fn buffers(&self) -> Buffers {
        let mut buffers = self.case.aligned_buffers();
        let [tokens, rank] = [self.plan.problem().tokens(), self.plan.problem().rank()];
        match self.data {
            Integers | Uniform => {}
            InfiniteRanks(first) => {
                let a = buffers.at_mut(Operand::A);
                (first..rank).step_by(2).for_each(|of| a.set(of, 3, f32::NEG_INFINITY));
            }
            InfiniteTokens => {
                let x = buffers.at_mut(Operand::X);
                (3..tokens).step_by(8).for_each(|of| x.set(of, 1, f32::INFINITY));
            }
            InfiniteDown(first) | InfiniteUp(first) => {
                let of = |row: usize, col: usize| match (row + col) % 2 == first {
                    true => f32::NEG_INFINITY,
                    false => 1.0,
                };
                let is_down = matches!(self.data, InfiniteDown(_));
                let (with, without) =
                    if is_down { (Operand::A, Operand::B) } else { (Operand::B, Operand::A) };
                buffers.at_mut(Operand::X).fill(|_, _| 1.0);
                buffers.at_mut(with).fill(of);
                buffers.at_mut(without).fill(|_, _| 1.0);
            }
        }
        buffers
    }
}

/// A text that is spoilt, a place in it, and the layers that it is run for.
struct Loop {
    kernel: &'static str,
    layers: Vec<Layer>,
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

/// Those of `places` that the one text of `layers` has.
fn loops(
    kernel: &'static str,
    layers: &[Layer],
    places: &[(&str, &str)],
) -> impl Iterator<Item = Loop> {
    let source = |plan: &Plan| {
        let texts = plan.launches().iter().map(|of| of.source.as_ref().unwrap().text.to_string());
        let [text] = &texts.collect::<Vec<_>>()[..] else { panic!("{}", plan.explain()) };
        text.clone()
    };
    let text = source(&layers[0].plan);
    assert!(layers.iter().all(|of| source(&of.plan) == text), "{kernel}: layers of two texts");
    let lines: Vec<&str> = text.lines().collect();
    let of = |(from, to): &(&str, &str)| {
        let first = lines.iter().position(|line| line == from)?;
        let last = lines.iter().rposition(|line| line.ends_with(to)).unwrap();
        let name = lines[0].trim_start_matches("// ").split(':').next().unwrap();
        let name = format!("{name} {}", from.trim_end_matches(':'));
        let (layers, text) = (layers.to_vec(), text.clone());
        Some(Loop { kernel, layers, name, lines: first + 1..last + 1, text })
    };
    let found: Vec<Loop> = places.iter().filter_map(of).collect();
    assert!(!found.is_empty(), "{kernel}: no loop");
    found.into_iter()
}

/// Every loop of the lists, in both majors of w.
fn all_loops() -> Vec<Loop> {
    const BOTH: [Operation; 2] = [Operation::Forward, Operation::BackwardInput];
    let mut all = Vec::new();
    for (choice, rank) in LINEAR {
        let [tokens, deep, wide] = [120, 344, 400];
        for operation in BOTH {
            let (k, n) = if operation == Operation::Forward { (deep, wide) } else { (wide, deep) };
            let problem = Problem::new(operation, tokens, k, n, rank)
                .with_dtype(DType::Bf16)
                .with_scale(0.5)
                .with_bias(operation == Operation::Forward);
            let plan = Plan::choose(&problem, &gpu(3), &choice.parse().unwrap()).unwrap();
            let case = Case::new(problem, Fill::Integers, 7);
            all.extend(loops("linear", &[Layer { plan, case, data: Integers }], &INTERIORS));
        }
    }
    for (major, adapter) in [Major::Row, Major::Col]
        .into_iter()
        .flat_map(|major| [DType::Bf16, DType::F32].map(|adapter| (major, adapter)))
    {
        let layer = |(at, (sizes, sms, shared, data)): (usize, ([usize; 4], u32, u32, Data))| {
            let [m, k, n, rank] = sizes;
            let y = if data == Integers { DType::Bf16 } else { DType::F32 };
            let problem = Problem::new(Operation::Forward, m, k, n, rank)
                .with_dtype(DType::Bf16)
                .with_adapter(adapter)
                .with_output(y)
                .with_scale(0.5)
                .with_precise(!matches!(data, Integers | InfiniteDown(_) | InfiniteUp(_)))
                .with_keep_shrunk(rank > 0 && at != 4);
            // Rows of every operand lie farther apart than they are long, in one layer of two.
            let problem = tidy(problem, major, 8 * (at % 2));
            let plan = decode_plan(&problem, &machine(sms, shared << 10));
            let fill = if data == Integers { Fill::Integers } else { Fill::Uniform };
            Layer { plan, case: Case::new(problem, fill, 7 + at as u64), data }
        };
        // Without a rank the adapter is of the activations' type, whatever the caller says.
        let layers = DECODE
            .into_iter()
            .enumerate()
            .filter(|(_, (sizes, ..))| sizes[3] > 0 || adapter == DType::Bf16);
        let layers: Vec<_> = layers.map(layer).collect();
        all.extend(loops("decode", &layers, &STREAMS));
    }
    let layer = |(at, [m, k, n, rank]): (usize, [usize; 4])| {
        let problem = Problem::new(Operation::BackwardAdapter, m, k, n, rank)
            .with_dtype(DType::Bf16)
            .with_precise(at == 2);
        let problem = tidy(problem, Major::Row, 8 * (at % 2));
        let plan = Plan::new(&problem, &gpu(3)).unwrap();
        Layer { plan, case: Case::new(problem, Fill::Integers, 7 + at as u64), data: Integers }
    };
    let layers: Vec<Layer> = GRADIENT.into_iter().enumerate().map(layer).collect();
    all.extend(loops("gradient", &layers, &TOKENS));
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

/// What the outputs hold on a machine, or what a check says.
fn run(layer: &Layer, text: String, machine: &Options) -> Result<Buffers, String> {
    let mut buffers = layer.buffers();
    let mut gpu = Gpu::new(layer.plan.workspace_len());
    gpu.edit(move |_| text.clone());
    gpu.run(&layer.plan, &mut buffers, machine).map(|_| buffers)
}

fn bits(buffers: &Buffers) -> Vec<&[u8]> {
    buffers.stored.iter().map(|of| of.data.bytes()).collect()
}

impl Loop {
    /// What it leaves of each layer as it is: it is right, and ends within the budget on every machine.
    fn right(&self) -> Vec<Buffers> {
        let of = |layer: &Layer| {
            let Layer { plan, case, data } = layer;
            let before = layer.buffers();
            let expected = results(plan.problem(), Sums::TensorCore, &before);
            let all = machines().map(|machine| {
                let right = run(layer, self.text.clone(), &machine);
                let right = right.unwrap_or_else(|error| panic!("{}: {error}", self.name));
                right.assert_guards(&before);
                match data {
                    Integers => assert_exact(plan, &right, &expected, case),
                    Uniform => Usage::default().check(plan, &right, &expected, case),
                    // The reference sums infinities of both signs in another order.
                    _ => {}
                }
                right
            });
            all[1..].iter().for_each(|other| other.assert_same_bits(&all[0], &self.name));
            let [right, ..] = all;
            right
        };
        self.layers.iter().map(of).collect()
    }
}

impl Mutant<'_> {
    /// Under which it stands in `mutants.txt`: the texts of one template share their loops.
    fn name(&self) -> String {
        format!("{}: {}: {}", self.of.kernel, self.how, self.code)
    }

    /// Whether a layer on a machine comes out otherwise than in `right`; the number of the layer.
    fn noticed(&self, right: &[Buffers]) -> Option<usize> {
        let spoilt = |(at, line)| if at == self.line { &*self.spoilt } else { line };
        let text: Vec<&str> = self.of.text.lines().enumerate().map(spoilt).collect();
        let text = text.join("\n");
        if Module::parse("mutant", &text).is_err() {
            return Some(0);
        }
        let differs = |at: &usize| {
            machines().iter().any(|machine| {
                let run = run(&self.of.layers[*at], text.clone(), machine);
                run.map_or(true, |buffers| bits(&buffers) != bits(&right[*at]))
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
    let explained: BTreeMap<&str, &str> = include_str!("mutants.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(" = "))
        .collect();
    let (mut survivors, mut all, mut ran) = (BTreeSet::new(), 0, 0);
    for of in all_loops().iter().filter(|of| of.name.contains(&only)) {
        let right = of.right();
        let chosen: Vec<Mutant<'_>> = mutants(of)
            .into_iter()
            .filter(|_| {
                all += 1;
                all % one_in == 0
            })
            .collect();
        // Which layer notices how many.
        let mut by = vec![0; right.len()];
        for mutant in &chosen {
            match mutant.noticed(&right) {
                Some(layer) => by[layer] += 1,
                None => drop(survivors.insert(mutant.name())),
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
    if one_in == 1 && only.is_empty() {
        let stale: Vec<_> = explained.keys().filter(|name| !survivors.contains(**name)).collect();
        assert!(stale.is_empty(), "explained, and noticed: {stale:#?}");
    }
}

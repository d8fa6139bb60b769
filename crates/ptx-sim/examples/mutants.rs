//! Spoils one statement of a fixture at a time and sees who notices: every survivor must stand in
//! `mutants.txt` with the reason for which it is equivalent, or a rule is missing.
//!
//! ```text
//! cargo run --release -p ptx-sim --example mutants                  all, and the table for mutants.txt
//! cargo run --release -p ptx-sim --example mutants -- --seconds 60  as many as fit, in a shuffled order
//! cargo run --release -p ptx-sim --example mutants -- --only gemm_sm90a  those of one fixture
//! ```
//!
//! Statements are deleted, and perturbed: a guard negated, an integer constant one larger, `lt` made
//! `le` and `ge` made `gt`, a memory order weakened to `.relaxed`.

#[path = "../tests/common/mod.rs"]
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::styles::*;
use common::*;
use ptx_sim::{Chip, CopyTiming, Options, RunError, Schedule};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

type Runner = fn(&str, &Options) -> Result<(), RunError>;

/// From here on the kernels are for sm_90a.
const HOPPER: usize = 9;

const FIXTURES: [(&str, &str, Runner); 13] = [
    ("gemm_f32", GEMM_F32, |s, o| gemm_f32(s, (33, 17, 40), o).map(drop)),
    ("gemv", GEMV, |s, o| gemv(s, (7, 264), o).map(drop)),
    ("flags", FLAGS, |s, o| {
        flags(s, (5, 3, 4), o)?;
        flags_from(s, (5, 3, 4), u32::MAX, o)?;
        // One CTA at a time: nobody may wait for a later ticket.
        flags(s, (5, 3, 3), &Options { sms: 1, ..*o })
    }),
    ("gemm_bf16", GEMM_BF16, |s, o| {
        gemm_bf16(s, (100, 70, 136), o).map(drop)?;
        // Several CTAs, an odd edge, and a chunk row that k ends inside of.
        gemm_bf16(s, (131, 155, 40), o).map(drop)?;
        // An edge in every group of eight rows, and in every group of eight columns, even and odd.
        for m in [4, 12, 20, 28, 36, 44, 52, 60] {
            gemm_bf16(s, (m, 32, 8), o).map(drop)?;
        }
        for n in [34, 3, 42, 11, 50, 19, 58, 27] {
            gemm_bf16(s, (64, n, 8), o).map(drop)?;
        }
        Ok(())
    }),
    ("gemm_f16", GEMM_F16, |s, o| {
        gemm_f16(s, (32, 24, 48), o)?;
        gemm_f16(s, (16, 8, 16), o)?;
        gemm_f16(s, (16, 8, 288), o)
    }),
    ("histogram", HISTOGRAM, |s, o| histogram(s, 10_000 - 16, o)),
    ("philox", PHILOX, philox),
    ("scan", SCAN, |s, o| {
        scan(s, 1000, o)?;
        scan(s, 1536, &Options { sms: 1, ..*o })
    }),
    ("softmax", SOFTMAX, |s, o| {
        softmax(s, (5, 70), o)?;
        softmax(s, (9, 32), o)?;
        softmax(s, (3, 5), o)
    }),
    ("gemm_sm90a", hopper::GEMM, |s, o| {
        // More than twice around the ring, an edge in every direction, several tiles.
        hopper::gemm(s, (200, 134, 584), o).map(drop)?;
        // An edge in every group of eight rows, and in every group of eight columns.
        for m in [4, 12, 52, 60] {
            hopper::gemm(s, (m, 40, 8), o).map(drop)?;
        }
        for n in (0..16).map(|j| 8 * j + 2) {
            hopper::gemm(s, (64, n, 8), o).map(drop)?;
        }
        Ok(())
    }),
    ("gemm_pair_sm90a", hopper::GEMM_PAIR, |s, o| {
        let o = &Options { sms: 6, ..*o };
        hopper::gemm_pair(s, (300, 136, 648), o).map(drop)?;
        hopper::gemm_pair(s, (250, 120, 64), o).map(drop)
    }),
    ("split_pair_sm90", hopper::SPLIT_PAIR, |s, o| {
        hopper::split_pair(s, (200, 37), o)?;
        hopper::split_pair(s, (128, 1), o)
    }),
    ("publish_sm90", hopper::PUBLISH, |s, o| {
        hopper::publish(s, (3, 2, 5), &Options { sms: 5, ..*o })?;
        // One CTA at a time: nobody may wait for a later ticket.
        hopper::publish(s, (2, 3, 3), &Options { sms: 1, ..*o })
    }),
];

/// A statement that was spoilt: fixture, line, how, and the whole text.
struct Mutant {
    fixture: usize,
    line: usize,
    how: &'static str,
    /// The statement as it was.
    code: String,
    text: String,
}

impl Mutant {
    /// Under which it stands in `mutants.txt`.
    fn name(&self) -> String {
        format!("{}:{} {}: {}", FIXTURES[self.fixture].0, self.line + 1, self.how, self.code)
    }

    /// What noticed it, or nothing.
    fn killed_by(&self) -> Option<String> {
        let run = FIXTURES[self.fixture].2;
        for (schedule, copies) in [
            (Schedule::RoundRobin, CopyTiming::Late),
            (Schedule::Reverse, CopyTiming::Early),
            (Schedule::Random, CopyTiming::Random),
        ] {
            let chip = if self.fixture < HOPPER { Chip::SM_80 } else { Chip::SM_90 };
            let options = Options { chip, schedule, copies, budget: 300_000, ..Options::default() };
            match catch_unwind(|| run(&self.text, &options)) {
                Ok(Ok(())) => {}
                Ok(Err(RunError::Fault(fault))) => return Some(format!("{:?}", fault.kind)),
                Ok(Err(error)) => return Some(error.to_string()),
                Err(_) => return Some("wrong numbers, or refused by the decoder".into()),
            }
        }
        None
    }
}

fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default().trim()
}

/// The instructions of a line. Where several stand on one they are taken apart; in the kernels of sm_80
/// only those that stand alone are spoilt.
fn statements(line: &str, fixture: usize) -> Vec<&str> {
    let code = code(line);
    if !code.ends_with(';') || code.starts_with('.') {
        return Vec::new();
    }
    let all: Vec<&str> = code.split_inclusive(';').map(str::trim).collect();
    if all.len() > 1 && fixture < HOPPER { Vec::new() } else { all }
}

/// The statement with its last integer constant one larger.
fn larger(code: &str) -> Option<String> {
    let body = code.trim_end_matches(';');
    // Operands only: a constant follows a blank or a plus.
    let from = body.rfind([' ', '+'])? + 1;
    let digits: &str = &body[from..];
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let value: u64 = digits[..end].parse().ok()?;
    Some(format!("{}{}{};", &body[..from], value + 1, &digits[end..]))
}

fn all() -> Vec<Mutant> {
    let mut out = Vec::new();
    for (fixture, (_, source, _)) in FIXTURES.iter().enumerate() {
        let lines: Vec<&str> = source.lines().collect();
        let places = (0..lines.len())
            .flat_map(|at| statements(lines[at], fixture).into_iter().map(move |code| (at, code)));
        for (at, code) in places {
            let mut spoilt = vec![("deleted", String::new())];
            if let Some(rest) = code.strip_prefix("@!") {
                spoilt.push(("guard negated", format!("@{rest}")));
            } else if let Some(rest) = code.strip_prefix('@') {
                spoilt.push(("guard negated", format!("@!{rest}")));
            }
            spoilt.extend(larger(code).map(|text| ("constant + 1", text)));
            for (from, to) in [(".lt.", ".le."), (".ge.", ".gt.")] {
                if code.starts_with("setp") && code.contains(from) {
                    spoilt.push(("edge moved", code.replacen(from, to, 1)));
                }
            }
            for order in [".acquire.", ".release.", ".acq_rel."] {
                if code.contains(order) && !code.starts_with("fence") {
                    spoilt.push(("order relaxed", code.replacen(order, ".relaxed.", 1)));
                }
            }
            for (how, statement) in spoilt {
                let spoilt = lines[at].replacen(code, &statement, 1);
                let text: Vec<&str> = (0..lines.len())
                    .map(|i| if i == at { spoilt.as_str() } else { lines[i] })
                    .collect();
                let code = code.to_owned();
                out.push(Mutant { fixture, line: at, how, code, text: text.join("\n") });
            }
        }
    }
    out
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (mut limit, mut only) = (None, None);
    match args.as_slice() {
        [] => {}
        [flag, seconds] if flag == "--seconds" => {
            limit = seconds.parse().ok().map(Duration::from_secs);
        }
        [flag, name] if flag == "--only" => only = Some(name.as_str()),
        _ => {
            eprintln!("takes nothing, --seconds N, or --only FIXTURE");
            return ExitCode::FAILURE;
        }
    }
    // `name = reason`; a name without a reason is explained by nobody.
    let explained: BTreeMap<&str, &str> = include_str!("mutants.txt")
        .lines()
        .filter(|l| !l.starts_with('#'))
        .filter_map(|l| l.split_once(" = "))
        .collect();
    std::panic::set_hook(Box::new(|_| {}));
    let start = Instant::now();
    let mut mutants = all();
    mutants.retain(|m| only.is_none_or(|only| FIXTURES[m.fixture].0 == only));
    if limit.is_some() {
        // Always the same order for the same fixtures.
        let seed = mutants.len() as u64;
        mutants.shuffle(&mut StdRng::seed_from_u64(seed));
    }
    let (mut killed, mut survivors) = (BTreeMap::new(), BTreeSet::new());
    let mut done = 0;
    for mutant in &mutants {
        if limit.is_some_and(|limit| start.elapsed() > limit) {
            break;
        }
        done += 1;
        match mutant.killed_by() {
            Some(by) => *killed.entry((FIXTURES[mutant.fixture].0, by)).or_insert(0) += 1,
            None => {
                survivors.insert(mutant.name());
            }
        }
    }
    println!("# {done} of {} mutants; {} killed by", mutants.len(), done - survivors.len());
    for ((fixture, by), count) in &killed {
        println!("#   {fixture:<10} {count:>4}  {by}");
    }
    println!("# {} survive:", survivors.len());
    let mut wrong = Vec::new();
    for name in &survivors {
        let reason = explained.get(name.as_str()).copied().unwrap_or("");
        println!("{name} = {reason}");
        if reason.is_empty() {
            wrong.push(format!("survives and is not explained: {name}"));
        }
    }
    if limit.is_none() && only.is_none() {
        let stale = explained.keys().filter(|name| !survivors.contains(**name));
        wrong.extend(stale.map(|name| format!("explained and does not survive: {name}")));
    }
    wrong.iter().for_each(|line| eprintln!("{line}"));
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

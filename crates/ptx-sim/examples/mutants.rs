//! Deletes one statement of a fixture at a time and lists what nobody noticed:
//! `cargo run --release -p ptx-sim --example mutants`. A survivor is a deletion after which the
//! kernel still gives the right numbers and breaks no check: either equivalent, or a missing rule.

#[path = "../tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::panic::catch_unwind;

use common::*;
use ptx_sim::{CopyTiming, Options, RunError, Schedule};

/// A statement worth deleting: an instruction that stands on a line of its own.
fn is_statement(line: &str) -> bool {
    let line = line.trim();
    let code = line.split("//").next().unwrap_or_default().trim();
    code.ends_with(';') && !code.starts_with('.') && code.matches(';').count() == 1
}

fn main() {
    type Runner = fn(&str, &Options) -> Result<(), RunError>;
    let fixtures: [(&str, &str, Runner); 4] = [
        ("gemm_f32", GEMM_F32, |s, o| gemm_f32(s, (33, 17, 40), o).map(drop)),
        ("gemv", GEMV, |s, o| gemv(s, (7, 264), o).map(drop)),
        ("flags", FLAGS, |s, o| flags(s, (5, 3, 4), o)),
        ("gemm_bf16", GEMM_BF16, |s, o| {
            gemm_bf16(s, (100, 70, 136), o).map(drop)?;
            // Several CTAs, an odd edge, and a chunk row that k ends inside of.
            gemm_bf16(s, (131, 155, 40), o).map(drop)
        }),
    ];
    std::panic::set_hook(Box::new(|_| {}));
    for (name, source, run) in fixtures {
        let lines: Vec<&str> = source.lines().collect();
        let (mut killed, mut survivors) = (BTreeMap::new(), Vec::new());
        for at in (0..lines.len()).filter(|&i| is_statement(lines[i])) {
            let mutant: Vec<&str> =
                (0..lines.len()).map(|i| if i == at { "" } else { lines[i] }).collect();
            let mutant = mutant.join("\n");
            let mut by = None;
            for (schedule, copies) in [
                (Schedule::RoundRobin, CopyTiming::Late),
                (Schedule::Reverse, CopyTiming::Early),
                (Schedule::Random, CopyTiming::Random),
            ] {
                let options = Options { schedule, copies, budget: 300_000, ..Options::default() };
                by = match catch_unwind(|| run(&mutant, &options)) {
                    Ok(Ok(())) => None,
                    Ok(Err(RunError::Fault(fault))) => Some(format!("{:?}", fault.kind)),
                    Ok(Err(error)) => Some(format!("{error:?}")),
                    Err(_) => Some("wrong numbers, or refused by the decoder".into()),
                };
                if by.is_some() {
                    break;
                }
            }
            match by {
                Some(by) => *killed.entry(by).or_insert(0) += 1,
                None => survivors.push((at + 1, lines[at].trim())),
            }
        }
        println!("{name}: killed {killed:?}; survived {}", survivors.len());
        for (line, text) in survivors {
            println!("    {line}: {text}");
        }
    }
}

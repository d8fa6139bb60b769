//! Writes down the bits of every run, so that machines which differ in order and timing alone can
//! be held against each other: of one plan and the same inputs they must give the same bits.
//! `tests/simulated-cuda-matrix` compares the files.

use std::fs::OpenOptions;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;

use fused_lora::Plan;

use crate::Buffers;

/// Names the file; without it nothing is written.
const BITS_VARIABLE: &str = "FUSED_LORA_BITS";

/// Adds a line: the plan, a hash of the inputs and problem, and a hash of the results.
pub(crate) fn note(plan: &Plan, before: &Buffers, after: &Buffers) {
    let Some(path) = std::env::var_os(BITS_VARIABLE) else { return };
    let what = format!("{:?} {:?}", plan.problem(), plan.capabilities());
    let (inputs, results) = (hash(&what, before), hash("", after));
    let line = format!("{} {inputs:016x} {results:016x}\n", plan.choice());
    let file = OpenOptions::new().create(true).append(true).open(&path);
    // One write a line: tests run on several threads.
    let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
    written.unwrap_or_else(|error| panic!("{BITS_VARIABLE}={}: {error}", path.display()));
}

fn hash(what: &str, buffers: &Buffers) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    for stored in &buffers.stored {
        stored.data.bytes().hash(&mut hasher);
    }
    hasher.finish()
}

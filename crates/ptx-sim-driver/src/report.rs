//! What the stand-in says beside its return codes: lines on stderr, and a file of counters.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use ptx_sim::{Counters, Fault, FaultKind};

use crate::code::Code;

/// One line on stderr.
pub(crate) fn line(text: &str) {
    eprintln!("ptx-sim-driver: {text}");
}

/// What a failed check is to the caller.
pub(crate) fn code_of(kind: FaultKind) -> Code {
    match kind {
        FaultKind::OutOfBounds => Code::ILLEGAL_ADDRESS,
        FaultKind::Misaligned => Code::MISALIGNED_ADDRESS,
        FaultKind::Deadlock | FaultKind::Budget => Code::LAUNCH_TIMEOUT,
        _ => Code::LAUNCH_FAILED,
    }
}

/// A failed check in full, with what replays it.
pub(crate) fn fault(fault: &Fault) {
    line(&format!("{}: {fault}", code_of(fault.kind)));
    if fault.line > 0 {
        line(&format!(
            "the launch alone, under the same schedule and timing: {}LAUNCH_SEED={}",
            crate::config::PREFIX,
            fault.seed
        ));
    }
}

/// Appends a launch's counters to the file that the environment names.
pub(crate) fn counters(path: &Path, title: &str, counters: &Counters) {
    let text = format!("== {title}\n{counters}");
    let written = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    if let Err(error) = written {
        line(&format!("counters: {}: {error}", path.display()));
    }
}

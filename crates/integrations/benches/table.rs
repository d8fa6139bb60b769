//! What heads the table of a bench: machine, versions, command. Used by both crates' `benches/step`.

use std::fmt::Write;
use std::process::Command;

/// `title`, what the bench says of itself, and where and when it ran.
pub(crate) fn head(title: &str, of_bench: &[(&str, String)], command: &str) -> String {
    let output = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok();
        let text = output.filter(|of| of.status.success()).map(|of| of.stdout);
        text.map_or("unknown".into(), |of| String::from_utf8_lossy(&of).trim().to_owned())
    };
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = file("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |of| of.trim_start_matches([':', ' ', '\t']));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = file("/proc/loadavg");
    let load = load.split_whitespace().next().unwrap_or("unknown");
    let mut text = format!("# {title}\n\n");
    let machine = [
        ("CPU", format!("{model}, {cores} cores available; load {load} when the table was done")),
        ("rustc", output("rustc", &["--version"])),
        ("commit", output("git", &["describe", "--always", "--dirty"])),
        ("date", output("date", &["-u", "+%Y-%m-%d"])),
        ("command", format!("`{command}`")),
    ];
    for (what, value) in of_bench.iter().chain(&machine) {
        let _ = writeln!(text, "- {what}: {value}");
    }
    text
}

//! Where, when and with what a table was measured. Called by `ratios`, `cuda_layer` and
//! `table`. `FUSED_LORA_COMMIT` names the commit where there is no checkout.

use std::process::Command;

/// Where `bench` ran, as lines of Markdown; `device` is a device in words.
pub fn describe(device: &str, bench: &str) -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split_once(": "))
        .map_or(UNKNOWN, |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let features = match (cfg!(feature = "cuda"), cfg!(feature = "wgpu")) {
        (true, true) => "",
        (false, false) => "--no-default-features ",
        (true, false) => "--no-default-features --features cuda ",
        (false, true) => "--no-default-features --features wgpu ",
    };
    let cublas = if cfg!(feature = "cublas") { "--features cublas " } else { "" };
    // Cargo names itself to what it runs; else somebody started the executable.
    let program = match std::env::var_os("CARGO") {
        Some(_) => format!("cargo bench {features}{cublas}--bench {bench} --"),
        None => bench.to_owned(),
    };
    let arguments = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let command = [program].into_iter().chain(arguments).collect::<Vec<_>>().join(" ");
    let lines = [
        ("device", device.to_owned()),
        ("CPU", format!("{model}, {cores} cores available")),
        ("OS", system()),
        ("rustc", built("RUSTC", option_env!("RUSTC").unwrap_or("rustc"), &["--version"])),
        ("crate", concat!("fused-lora ", env!("CARGO_PKG_VERSION")).to_owned()),
        ("commit", built("COMMIT", "git", &["describe", "--always", "--dirty"])),
        ("date", output("date", &["-u", "+%Y-%m-%d"])),
        ("command", format!("`{command}`")),
    ];
    lines.map(|(what, value)| format!("- {what}: {value}\n")).concat()
}

/// The distribution, where it says so, or the kernel's family.
fn system() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or(std::env::consts::OS, |name| name.trim_matches('"')).to_owned()
}

/// What a program prints, or what the bundle was told where this was built (`tests/bundle/make`).
fn built(name: &str, program: &str, arguments: &[&str]) -> String {
    std::env::var(format!("FUSED_LORA_{name}")).unwrap_or_else(|_| output(program, arguments))
}

/// What is said where nobody knows.
pub const UNKNOWN: &str = "unknown";

/// What a program prints, or that nobody knows.
pub fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().ok();
    let output = output.filter(|output| output.status.success());
    output.map_or(UNKNOWN.into(), |of| String::from_utf8_lossy(&of.stdout).trim().to_owned())
}

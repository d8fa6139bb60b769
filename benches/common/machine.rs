//! Where, when and with what a table was measured. Called by `ratios` and `cpu_gemm`.

use std::process::Command;

use fused_lora::Device;

/// Where `bench` ran, as lines of Markdown.
pub fn describe(device: &Device, bench: &str) -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split_once(": "))
        .map_or("unknown", |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let command = std::env::args().skip(1).filter(|arg| arg != "--bench").collect::<Vec<_>>();
    let features = match (cfg!(feature = "cuda"), cfg!(feature = "wgpu")) {
        (true, true) => "",
        (false, false) => "--no-default-features ",
        (true, false) => "--no-default-features --features cuda ",
        (false, true) => "--no-default-features --features wgpu ",
    };
    let lines = [
        ("device", device.description()),
        ("CPU", format!("{model}, {cores} cores available")),
        ("OS", system()),
        ("rustc", built("RUSTC", option_env!("RUSTC").unwrap_or("rustc"), &["--version"])),
        ("crate", concat!("fused-lora ", env!("CARGO_PKG_VERSION")).to_owned()),
        ("commit", built("COMMIT", "git", &["describe", "--always", "--dirty"])),
        ("date", output("date", &["-u", "+%Y-%m-%d"])),
        ("command", format!("`cargo bench {features}--bench {bench} -- {}`", command.join(" "))),
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

/// What a program prints, or that nobody knows.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().ok();
    let output = output.filter(|output| output.status.success());
    output.map_or("unknown".into(), |of| String::from_utf8_lossy(&of.stdout).trim().to_owned())
}

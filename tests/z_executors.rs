//! Runs last and says which executors this run could reach, and which not and why: a green
//! run on a machine without a GPU must not look like one with. No harness, so that it prints
//! under plain `cargo test`. `FUSED_LORA_REQUIRE=cpu,wgpu:llvmpipe` makes an absent one a
//! failure.

use std::process::ExitCode;

use fused_lora::Device;

/// Every name that a device may have; `Device::available` adds what it knows.
const NAMES: [&str; 3] = ["cuda", "wgpu", "cpu"];

/// Names, separated by commas, of devices without which this run counts as a failure.
const REQUIRE_VARIABLE: &str = "FUSED_LORA_REQUIRE";

fn main() -> ExitCode {
    let mut names: Vec<String> = NAMES.map(str::to_owned).to_vec();
    names.extend(Device::available().into_iter().filter(|name| !NAMES.contains(&name.as_str())));
    println!("\nexecutors of this run:");
    for name in names {
        match Device::open(&name) {
            Ok(device) => println!("  {name} reached: {:?}", device.capabilities()),
            Err(error) => println!("  {name} NOT reached: {error}"),
        }
    }
    let required = std::env::var(REQUIRE_VARIABLE).unwrap_or_default();
    let required = required.split(',').map(str::trim).filter(|name| !name.is_empty());
    let absent: Vec<&str> = required.filter(|name| Device::open(name).is_err()).collect();
    if absent.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("{REQUIRE_VARIABLE}: not reached: {}", absent.join(", "));
    ExitCode::FAILURE
}

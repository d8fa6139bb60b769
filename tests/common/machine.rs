//! Runs a test's body where there is a CUDA device: in this process, if its driver is there and
//! no particular machine is asked for, else in a process of its own with the simulated driver
//! on the library path. One process is one machine.

use std::path::PathBuf;
use std::process::Command;

use fused_lora::cuda::probe;

/// Names the body that a child process is to run.
const CASE: &str = "FUSED_LORA_TEST_CASE";
/// What a child says when its body has come to its end.
const RAN: &str = "fused-lora test case ran to its end";
/// The folder of the simulated driver; by default cargo's, beside the tests.
const DRIVER: &str = "FUSED_LORA_SIMULATED_DRIVER";

/// What kind of machine a body needs.
#[derive(Debug, Clone, Copy)]
pub enum Machine<'a> {
    /// Any with a CUDA device.
    Any,
    /// A simulated one with these variables (`PTX_SIM_` left out).
    Simulated(&'a [(&'a str, &'a str)]),
    /// One on which no driver is found.
    WithoutDriver,
}

/// What a body's process said.
#[derive(Debug, Default)]
pub struct Said {
    pub stderr: String,
}

/// Runs `body` on `machine`. `test` is the calling test's name; `case` tells its bodies apart.
/// In a child process only the body that it was started for does anything.
pub fn on(machine: Machine<'_>, test: &str, case: &str, body: impl FnOnce()) -> Said {
    let name = format!("{test}/{case}");
    if let Ok(wanted) = std::env::var(CASE) {
        if wanted == name {
            body();
            eprintln!("{RAN}");
            std::process::exit(0);
        }
        return Said::default();
    }
    if matches!(machine, Machine::Any) && probe().is_ok() {
        body();
        return Said::default();
    }
    let mut child = Command::new(std::env::current_exe().expect("the test knows where it is"));
    child.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    let own = matches!(machine, Machine::Simulated(_));
    for (variable, _) in std::env::vars_os() {
        if own && variable.to_string_lossy().starts_with("PTX_SIM_") {
            child.env_remove(variable);
        }
    }
    let folder = match machine {
        // Not a folder of libraries.
        Machine::WithoutDriver => std::env::temp_dir().join("no-driver"),
        _ => driver(),
    };
    if let Machine::Simulated(variables) = machine {
        child.envs(variables.iter().map(|(name, value)| (format!("PTX_SIM_{name}"), value)));
    }
    let output = child
        .env(CASE, &name)
        .env("LD_LIBRARY_PATH", folder)
        .output()
        .expect("the test can be started again");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let ran = output.status.success() && stderr.contains(RAN);
    assert!(ran, "{name} on {machine:?}: {}\n{stdout}\n{stderr}", output.status);
    Said { stderr }
}

/// The folder with the simulated driver under a driver's names.
fn driver() -> PathBuf {
    if let Some(folder) = std::env::var_os(DRIVER) {
        return folder.into();
    }
    let test = std::env::current_exe().expect("the test knows where it is");
    let folder = test.parent().expect("the test lies in a folder");
    let built = folder.join("libptx_sim_driver.so");
    assert!(built.exists(), "{} is missing; {DRIVER} names another folder", built.display());
    let folder = folder.join("simulated-driver");
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    for name in ["libcuda.so", "libcuda.so.1"] {
        let link = folder.join(name);
        match std::os::unix::fs::symlink(&built, &link) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => panic!("{error}"),
            _ => {}
        }
    }
    folder
}

/// The machines on which order and timing differ.
pub const ORDERS: [&[(&str, &str)]; 4] = [
    &[("SCHEDULE", "round-robin"), ("COPIES", "late"), ("QUEUES", "late"), ("SMS", "2")],
    &[
        ("SCHEDULE", "random"),
        ("COPIES", "random"),
        ("QUEUES", "random"),
        ("SMS", "3"),
        ("SEED", "2"),
    ],
    &[("SCHEDULE", "one-far"), ("COPIES", "early"), ("QUEUES", "early"), ("SMS", "1")],
    &[
        ("SCHEDULE", "reverse"),
        ("COPIES", "late"),
        ("QUEUES", "random"),
        ("SMS", "7"),
        ("SEED", "4"),
    ],
];

/// On every one of [`ORDERS`], or, where a driver is there, on it.
pub fn on_all(test: &str, body: impl Fn()) {
    if std::env::var_os(CASE).is_none() && probe().is_ok() {
        on(Machine::Any, test, "", &body);
        return;
    }
    for (at, order) in ORDERS.into_iter().enumerate() {
        on(Machine::Simulated(order), test, &at.to_string(), &body);
    }
}

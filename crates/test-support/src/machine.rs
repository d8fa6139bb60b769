//! Runs a test's body where there is a CUDA device: in this process, if its driver is there and
//! no particular machine is asked for, else in a process of its own with the simulated driver
//! on the library path. One process is one machine.

// The stand-in's own tests are started in the same way.
#[path = "../../ptx-sim-driver/tests/common/process.rs"]
mod process;

use fused_lora::cuda::probe;
use process::{driver, is_child};

/// The path of the test that it stands in, as the harness knows it.
#[macro_export]
macro_rules! test_name {
    () => {{
        fn here() {}
        $crate::machine::enclosing(here)
    }};
}

/// The function around `here`, without its crate; closures aside.
pub fn enclosing<F>(_here: F) -> &'static str {
    let path = std::any::type_name::<F>().trim_end_matches("::here");
    let path = path.trim_end_matches("::{{closure}}");
    path.split_once("::").map_or(path, |(_, path)| path)
}

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

/// Runs `body` on `machine`, to its end; returns what its process said on stderr. `test` is the
/// calling test's [`test_name!`]; `case` tells its bodies apart. In a child process only the body that it
/// was started for does anything.
pub fn on(machine: Machine<'_>, test: &str, case: &str, body: impl FnOnce()) -> String {
    if matches!(machine, Machine::Any) && !is_child() && probe().is_ok() {
        body();
        return String::new();
    }
    let said = match machine {
        Machine::Any => process::run(test, case, None, &driver(), body),
        Machine::Simulated(variables) => process::run(test, case, Some(variables), &driver(), body),
        // Not a folder of libraries.
        Machine::WithoutDriver => {
            process::run(test, case, None, &std::env::temp_dir().join("no-driver"), body)
        }
    };
    assert!(said.ok, "{}\n{}\n{}", said.case, said.stdout, said.stderr);
    said.stderr
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
    if !is_child() && probe().is_ok() {
        on(Machine::Any, test, "", &body);
        return;
    }
    for (at, order) in ORDERS.into_iter().enumerate() {
        on(Machine::Simulated(order), test, &at.to_string(), &body);
    }
}

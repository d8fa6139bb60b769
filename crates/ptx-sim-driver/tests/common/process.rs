//! Runs a test's body in a process of its own, with a driver on the library path and the
//! environment of one machine: one process is one machine. For the tests of this crate and, by
//! `test_support::machine`, of the CUDA executor.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Names the body that a child process is to run.
const CASE: &str = "FUSED_LORA_TEST_CASE";
/// What a child says when its body has come to its end.
const RAN: &str = "the body of this test has run to its end";
/// The folder of the stand-in under a driver's names; by default one beside the tests.
const DRIVER: &str = "FUSED_LORA_SIMULATED_DRIVER";

/// What a child process said.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// Test, body and machine.
    pub(crate) case: String,
    /// The body has run to its end.
    pub(crate) ok: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// In a child process: what follows a body in its test is the parent's.
pub(crate) fn is_child() -> bool {
    std::env::var_os(CASE).is_some()
}

/// Runs `body` in a process of its own that looks for drivers in `folder`, on the machine that
/// `variables` describe (names without the prefix), or the one of this environment. `test` is the
/// calling test's name; `case` tells its bodies apart. In a child process only the body that it
/// was started for does anything.
pub(crate) fn run(
    test: &str,
    case: &str,
    variables: Option<&[(&str, &str)]>,
    folder: &Path,
    body: impl FnOnce(),
) -> Said {
    let name = format!("{test}/{case}");
    if let Ok(wanted) = std::env::var(CASE) {
        if wanted == name {
            body();
            eprintln!("{RAN}");
            std::process::exit(0);
        }
        return Said { case: name, ok: true, ..Said::default() };
    }
    let mut child = Command::new(std::env::current_exe().expect("the test knows where it is"));
    let path = format!("{}{test}", parent());
    child.args(["--exact", &path, "--nocapture", "--test-threads=1"]);
    if let Some(variables) = variables {
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("PTX_SIM_") {
                child.env_remove(variable);
            }
        }
        child.envs(variables.iter().map(|(name, value)| (format!("PTX_SIM_{name}"), value)));
    }
    let output = child
        .env(CASE, &name)
        .env("LD_LIBRARY_PATH", folder)
        .output()
        .expect("the test can be started again");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let ok = output.status.success() && stderr.contains(RAN);
    let case = format!("{name} {}: {}", describe(variables), output.status);
    Said { case, ok, stdout: String::from_utf8_lossy(&output.stdout).into_owned(), stderr }
}

fn describe(variables: Option<&[(&str, &str)]>) -> String {
    variables.map_or("of this environment".to_owned(), |of| format!("{of:?}"))
}

/// The path of the module whose `common` this is, as test names begin with it: empty in an
/// executable of one test file.
fn parent() -> &'static str {
    let inner = module_path!().split_once("::").map_or("", |(_, inner)| inner);
    inner.find("common::").map_or("", |end| &inner[..end])
}

/// The folder that holds the stand-in under a driver's names, as users place it.
pub(crate) fn driver() -> PathBuf {
    if let Some(folder) = std::env::var_os(DRIVER) {
        return folder.into();
    }
    let test = std::env::current_exe().expect("the test knows where it is");
    let deps = test.parent().expect("the test lies in a folder");
    // Cargo builds the library before the tests, into the same folder.
    let built = deps.join("libptx_sim_driver.so");
    assert!(built.exists(), "{} is missing; {DRIVER} names another folder", built.display());
    let folder = deps.join("simulated-driver");
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    for name in ["libcuda.so", "libcuda.so.1"] {
        match std::os::unix::fs::symlink(&built, folder.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => panic!("{error}"),
            _ => {}
        }
    }
    folder
}

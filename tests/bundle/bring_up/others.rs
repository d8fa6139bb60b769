//! Stages 8, 9 and 10, which run other programs: the bundle's tests of streams and graphs, compute-sanitizer over
//! ten cases, the bench with the design's figures, and a PyTorch user's ways of doing the same. Called
//! by `main`; they lie beside this executable, and one folder up.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::device::Card;
use crate::{Options, Result};

/// What compute-sanitizer exits with when it has found something.
const FOUND: i32 = 86;
const TOOLS: [&str; 4] = ["memcheck", "racecheck", "synccheck", "initcheck"];

/// An executable of the bundle.
fn beside(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    match path.is_file() {
        true => Ok(path),
        false => Err(format!("{} is missing", path.display()).into()),
    }
}

/// Runs a program to its end, its words into this stage's.
fn ran(command: &mut Command) -> Result {
    let status = command.status()?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {status}").into()),
    }
}

/// Stage 8: graphs cold and warm, four streams at once, a context that comes again.
pub(crate) fn order(options: &Options) -> Result {
    let mut tests = Command::new(beside("tests")?);
    tests.args(["cuda::", "cuda_plans::", "--test-threads=1"]);
    if let Some(one_in) = options.scale.of(None, Some("64")) {
        tests.env("FUSED_LORA_ONE_IN", one_in);
    }
    let Output { status, stdout, stderr } = tests.output()?;
    let said = String::from_utf8_lossy(&stdout);
    eprint!("{said}{}", String::from_utf8_lossy(&stderr));
    let result = said.lines().find(|line| line.starts_with("test result:")).unwrap_or("no result");
    println!("* streams, graphs, contexts: {result}");
    // A filter that fits no test passes.
    match status.success() && !result.contains(" 0 passed") {
        true => Ok(()),
        false => Err(format!("tests of the bundle: {status}").into()),
    }
}

/// Where compute-sanitizer is: on PATH, in a toolkit, or beside a profiler.
pub(crate) fn compute_sanitizer() -> Option<PathBuf> {
    let name = "compute-sanitizer";
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join(name));
    let toolkits = ["/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer", "/opt/cuda/bin"];
    on_path.chain(toolkits.map(|folder| Path::new(folder).join(name))).find(|file| file.is_file())
}

/// Stage 9. Where the tool is missing, or refuses the machine, the cases run without it, and that is said.
pub(crate) fn sanitizer(options: &Options) -> Result {
    let bring_up = std::env::current_exe()?;
    let mut arguments = vec!["--stage".to_owned(), "cases".to_owned()];
    arguments.extend(["--scale".to_owned(), options.scale.of("full", "small").to_owned()]);
    ran(Command::new(&bring_up).args(&arguments))?;
    let Some(sanitizer) = compute_sanitizer() else {
        println!("* compute-sanitizer is not here: ten cases ran without it");
        return Ok(());
    };
    let mut found = Vec::new();
    for tool in TOOLS {
        let mut command = Command::new(&sanitizer);
        command.args(["--tool", tool, "--error-exitcode", &FOUND.to_string()]);
        let Output { status, stdout, stderr } = command.arg(&bring_up).args(&arguments).output()?;
        let said = [stdout, stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        eprintln!("{tool}: {status}\n{said}");
        let last = said.lines().rfind(|line| line.contains("SUMMARY")).unwrap_or("no summary");
        match status.code() {
            Some(0) => println!("* {tool}: {last}"),
            Some(FOUND) if !said.contains("Device not supported") => {
                println!("* {tool}: {last}");
                found.push(tool);
            }
            // The machine, or the tool's own start: the cases passed without it.
            _ => println!("* {tool} does not work here: {status}"),
        }
    }
    match found.is_empty() {
        true => Ok(()),
        false => Err(format!("compute-sanitizer: {}", found.join(", ")).into()),
    }
}

/// What a Python that has `module` says to an expression.
pub(crate) fn python_with(module: &str, expression: &str) -> Option<String> {
    let script = format!("import {module}; print({expression})");
    let said = Command::new("python3").args(["-c", &script]).output().ok()?;
    said.status.success().then(|| String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

/// Stage 10: our figures, and beside them those of PyTorch, where it is.
pub(crate) fn goals(options: &Options) -> Result {
    let simulated = Card::open()?.is_simulated()?;
    let mut bench = Command::new(beside("cuda_layer")?);
    bench.args(options.scale.of(&["--goals"][..], &["--quick", "--direction", "forward"][..]));
    bench.arg("--out").arg(&options.out);
    ran(&mut bench)?;
    let pages = || -> Result<Vec<PathBuf>> {
        let files = std::fs::read_dir(&options.out)?.map(|of| Ok(of?.path()));
        files.collect()
    };
    let is_page = |path: &&PathBuf| path.extension().is_some_and(|of| of == "md");
    for page in pages()?.iter().filter(is_page) {
        for row in std::fs::read_to_string(page)?.lines().filter(|line| line.starts_with('|')) {
            println!("* {row}");
        }
    }
    let script = std::env::current_exe()?.with_file_name("../peers.py");
    if python_with("torch", "1").is_none() {
        println!("* PyTorch is not here: no figures of it");
        return Ok(());
    }
    let mut peers = Command::new("python3");
    peers.arg(&script).arg(options.scale.of("--quick", "--smoke"));
    // PyTorch knows no simulated card.
    if simulated {
        peers.args(["--device", "cpu"]);
    }
    let Output { status, stdout, stderr } = peers.output()?;
    std::fs::write(options.out.join("peers.csv"), &stdout)?;
    eprint!("{}", String::from_utf8_lossy(&stderr));
    String::from_utf8_lossy(&stdout).lines().for_each(|row| println!("* {row}"));
    match status.success() {
        true => Ok(()),
        false => Err(format!("peers.py: {status}").into()),
    }
}

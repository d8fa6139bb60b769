//! With `FUSED_LORA_CHECK=1` the build also assembles every text with the ptxas that
//! `FUSED_LORA_PTXAS` names, and what ptxas refuses fails it by template file and line. Called by
//! build.rs; without the variable it does nothing at all.
//!
//! Statements of a template carry their place in a comment while they are rendered. The comments
//! are taken out of what is embedded, so that a checked build embeds the same bytes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, io, thread};

const OPEN: &str = "/*@";
const CLOSE: &str = "*/";

pub(crate) struct Check {
    ptxas: PathBuf,
    texts: Vec<PathBuf>,
}

impl Check {
    /// Where the environment asks for it.
    pub(crate) fn from_env() -> Result<Option<Check>, String> {
        println!("cargo::rerun-if-env-changed=FUSED_LORA_CHECK");
        println!("cargo::rerun-if-env-changed=FUSED_LORA_PTXAS");
        if env::var_os("FUSED_LORA_CHECK").is_none_or(|value| value.is_empty() || value == "0") {
            return Ok(None);
        }
        let ptxas = env::var_os("FUSED_LORA_PTXAS");
        let ptxas = ptxas.ok_or("FUSED_LORA_CHECK is set, FUSED_LORA_PTXAS names no ptxas")?;
        Ok(Some(Check::new(ptxas.into())))
    }

    pub(crate) fn new(ptxas: PathBuf) -> Check {
        Check { ptxas, texts: Vec::new() }
    }

    /// Keeps a marked text to be assembled; what is embedded of it.
    pub(crate) fn add(&mut self, folder: &Path, name: &str, marked: &str) -> io::Result<String> {
        let file = folder.join(format!("{name}.marked.ptx"));
        fs::write(&file, marked)?;
        self.texts.push(file);
        Ok(without_marks(marked))
    }

    /// Assembles all that was added, on all cores.
    pub(crate) fn run(&self) -> Result<(), String> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut refused = Vec::new();
            while let Some(text) = self.texts.get(next.fetch_add(1, Ordering::Relaxed)) {
                refused.extend(self.assemble(text).err());
            }
            refused
        };
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let mut refused: Vec<String> = thread::scope(|scope| {
            let all: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
            let joined =
                all.into_iter().map(|of| of.join().unwrap_or_else(|_| vec!["a panic".into()]));
            joined.flatten().collect()
        });
        refused.sort_unstable();
        if refused.is_empty() { Ok(()) } else { Err(refused.join("\n")) }
    }

    fn assemble(&self, text: &Path) -> Result<(), String> {
        let failed = |error: io::Error| format!("{}: {error}", self.ptxas.display());
        let marked = fs::read_to_string(text).map_err(failed)?;
        let target = marked.lines().find_map(|line| line.strip_prefix(".target "));
        let object = text.with_extension("cubin");
        let run = Command::new(&self.ptxas)
            .arg(format!("-arch={}", target.unwrap_or("sm_80").trim()))
            .arg(text)
            .arg("-o")
            .arg(&object)
            .output()
            .map_err(failed)?;
        if run.status.success() {
            return Ok(());
        }
        let name = text.file_name().unwrap_or_default().to_string_lossy();
        let name = name.trim_end_matches(".marked.ptx");
        let said = [run.stdout, run.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let all: Vec<String> =
            said.lines().map(|line| format!("{} (in {name})", located(line, &marked))).collect();
        Err(all.join("\n"))
    }
}

/// `source` with its place behind each statement and label that ends a line.
pub(crate) fn with_marks(template: &str, source: &str) -> String {
    let mut out = String::with_capacity(2 * source.len());
    let mut comment = false;
    for (at, line) in source.lines().enumerate() {
        comment |= line.contains("{#");
        // A comment of PTX runs to the end of its line.
        let code = line.split("//").next().unwrap_or_default();
        let ends = code.trim_end().ends_with([';', ':']);
        match code.len() {
            len if ends && !comment => {
                out.push_str(code.trim_end());
                out.push_str(&format!("{OPEN}{template}:{}{CLOSE}", at + 1));
                out.push_str(&line[code.trim_end().len()..len]);
                out.push_str(&line[len..]);
            }
            _ => out.push_str(line),
        }
        out.push('\n');
        comment &= !line.contains("#}");
    }
    out
}

/// The text as it is embedded.
pub(crate) fn without_marks(marked: &str) -> String {
    let mut parts = marked.split(OPEN);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |mut out, part| {
        out.push_str(part.split_once(CLOSE).map_or(part, |(_, rest)| rest));
        out
    })
}

/// What ptxas says of a line of `marked`, with the place of the template's line instead: its own,
/// or that of the last statement before it.
pub(crate) fn located(said: &str, marked: &str) -> String {
    let place = || {
        let (_, rest) = said.split_once(", line ")?;
        let (number, what) = rest.split_once(';')?;
        let number: usize = number.trim().parse().ok()?;
        let lines: Vec<&str> = marked.lines().take(number).collect();
        let mark = lines.iter().rev().find_map(|line| line.split_once(OPEN))?.1;
        let (place, _) = mark.split_once(CLOSE)?;
        Some(format!("kernels/{place}: {}", what.trim()))
    };
    place().unwrap_or_else(|| said.to_owned())
}

//! The parent of the stages: starts each in a process of its own, ends it when its time is up, keeps what it
//! says, and stops at the first that fails. Called by `main`.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::{Options, Result, STAGES, Stage};

/// Files that come back: one who lends a card may take no more.
const MOST_FILES: usize = 8;
/// Lines of a stage that failed which are said again.
const LAST_LINES: usize = 30;
/// How often a stage is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A file that gets what is printed.
struct Summary(File);

impl Summary {
    fn say(&mut self, line: &str) -> Result {
        println!("{line}");
        writeln!(self.0, "{line}")?;
        Ok(())
    }
}

pub(crate) fn run(options: &Options) -> Result {
    fs::create_dir_all(&options.out)?;
    if fs::read_dir(&options.out)?.next().is_some() {
        return Err(format!("{} is not empty", options.out.display()).into());
    }
    let mut summary = Summary(File::create(options.out.join("summary.txt"))?);
    let mut log = File::create(options.out.join("log.txt"))?;
    let start = Instant::now();
    let minutes = options.minutes.unwrap_or(options.scale.of(10.0, 60.0));
    let whole = Duration::from_secs_f64(minutes * 60.0);
    for variable in ["FUSED_LORA_COMMIT", "CUDA_CACHE_PATH", "LD_LIBRARY_PATH"] {
        let value = std::env::var(variable).unwrap_or("not set".to_owned());
        writeln!(log, "{variable}: {value}")?;
    }
    for (at, stage) in STAGES.iter().enumerate() {
        let Stage { name, about, budget, .. } = stage;
        summary.say(&format!("{:>2}  {name:<12} {budget:>4} s  {about}", at + 1))?;
        let left = whole.saturating_sub(start.elapsed());
        let limit = Duration::from_secs(u64::from(budget * options.scale.of(2, 20))).min(left);
        let began = Instant::now();
        let (said, ended) = supervised(options, stage, limit)?;
        write!(log, "\n==== {} {name}\n{said}", at + 1)?;
        let took = began.elapsed().as_secs_f64();
        let verdict = match &ended {
            Some(status) if status.success() => "ok".to_owned(),
            Some(status) => format!("FAILED ({status})"),
            None => format!("FAILED (not done after {:.0} s)", limit.as_secs_f64()),
        };
        summary.say(&format!("    {name:<12} {took:>6.1} s  {verdict}"))?;
        let lines: Vec<&str> = said.lines().collect();
        if verdict != "ok" {
            for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
                summary.say(&format!("    | {line}"))?;
            }
            return Err(
                format!("stage {}, {name}: {verdict}; later ones did not run", at + 1).into()
            );
        }
        // What a stage has found out, in its own words.
        for line in lines.iter().filter_map(|line| line.strip_prefix("* ")) {
            summary.say(&format!("    * {line}"))?;
        }
    }
    let minutes = start.elapsed().as_secs_f64() / 60.0;
    let files = count(&options.out)?;
    summary.say(&format!(
        "all {} stages passed in {minutes:.1} minutes; {files} files",
        STAGES.len()
    ))?;
    match files <= MOST_FILES {
        true => Ok(()),
        false => Err(format!("{files} files, more than {MOST_FILES} come back").into()),
    }
}

fn count(folder: &Path) -> Result<usize> {
    Ok(fs::read_dir(folder)?.count())
}

/// Runs one stage; what it said on both streams, and how it ended, or that it was ended.
fn supervised(
    options: &Options,
    stage: &Stage,
    limit: Duration,
) -> Result<(String, Option<ExitStatus>)> {
    let scale = options.scale.of("full", "small");
    let mut child = Command::new(std::env::current_exe()?);
    child.args(["--stage", stage.name, "--scale", scale, "--out"]).arg(&options.out);
    // One pipe for both streams, so that lines keep their order.
    let (reader, writer) = std::io::pipe()?;
    child.stdout(writer.try_clone()?).stderr(writer).stdin(Stdio::null());
    #[cfg(unix)]
    {
        // What the stage starts ends with it.
        use std::os::unix::process::CommandExt;
        child.process_group(0);
    }
    let mut running = child.spawn()?;
    // The writing ends in `child` would keep the pipe open.
    drop(child);
    let said = std::thread::spawn(move || {
        let (mut reader, mut said) = (reader, Vec::new());
        // What is left of a stage that was ended is kept, too.
        let _ = reader.read_to_end(&mut said);
        String::from_utf8_lossy(&said).into_owned()
    });
    let ended = wait(&mut running, limit)?;
    let said = said.join().map_err(|_| "a stage's words were lost")?;
    Ok((said, ended))
}

fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() >= limit {
            end(child);
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}

/// Ends a stage and all that it has started.
fn end(child: &mut Child) {
    // Its process group has its number; bash has a `kill` where nothing else does. A stage that has just
    // ended by itself is no error.
    let group = child.id().to_string();
    let _ = Command::new("bash").args(["-c", "kill -KILL -- -$0", &group]).status();
    let _ = child.kill();
}

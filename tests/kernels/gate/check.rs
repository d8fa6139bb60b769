//! All texts × all targets, on all cores, into one report. Nothing is kept between runs.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rayon::prelude::*;

use super::assemble::{Resources, assemble};
use super::occupancy::{self, Ctas, Planned};
use super::sass::{self, MainLoop};
use super::snapshot::Snapshot;
use super::texts::Kernel;
use super::tools::{Ptxas, Tools};

/// What sm_80 text must run on. A text for a later plain target goes to that one and those above.
const TARGETS: [&str; 10] =
    ["sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "sm_100", "sm_103", "sm_110", "sm_120", "sm_121"];
/// Targets whose text runs on nothing else.
const ALONE: [&str; 1] = ["sm_90a"];
/// Of those that CUDA 12.8 knows one of each generation: all would be half of the gate again.
const MIDDLE: [&str; 4] = ["sm_80", "sm_90", "sm_90a", "sm_120"];
/// What CUDA 12.0 knows of them.
const OLD: [&str; 6] = ["sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "sm_90a"];

/// The targets that `text` is meant for, its own first.
fn targets(text: &str) -> Result<Vec<&'static str>, String> {
    let line = text.lines().find_map(|l| l.trim().strip_prefix(".target"));
    let own = line.ok_or("the text has no .target")?.trim();
    if let Some(alone) = ALONE.into_iter().find(|t| *t == own) {
        return Ok(vec![alone]);
    }
    match TARGETS.into_iter().position(|t| t == own) {
        Some(at) => Ok(TARGETS[at..].to_vec()),
        None => Err(format!("target {own} is none that the gate knows")),
    }
}

/// What the assemblers said, in the order of the kernels.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) names: Vec<String>,
    /// Kernel, target, and what the newest ptxas needs.
    pub(crate) resources: Vec<(String, String, Resources)>,
    /// Kernel, target, and the CTAs that a multiprocessor holds.
    pub(crate) ctas: Vec<(String, String, Ctas)>,
    /// Of the text's own target.
    pub(crate) loops: Vec<(String, MainLoop)>,
    pub(crate) refused: Vec<String>,
    runs: usize,
    /// Runs over texts that passed before, which this one did not repeat.
    left_out: usize,
    seconds: f64,
}

/// Texts that have passed as they are, and how many of their runs are made again: one in `one_in`.
pub(crate) struct Passed<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) one_in: usize,
}

impl Report {
    /// Ok when nothing was refused.
    pub(crate) fn refuse(&self) -> Result<(), String> {
        if self.refused.is_empty() { Ok(()) } else { Err(self.refused.join("\n")) }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, target, r) in &self.resources {
            writeln!(
                f,
                "{name:<36} {target:<8} {:>3} registers {:>6} bytes shared",
                r.registers, r.shared
            )?;
        }
        for (name, l) in &self.loops {
            writeln!(
                f,
                "{name:<36} main loop {:>4} instructions, {:>3} mma",
                l.instructions, l.mma
            )?;
            for interior in l.interiors.into_iter().flatten() {
                writeln!(f, "{name:<36} interior: {interior}")?;
            }
            for (which, step) in [("step", Some(l.step)), ("bare step", l.bare)] {
                if let Some(step) = step.filter(|step| step.mma > 0) {
                    writeln!(f, "{name:<36} {which}: {step}")?;
                }
            }
        }
        for (name, target, of) in self.ctas.iter().filter(|(_, _, of)| of.fit != of.planned) {
            let Ctas { planned, fit } = of;
            writeln!(f, "{name:<36} {target:<8} {fit} CTAs fit, the plan counts on {planned}")?;
        }
        let Report { runs, left_out, seconds, .. } = self;
        writeln!(
            f,
            "{runs} runs of ptxas in {seconds:.1} s; {left_out} left out, of texts that passed as they are"
        )
    }
}

/// One run of one ptxas.
struct Job<'a> {
    kernel: &'a Kernel,
    file: PathBuf,
    target: &'static str,
    ptxas: &'a Ptxas,
    /// It is the newest, whose numbers count.
    counts: bool,
    /// The text's own target: also disassembled.
    own: bool,
}

enum Found {
    Resources(Resources, Option<MainLoop>),
    Refused(Vec<String>),
}

/// Runs everything but what `passed` allows to leave out; the report says what was refused.
pub(crate) fn run(tools: &Tools, kernels: &[Kernel], passed: Option<Passed<'_>>) -> Report {
    let start = Instant::now();
    let dir = Scratch::new();
    let mut report =
        Report { names: kernels.iter().map(|k| k.name.clone()).collect(), ..Report::default() };
    let mut jobs = Vec::new();
    for (i, kernel) in kernels.iter().enumerate() {
        let targets = match targets(&kernel.text) {
            Ok(targets) => targets,
            Err(why) => {
                report.refused.push(format!("{}: {why}", kernel.name));
                continue;
            }
        };
        let file = dir.0.join(format!("{i}.ptx"));
        fs::write(&file, &kernel.text).expect("a kernel's text into the scratch folder");
        for (at, target) in targets.into_iter().enumerate() {
            let job = |ptxas, counts| {
                let (file, own) = (file.clone(), at == 0);
                Job { kernel, file, target, ptxas, counts, own }
            };
            jobs.push(job(&tools.newest, true));
            let others = [(&MIDDLE[..], &tools.middle), (&OLD[..], &tools.oldest)];
            let known = others.into_iter().filter(|(known, _)| known.contains(&target));
            jobs.extend(known.map(|(_, ptxas)| job(ptxas, false)));
        }
    }
    let all = jobs.len();
    if let Some(Passed { snapshot, one_in }) = passed {
        let mut at = 0;
        jobs.retain(|job: &Job<'_>| {
            at += 1;
            at % one_in == 0 || !snapshot.knows(job.kernel)
        });
    }
    report.left_out = all - jobs.len();
    let found: Vec<Found> = jobs.par_iter().map(|job| job.run(tools, &dir.0)).collect();
    report.runs = jobs.len();
    for (job, found) in jobs.iter().zip(found) {
        let name = job.kernel.name.clone();
        let (target, release) = (job.target, &job.ptxas.release);
        // The order of the library's own texts; others are nobody's main loop.
        if let Found::Resources(_, Some(main_loop)) = &found
            && job.kernel.listed.is_some()
        {
            let interiors = main_loop.interiors.into_iter().flatten();
            let refused = interiors.filter_map(|of| of.refused(&name));
            report
                .refused
                .extend(refused.map(|why| format!("{name} for {target}, ptxas {release}: {why}")));
        }
        match found {
            Found::Resources(..) if !job.counts => {}
            Found::Resources(resources, main_loop) => {
                report.resources.push((name.clone(), job.target.into(), resources));
                let ctas = job
                    .kernel
                    .planned()
                    .and_then(|planned| occupancy::ctas(job.target, planned, resources));
                if let Some(ctas) = ctas {
                    let Ctas { planned, fit } = ctas;
                    if fit < planned {
                        report.refused.push(format!(
                            "{name} for {}: the plan counts on {planned} CTAs a multiprocessor, {fit} fit",
                            job.target,
                        ));
                    }
                    report.ctas.push((name.clone(), job.target.into(), ctas));
                }
                report.loops.extend(main_loop.map(|l| (name, l)));
            }
            Found::Refused(reasons) => {
                let reasons = reasons.join("; ");
                report.refused.push(format!("{name} for {target}, ptxas {release}: {reasons}"));
            }
        }
    }
    report.seconds = start.elapsed().as_secs_f64();
    report
}

/// What each assembler says against a text for its own target.
pub(crate) fn own_target(tools: &Tools, kernel: &Kernel) -> Vec<String> {
    let target = match targets(&kernel.text) {
        Ok(targets) => targets[0],
        Err(why) => return vec![why],
    };
    let dir = Scratch::new();
    let file = dir.0.join("text.ptx");
    fs::write(&file, &kernel.text).expect("a text into the scratch folder");
    let refused = |ptxas: &Ptxas| match assemble(ptxas, &file, target, &dir.0.join("cubin")) {
        Ok(_) => None,
        Err(why) => Some(format!("{}, ptxas {}: {}", kernel.name, ptxas.release, why.join("; "))),
    };
    [&tools.newest, &tools.middle, &tools.oldest].into_iter().filter_map(refused).collect()
}

impl Kernel {
    /// What a launch of it takes, where the library lists it.
    fn planned(&self) -> Option<Planned> {
        let [threads, shared, resident] =
            ["threads", "smem_bytes", "resident"].map(|name| self.field(name));
        Some(Planned { threads: threads?, shared: shared?, resident: resident? })
    }
}

impl Job<'_> {
    fn run(&self, tools: &Tools, dir: &Path) -> Found {
        let ptxas = self.ptxas;
        let stem = self.file.file_stem().unwrap_or_default().to_string_lossy();
        let cubin = dir.join(format!("{stem}-{}-{}.cubin", self.target, ptxas.release));
        let resources = match assemble(ptxas, &self.file, self.target, &cubin) {
            Ok(resources) => resources,
            Err(reasons) => return Found::Refused(reasons),
        };
        if !self.own {
            return Found::Resources(resources, None);
        }
        let sass = match sass::disassemble(&tools.nvdisasm, &cubin) {
            Ok(sass) => sass,
            Err(why) => return Found::Refused(vec![why]),
        };
        let multiplies =
            ["mma.sync", "wgmma.mma_async"].iter().any(|op| self.kernel.text.contains(op));
        if multiplies && sass.main_loop.mma == 0 {
            return Found::Refused(vec!["the text has an mma, no loop of its code has one".into()]);
        }
        if sass.local > 0 {
            let why = format!("{} loads and stores of local memory in the code", sass.local);
            return Found::Refused(vec![why]);
        }
        Found::Resources(resources, Some(sass.main_loop))
    }
}

/// A folder of its own for every run, gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("gate-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&dir).expect("a scratch folder under target/tmp");
        Scratch(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed lies under target/ and harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

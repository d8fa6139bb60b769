//! The committed numbers, a line a kernel:
//! `name text=<hash> loop=<instructions> mma=<of them> step=<instructions>/<mma> bare=…
//! interior=<instructions>/<mma>/<from the barrier to an mma>/<copies in a row>,…
//! <target>=<registers>/<bytes of shared memory>/<CTAs that fit> …`. They are the pinned ptxas's; less is
//! welcome and renews the file, more is refused; of CTAs fewer. The hash names the text that all assemblers
//! took when the line was written.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::str::FromStr;

use super::assemble::Resources;
use super::check::Report;
use super::issue::{Interior, Step};
use super::sass::MainLoop;
use super::texts::Kernel;

#[derive(Debug, Default)]
pub(crate) struct Row {
    text: Option<u64>,
    main_loop: MainLoop,
    targets: BTreeMap<String, Resources>,
    /// CTAs that a multiprocessor holds.
    ctas: BTreeMap<String, u32>,
}

#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    rows: BTreeMap<String, Row>,
}

/// A standard library that hashes otherwise knows no text of the file: all are assembled again, which costs
/// time alone.
fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}

impl FromStr for Snapshot {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut out = Snapshot::default();
        for line in text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#')) {
            let wrong = || format!("snapshot: `{line}` is malformed");
            let mut words = line.split_whitespace();
            let name = words.next().ok_or_else(wrong)?;
            let mut row = Row::default();
            for word in words {
                let (key, value) = word.split_once('=').ok_or_else(wrong)?;
                let number = |text: &str| text.parse::<u32>().map_err(|_| wrong());
                match key {
                    "text" => {
                        row.text = Some(u64::from_str_radix(value, 16).map_err(|_| wrong())?);
                    }
                    "loop" => row.main_loop.instructions = number(value)?,
                    "mma" => row.main_loop.mma = number(value)?,
                    "step" | "bare" => {
                        let (instructions, mma) = value.split_once('/').ok_or_else(wrong)?;
                        let step = Step { instructions: number(instructions)?, mma: number(mma)? };
                        match key {
                            "step" => row.main_loop.step = step,
                            _ => row.main_loop.bare = Some(step),
                        }
                    }
                    "interior" => {
                        for (place, of) in row.main_loop.interiors.iter_mut().zip(value.split(','))
                        {
                            let numbers: Result<Vec<u32>, _> = of.split('/').map(number).collect();
                            let [instructions, mma, wait, copies] = numbers?[..] else {
                                return Err(wrong());
                            };
                            let step = Step { instructions, mma };
                            *place = Some(Interior { step, wait, copies });
                        }
                    }
                    target => {
                        let mut numbers = value.split('/').map(number);
                        let mut next = || numbers.next().transpose();
                        let [registers, shared, ctas] = [next()?, next()?, next()?];
                        let registers = registers.ok_or_else(wrong)?;
                        let resources = Resources { registers, shared: shared.ok_or_else(wrong)? };
                        row.targets.insert(target.into(), resources);
                        if let Some(ctas) = ctas {
                            row.ctas.insert(target.into(), ctas);
                        }
                    }
                }
            }
            if out.rows.insert(name.into(), row).is_some() {
                return Err(format!("snapshot: `{name}` stands twice"));
            }
        }
        Ok(out)
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# What ptxas 13.5.37 needs for each kernel: its text's hash; <target>=<registers>/<bytes of static shared memory>/<CTAs"
        )?;
        writeln!(
            f,
            "# that a multiprocessor holds>; its main loop's instructions; those once around it, and the mma among"
        )?;
        writeln!(
            f,
            "# them (bare: without ranks); of a loop without a branch also instructions from its barrier to an mma, and"
        )?;
        writeln!(
            f,
            "# copies in a row. Renew what changed: FUSED_LORA_GATE_BLESS=1 cargo test --test kernels gate::"
        )?;
        for (name, row) in &self.rows {
            let MainLoop { instructions, mma, step, bare, interiors } = row.main_loop;
            write!(f, "{name}")?;
            if let Some(text) = row.text {
                write!(f, " text={text:016x}")?;
            }
            write!(f, " loop={instructions} mma={mma}")?;
            for (key, step) in [("step", Some(step)), ("bare", bare)] {
                if let Some(step) = step.filter(|step| step.mma > 0) {
                    write!(f, " {key}={}/{}", step.instructions, step.mma)?;
                }
            }
            for (at, of) in interiors.into_iter().flatten().enumerate() {
                let Interior { step, wait, copies } = of;
                let before = if at == 0 { " interior=" } else { "," };
                write!(f, "{before}{}/{}/{wait}/{copies}", step.instructions, step.mma)?;
            }
            for (target, r) in &row.targets {
                write!(f, " {target}={}/{}", r.registers, r.shared)?;
                if let Some(ctas) = row.ctas.get(target) {
                    write!(f, "/{ctas}")?;
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl Snapshot {
    /// What a run of all `kernels` found.
    pub(crate) fn of(report: &Report, kernels: &[Kernel]) -> Snapshot {
        let mut out = Snapshot::default();
        for kernel in kernels {
            out.rows.entry(kernel.name.clone()).or_default().text = Some(hash(&kernel.text));
        }
        for (name, main_loop) in &report.loops {
            out.rows.entry(name.clone()).or_default().main_loop = *main_loop;
        }
        for (name, target, resources) in &report.resources {
            out.rows.entry(name.clone()).or_default().targets.insert(target.clone(), *resources);
        }
        for (name, target, ctas) in &report.ctas {
            out.rows.entry(name.clone()).or_default().ctas.insert(target.clone(), ctas.fit);
        }
        out
    }

    /// The lines of `old` in place of its own, for texts that it was made of.
    pub(crate) fn keep(&mut self, mut old: Snapshot, kernels: &[Kernel]) {
        for kernel in kernels {
            if old.knows(kernel)
                && let Some(row) = old.rows.remove(&kernel.name)
            {
                self.rows.insert(kernel.name.clone(), row);
            }
        }
    }

    /// Whether the kernel's line was written for this very text.
    pub(crate) fn knows(&self, kernel: &Kernel) -> bool {
        self.rows.get(&kernel.name).is_some_and(|row| row.text == Some(hash(&kernel.text)))
    }

    /// What is wrong with interiors in it, of the library's texts: what is left out of a run is held to that, too.
    pub(crate) fn refused(&self) -> Vec<String> {
        let rows = self.rows.iter().filter(|(name, _)| !name.starts_with("fixture/"));
        let of = |(name, row): (&String, &Row)| {
            let interiors = row.main_loop.interiors.into_iter().flatten();
            let said = interiors.filter_map(|of| of.refused(name));
            said.map(|why| format!("{name} in the snapshot: {why}")).collect::<Vec<_>>()
        };
        rows.flat_map(of).collect()
    }

    /// What `report` has more of, and where the two do not name the same kernels.
    pub(crate) fn compare(&self, report: &Report) -> Vec<String> {
        let mut out = Vec::new();
        for (name, target, now) in &report.resources {
            let Some(row) = self.rows.get(name) else {
                out.push(format!("{name} is not in the snapshot"));
                continue;
            };
            let Some(then) = row.targets.get(target) else {
                out.push(format!("{name} for {target} is not in the snapshot"));
                continue;
            };
            if now.registers > then.registers {
                let (now, then) = (now.registers, then.registers);
                out.push(format!("{name} for {target}: {now} registers, the snapshot has {then}"));
            }
            if now.shared > then.shared {
                let (now, then) = (now.shared, then.shared);
                out.push(format!(
                    "{name} for {target}: {now} bytes of shared memory, the snapshot has {then}"
                ));
            }
        }
        for (name, now) in &report.loops {
            let Some(then) = self.rows.get(name).map(|row| row.main_loop) else { continue };
            // a/b < c/d without dividing.
            let share = |a: MainLoop, b: MainLoop| u64::from(a.mma) * u64::from(b.instructions);
            if share(*now, then) < share(then, *now) {
                out.push(format!(
                    "{name}: {} of {} instructions of its main loop are mma, the snapshot has {} of {}",
                    now.mma, now.instructions, then.mma, then.instructions
                ));
            }
            // Those of a snapshot that has them; a/b > c/d.
            let dearer = |a: Step, b: Step| {
                u64::from(a.instructions) * u64::from(b.mma)
                    > u64::from(b.instructions) * u64::from(a.mma)
            };
            let interior = |of: &MainLoop, at: usize| of.interiors[at].map(|of| of.step);
            let [first, second] = [0, 1].map(|at| (interior(now, at), interior(&then, at)));
            let steps = [(Some(now.step), Some(then.step)), (now.bare, then.bare), first, second];
            for (now, then) in steps.into_iter().filter_map(|(now, then)| now.zip(then)) {
                if then.mma > 0 && dearer(now, then) {
                    out.push(format!("{name}: a step is {now}; the snapshot has {then}"));
                }
            }
        }
        for (name, target, now) in &report.ctas {
            let then = self.rows.get(name).and_then(|row| row.ctas.get(target));
            if let Some(then) = then.filter(|then| now.fit < **then) {
                let fit = now.fit;
                out.push(format!("{name} for {target}: {fit} CTAs fit, the snapshot has {then}"));
            }
        }
        let known: Vec<&String> = report.names.iter().collect();
        for name in self.rows.keys().filter(|name| !known.contains(name)) {
            out.push(format!("{name} stands in the snapshot, there is no such kernel"));
        }
        out.dedup();
        out
    }
}

//! A kernel, how it is run and checked, and what is broken in it on purpose.

use ptx_sim::{Chip, CopyTiming, FaultKind, Launch, Memory, Module, Options, RunError, Schedule};

/// What came of a run.
pub(crate) enum Outcome {
    Right,
    Wrong(String),
    Fault(Box<RunError>),
}

/// A text in the place of another; the first of `kinds` that a run reports ends it. No kinds: the numbers
/// are wrong.
pub(crate) struct Defect {
    pub(crate) what: &'static str,
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
    pub(crate) kinds: &'static [FaultKind],
}

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
    pub(crate) run: fn(&Module, &Options) -> Outcome,
    pub(crate) defects: Vec<Defect>,
}

pub(crate) fn target(text: &str) -> &str {
    let line = text.lines().find_map(|l| l.strip_prefix(".target ")).expect("a target");
    line.split(',').next().unwrap_or(line).trim()
}

impl Case {
    /// Every schedule with every timing.
    fn orders(&self) -> Vec<Options> {
        let chip = if target(self.text).starts_with("sm_9") { Chip::SM_90 } else { Chip::SM_80 };
        let mut out: Vec<Options> = Vec::new();
        for schedule in
            [Schedule::RoundRobin, Schedule::Random, Schedule::OneFar, Schedule::Reverse]
        {
            for copies in [CopyTiming::Early, CopyTiming::Late, CopyTiming::Random] {
                let seed = out.len() as u64;
                let budget = 1 << 24;
                out.push(Options { chip, schedule, copies, seed, budget, ..Options::default() });
            }
        }
        out
    }

    fn module(&self, text: &str) -> Result<Module, String> {
        Module::parse(self.name, text).map_err(|e| e.to_string())
    }

    /// What is said against it; nothing should be.
    pub(crate) fn accused(&self) -> Option<String> {
        let module = match self.module(self.text) {
            Ok(module) => module,
            Err(e) => return Some(e),
        };
        self.orders().iter().find_map(|o| match (self.run)(&module, o) {
            Outcome::Right => None,
            Outcome::Wrong(why) => {
                Some(format!("{} {:?} {:?}: {why}", self.name, o.schedule, o.copies))
            }
            Outcome::Fault(e) => {
                Some(format!("{} {:?} {:?}: {e}", self.name, o.schedule, o.copies))
            }
        })
    }

    /// The defects that no order shows, or that are called something else.
    pub(crate) fn missed(&self) -> Vec<String> {
        let noticed = |d: &Defect| -> Result<(), String> {
            let n = self.text.matches(d.from).count();
            if n != 1 {
                return Err(format!("`{}` stands there {n} times", d.from));
            }
            let module = self.module(&self.text.replace(d.from, d.to))?;
            let mut seen = Vec::new();
            for o in self.orders() {
                match (self.run)(&module, &o) {
                    Outcome::Right => seen.push("nothing".to_owned()),
                    Outcome::Wrong(why) if d.kinds.is_empty() => return drop_ok(why),
                    Outcome::Wrong(why) => seen.push(why),
                    Outcome::Fault(e) => match e.fault() {
                        Some(f) if d.kinds.contains(&f.kind) => return Ok(()),
                        _ => seen.push(e.to_string()),
                    },
                }
            }
            seen.dedup();
            Err(seen.join("; "))
        };
        let name = self.name;
        let defects = self.defects.iter();
        defects
            .filter_map(|d| noticed(d).err().map(|e| format!("{name}, {}: {e}", d.what)))
            .collect()
    }
}

fn drop_ok(_: String) -> Result<(), String> {
    Ok(())
}

/// Runs and, if that went well, compares.
pub(crate) fn check(
    module: &Module,
    memory: &mut Memory,
    launch: &Launch,
    options: &Options,
    compare: impl FnOnce(&mut Memory) -> Result<(), String>,
) -> Outcome {
    if let Err(e) = ptx_sim::run_launch(module, memory, launch, options) {
        return Outcome::Fault(Box::new(e));
    }
    match compare(memory) {
        Ok(()) => Outcome::Right,
        Err(why) => Outcome::Wrong(why),
    }
}

/// The first difference.
pub(crate) fn same<T: PartialEq + std::fmt::Debug>(got: &[T], want: &[T]) -> Result<(), String> {
    match got.iter().zip(want).position(|(g, w)| g != w) {
        _ if got.len() != want.len() => Err(format!("{} of {}", got.len(), want.len())),
        Some(i) => Err(format!("[{i}] is {:?}, not {:?}", got[i], want[i])),
        None => Ok(()),
    }
}

pub(crate) fn put(memory: &mut Memory, bytes: &[u8]) -> u64 {
    let at = memory.alloc(bytes.len()).unwrap();
    memory.write(at, bytes).unwrap();
    at
}

pub(crate) fn put_u32(memory: &mut Memory, words: &[u32]) -> u64 {
    put(memory, &words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<_>>())
}

pub(crate) fn put_f32(memory: &mut Memory, values: &[f32]) -> u64 {
    put(memory, &values.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<_>>())
}

pub(crate) fn put_f16(memory: &mut Memory, values: &[f32]) -> u64 {
    put(
        memory,
        &values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect::<Vec<_>>(),
    )
}

pub(crate) fn put_bf16(memory: &mut Memory, values: &[f32]) -> u64 {
    put(
        memory,
        &values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect::<Vec<_>>(),
    )
}

/// What nobody has written reads as an error; where a kernel left something out that is a difference.
pub(crate) fn u32s(memory: &mut Memory, at: u64, n: usize) -> Vec<u32> {
    let bytes = memory.read(at, 4 * n).unwrap_or_default();
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

pub(crate) fn f32s(memory: &mut Memory, at: u64, n: usize) -> Vec<f32> {
    u32s(memory, at, n).into_iter().map(f32::from_bits).collect()
}

/// A number from a place: the same on every machine.
pub(crate) fn noise(i: usize, seed: u32) -> u32 {
    let x = (i as u32).wrapping_mul(0x9E37_79B9) ^ seed.wrapping_mul(0x85EB_CA6B);
    let x = (x ^ x >> 15).wrapping_mul(0x2C1B_3C6D);
    let x = (x ^ x >> 12).wrapping_mul(0x297A_2D39);
    x ^ x >> 15
}

/// Small multiples of 1/4: products of two and sums of hundreds are exact in f32.
pub(crate) fn values(n: usize, seed: u32) -> Vec<f32> {
    (0..n).map(|i| (noise(i, seed) % 17) as f32 / 4.0 - 2.0).collect()
}

/// `a[m, k] · b[n, k]ᵀ`
pub(crate) fn product(a: &[f32], b: &[f32], (m, n, k): (usize, usize, usize)) -> Vec<f32> {
    let at = |i: usize| {
        let (row, column) = (i / n, i % n);
        (0..k).map(|l| a[row * k + l] * b[column * k + l]).sum()
    };
    (0..m * n).map(at).collect()
}

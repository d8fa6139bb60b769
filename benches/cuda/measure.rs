//! One cell after the other on one card: makes its paths, checks them against each other, times
//! them in pairs. Called by `main.rs`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fused_lora::cuda::cudarc::driver::{CudaContext, CudaStream};
use fused_lora::cuda::{Cuda, probe};
use fused_lora::{Capabilities, DType, Plan};

use super::card::Card;
use super::cells::{goals, sets};
use super::common::measure::{Effort, Outputs, alternate, compare, tolerance};
use super::common::shapes::Cell;
use super::common::statistics::{Interval, median};
use super::common::{Path, Result};
#[cfg(feature = "cublas")]
use super::cublas;
use super::memory::Memory;
use super::ours::{Planned, problem};
use super::products::{Name, Way, allocated, dtype};
use super::report::{RIVALS, Rival, Row};
use super::timing::{Clock, Length, Repeated, one_by_one};

/// Up to here the host's launches matter, and are timed as well.
const FEW_TOKENS: usize = 64;
/// The three ways, in the order of [`RIVALS`]: first cuBLAS's, then ours.
const WAYS: [Way; 3] = [Way::Plain, Way::Separate, Way::Extended];

/// A card, one stream on it, and what runs there.
pub struct Bench {
    pub card: Card,
    executor: Cuda,
    stream: Arc<CudaStream>,
    clock: Clock,
    /// The shortest timings and two sets, for a simulated card.
    quick: bool,
    #[cfg(feature = "cublas")]
    library: Result<cublas::Library, String>,
    #[cfg(not(feature = "cublas"))]
    library: Result<(), String>,
    tf32: bool,
}

/// One path of a cell, before its graph is made.
struct Candidate<'a> {
    path: Box<dyn Path + 'a>,
    choices: String,
}

/// What the paths of a cell must leave.
struct Expected {
    cell: Cell,
    tolerance: f64,
    adapted: Outputs,
    /// Without the adapter.
    plain: Option<Outputs>,
}

impl Expected {
    fn check(&self, name: &str, outputs: &Outputs) -> Result<()> {
        let expected = match &self.plain {
            Some(plain) if name.ends_with("plain") => plain,
            _ => &self.adapted,
        };
        compare(self.cell, self.tolerance, expected, name, outputs)
    }
}

/// As [`RIVALS`].
type Rivals<'a> = [Option<Candidate<'a>>; RIVALS.len()];

impl Bench {
    /// On the card of this name: `cuda`, or `cuda:` and a number.
    pub fn open(name: &str, tf32: bool, quick: bool) -> Result<Bench> {
        let ordinal = match name.split_once(':') {
            None if name == "cuda" => 0,
            Some(("cuda", number)) => number.parse()?,
            _ => return Err(format!("{name} is no card: cuda, or cuda: and a number").into()),
        };
        // cudarc panics where there is no driver.
        probe()?;
        let context = CudaContext::new(ordinal)?;
        // SAFETY: all work and every allocation of this program is on the one stream below.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream()?;
        Ok(Bench {
            card: Card::of(&context)?,
            executor: Cuda::new(&context)?,
            clock: Clock::new(&stream)?,
            library: library(&stream, tf32),
            stream,
            quick,
            tf32,
        })
    }

    /// What there is of cuBLAS, in words.
    pub fn rival(&self) -> String {
        match &self.library {
            #[cfg(feature = "cublas")]
            Ok(library) => format!("cuBLAS {}", library.version()),
            #[cfg(not(feature = "cublas"))]
            Ok(()) => String::new(),
            Err(reason) => format!("no cuBLAS: its columns stay empty ({reason})"),
        }
    }

    /// Runs the first goal's plain layer for so long, so that clocks and temperature settle, and
    /// looks at the clocks meanwhile.
    pub fn warm_up(&mut self, time: Duration) -> Result<()> {
        let Some(&cell) = goals().1.first().filter(|_| !time.is_zero()) else { return Ok(()) };
        let memory = Memory::new(&self.stream, cell, 1)?;
        let mut plain =
            Planned::separately("plain", Way::Plain, &self.executor, &self.stream, &memory)?;
        let seconds = one_by_one(&mut plain, &self.clock, Length::least(1))?;
        let length = Length { laps: 1, ..Length::of(1, seconds) };
        let start = Instant::now();
        while start.elapsed() < time {
            one_by_one(&mut plain, &self.clock, length)?;
        }
        // The card is at work while it is asked.
        let card = &mut self.card;
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| card.look_at_clocks());
            while !asked.is_finished() {
                one_by_one(&mut plain, &self.clock, length)?;
            }
            Ok(())
        })
    }

    /// Checks and measures one cell.
    pub fn row(&self, cell: Cell, effort: Effort) -> Result<Row> {
        let sets = if self.quick { 2 } else { sets(touched(cell), self.l2()) };
        // Before gigabytes are filled for a problem that nothing serves.
        Plan::new(&problem(cell), &self.executor.capabilities())?;
        let memory = Memory::new(&self.stream, cell, sets)?;
        let fused = Planned::fused(&self.executor, &self.stream, &memory)?;
        let mut fused = Candidate { choices: fused.choices(), path: Box::new(fused) };
        let (mut rivals, notes) = self.rivals(&memory)?;
        let plain = rivals[3].as_ref().map(|rival| rival.path.cost()).unwrap_or_default();

        let expected = self.check(&memory, &mut fused, &mut rivals)?;
        let seconds = one_by_one(&mut *fused.path, &self.clock, Length::least(sets))?;
        let length = if self.quick { Length::least(sets) } else { Length::of(sets, seconds) };
        let (few, Effort { seconds, limit, .. }) = (cell.tokens <= FEW_TOKENS, effort);
        let share = if few { 0.5 } else { 1.0 };
        let effort = Effort { seconds: share * seconds, limit: share * limit, ..effort };
        let single = match few {
            true => Some(self.one_by_one(&mut fused, &mut rivals, length, effort)?),
            false => None,
        };

        let (choices, cost) = (fused.choices, fused.path.cost());
        let mut fused = Repeated::new(&self.stream, fused.path, length)?;
        expected.check("fused", &fused.outputs(&memory)?)?;
        let mut repeated = Vec::new();
        let mut told = Vec::new();
        for (at, rival) in rivals.into_iter().enumerate() {
            let Some(Candidate { path, choices }) = rival else { continue };
            told.push((at, path.cost(), choices));
            let graph = Repeated::new(&self.stream, path, length)?;
            expected.check(RIVALS[at], &graph.outputs(&memory)?)?;
            repeated.push(graph);
        }
        let mut of_fused = Vec::new();
        let mut of_rivals = vec![Vec::new(); repeated.len()];
        let ratios = alternate(repeated.len(), effort, |who| {
            let seconds = match who {
                None => fused.in_graph(&self.clock),
                Some(rival) => repeated[rival].in_graph(&self.clock),
            }?;
            match who {
                None => of_fused.push(seconds),
                Some(rival) => of_rivals[rival].push(seconds),
            }
            Ok(seconds)
        })?;
        let pairs = ratios.first().map_or(0, Vec::len);
        let mut row = Row {
            cell,
            pairs,
            sets,
            runs: length.runs,
            micros: 1e6 * median(of_fused),
            cost,
            plain,
            choices,
            rivals: Default::default(),
            notes,
        };
        let measured = told.into_iter().zip(ratios).zip(of_rivals);
        for (nth, (((at, cost, choices), ratios), times)) in measured.enumerate() {
            row.rivals[at] = Some(Rival {
                over: Interval::of(ratios),
                one_by_one: single.as_ref().map(|medians| medians[nth]),
                micros: 1e6 * median(times),
                cost,
                choices,
            });
        }
        Ok(row)
    }

    fn l2(&self) -> u64 {
        match self.executor.capabilities() {
            Capabilities::Cuda(of) => of.l2_bytes.into(),
            _ => 0,
        }
    }

    /// As [`RIVALS`], and why one of cuBLAS's is not there.
    fn rivals<'a>(&'a self, memory: &'a Memory) -> Result<(Rivals<'a>, Vec<String>)> {
        let mut rivals = Rivals::default();
        for (at, way) in WAYS.into_iter().enumerate() {
            let at = at + WAYS.len();
            let (executor, stream) = (&self.executor, &self.stream);
            let path = Planned::separately(RIVALS[at], way, executor, stream, memory)?;
            rivals[at] = Some(Candidate { choices: path.choices(), path: Box::new(path) });
        }
        #[cfg_attr(not(feature = "cublas"), allow(unused_mut))]
        let mut notes = Vec::new();
        #[cfg(feature = "cublas")]
        if let Ok(library) = &self.library {
            let mut rival = cublas::Rival::new(library, memory, &self.clock);
            for (at, way) in WAYS.into_iter().enumerate() {
                match rival.path(RIVALS[at], way) {
                    Ok(path) => {
                        let choices = path.choices();
                        rivals[at] = Some(Candidate { choices, path: Box::new(path) });
                    }
                    Err(error) => notes.push(format!("{}: {error}", RIVALS[at])),
                }
            }
        }
        Ok((rivals, notes))
    }

    /// Every path once on the first set, over outputs full of NaN: all that have the adapter
    /// leave the same, and so do all that have not.
    fn check(
        &self,
        memory: &Memory,
        fused: &mut Candidate<'_>,
        rivals: &mut [Option<Candidate<'_>>],
    ) -> Result<Expected> {
        let cell = memory.cell;
        let tolerance = match (cell.dtype, self.tf32) {
            // A mantissa of 10 bits.
            (DType::F32, true) => 4.0 * 2f64.powi(-11),
            (dtype, _) => tolerance(dtype),
        };
        let run = |path: &mut dyn Path| {
            memory.poison()?;
            path.run(0)?;
            path.outputs()
        };
        let adapted = run(&mut *fused.path)?;
        let mut expected = Expected { cell, tolerance, adapted, plain: None };
        // From the last on: our plain layer comes before cuBLAS's.
        for (name, rival) in RIVALS.iter().zip(rivals).rev() {
            let Some(rival) = rival else { continue };
            let outputs = run(&mut *rival.path)?;
            if name.ends_with("plain") && expected.plain.is_none() {
                expected.plain = Some(outputs);
            } else {
                expected.check(name, &outputs)?;
            }
        }
        Ok(expected)
    }

    /// Medians of the ratios without graphs, of the rivals that there are.
    fn one_by_one<'a>(
        &self,
        fused: &mut Candidate<'a>,
        rivals: &mut [Option<Candidate<'a>>],
        length: Length,
        effort: Effort,
    ) -> Result<Vec<f64>> {
        let mut rivals: Vec<_> = rivals.iter_mut().flatten().collect();
        let ratios = alternate(rivals.len(), effort, |who| {
            let path = match who {
                None => &mut *fused,
                Some(rival) => &mut *rivals[rival],
            };
            one_by_one(&mut *path.path, &self.clock, length)
        })?;
        Ok(ratios.into_iter().map(median).collect())
    }
}

/// Bytes that the plain layer touches, which every path touches as well.
fn touched(cell: Cell) -> u64 {
    let input = [Name::Dy, Name::X].into_iter().find(|&name| allocated(cell, name).is_some());
    let names = [Name::W, Name::Out].into_iter().chain(input);
    let bytes = |name| {
        let [rows, cols] = allocated(cell, name).unwrap_or_default();
        (rows * cols * dtype(cell, name).size()) as u64
    };
    names.map(bytes).sum()
}

#[cfg(feature = "cublas")]
fn library(stream: &Arc<CudaStream>, tf32: bool) -> Result<cublas::Library, String> {
    cublas::Library::new(stream, tf32).map_err(|error| error.to_string())
}

#[cfg(not(feature = "cublas"))]
fn library(_: &Arc<CudaStream>, _: bool) -> Result<(), String> {
    Err("built without the feature cublas".to_owned())
}

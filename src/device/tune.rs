//! Which candidate of a plan is the fastest here, measured instead of modelled. Called by applications; nothing in
//! this crate does it by itself.

use std::time::Instant;

#[cfg(feature = "wgpu")]
use super::Executor;
use super::{Device, Tensor};
use crate::{Access, Choice, Matrix, Operand, Operands, Outcome, Plan, Problem, Result, Spec};

/// Rounds over all candidates, of which the median counts.
const ROUNDS: usize = 11;
/// Rounds that are run however long they take.
const LEAST_ROUNDS: usize = 3;
/// Seconds of timing behind which no further round begins.
const SECONDS: f64 = 5.0;
/// Seconds of runs between two waits, which cost a device more than a short launch.
const BATCH: f64 = 2e-3;
/// Most runs between two waits.
const MOST_RUNS: usize = 512;

/// What a candidate of a problem took on a device.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Timing {
    /// The candidate: its text can be saved, and read again by [`str::parse`].
    pub choice: Choice,
    /// Microseconds of a run, launches and all: the median of several rounds.
    pub micros: f64,
    /// Whether by the device's own clock: timestamps of wgpu around many runs. Else by the host's, around many runs and the
    /// wait for them.
    pub on_device: bool,
    /// The same by the model that [`Device::plan`] goes by.
    pub modelled: f64,
}

impl Device {
    /// Runs every candidate of `problem` on this device, on numbers and memory of its own, and times it; the fastest is
    /// the first. What it finds is given back and used nowhere: save the choice, with [`Device::description`] and the
    /// driver's version beside it, and hand it to [`Device::choose`].
    ///
    /// It takes what the operands take of memory, and some seconds: on a GPU each candidate is compiled first. Candidates take
    /// turns, so that a clock that rises or falls meets all of them. Runs are timed many at a time, by the device's own clock where
    /// wgpu reads one, else by the host's with one wait behind them: this is the rate of work that is queued, not the latency of one call. Another program on the same
    /// device makes the result worthless.
    ///
    /// ```
    /// use fused_lora::{Device, Problem};
    ///
    /// let device = Device::cpu();
    /// let problem = Problem::forward(16, 64, 96, 8);
    /// let timings = device.tune(&problem)?;
    /// let saved = timings[0].choice.to_string(); // `leader/panel`, or another
    ///
    /// let plan = device.choose(&problem, &saved.parse()?)?;
    /// assert_eq!(plan.choice(), timings[0].choice);
    /// # Ok::<(), fused_lora::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Device::plan`]; [`Error::OutOfMemory`](crate::Error::OutOfMemory); what the device says of a run. Not in
    /// browsers, which have no clock for it and do not wait.
    pub fn tune(&self, problem: &Problem) -> Result<Vec<Timing>> {
        let candidates = self.plan(problem)?;
        let mut trials = Vec::new();
        for candidate in candidates.candidates() {
            let (Outcome::Chosen(modelled) | Outcome::Slower(modelled)) = candidate.outcome else {
                continue;
            };
            let (strategy, preset) = (Some(candidate.strategy), Some(candidate.preset.to_owned()));
            let plan = self.choose(problem, &Choice { strategy, preset })?;
            trials.push(Trial { plan, modelled, on_device: true, runs: 1, seconds: Vec::new() });
        }
        let mut numbers = Numbers::new(self, problem)?;
        // One clock for all of them. One that stands still while something runs is none.
        let mut on_device = false;
        if let Some(trial) = trials.first() {
            trial.time(self, &mut numbers)?;
            let seconds = self.seconds(&trial.plan, numbers.operands(), 1)?;
            on_device = seconds.is_some_and(|of| of > 0.0 || trial.plan.launches().is_empty());
        }
        for trial in &mut trials {
            trial.on_device = on_device;
            // The first run compiles, and is no measure.
            trial.time(self, &mut numbers)?;
            let once = trial.time(self, &mut numbers)?;
            trial.runs = ((BATCH / once) as usize).clamp(1, MOST_RUNS);
        }
        let begin = Instant::now();
        for round in 0..ROUNDS {
            if round >= LEAST_ROUNDS && begin.elapsed().as_secs_f64() > SECONDS {
                break;
            }
            // There and back, so that none is always behind the same one.
            let count = trials.len();
            for at in (0..count).map(|at| if round % 2 == 0 { at } else { count - 1 - at }) {
                let seconds = trials[at].time(self, &mut numbers)?;
                trials[at].seconds.push(seconds);
            }
        }
        let mut timings: Vec<Timing> = trials.into_iter().map(Trial::timing).collect();
        timings.sort_by(|one, other| one.micros.total_cmp(&other.micros));
        Ok(timings)
    }

    /// Seconds of so many runs by the device's own clock, where it has one that can be read here.
    fn seconds(
        &self,
        plan: &Plan,
        operands: Operands<&Tensor, &mut Tensor>,
        runs: usize,
    ) -> Result<Option<f64>> {
        match &self.executor {
            #[cfg(feature = "wgpu")]
            Executor::Wgpu(device) => device.seconds(plan.into(), operands, runs),
            _ => {
                let _ = (plan, operands, runs);
                Ok(None)
            }
        }
    }
}

/// A candidate and what it took.
struct Trial {
    plan: Plan,
    modelled: f64,
    on_device: bool,
    /// Between two waits.
    runs: usize,
    /// Of one run, round by round.
    seconds: Vec<f64>,
}

impl Trial {
    /// Seconds of one run.
    fn time(&self, device: &Device, numbers: &mut Numbers) -> Result<f64> {
        let runs = self.runs as f64;
        if self.on_device
            && let Some(seconds) = device.seconds(&self.plan, numbers.operands(), self.runs)?
        {
            return Ok(seconds / runs);
        }
        let start = Instant::now();
        for _ in 0..self.runs {
            device.run(&self.plan, numbers.operands())?;
        }
        device.wait()?;
        Ok(start.elapsed().as_secs_f64() / runs)
    }

    fn timing(mut self) -> Timing {
        self.seconds.sort_by(f64::total_cmp);
        let micros = 1e6 * self.seconds[self.seconds.len() / 2];
        let Trial { plan, modelled, on_device, .. } = self;
        Timing { choice: plan.choice(), micros, on_device, modelled }
    }
}

/// A tensor for each operand of a problem.
struct Numbers {
    problem: Problem,
    read: Vec<(Operand, Spec, Tensor)>,
    written: Vec<(Operand, Spec, Tensor)>,
}

impl Numbers {
    fn new(device: &Device, problem: &Problem) -> Result<Numbers> {
        let (mut read, mut written) = (Vec::new(), Vec::new());
        for (operand, spec) in problem.specs() {
            let (rows, cols) = spec.stored();
            let len = rows.saturating_mul(spec.stride.max(cols));
            let mut tensor = device.zeros(1, len, spec.dtype)?;
            if spec.access != Access::Write {
                tensor.write(&values(len, operand))?;
            }
            let to = if spec.access == Access::Read { &mut read } else { &mut written };
            to.push((operand, spec, tensor));
        }
        Ok(Numbers { problem: *problem, read, written })
    }

    fn operands(&mut self) -> Operands<&Tensor, &mut Tensor> {
        let mut operands = Operands::new(self.problem.operation());
        for (operand, spec, tensor) in &self.read {
            operands = operands.read(*operand, matrix(tensor, spec));
        }
        for (operand, spec, tensor) in &mut self.written {
            operands = operands.written(*operand, matrix(tensor, spec));
        }
        operands
    }
}

fn matrix<B>(buffer: B, spec: &Spec) -> Matrix<B> {
    let Spec { rows, cols, stride, major, .. } = *spec;
    Matrix { buffer, rows, cols, offset: 0, stride, major }
}

/// Numbers of many bits: zeros would let a GPU clock higher than a caller's numbers do. None is zero, which a
/// magnitude must not be, and all are small: some are added up from run to run.
fn values(len: usize, operand: Operand) -> Vec<f32> {
    // Knuth, 1969, vol. 2, §3.3.4, with the multiplier that he gives for 32 bits.
    let mut state = 0x9e37_79b9_u32 ^ operand as u32;
    let mut value = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let unit = (state >> 8) as f32 / (1u32 << 24) as f32;
        let size = 0.03125 + 0.09375 * unit;
        if state & 64 == 0 { -size } else { size }
    };
    (0..len).map(|_| value()).collect()
}

//! How paths are compared: first that they compute the same, then in alternating pairs.

use std::time::{Duration, Instant};

use fused_lora::{DType, Operand};

use super::shapes::Cell;
use super::statistics::median;
use super::{Layer, Path, Result};

/// Shorter timings than this are repeated until they are as long: a clock and a scheduler
/// have errors of their own.
const SHORTEST: Duration = Duration::from_millis(2);

/// How long a cell is measured.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// At least so many pairs,
    pub pairs: usize,
    /// then more until this much time is spent,
    pub seconds: f64,
    /// but no more than so many.
    pub most: usize,
    /// After so many seconds a cell ends with the pairs it has, if [`FEWEST`] at least.
    pub limit: f64,
}

/// Fewer pairs have no 95 % interval.
const FEWEST: usize = 6;

impl Effort {
    /// What each of so many openings of a device spends, for as much as this in all.
    pub fn shared_by(self, openings: usize) -> Effort {
        Effort {
            pairs: self.pairs.div_ceil(openings),
            seconds: self.seconds / openings as f64,
            most: self.most.div_ceil(openings),
            limit: self.limit / openings as f64,
        }
    }

    /// Whether `done` pairs in `seconds` are enough.
    fn is_spent(&self, done: usize, seconds: f64) -> bool {
        (done >= self.pairs && seconds >= self.seconds)
            || done >= self.most
            || (done >= FEWEST.min(self.pairs) && seconds >= self.limit)
    }
}

/// Checks that `path` leaves the same as `fused`, by a run of each on the first weight.
pub fn agree(layer: &Layer<'_>, fused: &mut dyn Path, path: &mut dyn Path) -> Result<()> {
    fused.run(0)?;
    path.run(0)?;
    let tolerance = tolerance(layer.cell.dtype);
    compare(layer.cell, tolerance, &fused.outputs()?, path.name(), &path.outputs()?)
}

/// The relative distance (Frobenius) that rounding explains. Paths that round y and t on
/// their way lie a few roundoffs apart; one without its adapter, or with half a sum, lies
/// at some tenths.
pub fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 1e-4,
        dtype => 4.0 * dtype.roundoff(),
    }
}

/// What a path left, by its operands' names.
pub type Outputs = Vec<(Operand, Vec<f32>)>;

/// Checks that `theirs`, of the path `name`, are those of the fused path.
pub fn compare(
    cell: Cell,
    tolerance: f64,
    ours: &Outputs,
    name: &str,
    theirs: &Outputs,
) -> Result<()> {
    if ours.len() != theirs.len() {
        return Err(format!("{name} has other outputs than fused ({cell})").into());
    }
    for ((operand, ours), (_, theirs)) in ours.iter().zip(theirs) {
        let (mut apart, mut size) = (0.0, 0.0);
        for (ours, theirs) in ours.iter().zip(theirs) {
            apart += f64::from(ours - theirs).powi(2);
            size += f64::from(*theirs).powi(2);
        }
        let distance = (apart / size).sqrt();
        if distance.is_nan() || distance > tolerance || ours.len() != theirs.len() {
            return Err(format!(
                "{operand} of fused and {name} are {distance:.2e} apart, more than {tolerance:.2e}: \
                 one of them computes something else ({cell})"
            )
            .into());
        }
    }
    Ok(())
}

/// The index of the fastest path, by the median of a few runs of each, in turns.
pub fn fastest(paths: &mut [Box<dyn Path + '_>], turn: &mut usize) -> Result<usize> {
    let repeats: Vec<usize> =
        paths.iter_mut().map(|path| repeats(&mut **path, turn)).collect::<Result<_>>()?;
    let mut times = vec![Vec::new(); paths.len()];
    let start = Instant::now();
    for round in 0..25 {
        if round >= 5 && start.elapsed() > Duration::from_millis(300) {
            break;
        }
        for ((path, &repeats), times) in paths.iter_mut().zip(&repeats).zip(&mut times) {
            times.push(time(&mut **path, turn, repeats)? / repeats as f64);
        }
    }
    let medians: Vec<f64> = times.into_iter().map(median).collect();
    let fastest = (0..medians.len()).min_by(|&i, &j| medians[i].total_cmp(&medians[j]));
    fastest.ok_or_else(|| "no path to choose from".into())
}

/// The ratios fused / rival, pair by pair, for every rival, by the host's clock.
pub fn pairs(
    fused: &mut dyn Path,
    rivals: &mut [&mut dyn Path],
    turn: &mut usize,
    effort: Effort,
) -> Result<Vec<Vec<f64>>> {
    // One number of repetitions for all, or a longer one would see a warmer machine.
    let repeats = repeats(fused, turn)?;
    for rival in rivals.iter_mut() {
        time(&mut **rival, turn, 1)?;
    }
    alternate(rivals.len(), effort, |who| match who {
        None => time(fused, turn, repeats),
        Some(rival) => time(&mut *rivals[rival], turn, repeats),
    })
}

/// The ratios fused / rival, pair by pair, for every rival; `time` times one of them, or
/// (`None`) fused. Fused runs between two rivals and makes a pair with each; every other round
/// goes backwards, so that in half of the pairs the one is first, in half the other.
pub fn alternate(
    rivals: usize,
    effort: Effort,
    mut time: impl FnMut(Option<usize>) -> Result<f64>,
) -> Result<Vec<Vec<f64>>> {
    let mut ratios = vec![Vec::new(); rivals];
    let start = Instant::now();
    for round in 0.. {
        if effort.is_spent(round, start.elapsed().as_secs_f64()) {
            break;
        }
        for first in (0..rivals).step_by(2) {
            let second = Some(first + 1).filter(|&second| second < rivals);
            // Before, in the middle and after: rival, fused, rival.
            let mut order = [Some(first), second];
            if round % 2 == 1 {
                order.reverse();
            }
            let before = order[0].map(|rival| time(Some(rival))).transpose()?;
            let fused = time(None)?;
            let after = order[1].map(|rival| time(Some(rival))).transpose()?;
            for (rival, time) in order.into_iter().zip([before, after]) {
                if let (Some(rival), Some(time)) = (rival, time) {
                    ratios[rival].push(fused / time);
                }
            }
        }
    }
    Ok(ratios)
}

/// Seconds of `repeats` runs, sent together where the device has a queue. One comes before the
/// clock starts, where runs are short: code and outputs of a path are out of the caches after
/// another one, and fused always comes after another one, its rivals half of the time.
fn time(path: &mut dyn Path, turn: &mut usize, repeats: usize) -> Result<f64> {
    if repeats > 1 {
        path.run(*turn)?;
        *turn += 1;
        path.wait()?;
    }
    let start = Instant::now();
    for _ in 0..repeats {
        path.run(*turn)?;
        *turn += 1;
    }
    // Once for all of them, as a model waits once a step.
    path.wait()?;
    Ok(start.elapsed().as_secs_f64())
}

/// How many runs take the shortest time that is worth a look. The first one warms up.
fn repeats(path: &mut dyn Path, turn: &mut usize) -> Result<usize> {
    time(path, turn, 1)?;
    let mut repeats = 1;
    loop {
        let seconds = time(path, turn, repeats)?;
        if seconds >= SHORTEST.as_secs_f64() || repeats >= 1 << 12 {
            return Ok(repeats);
        }
        repeats *= 2;
    }
}

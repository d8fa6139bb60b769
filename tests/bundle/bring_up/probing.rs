//! Stage 3: the instructions that kernels rest on, each alone: what the card leaves is kept as vectors, and held
//! against the simulator. Then many random tiles against its models of the tensor core. Called by
//! `main`; the probes themselves are `test_support::probes`.

use std::time::Instant;

use fused_lora::cuda::cudarc::driver::{LaunchConfig, PushKernelArg};
use ptx_sim::MmaModel;
use rayon::prelude::*;
use test_support::probes::{ENTRY, Factor, Probe, SIMULATED, Vectors};

use crate::device::Card;
use crate::{Options, Result};

/// Differences of a probe that are told.
const TOLD: usize = 8;
/// Tiles of one launch.
const BATCH: usize = 2_000;
const MODELS: [(&str, MmaModel); 3] =
    [("exact", MmaModel::Exact), ("ampere", MmaModel::Ampere), ("hopper", MmaModel::Hopper)];

pub(crate) fn run(options: &Options) -> Result {
    let card = Card::open()?;
    let of = match card.is_simulated()? {
        true => SIMULATED.to_owned(),
        false => card.line()?,
    };
    let (mut vectors, committed) = (Vectors::new(&of), Vectors::committed());
    let (mut different, mut others) = (Vec::new(), 0);
    for probe in Probe::all() {
        let left = launched(&card, &probe)?;
        vectors.keep(&probe, &left);
        // How sums are rounded is for the models below.
        if probe.name.starts_with("random") {
            continue;
        }
        let (count, told) = probe.differences(&left, &probe.simulate(MmaModel::Exact)?, TOLD);
        told.iter().for_each(|line| println!("{line}"));
        if count > 0 {
            different.push(format!("{} ({count})", probe.name));
        }
        others += usize::from(committed.output(&probe).as_ref() != Some(&left));
    }
    std::fs::write(options.out.join("probes.txt"), vectors.to_string())?;
    println!(
        "* vectors of {of}; {others} probes differ in a bit from the committed ones, of {}",
        committed.of
    );
    if !different.is_empty() {
        return Err(format!("the simulator does otherwise: {}", different.join(", ")).into());
    }
    let tiles = options.scale.of(100_000, 200);
    Factor::ALL.into_iter().try_for_each(|factor| tiles_of(&card, factor, tiles))
}

/// What a probe leaves on the card.
fn launched(card: &Card, probe: &Probe) -> Result<Vec<u8>> {
    let function =
        card.function(&probe.text, ENTRY).map_err(|error| format!("{}: {error}", probe.name))?;
    let from = card.stream.clone_htod(&probe.input)?;
    // What is not written shows.
    let mut to = card.stream.clone_htod(&vec![0xcc_u8; probe.output_len])?;
    let config = LaunchConfig {
        grid_dim: (u32::try_from(probe.items)?, 1, 1),
        block_dim: (32, 1, 1),
        shared_mem_bytes: 0,
    };
    let mut launch = card.stream.launch_builder(&function);
    launch.arg(&from).arg(&mut to);
    // SAFETY: the entry takes two addresses; input and output are as long as so many CTAs read and write.
    unsafe { launch.launch(config) }?;
    let left = card.stream.clone_dtoh(&to)?;
    card.stream.synchronize()?;
    Ok(left)
}

/// What `tiles` random tiles were, in words of their D.
#[derive(Debug, Clone, Copy, Default)]
struct Compared {
    words: usize,
    /// Equal to each of [`MODELS`].
    equal: [usize; 3],
    /// The largest part of the bound that an error took.
    part: f64,
}

impl Compared {
    fn and(self, other: Compared) -> Compared {
        Compared {
            words: self.words + other.words,
            equal: std::array::from_fn(|at| self.equal[at] + other.equal[at]),
            part: self.part.max(other.part),
        }
    }
}

fn tiles_of(card: &Card, factor: Factor, tiles: usize) -> Result {
    let start = Instant::now();
    let batches = tiles.div_ceil(BATCH);
    let batch = |at: usize| Probe::random(factor, BATCH.min(tiles - at * BATCH), 2 + at as u64);
    let left: Vec<Vec<u8>> =
        (0..batches).map(|at| launched(card, &batch(at))).collect::<Result<_>>()?;
    let all: Vec<Compared> = left
        .par_iter()
        .enumerate()
        .map(|(at, left)| compared(&batch(at), factor, left))
        .collect::<Result<_, String>>()?;
    let all = all.into_iter().fold(Compared::default(), Compared::and);
    let equal = MODELS.iter().zip(all.equal).map(|((name, _), equal)| {
        format!("{name} {:.3} %", 100.0 * equal as f64 / all.words as f64)
    });
    println!(
        "* {tiles} random tiles of {}: equal to the model: {}; errors take at most {:.3} of their bound; {:.1} s",
        factor.name(),
        equal.collect::<Vec<_>>().join(", "),
        all.part,
        start.elapsed().as_secs_f64(),
    );
    match all.part <= 1.0 {
        true => Ok(()),
        false => Err("the sums of mma.sync exceed the bound that tolerances rest on".into()),
    }
}

fn compared(probe: &Probe, factor: Factor, left: &[u8]) -> Result<Compared, String> {
    let models = MODELS.map(|(_, model)| probe.simulate(model));
    let [exact, ampere, hopper] = models;
    let models = [exact?, ampere?, hopper?];
    let sums = probe.absolute().simulate(MmaModel::Exact)?;
    // As `reference` has it for one instruction: gamma of the products, times the sum of absolute values.
    let gamma = (factor.depth() as f64 / 8.0 + 8.0) * 2f64.powi(-23);
    let words = |bytes: &[u8]| -> Vec<f32> {
        bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
    };
    let (left, sums) = (words(left), words(&sums));
    let models = models.map(|of| words(&of));
    let mut of = Compared { words: left.len(), ..Compared::default() };
    for (at, got) in left.iter().enumerate() {
        for (equal, model) in of.equal.iter_mut().zip(&models) {
            *equal += usize::from(got.to_bits() == model[at].to_bits());
        }
        let error = (f64::from(*got) - f64::from(models[0][at])).abs();
        let part = error / (gamma * f64::from(sums[at]));
        // A NaN is no part of a bound, and exceeds it.
        of.part = if part.is_nan() { f64::INFINITY } else { of.part.max(part) };
    }
    Ok(of)
}

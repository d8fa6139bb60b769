//! One cell of the table in memory: the weight (as many copies as it takes to be cold), the
//! activations and the adapter. Made outside the timing; every path reads it.

use std::path::Path;

use fused_lora::{DType, Device, Operation, Problem, Tensor};

use super::Result;
use super::shapes::{Cell, Direction, Shape};

/// Most memory that the copies of one weight may take.
const MEMORY: usize = 3 << 30;
/// From here on a layer is bound by arithmetic, and a weight is read from wherever it is.
const WARM_TOKENS: usize = 65;

/// Copies of a frozen weight, which all paths read: the time of a product that is bound by
/// memory depends on the pages where its weight happens to lie, by 10 % and more.
pub struct Weights {
    /// `[out_features, in_features]`, as the device keeps it.
    copies: Vec<Tensor>,
}

impl Weights {
    /// Of `shape`; enough copies that each is out of the caches when its turn comes again.
    pub fn new(device: &Device, shape: Shape, dtype: DType) -> Result<Weights> {
        let Shape { in_features, out_features, .. } = shape;
        let bytes = in_features * out_features * dtype.size();
        let copies = (2 * last_level_cache()).div_ceil(bytes) + 1;
        // A weight that is larger than the caches pushes itself out.
        let copies = if bytes > 2 * last_level_cache() { 1 } else { copies };
        let copies = met_by_all(copies.min(MEMORY / bytes).max(1));
        // x of ±1 makes a y of the order of 1.
        let values = random(1, in_features * out_features, (3.0 / in_features as f32).sqrt());
        // Not clones: on a GPU these would share one memory.
        let copy = |_| device.tensor(out_features, in_features, dtype, &values);
        Ok(Weights { copies: (0..copies).map(copy).collect::<Result<_, _>>()? })
    }
}

/// The next prime from 5 on: with a number that shares a factor with the turns of a round, each
/// path would meet copies of its own, round after round.
fn met_by_all(copies: usize) -> usize {
    let is_prime =
        |of: &usize| (2..*of).take_while(|by| by * by <= *of).all(|by| !of.is_multiple_of(by));
    if copies == 1 { 1 } else { (copies.max(5)..).find(is_prime).unwrap_or(copies) }
}

/// A cell's operands.
pub struct Layer<'a> {
    pub cell: Cell,
    pub device: &'a Device,
    weights: &'a Weights,
    /// s.
    pub scale: f32,
    pub x: Tensor,
    pub dy: Tensor,
    pub a: Tensor,
    pub b: Tensor,
    /// What forward left, rows of `shrunk_stride`; backward reads it.
    pub shrunk: Tensor,
}

impl<'a> Layer<'a> {
    /// The adapter's branch is as large as the plain layer's y, so that the comparison of the
    /// paths would notice its absence.
    pub fn new(device: &'a Device, weights: &'a Weights, cell: Cell) -> Result<Layer<'a>> {
        Layer::drawn(device, weights, cell, 1.0, 0)
    }

    /// With |s·b·a| / |w| of `size`, about, and x and dy of their own for every `turn`.
    pub fn drawn(
        device: &'a Device,
        weights: &'a Weights,
        cell: Cell,
        size: f32,
        turn: u64,
    ) -> Result<Layer<'a>> {
        let Cell { shape, tokens, rank, dtype, .. } = cell;
        let Shape { in_features, out_features, .. } = shape;
        let part = rank.next_multiple_of(8);
        // Half of the size in each factor: f16 has no room for all of it in one.
        let scale = 2.0;
        let a = (size * 3.0 / in_features as f32).sqrt();
        let b = 0.5 * (size * 3.0 / rank as f32).sqrt();
        let seeds = [2, 3].map(|seed| seed + 16 * turn);
        let mut shrunk = random(6, tokens * part, 1.0);
        // The pad is zero.
        shrunk.chunks_exact_mut(part).for_each(|row| row[rank..].fill(0.0));
        Ok(Layer {
            x: device.tensor(
                tokens,
                in_features,
                dtype,
                &random(seeds[0], tokens * in_features, 1.0),
            )?,
            dy: device.tensor(
                tokens,
                out_features,
                dtype,
                &random(seeds[1], tokens * out_features, 1.0),
            )?,
            a: device.tensor(rank, in_features, dtype, &random(4, rank * in_features, a))?,
            b: device.tensor(out_features, rank, dtype, &random(5, rank * out_features, b))?,
            shrunk: device.tensor(tokens, part, dtype, &shrunk)?,
            cell,
            device,
            weights,
            scale,
        })
    }

    /// The whole step as one problem; the other operation of a backward pass by
    /// [`Problem::with_operation`].
    pub fn problem(&self) -> Problem {
        let Cell { shape, tokens, rank, dtype, direction } = self.cell;
        let operation = match direction {
            Direction::Forward => Operation::Forward,
            Direction::Backward => Operation::BackwardInput,
        };
        Problem::new(operation, tokens, shape.in_features, shape.out_features, rank)
            .with_activation(dtype)
            .with_adapter(dtype)
            .with_gradient(DType::F32)
            .with_scale(self.scale)
    }

    /// The weight of this turn. Few tokens: a cold one, each in its turn.
    pub fn w(&self, turn: usize) -> &Tensor {
        let copies = &self.weights.copies;
        &copies[if self.cell.tokens < WARM_TOKENS { turn % copies.len() } else { 0 }]
    }
}

/// Uniform in ±`size`, the same for the same `seed`. The gigabytes of a table need speed
/// more than quality: xorshift64.
pub fn random(seed: u64, len: usize, size: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| size * next()).collect()
}

/// Bytes of the largest cache, as Linux tells it; 32 MiB where nobody does.
pub fn last_level_cache() -> usize {
    let size = |index: usize| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size");
        let text = std::fs::read_to_string(Path::new(&path)).ok()?;
        text.trim().strip_suffix('K')?.parse::<usize>().ok()
    };
    (0..8).filter_map(size).max().map_or(32 << 20, |kib| kib << 10)
}

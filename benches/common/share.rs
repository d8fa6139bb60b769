//! How much of an adapter's effect reaches y (dx), measured against exact terms. Called by the benches
//! `ratios`, for its column, and `share`.
//!
//! ```text
//! share = ⟨y − y₀, z⟩ / ⟨z, z⟩      y₀ = x·wᵀ, z = s·(x·aᵀ)·bᵀ in f64, of the operands as they are stored
//! ```
//!
//! Of a y that is rounded once it is 1, give or take chance; who stores y₀ in 16 bits before z is added to it
//! loses what is below half a step of it.

use fused_lora::Device;

use super::host::{View, product};
use super::shapes::{Cell, Direction};
use super::{Layer, Path, Result, Weights, fused, naive};

/// |s·b·a| / |w| of the column: an adapter early in its training.
pub const SIZE: f32 = 1e-3;

/// Outputs that a share of the column is taken over, at least: its standard deviation is then 0.005 in bf16.
const OUTPUTS: usize = 1 << 17;

/// A layer's matrices as they are stored: its input is x or dy.
pub struct Operands<'a> {
    pub direction: Direction,
    pub input: &'a [f32],
    /// [out_features, in_features].
    pub w: &'a [f32],
    /// [rank, in_features].
    pub a: &'a [f32],
    /// [out_features, rank].
    pub b: &'a [f32],
    pub scale: f32,
    pub in_features: usize,
    pub out_features: usize,
}

/// y₀ and z, row by row.
pub struct Exact {
    base: Vec<f64>,
    term: Vec<f64>,
}

impl Exact {
    pub fn new(of: &Operands<'_>) -> Exact {
        let [input, w, a, b] = [of.input, of.w, of.a, of.b].map(wide);
        let (k, n, rank) = (of.in_features, of.out_features, of.a.len() / of.in_features);
        let w = View::new(&w, n, k);
        let (a, b) = (View::new(&a, rank, k), View::new(&b, n, rank));
        // dx = dy·w: forward with w, a and b transposed.
        let (w, down, up, depth) = match of.direction {
            Direction::Forward => (w.transposed(), a.transposed(), b.transposed(), k),
            Direction::Backward => (w, b, a, n),
        };
        let tokens = input.len() / depth;
        let (input, columns) = (View::new(&input, tokens, depth), k + n - depth);
        let mut base = vec![0.0; tokens * columns];
        product(&mut base, 0.0, 1.0, input, w);
        let mut shrunk = vec![0.0; tokens * rank];
        product(&mut shrunk, 0.0, f64::from(of.scale), input, down);
        let mut term = vec![0.0; tokens * columns];
        product(&mut term, 0.0, 1.0, View::new(&shrunk, tokens, rank), up);
        Exact { base, term }
    }

    /// ⟨y − y₀, z⟩ and ⟨z, z⟩.
    pub fn arrived(&self, y: &[f32]) -> [f64; 2] {
        let rows = y.iter().zip(&self.base).zip(&self.term);
        rows.fold([0.0; 2], |[along, whole], ((&y, base), term)| {
            [along + (f64::from(y) - base) * term, whole + term * term]
        })
    }
}

fn wide(of: &[f32]) -> Vec<f64> {
    of.iter().map(|&value| f64::from(value)).collect()
}

/// The shares of the fused path and of the naive one called `taken`, with an adapter of [`SIZE`], over
/// as many inputs as it takes.
pub fn shares(device: &Device, weights: &Weights, cell: Cell, taken: &str) -> Result<[f64; 2]> {
    let (k, n) = (cell.shape.in_features, cell.shape.out_features);
    let (deep, wide) = match cell.direction {
        Direction::Forward => (k, n),
        Direction::Backward => (n, k),
    };
    // Of many tokens the first ones tell as much.
    let rows = cell.tokens.min(OUTPUTS.div_ceil(wide));
    let mut sums = [[0.0; 2]; 2];
    let mut w = Vec::new();
    for turn in 0..OUTPUTS.div_ceil(rows * wide) {
        let layer = Layer::drawn(device, weights, cell, SIZE, turn as u64)?;
        if w.is_empty() {
            w = layer.w(0).to_f32()?;
        }
        let input = match cell.direction {
            Direction::Forward => layer.x.to_f32()?,
            Direction::Backward => layer.dy.to_f32()?,
        };
        let exact = Exact::new(&Operands {
            direction: cell.direction,
            input: &input[..rows * deep],
            w: &w,
            a: &layer.a.to_f32()?,
            b: &layer.b.to_f32()?,
            scale: layer.scale,
            in_features: k,
            out_features: n,
        });
        let mut naive = naive(&layer)?;
        let naive = naive.iter_mut().find(|path| path.name() == taken);
        let naive = naive.ok_or("a path that was taken is gone")?;
        let mut fused = fused(&layer)?;
        let mut paths: [&mut dyn Path; 2] = [&mut *fused, &mut **naive];
        for (path, sums) in paths.iter_mut().zip(&mut sums) {
            path.run(0)?;
            let outputs = path.outputs()?;
            let (_, y) = outputs.first().ok_or("a path without outputs")?;
            let [along, whole] = exact.arrived(&y[..rows * wide]);
            *sums = [sums[0] + along, sums[1] + whole];
        }
    }
    Ok(sums.map(|[along, whole]| along / whole))
}

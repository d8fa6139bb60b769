//! The layers that are measured: projections of two well-known models, few and many
//! tokens, small and large ranks. Read by `ratios.rs` and `layer.rs`.

use std::fmt;

use clap::ValueEnum;
use fused_lora::DType;

/// A layer of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Where it is from.
    pub name: &'static str,
    /// N.
    pub out_features: usize,
    /// K.
    pub in_features: usize,
}

const fn shape(name: &'static str, out_features: usize, in_features: usize) -> Shape {
    Shape { name, out_features, in_features }
}

/// Every layer of the table.
pub const SHAPES: &[Shape] = &[
    shape("llama-q/o", 4096, 4096),
    shape("llama-k/v", 1024, 4096),
    shape("llama-gate/up", 14336, 4096),
    shape("llama-down", 4096, 14336),
    shape("sdxl-640", 640, 640),
    shape("sdxl-1280", 1280, 1280),
];
/// M: a decoding step, a small batch of them, a short prompt, a training step.
pub const TOKENS: &[usize] = &[1, 8, 64, 512];
/// r.
pub const RANKS: &[usize] = &[4, 16, 64];

/// With so many multiply-adds in the plain layer, one rank stands for all: the border is
/// then so small a part that the others would only repeat it, at a minute each.
const ONE_RANK: usize = 1 << 34;
/// That rank.
const THE_RANK: usize = 16;

/// What is timed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Direction {
    /// `forward`.
    Forward,
    /// `backward_input`, then `backward_adapter`.
    Backward,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Direction::Forward => "forward",
            Direction::Backward => "backward",
        })
    }
}

/// One row of a table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell {
    /// The layer.
    pub shape: Shape,
    /// M.
    pub tokens: usize,
    /// r.
    pub rank: usize,
    /// Storage of the activations, the weight and the adapter, for every path: what autocast
    /// hands to separate calls. Gradients are f32.
    pub dtype: DType,
    /// What is timed.
    pub direction: Direction,
}

impl Cell {
    /// Of the plain layer, in one direction.
    pub fn multiply_adds(&self) -> usize {
        self.tokens * self.shape.in_features * self.shape.out_features
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cell { shape, tokens, rank, dtype, direction } = self;
        let Shape { name, out_features, in_features } = shape;
        f.pad(&format!("{name} {out_features}x{in_features} m{tokens} r{rank} {dtype} {direction}"))
    }
}

/// The table of one storage type and direction, shape by shape.
pub fn table(dtype: DType, direction: Direction) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &shape in SHAPES {
        for &tokens in TOKENS {
            for &rank in RANKS {
                let large = tokens * shape.in_features * shape.out_features >= ONE_RANK;
                if !large || rank == THE_RANK {
                    cells.push(Cell { shape, tokens, rank, dtype, direction });
                }
            }
        }
    }
    cells
}

/// The smoke test of CI: each kernel once, in seconds.
pub fn quick(dtype: DType, direction: Direction) -> Vec<Cell> {
    let quick = |cell: &Cell| match cell.shape.name {
        "sdxl-640" => cell.rank == 16 && cell.tokens != 64,
        "llama-k/v" => cell.rank == 4 && cell.tokens == 8,
        _ => false,
    };
    table(dtype, direction).into_iter().filter(quick).collect()
}

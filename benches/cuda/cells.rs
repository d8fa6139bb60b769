//! Which cells are measured on a card, in which order: first the rows that the design sets
//! goals for, then every shape, type by type. Pure; called by `main.rs`.

use fused_lora::DType;

use super::common::shapes::{Cell, Direction, RANKS, SHAPES, Shape};

/// M: decoding, a short prompt, a training step, and what fills a card.
pub const TOKENS: &[usize] = &[1, 8, 16, 64, 512, 4096, 8192];

/// What the design asks of a cell: time over cuBLAS's plain layer on an H200.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goal {
    pub name: &'static str,
    /// At most so much.
    pub most: f64,
    /// The step before, where there is one.
    pub step: Option<f64>,
}

/// Its cells, as layer, tokens, rank and direction.
type Row = (Goal, &'static str, &'static [usize], usize, Direction);

const fn goal(name: &'static str, most: f64, step: Option<f64>) -> Goal {
    Goal { name, most, step }
}

/// The design's table of goals, bf16.
const GOALS: &[Row] = &[
    (goal("forward r=16", 1.00, Some(1.03)), "llama-q/o", &[8192], 16, Direction::Forward),
    (goal("forward r=64", 1.03, Some(1.06)), "llama-q/o", &[8192], 64, Direction::Forward),
    (goal("decode", 1.05, None), "llama-q/o", &[1, 8, 16], 16, Direction::Forward),
    (goal("sdxl attention", 1.10, None), "sdxl-1280", &[4096], 16, Direction::Forward),
    (goal("backward", 1.15, None), "llama-q/o", &[8192], 16, Direction::Backward),
];

/// The goal of a cell.
pub fn goal_of(cell: Cell) -> Option<Goal> {
    let meets = |&&(_, shape, tokens, rank, direction): &&Row| {
        cell.shape.name == shape
            && tokens.contains(&cell.tokens)
            && cell.rank == rank
            && cell.direction == direction
            && cell.dtype == DType::Bf16
    };
    GOALS.iter().find(meets).map(|(goal, ..)| *goal)
}

/// What `--list` prints and `--filter` looks into.
pub fn title(table: &str, cell: Cell) -> String {
    match goal_of(cell) {
        Some(goal) => format!("{table}: {cell} goal {}", goal.name),
        None => format!("{table}: {cell}"),
    }
}

/// A table: the end of its files' names, and its cells, shape by shape.
pub type Table = (String, Vec<Cell>);

/// The goals, each in its place in the design.
pub fn goals() -> Table {
    let mut cells = Vec::new();
    for &(_, name, tokens, rank, direction) in GOALS {
        for shape in SHAPES.iter().filter(|shape| shape.name == name) {
            cells.extend(tokens.iter().map(|&tokens| Cell {
                shape: *shape,
                tokens,
                rank,
                dtype: DType::Bf16,
                direction,
            }));
        }
    }
    ("goals-bf16".to_owned(), cells)
}

/// Every cell of one type and direction.
pub fn table(dtype: DType, direction: Direction) -> Table {
    let mut cells = Vec::new();
    for &shape in SHAPES {
        for &tokens in TOKENS {
            cells.extend(RANKS.iter().map(|&rank| Cell { shape, tokens, rank, dtype, direction }));
        }
    }
    (format!("{direction}-{dtype}"), cells)
}

/// A shape that a simulated card goes through in seconds: nothing of it is a whole tile, and
/// its rank is padded.
const TINY: Shape = Shape { name: "tiny", out_features: 136, in_features: 72 };

/// The smoke test of CI, of one type and direction.
pub fn tiny(dtype: DType, direction: Direction) -> Table {
    let cell = Cell { shape: TINY, tokens: 20, rank: 4, dtype, direction };
    (format!("tiny-{direction}-{dtype}"), vec![cell])
}

/// How many sets of buffers a cell is rotated over, so that each is out of the caches when its
/// turn comes again: `bytes` is what one run touches, `l2` the cache. What overflows the cache
/// twice by itself pushes itself out.
pub fn sets(bytes: u64, l2: u64) -> usize {
    /// Beyond, a graph gets long; what is so small is measured half warm.
    const MOST: u64 = 256;
    let enough = 2 * l2;
    if bytes > enough { 1 } else { (enough / bytes.max(1) + 2).min(MOST) as usize }
}

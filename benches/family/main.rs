//! What each method of the LyCORIS family costs to train beside the frozen layer alone: forward, dx and the gradient of every
//! factor, over forward and dx of the plain layer, on the same executor in the same run. f32 on the CPU.
//! `peers.py` measures the same ratio of PEFT and LyCORIS in PyTorch, against PyTorch's own plain layer; so no column is of
//! another library's clock.
//!
//!     cargo bench --bench family                  prints the table, with peers.csv's columns beside ours
//!     cargo bench --bench family -- --out FILE    and writes it there, with the machine

// `pub` says here what another file of this program uses.
#![allow(unreachable_pub)]

#[path = "../common/statistics.rs"]
#[allow(dead_code)]
mod statistics;
#[path = "../common/table.rs"]
mod table;

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

use clap::Parser;
use fused_lora::cpu::{Cpu, Slice, SliceMut};
use fused_lora::{
    Adapter, Backward, BackwardGain, Device, Factor, Forward, Matrix, Norm, shrunk_stride,
};
use serde::Deserialize;

use statistics::{pairwise, seconds};
use table::Table;

/// A training step of each method beside the plain layer's.
#[derive(Debug, Parser)]
struct Options {
    #[command(flatten)]
    table: Table,
}

const RANK: usize = 8;
/// Of LoKr: rows and columns of w1.
const FACTOR: usize = 8;
const SCALE: f32 = 0.5;
/// Tokens and features (K = N); `peers.py` has the same.
const CELLS: [[usize; 2]; 5] = [[512, 640], [64, 1280], [512, 1280], [64, 4096], [256, 4096]];

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Lora,
    Dora,
    Loha,
    /// Of low rank in w2.
    Lokr,
    /// Whole factors.
    LokrWhole,
}

impl Method {
    const ALL: [Method; 5] =
        [Method::Lora, Method::Dora, Method::Loha, Method::Lokr, Method::LokrWhole];

    /// As `peers.csv` names it.
    fn name(self) -> &'static str {
        match self {
            Method::Lora => "lora",
            Method::Dora => "dora",
            Method::Loha => "loha",
            Method::Lokr => "lokr",
            Method::LokrWhole => "lokr-full",
        }
    }

    fn title(self) -> String {
        match self {
            Method::Lora => format!("LoRA, rank {RANK}"),
            Method::Dora => format!("DoRA, rank {RANK}"),
            Method::Loha => format!("LoHa, rank {RANK}"),
            Method::Lokr => format!("LoKr, factor {FACTOR}, rank {RANK}"),
            Method::LokrWhole => format!("LoKr, factor {FACTOR}, full"),
        }
    }

    /// Shapes of its factors for a layer `[size, size]`.
    fn shapes(self, size: usize) -> Vec<[usize; 2]> {
        let part = size / FACTOR;
        match self {
            Method::Lora | Method::Dora => vec![[RANK, size], [size, RANK]],
            Method::Loha => vec![[size, RANK], [RANK, size], [size, RANK], [RANK, size]],
            Method::Lokr => vec![[FACTOR, FACTOR], [part, RANK], [RANK, part]],
            Method::LokrWhole => vec![[FACTOR, FACTOR], [part, part]],
        }
    }

    fn inner_rank(self) -> usize {
        match self {
            Method::Lora | Method::Dora => RANK,
            Method::Loha => RANK * RANK,
            Method::Lokr => FACTOR * RANK,
            Method::LokrWhole => 0,
        }
    }
}

/// A square layer, and all that a step writes.
struct Layer {
    cpu: Cpu,
    method: Method,
    tokens: usize,
    size: usize,
    x: Vec<f32>,
    w: Vec<f32>,
    dy: Vec<f32>,
    factors: Vec<Vec<f32>>,
    gradients: Vec<Vec<f32>>,
    magnitude: [Vec<f32>; 3],
    scaled: Vec<f32>,
    shrunk: Vec<f32>,
    y: Vec<f32>,
    dx: Vec<f32>,
}

fn numbers(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|at| (((at + seed) * 7919 % 1009) as f32 - 504.0) / 504.0).collect()
}

fn matrix<'a>(of: &'a [f32], [rows, cols]: [usize; 2]) -> Matrix<Slice<'a>> {
    Matrix::new(of.into(), rows, cols)
}

fn matrix_mut<'a>(of: &'a mut [f32], [rows, cols]: [usize; 2]) -> Matrix<SliceMut<'a>> {
    Matrix::new(of.into(), rows, cols)
}

impl Layer {
    fn new(method: Method, tokens: usize, size: usize) -> Layer {
        let shapes = method.shapes(size);
        let lens = shapes.iter().map(|[rows, cols]| rows * cols);
        let factors = lens.clone().enumerate().map(|(at, len)| numbers(len, 7 + at));
        let of_tokens = |seed| numbers(tokens * size, seed);
        Layer {
            cpu: Cpu::new(),
            method,
            tokens,
            size,
            x: of_tokens(1),
            w: numbers(size * size, 2),
            dy: of_tokens(3),
            factors: factors.collect(),
            gradients: lens.map(|len| vec![0.0; len]).collect(),
            magnitude: [vec![1.0; size], vec![0.0; size], vec![1.0; size]],
            scaled: vec![0.0; tokens * size],
            shrunk: vec![0.0; tokens * shrunk_stride(method.inner_rank())],
            y: vec![0.0; tokens * size],
            dx: vec![0.0; tokens * size],
        }
    }

    /// Forward and dx of the frozen layer.
    fn plain(&mut self) -> Result<()> {
        let (activations, square) = ([self.tokens, self.size], [self.size; 2]);
        let w = matrix(&self.w, square);
        let y = matrix_mut(&mut self.y, activations);
        self.cpu.forward(Forward::new(matrix(&self.x, activations), w, y))?;
        let (dy, dx) = (matrix(&self.dy, activations), matrix_mut(&mut self.dx, activations));
        let x = matrix(&self.x, activations);
        Ok(self.cpu.backward(Backward::new(x, w, dy).dx(dx))?)
    }

    /// With its adapter: one call forward and one back, for DoRA two more.
    fn step(&mut self) -> Result<()> {
        let Layer { cpu, method, tokens, size, x, w, dy, factors, shrunk, y, dx, .. } = self;
        let (method, size) = (*method, *size);
        let (activations, square, row) = ([*tokens, size], [size; 2], [1, size]);
        let kept = [*tokens, shrunk_stride(method.inner_rank())];
        let shapes = method.shapes(size);
        let m = |at: usize| matrix(&factors[at], shapes[at]);
        let adapter = match method {
            Method::Lora | Method::Dora => Adapter::new(m(0), m(1)),
            Method::Loha => Adapter::loha(m(0), m(1), m(2), m(3)),
            Method::Lokr => Adapter::lokr(Factor::whole(m(0)), Factor::low(m(1), m(2))),
            Method::LokrWhole => Adapter::lokr(Factor::whole(m(0)), Factor::whole(m(1))),
        };
        let (x, w) = (matrix(x, activations), matrix(w, square));
        let [magnitude, dmagnitude, gain] = &mut self.magnitude;
        if method == Method::Dora {
            let norm = Norm::new(w, matrix(magnitude, row), matrix_mut(gain, row));
            cpu.norm(norm.with_adapter(Some(adapter)).scale(SCALE))?;
        }
        let forward = Forward::new(x, w, matrix_mut(y, activations))
            .with_adapter(Some(adapter))
            .with_gain((method == Method::Dora).then(|| matrix(gain, row)))
            .with_shrunk((kept[1] > 0).then(|| matrix_mut(shrunk, kept)))
            .scale(SCALE);
        cpu.forward(forward)?;
        let mut dy = matrix(dy, activations);
        if method == Method::Dora {
            let of = [dy, matrix(y, activations)];
            let by = [matrix(gain, row), matrix(magnitude, row)];
            let scaled = matrix_mut(&mut self.scaled, activations);
            cpu.backward_gain(BackwardGain::new(of, by, scaled, matrix_mut(dmagnitude, row)))?;
            dy = matrix(&self.scaled, activations);
        }
        let backward = Backward::new(x, w, dy)
            .with_adapter(Some(adapter))
            .with_shrunk((kept[1] > 0).then(|| matrix(shrunk, kept)))
            .dx(matrix_mut(dx, activations))
            .scale(SCALE);
        let shaped = self.gradients.iter_mut().zip(&shapes);
        let mut of =
            shaped.map(|(of, shape)| matrix_mut(of, *shape)).collect::<Vec<_>>().into_iter();
        let mut next = || of.next().expect("one for each factor");
        let backward = match method {
            Method::Lora | Method::Dora => backward.da(next()).db(next()),
            Method::Loha => backward.dw1a(next()).dw1b(next()).dw2a(next()).dw2b(next()),
            Method::Lokr => backward.dw1(next()).dw2a(next()).dw2b(next()),
            Method::LokrWhole => backward.dw1(next()).dw2(next()),
        };
        Ok(cpu.backward(backward)?)
    }
}

/// A row of `peers.csv`.
#[derive(Debug, Deserialize)]
struct Peer {
    package: String,
    method: String,
    tokens: usize,
    features: usize,
    median: f64,
    low: f64,
    high: f64,
}

fn peers() -> Result<Vec<Peer>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/family/peers.csv");
    let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).from_path(path)?;
    Ok(reader.deserialize().collect::<Result<_, _>>()?)
}

fn main() -> Result<()> {
    let options = Options::parse();
    let (pairs, cells) = options.table.extent(&CELLS, &[[16, 64]]);
    let peers = peers()?;
    let mut text = "A training step (forward, dx, every factor's gradient) over forward and dx of the frozen layer, each library's own, f32, CPU:\n\n\
         | method | tokens | features | fused-lora | PEFT | LyCORIS |\n|---|---|---|---|---|---|\n"
        .to_owned();
    for method in Method::ALL {
        for &[tokens, size] in cells {
            let (mut ours, mut plain) =
                (Layer::new(method, tokens, size), Layer::new(method, tokens, size));
            let once = seconds(&mut || ours.step())?;
            let repeats = ((5e-3 / once) as usize).clamp(1, 1 << 10);
            let ratio = pairwise(
                pairs,
                || (0..repeats).try_for_each(|_| ours.step()),
                || (0..repeats).try_for_each(|_| plain.plain()),
            )?;
            let peer = |package: &str| {
                let is = |of: &&Peer| {
                    (&*of.package, &*of.method) == (package, method.name())
                        && [of.tokens, of.features] == [tokens, size]
                };
                let found = peers.iter().find(is);
                let shown = |of: &Peer| format!("{:.2} [{:.2}, {:.2}]", of.median, of.low, of.high);
                found.map_or("–".into(), shown)
            };
            let title = method.title();
            eprintln!("{title}, {tokens} tokens, {size}²: {ratio}");
            let (peft, lycoris) = (peer("peft"), peer("lycoris"));
            writeln!(text, "| {title} | {tokens} | {size}² | {ratio} | {peft} | {lycoris} |")?;
        }
    }
    Ok(options.table.finish(&text, &Device::cpu(), "family")?)
}

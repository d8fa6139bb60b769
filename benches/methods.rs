//! What LoHa costs to train: forward with `shrunk` kept, then `dx` and the gradient of every factor, over LoRA of the
//! same rank, and over the two ways to go without its inner rank: ΔW formed and multiplied beside the weight, as
//! LyCORIS and PEFT do, and added to the weight first. f32 on the CPU; the rivals' products are gemm's, on all
//! threads.
//!
//!     cargo bench --bench methods                 prints the table as Markdown
//!     cargo bench --bench methods -- --out FILE   and writes it there, with the machine

// `pub` says here what another file of this program uses.
#![allow(unreachable_pub)]

#[path = "common/statistics.rs"]
#[allow(dead_code)]
mod statistics;
#[path = "common/table.rs"]
mod table;

use std::error::Error;
use std::fmt::Write as _;

use clap::Parser;
use fused_lora::cpu::Cpu;
use fused_lora::{Adapter, Backward, Device, Forward, Matrix, shrunk_stride};

use statistics::{pairwise, seconds};
use table::Table;

/// A LoHa training step beside others.
#[derive(Debug, Parser)]
struct Options {
    #[command(flatten)]
    table: Table,
}

const RANK: usize = 8;
const SCALE: f32 = 0.5;
/// Tokens and features (K = N).
const CELLS: [[usize; 2]; 5] = [[512, 640], [64, 1280], [512, 1280], [64, 4096], [256, 4096]];

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// A square layer, its adapter, and all that a step writes.
struct Layer {
    cpu: Cpu,
    tokens: usize,
    size: usize,
    x: Vec<f32>,
    w: Vec<f32>,
    dy: Vec<f32>,
    /// w1a, w1b, w2a, w2b; LoRA's b and a are the first two.
    factors: [Vec<f32>; 4],
    gradients: [Vec<f32>; 4],
    shrunk: Vec<f32>,
    y: Vec<f32>,
    dx: Vec<f32>,
    /// Of the rivals: w1, w2, ΔW or the merged weight, and its gradient.
    dense: [Vec<f32>; 4],
}

fn numbers(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|at| (((at + seed) * 7919 % 1009) as f32 - 504.0) / 504.0).collect()
}

impl Layer {
    fn new(tokens: usize, size: usize) -> Layer {
        let side = size * RANK;
        Layer {
            cpu: Cpu::new(),
            tokens,
            size,
            x: numbers(tokens * size, 1),
            w: numbers(size * size, 2),
            dy: numbers(tokens * size, 3),
            factors: [4, 5, 6, 7].map(|seed| numbers(side, seed)),
            gradients: [0; 4].map(|_| vec![0.0; side]),
            shrunk: vec![0.0; tokens * shrunk_stride(RANK * RANK)],
            y: vec![0.0; tokens * size],
            dx: vec![0.0; tokens * size],
            dense: [0; 4].map(|_| vec![0.0; size * size]),
        }
    }

    /// By calls of this crate, with LoHa or with LoRA.
    fn fused(&mut self, is_loha: bool) -> Result<()> {
        let Layer { cpu, tokens, size, x, w, dy, factors, gradients, shrunk, y, dx, .. } = self;
        let (tokens, size) = (*tokens, *size);
        let [w1a, w1b, w2a, w2b] = factors;
        let [dw1a, dw1b, dw2a, dw2b] = gradients;
        let tall = |of| Matrix::new(of, size, RANK);
        let wide = |of| Matrix::new(of, RANK, size);
        let adapter = || match is_loha {
            true => Adapter::loha(tall(&*w1a), wide(&*w1b), tall(&*w2a), wide(&*w2b)),
            false => Adapter::new(wide(&*w1b), tall(&*w1a)),
        };
        let stride = shrunk_stride(if is_loha { RANK * RANK } else { RANK });
        let matrix = |of, cols| Matrix::new(of, tokens, cols);
        let (x, w, dy) = (matrix(&*x, size), Matrix::new(&*w, size, size), matrix(&*dy, size));
        let kept = &mut shrunk[..tokens * stride];
        let forward = Forward::new(x, w, Matrix::new(&mut *y, tokens, size));
        cpu.forward(
            forward
                .with_adapter(Some(adapter()))
                .scale(SCALE)
                .shrunk(Matrix::new(&mut *kept, tokens, stride)),
        )?;
        let backward = Backward::new(x, w, dy)
            .with_adapter(Some(adapter()))
            .scale(SCALE)
            .shrunk(Matrix::new(&*kept, tokens, stride))
            .dx(Matrix::new(&mut *dx, tokens, size));
        let tall = |of| Matrix::new(of, size, RANK);
        let wide = |of| Matrix::new(of, RANK, size);
        let backward = match is_loha {
            true => backward.dw1a(tall(dw1a)).dw1b(wide(dw1b)).dw2a(tall(dw2a)).dw2b(wide(dw2b)),
            false => backward.da(wide(dw1b)).db(tall(dw1a)),
        };
        Ok(cpu.backward(backward)?)
    }

    /// ΔW formed, and multiplied beside w or added to it first; its gradient formed and taken back.
    fn dense(&mut self, merged: bool) -> Result<()> {
        let Layer { tokens, size, x, w, dy, factors, gradients, y, dx, dense, .. } = self;
        let (tokens, size) = (*tokens, *size);
        let [w1a, w1b, w2a, w2b] = factors;
        let [dw1a, dw1b, dw2a, dw2b] = gradients;
        let [w1, w2, delta, g] = dense;
        product(w1, [size, size, RANK], (w1a, [RANK, 1]), (w1b, [size, 1]), (0.0, 1.0));
        product(w2, [size, size, RANK], (w2a, [RANK, 1]), (w2b, [size, 1]), (0.0, 1.0));
        for ((delta, w), (w1, w2)) in delta.iter_mut().zip(&*w).zip(w1.iter().zip(w2.iter())) {
            *delta = SCALE * w1 * w2 + if merged { *w } else { 0.0 };
        }
        let sizes = [tokens, size, size];
        let (rows, turned) = ([size, 1], [1, size]);
        product(y, sizes, (x, rows), (delta, turned), (0.0, 1.0));
        product(dx, sizes, (dy, rows), (delta, rows), (0.0, 1.0));
        if !merged {
            product(y, sizes, (x, rows), (w, turned), (1.0, 1.0));
            product(dx, sizes, (dy, rows), (w, rows), (1.0, 1.0));
        }
        product(g, [size, size, tokens], (dy, turned), (x, rows), (0.0, SCALE));
        // dW1 = G∘w2 and dW2 = G∘w1, where w2 and w1 were.
        for (g, (w1, w2)) in g.iter().zip(w1.iter_mut().zip(w2.iter_mut())) {
            (*w1, *w2) = (g * *w2, g * *w1);
        }
        for (d, [a, b], [da, db]) in
            [(&*w1, [&*w1a, &*w1b], [dw1a, dw1b]), (&*w2, [&*w2a, &*w2b], [dw2a, dw2b])]
        {
            product(da, [size, RANK, size], (d, rows), (b, turned), (0.0, 1.0));
            product(db, [RANK, size, size], (a, [1, RANK]), (d, rows), (0.0, 1.0));
        }
        Ok(())
    }

    /// y, dx and the gradients: what all ways to train LoHa must agree in.
    fn results(&self) -> Vec<Vec<f32>> {
        [&self.y, &self.dx].into_iter().chain(&self.gradients).cloned().collect()
    }
}

/// `to[m, n] = keep·to + factor·left·right`; of either side the steps from row to row and from column to column.
fn product(
    to: &mut [f32],
    [m, n, k]: [usize; 3],
    (left, of_left): (&[f32], [usize; 2]),
    (right, of_right): (&[f32], [usize; 2]),
    (keep, factor): (f32, f32),
) {
    let last =
        |[row, col]: [usize; 2], rows: usize, cols: usize| (rows - 1) * row + (cols - 1) * col;
    assert!(
        to.len() == m * n && last(of_left, m, k) < left.len() && last(of_right, k, n) < right.len()
    );
    let step = |of: usize| of as isize;
    // SAFETY: the last element of each side and of `to` lies inside, as asserted, and `to` is borrowed apart.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            to.as_mut_ptr(),
            1,
            step(n),
            keep != 0.0,
            left.as_ptr(),
            step(of_left[1]),
            step(of_left[0]),
            right.as_ptr(),
            step(of_right[1]),
            step(of_right[0]),
            keep,
            factor,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(0),
        );
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    let (pairs, cells) = options.table.extent(&CELLS, &[[16, 64]]);
    let mut text = format!(
        "A LoHa training step of rank {RANK} (inner rank {}), f32, on the CPU: time over that of\n\n",
        RANK * RANK
    );
    text += "| tokens | features | LoRA, rank 8 | ΔW formed (rebuild) | w + ΔW formed (merged) | a and b, bytes over ΔW's |\n|---|---|---|---|---|---|\n";
    for &[tokens, size] in cells {
        let (mut ours, mut theirs) = (Layer::new(tokens, size), Layer::new(tokens, size));
        ours.fused(true)?;
        for merged in [false, true] {
            theirs.dense(merged)?;
            agree(&ours.results(), &theirs.results())?;
        }
        let once = seconds(&mut || ours.fused(true))?;
        let repeats = ((5e-3 / once) as usize).clamp(1, 1 << 10);
        let mut ratio = |rival: &mut dyn FnMut(&mut Layer) -> Result<()>| {
            pairwise(
                pairs,
                || (0..repeats).try_for_each(|_| ours.fused(true)),
                || (0..repeats).try_for_each(|_| rival(&mut theirs)),
            )
        };
        let lora = ratio(&mut |of| of.fused(false))?;
        let rebuild = ratio(&mut |of| of.dense(false))?;
        let merged = ratio(&mut |of| of.dense(true))?;
        let memory = (RANK * RANK * 2 * size) as f64 / (size * size) as f64;
        eprintln!("{tokens} tokens, {size}²: {lora}, {rebuild}, {merged}");
        writeln!(text, "| {tokens} | {size}² | {lora} | {rebuild} | {merged} | {memory:.3} |")?;
    }
    Ok(options.table.finish(&text, &Device::cpu(), "methods")?)
}

/// That both train the same.
fn agree(ours: &[Vec<f32>], theirs: &[Vec<f32>]) -> Result<()> {
    for (at, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        let apart: f64 = ours.iter().zip(theirs).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        let size: f64 = theirs.iter().map(|of| f64::from(*of).powi(2)).sum();
        let distance = (apart / size).sqrt();
        if distance.is_nan() || distance > 1e-4 {
            return Err(format!(
                "result {at} is {distance:.2e} apart: one computes something else"
            )
            .into());
        }
    }
    Ok(())
}

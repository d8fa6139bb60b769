//! What a convolution's LoCon step costs: forward with `shrunk` kept, and backward (dx, da, db), over the same by columns
//! (im2col), which frameworks do on a CPU: gathered once, then the products of LoRA, each gemm's on all threads, and
//! their columns' gradient brought back to the pixels. f32 on the CPU, PyTorch's layout (NCHW).
//!
//!     cargo bench --bench convolution                 prints the table as Markdown
//!     cargo bench --bench convolution -- --out FILE   and writes it there, with the machine

// `pub` says here what another file of this program uses.
#![allow(unreachable_pub)]

#[path = "common/locon.rs"]
mod locon;
#[path = "common/statistics.rs"]
#[allow(dead_code)]
mod statistics;
#[path = "common/table.rs"]
mod table;

use std::error::Error;
use std::fmt::Write as _;

use clap::Parser;
use fused_lora::{Convolution, Device, shrunk_stride};

use locon::{CELLS, Cell, Locon, SCALE, SMALL, distance};
use statistics::{pairwise, seconds};
use table::Table;

/// A LoCon step beside that by columns.
#[derive(Debug, Parser)]
struct Options {
    #[command(flatten)]
    table: Table,
    /// The cells of these numbers alone, from 0 on; all where there are none
    #[arg(long)]
    cell: Vec<usize>,
}

/// Of a small network, where nothing is long.
const TINY: Cell = [16, 8, 16, 32, 3, 2, 8];

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// The rival: the same layer by columns.
struct Columns {
    layer: Locon,
    /// Where each column's element lies in x.
    places: Vec<usize>,
    columns: Vec<f32>,
    dcolumns: Vec<f32>,
    /// `s·dy·b`.
    dshrunk: Vec<f32>,
}

impl Columns {
    fn new(cell: Cell) -> Columns {
        let layer = Locon::new(cell);
        let (of, [channels, _, rank]) = (layer.of, layer.sizes);
        let (m, k) = (of.tokens(), channels * of.taps());
        Columns {
            places: places(&of, channels),
            columns: vec![0.0; m * k],
            dcolumns: vec![0.0; m * k],
            dshrunk: vec![0.0; m * rank],
            layer,
        }
    }

    /// Image by image, so that y comes as planes.
    fn run(&mut self, backward: bool) {
        let Locon { of, sizes: [channels, n, r], x, w, a, b, dy, y, shrunk, dx, da, db, .. } =
            &mut self.layer;
        let (channels, n, r) = (*channels, *n, *r);
        let k = channels * of.taps();
        let stride = shrunk_stride(r);
        let pixels = of.tokens() / of.images;
        let (rows, turned) = (|cols| [cols, 1], |cols| [1, cols]);
        if !backward {
            for (to, at) in self.columns.iter_mut().zip(&self.places) {
                *to = x.get(*at).copied().unwrap_or(0.0);
            }
            for image in 0..of.images {
                let columns = &self.columns[image * pixels * k..][..pixels * k];
                let y = &mut y[image * n * pixels..][..n * pixels];
                let t = &mut shrunk[image * pixels * stride..][..pixels * stride];
                product(
                    t,
                    [pixels, r, k],
                    stride,
                    (columns, rows(k)),
                    (a, turned(k)),
                    [0.0, SCALE],
                );
                product(y, [n, pixels, k], pixels, (w, rows(k)), (columns, turned(k)), [0.0, 1.0]);
                product(y, [n, pixels, r], pixels, (b, rows(r)), (t, turned(stride)), [1.0, 1.0]);
            }
            return;
        }
        for image in 0..of.images {
            let columns = &self.columns[image * pixels * k..][..pixels * k];
            let dcolumns = &mut self.dcolumns[image * pixels * k..][..pixels * k];
            let dy = &dy[image * n * pixels..][..n * pixels];
            let t = &shrunk[image * pixels * stride..][..pixels * stride];
            let u = &mut self.dshrunk[image * pixels * r..][..pixels * r];
            let keep = if image == 0 { 0.0 } else { 1.0 };
            product(u, [pixels, r, n], r, (dy, turned(pixels)), (b, rows(r)), [0.0, SCALE]);
            product(dcolumns, [pixels, k, n], k, (dy, turned(pixels)), (w, rows(k)), [0.0, 1.0]);
            product(dcolumns, [pixels, k, r], k, (u, rows(r)), (a, rows(k)), [1.0, 1.0]);
            product(da, [r, k, pixels], k, (u, turned(r)), (columns, rows(k)), [keep, 1.0]);
            product(db, [n, r, pixels], r, (dy, rows(pixels)), (t, rows(stride)), [keep, 1.0]);
        }
        dx.fill(0.0);
        for (from, at) in self.dcolumns.iter().zip(&self.places) {
            if let Some(to) = dx.get_mut(*at) {
                *to += from;
            }
        }
    }
}

/// For each token and column the place in x that is read; in the padding one behind every end.
fn places(of: &Convolution, channels: usize) -> Vec<usize> {
    let [height, width] = of.output();
    let size = of.size[0] * of.size[1];
    let mut places = Vec::with_capacity(of.tokens() * channels * of.taps());
    for token in 0..of.tokens() {
        let (image, pixel) = (token / (height * width), token % (height * width));
        for column in 0..channels * of.taps() {
            let (channel, tap) = (column / of.taps(), column % of.taps());
            let at = [pixel / width, pixel % width];
            let tap = [tap / of.kernel[1], tap % of.kernel[1]];
            let [row, col] = [0, 1].map(|axis| {
                let at = at[axis] * of.stride[axis] + tap[axis] * of.dilation[axis];
                at.checked_sub(of.padding[axis]).filter(|at| *at < of.size[axis])
            });
            let place = row.zip(col).map(|(row, col)| row * of.size[1] + col);
            places.push(place.map_or(usize::MAX, |at| (image * channels + channel) * size + at));
        }
    }
    places
}

/// `to[m, n] = keep·to + factor·left·right`; of each the steps from row to row, and from column to column.
fn product(
    to: &mut [f32],
    [m, n, k]: [usize; 3],
    step_to: usize,
    (left, of_left): (&[f32], [usize; 2]),
    (right, of_right): (&[f32], [usize; 2]),
    [keep, factor]: [f32; 2],
) {
    let last =
        |[row, col]: [usize; 2], rows: usize, cols: usize| (rows - 1) * row + (cols - 1) * col;
    assert!(
        last([step_to, 1], m, n) < to.len()
            && last(of_left, m, k) < left.len()
            && last(of_right, k, n) < right.len()
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
            step(step_to),
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

/// By one call of this crate.
fn fused(layer: &mut Locon, backward: bool) -> fused_lora::Result<()> {
    if backward { layer.backward() } else { layer.forward() }
}

fn main() -> Result<()> {
    let options = Options::parse();
    let cells = [&CELLS[..], &[TINY]].concat();
    let (pairs, cells) = options.table.extent(&cells, &[SMALL]);
    let mut text = "A convolution with LoCon, f32, NCHW, on the CPU: time over that by columns (im2col) and separate products\n\n\
         | images | pixels | channels | kernel, stride | rank | forward | backward | both |\n|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for (at, &cell) in cells.iter().enumerate() {
        if !(options.cell.is_empty() || options.cell.contains(&at)) {
            continue;
        }
        let [images, size, channels, n, kernel, stride, rank] = cell;
        let (mut ours, mut theirs) = (Locon::new(cell), Columns::new(cell));
        for backward in [false, true] {
            fused(&mut ours, backward)?;
            theirs.run(backward);
        }
        for (at, (ours, theirs)) in ours.results().iter().zip(theirs.layer.results()).enumerate() {
            let distance = distance(ours, theirs);
            if distance.is_nan() || distance > 1e-4 {
                return Err(format!("result {at} is {distance:.2e} apart").into());
            }
        }
        let mut once = 0.0;
        for backward in [true, false] {
            let [of_ours, of_theirs] = [
                seconds(&mut || fused(&mut ours, backward))?,
                seconds(&mut || {
                    theirs.run(backward);
                    Ok::<_, fused_lora::Error>(())
                })?,
            ];
            once = of_ours;
            let name = if backward { "backward" } else { "forward" };
            eprintln!("{cell:?}: {name} {:.3} and {:.3} ms", 1e3 * of_ours, 1e3 * of_theirs);
        }
        let repeats = ((5e-3 / once) as usize).clamp(1, 1 << 10);
        let mut ratio = |steps: &[bool]| {
            pairwise(
                pairs,
                || {
                    (0..repeats)
                        .try_for_each(|_| steps.iter().try_for_each(|of| fused(&mut ours, *of)))
                },
                || {
                    (0..repeats).for_each(|_| steps.iter().for_each(|of| theirs.run(*of)));
                    Ok(())
                },
            )
        };
        let (forward, backward) = (ratio(&[false])?, ratio(&[true])?);
        let both = ratio(&[false, true])?;
        eprintln!("{cell:?}: {forward}, {backward}, {both}");
        writeln!(
            text,
            "| {images} | {size}² | {channels} → {n} | {kernel}², {stride} | {rank} | {forward} | {backward} | {both} |"
        )?;
    }
    Ok(options.table.finish(&text, &Device::cpu(), "convolution")?)
}

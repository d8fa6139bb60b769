//! `linear` on the way back through a convolution: the gradient of its input, in two launches. First dshrunk of all tokens,
//! which a pixel wants of its neighbours; then the layer that has a step of its sums for each tap and output channel. Called by
//! `work`.

use super::cost::{self, Step};
use super::job::Job;
use super::layer::{
    Bind, Border, Buffers, Layer, Load, Output, Turned, bind_summand, multiply, summand_numbers,
};
use super::limits::{self, fold};
use super::linear::{DEPTH, Tile, column_words, row_words};
use super::matrix::StoredMatrix;
use super::shader::parts::{chosen, kernels};
use super::shader::{Shader, Size};
use super::shrink::Shrink;
use super::{Launch, Refusal, WgpuCapabilities, Work};
use crate::problem::Scalars;
use crate::product::{Multiplier, Transposed};
use crate::{Access, Problem};

pub(super) fn work(
    of: &Transposed,
    tile: Tile,
    problem: &Problem,
    work: &mut Work<'_>,
) -> Result<(), Refusal> {
    let wgpu = work.wgpu;
    let [channel, tap] = of.steps;
    let turned = |load, depth, summed| Load::turned(load, Turned { depth, channel, tap, summed });
    let a = of.a.as_ref().map(|a| turned(a, of.rank(), false));
    let mut t = None;
    if let Some(product) = &of.shrink {
        let mut layer = Layer::new(problem, product, wgpu);
        // It goes on to the layer, as if that were of the same tokens.
        layer.border = layer.border.map(|border| Border { b: a, ..border });
        let kept = layer.border.and_then(|of| of.kept).map(|of| (of.operand, of.matrix));
        let all = [Some((layer.x.operand, layer.x.matrix)), kept];
        let down = layer.border.map(|of| (of.a.operand, of.a.matrix));
        t = layer.t(product.rows);
        let of_t = t.map(|t| (layer.x.operand, t));
        for (operand, matrix) in all.into_iter().chain([down, of_t]).flatten() {
            limits::whole(operand, &matrix, wgpu)?;
        }
        work.scratch = layer.t_bytes(product.rows) as usize;
        work.add(&Shrink::new(&layer, (0, product.rows)))?;
    }
    let (x, w) = (Load::new(&of.dy), turned(&of.w, of.depth, of.summand.is_some()));
    let (y, scalars) = (Output::new(&of.finish.out), Scalars::of(problem));
    for (operand, matrix) in [(x.operand, x.matrix), (w.operand, w.matrix), (y.operand, y.matrix)] {
        limits::whole(operand, &matrix, wgpu)?;
    }
    for load in of.summand.iter().flat_map(|of| of.loads()) {
        limits::whole(load.operand, &StoredMatrix::new(&load.spec), wgpu)?;
    }
    work.add(&Input { of, tile, x, w, border: t.zip(a), y, scalars, wgpu })
}

/// The layer.
#[derive(Debug)]
struct Input<'a> {
    of: &'a Transposed,
    tile: Tile,
    x: Load,
    w: Load,
    /// dshrunk in the workspace, and a.
    border: Option<(StoredMatrix, Load)>,
    y: Output,
    scalars: Scalars,
    wgpu: &'a WgpuCapabilities,
}

impl Input<'_> {
    fn tiles(&self) -> [usize; 2] {
        let Transposed { rows, columns, .. } = *self.of;
        [rows.div_ceil(self.tile.tokens), columns.div_ceil(self.tile.columns)]
    }

    fn bind(&self, to: &mut impl Bind) {
        to.read("x", &self.x);
        to.write("y", &self.y);
        if let Some((t, a)) = &self.border {
            to.scratch("t_images", t, 0, Access::Read);
            to.read("b", a);
        }
        if let Some(summand) = &self.of.summand {
            bind_summand(to, summand);
        }
        to.read("w", &self.w);
    }

    /// Steps of the sums, and of the border's.
    fn depths(&self) -> [usize; 2] {
        [self.of.depth, self.of.rank()].map(|of| of.saturating_mul(self.of.taps))
    }
}

impl Job for Input<'_> {
    fn size(&self) -> Size {
        let [tiles, columns] = self.tiles();
        let [y, z] = fold(columns, self.wgpu);
        let words = row_words(self.tile.tokens) + column_words(self.tile.columns / 4);
        let grid = [limits::uint(tiles), y, z];
        Size { grid, block: self.tile.block(), smem_bytes: 16 * words as u32 }
    }

    fn buffers(&self) -> u32 {
        let mut buffers = Buffers::new(self.wgpu);
        self.bind(&mut buffers);
        buffers.count
    }

    fn step(&self) -> Step {
        let ([tiles, columns], [depth, rank]) = (self.tiles(), self.depths());
        let steps = depth.div_ceil(DEPTH) + rank.div_ceil(DEPTH);
        let sums = [tiles * self.tile.tokens, columns * self.tile.columns];
        let t = self.border.map_or(0, |(t, _)| t.bytes());
        let weights = self.w.matrix.bytes() + self.border.map_or(0, |(_, a)| a.matrix.bytes());
        let bytes = |tiles: usize, columns: usize| {
            (self.x.matrix.bytes() + t).saturating_mul(columns as u64)
                + weights.saturating_mul(tiles as u64)
                + self.y.bytes_of(self.of.rows)
        };
        Step {
            needed: 2 * multiply([self.of.rows, self.of.columns, depth + rank]),
            executed: 2 * multiply([sums[0], sums[1], steps * DEPTH]),
            bytes: bytes(tiles, columns),
            least_bytes: bytes(1, 1),
            size: self.size(),
            waits: steps,
            rate: cost::staged(self.tile.sums),
        }
    }

    fn render(&self) -> crate::Result<Launch> {
        let (mut shader, size) = (Shader::new(self.wgpu), self.size());
        let [depth, rank] = self.depths();
        self.tile.numbers(&mut shader);
        shader.uint("depth", depth);
        shader.beta(self.of.finish.old, self.scalars);
        if let Some(summand) = &self.of.summand {
            shader.scale(Multiplier::Scale, self.scalars);
            // By stored rows and columns.
            summand_numbers(&mut shader, summand, self.of.w.k_major);
        }
        shader.uint("groups_y", size.grid[1] as usize);
        self.bind(&mut shader);
        shader.product(&chosen::STAGED, "x", "w", false);
        if let Some((t, _)) = &self.border {
            shader.condition("border", true);
            shader.uint("rank", rank);
            shader.sees("t", &self.of.neighbours, 0, t.groups(4));
            shader.product(&chosen::STAGED, "t", "b", false);
        }
        shader.launch(&kernels::LINEAR, size)
    }
}

//! `linear`: the layer through workgroup memory, for many tokens on a GPU.

use super::cost::{self, Step};
use super::job::Job;
use super::layer::{Layer, Rows};
use super::limits::fold;
use super::shader::parts::{chosen, kernels};
use super::shader::{Shader, Size};
use super::{Launch, Refusal};

/// A tile of `linear` or `bordered`, which a workgroup forms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tile {
    pub(crate) tokens: usize,
    pub(crate) columns: usize,
    /// Steps of the sum that are in workgroup memory at a time.
    pub(crate) depth: usize,
}

/// Tokens and columns of a thread.
const REGISTERS: usize = 4;

impl Tile {
    pub(super) fn threads_m(&self) -> usize {
        self.tokens / REGISTERS
    }

    pub(super) fn threads_n(&self) -> usize {
        self.columns / REGISTERS
    }

    pub(super) fn block(&self) -> [u32; 3] {
        [self.threads_n() as u32, self.threads_m() as u32, 1]
    }

    pub(super) fn numbers(&self, shader: &mut Shader<'_>) {
        shader.constant("TILE_TOKENS", REGISTERS);
        shader.constant("TILE_FOURS", 1);
        shader.constant("THREADS_M", self.threads_m());
        shader.constant("THREADS_N", self.threads_n());
        shader.constant("DEPTH", self.depth);
    }
}

#[derive(Debug)]
pub(super) struct Linear<'a> {
    layer: &'a Layer<'a>,
    tile: Tile,
    rows: Rows,
    tiles: usize,
    columns: usize,
    /// Stored rows of w in a binding.
    w_rows: usize,
}

impl<'a> Linear<'a> {
    pub(super) fn new(layer: &'a Layer<'a>, tile: Tile, rows: Rows) -> Result<Linear<'a>, Refusal> {
        let columns = layer.body.map_or(0, |body| body.columns);
        let (tiles, columns) = (rows.1.div_ceil(tile.tokens), columns.div_ceil(tile.columns));
        let mut linear = Linear { layer, tile, rows, tiles, columns, w_rows: 0 };
        linear.w_rows = layer.w_rows(&layer.buffers_but_w(rows))?;
        Ok(linear)
    }
}

impl Job for Linear<'_> {
    fn size(&self) -> Size {
        let [y, z] = fold(self.columns, self.layer.wgpu);
        let words = (self.tile.tokens + self.tile.columns) * self.tile.depth / 4;
        let grid = [self.tiles as u32, y, z];
        Size { grid, block: self.tile.block(), smem_bytes: 16 * words as u32 }
    }

    fn buffers(&self) -> u32 {
        let mut buffers = self.layer.buffers_but_w(self.rows);
        self.layer.bind_w(&mut buffers, self.w_rows);
        buffers.count
    }

    fn step(&self) -> Step {
        let tokens = self.rows.1;
        Step {
            flops: self.layer.flops(tokens),
            bytes: self.layer.layer_bytes(tokens, self.tiles, self.columns),
            threads: self.size().threads(),
            rate: if self.tile.tokens > 32 { cost::WIDE } else { cost::SMALL },
        }
    }

    fn render(&self) -> crate::Result<Launch> {
        let (mut shader, size) = (Shader::new(self.layer.wgpu), self.size());
        self.tile.numbers(&mut shader);
        self.layer.numbers(&mut shader);
        shader.uint("groups_y", size.grid[1] as usize);
        self.layer.bind_but_w(&mut shader, self.rows);
        self.layer.bind_w(&mut shader, self.w_rows);
        self.layer.product(&mut shader, &chosen::STAGED, "w", 1);
        shader.launch(&kernels::LINEAR, size)
    }
}

//! `linear`: the layer through workgroup memory, for many tokens on a GPU.

use super::cost::{self, Step};
use super::job::Job;
use super::layer::{Bind, Buffers, Layer, Rows, multiply};
use super::limits::fold;
use super::machine::Sums;
use super::partial_shrink::PartialShrink;
use super::shader::parts::{chosen, kernels};
use super::shader::{Shader, Size};
use super::{Launch, Refusal};

/// A tile of `linear` or `bordered`, which a workgroup forms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tile {
    pub(crate) tokens: usize,
    pub(crate) columns: usize,
    /// Tokens and columns of a thread.
    pub(crate) sums: Sums,
}

/// Steps of the sum that are in workgroup memory at a time. The distances between staged words suit
/// this one (`shaders/parts/row_slab.wgsl`, `stage_columns.wgsl`).
pub(super) const DEPTH: usize = 16;

/// Words of `DEPTH` staged steps of `rows` rows.
pub(super) fn row_words(rows: usize) -> usize {
    (rows + 2) * DEPTH / 4
}

/// Words of `DEPTH` staged steps of so many groups of four columns.
pub(super) fn column_words(fours: usize) -> usize {
    (4 * (fours | 4) + 1) * DEPTH / 4
}

impl Tile {
    fn thread(&self) -> [usize; 2] {
        match self.sums {
            Sums::EightByEight => [8, 8],
            Sums::EightByFour => [8, 4],
            Sums::FourByFour | Sums::Direct | Sums::Cooperative => [4, 4],
        }
    }

    pub(super) fn threads_m(&self) -> usize {
        self.tokens / self.thread()[0]
    }

    pub(super) fn threads_n(&self) -> usize {
        self.columns / self.thread()[1]
    }

    pub(super) fn block(&self) -> [u32; 3] {
        [self.threads_n() as u32, self.threads_m() as u32, 1]
    }

    pub(super) fn numbers(&self, shader: &mut Shader<'_>) {
        let [tokens, columns] = self.thread();
        shader.constant("TILE_TOKENS", tokens);
        shader.constant("TILE_FOURS", columns / 4);
        shader.constant("THREADS_M", self.threads_m());
        shader.constant("THREADS_N", self.threads_n());
        shader.constant("DEPTH", DEPTH);
    }
}

#[derive(Debug)]
pub(super) struct Linear<'a> {
    layer: &'a Layer<'a>,
    tile: Tile,
    rows: Rows,
    tiles: usize,
    columns: usize,
    /// In which shrunk comes.
    slices: usize,
    /// Stored rows of w in a binding.
    w_rows: usize,
}

impl<'a> Linear<'a> {
    pub(super) fn new(layer: &'a Layer<'a>, tile: Tile, rows: Rows) -> Result<Linear<'a>, Refusal> {
        let columns = layer.body.map_or(0, |body| body.columns);
        let (tiles, columns) = (rows.1.div_ceil(tile.tokens), columns.div_ceil(tile.columns));
        let slices = PartialShrink::slices(layer, rows);
        let mut linear = Linear { layer, tile, rows, tiles, columns, slices, w_rows: 0 };
        let mut buffers = Buffers::new(layer.wgpu);
        layer.bind_on_slices(&mut buffers, rows, slices);
        linear.w_rows = layer.w_rows(&buffers)?;
        Ok(linear)
    }

    fn bind(&self, to: &mut impl Bind) {
        self.layer.bind_on_slices(to, self.rows, self.slices);
        self.layer.bind_w(to, self.w_rows);
    }
}

impl Job for Linear<'_> {
    fn size(&self) -> Size {
        let [y, z] = fold(self.columns, self.layer.wgpu);
        let words = row_words(self.tile.tokens) + column_words(self.tile.columns / 4);
        let grid = [self.tiles as u32, y, z];
        Size { grid, block: self.tile.block(), smem_bytes: 16 * words as u32 }
    }

    fn buffers(&self) -> u32 {
        let mut buffers = Buffers::new(self.layer.wgpu);
        self.bind(&mut buffers);
        buffers.count
    }

    fn step(&self) -> Step {
        let (layer, tokens) = (self.layer, self.rows.1);
        let sums = [self.tiles * self.tile.tokens, self.columns * self.tile.columns];
        // Whole steps, of the border as well.
        let steps = layer.depth.div_ceil(DEPTH) + layer.rank().div_ceil(DEPTH);
        Step {
            needed: layer.flops(tokens),
            executed: 2 * multiply([sums[0], sums[1], steps * DEPTH]),
            bytes: layer.layer_bytes(tokens, self.tiles, self.columns)
                + layer.slices_bytes(tokens, self.slices, self.columns),
            least_bytes: layer.layer_bytes(tokens, 1, 1),
            size: self.size(),
            waits: steps,
            rate: cost::staged(self.tile.sums),
        }
    }

    fn render(&self) -> crate::Result<Launch> {
        let (mut shader, size) = (Shader::new(self.layer.wgpu), self.size());
        self.tile.numbers(&mut shader);
        self.layer.numbers(&mut shader);
        shader.uint("groups_y", size.grid[1] as usize);
        self.bind(&mut shader);
        self.layer.product(&mut shader, &chosen::STAGED, "w", 1);
        self.layer.on_slices(&mut shader, self.rows, self.slices, &chosen::STAGED, 1);
        shader.launch(&kernels::LINEAR, size)
    }
}

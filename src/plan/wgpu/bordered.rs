//! `bordered`: the layer through workgroup memory in one launch, which makes its own shrunk.

use super::cost::{self, Step};
use super::job::Job;
use super::layer::{Bind, Buffers, Layer, Rows, multiply};
use super::limits::fold;
use super::linear::{DEPTH, Tile, column_words, row_words};
use super::shader::parts::kernels;
use super::shader::{Shader, Size};
use super::{Launch, Refusal};

#[derive(Debug)]
pub(super) struct Bordered<'a> {
    layer: &'a Layer<'a>,
    tile: Tile,
    rows: Rows,
    tiles: usize,
    columns: usize,
    /// Stored rows of w in a binding.
    w_rows: usize,
}

impl<'a> Bordered<'a> {
    pub(super) fn new(
        layer: &'a Layer<'a>,
        tile: Tile,
        rows: Rows,
    ) -> Result<Bordered<'a>, Refusal> {
        let columns = layer.body.map_or(0, |body| body.columns);
        let (tiles, columns) = (rows.1.div_ceil(tile.tokens), columns.div_ceil(tile.columns));
        let mut bordered = Bordered { layer, tile, rows, tiles, columns, w_rows: 0 };
        let mut buffers = Buffers::new(layer.wgpu);
        bordered.bind(&mut buffers);
        bordered.w_rows = layer.w_rows(&buffers)?;
        Ok(bordered)
    }

    /// Groups of four ranks that a tile carries: as many as give every thread the same share.
    fn fours(&self) -> usize {
        let padded_rank = self.layer.border.map_or(0, |border| border.padded_rank);
        (padded_rank / 4).next_power_of_two().max(self.tile.threads_n() / 4).max(4)
    }

    /// All but w.
    fn bind(&self, to: &mut impl Bind) {
        self.layer.bind_x(to, self.rows);
        self.layer.bind_finish(to, self.rows);
        self.layer.bind_shrink(to, self.rows);
        if let Some(b) = self.layer.border.and_then(|border| border.b) {
            to.read("b", &b);
        }
    }
}

impl Job for Bordered<'_> {
    fn size(&self) -> Size {
        let [y, z] = fold(self.columns, self.layer.wgpu);
        let (fours, Tile { tokens, columns, .. }) = (self.fours(), self.tile);
        let w = column_words(columns / 4);
        // A staged row of shrunk has `fours` words; x's has one for each four steps.
        let shrunk = row_words(tokens) * 4 / DEPTH * fours;
        let words = (row_words(tokens) + w + column_words(fours)).max(shrunk + w);
        let grid = [self.tiles as u32, y, z];
        Size { grid, block: self.tile.block(), smem_bytes: 16 * words as u32 }
    }

    fn buffers(&self) -> u32 {
        let mut buffers = Buffers::new(self.layer.wgpu);
        self.bind(&mut buffers);
        self.layer.bind_w(&mut buffers, self.w_rows);
        buffers.count
    }

    fn step(&self) -> Step {
        let (layer, tokens) = (self.layer, self.rows.1);
        let a = layer.border.map_or(0, |border| border.a.matrix.bytes());
        // Every tile makes its own shrunk.
        let again = multiply([tokens, layer.depth, layer.rank(), self.columns]);
        let (columns, steps) = (self.tile.columns, layer.depth.div_ceil(DEPTH));
        let border = layer.rank().div_ceil(DEPTH);
        // The tile's columns and the ranks that it carries beside them; then the border.
        let sums = (columns + 4 * self.fours()) * steps * DEPTH + columns * border * DEPTH;
        Step {
            needed: layer.flops(tokens) + 2 * again,
            executed: 2 * multiply([self.tiles * self.tile.tokens, self.columns, sums]),
            bytes: layer.x_bytes(tokens) * self.columns as u64
                + layer.weight_bytes() * self.tiles as u64
                + a * (self.tiles * self.columns) as u64
                + layer.kept_bytes(tokens)
                + layer.y_bytes(tokens),
            least_bytes: layer.layer_bytes(tokens, 1, 1) + a,
            size: self.size(),
            waits: steps + border,
            rate: cost::BORDERED,
        }
    }

    fn render(&self) -> crate::Result<Launch> {
        let (mut shader, size) = (Shader::new(self.layer.wgpu), self.size());
        self.tile.numbers(&mut shader);
        shader.constant("FOURS", self.fours());
        self.layer.numbers(&mut shader);
        shader.uint("groups_y", size.grid[1] as usize);
        self.bind(&mut shader);
        self.layer.bind_w(&mut shader, self.w_rows);
        shader.launch(&kernels::BORDERED, size)
    }
}

//! `bordered`: the layer through workgroup memory in one launch, which makes its own shrunk.

use super::cost::{self, Step};
use super::job::Job;
use super::layer::{Bind, Buffers, Layer, Rows, multiply};
use super::limits::fold;
use super::linear::Tile;
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
        let staged = (self.tile.tokens + self.tile.columns) * self.tile.depth / 4;
        let fours = self.fours();
        let words = (staged + fours * self.tile.depth).max(fours * self.tile.tokens);
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
        Step {
            flops: layer.flops(tokens) + 2 * again,
            bytes: layer.x_bytes(tokens) * self.columns as u64
                + layer.weight_bytes() * self.tiles as u64
                + a * (self.tiles * self.columns) as u64
                + layer.kept_bytes(tokens)
                + layer.y_bytes(tokens),
            threads: self.size().threads(),
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

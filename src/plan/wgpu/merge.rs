//! `merge`: launches of merge and unmerge, one for each window of stored rows that a binding holds.
//! Called by `work`.

use super::cost::{self, Step};
use super::job::Job;
use super::layer::{Bind, Buffers, Load, Output, Rows, multiply};
use super::limits::{self, fold};
use super::shader::parts::{chosen, kernels};
use super::shader::{Shader, Size};
use super::{Launch, Refusal, WgpuCapabilities, Work};
use crate::problem::Scalars;
use crate::product::{Body, Bordered, Multiplier};

/// What a workgroup forms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tile {
    /// Stored rows of w.
    pub(crate) rows: usize,
    /// Stored columns, four a thread.
    pub(crate) columns: usize,
}

/// The problem by w's stored rows.
#[derive(Debug)]
pub(super) struct Merges<'a> {
    wgpu: &'a WgpuCapabilities,
    tile: Tile,
    rank: usize,
    /// ±s
    factor: Multiplier,
    scalars: Scalars,
    pub(super) left: Load,
    pub(super) right: Load,
    w: Output,
}

impl<'a> Merges<'a> {
    /// `None` where the product has no body, which is no merge.
    pub(super) fn new(
        tile: Tile,
        product: &Bordered,
        scalars: Scalars,
        wgpu: &'a WgpuCapabilities,
    ) -> Option<Merges<'a>> {
        let product = product.along_storage();
        let Body { right, finish, .. } = product.body.as_ref()?;
        Some(Merges {
            wgpu,
            tile,
            rank: product.depth,
            factor: finish.factor,
            scalars,
            left: Load::new(&product.left),
            right: Load::new(right),
            w: Output::new(&finish.out),
        })
    }

    pub(super) fn work(&self, work: &mut Work<'_>) -> Result<(), Refusal> {
        let Merges { wgpu, tile, ref w, .. } = *self;
        for load in [self.left, self.right] {
            limits::whole(load.operand, &load.matrix, wgpu)?;
        }
        let grid = tile.rows.saturating_mul(wgpu.workgroups as usize);
        let most = limits::rows(w.operand, &w.matrix, wgpu)?.min(grid);
        limits::few_windows(w.operand, w.matrix.rows, most)?;
        for first in (0..w.matrix.rows).step_by(most) {
            let rows = (first, most.min(w.matrix.rows - first));
            work.add(&Merge { of: self, rows })?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Merge<'a> {
    of: &'a Merges<'a>,
    rows: Rows,
}

impl Merge<'_> {
    /// Workgroups along the rows and the columns.
    fn tiles(&self) -> [usize; 2] {
        let Merges { tile, w, .. } = self.of;
        [self.rows.1.div_ceil(tile.rows), w.matrix.cols.div_ceil(tile.columns)]
    }

    fn bind(&self, to: &mut impl Bind) {
        to.read("left", &self.of.left);
        to.read("right", &self.of.right);
        to.write("w", &self.of.w.window(self.rows));
    }
}

impl Job for Merge<'_> {
    fn size(&self) -> Size {
        let [rows, columns] = self.tiles();
        let [y, z] = fold(columns, self.of.wgpu);
        let block = [self.of.tile.columns as u32 / 4, 1, 1];
        Size { grid: [rows as u32, y, z], block, smem_bytes: 0 }
    }

    fn buffers(&self) -> u32 {
        let mut buffers = Buffers::new(self.of.wgpu);
        self.bind(&mut buffers);
        buffers.count
    }

    fn step(&self) -> Step {
        let (Merges { left, right, w, rank, .. }, rows) = (self.of, self.rows.1);
        let [row_tiles, column_tiles] = self.tiles();
        // left is a window of its rows, read by every tile of columns; right by every tile of rows.
        let left_bytes = left.matrix.bytes() * rows as u64 / w.matrix.rows as u64;
        let bytes = |row_tiles: usize, column_tiles: usize| {
            2 * w.matrix.bytes_of(rows)
                + left_bytes * column_tiles as u64
                + right.matrix.bytes() * row_tiles as u64
        };
        let tile = self.of.tile;
        Step {
            needed: 2 * multiply([rows, w.matrix.cols, *rank]),
            executed: 2 * multiply([row_tiles * tile.rows, column_tiles * tile.columns, *rank]),
            bytes: bytes(row_tiles, column_tiles),
            least_bytes: bytes(1, 1),
            size: self.size(),
            waits: *rank,
            rate: cost::REGISTERS,
        }
    }

    fn render(&self) -> crate::Result<Launch> {
        let (mut shader, size) = (Shader::new(self.of.wgpu), self.size());
        shader.constant("TILE_TOKENS", self.of.tile.rows);
        shader.constant("TILE_FOURS", 1);
        shader.constant("LANES_N", self.of.tile.columns / 4);
        shader.uint("first_row", self.rows.0);
        shader.uint("rank", self.of.rank);
        shader.uint("groups_y", size.grid[1] as usize);
        shader.scale(self.of.factor, self.of.scalars);
        self.bind(&mut shader);
        shader.product(&chosen::PRODUCT_ONE, "left", "right", true);
        shader.launch(&kernels::MERGE, size)
    }
}

//! `shrink`: shrunk, to the workspace for the layer, and to the caller where he keeps it.

use super::cost::{self, Step};
use super::job::Job;
use super::lanes::{Lanes, Shared};
use super::layer::{Bind, Buffers, Layer, Rows, multiply};
use super::shader::parts::{chosen, kernels};
use super::shader::{Shader, Size};
use super::{AdapterKind, Launch};

/// The one tile of it, whichever layer comes behind.
const TILE: Shared = Shared { tokens: 4, columns: 16, threads: 128 };
/// The same with few threads: a software driver runs a workgroup's threads in turns up to each barrier.
const SOFTWARE_TILE: Shared = Shared { threads: 32, ..TILE };

#[derive(Debug)]
pub(super) struct Shrink<'a> {
    layer: &'a Layer<'a>,
    rows: Rows,
    lanes: Lanes,
    tiles: usize,
    groups: usize,
}

impl<'a> Shrink<'a> {
    /// Tokens of a workgroup where there are many.
    pub(super) const fn tile_tokens() -> usize {
        TILE.tokens
    }

    pub(super) fn new(layer: &'a Layer<'a>, rows: Rows) -> Shrink<'a> {
        let padded_rank = layer.border.map_or(0, |border| border.padded_rank);
        let tile = match layer.wgpu.adapter {
            AdapterKind::Software => SOFTWARE_TILE,
            _ => TILE,
        };
        let lanes = Lanes::sharing(layer.shaped_for(rows.1), padded_rank, tile);
        let tiles = rows.1.div_ceil(lanes.tile_tokens());
        let groups = padded_rank.div_ceil(lanes.tile_columns());
        Shrink { layer, rows, lanes, tiles, groups }
    }

    fn bind(&self, to: &mut impl Bind) {
        self.layer.bind_x(to, self.rows);
        self.layer.bind_shrink(to, self.rows);
        self.layer.bind_t(to, self.rows.1);
    }
}

impl Job for Shrink<'_> {
    fn size(&self) -> Size {
        self.lanes.size([self.tiles as u32, self.groups as u32, 1])
    }

    fn buffers(&self) -> u32 {
        let mut buffers = Buffers::new(self.layer.wgpu);
        self.bind(&mut buffers);
        buffers.count
    }

    fn step(&self) -> Step {
        let (layer, lanes, tokens) = (self.layer, &self.lanes, self.rows.1);
        let sums = [self.tiles * lanes.tile_tokens(), self.groups * lanes.tile_columns()];
        let steps = layer.depth.div_ceil(4);
        Step {
            needed: layer.shrink_flops(tokens),
            executed: 2 * multiply([sums[0], sums[1], 4 * steps]),
            bytes: layer.shrink_bytes(tokens, self.tiles, self.groups),
            least_bytes: layer.shrink_bytes(tokens, 1, 1),
            size: self.size(),
            waits: steps.div_ceil(lanes.depth),
            rate: cost::SHRINK,
        }
    }

    fn render(&self) -> crate::Result<Launch> {
        let mut shader = Shader::new(self.layer.wgpu);
        self.lanes.numbers(&mut shader);
        self.layer.numbers(&mut shader);
        self.bind(&mut shader);
        self.layer.product(&mut shader, &chosen::PRODUCT, "a", 4);
        shader.launch(&kernels::SHRINK, self.size())
    }
}

//! `partial_shrink`: slices of shrunk's sums, to the workspace, where the layer adds them.

use super::Launch;
use super::cost::{self, Step};
use super::job::Job;
use super::lanes::{Lanes, Shared};
use super::layer::{Bind, Buffers, Layer, Rows, multiply};
use super::limits;
use super::shader::parts::{chosen, kernels};
use super::shader::{Shader, Size};
use crate::Access;

/// The one tile of it.
const TILE: Shared = Shared { tokens: 16, columns: 16, threads: 128 };
/// Workgroups that a sum is sliced for, where tokens and ranks make fewer.
const GROUPS: usize = 64;
/// Slices that there may be, each a text.
const SLICES: [usize; 4] = [16, 8, 4, 1];

#[derive(Debug)]
pub(super) struct PartialShrink<'a> {
    layer: &'a Layer<'a>,
    rows: Rows,
    lanes: Lanes,
    tiles: usize,
    groups: usize,
    slices: usize,
}

impl<'a> PartialShrink<'a> {
    /// Tokens of a workgroup where there are many.
    pub(super) const fn tile_tokens() -> usize {
        TILE.tokens
    }

    pub(super) fn new(layer: &'a Layer<'a>, rows: Rows) -> PartialShrink<'a> {
        let padded_rank = layer.border.map_or(0, |border| border.padded_rank);
        let tokens = layer.shaped_for(rows.1);
        let lanes = Lanes::sharing(tokens, padded_rank, TILE);
        let groups = padded_rank.div_ceil(lanes.tile_columns());
        // As many as leave every thread something, and as a binding holds.
        let wanted = GROUPS / (tokens.div_ceil(lanes.tile_tokens()) * groups).max(1);
        let steps = layer.depth / (4 * lanes.depth);
        let room =
            limits::binding(layer.wgpu) / (4 * tokens.max(rows.1) * padded_rank).max(1) as u64;
        let most = wanted.min(steps).min(usize::try_from(room).unwrap_or(usize::MAX));
        let slices = SLICES.into_iter().find(|&slices| slices <= most).unwrap_or(1);
        let tiles = rows.1.div_ceil(lanes.tile_tokens());
        PartialShrink { layer, rows, lanes, tiles, groups, slices }
    }

    /// In how many slices the layer behind it finds shrunk.
    pub(super) fn slices(layer: &Layer<'_>, rows: Rows) -> usize {
        PartialShrink::new(layer, rows).slices
    }

    /// Bytes of the slices.
    pub(super) fn bytes(layer: &Layer<'_>, rows: Rows) -> u64 {
        layer.slices(PartialShrink::slices(layer, rows), rows.1).map_or(0, |of| of.bytes())
    }

    fn bind(&self, to: &mut impl Bind) {
        self.layer.bind_x(to, self.rows);
        self.layer.bind_a(to);
        self.layer.bind_slices(to, self.slices, self.rows.1, Access::Write);
    }
}

impl Job for PartialShrink<'_> {
    fn size(&self) -> Size {
        self.lanes.size_of_tree([self.tiles as u32, self.groups as u32, self.slices as u32])
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
        let slices = PartialShrink::bytes(layer, self.rows);
        let a = layer.border.map_or(0, |border| border.a.matrix.bytes());
        let bytes = |tiles: usize, groups: usize| {
            layer.x_bytes(tokens) * groups as u64 + a * tiles as u64 + slices
        };
        Step {
            needed: layer.shrink_flops(tokens),
            executed: 2 * multiply([sums[0], sums[1], 4 * steps]),
            bytes: bytes(self.tiles, self.groups),
            least_bytes: bytes(1, 1),
            size: self.size(),
            waits: steps.div_ceil(lanes.depth * self.slices),
            rate: cost::SHARED,
        }
    }

    fn render(&self) -> crate::Result<Launch> {
        let mut shader = Shader::new(self.layer.wgpu);
        self.lanes.numbers(&mut shader);
        shader.constant("SLICES", self.slices);
        shader.uint("tokens", self.rows.1);
        self.layer.numbers(&mut shader);
        self.bind(&mut shader);
        self.layer.product(&mut shader, &chosen::PRODUCT, "a", 4);
        shader.launch(&kernels::PARTIAL_SHRINK, self.size())
    }
}

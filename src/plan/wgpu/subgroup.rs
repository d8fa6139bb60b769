//! `subgroup`: the layer by subgroups, for software drivers that have them.

use super::cost::{self, Step};
use super::job::Job;
use super::layer::{Layer, Rows, multiply};
use super::limits::fold;
use super::shader::parts::{chosen, kernels};
use super::shader::{Shader, Size};
use super::{AdapterKind, Launch, Refusal, WgpuCapabilities};
use crate::DType;

/// What it takes at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Most {
    /// Tokens of a thread.
    pub(crate) tokens: usize,
    /// Columns of a workgroup.
    pub(crate) columns: usize,
}

/// Threads of the subgroups that are served: those of software drivers with vectors of 128, 256
/// and 512 bits.
const SERVED: [u32; 3] = [4, 8, 16];

/// Tokens of a thread where there are few of them; of a thread of `subgroup_shrink` always.
pub(super) const FEW: usize = 8;

/// Tokens of a thread otherwise, at least.
pub(super) const LEAST: usize = 2 * FEW;

/// Multiply-adds of a layer, w's alone, from which on a thread may have more than [`LEAST`] tokens: their text takes
/// twice as long to compile, which a small layer does not win back.
const LARGE: u64 = 1 << 25;

/// As how many more tokens of a thread the loads of w count, which each tile does anew.
const LOADS: usize = 6;

/// Groups of four columns of a thread whose sum runs across w's rows, up to so many tokens: more of
/// each page is read at a time, as in `decode`; more tokens leave no registers for it.
const PAGE_FOURS: usize = 2;

#[derive(Debug)]
pub(super) struct Subgroup<'a> {
    layer: &'a Layer<'a>,
    rows: Rows,
    tile: usize,
    fours: usize,
    lanes: usize,
    tiles: usize,
    columns: usize,
    w_rows: usize,
}

/// Why a device is not served, if it is not.
pub(super) fn refuses(wgpu: &WgpuCapabilities) -> Option<Refusal> {
    let served = wgpu.adapter == AdapterKind::Software && SERVED.contains(&wgpu.subgroup);
    let reason = "serves software drivers with subgroups of 4, 8 or 16 threads";
    (!served).then(|| Refusal::Reason(reason.to_owned()))
}

/// The constants of kernels whose subgroups share `tile` tokens, and `slices` of its threads a sum;
/// a thread has `fours` groups of four columns.
pub(super) fn lanes(
    shader: &mut Shader<'_>,
    wgpu: &WgpuCapabilities,
    tile: usize,
    fours: usize,
    slices: usize,
) {
    shader.constant("TILE_TOKENS", tile);
    shader.constant("TILE_FOURS", fours);
    shader.constant("SUBGROUP", wgpu.subgroup as usize);
    shader.constant("SLICES", slices);
}

/// Tokens of a thread where there are more than [`FEW`].
fn many(tokens: usize, most: usize) -> usize {
    let tiles = (LEAST..=most).step_by(FEW);
    tiles.min_by_key(|tile| (tokens.div_ceil(*tile) * (tile + LOADS), *tile)).unwrap_or(most)
}

impl<'a> Subgroup<'a> {
    pub(super) fn new(
        layer: &'a Layer<'a>,
        most: Most,
        rows: Rows,
    ) -> Result<Subgroup<'a>, Refusal> {
        let columns = layer.body.map_or(0, |body| body.columns);
        let k_major = layer.body.is_none_or(|body| body.w.k_major);
        let is_f32 = layer.body.is_some_and(|body| body.w.matrix.dtype == DType::F32);
        let (tile, fours) = match layer.shaped_for(rows.1) {
            ..=FEW if !k_major && columns > 32 => (FEW, PAGE_FOURS),
            ..=FEW => (FEW, 1),
            // Beside a border the longer loop of f32 across w's rows is no faster.
            _ if !k_major && is_f32 => (LEAST, 1),
            // Vectors of 128 bits are too few for the sums of more.
            tokens
                if layer.wgpu.subgroup > SERVED[0]
                    && multiply([tokens, layer.depth, columns]) >= LARGE =>
            {
                (many(tokens, most.tokens), 1)
            }
            _ => (LEAST, 1),
        };
        // Whole subgroups.
        let lanes = match columns {
            ..=32 => layer.wgpu.subgroup.max(8) as usize,
            _ => most.columns / 4 / fours,
        };
        let mut subgroup = Subgroup {
            layer,
            rows,
            tile,
            fours,
            lanes,
            tiles: rows.1.div_ceil(tile),
            columns: columns.div_ceil(4 * fours * lanes),
            w_rows: 0,
        };
        subgroup.w_rows = layer.w_rows(&layer.buffers_but_w(rows))?;
        Ok(subgroup)
    }
}

impl Job for Subgroup<'_> {
    fn size(&self) -> Size {
        let [y, z] = fold(self.columns, self.layer.wgpu);
        Size { grid: [self.tiles as u32, y, z], block: [self.lanes as u32, 1, 1], smem_bytes: 0 }
    }

    fn buffers(&self) -> u32 {
        let mut buffers = self.layer.buffers_but_w(self.rows);
        self.layer.bind_w(&mut buffers, self.w_rows);
        buffers.count
    }

    fn step(&self) -> Step {
        let (layer, tokens) = (self.layer, self.rows.1);
        let columns = self.columns * 4 * self.fours * self.lanes;
        let depth = layer.depth.next_multiple_of(4) + layer.rank().next_multiple_of(4);
        Step {
            needed: layer.flops(tokens),
            executed: 2 * multiply([self.tiles * self.tile, columns, depth]),
            bytes: layer.layer_bytes(tokens, self.tiles, self.columns),
            least_bytes: layer.layer_bytes(tokens, 1, 1),
            size: self.size(),
            waits: depth / 4,
            rate: cost::SUBGROUP,
        }
    }

    fn render(&self) -> crate::Result<Launch> {
        let (mut shader, size) = (Shader::new(self.layer.wgpu), self.size());
        lanes(&mut shader, self.layer.wgpu, self.tile, self.fours, 1);
        shader.constant("LANES_N", self.lanes);
        self.layer.numbers(&mut shader);
        shader.uint("groups_y", size.grid[1] as usize);
        self.layer.bind_but_w(&mut shader, self.rows);
        self.layer.bind_w(&mut shader, self.w_rows);
        if let Some(border) = self.layer.border {
            shader.product(&chosen::SHUFFLED, "t", "b", border.rank.is_multiple_of(4));
        }
        self.layer.product(&mut shader, &chosen::SHUFFLED, "w", 4);
        shader.launch(&kernels::SUBGROUP, size)
    }
}

//! `cooperative`: the layer by cooperative matrices (a GPU's tensor cores), for many tokens in f16. Only where
//! a host asked for them.

use super::cost::{self, Step};
use super::job::Job;
use super::layer::{Bind, Buffers, Layer, Rows, multiply};
use super::limits::fold;
use super::partial_shrink::PartialShrink;
use super::shader::parts::{chosen, kernels};
use super::shader::{Shader, Size};
use super::{Launch, Refusal};
use crate::DType;

/// Subgroups of a workgroup, along the tokens and along the columns.
const SUBGROUPS: [usize; 2] = [2, 2];
/// Steps of the sum that are in workgroup memory at a time.
const DEPTH: usize = 16;

/// Sides of the matrices that there are texts for.
const SIZES: [u32; 2] = [8, 16];

#[derive(Debug)]
pub(super) struct Cooperative<'a> {
    layer: &'a Layer<'a>,
    rows: Rows,
    /// Side of a matrix.
    size: usize,
    tiles: usize,
    columns: usize,
    /// In which shrunk comes.
    slices: usize,
    /// Stored rows of w in a binding.
    w_rows: usize,
}

/// Why a layer or its device is not served, if it is not.
pub(super) fn refuses(layer: &Layer<'_>) -> Option<Refusal> {
    let wgpu = layer.wgpu;
    let reason = |reason: &str| Some(Refusal::Reason(reason.to_owned()));
    if wgpu.browser || !SIZES.contains(&wgpu.cooperative) || !wgpu.f16 || wgpu.subgroup == 0 {
        return reason(
            "serves devices with cooperative matrices of f16, where the host asks for them",
        );
    }
    let w = layer.body.map(|body| body.w.matrix.dtype);
    let b = layer.border.and_then(|border| border.b).map(|b| b.matrix.dtype);
    let shrunk = layer.border.map(|border| border.dtype);
    let factors = [Some(layer.x.matrix.dtype), w, b, shrunk];
    if factors.into_iter().flatten().any(|of| of != DType::F16) {
        return reason("serves factors in f16");
    }
    if layer.border.is_some_and(|border| border.precise) {
        return reason("does not serve a precise shrunk");
    }
    None
}

impl<'a> Cooperative<'a> {
    /// Tokens of a workgroup.
    pub(super) fn tile_tokens(layer: &Layer<'_>) -> usize {
        2 * layer.wgpu.cooperative as usize * SUBGROUPS[0]
    }

    pub(super) fn new(layer: &'a Layer<'a>, rows: Rows) -> Result<Cooperative<'a>, Refusal> {
        let size = layer.wgpu.cooperative as usize;
        let columns = layer.body.map_or(0, |body| body.columns);
        let mut cooperative = Cooperative {
            layer,
            rows,
            size,
            tiles: rows.1.div_ceil(2 * size * SUBGROUPS[0]),
            columns: columns.div_ceil(2 * size * SUBGROUPS[1]),
            slices: PartialShrink::slices(layer, rows),
            w_rows: 0,
        };
        let mut buffers = Buffers::new(layer.wgpu);
        layer.bind_on_slices(&mut buffers, rows, cooperative.slices);
        cooperative.w_rows = layer.w_rows(&buffers)?;
        Ok(cooperative)
    }

    /// Tokens and columns of a tile.
    fn tile(&self) -> [usize; 2] {
        SUBGROUPS.map(|subgroups| 2 * self.size * subgroups)
    }

    fn bind(&self, to: &mut impl Bind) {
        self.layer.bind_on_slices(to, self.rows, self.slices);
        self.layer.bind_w(to, self.w_rows);
    }
}

impl Job for Cooperative<'_> {
    fn size(&self) -> Size {
        let [y, z] = fold(self.columns, self.layer.wgpu);
        let [tokens, columns] = self.tile();
        let (steps, across) = (DEPTH / 4 + 2, columns / 4 + 2);
        let staged = tokens * steps + (columns * steps).max(DEPTH * across);
        let sums = tokens / 2 * (columns / 4 + 1);
        let threads = SUBGROUPS[0] * SUBGROUPS[1] * self.layer.wgpu.subgroup as usize;
        Size {
            grid: [self.tiles as u32, y, z],
            block: [threads as u32, 1, 1],
            smem_bytes: (8 * staged + 16 * sums) as u32,
        }
    }

    fn buffers(&self) -> u32 {
        let mut buffers = Buffers::new(self.layer.wgpu);
        self.bind(&mut buffers);
        buffers.count
    }

    fn step(&self) -> Step {
        let (layer, tokens, tile) = (self.layer, self.rows.1, self.tile());
        // Whole steps, of the border as well.
        let steps = layer.depth.div_ceil(DEPTH) + layer.rank().div_ceil(DEPTH);
        let sums = [self.tiles * tile[0], self.columns * tile[1]];
        Step {
            needed: layer.flops(tokens),
            executed: 2 * multiply([sums[0], sums[1], steps * DEPTH]),
            bytes: layer.layer_bytes(tokens, self.tiles, self.columns)
                + layer.slices_bytes(tokens, self.slices, self.columns),
            least_bytes: layer.layer_bytes(tokens, 1, 1),
            size: self.size(),
            waits: steps,
            rate: cost::COOPERATIVE,
        }
    }

    fn render(&self) -> crate::Result<Launch> {
        let (mut shader, size) = (Shader::new(self.layer.wgpu), self.size());
        for (name, value) in [
            ("SIZE", self.size),
            ("SUBGROUPS_M", SUBGROUPS[0]),
            ("SUBGROUPS_N", SUBGROUPS[1]),
            ("SUBGROUP", self.layer.wgpu.subgroup as usize),
            ("DEPTH", DEPTH),
        ] {
            shader.constant(name, value);
        }
        match self.size {
            8 => shader.offer(&chosen::MATRICES_8, []),
            _ => shader.offer(&chosen::MATRICES_16, []),
        }
        self.layer.numbers(&mut shader);
        shader.uint("groups_y", size.grid[1] as usize);
        self.bind(&mut shader);
        self.layer.product(&mut shader, &chosen::STAGED_MATRICES, "w", 1);
        self.layer.on_slices(&mut shader, self.rows, self.slices, &chosen::STAGED_MATRICES, 1);
        shader.launch(&kernels::COOPERATIVE, size)
    }
}

//! `decode`: the layer straight from memory, for few tokens or columns, and for software drivers.

use super::cost::{self, Step};
use super::job::Job;
use super::lanes::{Lanes, Shared};
use super::layer::{Bind, Buffers, Layer, Rows, multiply};
use super::limits::fold;
use super::partial_shrink::PartialShrink;
use super::shader::parts::{chosen, kernels};
use super::shader::{Shader, Size};
use super::{Launch, Refusal};
use crate::DType;

/// Who forms a sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Sums {
    /// One thread.
    Apart {
        /// Tokens of a thread, and columns of a workgroup, at most.
        tokens: usize,
        columns: usize,
    },
    /// Several threads: how many columns of a workgroup where w's rows are columns of the output,
    /// and where the sum runs along them, so that neighbours read what lies side by side.
    Shared { most: Shared, k_major: Shared },
}

/// Tokens of a thread up to which it takes four steps of the sum at a time. Larger tiles go step by
/// step: their loads are few already, and their text is long.
const FEW: usize = 8;

/// Groups of four columns of a thread that has one token and a sum across w's rows, in f32. Each row
/// is another page: the more is read of it at a time, the less often memory is waited for. In 16
/// bits half as much is waited for, and the layer gained less than it lost beside its border.
const PAGE_FOURS: usize = 4;

#[derive(Debug)]
pub(super) struct Decode<'a> {
    layer: &'a Layer<'a>,
    rows: Rows,
    lanes: Lanes,
    tiles: usize,
    columns: usize,
    /// In which shrunk comes; as it was stored where each thread has sums of its own.
    slices: Option<usize>,
    /// Stored rows of w in a binding.
    w_rows: usize,
}

impl<'a> Decode<'a> {
    /// Tokens of a workgroup where there are many.
    pub(super) fn tile_tokens(sums: Sums) -> usize {
        match sums {
            Sums::Apart { tokens, .. } => tokens,
            Sums::Shared { most, .. } => most.tokens,
        }
    }

    pub(super) fn new(layer: &'a Layer<'a>, sums: Sums, rows: Rows) -> Result<Decode<'a>, Refusal> {
        let columns = layer.body.map_or(0, |body| body.columns);
        let k_major = layer.body.is_none_or(|body| body.w.k_major);
        let tokens = layer.shaped_for(rows.1);
        let lanes = match sums {
            Sums::Apart { tokens: most_tokens, columns: most } => {
                let pages = !k_major && layer.x.matrix.dtype == DType::F32;
                apart(tokens, columns, pages, most_tokens, most)
            }
            Sums::Shared { k_major: most, .. } if k_major => Lanes::sharing(tokens, columns, most),
            Sums::Shared { most, .. } => Lanes::sharing(tokens, columns, most),
        };
        let mut decode = Decode {
            layer,
            rows,
            lanes,
            tiles: rows.1.div_ceil(lanes.tile_tokens()),
            columns: columns.div_ceil(lanes.tile_columns()),
            slices: (lanes.depth > 1).then(|| PartialShrink::slices(layer, rows)),
            w_rows: 0,
        };
        let mut buffers = Buffers::new(layer.wgpu);
        decode.bind_but_w(&mut buffers);
        decode.w_rows = layer.w_rows(&buffers)?;
        Ok(decode)
    }

    fn bind_but_w(&self, to: &mut impl Bind) {
        match self.slices {
            Some(slices) => self.layer.bind_on_slices(to, self.rows, slices),
            None => self.layer.bind_but_w(to, self.rows),
        }
    }

    /// Whether a thread has so few sums that it takes four steps at a time.
    fn few(&self) -> bool {
        self.lanes.tile <= FEW && self.lanes.fours == 1
    }
}

/// One thread a sum; `pages`: which waits for a page at each step, see [`PAGE_FOURS`].
fn apart(tokens: usize, columns: usize, pages: bool, most: usize, most_columns: usize) -> Lanes {
    let tile = match tokens {
        1 => 1,
        2..=FEW => FEW,
        _ => most,
    };
    let (columns, fours) = match columns {
        ..=32 => (8, 1),
        _ if tokens == 1 && pages => (most_columns / 4 / PAGE_FOURS, PAGE_FOURS),
        _ => (most_columns / 4, 1),
    };
    Lanes { tile, fours, tokens: 1, columns, depth: 1 }
}

impl Job for Decode<'_> {
    fn size(&self) -> Size {
        let [y, z] = fold(self.columns, self.layer.wgpu);
        let grid = [self.tiles as u32, y, z];
        if self.slices.is_some() { self.lanes.size_of_tree(grid) } else { self.lanes.size(grid) }
    }

    fn buffers(&self) -> u32 {
        let mut buffers = Buffers::new(self.layer.wgpu);
        self.bind_but_w(&mut buffers);
        self.layer.bind_w(&mut buffers, self.w_rows);
        buffers.count
    }

    fn step(&self) -> Step {
        let (layer, lanes, tokens) = (self.layer, &self.lanes, self.rows.1);
        let sums = [self.tiles * lanes.tile_tokens(), self.columns * lanes.tile_columns()];
        let at_a_time = if self.few() { 4 } else { 1 };
        let steps = layer.depth.div_ceil(at_a_time);
        // Rank by rank, or by fours.
        let border = match self.slices {
            Some(_) => layer.rank().next_multiple_of(4),
            None => layer.rank(),
        };
        Step {
            needed: layer.flops(tokens),
            executed: 2 * multiply([sums[0], sums[1], at_a_time * steps + border]),
            bytes: layer.layer_bytes(tokens, self.tiles, self.columns)
                + self.slices.map_or(0, |of| layer.slices_bytes(tokens, of, self.columns)),
            least_bytes: layer.layer_bytes(tokens, 1, 1),
            size: self.size(),
            waits: steps.div_ceil(lanes.depth) + border.div_ceil(at_a_time * lanes.depth),
            rate: if self.lanes.depth == 1 { cost::REGISTERS } else { cost::SHARED },
        }
    }

    fn render(&self) -> crate::Result<Launch> {
        let (mut shader, size) = (Shader::new(self.layer.wgpu), self.size());
        self.lanes.numbers(&mut shader);
        shader.condition("apart", self.slices.is_none());
        shader.condition("sharing", self.slices.is_some());
        self.layer.numbers(&mut shader);
        shader.uint("groups_y", size.grid[1] as usize);
        self.bind_but_w(&mut shader);
        self.layer.bind_w(&mut shader, self.w_rows);
        let product = if self.few() { &chosen::PRODUCT } else { &chosen::PRODUCT_ONE };
        self.layer.product(&mut shader, product, "w", 4);
        if let Some(slices) = self.slices {
            self.layer.on_slices(&mut shader, self.rows, slices, &chosen::PRODUCT, 4);
        }
        shader.launch(&kernels::DECODE, size)
    }
}

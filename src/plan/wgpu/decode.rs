//! `decode`: the layer straight from memory, for few tokens or columns, and for software drivers.

use super::cost::{self, Step};
use super::job::Job;
use super::lanes::{Lanes, Shared};
use super::layer::{Layer, Rows};
use super::limits::fold;
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
            w_rows: 0,
        };
        decode.w_rows = layer.w_rows(&layer.buffers_but_w(rows))?;
        Ok(decode)
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
        self.lanes.size([self.tiles as u32, y, z])
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
            rate: if self.lanes.depth == 1 { cost::REGISTERS } else { cost::DECODE },
        }
    }

    fn render(&self) -> crate::Result<Launch> {
        let (mut shader, size) = (Shader::new(self.layer.wgpu), self.size());
        self.lanes.numbers(&mut shader);
        shader.condition("apart", self.lanes.depth == 1);
        shader.condition("sharing", self.lanes.depth > 1);
        self.layer.numbers(&mut shader);
        shader.uint("groups_y", size.grid[1] as usize);
        self.layer.bind_but_w(&mut shader, self.rows);
        self.layer.bind_w(&mut shader, self.w_rows);
        let product = match self.lanes.tile > FEW || self.lanes.fours > 1 {
            true => &chosen::PRODUCT_ONE,
            false => &chosen::PRODUCT,
        };
        self.layer.product(&mut shader, product, "w", 4);
        shader.launch(&kernels::DECODE, size)
    }
}

//! `subgroup_shrink`: `shrink` by subgroups, before `subgroup`.

use super::Launch;
use super::cost::{self, Step};
use super::job::Job;
use super::layer::{Bind, Buffers, Layer, Rows, multiply};
use super::shader::parts::{chosen, kernels};
use super::shader::{Shader, Size};
use super::subgroup::{FEW, lanes};

#[derive(Debug)]
pub(super) struct SubgroupShrink<'a> {
    layer: &'a Layer<'a>,
    rows: Rows,
    /// Threads of a subgroup that share a sum.
    slices: usize,
    tiles: usize,
    groups: usize,
}

impl<'a> SubgroupShrink<'a> {
    /// Tokens of a workgroup.
    pub(super) const fn tile_tokens() -> usize {
        FEW
    }

    pub(super) fn new(layer: &'a Layer<'a>, rows: Rows) -> SubgroupShrink<'a> {
        let padded_rank = layer.border.map_or(0, |border| border.padded_rank);
        let subgroup = layer.wgpu.subgroup as usize;
        let across = (padded_rank / 4).next_power_of_two().min(subgroup);
        SubgroupShrink {
            layer,
            rows,
            slices: subgroup / across,
            tiles: rows.1.div_ceil(FEW),
            groups: padded_rank.div_ceil(4 * across),
        }
    }

    fn bind(&self, to: &mut impl Bind) {
        self.layer.bind_x(to, self.rows);
        self.layer.bind_shrink(to, self.rows);
        self.layer.bind_t(to, self.rows.1);
    }
}

impl Job for SubgroupShrink<'_> {
    fn size(&self) -> Size {
        let grid = [self.tiles as u32, self.groups as u32, 1];
        Size { grid, block: [self.layer.wgpu.subgroup, 1, 1], smem_bytes: 0 }
    }

    fn buffers(&self) -> u32 {
        let mut buffers = Buffers::new(self.layer.wgpu);
        self.bind(&mut buffers);
        buffers.count
    }

    fn step(&self) -> Step {
        let (layer, tokens) = (self.layer, self.rows.1);
        let across = 4 * layer.wgpu.subgroup as usize / self.slices;
        let depth = layer.depth.next_multiple_of(4 * self.slices);
        Step {
            needed: layer.shrink_flops(tokens),
            executed: 2 * multiply([self.tiles * FEW, self.groups * across, depth]),
            bytes: layer.shrink_bytes(tokens, self.tiles, self.groups),
            least_bytes: layer.shrink_bytes(tokens, 1, 1),
            size: self.size(),
            waits: depth / (4 * self.slices),
            rate: cost::SUBGROUP,
        }
    }

    fn render(&self) -> crate::Result<Launch> {
        let mut shader = Shader::new(self.layer.wgpu);
        lanes(&mut shader, self.layer.wgpu, FEW, 1, self.slices);
        self.layer.numbers(&mut shader);
        self.bind(&mut shader);
        self.layer.product(&mut shader, &chosen::SHUFFLED, "a", 4 * self.slices);
        shader.launch(&kernels::SUBGROUP_SHRINK, self.size())
    }
}

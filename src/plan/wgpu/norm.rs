//! `norm`: the launch of a magnitude over the norms of w's rows. Called by `work`.

use super::cost::{self, Step};
use super::job::Job;
use super::layer::{
    Bind, Buffers, Load, Output, bind_summand, flat, multiply, steps, summand_numbers,
};
use super::limits::{self, fold};
use super::matrix::StoredMatrix;
use super::shader::parts::kernels;
use super::shader::{Shader, Size};
use super::{Launch, Refusal, WgpuCapabilities, Work};
use crate::problem::Scalars;
use crate::product::{self, Norm};

/// Threads that share the rows' sums.
const DEPTH: usize = 64;
/// Rows of a workgroup.
const ROWS: usize = 4;

#[derive(Debug)]
pub(super) struct Norms<'a> {
    pub(super) of: &'a Norm,
    pub(super) scalars: Scalars,
    pub(super) wgpu: &'a WgpuCapabilities,
}

impl Norms<'_> {
    pub(super) fn work(&self, work: &mut Work<'_>) -> Result<(), Refusal> {
        let adapter = self.of.adapter.iter().flatten();
        let summand = self.of.summand.iter().flat_map(|of| of.loads());
        let once = [&self.of.w, &self.of.magnitude].into_iter();
        for load in once.chain(adapter).chain(summand) {
            limits::whole(load.operand, &StoredMatrix::new(&load.spec), self.wgpu)?;
        }
        work.add(self)
    }

    fn bind(&self, to: &mut impl Bind) {
        to.read("w", &flat(&self.of.w));
        if let Some(summand) = &self.of.summand {
            bind_summand(to, summand);
        }
        if let Some([b, a]) = &self.of.adapter {
            to.read("a", &flat(a));
            to.read("b", &flat(b));
        }
        to.read("magnitude", &Load::new(&self.of.magnitude));
        to.write("gain", &Output::new(&self.of.out));
    }
}

impl Job for Norms<'_> {
    fn size(&self) -> Size {
        let [x, y] = fold(self.of.rows.div_ceil(ROWS), self.wgpu);
        Size { grid: [x, y, 1], block: [1, DEPTH as u32, 1], smem_bytes: 16 * DEPTH as u32 }
    }

    fn buffers(&self) -> u32 {
        let mut buffers = Buffers::new(self.wgpu);
        self.bind(&mut buffers);
        buffers.count
    }

    fn step(&self) -> Step {
        let Norm { rows, columns, rank, .. } = *self.of;
        let bytes = |of: &product::Load| StoredMatrix::new(&of.spec).bytes();
        let [b, a] = self.of.adapter.as_ref().map_or([0; 2], |of| of.each_ref().map(bytes));
        let factors = self.of.summand.iter().flat_map(|of| of.loads()).map(bytes).sum::<u64>();
        let once = bytes(&self.of.w) + b + factors + 2 * bytes(&self.of.magnitude);
        let terms = rank + 1 + usize::from(self.of.summand.is_some());
        let padded = rows.next_multiple_of(ROWS);
        Step {
            needed: 2 * multiply([rows, columns, terms]),
            executed: 2 * multiply([padded, columns.next_multiple_of(DEPTH), terms]),
            bytes: once.saturating_add(a.saturating_mul((padded / ROWS) as u64)),
            least_bytes: once.saturating_add(a),
            size: self.size(),
            waits: columns.div_ceil(DEPTH) * terms,
            rate: cost::REGISTERS,
        }
    }

    fn render(&self) -> crate::Result<Launch> {
        let (mut shader, size) = (Shader::new(self.wgpu), self.size());
        shader.constant("TILE_TOKENS", 1);
        shader.constant("TILE_FOURS", 1);
        shader.constant("LANES_M", 1);
        shader.constant("LANES_N", ROWS / 4);
        shader.constant("LANES_K", DEPTH);
        shader.uint("depth", self.of.columns);
        shader.uint("rank", self.of.rank);
        shader.uint("groups_x", size.grid[0] as usize);
        let [w_row, w_col] = steps(&self.of.w);
        shader.uint("w_row", w_row);
        shader.uint("w_col", w_col);
        let [b, a] = self.of.adapter.as_ref().map_or([[0; 2]; 2], |of| of.each_ref().map(steps));
        let names = [("a_row", a[0]), ("a_col", a[1]), ("b_row", b[0]), ("b_col", b[1])];
        for (name, step) in names {
            shader.uint(name, step);
        }
        shader.scale(self.of.factor, self.scalars);
        shader.condition("summed", self.of.summand.is_some());
        if let Some(summand) = &self.of.summand {
            // By rows and columns of w's shape.
            summand_numbers(&mut shader, summand, true);
        }
        self.bind(&mut shader);
        shader.launch(&kernels::NORM, size)
    }
}

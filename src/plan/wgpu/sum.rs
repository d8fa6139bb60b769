//! `sum`: the partial sums of all slabs in their order, after `gradient`.

use super::Launch;
use super::cost::{self, Step};
use super::gradient::Gradients;
use super::job::Job;
use super::layer::{Bind, Buffers};
use super::limits;
use super::shader::parts::kernels;
use super::shader::{Shader, Size};
use crate::Access;

/// Threads of a workgroup.
const THREADS: usize = 64;

#[derive(Debug)]
pub(super) struct Sum<'a> {
    of: &'a Gradients<'a>,
    slabs: usize,
}

impl<'a> Sum<'a> {
    pub(super) fn new(of: &'a Gradients<'a>, slabs: usize) -> Sum<'a> {
        Sum { of, slabs }
    }

    /// Stored rows of each gradient.
    fn rows(&self) -> [usize; 2] {
        self.of.halves.map(|half| half.map_or(0, |of| of.out.matrix.rows))
    }

    fn bind(&self, to: &mut impl Bind) {
        let mut offset = 0;
        for (half, names) in self.of.named() {
            if self.slabs > 0 {
                let partial = half.partial(self.slabs);
                to.scratch(names.slabs, &partial, offset, Access::Read);
                offset += partial.rows * partial.cols;
            }
            to.write(names.out, &half.out);
        }
    }
}

impl Job for Sum<'_> {
    fn size(&self) -> Size {
        let columns = self.of.named().map(|(half, _)| half.out.matrix.cols).max().unwrap_or(1);
        // Rows along the first dimension; what is more goes into the second.
        let [x, y] = limits::fold(self.rows().iter().sum(), self.of.wgpu);
        let grid = [x, y, limits::uint(columns.div_ceil(4 * THREADS))];
        Size { grid, block: [THREADS as u32, 1, 1], smem_bytes: 0 }
    }

    fn buffers(&self) -> u32 {
        let mut buffers = Buffers::new(self.of.wgpu);
        self.bind(&mut buffers);
        buffers.count
    }

    fn step(&self) -> Step {
        let outputs = self.of.named().map(|(half, _)| half);
        let bytes = outputs.map(|half| {
            let slabs = if self.slabs > 0 { half.partial(self.slabs).bytes() } else { 0 };
            slabs + half.out.bytes_of(half.out.matrix.rows)
        });
        let (flops, bytes) = ((self.slabs * self.of.partial(1)) as u64, bytes.sum());
        Step {
            needed: flops,
            executed: flops,
            bytes,
            least_bytes: bytes,
            size: self.size(),
            waits: self.slabs,
            rate: cost::REGISTERS,
        }
    }

    fn render(&self) -> crate::Result<Launch> {
        let (mut shader, size) = (Shader::new(self.of.wgpu), self.size());
        shader.constant("THREADS", THREADS);
        shader.condition("slabs", self.slabs > 0);
        shader.uint("slabs", self.slabs);
        shader.uint("groups_x", size.grid[0] as usize);
        shader.beta(self.of.old, self.of.scalars);
        for (names, rows) in super::gradient::NAMES.into_iter().zip(self.rows()) {
            shader.uint(names.rows, rows);
        }
        self.bind(&mut shader);
        shader.launch(&kernels::SUM, size)
    }
}

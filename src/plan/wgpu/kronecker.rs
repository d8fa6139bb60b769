//! `kronecker_w1` and `kronecker_w2`: the launches of a whole LoKr's gradients. Called by `work`.

use super::contract::Contract;
use super::cost::{self, Step};
use super::job::Job;
use super::layer::{Bind, Buffers, Load, Output, flat, multiply, steps};
use super::limits;
use super::machine::Sums;
use super::matrix::StoredMatrix;
use super::shader::parts::kernels;
use super::shader::{Shader, Size};
use super::{Launch, Refusal, WgpuCapabilities, Work};
use crate::problem::Scalars;
use crate::product::{FactorGradient, KroneckerGradients};
use crate::{Access, Major, Operand};

/// Elements of a tile of dw2 along each side, and steps of its sums that are staged at a time.
const TILE: usize = 32;
const STEPS: usize = 16;
/// Threads of a workgroup of dw1, and tokens of each.
const THREADS: usize = 64;
const TOKENS: usize = 16;

/// Those that are asked for.
pub(super) fn work(
    of: &KroneckerGradients,
    scalars: Scalars,
    work: &mut Work<'_>,
) -> Result<(), Refusal> {
    let wgpu = work.wgpu;
    for load in [&of.dy, &of.x] {
        limits::whole(load.operand, &StoredMatrix::new(&load.spec), wgpu)?;
    }
    for gradient in [&of.of_w1, &of.of_w2].into_iter().flatten() {
        let load = &gradient.other;
        limits::whole(load.operand, &StoredMatrix::new(&load.spec), wgpu)?;
        limits::whole(gradient.out.operand, &StoredMatrix::new(&gradient.out.spec), wgpu)?;
    }
    if let Some(gradient) = &of.of_w1 {
        let job = OfW1 { of, gradient, wgpu };
        if of.tokens > 0 {
            let parts = job.parts();
            limits::whole(Operand::Dw1, &parts, wgpu)?;
            work.scratch = parts.rows.saturating_mul(parts.cols).saturating_mul(4);
            work.add(&job)?;
        }
        if let Some(sum) = of.sum_of_parts(job.tiles() * job.chunks()) {
            work.add(&Contract { sum: &sum, scalars, dw1: 0, wgpu })?;
        }
    }
    if let (Some(sum), 0) = (of.nothing_of_w2(), of.tokens) {
        return work.add(&Contract { sum: &sum, scalars, dw1: 0, wgpu });
    }
    if let Some(gradient) = &of.of_w2 {
        work.add(&OfW2 { of, gradient, scalars, wgpu })?;
    }
    Ok(())
}

/// Parts of dw1.
#[derive(Debug)]
struct OfW1<'a> {
    of: &'a KroneckerGradients,
    gradient: &'a FactorGradient,
    wgpu: &'a WgpuCapabilities,
}

impl OfW1<'_> {
    fn tiles(&self) -> usize {
        self.of.tokens.div_ceil(TOKENS)
    }

    fn chunks(&self) -> usize {
        self.of.inner[1].div_ceil(THREADS)
    }

    /// In the workspace, one below the other, as `contract` reads them.
    fn parts(&self) -> StoredMatrix {
        let [rows, columns] = self.of.outer;
        let parts = self.tiles().saturating_mul(self.chunks());
        StoredMatrix::scratch(rows.saturating_mul(parts), columns.next_multiple_of(4))
    }

    fn bind(&self, to: &mut impl Bind) {
        to.read("dy", &Load::new(&self.of.dy));
        to.read("x", &Load::new(&self.of.x));
        to.read("w2", &flat(&self.gradient.other));
        to.scratch("parts", &self.parts(), 0, Access::Write);
    }
}

/// The numbers of both texts.
fn numbers(of: &KroneckerGradients, shader: &mut Shader<'_>) {
    for (name, value) in [
        ("tokens", of.tokens),
        ("w1_rows", of.outer[0]),
        ("w1_cols", of.outer[1]),
        ("w2_rows", of.inner[0]),
        ("w2_cols", of.inner[1]),
        ("of_tap", of.inner[1] / of.taps),
    ] {
        shader.uint(name, value);
    }
}

impl Job for OfW1<'_> {
    fn size(&self) -> Size {
        let grid = [self.tiles(), self.chunks(), self.of.outer[0]].map(limits::uint);
        let words = THREADS + STEPS * TOKENS / 4;
        Size { grid, block: [THREADS as u32, 1, 1], smem_bytes: 16 * words as u32 }
    }

    fn buffers(&self) -> u32 {
        let mut buffers = Buffers::new(self.wgpu);
        self.bind(&mut buffers);
        buffers.count
    }

    fn step(&self) -> Step {
        let ([rows, columns], [c, d]) = (self.of.outer, self.of.inner);
        let padded = [self.tiles() * TOKENS, self.chunks() * THREADS];
        let of = |[tokens, d]: [usize; 2]| {
            2 * multiply([tokens, rows, d, c]) + 2 * multiply([tokens, rows, d, columns])
        };
        let [dy, x, w2] = [&self.of.dy, &self.of.x, &self.gradient.other].map(|of| of.spec.bytes());
        let parts = self.parts().bytes();
        let least = dy.saturating_add(x).saturating_add(w2).saturating_add(parts);
        let again = dy.saturating_mul(self.chunks() as u64)
            + x.saturating_mul(rows as u64)
            + w2.saturating_mul(self.tiles() as u64);
        Step {
            needed: of([self.of.tokens, d]),
            executed: of(padded),
            bytes: again.saturating_add(parts),
            least_bytes: least,
            size: self.size(),
            waits: c.div_ceil(STEPS) + columns,
            rate: cost::staged(Sums::FourByFour),
        }
    }

    fn render(&self) -> crate::Result<Launch> {
        let (mut shader, size) = (Shader::new(self.wgpu), self.size());
        shader.constant("THREADS", THREADS);
        shader.constant("TOKENS", TOKENS);
        shader.constant("STEPS", STEPS);
        numbers(self.of, &mut shader);
        shader.uint("chunks", self.chunks());
        let [row, col] = steps(&self.gradient.other);
        shader.uint("w2_row", row);
        shader.uint("w2_col", col);
        self.bind(&mut shader);
        shader.launch(&kernels::KRONECKER_W1, size)
    }
}

/// dw2.
#[derive(Debug)]
struct OfW2<'a> {
    of: &'a KroneckerGradients,
    gradient: &'a FactorGradient,
    scalars: Scalars,
    wgpu: &'a WgpuCapabilities,
}

impl OfW2<'_> {
    fn tiles(&self) -> [usize; 2] {
        self.of.inner.map(|of| of.div_ceil(TILE))
    }

    fn bind(&self, to: &mut impl Bind) {
        to.read("dy", &Load::new(&self.of.dy));
        to.read("x", &Load::new(&self.of.x));
        to.read("w1", &flat(&self.gradient.other));
        to.write("out", &Output::new(&self.gradient.out));
    }
}

impl Job for OfW2<'_> {
    fn size(&self) -> Size {
        let [rows, columns] = self.tiles().map(limits::uint);
        let threads = (TILE / 4) as u32;
        let smem_bytes = 4 * 2 * (TILE * STEPS) as u32;
        Size { grid: [columns, rows, 1], block: [threads, threads, 1], smem_bytes }
    }

    fn buffers(&self) -> u32 {
        let mut buffers = Buffers::new(self.wgpu);
        self.bind(&mut buffers);
        buffers.count
    }

    fn step(&self) -> Step {
        let ([rows, columns], [c, d]) = (self.of.outer, self.of.inner);
        let [across, along] = self.tiles();
        let tokens = self.of.tokens.next_multiple_of(STEPS);
        let of = |[tokens, c, d]: [usize; 3], tiles: usize| {
            2 * multiply([tokens, columns, c, d]) + 2 * multiply([tokens, columns, c, rows, tiles])
        };
        let [dy, x] = [&self.of.dy, &self.of.x].map(|of| of.spec.bytes());
        let out = Output::new(&self.gradient.out);
        let out = out.bytes_of(out.matrix.rows).saturating_add(self.gradient.other.spec.bytes());
        let again = dy.saturating_mul((along * columns) as u64) + x.saturating_mul(across as u64);
        Step {
            needed: of([self.of.tokens, c, d], 1),
            executed: of([tokens, across * TILE, along * TILE], along),
            bytes: again.saturating_add(out),
            least_bytes: dy.saturating_add(x).saturating_add(out),
            size: self.size(),
            waits: columns * tokens.div_ceil(STEPS),
            rate: cost::staged(Sums::FourByFour),
        }
    }

    fn render(&self) -> crate::Result<Launch> {
        let (mut shader, size) = (Shader::new(self.wgpu), self.size());
        shader.constant("TILE", TILE);
        shader.constant("STEPS", STEPS);
        shader.row_major("out", self.gradient.out.major == Major::Row);
        numbers(self.of, &mut shader);
        let [row, col] = steps(&self.gradient.other);
        shader.uint("w1_row", row);
        shader.uint("w1_col", col);
        shader.scale(self.of.factor, self.scalars);
        shader.beta(self.gradient.old, self.scalars);
        self.bind(&mut shader);
        shader.launch(&kernels::KRONECKER_W2, size)
    }
}

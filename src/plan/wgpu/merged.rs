//! Strategy `merged`: w' = w + ΔW in the workspace, rounded to w's type and kept in f32, and `linear` on it as the plain
//! layer. w' is formed in every run, since nothing says when w or the adapter has changed. Called by `work`.

use super::cost::{self, Step};
use super::job::Job;
use super::layer::{Bind, Buffers, Layer, Load, Seen, bind_summand, multiply, summand_numbers};
use super::limits::{self, fold};
use super::matrix::StoredMatrix;
use super::merge::Merges;
use super::presets::{MERGED, WgpuKernel};
use super::shader::parts::{chosen, kernels};
use super::shader::{Shader, Size, Word};
use super::{Launch, Refusal, WgpuCapabilities, Work, bands};
use crate::problem::Scalars;
use crate::product::{Bordered, Multiplier, Product, Summand};
use crate::{Access, Operation, Problem};

pub(super) fn work(
    kernel: WgpuKernel,
    of: &Bordered,
    problem: &Problem,
    work: &mut Work<'_>,
) -> Result<(), Refusal> {
    let reason = |text: &str| Refusal::Reason(text.to_owned());
    if of.border.is_some_and(|border| border.shrunk.kept.is_some()) {
        return Err(reason("does not form the shrunk that is kept"));
    }
    let wgpu = work.wgpu;
    let Some(body) = &of.body else { return Err(reason("a layer without w")) };
    let product = |of: &Problem| Product::new(of, &of.all_specs());
    let scalars = Scalars::of(problem);
    let adapter = match body.summand {
        Some(summand) => {
            for load in summand.loads() {
                limits::whole(load.operand, &StoredMatrix::new(&load.spec), wgpu)?;
            }
            Adapter::Summand(summand)
        }
        None => match product(&problem.with_operation(Operation::Merge)) {
            Product::Merge(of) => {
                let Some(merges) = Merges::new(MERGED, &of, scalars, wgpu) else {
                    return Err(reason("there is no adapter"));
                };
                for load in [merges.left, merges.right] {
                    limits::whole(load.operand, &load.matrix, wgpu)?;
                }
                Adapter::Product { left: merges.left, right: merges.right, rank: problem.rank() }
            }
            _ => return Err(reason("there is no adapter")),
        },
    };
    let stored = StoredMatrix::new(&body.right.spec);
    let sum = StoredMatrix::scratch(stored.rows, stored.cols.next_multiple_of(4));
    for matrix in [stored, sum] {
        limits::whole(body.right.operand, &matrix, wgpu)?;
    }
    let base = Load { seen: Seen::Stored, ..Load::new(&body.right) };
    work.add(&Merged { adapter, base, sum, scalars, wgpu })?;

    let plain = problem.plain();
    let Product::Layer(of) = product(&plain) else { return Err(reason("not a layer")) };
    let mut layer = Layer::new(&plain, &of, wgpu);
    if let Some(body) = &mut layer.body {
        body.w = Load { matrix: sum, seen: Seen::Formed, ..body.w };
    }
    bands::work(kernel, &layer, work)?;
    work.scratch = usize::try_from(sum.bytes()).unwrap_or(usize::MAX);
    Ok(())
}

/// What is added to w, by its stored rows and columns.
#[derive(Debug, Clone, Copy)]
enum Adapter {
    Product { left: Load, right: Load, rank: usize },
    Summand(Summand),
}

/// The launch that forms w'.
#[derive(Debug)]
struct Merged<'a> {
    adapter: Adapter,
    base: Load,
    sum: StoredMatrix,
    scalars: Scalars,
    wgpu: &'a WgpuCapabilities,
}

impl Merged<'_> {
    fn tiles(&self) -> [usize; 2] {
        [self.sum.rows.div_ceil(MERGED.rows), self.sum.cols.div_ceil(MERGED.columns)]
    }

    fn rank(&self) -> usize {
        if let Adapter::Product { rank, .. } = self.adapter { rank } else { 1 }
    }

    fn bind(&self, to: &mut impl Bind) {
        match &self.adapter {
            Adapter::Product { left, right, .. } => {
                to.read("left", left);
                to.read("right", right);
            }
            Adapter::Summand(of) => bind_summand(to, of),
        }
        to.read("base", &self.base);
        to.scratch("sum", &self.sum, 0, Access::Write);
    }
}

impl Job for Merged<'_> {
    fn size(&self) -> Size {
        let [rows, columns] = self.tiles();
        let [y, z] = fold(columns, self.wgpu);
        let block = [MERGED.columns as u32 / 4, 1, 1];
        Size { grid: [limits::uint(rows), y, z], block, smem_bytes: 0 }
    }

    fn buffers(&self) -> u32 {
        let mut buffers = Buffers::new(self.wgpu);
        self.bind(&mut buffers);
        buffers.count
    }

    fn step(&self) -> Step {
        let ([row_tiles, column_tiles], StoredMatrix { rows, cols, .. }) = (self.tiles(), self.sum);
        let factors = |row_tiles: usize, column_tiles: usize| match &self.adapter {
            Adapter::Product { left, right, .. } => {
                let of_left = left.matrix.bytes().saturating_mul(column_tiles as u64);
                of_left.saturating_add(right.matrix.bytes().saturating_mul(row_tiles as u64))
            }
            Adapter::Summand(of) => of.loads().map(|of| of.spec.bytes()).iter().sum(),
        };
        let moved = self.base.matrix.bytes().saturating_add(self.sum.bytes());
        let padded = [row_tiles * MERGED.rows, column_tiles * MERGED.columns];
        Step {
            needed: 2 * multiply([rows, cols, self.rank()]),
            executed: 2 * multiply([padded[0], padded[1], self.rank()]),
            bytes: moved.saturating_add(factors(row_tiles, column_tiles)),
            least_bytes: moved.saturating_add(factors(1, 1)),
            size: self.size(),
            waits: self.rank(),
            rate: cost::REGISTERS,
        }
    }

    fn render(&self) -> crate::Result<Launch> {
        let (mut shader, size) = (Shader::new(self.wgpu), self.size());
        shader.constant("TILE_TOKENS", MERGED.rows);
        shader.constant("TILE_FOURS", 1);
        shader.constant("LANES_N", MERGED.columns / 4);
        shader.uint("rows", self.sum.rows);
        shader.uint("groups_y", size.grid[1] as usize);
        shader.scale(Multiplier::Scale, self.scalars);
        shader.offer(&chosen::ROUNDED, [(Word::DType, self.base.matrix.dtype.name())]);
        self.bind(&mut shader);
        match &self.adapter {
            Adapter::Product { rank, .. } => {
                shader.uint("rank", *rank);
                shader.product(&chosen::PRODUCT_ONE, "left", "right", true);
            }
            Adapter::Summand(of) => {
                shader.condition("summed", true);
                summand_numbers(&mut shader, of, self.base.k_major);
            }
        }
        shader.launch(&kernels::MERGED, size)
    }
}

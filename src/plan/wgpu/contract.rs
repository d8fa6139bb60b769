//! `contract`: the launches of compose and chain, and of a merge of factors, one for each sum over an adapter's factors. Called by `work`.

use super::cost::{self, Step};
use super::job::Job;
use super::layer::{Bind, Buffers, Load, Output, Seen, multiply};
use super::limits::{self, fold};
use super::matrix::StoredMatrix;
use super::shader::parts::kernels;
use super::shader::{Shader, Size};
use super::{Launch, Refusal, WgpuCapabilities, Work};
use crate::problem::Scalars;
use crate::product::{Contraction, Factors, INDICES, Indexed, Multiplier, Old, Place};
use crate::{Access, Operand};

/// Terms from which on several threads share a sum.
const SHARED: usize = 64;
/// Groups of four columns, and threads of each sum: each alone, and shared.
const APART: [usize; 2] = [64, 1];
const SHARING: [usize; 2] = [4, 32];
/// Names of the parameters that say what an index adds.
const LEFT: [&str; INDICES] =
    ["left_x1", "left_x2", "left_y1", "left_y2", "left_y3", "left_s", "left_t"];
const RIGHT: [&str; INDICES] =
    ["right_x1", "right_x2", "right_y1", "right_y2", "right_y3", "right_s", "right_t"];

/// One launch for each of the sums.
pub(super) fn work(of: &Factors, scalars: Scalars, work: &mut Work<'_>) -> Result<(), Refusal> {
    let [w1, dw1] = [Place::W1, Place::Dw1].map(|place| {
        let formed = of.sums.iter().find(|sum| sum.out.place == place);
        formed.map_or(scratch(0, 0), |sum| scratch(sum.out.spec.rows, sum.out.spec.cols))
    });
    let (rows, cols) = (w1.rows.saturating_add(dw1.rows), w1.cols.max(dw1.cols));
    if rows > 0 {
        let both = scratch(rows, cols);
        limits::whole(Operand::W1, &both, work.wgpu)?;
        work.scratch = 4 * elements(&both);
    }
    let dw1 = elements(&w1);
    for sum in &of.sums {
        for read in sum.reads() {
            if let Place::Operand(operand) = read.place {
                limits::whole(operand, &StoredMatrix::new(&read.spec), work.wgpu)?;
            }
        }
        if let Some(store) = sum.out.store() {
            limits::whole(store.operand, &StoredMatrix::new(&store.spec), work.wgpu)?;
        }
        work.add(&Contract { sum, scalars, dw1, wgpu: work.wgpu })?;
    }
    Ok(())
}

/// w1 or its gradient in the workspace: rows of whole vectors.
fn scratch(rows: usize, cols: usize) -> StoredMatrix {
    StoredMatrix::scratch(rows, cols.next_multiple_of(4))
}

fn elements(of: &StoredMatrix) -> usize {
    of.rows.saturating_mul(of.cols)
}

#[derive(Debug)]
pub(super) struct Contract<'a> {
    pub(super) sum: &'a Contraction,
    pub(super) scalars: Scalars,
    /// Elements from the start of the workspace to w1's gradient.
    pub(super) dw1: usize,
    pub(super) wgpu: &'a WgpuCapabilities,
}

impl Contract<'_> {
    fn terms(&self) -> usize {
        let [.., s, t] = self.sum.sizes;
        s.saturating_mul(t)
    }

    fn is_shared(&self) -> bool {
        self.terms() >= SHARED
    }

    fn lanes(&self) -> [usize; 2] {
        if self.is_shared() { SHARING } else { APART }
    }

    /// As it is stored.
    fn out(&self) -> StoredMatrix {
        let spec = &self.sum.out.spec;
        match self.sum.out.store() {
            Some(store) => StoredMatrix::new(&store.spec),
            None => scratch(spec.rows, spec.cols),
        }
    }

    /// Elements from the start of the workspace.
    fn offset(&self, place: Place) -> usize {
        if place == Place::Dw1 { self.dw1 } else { 0 }
    }

    fn bind_read(&self, to: &mut impl Bind, name: &'static str, of: &Indexed) {
        let row = |matrix: StoredMatrix, cols: usize, align: usize| {
            // All of it as one row, in which an element is found by its place.
            StoredMatrix { rows: 1, cols, stride: cols, align, ..matrix }
        };
        match of.place {
            Place::Operand(operand) => {
                let matrix = StoredMatrix::new(&of.spec);
                let extent = matrix.rows.saturating_sub(1) * matrix.stride + matrix.cols;
                // One by one: less than a vector is promised.
                let matrix = row(matrix, extent, of.spec.dtype.size());
                to.read(name, &Load { operand, matrix, k_major: true, seen: Seen::Stored });
            }
            place => {
                let matrix = scratch(of.spec.rows, of.spec.cols);
                let offset = self.offset(place);
                to.scratch(name, &row(matrix, elements(&matrix), 16), offset, Access::Read);
            }
        }
    }

    fn bind(&self, to: &mut impl Bind) {
        for (name, of) in [("left", &self.sum.left), ("right", &self.sum.right)] {
            if let Some(of) = of {
                self.bind_read(to, name, of);
            }
        }
        let (place, matrix) = (self.sum.out.place, self.out());
        match self.sum.out.store() {
            Some(store) => to.write("out", &Output::new(&store)),
            None => to.scratch("out", &matrix, self.offset(place), Access::Write),
        }
    }

    /// What each index adds to an element's place.
    fn strides(of: &Indexed) -> [usize; INDICES] {
        let spec = &of.spec;
        of.strides(match of.place {
            Place::Operand(_) => StoredMatrix::new(spec).stride,
            _ => scratch(spec.rows, spec.cols).stride,
        })
    }
}

impl Job for Contract<'_> {
    fn size(&self) -> Size {
        let ([columns, depth], out) = (self.lanes(), self.out());
        let [x, y] = fold(out.rows, self.wgpu);
        let grid = [x, y, limits::uint(out.cols.div_ceil(4 * columns))];
        let smem_bytes = if self.is_shared() { 16 * columns * depth } else { 0 };
        Size { grid, block: [columns as u32, depth as u32, 1], smem_bytes: smem_bytes as u32 }
    }

    fn buffers(&self) -> u32 {
        let mut buffers = Buffers::new(self.wgpu);
        self.bind(&mut buffers);
        buffers.count
    }

    fn step(&self) -> Step {
        let read = self.sum.reads().map(|of| StoredMatrix::new(&of.spec).bytes());
        let ([columns, depth], out) = (self.lanes(), self.out());
        // Old values are read first.
        let times = if self.sum.out.old == Old::Replaced { 1 } else { 2 };
        let bytes = read.fold(out.bytes().saturating_mul(times), u64::saturating_add);
        let padded = out.cols.next_multiple_of(4 * columns);
        Step {
            needed: self.sum.work().saturating_mul(2),
            executed: 2 * multiply([out.rows, padded, self.terms()]),
            bytes,
            least_bytes: bytes,
            size: self.size(),
            waits: self.terms().div_ceil(depth),
            rate: cost::REGISTERS,
        }
    }

    fn render(&self) -> crate::Result<Launch> {
        let (mut shader, size) = (Shader::new(self.wgpu), self.size());
        let [columns, depth] = self.lanes();
        let [_, x2, _, y2, y3, _, t] = self.sum.sizes;
        shader.constant("TILE_TOKENS", 1);
        shader.constant("TILE_FOURS", 1);
        shader.constant("LANES_M", 1);
        shader.constant("LANES_N", columns);
        shader.constant("LANES_K", depth);
        let is_row = self.sum.out.store().is_none_or(|of| of.major == crate::Major::Row);
        shader.row_major("out", is_row);
        shader.condition("sharing", self.is_shared());
        shader.condition("diagonal", self.sum.diagonal);
        for (name, value) in [("x2", x2), ("y2", y2), ("y3", y3)] {
            shader.uint(name, value);
        }
        for (name, value) in [("terms", self.terms()), ("inner", t)] {
            shader.uint(name, value);
        }
        shader.uint("groups_x", size.grid[0] as usize);
        for (names, of) in [(LEFT, &self.sum.left), (RIGHT, &self.sum.right)] {
            let strides = of.as_ref().map_or([0; INDICES], Contract::strides);
            for (name, stride) in names.into_iter().zip(strides) {
                shader.uint(name, stride);
            }
        }
        shader.condition("scaled", self.sum.factor != Multiplier::One);
        if self.sum.factor != Multiplier::One {
            shader.scale(self.sum.factor, self.scalars);
        }
        shader.beta(self.sum.out.old, self.scalars);
        self.bind(&mut shader);
        shader.launch(&kernels::CONTRACT, size)
    }
}

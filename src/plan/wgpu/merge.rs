//! Launches of merge and unmerge: one for each window of stored rows that a binding holds.

use super::cost::{self, Cost, Step, threads};
use super::limits::{self, fold};
use super::text::{self, Text, View};
use super::{Preset, Refusal, WgpuCapabilities, Work};
use crate::{Error, Major, Operand, Operation, Problem};

/// Threads of a workgroup, along the stored columns.
const THREADS: usize = 64;

pub(super) fn work(
    preset: &Preset,
    problem: &Problem,
    wgpu: &WgpuCapabilities,
) -> Result<Work, Refusal> {
    let spec = |operand| problem.spec(operand).ok_or(Refusal::Limit(Error::Missing { operand }));
    let (w, a, b) = (spec(Operand::W)?, spec(Operand::A)?, spec(Operand::B)?);
    let view = View::new(&w);
    // w's stored rows are out_features and so rows of b, or in_features and columns of a.
    let down = (Operand::A, View::new(&a), a.major == Major::Col);
    let up = (Operand::B, View::new(&b), b.major == Major::Row);
    let (left, right) = if w.major == Major::Row { (up, down) } else { (down, up) };
    for (operand, view, _) in [left, right] {
        limits::whole(operand, &view, wgpu)?;
    }
    let factor = match problem.operation() {
        Operation::Unmerge => -problem.scale(),
        _ => problem.scale(),
    };
    let tile = preset.kernel.tile[0];
    let most = limits::rows(Operand::W, &view, wgpu)?.min(tile * wgpu.workgroups as usize);
    limits::few_windows(view.rows, most)?;
    let [second, third] = fold(view.cols.div_ceil(4 * THREADS));
    let mut work = Work { launches: Vec::new(), scratch: 0, cost: Cost::default() };
    for first in (0..view.rows).step_by(most) {
        let rows = most.min(view.rows - first);
        let mut text = Text::new(wgpu);
        text.constant("TILE_TOKENS", tile);
        text.constant("TILE_FOURS", 1);
        text.constant("LANES_N", THREADS);
        text.uints("size", [first, 0, problem.rank(), second as usize]);
        text.factors(factor, 0.0);
        text.read("left", left.0, left.1);
        text.read("right", right.0, right.1);
        text.write("w", Operand::W, view.window(first, rows), w.access);
        text.stepwise(("left", left.2), ("right", right.2));
        let grid = [rows.div_ceil(tile) as u32, second, third];
        let block = [THREADS as u32, 1, 1];
        let tiles = (rows.div_ceil(tile) as u64, view.cols.div_ceil(4 * THREADS) as u64);
        // left is a window of its rows, read by every tile of columns; right by every tile of rows.
        let left_bytes = left.1.bytes() * rows as u64 / view.rows as u64;
        work.cost.add(Step {
            flops: 2 * rows as u64 * view.cols as u64 * problem.rank() as u64,
            bytes: 2 * (rows * view.cols * view.dtype.size()) as u64
                + left_bytes * tiles.1
                + right.1.bytes() * tiles.0,
            threads: threads(grid, block),
            rate: cost::REGISTERS,
        });
        work.launches.push(text.launch("merge", text::MERGE, grid, block, 0));
    }
    Ok(work)
}

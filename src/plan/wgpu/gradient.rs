//! Launches of backward_adapter: `gradient` over slabs of tokens, and where there are several,
//! or none, `sum`.

use super::cost::Cost;
use super::limits;
use super::text::{self, Text, View};
use super::{AdapterKind, Launch, Preset, Refusal, WgpuCapabilities, Work};
use crate::{Access, Major, Operand, Problem};

/// Threads of a workgroup of `sum`.
const SUMMING: usize = 64;
/// Workgroups along the first dimension of `sum`; what is more goes into the second.
const FOLD: usize = 1 << 15;

/// One of the two gradients.
#[derive(Debug, Clone, Copy)]
struct Half {
    /// `dshrunk` or `shrunk`, and `x` or `dy`.
    left: (Operand, View),
    right: (Operand, View),
    out: (Operand, View),
    access: Access,
    /// Whether the stored rows of the gradient are ranks.
    by_rank: bool,
    /// Its columns beside the rank.
    cols: usize,
}

impl Half {
    fn new(problem: &Problem, [left, right, out]: [Operand; 3]) -> Option<Half> {
        let view = |operand| Some((operand, View::new(&problem.spec(operand)?)));
        let spec = problem.spec(out)?;
        Some(Half {
            left: view(left)?,
            right: view(right)?,
            out: view(out)?,
            access: spec.access,
            by_rank: (spec.major == Major::Row) == (out == Operand::Da),
            cols: problem.spec(right)?.cols,
        })
    }

    /// Its part of a slab in the workspace: rows of a multiple of four.
    fn slab(&self) -> (usize, usize) {
        (self.out.1.rows, self.out.1.cols.next_multiple_of(4))
    }
}

/// How the work is cut.
struct Tiles {
    /// Groups of four ranks of a thread, threads along the ranks, threads along the columns.
    groups: usize,
    lanes_r: usize,
    lanes_n: usize,
    /// Workgroups along the ranks.
    rank_groups: usize,
}

pub(super) fn work(
    preset: &Preset,
    problem: &Problem,
    wgpu: &WgpuCapabilities,
) -> Result<Work, Refusal> {
    use Operand::*;
    let halves = [Half::new(problem, [Dshrunk, X, Da]), Half::new(problem, [Shrunk, Dy, Db])];
    let some = || halves.iter().flatten();
    let (tokens, rank) = (problem.tokens(), problem.rank());
    for half in some() {
        limits::whole(half.out.0, &half.out.1, wgpu)?;
    }
    let [most_ranks, most_cols, _] = preset.tile;
    let fours = rank.div_ceil(4);
    let groups = fours.min(most_ranks / 4).next_power_of_two();
    let lanes_r = fours.div_ceil(groups).min(4).next_power_of_two();
    let tiles = Tiles {
        groups,
        lanes_r,
        lanes_n: most_cols / 4,
        rank_groups: fours.div_ceil(groups * lanes_r),
    };
    let software = wgpu.adapter == AdapterKind::Software;
    let columns: usize = some().map(|half| half.cols.div_ceil(4 * tiles.lanes_n)).sum();
    // Slabs: enough workgroups to fill the machine, unless they would be too short.
    let wanted: usize = if software { 4 } else { 256 };
    let slabs = (wanted / (columns * tiles.rank_groups)).clamp(1, tokens.div_ceil(64).max(1));
    // What one binding holds of the tokens' operands, in whole slabs.
    let mut band = usize::MAX;
    for (operand, view) in some().flat_map(|half| [half.left, half.right]) {
        if tokens > 0 {
            band = band.min(limits::rows(operand, &view, wgpu)?);
        }
    }
    let band = band.min(tokens);
    // Elements of a slab's partial sums.
    let partial: usize = some().map(|half| half.slab().0 * half.slab().1).sum();
    let room = (limits::binding(wgpu) / 16 / partial.max(1) as u64) as usize * 4;
    let bands = if tokens == 0 { 0 } else { tokens.div_ceil(band) };
    if bands > 1 && bands > room {
        let out = some().next().map_or(Da, |half| half.out.0);
        let got = (bands * partial * size_of::<f32>()) as u64;
        return Err(limits::too_large(out, limits::binding(wgpu), got));
    }
    let slabs = slabs.min(room.max(1)).max(bands);
    let mut work = Work { launches: Vec::new(), scratch: 0, cost: Cost::default() };
    if tokens > 0 && slabs == 1 {
        work.launches.push(form(problem, wgpu, &halves, &tiles, (0, tokens), tokens, 0, 1));
        return Ok(work);
    }
    // Each launch takes a band of whole slabs.
    let mut count = 0;
    if tokens > 0 {
        let length = tokens.div_ceil(slabs).min(band);
        let step = band - band % length;
        let all = (0..tokens).step_by(step).map(|first| step.min(tokens - first).div_ceil(length));
        let all: usize = all.sum();
        for first in (0..tokens).step_by(step) {
            let rows = (first, step.min(tokens - first));
            work.launches.push(form(problem, wgpu, &halves, &tiles, rows, length, count, all));
            count += rows.1.div_ceil(length);
        }
        work.scratch = all * partial * size_of::<f32>();
        if all > room {
            let out = some().next().map_or(Da, |half| half.out.0);
            return Err(limits::too_large(out, limits::binding(wgpu), work.scratch as u64));
        }
    }
    work.launches.push(sum(problem, wgpu, &halves, count));
    Ok(work)
}

/// `gradient` over tokens `rows`, in slabs of `length` tokens, the first of them slab `slab` of `slabs`.
#[expect(clippy::too_many_arguments, reason = "the sizes of one launch")]
fn form(
    problem: &Problem,
    wgpu: &WgpuCapabilities,
    halves: &[Option<Half>; 2],
    tiles: &Tiles,
    rows: (usize, usize),
    length: usize,
    slab: usize,
    slabs: usize,
) -> Launch {
    let (first, tokens) = rows;
    let mut text = Text::new(wgpu);
    text.constant("GROUPS", tiles.groups);
    text.constant("LANES_R", tiles.lanes_r);
    text.constant("LANES_N", tiles.lanes_n);
    text.flag("PRECISE", problem.is_precise());
    text.flag("HAS_BETA", slabs == 1 && problem.beta() != 0.0);
    let columns = halves.map(|half| half.map_or(0, |of| of.cols.div_ceil(4 * tiles.lanes_n)));
    text.uints("size", [tokens, 0, problem.rank(), problem.shrunk_part()]);
    text.uints("slab", [length, slab, columns[0], 0]);
    text.factors(1.0, problem.beta());
    let names = [["dshrunk", "x", "da"], ["shrunk", "dy", "db"]];
    let mut offset = 0;
    for (half, [left, right, out]) in halves.iter().zip(names) {
        let Some(half) = half else {
            [left, right, out].into_iter().for_each(|name| text.absent(name));
            text.uints(&format!("{out}_rows"), [0; 4]);
            text.outer(left, right, out, true);
            continue;
        };
        text.read(left, half.left.0, half.left.1.window(first, tokens));
        text.read(right, half.right.0, half.right.1.window(first, tokens));
        text.uints(&format!("{out}_rows"), [half.out.1.rows, 0, 0, 0]);
        if slabs == 1 {
            text.write(out, half.out.0, half.out.1, half.access);
        } else {
            let (rows, cols) = half.slab();
            text.scratch(out, View::scratch(slabs * rows, cols), offset, Access::Write);
            offset += slabs * rows * cols;
        }
        text.outer(left, right, out, half.by_rank);
    }
    let grid = [
        (columns[0] + columns[1]) as u32,
        tokens.div_ceil(length) as u32,
        tiles.rank_groups as u32,
    ];
    let block = [tiles.lanes_n as u32, tiles.lanes_r as u32, 1];
    text.launch("gradient", text::GRADIENT, grid, block, 0)
}

/// The sums of `slabs` slabs, in their order.
fn sum(
    problem: &Problem,
    wgpu: &WgpuCapabilities,
    halves: &[Option<Half>; 2],
    slabs: usize,
) -> Launch {
    let mut text = Text::new(wgpu);
    text.constant("THREADS", SUMMING);
    text.flag("HAS_BETA", problem.beta() != 0.0);
    let rows = halves.map(|half| half.map_or(0, |of| of.out.1.rows));
    text.uints("size", [slabs, rows[0], rows[1], 0]);
    text.factors(1.0, problem.beta());
    let names = [["parts_a", "da"], ["parts_b", "db"]];
    let (mut offset, mut widest) = (0, 0);
    for (half, [parts, out]) in halves.iter().zip(names) {
        let Some(half) = half else {
            [parts, out].into_iter().for_each(|name| text.absent(name));
            continue;
        };
        let (rows, cols) = half.slab();
        match slabs {
            0 => text.absent(parts),
            _ => text.scratch(parts, View::scratch(slabs * rows, cols), offset, Access::Read),
        }
        offset += slabs * rows * cols;
        widest = widest.max(cols);
        text.write(out, half.out.0, half.out.1, half.access);
    }
    let rows = rows[0] + rows[1];
    let grid =
        [rows.min(FOLD) as u32, rows.div_ceil(FOLD) as u32, widest.div_ceil(4 * SUMMING) as u32];
    text.launch("sum", text::SUM, grid, [SUMMING as u32, 1, 1], 0)
}

//! Launches of backward_adapter: `gradient` over slabs of tokens, and where there are several,
//! or none, `sum`. Called by `draft`.

use super::cost::{self, Cost, Step, threads};
use super::limits;
use super::text::{self, Text, View};
use super::{AdapterKind, Preset, Refusal, WgpuCapabilities, Work};
use crate::{Access, Major, Operand, Problem};

/// Fewest tokens of a slab, if there are several.
const SLAB: usize = 64;
/// Workgroups that keep a software driver, or a GPU, busy.
const SOFTWARE_GROUPS: usize = 4;
const GROUPS: usize = 256;
/// Threads of a workgroup of `sum`.
const SUMMING: usize = 64;
/// Workgroups along the first dimension of `sum`; what is more goes into the second.
const FOLD: usize = 1 << 15;

/// One of the two gradients, and the operands that it is made of.
#[derive(Debug, Clone, Copy)]
struct Half {
    /// `dshrunk` or `shrunk`.
    left: (Operand, View),
    /// `x` or `dy`.
    right: (Operand, View),
    out: (Operand, View),
    access: Access,
    /// Whether the stored rows of the gradient are ranks.
    by_rank: bool,
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
        })
    }

    /// Columns beside the rank.
    fn cols(&self) -> usize {
        self.right.1.cols
    }

    /// Partial sums of `slabs` slabs in the workspace, one below the other; rows of a multiple
    /// of four.
    fn partial(&self, slabs: usize) -> View {
        View::scratch(slabs * self.out.1.rows, self.out.1.cols.next_multiple_of(4))
    }
}

/// The slabs of one launch: tokens of each, the number of the first, and of all there are.
#[derive(Debug, Clone, Copy)]
struct Slabs {
    length: usize,
    first: usize,
    all: usize,
}

struct Gradient<'a> {
    problem: &'a Problem,
    wgpu: &'a WgpuCapabilities,
    halves: [Option<Half>; 2],
    /// Groups of four ranks of a thread, threads along the ranks, threads along the columns.
    groups: usize,
    lanes_r: usize,
    lanes_n: usize,
    work: Work,
}

pub(super) fn work(
    preset: &Preset,
    problem: &Problem,
    wgpu: &WgpuCapabilities,
) -> Result<Work, Refusal> {
    use Operand::*;
    let halves = [Half::new(problem, [Dshrunk, X, Da]), Half::new(problem, [Shrunk, Dy, Db])];
    let [most_ranks, most_cols, _] = preset.kernel.tile;
    let fours = problem.rank().div_ceil(4);
    let groups = fours.min(most_ranks / 4).next_power_of_two();
    let mut gradient = Gradient {
        problem,
        wgpu,
        halves,
        groups,
        lanes_r: fours.div_ceil(groups).min(4).next_power_of_two(),
        lanes_n: most_cols / 4,
        work: Work { launches: Vec::new(), scratch: 0, cost: Cost::default() },
    };
    gradient.plan()?;
    Ok(gradient.work)
}

impl Gradient<'_> {
    fn some(&self) -> impl Iterator<Item = &Half> {
        self.halves.iter().flatten()
    }

    /// Workgroups along the columns of each gradient, and along the ranks.
    fn columns(&self) -> [usize; 2] {
        self.halves.map(|half| half.map_or(0, |of| of.cols().div_ceil(4 * self.lanes_n)))
    }

    fn rank_groups(&self) -> usize {
        self.problem.rank().div_ceil(4 * self.groups * self.lanes_r)
    }

    /// Elements of the partial sums of `slabs` slabs.
    fn partial(&self, slabs: usize) -> usize {
        self.some().map(|half| half.partial(slabs)).map(|view| view.rows * view.cols).sum()
    }

    fn plan(&mut self) -> Result<(), Refusal> {
        let (tokens, wgpu) = (self.problem.tokens(), self.wgpu);
        for half in self.some() {
            limits::whole(half.out.0, &half.out.1, wgpu)?;
        }
        if tokens == 0 {
            self.sum(0);
            return Ok(());
        }
        // What one binding holds of the tokens' operands.
        let mut band = tokens;
        for (operand, view) in self.some().flat_map(|half| [half.left, half.right]) {
            band = band.min(limits::rows(operand, &view, wgpu)?);
        }
        // Enough workgroups to fill the machine, unless the slabs would be too short, or their
        // sums too many for one binding.
        let wanted = match wgpu.adapter {
            AdapterKind::Software => SOFTWARE_GROUPS,
            AdapterKind::Hardware => GROUPS,
        };
        let groups = self.columns().iter().sum::<usize>() * self.rank_groups();
        let most = limits::binding(wgpu) / 4 / self.partial(1) as u64;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let slabs = (wanted / groups).min(tokens / SLAB).min(most).max(1);
        let length = tokens.div_ceil(slabs).min(band);
        if length == tokens {
            self.form((0, tokens), Slabs { length, first: 0, all: 1 });
            return Ok(());
        }
        // Each launch takes a band of whole slabs.
        let band = band - band % length;
        limits::few_windows(tokens, band)?;
        let bands = (0..tokens).step_by(band).map(|first| (first, band.min(tokens - first)));
        let all = bands.clone().map(|(_, count)| count.div_ceil(length)).sum();
        if all > most {
            let out = self.some().next().map_or(Operand::Da, |half| half.out.0);
            let got = 4 * self.partial(all) as u64;
            return Err(limits::too_large(out, limits::binding(wgpu), got));
        }
        self.work.scratch = 4 * self.partial(all);
        let mut first = 0;
        for rows in bands {
            self.form(rows, Slabs { length, first, all });
            first += rows.1.div_ceil(length);
        }
        self.sum(all);
        Ok(())
    }

    /// `gradient` over some tokens.
    fn form(&mut self, (first, tokens): (usize, usize), slabs: Slabs) {
        let (problem, columns) = (self.problem, self.columns());
        let direct = slabs.all == 1;
        let mut text = Text::new(self.wgpu);
        text.constant("GROUPS", self.groups);
        text.constant("LANES_R", self.lanes_r);
        text.constant("LANES_N", self.lanes_n);
        text.flag("PRECISE", problem.is_precise());
        text.uints("size", [tokens, 0, problem.rank(), problem.padded_rank()]);
        text.uints("slab", [slabs.length, slabs.first, columns[0], 0]);
        // Partial sums have no old values.
        text.factors(1.0, if direct { problem.beta() } else { 0.0 });
        let names = [["dshrunk", "x", "da"], ["shrunk", "dy", "db"]];
        let (mut offset, mut bytes) = (0, 0);
        for ((half, [left, right, out]), columns) in self.halves.iter().zip(names).zip(columns) {
            let rows = half.map_or(0, |half| half.out.1.rows);
            text.uints(&format!("{out}_rows"), [rows, 0, 0, 0]);
            match half {
                None => [left, right, out].into_iter().for_each(|name| text.absent(name)),
                Some(half) => {
                    text.read(left, half.left.0, half.left.1.window(first, tokens));
                    text.read(right, half.right.0, half.right.1.window(first, tokens));
                    bytes += half.left.1.bytes_of(tokens) * columns as u64;
                    bytes += half.right.1.bytes_of(tokens) * self.rank_groups() as u64;
                }
            }
            if let Some(half) = half {
                if direct {
                    text.write(out, half.out.0, half.out.1, half.access);
                    let times = if half.access == Access::Update { 2 } else { 1 };
                    bytes += times * half.out.1.bytes();
                } else {
                    let view = half.partial(slabs.all);
                    text.scratch(out, view, offset, Access::Write);
                    offset += view.rows * view.cols;
                    bytes += half.partial(tokens.div_ceil(slabs.length)).bytes();
                }
            }
            text.outer(left, right, out, half.is_none_or(|half| half.by_rank));
        }
        let grid = [
            (columns[0] + columns[1]) as u32,
            tokens.div_ceil(slabs.length) as u32,
            self.rank_groups() as u32,
        ];
        let block = [self.lanes_n as u32, self.lanes_r as u32, 1];
        let cols: usize = self.some().map(Half::cols).sum();
        self.work.cost.add(Step {
            flops: 2 * (tokens * problem.rank()) as u64 * cols as u64,
            bytes,
            threads: threads(grid, block),
            rate: cost::REGISTERS,
        });
        self.work.launches.push(text.launch("gradient", text::GRADIENT, grid, block, 0));
    }

    /// The sums of `slabs` slabs, in their order.
    fn sum(&mut self, slabs: usize) {
        let problem = self.problem;
        let mut text = Text::new(self.wgpu);
        text.constant("THREADS", SUMMING);
        let rows = self.halves.map(|half| half.map_or(0, |of| of.out.1.rows));
        text.uints("size", [slabs, rows[0], rows[1], FOLD]);
        text.factors(1.0, problem.beta());
        let names = [["parts_a", "da"], ["parts_b", "db"]];
        let (mut offset, mut bytes) = (0, 0);
        for (half, [parts, out]) in self.halves.iter().zip(names) {
            let Some(half) = half else {
                [parts, out].into_iter().for_each(|name| text.absent(name));
                continue;
            };
            if slabs == 0 {
                text.absent(parts);
            } else {
                let view = half.partial(slabs);
                text.scratch(parts, view, offset, Access::Read);
                offset += view.rows * view.cols;
                bytes += view.bytes();
            }
            text.write(out, half.out.0, half.out.1, half.access);
            bytes += half.out.1.bytes() * if half.access == Access::Update { 2 } else { 1 };
        }
        let (rows, cols) = (rows[0] + rows[1], self.some().map(|half| half.out.1.cols).max());
        let grid = [
            rows.min(FOLD) as u32,
            rows.div_ceil(FOLD) as u32,
            cols.unwrap_or(1).div_ceil(4 * SUMMING) as u32,
        ];
        let block = [SUMMING as u32, 1, 1];
        self.work.cost.add(Step {
            flops: (slabs * self.partial(1)) as u64,
            bytes,
            threads: threads(grid, block),
            rate: cost::REGISTERS,
        });
        self.work.launches.push(text.launch("sum", text::SUM, grid, block, 0));
    }
}

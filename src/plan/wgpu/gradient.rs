//! `gradient` over slabs of tokens, and where there are several slabs, or none, `sum`: the launches
//! of backward_adapter. Called by `work`.

use super::cost::{self, Step};
use super::job::Job;
use super::layer::{Bind, Buffers, Load, Output, Rows, multiply};
use super::limits;
use super::matrix::StoredMatrix;
use super::shader::parts::{chosen, kernels};
use super::shader::{Shader, Size, Word};
use super::subgroup;
use super::sum::Sum;
use super::{AdapterKind, Launch, Refusal, WgpuCapabilities, Work};
use crate::problem::Scalars;
use crate::product::{Old, Outer};
use crate::{Access, Major, Operand};

/// What a workgroup takes at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Most {
    /// Ranks of a thread.
    pub(crate) ranks: usize,
    /// Columns of a workgroup.
    pub(crate) columns: usize,
    /// By subgroups, which share what they read of shrunk and dshrunk.
    pub(crate) shuffles: bool,
}

/// Fewest tokens of a slab, if there are several.
const SLAB: usize = 64;
/// Workgroups that keep a software driver, or a GPU, busy.
const SOFTWARE_GROUPS: usize = 4;
const GROUPS: usize = 256;
/// Most threads of a workgroup along the ranks.
const RANK_LANES: usize = 4;

/// Names in the texts: `dshrunk`, `x` and `da`, or `shrunk`, `dy` and `db`; of partial sums the last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names {
    left: &'static str,
    right: &'static str,
    pub(super) out: &'static str,
    /// Parameters: stored rows of the gradient.
    pub(super) rows: &'static str,
    pub(super) slabs: &'static str,
}

pub(super) const NAMES: [Names; 2] = [
    Names { left: "dshrunk", right: "x", out: "da", rows: "da_rows", slabs: "da_slabs" },
    Names { left: "shrunk", right: "dy", out: "db", rows: "db_rows", slabs: "db_slabs" },
];

/// One of the two gradients, and the operands that it is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Half {
    /// `dshrunk` or `shrunk`.
    left: Load,
    /// `x` or `dy`.
    right: Load,
    pub(super) out: Output,
    /// Beside the rank.
    columns: usize,
    /// Whether the product's rows, the ranks, are stored rows of the gradient.
    row_major: bool,
}

impl Half {
    fn new(product: &Outer) -> Half {
        Half {
            left: Load::new(&product.left),
            right: Load::new(&product.right),
            out: Output::new(&product.finish.out),
            columns: product.columns,
            row_major: product.finish.out.major == Major::Row,
        }
    }

    /// Columns beside the rank.
    fn columns(&self) -> usize {
        self.columns
    }

    /// Partial sums of `slabs` slabs in the workspace, one below the other; rows of a multiple
    /// of four.
    pub(super) fn partial(&self, slabs: usize) -> StoredMatrix {
        let StoredMatrix { rows, cols, .. } = self.out.matrix;
        StoredMatrix::scratch(slabs * rows, cols.next_multiple_of(4))
    }
}

/// The slabs of one launch: tokens of each, the number of the first, and of all there are.
#[derive(Debug, Clone, Copy)]
struct Slabs {
    length: usize,
    first: usize,
    all: usize,
}

/// The problem, and how threads share it.
#[derive(Debug)]
pub(super) struct Gradients<'a> {
    pub(super) wgpu: &'a WgpuCapabilities,
    tokens: usize,
    rank: usize,
    padded_rank: usize,
    precise: bool,
    pub(super) old: Old,
    pub(super) scalars: Scalars,
    pub(super) halves: [Option<Half>; 2],
    /// Groups of four ranks of a thread, threads along the ranks, threads along the columns.
    groups: usize,
    lanes_r: usize,
    lanes_n: usize,
    shuffles: bool,
}

impl<'a> Gradients<'a> {
    pub(super) fn new(
        most: Most,
        products: &[Option<Outer>; 2],
        scalars: Scalars,
        wgpu: &'a WgpuCapabilities,
    ) -> Gradients<'a> {
        // They agree in all but the operands.
        let any = products.iter().flatten().next();
        let rank = any.map_or(0, |of| of.rank);
        let fours = rank.div_ceil(4);
        let groups = fours.min(most.ranks / 4).next_power_of_two();
        Gradients {
            wgpu,
            tokens: any.map_or(0, |of| of.tokens),
            rank,
            padded_rank: any.map_or(0, |of| of.padded_rank),
            precise: any.is_some_and(|of| of.precise),
            old: any.map_or(Old::Replaced, |of| of.finish.old),
            scalars,
            halves: products.each_ref().map(|of| of.as_ref().map(Half::new)),
            groups,
            lanes_r: match most.shuffles {
                true => 1,
                false => fours.div_ceil(groups).min(RANK_LANES).next_power_of_two(),
            },
            lanes_n: most.columns / 4,
            shuffles: most.shuffles,
        }
    }

    fn some(&self) -> impl Iterator<Item = &Half> {
        self.halves.iter().flatten()
    }

    /// Those that there are, with their names.
    pub(super) fn named(&self) -> impl Iterator<Item = (&Half, Names)> {
        self.halves.iter().zip(NAMES).filter_map(|(half, names)| Some((half.as_ref()?, names)))
    }

    /// Workgroups along the columns of each gradient, and along the ranks.
    fn columns(&self) -> [usize; 2] {
        self.halves.map(|half| half.map_or(0, |of| of.columns().div_ceil(4 * self.lanes_n)))
    }

    /// Tokens that run together: a word of each goes round a subgroup.
    fn together(&self) -> usize {
        if self.shuffles { (self.wgpu.subgroup as usize / self.groups).clamp(1, 8) } else { 1 }
    }

    fn rank_groups(&self) -> usize {
        self.rank.div_ceil(4 * self.groups * self.lanes_r)
    }

    /// Elements of the partial sums of `slabs` slabs.
    pub(super) fn partial(&self, slabs: usize) -> usize {
        let partial = self.some().map(|half| half.partial(slabs));
        partial.map(|matrix| matrix.rows * matrix.cols).sum()
    }

    pub(super) fn work(&self, work: &mut Work<'_>) -> Result<(), Refusal> {
        let (tokens, wgpu) = (self.tokens, self.wgpu);
        if self.shuffles
            && let Some(refusal) = subgroup::refuses(wgpu)
        {
            return Err(refusal);
        }
        for half in self.some() {
            limits::whole(half.out.operand, &half.out.matrix, wgpu)?;
        }
        if tokens == 0 {
            return work.add(&Sum::new(self, 0));
        }
        // What one binding holds of the tokens' operands.
        let mut band = tokens;
        for load in self.some().flat_map(|half| [half.left, half.right]) {
            match load.has_rows() {
                true => band = band.min(limits::rows(load.operand, &load.matrix, wgpu)?),
                false => limits::whole(load.operand, &load.matrix, wgpu)?,
            }
        }
        // Enough workgroups to fill the machine, unless the slabs would be too short, or their
        // sums too many for one binding.
        let wanted = match wgpu.adapter {
            AdapterKind::Software => SOFTWARE_GROUPS,
            _ => GROUPS,
        };
        let groups = self.columns().iter().sum::<usize>() * self.rank_groups();
        let most = limits::binding(wgpu) / 4 / self.partial(1) as u64;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let granted = wgpu.workgroups as usize;
        let slabs = (wanted / groups).min(tokens / SLAB).min(most).min(granted).max(1);
        let length = tokens.div_ceil(slabs).min(band);
        if length == tokens {
            let slabs = Slabs { length, first: 0, all: 1 };
            return work.add(&Gradient { of: self, rows: (0, tokens), slabs });
        }
        // Each launch takes a band of whole slabs.
        let band = band - band % length;
        let out = self.some().next().map_or(Operand::Da, |half| half.out.operand);
        limits::few_windows(out, tokens, band)?;
        let bands = (0..tokens).step_by(band).map(|first| (first, band.min(tokens - first)));
        let all = bands.clone().map(|(_, count)| count.div_ceil(length)).sum();
        if all > most {
            let got = 4 * self.partial(all) as u64;
            return Err(limits::too_large(out, limits::binding(wgpu), got));
        }
        work.scratch = 4 * self.partial(all);
        let mut first = 0;
        for rows in bands {
            let slabs = Slabs { length, first, all };
            work.add(&Gradient { of: self, rows, slabs })?;
            first += rows.1.div_ceil(length);
        }
        work.add(&Sum::new(self, all))
    }
}

/// `gradient` over some tokens.
#[derive(Debug)]
struct Gradient<'a> {
    of: &'a Gradients<'a>,
    rows: Rows,
    slabs: Slabs,
}

impl Gradient<'_> {
    /// Slabs of this launch.
    fn count(&self) -> usize {
        self.rows.1.div_ceil(self.slabs.length)
    }

    /// Whether the gradients themselves are written, and no partial sums.
    fn direct(&self) -> bool {
        self.slabs.all == 1
    }

    fn bind(&self, to: &mut impl Bind) {
        let mut offset = 0;
        for (half, names) in self.of.named() {
            to.read(names.left, &half.left.window(self.rows));
            to.read(names.right, &half.right.window(self.rows));
            if self.direct() {
                to.write(names.out, &half.out);
            } else {
                let partial = half.partial(self.slabs.all);
                to.scratch(names.out, &partial, offset, Access::Write);
                offset += partial.rows * partial.cols;
            }
        }
    }
}

impl Job for Gradient<'_> {
    fn size(&self) -> Size {
        let columns = limits::uint(self.of.columns().iter().sum());
        let grid = [columns, limits::uint(self.count()), limits::uint(self.of.rank_groups())];
        let block = [self.of.lanes_n as u32, self.of.lanes_r as u32, 1];
        Size { grid, block, smem_bytes: 0 }
    }

    fn buffers(&self) -> u32 {
        let mut buffers = Buffers::new(self.of.wgpu);
        self.bind(&mut buffers);
        buffers.count
    }

    fn step(&self) -> Step {
        let (of, tokens) = (self.of, self.rows.1);
        let (mut bytes, mut least_bytes) = (0, 0);
        for (half, columns) in of.halves.iter().zip(of.columns()) {
            let Some(half) = half else { continue };
            let [left, right] = [half.left, half.right].map(|of| of.bytes_of(tokens));
            let out = match self.direct() {
                true => half.out.bytes_of(half.out.matrix.rows),
                false => half.partial(self.count()).bytes(),
            };
            bytes += left * columns as u64 + right * of.rank_groups() as u64 + out;
            least_bytes += left + right + out;
        }
        let columns: usize = of.some().map(Half::columns).sum();
        let tile_columns = 4 * of.lanes_n * of.columns().iter().sum::<usize>();
        let tile_ranks = of.rank_groups() * 4 * of.groups * of.lanes_r;
        let tile_tokens = self.slabs.length.next_multiple_of(of.together()) * self.count();
        Step {
            needed: 2 * multiply([tokens, of.rank, columns]),
            executed: 2 * multiply([tile_tokens, tile_ranks, tile_columns]),
            bytes,
            least_bytes,
            size: self.size(),
            waits: self.slabs.length,
            rate: if of.shuffles { cost::SUBGROUP } else { cost::REGISTERS },
        }
    }

    fn render(&self) -> crate::Result<Launch> {
        let of = self.of;
        let mut shader = Shader::new(of.wgpu);
        let (kernel, form) = match of.shuffles {
            true => (&kernels::SUBGROUP_GRADIENT, &chosen::SHUFFLED_GRADIENT),
            false => (&kernels::GRADIENT, &chosen::FORM_GRADIENT),
        };
        shader.constant("SUBGROUP", of.wgpu.subgroup as usize);
        shader.constant("GROUPS", of.groups);
        shader.constant("LANES_R", of.lanes_r);
        shader.constant("LANES_N", of.lanes_n);
        shader.condition("precise", of.precise);
        shader.uint("tokens", self.rows.1);
        shader.uint("slab_tokens", self.slabs.length);
        shader.uint("first_slab", self.slabs.first);
        shader.uint("padded_rank", of.padded_rank);
        shader.uint("da_groups", of.columns()[0]);
        // Partial sums have no old values.
        shader.beta(if self.direct() { of.old } else { Old::Replaced }, of.scalars);
        self.bind(&mut shader);
        for (half, names) in of.named() {
            shader.uint(names.rows, half.out.matrix.rows);
            shader.row_major(names.out, half.row_major);
            let (left, right) = ((Word::Left, names.left), (Word::Right, names.right));
            shader.offer(form, [left, right, (Word::Out, names.out)]);
        }
        shader.launch(kernel, self.size())
    }
}

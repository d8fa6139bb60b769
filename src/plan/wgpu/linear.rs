//! Launches of forward, backward_input and backward_shrink: `shrink`, then the layer.

use super::cost::{self, Cost, Step, threads};
use super::limits::{self, fold};
use super::text::{self, Text, View};
use super::{AdapterKind, Launch, Preset, Refusal, Strategy, WgpuCapabilities, Work};
use crate::{Access, DType, Major, Operand, Operation, Problem, Spec};

/// Tokens and ranks of a workgroup of `shrink`, and its threads.
const SHRINK: [usize; 3] = [4, 16, 128];

/// Threads of the subgroups that `subgroup` serves: those of software drivers with vectors of 128, 256
/// and 512 bits.
const SUBGROUPS: [u32; 3] = [4, 8, 16];

/// Tokens of a thread of `decode` up to which it takes four steps of the sum at a time. Larger
/// tiles go step by step: their loads are few already, and their text is long.
const TILE: usize = 8;

/// Groups of four columns of a thread of `decode` that has one token and a sum across w's rows, in f32.
/// Each row is another page: the more is read of it at a time, the less often memory is waited for.
/// In 16 bits half as much is waited for, and the layer gained less than it lost beside its border.
const FOURS: usize = 4;

/// An operand in its role: how it is stored, and whether the sum runs along its stored rows.
#[derive(Debug, Clone, Copy)]
struct Role {
    operand: Operand,
    view: View,
    access: Access,
    along: bool,
}

/// The operands by their part in the product, whichever direction it is.
struct Layer<'a> {
    problem: &'a Problem,
    wgpu: &'a WgpuCapabilities,
    tokens: usize,
    /// Columns of the output, length of the sums, rank, and the rank with its pad.
    wide: usize,
    deep: usize,
    rank: usize,
    part: usize,
    x: Role,
    /// Neither where only shrunk is asked for.
    w: Option<Role>,
    y: Option<Role>,
    bias: Option<Role>,
    /// Goes down to the rank, and comes back up.
    down: Option<Role>,
    up: Option<Role>,
    kept: Option<Role>,
}

impl<'a> Layer<'a> {
    fn new(problem: &'a Problem, wgpu: &'a WgpuCapabilities) -> Option<Layer<'a>> {
        let forward = problem.operation() == Operation::Forward;
        let role = |operand: Operand| {
            let spec: Spec = problem.spec(operand)?;
            let along = match operand.either_major() {
                // backward_input is forward with w, a and b transposed.
                true => (spec.major == Major::Row) == forward,
                false => true,
            };
            Some(Role { operand, view: View::new(&spec), access: spec.access, along })
        };
        use Operand::*;
        let (x, y, down, up, kept) = match forward {
            true => (X, Y, A, B, Shrunk),
            false => (Dy, Dx, B, A, Dshrunk),
        };
        let (wide, deep) = match forward {
            true => (problem.out_features(), problem.in_features()),
            false => (problem.in_features(), problem.out_features()),
        };
        Some(Layer {
            problem,
            wgpu,
            tokens: problem.tokens(),
            wide,
            deep,
            rank: problem.rank(),
            part: problem.padded_rank(),
            x: role(x)?,
            w: role(W),
            y: role(y),
            bias: role(Bias),
            down: role(down),
            up: role(up),
            kept: role(kept),
        })
    }

    /// What makes shrunk: a, the caller's copy, and how it is rounded.
    fn shrinks(&self, text: &mut Text<'_>, (first, tokens): (usize, usize)) {
        text.flag("PRECISE", self.problem.is_precise());
        text.uints("shrunk", [self.part, 0, 0, 0]);
        match self.down {
            Some(a) => text.read("a", a.operand, a.view),
            None => text.absent("a"),
        }
        match self.kept {
            Some(kept) => {
                let view = kept.view.window(first, tokens);
                text.write("kept", kept.operand, view, Access::Write);
            }
            None => text.absent("kept"),
        }
        text.rounding(self.problem.activation());
        text.part(text::FINISH_SHRUNK);
    }

    /// What finishes y: bias and β.
    fn finishes(&self, text: &mut Text<'_>, (first, tokens): (usize, usize)) {
        text.flag("HAS_BIAS", self.bias.is_some());
        match self.bias {
            Some(bias) => text.read("bias", bias.operand, bias.view),
            None => text.absent("bias"),
        }
        if let Some(y) = self.y {
            text.write("y", y.operand, y.view.window(first, tokens), y.access);
        }
        text.part(text::FINISH);
    }

    /// What comes back up: shrunk in the workspace and b.
    fn comes_up(&self, text: &mut Text<'_>, tokens: usize) {
        text.flag("HAS_BORDER", self.up.is_some());
        match self.up {
            Some(b) => {
                text.scratch("t", View::scratch(tokens, self.part), 0, Access::Read);
                text.read("b", b.operand, b.view);
            }
            None => ["t", "b"].into_iter().for_each(|name| text.absent(name)),
        }
    }

    /// [`Layer::comes_up`], and how it does.
    fn border(&self, text: &mut Text<'_>, tokens: usize) {
        self.comes_up(text, tokens);
        text.border(self.up.is_none_or(|b| b.along));
    }

    /// Bytes of `tokens` rows of x.
    fn x_bytes(&self, tokens: usize) -> u64 {
        product([tokens, self.deep, self.x.view.dtype.size()])
    }

    /// Bytes of `tokens` rows of shrunk in the workspace.
    fn t_bytes(&self, tokens: usize) -> u64 {
        product([tokens, self.part, size_of::<f32>()])
    }

    /// Bytes of y, written and perhaps read, and of the bias.
    fn y_bytes(&self, tokens: usize) -> u64 {
        let times = if self.problem.beta() == 0.0 { 1 } else { 2 };
        product([tokens, self.wide, self.problem.output().size(), times]) + bytes(self.bias)
    }

    /// Bytes of the shrunk that the caller keeps.
    fn kept_bytes(&self, tokens: usize) -> u64 {
        self.kept.map_or(0, |kept| product([tokens, kept.view.cols, kept.view.dtype.size()]))
    }

    /// What a shrink of `tokens` moves, cut into `tiles` of them and `groups` of ranks.
    fn shrink_bytes(&self, tokens: usize, tiles: usize, groups: usize) -> u64 {
        let scratch = if self.w.is_some() { self.t_bytes(tokens) } else { 0 };
        self.x_bytes(tokens) * groups as u64
            + bytes(self.down) * tiles as u64
            + self.kept_bytes(tokens)
            + scratch
    }

    /// What the layer itself moves, cut into `tiles` of tokens and `cols` of columns.
    fn layer_bytes(&self, tokens: usize, tiles: usize, cols: usize) -> u64 {
        let t = if self.rank > 0 { self.t_bytes(tokens) } else { 0 };
        (self.x_bytes(tokens) + t) * cols as u64
            + (bytes(self.w) + bytes(self.up)) * tiles as u64
            + self.y_bytes(tokens)
    }

    /// Tokens of a band: as many as the bindings hold, and the grid has workgroups for.
    fn band(&self, tile: usize) -> Result<usize, Refusal> {
        let mut most = tile.saturating_mul(self.wgpu.workgroups as usize);
        for role in [Some(self.x), self.y, self.kept].into_iter().flatten() {
            most = most.min(limits::rows(role.operand, &role.view, self.wgpu)?);
        }
        if self.w.is_some() && self.rank > 0 {
            let scratch = View::scratch(self.tokens, self.part);
            most = most.min(limits::rows(self.x.operand, &scratch, self.wgpu)?);
        }
        if most >= self.tokens {
            return Ok(self.tokens);
        }
        // Whole tiles, where there is room for one.
        Ok(if most > 64 { most - most % 64 } else { most })
    }
}

fn product<const N: usize>(factors: [usize; N]) -> u64 {
    factors.into_iter().fold(1, |product, factor| product.saturating_mul(factor as u64))
}

fn bytes(role: Option<Role>) -> u64 {
    role.map_or(0, |role| role.view.bytes())
}

/// How threads share the work of `decode` and `shrink`.
#[derive(Debug, Clone, Copy)]
struct Lanes {
    /// Tokens of a thread, and its groups of four columns.
    tile: usize,
    fours: usize,
    /// Threads along the tokens, along the columns, and those that share a sum.
    tokens: usize,
    cols: usize,
    deep: usize,
}

impl Lanes {
    // Few different tiles, because each is a text of its own: what a problem has less of than
    // a tile, threads repeat and do not store.

    /// One thread a sum; `pages`: which waits for a page at each step, see [`FOURS`].
    fn apart(tokens: usize, cols: usize, pages: bool, preset: &Preset) -> Lanes {
        let [most_tokens, most_cols, _] = preset.kernel.tile;
        let tile = match tokens {
            1 => 1,
            2..=TILE => TILE,
            _ => most_tokens,
        };
        let (cols, fours) = match cols {
            ..=32 => (8, 1),
            _ if tokens == 1 && pages => (most_cols / 4 / FOURS, FOURS),
            _ => (most_cols / 4, 1),
        };
        Lanes { tile, fours, tokens: 1, cols, deep: 1 }
    }

    /// `threads` threads, of which as many share a sum as are left.
    fn sharing(tokens: usize, cols: usize, [most_tokens, most_cols, threads]: [usize; 3]) -> Lanes {
        let tile = if tokens == 1 { 1 } else { 4 };
        let tokens = if tokens <= 4 { 1 } else { most_tokens / 4 };
        let cols = if cols <= 8 { 2 } else { most_cols / 4 };
        Lanes { tile, fours: 1, tokens, cols, deep: threads / tokens / cols }
    }

    fn constants(&self, text: &mut Text<'_>) {
        text.constant("TILE_TOKENS", self.tile);
        text.constant("TILE_FOURS", self.fours);
        text.constant("LANES_M", self.tokens);
        text.constant("LANES_N", self.cols);
        text.constant("LANES_K", self.deep);
        text.part(text::MEET);
    }

    /// Tokens of a workgroup.
    fn tile_tokens(&self) -> usize {
        self.tile * self.tokens
    }

    /// Columns of a workgroup.
    fn tile_cols(&self) -> usize {
        4 * self.fours * self.cols
    }

    fn block(&self) -> [u32; 3] {
        [self.cols as u32, self.deep as u32, self.tokens as u32]
    }

    fn shared_bytes(&self) -> u32 {
        (self.tile_tokens() * self.cols * self.deep * 16) as u32
    }
}

pub(super) fn work(
    preset: &Preset,
    problem: &Problem,
    wgpu: &WgpuCapabilities,
) -> Result<Work, Refusal> {
    let layer =
        Layer::new(problem, wgpu).ok_or_else(|| Refusal::Reason("no operands".to_owned()))?;
    for role in [layer.bias, layer.down, layer.up].into_iter().flatten() {
        limits::whole(role.operand, &role.view, wgpu)?;
    }
    let is_served = wgpu.adapter == AdapterKind::Software && SUBGROUPS.contains(&wgpu.subgroup);
    if preset.kernel.name == "subgroup" && !is_served {
        let reason = "serves software drivers with subgroups of 4, 8 or 16 threads";
        return Err(Refusal::Reason(reason.to_owned()));
    }
    let band = layer.band(preset.kernel.tile[0])?;
    limits::few_windows(layer.tokens, band)?;
    let mut work = Work { launches: Vec::new(), scratch: 0, cost: Cost::default() };
    if layer.w.is_some() && layer.rank > 0 && preset.strategy != Strategy::Recompute {
        work.scratch = band * layer.part * size_of::<f32>();
    }
    for first in (0..layer.tokens).step_by(band) {
        let rows = (first, band.min(layer.tokens - first));
        if layer.rank > 0 && preset.strategy != Strategy::Recompute {
            let launch = match preset.kernel.name {
                "subgroup" => subgroup_shrink(&layer, rows, &mut work.cost),
                _ => shrink(&layer, rows, &mut work.cost),
            };
            work.launches.push(launch);
        }
        if layer.w.is_some() {
            let launch = match preset.kernel.name {
                "decode" => decode(&layer, preset, rows, &mut work.cost)?,
                "subgroup" => subgroup(&layer, preset, rows, &mut work.cost)?,
                _ => staged(&layer, preset, rows, &mut work.cost)?,
            };
            work.launches.push(launch);
        }
    }
    Ok(work)
}

/// `shrunk`, to the workspace for the layer, and to the caller where he keeps it.
fn shrink(layer: &Layer<'_>, rows: (usize, usize), cost: &mut Cost) -> Launch {
    let Layer { problem, wgpu, x, rank, part, deep, .. } = *layer;
    let (first, tokens) = rows;
    let lanes = Lanes::sharing(tokens, part, SHRINK);
    let mut text = Text::new(wgpu);
    lanes.constants(&mut text);
    text.uints("size", [tokens, deep, rank, 0]);
    text.factors(problem.scale(), 0.0);
    text.read("x", x.operand, x.view.window(first, tokens));
    layer.shrinks(&mut text, rows);
    match layer.w {
        Some(_) => text.scratch("t", View::scratch(tokens, part), 0, Access::Write),
        None => text.absent("t"),
    }
    let a = layer.down.is_none_or(|a| a.along);
    text.plain(("x", true), ("a", a), deep);
    let tiles = tokens.div_ceil(lanes.tile_tokens());
    let groups = part.div_ceil(4 * lanes.cols);
    let grid = [tiles as u32, groups as u32, 1];
    cost.add(Step {
        flops: 2 * product([tokens, deep, rank]),
        bytes: layer.shrink_bytes(tokens, tiles, groups),
        threads: threads(grid, lanes.block()),
        rate: cost::DECODE,
    });
    text.launch("shrink", text::SHRINK, grid, lanes.block(), lanes.shared_bytes())
}

/// The layer itself, straight from memory.
fn decode(
    layer: &Layer<'_>,
    preset: &Preset,
    rows: (usize, usize),
    cost: &mut Cost,
) -> Result<Launch, Refusal> {
    let Layer { problem, wgpu, x, wide, deep, rank, .. } = *layer;
    let (first, tokens) = rows;
    let w_along = layer.w.is_none_or(|w| w.along);
    let pages = !w_along && problem.activation() == DType::F32;
    let lanes = match preset.kernel.tile {
        [.., 1] => Lanes::apart(tokens, wide, pages, preset),
        // Neighbours read what lies side by side.
        [tokens_, _, threads] if w_along => Lanes::sharing(tokens, wide, [tokens_, 16, threads]),
        tile => Lanes::sharing(tokens, wide, tile),
    };
    let cols = wide.div_ceil(lanes.tile_cols());
    let [second, third] = fold(cols);
    let mut text = Text::new(wgpu);
    lanes.constants(&mut text);
    text.uints("size", [tokens, deep, rank, second as usize]);
    text.factors(problem.scale(), problem.beta());
    text.read("x", x.operand, x.view.window(first, tokens));
    layer.finishes(&mut text, rows);
    layer.border(&mut text, tokens);
    let w = windows(&mut text, layer)?;
    match lanes.tile > TILE || lanes.fours > 1 {
        true => text.stepwise(("x", true), ("w", w)),
        false => text.plain(("x", true), ("w", w), deep),
    }
    let tiles = tokens.div_ceil(lanes.tile_tokens());
    let grid = [tiles as u32, second, third];
    cost.add(Step {
        flops: 2 * product([tokens, wide, deep + rank]),
        bytes: layer.layer_bytes(tokens, tiles, cols),
        threads: threads(grid, lanes.block()),
        rate: if lanes.deep == 1 { cost::REGISTERS } else { cost::DECODE },
    });
    Ok(text.launch("decode", text::DECODE, grid, lanes.block(), lanes.shared_bytes()))
}

/// The constants of kernels whose subgroups share `tile` tokens, and `slices` of its threads a sum;
/// a thread has `fours` groups of four columns.
fn shares(text: &mut Text<'_>, wgpu: &WgpuCapabilities, [tile, fours]: [usize; 2], slices: usize) {
    text.constant("TILE_TOKENS", tile);
    text.constant("TILE_FOURS", fours);
    text.constant("SUBGROUP", wgpu.subgroup as usize);
    text.constant("SLICES", slices);
    text.part(text::SHARES);
}

/// [`shrink`] by subgroups.
fn subgroup_shrink(layer: &Layer<'_>, rows: (usize, usize), cost: &mut Cost) -> Launch {
    let Layer { problem, wgpu, x, rank, part, deep, .. } = *layer;
    let (first, tokens) = rows;
    let across = (part / 4).next_power_of_two().min(wgpu.subgroup as usize);
    let slices = wgpu.subgroup as usize / across;
    let mut text = Text::new(wgpu);
    shares(&mut text, wgpu, [TILE, 1], slices);
    text.uints("size", [tokens, deep, rank, 0]);
    text.factors(problem.scale(), 0.0);
    text.read("x", x.operand, x.view.window(first, tokens));
    layer.shrinks(&mut text, rows);
    text.scratch("t", View::scratch(tokens, part), 0, Access::Write);
    let a = layer.down.is_none_or(|a| a.along);
    text.shuffled(("x", true), ("a", a), deep, slices);
    let (tiles, groups) = (tokens.div_ceil(TILE), part.div_ceil(4 * across));
    let grid = [tiles as u32, groups as u32, 1];
    let block = [wgpu.subgroup, 1, 1];
    cost.add(Step {
        flops: 2 * product([tokens, deep, rank]),
        bytes: layer.shrink_bytes(tokens, tiles, groups),
        threads: threads(grid, block),
        rate: cost::SUBGROUP,
    });
    text.launch("subgroup_shrink", text::SUBGROUP_SHRINK, grid, block, 0)
}

/// The layer itself by subgroups.
fn subgroup(
    layer: &Layer<'_>,
    preset: &Preset,
    rows: (usize, usize),
    cost: &mut Cost,
) -> Result<Launch, Refusal> {
    let Layer { problem, wgpu, x, wide, deep, rank, .. } = *layer;
    let (first, tokens) = rows;
    let [most_tokens, most_cols, _] = preset.kernel.tile;
    let w_along = layer.w.is_none_or(|w| w.along);
    let (tile, fours) = match tokens {
        // More of each page, as in `decode`; more tokens leave no registers for it.
        ..=TILE if !w_along && wide > 32 => (TILE, 2),
        ..=TILE => (TILE, 1),
        _ => (most_tokens, 1),
    };
    // Whole subgroups.
    let lanes = if wide <= 32 { wgpu.subgroup.max(8) as usize } else { most_cols / 4 / fours };
    let cols = wide.div_ceil(4 * fours * lanes);
    let [second, third] = fold(cols);
    let mut text = Text::new(wgpu);
    shares(&mut text, wgpu, [tile, fours], 1);
    text.constant("LANES_N", lanes);
    text.uints("size", [tokens, deep, rank, second as usize]);
    text.factors(problem.scale(), problem.beta());
    text.read("x", x.operand, x.view.window(first, tokens));
    layer.finishes(&mut text, rows);
    layer.comes_up(&mut text, tokens);
    text.shuffled(("t", true), ("b", layer.up.is_none_or(|b| b.along)), rank, 1);
    let w = windows(&mut text, layer)?;
    text.shuffled(("x", true), ("w", w), deep, 1);
    let tiles = tokens.div_ceil(tile);
    let grid = [tiles as u32, second, third];
    let block = [lanes as u32, 1, 1];
    cost.add(Step {
        flops: 2 * product([tokens, wide, deep + rank]),
        bytes: layer.layer_bytes(tokens, tiles, cols),
        threads: threads(grid, block),
        rate: cost::SUBGROUP,
    });
    Ok(text.launch("subgroup", text::SUBGROUP, grid, block, 0))
}

/// Tokens and columns of a thread of `linear` and `bordered`.
const REGISTERS: usize = 4;

/// The layer through workgroup memory; with `Recompute` it makes its own shrunk.
fn staged(
    layer: &Layer<'_>,
    preset: &Preset,
    rows: (usize, usize),
    cost: &mut Cost,
) -> Result<Launch, Refusal> {
    let Layer { problem, wgpu, x, wide, deep, rank, part, .. } = *layer;
    let (first, tokens) = rows;
    let [tile_m, tile_n, depth] = preset.kernel.tile;
    let (threads_m, threads_n) = (tile_m / REGISTERS, tile_n / REGISTERS);
    let [second, third] = fold(wide.div_ceil(tile_n));
    let recomputes = preset.strategy == Strategy::Recompute;
    let mut words = (tile_m + tile_n) * depth / 4;
    let mut text = Text::new(wgpu);
    text.constant("TILE_TOKENS", REGISTERS);
    text.constant("TILE_FOURS", 1);
    text.constant("THREADS_M", threads_m);
    text.constant("THREADS_N", threads_n);
    text.constant("DEPTH", depth);
    text.uints("size", [tokens, deep, rank, second as usize]);
    text.factors(problem.scale(), problem.beta());
    text.read("x", x.operand, x.view.window(first, tokens));
    layer.finishes(&mut text, rows);
    if recomputes {
        // As many as give every thread the same share.
        let fours = (part / 4).next_power_of_two().max(threads_n / 4).max(4);
        words = (words + fours * depth).max(fours * tile_m);
        text.constant("FOURS", fours);
        layer.shrinks(&mut text, rows);
        let a = layer.down.is_none_or(|a| a.along);
        text.product(text::STAGE_RIGHT, ("x", true), ("a", a));
        if let Some(b) = layer.up {
            text.read("b", b.operand, b.view);
            text.column(("b", b.along));
        }
        let w = windows(&mut text, layer)?;
        text.product(text::STAGE_LEFT, ("x", true), ("w", w));
        text.product(text::STAGE_RIGHT, ("x", true), ("w", w));
    } else {
        layer.border(&mut text, tokens);
        let w = windows(&mut text, layer)?;
        text.product(text::STAGED, ("x", true), ("w", w));
    }
    let (kernel, body) = match recomputes {
        true => ("bordered", text::BORDERED),
        false => ("linear", text::LINEAR),
    };
    let (tiles, cols) = (tokens.div_ceil(tile_m), wide.div_ceil(tile_n));
    let grid = [tiles as u32, second, third];
    let block = [threads_n as u32, threads_m as u32, 1];
    // A tile makes its own shrunk, or reads it.
    let (again, border) = match recomputes {
        true => (cols, bytes(layer.down) * (tiles * cols) as u64 + layer.kept_bytes(tokens)),
        false if rank > 0 => (0, layer.t_bytes(tokens) * cols as u64),
        false => (0, 0),
    };
    cost.add(Step {
        flops: 2 * (product([tokens, wide, deep + rank]) + product([tokens, deep, rank, again])),
        bytes: layer.x_bytes(tokens) * cols as u64
            + (bytes(layer.w) + bytes(layer.up)) * tiles as u64
            + border
            + layer.y_bytes(tokens),
        threads: threads(grid, block),
        rate: match (recomputes, tile_m > 32) {
            (true, _) => cost::BORDERED,
            (false, true) => cost::WIDE,
            (false, false) => cost::SMALL,
        },
    });
    Ok(text.launch(kernel, body, grid, block, 16 * words as u32))
}

/// w, last of all, in as many windows as it needs and as there are buffers left. Returns
/// whether the sum runs along its storage.
fn windows(text: &mut Text<'_>, layer: &Layer<'_>) -> Result<bool, Refusal> {
    let (Some(w), wgpu) = (layer.w, layer.wgpu) else { return Ok(true) };
    let rows = limits::rows(w.operand, &w.view, wgpu)?;
    let windows = w.view.rows.div_ceil(rows);
    let left = wgpu.storage_buffers.saturating_sub(text.storage_buffers()) as usize;
    let left = left.min(limits::MOST_WINDOWS);
    if windows > left && windows > 1 {
        let limit = (left as u64).saturating_mul(limits::binding(wgpu));
        return Err(limits::too_large(w.operand, limit, w.view.bytes_of_rows(w.view.rows)));
    }
    text.read_windows("w", w.operand, w.view, rows);
    Ok(w.along)
}

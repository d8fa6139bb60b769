//! Plans for CUDA: the presets, and for each the launches with their PTX texts. What a
//! problem's operands are to the kernels is settled in `roles`, bytes of parameters in
//! `params`, the texts themselves come from `build.rs` (`texts`), and `model` ranks them.

mod gradient;
mod model;
mod params;
mod roles;
pub(crate) mod texts;

use core::ops::RangeInclusive;

use self::params::{Params, Place};
use self::roles::{Merge, Roles, Side};
use self::texts::{SEGMENT_TABLE, Text, job_at, linear_at, segment_at};
use super::{CudaCapabilities, Draft, Language, Launch, Preset, Refusal, Source, Strategy};
use crate::{Access, DType, Operand, Operation, Problem};

const LINEAR: &[Operation] = &[Operation::Forward, Operation::BackwardInput];
const SHRINK: &[Operation] = &[Operation::BackwardShrink];
const GRADIENT: &[Operation] = &[Operation::BackwardAdapter];
const MERGE: &[Operation] = &[Operation::Merge, Operation::Unmerge];
const EVERY: &[Operation] =
    &[Operation::Forward, Operation::BackwardInput, Operation::BackwardShrink];
const HALVES: &[DType] = &[DType::F16, DType::Bf16];
const ANY: usize = usize::MAX;

type Range = RangeInclusive<usize>;
const TOKENS: Range = 1..=ANY;
const ALL: Range = 0..=ANY;
const NONE: Range = 0..=0;
/// Ranks that a main loop can carry beside its columns.
const CARRIED: Range = 1..=64;
const RANKS: Range = 1..=ANY;

/// Bytes at the head of the workspace that all launches share: epoch, ticket and done, 128
/// bytes each, then flags. Zeroed once, when a workspace is made; a launch leaves it ready.
pub(crate) const HEADER: usize = 64 << 10;
/// Rows of tiles that have a flag.
const FLAGS: usize = (HEADER - 384) / 4;
/// Bytes of which the addresses and rows of operands are multiples, unless a layout says so.
const VECTOR: usize = 16;

pub(crate) const PRESETS: &[Preset] = &[
    preset(Strategy::Leader, "large", "linear", LINEAR, TOKENS, CARRIED),
    preset(Strategy::Leader, "small", "linear", LINEAR, TOKENS, CARRIED),
    preset(Strategy::Recompute, "large", "linear", LINEAR, TOKENS, CARRIED),
    preset(Strategy::Recompute, "small", "linear", LINEAR, TOKENS, CARRIED),
    preset(Strategy::TwoPass, "large", "linear", LINEAR, TOKENS, RANKS),
    preset(Strategy::TwoPass, "small", "linear", LINEAR, TOKENS, RANKS),
    preset(Strategy::TwoPass, "unaligned", "linear", LINEAR, TOKENS, RANKS),
    preset(Strategy::Direct, "large", "linear", LINEAR, TOKENS, NONE),
    preset(Strategy::Direct, "small", "linear", LINEAR, TOKENS, NONE),
    preset(Strategy::Direct, "unaligned", "linear", LINEAR, TOKENS, NONE),
    preset(Strategy::Direct, "shrink", "shrink", SHRINK, TOKENS, ALL),
    // Nothing to do, but legal.
    preset(Strategy::Direct, "empty", "linear", EVERY, NONE, ALL),
    preset(Strategy::Direct, "merge", "merge", MERGE, ALL, ALL),
    preset(Strategy::Direct, "gradient", "gradient", GRADIENT, ALL, ALL),
];

const fn preset(
    strategy: Strategy,
    name: &'static str,
    kernel: &'static str,
    operations: &'static [Operation],
    tokens: Range,
    ranks: Range,
) -> Preset {
    // The tile is the text's.
    let tile = [0; 3];
    Preset { strategy, name, kernel, operations, activations: HALVES, tokens, ranks, tile }
}

/// Launches, and what they cost, as they are put together.
struct Building<'a> {
    problem: &'a Problem,
    cuda: &'a CudaCapabilities,
    launches: Vec<Launch>,
    micros: f64,
    bytes: u64,
    flops: u64,
}

pub(crate) fn draft(
    preset: &Preset,
    problem: &Problem,
    cuda: &CudaCapabilities,
) -> Result<Draft, Refusal> {
    if cuda.compute_capability < (8, 0) {
        let (major, minor) = cuda.compute_capability;
        return Err(reason(format!("compute capability {major}.{minor} is below 8.0")));
    }
    let mut building =
        Building { problem, cuda, launches: Vec::new(), micros: 0.0, bytes: 0, flops: 0 };
    let adapts = matches!(preset.kernel, "shrink" | "merge" | "gradient");
    let nothing = preset.name == "empty" || (adapts && problem.rank() == 0);
    let workspace_len = match preset.kernel {
        _ if nothing => 0,
        "merge" => building.merge()?,
        "gradient" => building.gradient()?,
        _ => building.build(preset, &Roles::new(problem)?)?,
    };
    Ok(Draft {
        launches: building.launches,
        workspace_len,
        flops: building.flops,
        bytes: building.bytes,
        micros: building.micros,
        schedule: super::Schedule::Launches,
    })
}

fn reason(text: String) -> Refusal {
    Refusal::Reason(text)
}

/// The text of `kind` on the tile of this name with the fewest ranks that serve.
fn text(
    kind: &str,
    tile: &str,
    problem: &Problem,
    turned: bool,
    aligned: bool,
) -> Result<&'static Text, Refusal> {
    let ranks = if matches!(kind, "leader" | "recompute") { problem.rank() } else { 0 };
    let dtype = problem.activation().to_string();
    texts::TEXTS
        .iter()
        .filter(|of| {
            (of.kind, of.tile_name, of.dtype) == (kind, tile, dtype.as_str())
                && (of.turned, of.aligned) == (turned, aligned)
                && of.ranks >= ranks
        })
        .min_by_key(|of| of.ranks)
        .ok_or_else(|| reason(format!("no text of `{kind}` for {tile} tiles and rank {ranks}")))
}

impl Building<'_> {
    /// Adds the launches; bytes of workspace.
    fn build(&mut self, preset: &Preset, roles: &Roles) -> Result<usize, Refusal> {
        let alone = preset.kernel == "shrink";
        let aligned = match alone {
            true => roles.x_aligned,
            false => preset.name != "unaligned",
        };
        if let (false, true, Some(what)) = (alone, aligned, roles.unaligned()) {
            return Err(reason(format!(
                "{what}: not rows of 16-byte multiples at 16-byte addresses"
            )));
        }
        let kind = match preset.strategy {
            Strategy::Leader => "leader",
            Strategy::Recompute => "recompute",
            _ => "plain",
        };
        let mut workspace = Workspace { len: HEADER, used: kind == "leader" };
        let adapter = self.adapter(kind, aligned, roles, &mut workspace)?;
        let shrunk = self.shrunk(kind, roles, &mut workspace);
        if let (Some(adapter), "plain") = (&adapter, kind) {
            self.shrink(aligned, roles, adapter, shrunk)?;
        }
        if let (Some(w), Some(y)) = (roles.w, roles.y) {
            let tile = if preset.name == "large" { "large" } else { "small" };
            let text = text(kind, tile, self.problem, roles.w_turned, aligned)?;
            self.layer(text, roles, w, y, adapter.as_ref(), shrunk)?;
        }
        Ok(workspace.finish())
    }

    /// `w ± s·b·a` as one product with β = 1 of whichever factor lies along w's rows and the
    /// other; bytes of workspace.
    fn merge(&mut self) -> Result<usize, Refusal> {
        let problem = self.problem;
        let rank = problem.rank();
        let Merge { y, y_aligned, left, right } = roles::merge(problem)?;
        let mut workspace = Workspace { len: HEADER, used: false };
        let mut jobs = Vec::new();
        let mut load = |side: &Side, turned: bool| {
            if !side.converts && side.turned == turned && side.aligned {
                return Packed { high: side.place, low: None };
            }
            let (job, packed) = workspace.pack(side, turned);
            jobs.push((job, packed));
            packed
        };
        let (x, w) = (load(&left, false), load(&right, right.turned));
        if !jobs.is_empty() {
            self.pack(&jobs)?;
        }
        let text = text("merge", "small", problem, right.turned, true)?;
        let mut segments = vec![(x.high, w.high, rank)];
        segments.extend(x.low.map(|low| (low, w.high, rank)));
        segments.extend(w.low.map(|low| (x.high, low, rank)));
        let [tokens, wide] = [left.rows, right.rows];
        let sizes = tokens * wide + (tokens + wide) * rank;
        self.flops += 2 * (tokens * wide * rank * segments.len()) as u64;
        let scale = match problem.operation() {
            Operation::Unmerge => -problem.scale(),
            _ => problem.scale(),
        };
        self.linear(LinearLaunch {
            text,
            params: Params::new(linear_at::LEN),
            segments: &segments,
            tokens,
            wide,
            columns: wide,
            main_steps: segments.len() * rank.div_ceil(text.tile[2]),
            border_steps: 0,
            y,
            vectors: y_aligned,
            bias: None,
            scale,
            beta: 1.0,
            carried: 0,
            bytes: 2 * (sizes + tokens * wide) as u64,
        })?;
        Ok(workspace.finish())
    }

    /// The adapter as the kernels of `kind` can load it: where it lies, or packed first.
    fn adapter(
        &mut self,
        kind: &str,
        aligned: bool,
        roles: &Roles,
        workspace: &mut Workspace,
    ) -> Result<Option<Adapter>, Refusal> {
        let Some(down) = &roles.down else { return Ok(None) };
        let carries = kind != "plain";
        if carries && down.converts {
            let (from, to) = (self.problem.adapter(), self.problem.activation());
            return Err(reason(format!("an adapter in {from} takes two parts of {to}")));
        }
        let mut jobs = Vec::new();
        let mut load = |side: &Side, turned: bool| {
            if !side.converts && side.turned == turned && (side.aligned || !aligned) {
                return Packed { high: side.place, low: None };
            }
            let (job, packed) = workspace.pack(side, turned);
            jobs.push((job, packed));
            packed
        };
        let down_turned = if carries { roles.w_turned } else { down.turned };
        let packed = load(down, down_turned);
        let up = roles.up.as_ref().map(|up| load(up, roles.w_turned));
        if !jobs.is_empty() {
            self.pack(&jobs)?;
        }
        Ok(Some(Adapter { down: packed, down_turned, up }))
    }

    /// Where shrunk goes: to the caller who keeps it, else to scratch.
    fn shrunk(&self, kind: &str, roles: &Roles, workspace: &mut Workspace) -> Place {
        let stride = self.problem.shrunk_stride();
        roles.kept.unwrap_or_else(|| {
            let bytes = match (self.problem.rank(), kind) {
                // Every tile keeps its own in shared memory.
                (0, _) | (_, "recompute") => 0,
                _ => self.problem.tokens().saturating_mul(stride).saturating_mul(2),
            };
            let offset = if bytes == 0 { 0 } else { workspace.take(bytes) };
            // Ranks whose rows leave 32 bits have been refused by `roles`.
            Place { operand: None, offset, stride: u32::try_from(stride * 2).unwrap_or(u32::MAX) }
        })
    }

    /// The first of two passes.
    fn shrink(
        &mut self,
        aligned: bool,
        roles: &Roles,
        adapter: &Adapter,
        shrunk: Place,
    ) -> Result<(), Refusal> {
        let problem = self.problem;
        let (tokens, rank, deep) = (problem.tokens(), problem.rank(), roles.deep);
        let text = text("shrink", "small", problem, adapter.down_turned, aligned)?;
        let mut segments = vec![(roles.x, adapter.down.high, deep)];
        segments.extend(adapter.down.low.map(|low| (roles.x, low, deep)));
        let parts = segments.len();
        self.flops += 2 * (tokens * deep * rank * parts) as u64;
        self.linear(LinearLaunch {
            text,
            params: Params::new(linear_at::LEN),
            segments: &segments,
            tokens,
            wide: rank,
            columns: problem.shrunk_part(),
            main_steps: parts * deep.div_ceil(text.tile[2]),
            border_steps: 0,
            y: shrunk,
            // Scratch is aligned; so is what the caller keeps, or `roles` says otherwise.
            vectors: shrunk.operand.is_none() || roles.kept_aligned(),
            bias: None,
            scale: problem.scale(),
            beta: 0.0,
            carried: 0,
            bytes: 2
                * (tokens * deep + rank * deep * parts + tokens * problem.shrunk_stride()) as u64,
        })
    }

    /// The layer itself.
    fn layer(
        &mut self,
        text: &'static Text,
        roles: &Roles,
        w: Place,
        y: Place,
        adapter: Option<&Adapter>,
        shrunk: Place,
    ) -> Result<(), Refusal> {
        let problem = self.problem;
        let (tokens, rank) = (problem.tokens(), problem.rank());
        let (kind, depth) = (text.kind, text.tile[2]);
        let (deep, wide) = (roles.deep, roles.wide);
        let carries = kind != "plain";
        let mut segments = vec![(roles.x, w, deep)];
        let mut ups = 0;
        if let Some(up) = adapter.and_then(|adapter| adapter.up) {
            segments.push((shrunk, up.high, rank));
            segments.extend(up.low.map(|low| (shrunk, low, rank)));
            ups = segments.len() - 1;
            if problem.is_precise() {
                segments.push((shrunk.later(problem.shrunk_part()), up.high, rank));
            }
        }
        let border_steps = (segments.len() - 1) * rank.div_ceil(depth);
        if carries && border_steps > text.stages {
            let (stages, parts) = (text.stages, segments.len() - 1);
            return Err(reason(format!(
                "rank {rank} in {parts} parts: {border_steps} steps of border in a ring of {stages}"
            )));
        }
        let mut params = Params::new(linear_at::LEN);
        // Recompute stores shrunk only for the caller.
        let stores = kind == "leader" || (carries && roles.kept.is_some());
        if let (Some(adapter), true) = (adapter, carries) {
            use linear_at::{DOWN, DOWN_OFFSET, DOWN_STRIDE};
            params.place([DOWN, DOWN_OFFSET, DOWN_STRIDE], adapter.down.high, Access::Read);
        }
        if stores {
            use linear_at::{SHRUNK, SHRUNK_OFFSET, SHRUNK_STRIDE};
            params.place([SHRUNK, SHRUNK_OFFSET, SHRUNK_STRIDE], shrunk, Access::Write);
            params.u32(linear_at::KEEP, 1);
        }
        if kind == "leader" {
            params.address(linear_at::HEADER, None, Access::Update);
        }
        let columns = wide.div_ceil(text.tile[1]);
        let shrinks = match kind {
            "leader" => 1,
            "recompute" => columns,
            _ => 0,
        };
        let multiply_adds =
            tokens * wide * (deep + (segments.len() - 1) * rank) + tokens * deep * rank * shrinks;
        self.flops += 2 * multiply_adds as u64;
        let operands = [roles.x_operand, Operand::W, roles.y_operand, Operand::Bias];
        let operands = operands.into_iter().filter_map(|operand| problem.spec(operand));
        let bytes: u64 = operands
            .map(|spec| if spec.access == Access::Update { 2 } else { 1 } * spec.bytes())
            .sum();
        let carried = if carries { rank * deep } else { 0 };
        let passed =
            if stores || rank > 0 && !carries { tokens * problem.shrunk_stride() } else { 0 };
        self.linear(LinearLaunch {
            text,
            params,
            segments: &segments,
            tokens,
            wide,
            columns: wide,
            main_steps: deep.div_ceil(depth),
            border_steps,
            y,
            vectors: roles.y_aligned,
            bias: roles.bias,
            scale: problem.scale(),
            beta: problem.beta(),
            carried: if kind == "recompute" { rank } else { 0 },
            bytes: bytes + 2 * (rank * wide * ups + carried + passed) as u64,
        })
    }

    fn linear(&mut self, launch: LinearLaunch<'_>) -> Result<(), Refusal> {
        let LinearLaunch { text, mut params, segments, .. } = launch;
        let [tokens, columns, _] = text.tile;
        let (problem, cuda) = (self.problem, self.cuda);
        let rows = launch.tokens.div_ceil(tokens);
        let columns = launch.columns.div_ceil(columns);
        let tiles = rows.saturating_mul(columns);
        let most = i32::MAX as usize;
        let sizes =
            [problem.tokens(), problem.in_features(), problem.out_features(), problem.rank()];
        if let Some(size) = sizes.into_iter().find(|size| *size > most / 4) {
            return Err(reason(format!("a size of {size} leaves the kernel's 32-bit counts")));
        }
        if tiles > most {
            return Err(reason(format!("{tiles} tiles do not fit a grid")));
        }
        if text.shared_bytes > cuda.shared_bytes as usize {
            let (takes, grants) = (text.shared_bytes, cuda.shared_bytes);
            return Err(reason(format!(
                "{takes} bytes of shared memory, the device grants {grants}"
            )));
        }
        let slots = cuda.multiprocessors.max(1) as usize * model::resident(text, cuda);
        let leads = text.kind == "leader";
        if leads && rows > FLAGS {
            return Err(reason(format!("{rows} rows of tiles, the header has {FLAGS} flags")));
        }
        // Rows that half of L2 holds; for leaders, who run one band ahead, a wave of tiles.
        let row_bytes = (tokens * segments[0].2).saturating_mul(2).max(1);
        let band = (cuda.l2_bytes as usize / 2 / row_bytes).clamp(1, 16);
        let band = if leads { band.max(slots.div_ceil(columns)) } else { band }.min(rows);

        use linear_at as at;
        let access = if launch.beta == 0.0 { Access::Write } else { Access::Update };
        params.place([at::Y, at::Y_OFFSET, at::Y_STRIDE], launch.y, access);
        if let Some(bias) = launch.bias {
            params.address(at::BIAS, Some(bias), Access::Read);
        }
        for (index, (x, w, depth)) in segments.iter().enumerate() {
            let entry = SEGMENT_TABLE + index * segment_at::LEN;
            let places = |name: [usize; 3]| name.map(|field| entry + field);
            let access = Access::Read;
            use segment_at as of;
            params.place(places([of::X, of::X_OFFSET, of::X_STRIDE]), *x, access);
            params.place(places([of::W, of::W_OFFSET, of::W_STRIDE]), *w, access);
            params.u32(entry + of::DEPTH, *depth);
        }
        for (field, value) in [
            (at::TOKENS, launch.tokens),
            (at::WIDE, launch.wide),
            (at::COLUMNS, launch.columns),
            (at::RANK, problem.rank()),
            (at::PART, problem.shrunk_part()),
            (at::PARTS, if problem.is_precise() { 2 } else { 1 }),
            (at::VECTORS, usize::from(launch.vectors)),
            (at::SEGMENTS, segments.len()),
            (at::MAIN_STEPS, launch.main_steps),
            (at::BORDER_STEPS, launch.border_steps),
            (at::TILE_ROWS, rows),
            (at::TILE_COLUMNS, columns),
            (at::BAND, band),
        ] {
            params.u32(field, value);
        }
        params.f32(at::SCALE, launch.scale);
        params.f32(at::BETA, launch.beta);
        let grid = if leads { tiles.min(slots) } else { tiles };
        self.micros += model::micros(
            &model::Work {
                text,
                tiles,
                steps: launch.main_steps + launch.border_steps,
                ranks: launch.carried,
                bytes: launch.bytes,
            },
            cuda,
        );
        self.bytes += launch.bytes;
        self.push(text, [grid as u32, 1, 1], params);
        Ok(())
    }

    /// One launch that brings the adapter into a form that `linear` can load.
    fn pack(&mut self, jobs: &[(Job, Packed)]) -> Result<(), Refusal> {
        let (from, to) = (self.problem.adapter().to_string(), self.problem.activation());
        let to = to.to_string();
        let text = texts::TEXTS
            .iter()
            .find(|of| (of.kind, of.tile_name, of.dtype) == ("pack", from.as_str(), &to))
            .ok_or_else(|| reason(format!("no text of `pack` from {from} to {to}")))?;
        let mut params = Params::new(texts::JOBS * job_at::LEN);
        let mut most = 1;
        for (index, (job, packed)) in jobs.iter().enumerate() {
            let at = |field: usize| index * job_at::LEN + field;
            params.address(at(job_at::FROM), Some(job.operand), Access::Read);
            params.address(at(job_at::TO), None, Access::Write);
            params.u64(at(job_at::HIGH_OFFSET), packed.high.offset);
            params.u64(at(job_at::LOW_OFFSET), packed.low.map_or(0, |low| low.offset));
            params.u64(at(job_at::OUTER_STRIDE), job.outer_stride as u64);
            params.u64(at(job_at::INNER_STRIDE), job.inner_stride as u64);
            params.u32(at(job_at::OUTER), job.outer);
            params.u32(at(job_at::INNER), job.inner);
            params.u32(at(job_at::PADDED), job.padded());
            params.u32(at(job_at::LOW), usize::from(packed.low.is_some()));
            let elements = job.outer.saturating_mul(job.padded());
            if elements > i32::MAX as usize {
                return Err(reason(format!("{}: {elements} elements to convert", job.operand)));
            }
            most = most.max(elements.div_ceil(text.threads));
            let parts = if packed.low.is_some() { 2 } else { 1 };
            let read = job.outer * job.inner * self.problem.adapter().size();
            self.bytes += (read + 2 * elements * parts) as u64;
        }
        self.micros += 4.0;
        // Below 2³¹ / 256 blocks.
        self.push(text, [most as u32, jobs.len() as u32, 1], params);
        Ok(())
    }

    fn push(&mut self, text: &'static Text, grid: [u32; 3], params: Params) {
        let Params { bytes, bindings } = params;
        self.launches.push(Launch {
            kernel: text.entry,
            source: Some(Source {
                language: Language::Ptx,
                text: text.source(),
                entry: text.entry,
            }),
            grid,
            // Threads and bytes of shared memory are build.rs's constants.
            block: [text.threads as u32, 1, 1],
            shared_bytes: text.shared_bytes as u32,
            bindings,
            params: bytes,
        });
    }
}

/// What one launch of `linear` needs beyond the problem.
struct LinearLaunch<'a> {
    text: &'static Text,
    params: Params,
    /// Products that are added up: x, w, depth.
    segments: &'a [(Place, Place, usize)],
    /// Rows of x and y.
    tokens: usize,
    /// Rows of w.
    wide: usize,
    /// Columns that are stored.
    columns: usize,
    main_steps: usize,
    border_steps: usize,
    y: Place,
    /// y takes 16 bytes at a time.
    vectors: bool,
    bias: Option<Operand>,
    scale: f32,
    beta: f32,
    /// Ranks that every tile multiplies.
    carried: usize,
    /// Bytes that it touches.
    bytes: u64,
}

/// The adapter, ready to be loaded.
struct Adapter {
    down: Packed,
    /// How `down` lies there.
    down_turned: bool,
    /// Lies like w; not there on backward_shrink.
    up: Option<Packed>,
}

/// A matrix of the adapter as `linear` loads it; low: what rounding took from the high part.
#[derive(Debug, Clone, Copy)]
struct Packed {
    high: Place,
    low: Option<Place>,
}

/// One conversion of `pack`.
#[derive(Debug, Clone, Copy)]
struct Job {
    operand: Operand,
    outer: usize,
    inner: usize,
    outer_stride: usize,
    inner_stride: usize,
}

impl Job {
    /// Length of a row that is written.
    fn padded(&self) -> usize {
        self.inner.next_multiple_of(8)
    }
}

/// The workspace as it is laid out: the header, then scratch on 256-byte boundaries.
struct Workspace {
    len: usize,
    used: bool,
}

impl Workspace {
    /// `bytes` of scratch; where they begin.
    fn take(&mut self, bytes: usize) -> u64 {
        let at = self.len;
        self.used = true;
        // Saturated where nobody has so much memory: the workspace is then refused.
        self.len = at.saturating_add(bytes.saturating_add(255) & !255);
        at as u64
    }

    /// Room for one matrix of the adapter, and what fills it.
    fn pack(&mut self, side: &Side, turned: bool) -> (Job, Packed) {
        let [outer, inner] = side.shape(turned);
        let [outer_stride, inner_stride] = side.strides(turned);
        let job = Job { operand: side.operand, outer, inner, outer_stride, inner_stride };
        let bytes = outer.saturating_mul(job.padded()).saturating_mul(2);
        let stride = u32::try_from(job.padded() * 2).unwrap_or(u32::MAX);
        let mut part = || Place { operand: None, offset: self.take(bytes), stride };
        let high = part();
        let low = side.converts.then(part);
        (job, Packed { high, low })
    }

    /// Bytes in all: none where neither header nor scratch is used.
    fn finish(self) -> usize {
        if self.used { self.len } else { 0 }
    }
}

//! The launches around `linear`: what its segments are, what it stores, how its tiles are cut.
//! One layer is one launch, or `shrink` and the layer; merge is one product more.

use super::params::{Params, Place};
use super::roles::{Roles, Side};
use super::texts::{SEGMENT_TABLE, Text, linear_at, segment_at};
use super::{
    Building, CudaKernel, FLAGS, HEADER, Packed, Preset, Refusal, Workspace, model, reason, texts,
};
use crate::plan::Strategy;
use crate::{Access, DType, Operand, Problem};

/// The text of `kind` on the tile of this name with the fewest ranks that serve.
pub(super) fn text(
    kind: &str,
    tile: &str,
    problem: &Problem,
    turned: bool,
    aligned: bool,
) -> Result<&'static Text, Refusal> {
    let parts = match problem.activation() {
        DType::F32 => 1,
        of if of == problem.adapter() => 1,
        _ => 2,
    };
    let ranks = match (kind, parts) {
        ("leader" | "recompute", 1) => problem.rank(),
        // The low part's ranks are the upper half of the text's.
        ("leader" | "recompute", _) => 2 * problem.rank().next_multiple_of(8),
        _ => 0,
    };
    let dtype = problem.activation().to_string();
    // In f32 these are the plain product with a factor.
    let kind = match kind {
        "shrink" | "merge" if dtype == "f32" => "plain",
        kind => kind,
    };
    texts::TEXTS
        .iter()
        .filter(|of| {
            (of.kind, of.tile_name, of.dtype) == (kind, tile, dtype.as_str())
                && (of.turned, of.aligned) == (turned, aligned)
                && of.ranks >= ranks
        })
        .min_by_key(|of| of.ranks)
        .ok_or_else(|| {
            let rank = problem.rank();
            let parts = if parts == 1 { "" } else { " in two parts" };
            reason(format!("no text of `{kind}` for {tile} tiles and rank {rank}{parts}"))
        })
}

impl Building<'_> {
    /// Adds the launches; bytes of workspace.
    pub(super) fn build(
        &mut self,
        preset: &Preset<CudaKernel>,
        roles: &Roles,
    ) -> Result<usize, Refusal> {
        let alone = preset.kernel == CudaKernel::Shrink;
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
        let text = match alone {
            true => None,
            false => {
                let tile = match preset.name {
                    "unaligned" => "small",
                    name => name,
                };
                Some(text(kind, tile, self.problem, roles.w_turned, aligned)?)
            }
        };
        let carried = text.filter(|_| kind != "plain").map(|of| of.ranks);
        let adapter = self.adapter(carried, aligned, roles, &mut workspace)?;
        let shrunk = self.shrunk(kind, roles, &mut workspace);
        if let (Some(adapter), "plain") = (&adapter, kind) {
            self.shrink(aligned, roles, adapter, shrunk)?;
        }
        if let (Some(text), Some(w), Some(y)) = (text, roles.w, roles.y) {
            self.layer(text, roles, w, y, adapter.as_ref(), shrunk)?;
        }
        Ok(workspace.finish())
    }

    /// The adapter as it can be loaded, by a text that carries so many ranks if one does: where
    /// it lies, or packed first.
    fn adapter(
        &mut self,
        carried: Option<usize>,
        aligned: bool,
        roles: &Roles,
        workspace: &mut Workspace,
    ) -> Result<Option<Adapter>, Refusal> {
        let Some(down) = &roles.down else { return Ok(None) };
        let mut jobs = Vec::new();
        let mut load = |side: &Side, turned: bool, ranks: Option<usize>| {
            if !side.converts && side.turned == turned && (side.aligned || !aligned) {
                return Packed { high: side.place, low: None };
            }
            let (job, packed) = match ranks {
                Some(ranks) if side.splits() => workspace.pack_as_ranks(side, turned, ranks),
                _ => workspace.pack(side, turned),
            };
            jobs.push((job, packed));
            packed
        };
        let down_turned = if carried.is_some() { roles.w_turned } else { down.turned };
        let packed = load(down, down_turned, carried);
        let up = roles.up.as_ref().map(|up| load(up, roles.w_turned, None));
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
                _ => self.problem.tokens().saturating_mul(stride).saturating_mul(self.size()),
            };
            let offset = if bytes == 0 { 0 } else { workspace.take(bytes) };
            // Ranks whose rows leave 32 bits have been refused by `roles`.
            let stride = u32::try_from(stride * self.size()).unwrap_or(u32::MAX);
            Place { operand: None, offset, stride }
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
            columns: problem.padded_rank(),
            main_steps: parts * deep.div_ceil(text.tile[2]),
            border_steps: 0,
            y: shrunk,
            y_bytes: self.size(),
            // Scratch is aligned; so is what the caller keeps, or `roles` says otherwise.
            vectors: shrunk.operand.is_none() || roles.kept_aligned(),
            bias: None,
            scale: problem.scale(),
            beta: 0.0,
            carried: 0,
            bytes: (self.size()
                * (tokens * deep + rank * deep * parts + tokens * problem.shrunk_stride()))
                as u64,
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
                segments.push((shrunk.later(problem.padded_rank()), up.high, rank));
            }
        }
        let border_steps = (segments.len() - 1) * rank.div_ceil(depth);
        // An owner's shrunk lies in its ring until the border is done.
        let parts = if problem.is_precise() { 2 } else { 1 };
        let steps = parts * rank.div_ceil(depth);
        if carries && steps > text.stages {
            let stages = text.stages;
            return Err(reason(format!(
                "rank {rank} in {parts} parts: {steps} steps of border in a ring of {stages}"
            )));
        }
        let mut params = Params::new(linear_at::LEN);
        // Recompute stores shrunk only for the caller.
        let stores = kind == "leader" || (carries && roles.kept.is_some());
        // Ranks of down that are multiplied: its parts beside each other, and what fills them.
        let down_rows = match adapter {
            Some(adapter) if carries && adapter.down.low.is_some() => text.ranks,
            Some(_) if carries => rank,
            _ => 0,
        };
        if let (Some(adapter), true) = (adapter, carries) {
            use linear_at::{DOWN, DOWN_OFFSET, DOWN_STRIDE};
            params.place([DOWN, DOWN_OFFSET, DOWN_STRIDE], adapter.down.high, Access::Read);
            params.u32(linear_at::DOWN_ROWS, down_rows);
        }
        params.u32(linear_at::ADAPTER_PARTS, ups);
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
        let multiply_adds = tokens * wide * (deep + (segments.len() - 1) * rank)
            + tokens * deep * down_rows * shrinks;
        self.flops += 2 * multiply_adds as u64;
        let operands = [roles.x_operand, Operand::W, roles.y_operand, Operand::Bias];
        let operands = operands.into_iter().filter_map(|operand| problem.spec(operand));
        let bytes: u64 = operands
            .map(|spec| if spec.access == Access::Update { 2 } else { 1 } * spec.bytes())
            .sum();
        let carried = down_rows * deep;
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
            y_bytes: problem.output().size(),
            vectors: roles.y_aligned,
            bias: roles.bias,
            // That of shrunk, where this launch computes it.
            scale: if carries { problem.scale() } else { 1.0 },
            beta: problem.beta(),
            carried: if carries { down_rows } else { 0 },
            bytes: bytes + (self.size() * (rank * wide * ups + carried + passed)) as u64,
        })
    }

    pub(super) fn linear(&mut self, launch: LinearLaunch<'_>) -> Result<(), Refusal> {
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
        self.check_shared(text)?;
        let slots = cuda.multiprocessors.max(1) as usize * model::resident(text, cuda);
        let leads = text.kind == "leader";
        if leads && rows > FLAGS {
            return Err(reason(format!("{rows} rows of tiles, the header has {FLAGS} flags")));
        }
        // Rows that half of L2 holds; for leaders, who run one band ahead, a wave of tiles.
        let row_bytes = (tokens * segments[0].2).saturating_mul(self.size()).max(1);
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
            (at::PART, problem.padded_rank()),
            (at::PARTS, if problem.is_precise() { 2 } else { 1 }),
            (at::VECTORS, usize::from(launch.vectors)),
            (at::SEGMENTS, segments.len()),
            (at::MAIN_STEPS, launch.main_steps),
            (at::BORDER_STEPS, launch.border_steps),
            (at::TILE_ROWS, rows),
            (at::TILE_COLUMNS, columns),
            (at::BAND, band),
            (at::Y_BYTES, launch.y_bytes),
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
}

/// What one launch of `linear` needs beyond the problem.
pub(super) struct LinearLaunch<'a> {
    pub(super) text: &'static Text,
    pub(super) params: Params,
    /// Products that are added up: x, w, depth.
    pub(super) segments: &'a [(Place, Place, usize)],
    /// Rows of x and y.
    pub(super) tokens: usize,
    /// Rows of w.
    pub(super) wide: usize,
    /// Columns that are stored.
    pub(super) columns: usize,
    pub(super) main_steps: usize,
    pub(super) border_steps: usize,
    pub(super) y: Place,
    /// Of an element of y.
    pub(super) y_bytes: usize,
    /// y takes 16 bytes at a time.
    pub(super) vectors: bool,
    pub(super) bias: Option<Operand>,
    pub(super) scale: f32,
    pub(super) beta: f32,
    /// Ranks that tiles which compute shrunk multiply beside their columns.
    pub(super) carried: usize,
    /// Bytes that it touches.
    pub(super) bytes: u64,
}

/// The adapter, ready to be loaded.
struct Adapter {
    down: Packed,
    /// How `down` lies there.
    down_turned: bool,
    /// Lies like w; not there on backward_shrink.
    up: Option<Packed>,
}

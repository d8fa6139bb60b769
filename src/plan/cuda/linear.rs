//! The launches around `linear`: what its segments are, what it stores, how its tiles are cut.
//! One layer is one launch, or `shrink` and the layer; merge is one product more.

use super::abi::{Linear, Segment};
use super::numbers::{Kind, Numbers, Tile};
use super::pack::Packed;
use super::params::{Address, Params, pointer, word};
use super::roles::{Factor, Roles};
use super::scratch::ScratchLayout;
use super::variants::Variant;
use super::{Building, FLAGS, Preset, Refusal, model, reason};
use crate::plan::Strategy;
use crate::{Access, DType, Operand, Problem};

/// The text of `kind` on this tile with the fewest ranks that serve.
pub(super) fn variant(
    kind: Kind,
    tile: Tile,
    problem: &Problem,
    k_major: bool,
    aligned: bool,
) -> Result<&'static Variant, Refusal> {
    let dtype = problem.activation();
    let pair = dtype != DType::F32 && dtype != problem.adapter() && problem.rank() > 0;
    let carries = matches!(kind, Kind::Leader | Kind::Recompute);
    let ranks = match (carries, pair) {
        (true, false) => problem.rank(),
        // The low part's ranks are the upper half of the text's.
        (true, true) => 2 * problem.rank().next_multiple_of(8),
        (false, _) => 0,
    };
    // In f32 these are the plain product with a factor.
    let kind = match kind {
        Kind::Shrink | Kind::Merge if dtype == DType::F32 => Kind::Plain,
        kind => kind,
    };
    // What adds up segments alone takes a pair as it takes others.
    let own = pair && (carries || kind == Kind::Plain);
    let fits = |of: &Numbers| {
        (of.tile, of.dtype, of.k_major) == (tile, dtype, k_major)
            && (of.aligned, of.pair) == (aligned, own)
    };
    Variant::find(kind, ranks, fits, || {
        let rank = problem.rank();
        let parts = if pair { " in two parts" } else { "" };
        let (kind, tile) = (kind.name(), tile.name());
        format!("no text of `{kind}` for {tile} tiles and rank {rank}{parts}")
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
            Strategy::Leader => Kind::Leader,
            Strategy::Recompute => Kind::Recompute,
            _ => Kind::Plain,
        };
        let mut scratch = ScratchLayout::new(kind == Kind::Leader);
        let variant = match alone {
            true => None,
            false => {
                let tile = match preset.name {
                    "large" => Tile::Large,
                    "tf32" => Tile::Tf32,
                    _ => Tile::Small,
                };
                Some(variant(kind, tile, self.problem, roles.w_k_major, aligned)?)
            }
        };
        let carried = variant.filter(|_| kind != Kind::Plain).map(|of| of.ranks);
        let adapter = self.adapter(carried, aligned, roles, &mut scratch)?;
        let shrunk = self.shrunk(kind, roles, &mut scratch);
        if let (Some(adapter), Kind::Plain) = (&adapter, kind) {
            self.shrink(aligned, roles, adapter, shrunk)?;
        }
        if let (Some(variant), Some(w), Some(y)) = (variant, roles.w, roles.y) {
            self.layer(variant, roles, w, y, adapter.as_ref(), shrunk)?;
        }
        Ok(scratch.finish())
    }

    /// The adapter as it can be loaded, by a text that carries so many ranks if one does: where
    /// it lies, or packed first.
    fn adapter(
        &mut self,
        carried: Option<usize>,
        aligned: bool,
        roles: &Roles,
        scratch: &mut ScratchLayout,
    ) -> Result<Option<Adapter>, Refusal> {
        let Some(down) = &roles.down else { return Ok(None) };
        let mut jobs = Vec::new();
        let mut load = |factor: &Factor, k_major: bool, ranks: Option<usize>| {
            if !factor.converts && factor.k_major == k_major && (factor.aligned || !aligned) {
                return Packed { high: factor.place, low: None };
            }
            let (job, packed) = match ranks {
                Some(ranks) if factor.is_pair() => scratch.pack_as_ranks(factor, k_major, ranks),
                _ => scratch.pack(factor, k_major),
            };
            jobs.push((job, packed));
            packed
        };
        let down_k_major = if carried.is_some() { roles.w_k_major } else { down.k_major };
        let packed = load(down, down_k_major, carried);
        let up = roles.up.as_ref().map(|up| load(up, roles.w_k_major, None));
        self.pack(&jobs)?;
        Ok(Some(Adapter { down: packed, down_k_major, up }))
    }

    /// Where shrunk goes: to the caller who keeps it, else to scratch.
    fn shrunk(&self, kind: Kind, roles: &Roles, scratch: &mut ScratchLayout) -> Address {
        let stride = self.problem.shrunk_stride();
        roles.kept.unwrap_or_else(|| {
            let bytes = match (self.problem.rank(), kind) {
                // Every tile keeps its own in shared memory.
                (0, _) | (_, Kind::Recompute) => 0,
                _ => self.problem.tokens().saturating_mul(stride).saturating_mul(self.size()),
            };
            let offset = if bytes == 0 { 0 } else { scratch.take(bytes) };
            // Ranks whose rows leave 32 bits have been refused by `roles`.
            let stride = word(stride * self.size());
            Address { operand: None, offset, stride }
        })
    }

    /// The first of two passes.
    fn shrink(
        &mut self,
        aligned: bool,
        roles: &Roles,
        adapter: &Adapter,
        shrunk: Address,
    ) -> Result<(), Refusal> {
        let problem = self.problem;
        let (tokens, rank, depth) = (problem.tokens(), problem.rank(), roles.depth);
        let variant = variant(Kind::Shrink, Tile::Small, problem, adapter.down_k_major, aligned)?;
        let mut segments = vec![(roles.x, adapter.down.high, depth)];
        segments.extend(adapter.down.low.map(|low| (roles.x, low, depth)));
        let parts = segments.len();
        self.flops += 2 * (tokens * depth * rank * parts) as u64;
        self.linear(LinearLaunch {
            variant,
            params: Params::default(),
            segments: &segments,
            rows: tokens,
            columns: rank,
            stored_columns: problem.shrunk_part(),
            main_steps: parts * depth.div_ceil(variant.depth),
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
                * (tokens * depth + rank * depth * parts + tokens * problem.shrunk_stride()))
                as u64,
        })
    }

    /// The layer itself.
    fn layer(
        &mut self,
        variant: &'static Variant,
        roles: &Roles,
        w: Address,
        y: Address,
        adapter: Option<&Adapter>,
        shrunk: Address,
    ) -> Result<(), Refusal> {
        let problem = self.problem;
        let (tokens, rank) = (problem.tokens(), problem.rank());
        let (kind, step) = (variant.kind, variant.depth);
        let (depth, columns) = (roles.depth, roles.columns);
        let carries = kind != Kind::Plain;
        let mut segments = vec![(roles.x, w, depth)];
        let mut ups = 0;
        if let Some(up) = adapter.and_then(|adapter| adapter.up) {
            segments.push((shrunk, up.high, rank));
            segments.extend(up.low.map(|low| (shrunk, low, rank)));
            ups = segments.len() - 1;
            if problem.is_precise() {
                segments.push((shrunk.later(problem.padded_rank()), up.high, rank));
            }
        }
        let border_steps = (segments.len() - 1) * rank.div_ceil(step);
        // An owner's shrunk lies in its ring until the border is done.
        let parts = if problem.is_precise() { 2 } else { 1 };
        let steps = parts * rank.div_ceil(step);
        if carries && steps > variant.stages {
            let stages = variant.stages;
            return Err(reason(format!(
                "rank {rank} in {parts} parts: {steps} steps of border in a ring of {stages}"
            )));
        }
        let mut params = Params::<Linear>::default();
        // Recompute stores shrunk only for the caller.
        let stores = kind == Kind::Leader || (carries && roles.kept.is_some());
        // Ranks of down that are multiplied: its parts beside each other, and what fills them.
        let down_rows = match adapter {
            Some(adapter) if carries && adapter.down.low.is_some() => variant.ranks,
            Some(_) if carries => rank,
            _ => 0,
        };
        if let (Some(adapter), true) = (adapter, carries) {
            let down = adapter.down.high;
            params.bind(pointer!(Linear, down), down.operand, Access::Read);
            (params.block.down_offset, params.block.down_stride) = (down.offset, down.stride);
            params.block.down_rows = word(down_rows);
        }
        if stores {
            params.bind(pointer!(Linear, shrunk), shrunk.operand, Access::Write);
            (params.block.shrunk_offset, params.block.shrunk_stride) =
                (shrunk.offset, shrunk.stride);
            params.block.keep = 1;
        }
        if kind == Kind::Leader {
            params.bind(pointer!(Linear, header), None, Access::Update);
        }
        let shrinks = match kind {
            Kind::Leader => 1,
            Kind::Recompute => columns.div_ceil(variant.columns),
            _ => 0,
        };
        let multiply_adds = tokens * columns * (depth + (segments.len() - 1) * rank)
            + tokens * depth * down_rows * shrinks;
        self.flops += 2 * multiply_adds as u64;
        let operands = [roles.x_operand, Operand::W, roles.y_operand, Operand::Bias];
        let operands = operands.into_iter().filter_map(|operand| problem.spec(operand));
        let bytes: u64 = operands
            .map(|spec| if spec.access == Access::Update { 2 } else { 1 } * spec.bytes())
            .sum();
        let carried = down_rows * depth;
        let passed =
            if stores || rank > 0 && !carries { tokens * problem.shrunk_stride() } else { 0 };
        self.linear(LinearLaunch {
            variant,
            params,
            segments: &segments,
            rows: tokens,
            columns,
            stored_columns: columns,
            main_steps: depth.div_ceil(step),
            border_steps,
            y,
            y_bytes: problem.output().size(),
            vectors: roles.y_aligned,
            bias: roles.bias,
            // That of shrunk, where this launch computes it.
            scale: if carries { problem.scale() } else { 1.0 },
            beta: problem.beta(),
            carried: if carries { down_rows } else { 0 },
            bytes: bytes + (self.size() * (rank * columns * ups + carried + passed)) as u64,
        })
    }

    pub(super) fn linear(&mut self, launch: LinearLaunch<'_>) -> Result<(), Refusal> {
        let LinearLaunch { variant, mut params, segments, .. } = launch;
        let (problem, cuda) = (self.problem, self.cuda);
        let rows = launch.rows.div_ceil(variant.rows);
        let columns = launch.stored_columns.div_ceil(variant.columns);
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
        self.check_smem(variant)?;
        let slots = cuda.multiprocessors.max(1) as usize * model::resident(variant, cuda);
        let leads = variant.kind == Kind::Leader;
        if leads && rows > FLAGS {
            return Err(reason(format!("{rows} rows of tiles, the header has {FLAGS} flags")));
        }
        // Rows that half of L2 holds; for leaders, who run one band ahead, a wave of tiles.
        let row_bytes = (variant.rows * segments[0].2).saturating_mul(self.size()).max(1);
        let band = (cuda.l2_bytes as usize / 2 / row_bytes).clamp(1, 16);
        let band = if leads { band.max(slots.div_ceil(columns)) } else { band }.min(rows);

        let access = if launch.beta == 0.0 { Access::Write } else { Access::Update };
        params.bind(pointer!(Linear, y), launch.y.operand, access);
        if let Some(bias) = launch.bias {
            params.bind(pointer!(Linear, bias), Some(bias), Access::Read);
        }
        for (index, (x, w, depth)) in segments.iter().enumerate() {
            params.bind(pointer!(Linear, segments[index], Segment, x), x.operand, Access::Read);
            params.bind(pointer!(Linear, segments[index], Segment, w), w.operand, Access::Read);
            params.block.segments[index] = Segment {
                x_offset: x.offset,
                w_offset: w.offset,
                x_stride: x.stride,
                w_stride: w.stride,
                depth: word(*depth),
                ..Segment::default()
            };
        }
        params.block = Linear {
            y_offset: launch.y.offset,
            y_stride: launch.y.stride,
            rows: word(launch.rows),
            columns: word(launch.columns),
            stored_columns: word(launch.stored_columns),
            rank: word(problem.rank()),
            padded_rank: word(problem.shrunk_part()),
            shrunk_parts: if problem.is_precise() { 2 } else { 1 },
            vectors: launch.vectors.into(),
            scale: launch.scale,
            beta: launch.beta,
            segment_count: word(segments.len()),
            main_steps: word(launch.main_steps),
            border_steps: word(launch.border_steps),
            tile_rows: word(rows),
            tile_columns: word(columns),
            band: word(band),
            y_bytes: word(launch.y_bytes),
            ..params.block
        };
        let grid = if leads { tiles.min(slots) } else { tiles };
        self.micros += model::micros(
            &model::Work {
                of: variant,
                tiles,
                steps: launch.main_steps + launch.border_steps,
                ranks: launch.carried,
                bytes: launch.bytes,
            },
            cuda,
        );
        self.bytes += launch.bytes;
        self.push(variant, [grid as u32, 1, 1], params);
        Ok(())
    }
}

/// What one launch of `linear` needs beyond the problem.
pub(super) struct LinearLaunch<'a> {
    pub(super) variant: &'static Variant,
    pub(super) params: Params<Linear>,
    /// Products that are added up: x, w, depth.
    pub(super) segments: &'a [(Address, Address, usize)],
    /// Rows of x and y.
    pub(super) rows: usize,
    /// Rows of w.
    pub(super) columns: usize,
    pub(super) stored_columns: usize,
    pub(super) main_steps: usize,
    pub(super) border_steps: usize,
    pub(super) y: Address,
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
    /// Whether the sum runs along stored rows of `down` there.
    down_k_major: bool,
    /// Lies like w; not there on backward_shrink.
    up: Option<Packed>,
}

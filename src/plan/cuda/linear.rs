//! One launch of `linear`, `shrink` or `merge`: which text, how its tiles are cut and go round, and
//! its parameters. Called by `layer` and `merge`, which say what is added up.

use core::mem::offset_of;

use super::abi::{Linear, SEGMENTS, Segment};
use super::address::Address;
use super::layer::is_pair;
use super::numbers::{Kind, Numbers, Tile};
use super::params::{Params, pointer, word};
use super::variants::Variant;
use super::{Building, Refusal, abi, at_most, check_sizes, reason, sm80};
use crate::product::{Border, Finish, Multiplier, Old, Shrunk};
use crate::{Access, DType};

/// The text of `kind` on this tile with the fewest ranks that serve.
pub(super) fn variant(
    kind: Kind,
    tile: Tile,
    dtype: DType,
    border: Option<&Border>,
    k_major: bool,
    aligned: bool,
    gathers: bool,
) -> Result<&'static Variant, Refusal> {
    let pair = is_pair(border, dtype);
    let rank = border.map_or(0, |border| border.rank);
    let carries = matches!(kind, Kind::Leader | Kind::Recompute);
    let ranks = match (carries, pair) {
        (true, false) => rank,
        // The low part's ranks are the upper half of the text's.
        (true, true) => 2 * rank.next_multiple_of(8),
        (false, _) => 0,
    };
    // In f32 these are the plain product with a factor.
    let kind = match kind {
        Kind::Shrink | Kind::Merge if dtype == DType::F32 => Kind::Plain,
        kind => kind,
    };
    // What adds up segments alone takes a pair as it takes others; a plain one that gathers is for pairs throughout.
    let own = match kind {
        Kind::Plain => pair || (gathers && dtype != DType::F32),
        _ => pair && carries,
    };
    let fits = |of: &Numbers| {
        (of.tile, of.dtype, of.k_major) == (tile, dtype, k_major)
            && (of.aligned, of.pair, of.gathers) == (aligned, own, gathers)
    };
    Variant::find(kind, ranks, fits, || {
        let parts = if pair { " in two parts" } else { "" };
        let (kind, tile) = (kind.name(), tile.name());
        let gathers = if gathers { " that gathers x" } else { "" };
        format!("no text of `{kind}`{gathers} for {tile} tiles and rank {rank}{parts}")
    })
}

/// What one launch needs.
pub(super) struct LinearLaunch<'a> {
    pub(super) variant: &'static Variant,
    /// What carries the adapter is filled in.
    pub(super) params: Params<Linear>,
    /// Products that are added up: x, w, depth.
    pub(super) segments: &'a [(Address, Address, usize)],
    /// Through which x is gathered, and how each segment meets its taps.
    pub(super) window: Option<abi::Window>,
    /// Rows of x and y.
    pub(super) rows: usize,
    /// Rows of w.
    pub(super) columns: usize,
    pub(super) stored_columns: usize,
    pub(super) rank: usize,
    /// How shrunk is stored, where there is one.
    pub(super) shrunk: Option<Shrunk>,
    pub(super) main_steps: usize,
    pub(super) border_steps: usize,
    pub(super) y: Address,
    pub(super) y_dtype: DType,
    /// What becomes of the sums; a shrink only rounds them.
    pub(super) finish: Option<&'a Finish>,
    /// Of all sums, or of shrunk where this launch computes it beside others.
    pub(super) factor: Multiplier,
    /// Ranks that tiles which compute shrunk multiply beside their columns.
    pub(super) carried: usize,
    /// Bytes that it touches.
    pub(super) bytes: u64,
}

impl Building<'_> {
    pub(super) fn linear(&mut self, launch: LinearLaunch<'_>) -> Result<(), Refusal> {
        let LinearLaunch { variant, mut params, segments, .. } = launch;
        let (depth, cuda) = (segments[0].2, self.cuda);
        let rows = launch.rows.div_ceil(variant.rows);
        let columns = launch.stored_columns.div_ceil(variant.columns);
        let tiles = rows.saturating_mul(columns);
        let most = i32::MAX as usize;
        check_sizes(&[launch.rows, depth, launch.columns, launch.rank], most / 4)?;
        at_most("tiles of a grid", most, tiles)?;
        self.check_smem(variant.smem_bytes)?;
        let slots = self.slots(variant);
        let leads = variant.kind == Kind::Leader;
        if leads && rows > abi::FLAGS {
            let flags = abi::FLAGS;
            return Err(reason(format!("{rows} rows of tiles, the header has {flags} flags")));
        }
        // Rows that half of L2 holds; for leaders, who run one band ahead, a wave of tiles.
        let row_bytes = (variant.rows * depth).saturating_mul(self.size()).max(1);
        let band = (cuda.l2_bytes as usize / 2 / row_bytes).clamp(1, 16);
        let band = if leads { band.max(slots.div_ceil(columns)) } else { band }.min(rows);

        let work = sm80::Work {
            of: variant,
            tiles,
            band,
            steps: launch.main_steps + launch.border_steps,
            ranks: launch.carried,
            bytes: launch.bytes,
        };
        params.window = launch.window;
        let old = launch.finish.map_or(Old::Replaced, |of| of.old);
        let access = if old == Old::Replaced { Access::Write } else { Access::Update };
        params.bind(pointer!(Linear, y), launch.y.operand, access);
        if let Some(gain) = launch.finish.and_then(|of| of.gain) {
            params.bind(pointer!(Linear, gain), Some(gain.operand), Access::Read);
        }
        if let Some(bias) = launch.finish.and_then(|of| of.bias) {
            params.bind(pointer!(Linear, bias), Some(bias.operand), Access::Read);
        }
        for (index, (x, w, depth)) in segments.iter().enumerate().take(SEGMENTS) {
            params.bind_read(pointer!(Linear, segments[index], Segment, x), x);
            params.bind_read(pointer!(Linear, segments[index], Segment, w), w);
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
            rank: word(launch.rank),
            padded_rank: word(launch.shrunk.map_or(0, |of| of.padded_rank)),
            shrunk_parts: word(launch.shrunk.map_or(1, |of| of.parts())),
            vectors: launch.y.aligned.into(),
            scale: params.scale(offset_of!(Linear, scale), launch.factor, self.scalars),
            beta: params.beta(offset_of!(Linear, beta), old, self.scalars),
            segment_count: word(segments.len()),
            main_steps: word(launch.main_steps),
            border_steps: word(launch.border_steps),
            tile_rows: word(rows),
            tile_columns: word(columns),
            band: word(band),
            alone: word(sm80::alone(&work, cuda)),
            y_bytes: word(launch.y_dtype.size()),
            ..params.block
        };
        let grid = if leads { tiles.min(slots) } else { tiles };
        self.micros += sm80::micros(&work, cuda);
        self.bytes += launch.bytes;
        self.push(variant, [grid as u32, 1, 1], params);
        Ok(())
    }
}

//! The layer as launches of `linear`: one that carries the adapter, or `shrink` and the layer; and
//! `shrink` alone. What their segments are, and what is stored beside y.

use super::abi::{Linear, SEGMENTS, Tapped};
use super::address::Address;
use super::factor::Factor;
use super::linear::{LinearLaunch, variant};
use super::numbers::{Kind, Tile};
use super::pack::Packed;
use super::params::{pointer, word};
use super::scratch::ScratchLayout;
use super::taps::{self, check_taps, tap_bytes, window_of};
use super::variants::Variant;
use super::{Building, Refusal, reason};
use crate::plan::Strategy;
use crate::product::{Body, Border, Bordered, Multiplier};
use crate::{Access, DType};

/// The adapter, ready to be loaded, and where shrunk goes.
pub(super) struct Adapter {
    down: Packed,
    /// Whether the sum runs along stored rows of `down` there.
    down_k_major: bool,
    /// Lies like w; `None` where there is none.
    pub(super) up: Option<Packed>,
    pub(super) shrunk: Address,
}

/// How a launch wants the adapter.
pub(super) struct Wanted {
    /// Loads 16 bytes at a time.
    pub(super) aligned: bool,
    /// As w lies.
    pub(super) k_major: bool,
    /// Ranks that its main loop carries, if it carries any.
    pub(super) carried: Option<usize>,
    /// Gathers what it shrinks: for that `down` lies along the sum.
    pub(super) gathers: bool,
}

impl Building<'_> {
    /// Adds the layer's launches; bytes of workspace.
    pub(super) fn layer(
        &mut self,
        strategy: Strategy,
        tile: Tile,
        aligned: bool,
        of: &Bordered,
    ) -> Result<usize, Refusal> {
        let Some(body) = &of.body else { return Err(reason("a layer without w".to_owned())) };
        let kind = match strategy {
            Strategy::Leader => Kind::Leader,
            Strategy::Recompute => Kind::Recompute,
            Strategy::TwoPass | Strategy::Direct | Strategy::Merged => Kind::Plain,
        };
        let (x, w) = (Address::of_load(&of.left)?, Address::of_load(&body.right)?);
        let window = window_of(&of.left)?;
        let k_major = body.right.k_major;
        if aligned {
            x.check_aligned()?;
            w.check_aligned()?;
            if let Some(window) = &window {
                let tap = tap_bytes(&w, k_major, window.channels, self.size());
                check_taps(tap, "w")?;
            }
            if let Some(kept) = of.border.and_then(|border| border.shrunk.kept) {
                Address::of_store(&kept)?.check_aligned()?;
            }
        }
        let border = of.border.as_ref();
        let gathers = window.is_some();
        let variant = variant(kind, tile, self.activation, border, k_major, aligned, gathers)?;
        let carried = (kind != Kind::Plain).then_some(variant.ranks);
        let mut scratch = ScratchLayout::new(kind == Kind::Leader);
        let adapter = match &of.border {
            None => None,
            Some(border) => {
                let wanted = Wanted { aligned, k_major, carried, gathers };
                // In `recompute` every tile keeps its own shrunk in shared memory.
                let stores = kind != Kind::Recompute;
                let sizes = [of.rows, of.depth, of.columns()];
                Some(self.adapter(sizes, border, wanted, stores, &mut scratch)?)
            }
        };
        if let (Some(adapter), Some(border), None) = (&adapter, &of.border, carried) {
            self.shrink(aligned, of, border, x, adapter)?;
        }
        self.layer_itself(variant, of, body, [x, w], adapter.as_ref())?;
        Ok(scratch.finish())
    }

    /// backward_shrink: the first of two passes, without the second.
    pub(super) fn shrink_alone(&mut self, of: &Bordered) -> Result<usize, Refusal> {
        let Some(border) = &of.border else { return Ok(0) };
        let x = Address::of_load(&of.left)?;
        let mut scratch = ScratchLayout::new(false);
        let (aligned, k_major) = (x.aligned, border.down.k_major);
        let gathers = window_of(&of.left)?.is_some();
        let wanted = Wanted { aligned, k_major, carried: None, gathers };
        let sizes = [of.rows, of.depth, of.columns()];
        let adapter = self.adapter(sizes, border, wanted, true, &mut scratch)?;
        self.shrink(aligned, of, border, x, &adapter)?;
        Ok(scratch.finish())
    }

    /// The adapter where it lies, or packed first; shrunk with the caller who keeps it, else in
    /// scratch where it is stored at all.
    pub(super) fn adapter(
        &mut self,
        [rows, depth, columns]: [usize; 3],
        border: &Border,
        wanted: Wanted,
        stores: bool,
        scratch: &mut ScratchLayout,
    ) -> Result<Adapter, Refusal> {
        let Wanted { aligned, k_major, carried, gathers } = wanted;
        let factor = |load, shape| Factor::new(load, shape, self.activation);
        let down = factor(&border.down, [border.rank, depth])?;
        let up = border.up.as_ref().map(|up| factor(up, [columns, border.rank]));
        let up = up.transpose()?;
        let mut jobs = Vec::new();
        let down_k_major = match carried {
            Some(_) => k_major,
            None => down.load.k_major || gathers,
        };
        let down = down.place(down_k_major, aligned, carried, scratch, &mut jobs);
        let up = up.map(|up| up.place(k_major, aligned, None, scratch, &mut jobs));
        self.pack(&jobs)?;
        let shrunk = match &border.shrunk.kept {
            Some(kept) => Address::of_store(kept)?,
            None => {
                let row = border.shrunk.row().saturating_mul(self.size());
                let bytes = if stores { rows.saturating_mul(row) } else { 0 };
                let offset = if bytes == 0 { 0 } else { scratch.take(bytes) };
                // Ranks whose rows leave 32 bits have been refused with `down`.
                Address::in_scratch(offset, word(row))
            }
        };
        Ok(Adapter { down, down_k_major, up, shrunk })
    }

    /// The first of two passes.
    pub(super) fn shrink(
        &mut self,
        aligned: bool,
        of: &Bordered,
        border: &Border,
        x: Address,
        adapter: &Adapter,
    ) -> Result<(), Refusal> {
        let (rows, rank, depth) = (of.rows, border.rank, of.depth);
        let (k_major, down) = (adapter.down_k_major, adapter.down);
        let window = window_of(&of.left)?;
        let (taps, channels) = window.map_or((1, depth), |of| (of.taps(), of.channels));
        let tap = tap_bytes(&down.high, k_major, channels, self.size());
        let gathers = window.is_some();
        let aligned = aligned && (!gathers || check_taps(tap, "").is_ok());
        let (tile, dtype) = (Tile::Small, self.activation);
        let variant = variant(Kind::Shrink, tile, dtype, Some(border), k_major, aligned, gathers)?;
        let mut segments = Vec::with_capacity(SEGMENTS);
        segments.push((x, down.high, channels));
        segments.extend(down.low.map(|low| (x, low, channels)));
        let parts = segments.len();
        let mut window = window.map(|of| taps::block(&of, rows)).transpose()?;
        if let Some(window) = &mut window {
            window.operands[..parts].fill(Tapped { tap, taps: word(taps), reserved: 0 });
        }
        self.flops += 2 * (rows * depth * rank * parts) as u64;
        // Of images each pixel once.
        let read = if gathers { of.left.spec.rows * of.left.spec.cols } else { rows * depth };
        let elements = read + rank * depth * parts + rows * border.shrunk.row();
        self.linear(LinearLaunch {
            variant,
            params: self.params(),
            segments: &segments,
            window,
            rows,
            columns: rank,
            stored_columns: border.shrunk.padded_rank,
            rank,
            shrunk: Some(border.shrunk),
            main_steps: parts * taps * channels.div_ceil(variant.depth),
            border_steps: 0,
            y: adapter.shrunk,
            y_dtype: self.activation,
            finish: None,
            factor: Multiplier::Scale,
            carried: 0,
            bytes: (self.size() * elements) as u64,
        })
    }

    /// The layer's own launch.
    pub(super) fn layer_itself(
        &mut self,
        variant: &'static Variant,
        of: &Bordered,
        body: &Body,
        [x, w]: [Address; 2],
        adapter: Option<&Adapter>,
    ) -> Result<(), Refusal> {
        let (rows, depth, columns, rank) = (of.rows, of.depth, body.columns, of.rank());
        let (kind, step) = (variant.kind, variant.depth);
        let carries = kind != Kind::Plain;
        let shrunk = of.border.map(|border| border.shrunk);
        let parts = shrunk.map_or(1, |of| of.parts());
        let window = window_of(&of.left)?;
        let (taps, channels) = window.map_or((1, depth), |of| (of.taps(), of.channels));
        let mut window = window.map(|of| taps::block(&of, rows)).transpose()?;
        if let Some(window) = &mut window {
            let far = |of: &Address| tap_bytes(of, variant.k_major, channels, self.size());
            window.operands[0] = Tapped { tap: far(&w), taps: word(taps), reserved: 0 };
            window.down_tap = adapter.map_or(0, |of| far(&of.down.high));
        }
        let mut segments = Vec::with_capacity(SEGMENTS);
        segments.push((x, w, channels));
        let mut ups = 0;
        if let Some(Adapter { up: Some(up), shrunk: left, .. }) = adapter {
            segments.push((*left, up.high, rank));
            segments.extend(up.low.map(|low| (*left, low, rank)));
            ups = segments.len() - 1;
            if let Some(of) = shrunk.filter(|of| of.precise) {
                segments.push((left.later(of.padded_rank), up.high, rank));
            }
        }
        let border_steps = (segments.len() - 1) * rank.div_ceil(step);
        // An owner's shrunk lies in its ring until the border is done.
        let steps = parts * rank.div_ceil(step);
        if carries && steps > variant.stages {
            let stages = variant.stages;
            return Err(reason(format!(
                "rank {rank} in {parts} parts: {steps} steps of border in a ring of {stages}"
            )));
        }
        let mut params = self.params::<Linear>();
        // Ranks of down that are multiplied: its parts beside each other, and what fills them.
        let mut down_rows = 0;
        let is_kept = shrunk.is_some_and(|of| of.kept.is_some());
        // Recompute stores shrunk only for the caller.
        let stores = kind == Kind::Leader || (carries && is_kept);
        if let (Some(adapter), true) = (adapter, carries) {
            let down = adapter.down;
            down_rows = if down.low.is_some() { variant.ranks } else { rank };
            params.bind_read(pointer!(Linear, down), &down.high);
            params.block.down_offset = down.high.offset;
            params.block.down_stride = down.high.stride;
            params.block.down_rows = word(down_rows);
            if stores {
                let shrunk = adapter.shrunk;
                params.bind(pointer!(Linear, shrunk), shrunk.operand, Access::Write);
                params.block.shrunk_offset = shrunk.offset;
                params.block.shrunk_stride = shrunk.stride;
                params.block.keep = 1;
            }
        }
        if kind == Kind::Leader {
            params.bind(pointer!(Linear, header), None, Access::Update);
        }
        let shrinks = match kind {
            Kind::Leader => 1,
            Kind::Recompute => columns.div_ceil(variant.columns),
            _ => 0,
        };
        let multiply_adds = rows * columns * (depth + (segments.len() - 1) * rank)
            + rows * depth * down_rows * shrinks;
        self.flops += 2 * multiply_adds as u64;
        let finish = &body.finish;
        let columnwise = [finish.gain, finish.bias].map(|of| of.map(|of| of.spec));
        let once = [Some(of.left.spec), Some(body.right.spec), columnwise[0], columnwise[1]];
        let y = finish.out.spec;
        let moved: u64 = once.into_iter().flatten().map(|spec| spec.bytes()).sum::<u64>()
            + y.bytes() * if y.access == Access::Update { 2 } else { 1 };
        let passes = stores || (rank > 0 && !carries);
        let passed = if passes { rows * shrunk.map_or(0, |of| of.row()) } else { 0 };
        let adapters = rank * columns * ups + down_rows * depth + passed;
        self.linear(LinearLaunch {
            variant,
            params,
            segments: &segments,
            window,
            rows,
            columns,
            stored_columns: columns,
            rank,
            shrunk,
            main_steps: taps * channels.div_ceil(step),
            border_steps,
            y: Address::of_store(&finish.out)?,
            y_dtype: y.dtype,
            finish: Some(finish),
            factor: if carries { Multiplier::Scale } else { Multiplier::One },
            carried: down_rows,
            bytes: moved + (self.size() * adapters) as u64,
        })
    }
}

/// Whether an adapter of `border` comes as a pair beside such activations.
pub(super) fn is_pair(border: Option<&Border>, activation: DType) -> bool {
    activation != DType::F32 && border.is_some_and(|of| of.down.spec.dtype != activation)
}

//! The gradient of a convolution's input: a launch of `shrink`, which makes all of dshrunk, since each pixel wants its neighbours'
//! too, and one of `linear`, whose segments are dy and dshrunk as each pixel of the input sees them under the taps.

use super::abi::Tapped;
use super::address::Address;
use super::layer::Wanted;
use super::linear::{LinearLaunch, variant};
use super::numbers::{Kind, Tile};
use super::params::word;
use super::scratch::ScratchLayout;
use super::taps::{self, check_taps, tap_bytes, window_of};
use super::{Building, Refusal, reason};
use crate::Access;
use crate::product::{Border, Multiplier, Transposed};

impl Building<'_> {
    /// Adds the launches; bytes of workspace.
    pub(super) fn transposed(
        &mut self,
        tile: Tile,
        aligned: bool,
        of: &Transposed,
    ) -> Result<usize, Refusal> {
        let Some(window) = window_of(&of.dy)? else {
            return Err(reason("a convolution without a window".to_owned()));
        };
        let (dy, w) = (Address::of_load(&of.dy)?, Address::of_load(&of.w)?);
        // A tap of w and of a is as many columns as x has channels.
        let (k_major, size) = (of.w.k_major, self.size());
        let tap = |of_factor: &Address| tap_bytes(of_factor, !k_major, of.columns, size);
        let border = of.shrink.as_ref().and_then(|shrink| Some((shrink, shrink.border?)));
        if aligned {
            dy.check_aligned()?;
            w.check_aligned()?;
            check_taps(tap(&w), "w")?;
            if let Some(kept) = border.and_then(|(_, border)| border.shrunk.kept) {
                Address::of_store(&kept)?.check_aligned()?;
            }
        }
        let adapter = border.as_ref().map(|(_, border)| border);
        let variant = variant(Kind::Plain, tile, self.activation, adapter, k_major, aligned, true)?;
        let mut block = taps::block(&window, of.rows)?;
        block.border_taps = word(of.taps);
        let mut scratch = ScratchLayout::new(false);
        let mut segments = vec![(dy, w, of.depth)];
        let (rank, mut passed) = (of.rank(), 0);
        if let Some((shrink, border)) = border {
            let border = Border { up: of.a, ..border };
            let wanted = Wanted { aligned: dy.aligned, k_major, carried: None, gathers: false };
            let sizes = [shrink.rows, of.depth, of.taps.saturating_mul(of.columns)];
            let adapter = self.adapter(sizes, &border, wanted, true, &mut scratch)?;
            self.shrink(dy.aligned, shrink, &border, dy, &adapter)?;
            let Some(up) = adapter.up else { return Err(reason("a layer without a".to_owned())) };
            if aligned {
                check_taps(tap(&up.high), "a")?;
            }
            segments.push((adapter.shrunk, up.high, rank));
            segments.extend(up.low.map(|low| (adapter.shrunk, low, rank)));
            if border.shrunk.precise {
                let low = adapter.shrunk.later(border.shrunk.padded_rank);
                segments.push((low, up.high, rank));
            }
            let factors = rank.saturating_mul(sizes[2]).saturating_mul(segments.len() - 1);
            passed = shrink.rows.saturating_mul(border.shrunk.row()).saturating_add(factors);
        }
        for (to, (_, factor, _)) in block.operands.iter_mut().zip(&segments) {
            *to = Tapped { tap: tap(factor), taps: word(of.taps), reserved: 0 };
        }
        let (ups, out) = (segments.len() - 1, of.finish.out.spec);
        let sums = of.taps.saturating_mul(of.depth + ups * rank);
        let flops = of.rows.saturating_mul(of.columns).saturating_mul(sums);
        self.flops = self.flops.saturating_add((flops as u64).saturating_mul(2));
        let written = out.bytes() * if out.access == Access::Update { 2 } else { 1 };
        let read = of.dy.spec.bytes().saturating_add(of.w.spec.bytes());
        let bytes = read
            .saturating_add(written)
            .saturating_add((passed as u64).saturating_mul(size as u64));
        self.linear(LinearLaunch {
            variant,
            params: self.params(),
            segments: &segments,
            window: Some(block),
            rows: of.rows,
            columns: of.columns,
            stored_columns: of.columns,
            rank,
            shrunk: border.map(|(_, border)| border.shrunk),
            main_steps: of.taps.saturating_mul(of.depth.div_ceil(variant.depth)),
            border_steps: of.taps.saturating_mul(ups * rank.div_ceil(variant.depth)),
            y: Address::of_store(&of.finish.out)?,
            y_dtype: out.dtype,
            finish: Some(&of.finish),
            factor: Multiplier::One,
            carried: 0,
            bytes,
        })?;
        Ok(scratch.finish())
    }
}

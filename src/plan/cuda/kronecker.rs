//! LoKr with a whole w2, without forming w + s·w1 ⊗ w2: the layer as two products and what mixes them, and the gradients
//! of w1 and w2. What is between lies in the workspace in f32, or in two 16-bit parts, so that y is rounded once.
//!
//! ```text
//! layer   h[(m,j),p] = Σ over e of x[m,(j,e)]·w2[p,e]     base = x·wᵀ     y = gain∘(base + s·Σ over j of w1[i,j]·h) + …
//! dw1     u[(m,i),e] = Σ over p of dy[m,(i,p)]·w2[p,e]    dw1[i,j] = s·Σ over m, e of u·x
//! dw2     v[(m,j),p] = s·Σ over i of w1[i,j]·dy[m,(i,p)]  dw2 = vᵀ·x over all (m,j)
//! ```
//!
//! On images whose channels lie last x is gathered, and so are its blocks (`blocks`): e is (t,e), and row (m,j) of x is block j
//! of what token m sees under each tap t. A gradient of the input is the same with dy for x and both factors transposed. dw1
//! takes forward's h instead of u, so that no sum runs over the taps twice: `dw1[i,j] = s·Σ over m, p of dy[m,(i,p)]·h[(m,j),p]`.

use super::address::Address;
use super::blocks::{Blocks, InF32, Wide, all};
use super::contract::{Strided, Sum, steps_of};
use super::gradient::{Gradients, One};
use super::linear::variant;
use super::numbers::{Kind, Tile};
use super::params::word;
use super::scratch::ScratchLayout;
use super::taps::{check_taps, tap_bytes, window_of};
use super::{Building, Refusal, reason};
use crate::DType;
use crate::product::{
    Bordered, FactorGradient, Finish, INDICES, KroneckerGradients, Load, Multiplier, Old, Summand,
    Transposed,
};

/// Sums of dw1 that a multiprocessor should have at once: a warp each.
const WARPS: usize = 16;
/// Tokens below which a part of dw1 is not worth its own sums.
const SPAN: usize = 16;

/// A layer with what is added to its w, forward or on the way back.
struct Layer<'a> {
    /// x, or dy.
    left: &'a Load,
    rows: usize,
    columns: usize,
    w: &'a Load,
    summand: &'a Summand,
    finish: &'a Finish,
    /// It is the way back of images: rows of w and w2 count the taps, not the sums.
    transposed: bool,
}

/// One side of the sums of dw1, over tokens and then along `terms`.
struct Side {
    at: Strided<INDICES>,
    /// Elements from one token to the next, and bytes that are read of each.
    token: usize,
    bytes: usize,
}

impl Building<'_> {
    /// The layer's launches; bytes of workspace.
    pub(super) fn mixed(
        &mut self,
        tile: Tile,
        aligned: bool,
        of: &Bordered,
    ) -> Result<usize, Refusal> {
        let (Some(body), Some(summand)) = (&of.body, of.summand()) else {
            return Err(reason("nothing is added to w".to_owned()));
        };
        let layer = Layer {
            left: &of.left,
            rows: of.rows,
            columns: body.columns,
            w: &body.right,
            summand: &summand,
            finish: &body.finish,
            transposed: false,
        };
        self.mixed_layer(tile, aligned, &layer)
    }

    /// The same of the gradient of a convolution's input.
    pub(super) fn mixed_transposed(
        &mut self,
        tile: Tile,
        aligned: bool,
        of: &Transposed,
    ) -> Result<usize, Refusal> {
        let Some(summand) = &of.summand else {
            return Err(reason("nothing is added to w".to_owned()));
        };
        let layer = Layer {
            left: &of.dy,
            rows: of.rows,
            columns: of.columns,
            w: &of.w,
            summand,
            finish: &of.finish,
            transposed: true,
        };
        self.mixed_layer(tile, aligned, &layer)
    }

    fn mixed_layer(&mut self, tile: Tile, aligned: bool, of: &Layer<'_>) -> Result<usize, Refusal> {
        let Layer { left, rows, columns, w, summand, finish, transposed } = *of;
        let Summand { w1, w2, .. } = summand;
        let ([outer, blocks], [inner, width]) = (w1.shape(), w2.shape());
        let [of_rows, of_depth] = summand.taps_along();
        let [inner, width] = [inner / of_rows, width / of_depth];
        let window = window_of(left)?;
        let (x, at) = (Address::of_load(left)?, Address::of_load(w)?);
        // Of each tap.
        let depth = blocks.saturating_mul(width);
        let (k_major, size) = (w.k_major, self.size());
        let tap =
            tap_bytes(&at, k_major != transposed, if transposed { columns } else { depth }, size);
        if aligned {
            x.check_aligned()?;
            at.check_aligned()?;
            if window.is_some() {
                check_taps(tap, "w")?;
            }
        }
        let gathers = window.is_some();
        let variant = variant(Kind::Plain, tile, self.activation, None, k_major, aligned, gathers)?;
        let mut scratch = ScratchLayout::new(false);
        let view = self.blocks_of(left, window, [rows, blocks, width], &mut scratch)?;
        let small = match tile {
            Tile::Large => Tile::Large,
            // The one tile that gathers.
            _ if gathers && self.activation != DType::F32 => Tile::Medium,
            _ => Tile::Small,
        };
        let h = self.times(small, &view, w2, [inner, width], transposed, &mut scratch)?;
        let base = InF32 {
            variant,
            segments: &[(x, at, depth)],
            window: window.map(|of| (of, tap)),
            rows,
            columns,
            read: left.spec.bytes().saturating_add(w.spec.bytes()),
        };
        let base = self.in_f32(&base, &mut scratch)?;
        self.mix(rows, columns, finish, w1, [outer, inner, blocks], base, (h, &view))?;
        Ok(scratch.finish())
    }

    /// y of the two products.
    #[expect(clippy::too_many_arguments, reason = "sizes and operands of one sum")]
    fn mix(
        &mut self,
        rows: usize,
        columns: usize,
        finish: &Finish,
        w1: &Load,
        [outer, inner, blocks]: [usize; 3],
        base: Wide,
        (h, view): (Wide, &Blocks),
    ) -> Result<(), Refusal> {
        let [w1_row, w1_col] = steps_of(w1);
        let out = finish.out.spec;
        let wide = all([4, rows, columns]).saturating_add(all([4, rows, blocks, inner]));
        let [token, block] = [view.token, view.block].map(|of| of.saturating_mul(h.pitch));
        self.sum(&Sum {
            sizes: [1, rows, 1, outer, inner, 1, blocks],
            left: Some(Strided::of_operand(w1, [0, 0, 0, w1_row, 0, 0, w1_col])),
            right: Some(h.strided([0, token, 0, 0, 1, 0, block])),
            diagonal: false,
            factor: Multiplier::Scale,
            addend: Some(base.strided([base.pitch, 1])),
            gain: finish.gain.as_ref(),
            bias: finish.bias.as_ref(),
            old: finish.old,
            out: Strided {
                operand: Some(finish.out.operand),
                offset: 0,
                dtype: out.dtype,
                steps: [out.stride, 1],
            },
            low_offset: 0,
            shares: false,
            bytes: wide.saturating_add(w1.spec.bytes()).saturating_add(out.bytes()),
        })
    }

    /// dw1 and dw2, those that are asked for; bytes of workspace.
    pub(super) fn kronecker(&mut self, of: &KroneckerGradients) -> Result<usize, Refusal> {
        let mut scratch = ScratchLayout::new(of.of_w2.is_some() && of.tokens > 0);
        if of.tokens == 0 {
            let sums = [of.sum_of_parts(0), of.nothing_of_w2()];
            sums.iter().flatten().try_for_each(|sum| self.contract_at(sum, 0))?;
            return Ok(scratch.finish());
        }
        window_of(&of.dy)?;
        let window = window_of(&of.x)?;
        let ([_, columns], [_, d]) = (of.outer, of.inner);
        // Met by dw2, and by a dw1 of images.
        let x = match of.of_w2.is_some() || window.is_some() {
            true => {
                let sizes = [of.tokens, columns, d / of.taps];
                Some(self.blocks_of(&of.x, window, sizes, &mut scratch)?)
            }
            false => None,
        };
        if let Some(gradient) = &of.of_w1 {
            let seen = x.as_ref().filter(|_| window.is_some());
            self.of_w1(of, gradient, seen, &mut scratch)?;
        }
        if let (Some(gradient), Some(x)) = (&of.of_w2, &x) {
            self.of_w2(of, gradient, x, &mut scratch)?;
        }
        Ok(scratch.finish())
    }

    /// `seen`: x's blocks, where they are gathered.
    fn of_w1(
        &mut self,
        of: &KroneckerGradients,
        gradient: &FactorGradient,
        seen: Option<&Blocks>,
        scratch: &mut ScratchLayout,
    ) -> Result<(), Refusal> {
        let ([rows, columns], [c, d], tokens) = (of.outer, of.inner, of.tokens);
        let (size, other) = (self.size(), &gradient.other);
        let (left, right, terms) = match seen {
            None => {
                let dy = self.blocks_of(&of.dy, None, [tokens, rows, c], scratch)?;
                // The sum runs over the rows of w2.
                let w2 = Load { k_major: !other.k_major, ..*other };
                let u = self.times(Tile::Small, &dy, &w2, [d, c], false, scratch)?;
                let (token, stride) = (rows * u.pitch, of.x.spec.stride);
                let left = u.strided([0, u.pitch, 0, 0, 0, token, 1]);
                let right = Strided::of_operand(&of.x, [0, 0, 0, 0, d, stride, 1]);
                let right = Side { at: right, token: stride, bytes: columns * d * size };
                (Side { at: left, token, bytes: 4 * token }, right, d)
            }
            Some(x) => {
                let tile = if self.activation == DType::F32 { Tile::Small } else { Tile::Medium };
                let h = self.times(tile, x, other, [c, d / of.taps], false, scratch)?;
                let [token, block] = [x.token, x.block].map(|of| of.saturating_mul(h.pitch));
                let stride = of.dy.spec.stride;
                let left = Strided::of_operand(&of.dy, [0, c, 0, 0, 0, stride, 1]);
                let right = h.strided([0, 0, 0, 0, block, token, 1]);
                let right = Side { at: right, token, bytes: 4 * columns * h.pitch };
                (Side { at: left, token: stride, bytes: rows * c * size }, right, c)
            }
        };

        // Tokens in equal parts, and one of those that are left.
        let sums = (rows * columns).max(1);
        let most = (self.multiprocessors() * WARPS).div_ceil(sums).min(tokens.div_ceil(SPAN));
        let span = tokens.div_ceil(most.max(1));
        let (whole, rest) = (tokens / span, tokens % span);
        let parts = whole + usize::from(rest > 0);
        let at = scratch.take(parts.saturating_mul(sums).saturating_mul(4));
        let out = Strided::in_scratch(at, DType::F32, [columns, 1]);
        let ragged = (whole, usize::from(rest > 0), rest);
        for (first, parts, of_part) in [(0, whole, span), ragged] {
            if parts == 0 {
                continue;
            }
            let from = |side: &Side| {
                let mut at = side.at.later((first * span).saturating_mul(side.token));
                at.steps[0] = span.saturating_mul(side.token);
                at
            };
            let read = |side: &Side| all([parts, of_part, side.bytes]);
            self.sum(&Sum {
                sizes: [parts, rows, 1, 1, columns, of_part, terms],
                left: Some(from(&left)),
                right: Some(from(&right)),
                diagonal: false,
                factor: Multiplier::One,
                addend: None,
                gain: None,
                bias: None,
                old: Old::Replaced,
                out: out.later(first * sums),
                low_offset: 0,
                shares: true,
                bytes: read(&left).saturating_add(read(&right)),
            })?;
        }
        of.sum_of_parts(parts).map_or(Ok(()), |sum| self.contract_at(&sum, at))
    }

    fn of_w2(
        &mut self,
        of: &KroneckerGradients,
        gradient: &FactorGradient,
        x: &Blocks,
        scratch: &mut ScratchLayout,
    ) -> Result<(), Refusal> {
        let ([rows, columns], [c, d], tokens) = (of.outer, of.inner, of.tokens);
        let (size, dtype) = (self.size(), self.activation);
        // High and low, as a precise shrunk has them.
        let parts = if dtype == DType::F32 { 1 } else { 2 };
        let padded = c.next_multiple_of(8);
        let bytes = x.rows.saturating_mul(parts * padded).saturating_mul(size);
        let offset = scratch.take(bytes);
        let ([w1_row, w1_col], stride) = (steps_of(&gradient.other), of.dy.spec.stride);
        // v has the rows of x.
        let in_order = |of_token, of_block| match x.block {
            1 => [of_token, of_block],
            _ => [of_block, of_token],
        };
        let [x1, x2] = in_order(tokens, columns);
        let [left, right] = [in_order(0, w1_col), in_order(stride, 0)];
        let left: [usize; INDICES] = [left[0], left[1], 0, 0, 0, 0, w1_row];
        self.sum(&Sum {
            sizes: [x1, x2, 1, 1, c, 1, rows],
            left: Some(Strided::of_operand(&gradient.other, left)),
            right: Some(Strided::of_operand(&of.dy, [right[0], right[1], 0, 0, 1, 0, c])),
            diagonal: false,
            factor: of.factor,
            addend: None,
            gain: None,
            bias: None,
            old: Old::Replaced,
            out: Strided::in_scratch(offset, dtype, [parts * padded, 1]),
            low_offset: ((parts - 1) * padded * size) as u64,
            shares: false,
            bytes: of.dy.spec.bytes().saturating_add(bytes as u64),
        })?;
        let v = Address::in_scratch(offset, word((parts * padded).saturating_mul(size)));
        let (taps, columns) = x.window.map_or((0, d), |of| (of.taps(), of.channels));
        let one = One { left: v, right: x.address, columns, taps, out: gradient.out };
        let read = of.x.spec.bytes().saturating_add(bytes as u64);
        self.gradients(
            &Gradients {
                tokens: x.rows,
                rank: c,
                padded_rank: padded,
                parts,
                old: gradient.old,
                products: vec![one],
                window: x.window,
                flops: all([2, x.rows, c, d]),
                bytes: read.saturating_add(gradient.out.spec.bytes()),
            },
            scratch,
        )
    }
}

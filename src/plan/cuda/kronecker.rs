//! LoKr with a whole w2, without forming w + s·w1 ⊗ w2: the layer as two products and what mixes them, and the gradients
//! of w1 and w2. What is between lies in the workspace in f32, or in two 16-bit parts, so that y is rounded once.
//!
//! ```text
//! layer   h[(m,j),p] = Σ over e of x[m,(j,e)]·w2[p,e]     base = x·wᵀ     y = gain∘(base + s·Σ over j of w1[i,j]·h) + …
//! dw1     u[(m,i),e] = Σ over p of dy[m,(i,p)]·w2[p,e]    dw1[i,j] = s·Σ over m, e of u·x
//! dw2     v[(m,j),p] = s·Σ over i of w1[i,j]·dy[m,(i,p)]  dw2 = vᵀ·x over all (m,j)
//! ```

use super::address::{Address, VECTOR};
use super::contract::{Strided, Sum, steps_of};
use super::factor::Factor;
use super::gradient::{Gradients, One};
use super::linear::{LinearLaunch, variant};
use super::numbers::{Kind, Tile};
use super::params::word;
use super::scratch::ScratchLayout;
use super::{Building, Refusal, reason};
use crate::DType;
use crate::product::{
    Body, Bordered, FactorGradient, INDICES, KroneckerGradients, Load, Multiplier, Old, Summand,
};

/// Sums of dw1 that a multiprocessor should have at once: a warp each.
const WARPS: usize = 16;
/// Tokens below which a part of dw1 is not worth its own sums.
const SPAN: usize = 16;

/// A matrix in f32 in the workspace.
#[derive(Debug, Clone, Copy)]
struct Wide {
    offset: u64,
    /// Elements from row to row.
    pitch: usize,
}

impl Wide {
    fn take(rows: usize, columns: usize, scratch: &mut ScratchLayout) -> Wide {
        let pitch = columns.next_multiple_of(VECTOR / 4);
        let bytes = rows.saturating_mul(pitch).saturating_mul(4);
        Wide { offset: scratch.take(bytes), pitch }
    }

    fn address(&self) -> Address {
        Address::in_scratch(self.offset, word(self.pitch.saturating_mul(4)))
    }

    fn strided<const N: usize>(&self, steps: [usize; N]) -> Strided<N> {
        Strided::in_scratch(self.offset, DType::F32, steps)
    }
}

/// The product of sizes.
fn all<const N: usize>(sizes: [usize; N]) -> u64 {
    sizes.into_iter().fold(1, |all, of| all.saturating_mul(of as u64))
}

impl Building<'_> {
    fn multiplied<const N: usize>(&mut self, sizes: [usize; N]) {
        self.flops = self.flops.saturating_add(all(sizes).saturating_mul(2));
    }

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
        let Summand { w1, w2, .. } = &summand;
        let ([outer, blocks], [inner, width]) = (w1.shape(), w2.shape());
        let (x, w) = (Address::of_load(&of.left)?, Address::of_load(&body.right)?);
        if aligned {
            x.check_aligned()?;
            w.check_aligned()?;
        }
        let mut scratch = ScratchLayout::new(false);
        let rows = of.rows.saturating_mul(blocks);
        let view = self.blocks_of(&of.left, [of.rows, blocks, width], &mut scratch)?;
        let small = if tile == Tile::Large { Tile::Large } else { Tile::Small };
        let h = self.times(small, view, rows, w2, [inner, width], &mut scratch)?;

        let base = Wide::take(of.rows, body.columns, &mut scratch);
        let k_major = body.right.k_major;
        let variant = variant(Kind::Plain, tile, self.activation, None, k_major, aligned, false)?;
        self.multiplied([of.rows, of.depth, body.columns]);
        let wide = all([4, of.rows, body.columns]);
        let read = of.left.spec.bytes().saturating_add(body.right.spec.bytes());
        self.linear(LinearLaunch {
            variant,
            params: self.params(),
            segments: &[(x, w, of.depth)],
            window: None,
            rows: of.rows,
            columns: body.columns,
            stored_columns: body.columns,
            rank: 0,
            shrunk: None,
            main_steps: of.depth.div_ceil(variant.depth),
            border_steps: 0,
            y: base.address(),
            y_dtype: DType::F32,
            finish: None,
            factor: Multiplier::One,
            carried: 0,
            bytes: read.saturating_add(wide),
        })?;
        self.mix(of.rows, body, w1, [outer, inner, blocks], base, h)?;
        Ok(scratch.finish())
    }

    /// y of the two products.
    fn mix(
        &mut self,
        rows: usize,
        body: &Body,
        w1: &Load,
        [outer, inner, blocks]: [usize; 3],
        base: Wide,
        h: Wide,
    ) -> Result<(), Refusal> {
        let ([w1_row, w1_col], finish) = (steps_of(w1), &body.finish);
        let out = finish.out.spec;
        let wide = all([4, rows, body.columns]).saturating_add(all([4, rows, blocks, inner]));
        self.sum(&Sum {
            sizes: [1, rows, 1, outer, inner, 1, blocks],
            left: Some(Strided::of_operand(w1, [0, 0, 0, w1_row, 0, 0, w1_col])),
            right: Some(h.strided([0, blocks * h.pitch, 0, 0, 1, 0, h.pitch])),
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

    /// A matrix whose columns are `blocks` of `width`, each block of a row a row of its own: where it lies, or copied
    /// where rows do not follow each other or may not be loaded 16 bytes at a time.
    fn blocks_of(
        &mut self,
        load: &Load,
        [rows, blocks, width]: [usize; 3],
        scratch: &mut ScratchLayout,
    ) -> Result<Address, Refusal> {
        let (there, size) = (Address::of_load(load)?, self.size());
        let follow = load.spec.stride == blocks * width || rows <= 1;
        if follow && there.aligned && (width * size).is_multiple_of(VECTOR) {
            return Ok(Address { stride: word(width * size), ..there });
        }
        let pitch = width.next_multiple_of(VECTOR / size);
        let bytes = rows.saturating_mul(blocks).saturating_mul(pitch).saturating_mul(size);
        let offset = scratch.take(bytes);
        let from = Strided::of_operand(load, [load.spec.stride, width, 0, 0, 1, 0, 0]);
        let to = Strided::in_scratch(offset, self.activation, [pitch, 1]);
        self.sum(&Sum::copy(from, to, [rows, blocks, 1, width]))?;
        Ok(Address::in_scratch(offset, word(pitch.saturating_mul(size))))
    }

    /// `x·fᵀ` of a factor `[columns, depth]`, in f32; one of another type than the activations' comes in two parts.
    fn times(
        &mut self,
        tile: Tile,
        x: Address,
        rows: usize,
        factor: &Load,
        [columns, depth]: [usize; 2],
        scratch: &mut ScratchLayout,
    ) -> Result<Wide, Refusal> {
        let mut jobs = Vec::new();
        let k_major = factor.k_major;
        let factor = Factor::new(factor, [columns, depth], self.activation)?;
        let factor = factor.place(k_major, true, None, scratch, &mut jobs);
        self.pack(&jobs)?;
        let variant = variant(Kind::Plain, tile, self.activation, None, k_major, true, false)?;
        let mut segments = vec![(x, factor.high, depth)];
        segments.extend(factor.low.map(|low| (x, low, depth)));
        let parts = segments.len();
        let out = Wide::take(rows, columns, scratch);
        self.multiplied([rows, depth, columns, parts]);
        let size = self.size();
        let read =
            all([size, rows, depth, parts]).saturating_add(all([size, columns, depth, parts]));
        self.linear(LinearLaunch {
            variant,
            params: self.params(),
            segments: &segments,
            window: None,
            rows,
            columns,
            stored_columns: columns,
            rank: 0,
            shrunk: None,
            main_steps: parts * depth.div_ceil(variant.depth),
            border_steps: 0,
            y: out.address(),
            y_dtype: DType::F32,
            finish: None,
            factor: Multiplier::One,
            carried: 0,
            bytes: read.saturating_add(all([4, rows, columns])),
        })?;
        Ok(out)
    }

    /// dw1 and dw2, those that are asked for; bytes of workspace.
    pub(super) fn kronecker(&mut self, of: &KroneckerGradients) -> Result<usize, Refusal> {
        let mut scratch = ScratchLayout::new(of.of_w2.is_some() && of.tokens > 0);
        if let Some(gradient) = &of.of_w1 {
            self.of_w1(of, gradient, &mut scratch)?;
        }
        if let Some(gradient) = &of.of_w2 {
            self.of_w2(of, gradient, &mut scratch)?;
        }
        Ok(scratch.finish())
    }

    fn of_w1(
        &mut self,
        of: &KroneckerGradients,
        gradient: &FactorGradient,
        scratch: &mut ScratchLayout,
    ) -> Result<(), Refusal> {
        let ([rows, columns], [c, d], tokens) = (of.outer, of.inner, of.tokens);
        if tokens == 0 {
            return of.sum_of_parts(0).map_or(Ok(()), |sum| self.contract_at(&sum, 0));
        }
        let dy = self.blocks_of(&of.dy, [tokens, rows, c], scratch)?;
        // The sum runs over the rows of w2.
        let other = &gradient.other;
        let w2 = Load { k_major: !other.k_major, ..*other };
        let u = self.times(Tile::Small, dy, tokens.saturating_mul(rows), &w2, [d, c], scratch)?;

        // Tokens in equal parts, and one of those that are left.
        let sums = (rows * columns).max(1);
        let most = (self.multiprocessors() * WARPS).div_ceil(sums).min(tokens.div_ceil(SPAN));
        let span = tokens.div_ceil(most.max(1));
        let (whole, rest) = (tokens / span, tokens % span);
        let parts = whole + usize::from(rest > 0);
        let at = scratch.take(parts.saturating_mul(sums).saturating_mul(4));
        let token = rows * u.pitch;
        let left = u.strided([span * token, u.pitch, 0, 0, 0, token, 1]);
        let stride = of.x.spec.stride;
        let right = Strided::of_operand(&of.x, [span * stride, 0, 0, 0, d, stride, 1]);
        let out = Strided::in_scratch(at, DType::F32, [columns, 1]);
        let ragged = (whole, usize::from(rest > 0), rest);
        for (first, parts, of_part) in [(0, whole, span), ragged] {
            if parts == 0 {
                continue;
            }
            let tokens = first * span;
            let of_x = all([parts, of_part, self.size(), columns, d]);
            let read = all([parts, of_part, 4, token]).saturating_add(of_x);
            self.sum(&Sum {
                sizes: [parts, rows, 1, 1, columns, of_part, d],
                left: Some(left.later(tokens * token)),
                right: Some(right.later(tokens * stride)),
                diagonal: false,
                factor: Multiplier::One,
                addend: None,
                gain: None,
                bias: None,
                old: Old::Replaced,
                out: out.later(first * sums),
                low_offset: 0,
                shares: true,
                bytes: read,
            })?;
        }
        of.sum_of_parts(parts).map_or(Ok(()), |sum| self.contract_at(&sum, at))
    }

    fn of_w2(
        &mut self,
        of: &KroneckerGradients,
        gradient: &FactorGradient,
        scratch: &mut ScratchLayout,
    ) -> Result<(), Refusal> {
        let ([rows, columns], [c, d], tokens) = (of.outer, of.inner, of.tokens);
        if tokens == 0 {
            return of.nothing_of_w2().map_or(Ok(()), |sum| self.contract_at(&sum, 0));
        }
        let (size, dtype) = (self.size(), self.activation);
        let x = self.blocks_of(&of.x, [tokens, columns, d], scratch)?;
        // High and low, as a precise shrunk has them.
        let parts = if dtype == DType::F32 { 1 } else { 2 };
        let padded = c.next_multiple_of(8);
        let rows_of_v = tokens.saturating_mul(columns);
        let bytes = rows_of_v.saturating_mul(parts * padded).saturating_mul(size);
        let offset = scratch.take(bytes);
        let ([w1_row, w1_col], stride) = (steps_of(&gradient.other), of.dy.spec.stride);
        let w1: [usize; INDICES] = [0, w1_col, 0, 0, 0, 0, w1_row];
        self.sum(&Sum {
            sizes: [tokens, columns, 1, 1, c, 1, rows],
            left: Some(Strided::of_operand(&gradient.other, w1)),
            right: Some(Strided::of_operand(&of.dy, [stride, 0, 0, 0, 1, 0, c])),
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
        let one = One { left: v, right: x, columns: d, taps: 0, out: gradient.out };
        let read = of.x.spec.bytes().saturating_add(bytes as u64);
        self.gradients(
            &Gradients {
                tokens: rows_of_v,
                rank: c,
                padded_rank: padded,
                parts,
                old: gradient.old,
                products: vec![one],
                window: None,
                flops: all([2, rows_of_v, c, d]),
                bytes: read.saturating_add(gradient.out.spec.bytes()),
            },
            scratch,
        )
    }
}

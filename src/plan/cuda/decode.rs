//! The launch of `decode`: how w's steps are split among the CTAs, the sum of shrunk among
//! tickets, and where partial sums lie. Called by `draft` for at most 16 tokens.

use core::mem::offset_of;

use super::abi::Decode;
use super::address::Address;
use super::factor::Factor;
use super::numbers::Kind;
use super::pack::Packed;
use super::params::{pointer, word};
use super::scratch::ScratchLayout;
use super::split::Split;
use super::variants::Variant;
use super::{Building, DECLARED, Refusal, check_sizes, reason, sm80};
use crate::product::{Body, Border, Bordered, Multiplier};
use crate::{Access, DType, Problem};

/// Bytes of `down` that a part of the sum should have: a ring of the adapter's warp.
const PART: usize = 8 << 10;
/// Bytes of all parts, which every CTA reads.
const PARTS: usize = 32 << 10;
/// Parts of the sum: a flag each.
const MOST_PARTS: usize = 32;
/// Elements of the sum of which a part is a multiple: a stage, whatever the rank.
const STAGE: usize = 64;

impl Building<'_> {
    /// The whole layer in one launch; bytes of workspace.
    pub(super) fn decode(&mut self, problem: &Problem, of: &Bordered) -> Result<usize, Refusal> {
        let Some(body) = &of.body else { return Err(reason("a layer without w".to_owned())) };
        let (tokens, depth, columns, rank) = (of.rows, of.depth, body.columns, of.rank());
        let (x, w) = (Address::of_load(&of.left)?, Address::of_load(&body.right)?);
        let (finish, shrunk) = (&body.finish, of.border.map(|border| border.shrunk));
        let y = Address::of_store(&finish.out)?;
        let kept = shrunk.and_then(|of| of.kept).map(|of| Address::of_store(&of)).transpose()?;
        for address in [Some(x), Some(w), kept].into_iter().flatten() {
            address.check_aligned()?;
        }
        let variant = self.decode_variant(of, body)?;
        let (strip, ring) = (variant.columns, variant.smem_bytes);
        // The adapter's warp has its own area and sums.
        let fixed = variant.aside_bytes;
        self.check_smem(ring + fixed)?;
        let room = self.cuda.shared_bytes as usize - fixed - DECLARED;
        let warps = (room / ring).min(variant.threads / 32 - 1);
        let (strips, steps) = (columns.div_ceil(strip), depth.div_ceil(variant.depth));
        check_sizes(&[strips.saturating_mul(steps), columns, depth], i32::MAX as usize / 4)?;
        let split = Split::new(strips, steps, self.multiprocessors(), warps);
        let partial = split.partial(steps);

        let mut scratch = ScratchLayout::new(rank > 0 || partial > 0);
        let adapter = match &of.border {
            None => None,
            Some(border) => Some(self.in_place_or_packed(of, body, border, &mut scratch)?),
        };
        let pitch = shrunk.map_or(0, |of| of.padded_rank);
        let is_precise = shrunk.is_some_and(|of| of.precise);
        let (span, shrinks) = of.border.map_or((0, 0), |border| spans(of, &border));
        let partial_bytes = shrinks * tokens * pitch * 4;
        let slot_bytes = partial * tokens * strip * 4;

        let mut params = self.params::<Decode>();
        params.bind_read(pointer!(Decode, x), &x);
        params.bind_read(pointer!(Decode, w), &w);
        params.bind(pointer!(Decode, y), y.operand, finish.out.spec.access);
        if let Some(gain) = &finish.gain {
            params.bind(pointer!(Decode, gain), Some(gain.operand), Access::Read);
        }
        if let Some(bias) = &finish.bias {
            params.bind(pointer!(Decode, bias), Some(bias.operand), Access::Read);
        }
        if scratch.is_used() {
            params.bind(pointer!(Decode, header), None, Access::Update);
        }
        if let Some([down, up]) = &adapter {
            let (down, up) = (down.high, up.high);
            params.bind_read(pointer!(Decode, down), &down);
            params.bind_read(pointer!(Decode, up), &up);
            (params.block.down_offset, params.block.down_stride) = (down.offset, down.stride);
            (params.block.up_offset, params.block.up_stride) = (up.offset, up.stride);
            params.block.partials = scratch.take(partial_bytes);
        }
        if partial > 0 {
            params.block.slots = scratch.take(split.ctas * 2 * 16 * strip * 4);
        }
        if let Some(kept) = kept {
            params.bind(pointer!(Decode, shrunk), kept.operand, Access::Write);
            params.block.shrunk_stride = kept.stride;
        }
        params.block = Decode {
            x_stride: x.stride,
            w_stride: w.stride,
            y_stride: y.stride,
            tokens: word(tokens),
            depth: word(depth),
            columns: word(columns),
            rank: word(rank),
            padded_rank: word(pitch),
            precise: is_precise.into(),
            scale: params.scale(offset_of!(Decode, scale), Multiplier::Scale, self.scalars),
            beta: params.beta(offset_of!(Decode, beta), finish.old, self.scalars),
            steps: word(steps),
            split: word(split.each),
            extra: word(split.extra),
            shrinks: word(shrinks),
            span: word(span),
            y_bytes: word(finish.out.spec.dtype.size()),
            ..params.block
        };

        // An f32 adapter is multiplied in two parts, a precise shrunk with one more.
        let again = usize::from(variant.adapter != variant.dtype);
        let border = again + usize::from(is_precise);
        self.flops +=
            problem.flops() + 2 * (tokens * rank * (depth * again + columns * border)) as u64;
        let bytes = problem.bytes() + (partial_bytes + slot_bytes) as u64;
        self.bytes += bytes;
        self.micros += sm80::decode(bytes, split.ctas, rank > 0, self.cuda);
        let (threads, smem) = (32 * (warps + 1), warps * ring + fixed);
        self.push_sized(variant, [split.ctas as u32, 1, 1], threads, smem, params);
        Ok(scratch.finish())
    }

    fn decode_variant(&self, of: &Bordered, body: &Body) -> Result<&'static Variant, Refusal> {
        let dtype = self.activation;
        // Without a rank any adapter does; f32 reads none but its own, or what is packed so.
        let adapter = match &of.border {
            Some(border) if dtype != DType::F32 => border.down.spec.dtype,
            _ => dtype,
        };
        let k_major = body.right.k_major;
        Variant::find(
            Kind::Decode,
            of.rank(),
            |of| (of.dtype, of.adapter, of.k_major) == (dtype, adapter, k_major),
            || format!("no text of `decode` for {adapter} beside {dtype}"),
        )
    }

    /// down and up where they lie, if the kernel's warp can read four elements at a time there,
    /// the way that w lies; else packed first.
    fn in_place_or_packed(
        &mut self,
        of: &Bordered,
        body: &Body,
        border: &Border,
        scratch: &mut ScratchLayout,
    ) -> Result<[Packed; 2], Refusal> {
        let Some(up) = &border.up else { return Err(reason("a layer without up".to_owned())) };
        let down = Factor::new(&border.down, [border.rank, of.depth], self.activation)?;
        let up = Factor::new(up, [body.columns, border.rank], self.activation)?;
        let k_major = body.right.k_major;
        let mut jobs = Vec::new();
        let mut load = |factor: &Factor| {
            // 16-bit activations have a text for an adapter in f32, f32 ones for no other.
            let read = !factor.converts() || factor.is_pair();
            if read && factor.load.k_major == k_major && factor.in_fours() {
                return Ok(Packed { high: factor.address, low: None });
            }
            if factor.is_pair() {
                let (operand, dtype) = (factor.load.operand, factor.load.spec.dtype);
                return Err(reason(format!(
                    "{operand}: {dtype} not the way w lies, or not in 16-byte multiples"
                )));
            }
            let (job, packed) = scratch.pack(factor, k_major);
            jobs.push((job, packed));
            Ok(packed)
        };
        let places = [load(&down)?, load(&up)?];
        self.pack(&jobs)?;
        Ok(places)
    }
}

/// Elements of a partial sum of shrunk, and how many of these there are.
fn spans(of: &Bordered, border: &Border) -> (usize, usize) {
    let pitch = border.shrunk.padded_rank;
    let few = PART / (pitch * border.down.spec.dtype.size());
    let most = (PARTS / (of.rows * pitch * 4)).clamp(1, MOST_PARTS);
    let parts = of.depth.div_ceil(few.max(STAGE)).clamp(1, most);
    let span = of.depth.div_ceil(parts).next_multiple_of(STAGE);
    (span, of.depth.div_ceil(span))
}

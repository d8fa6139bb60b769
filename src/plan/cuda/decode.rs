//! The launch of `decode`: how w's steps are split among the CTAs, the sum of shrunk among
//! tickets, and where partial sums lie. Called by `draft` for at most 16 tokens.

use super::abi::{COUNTERS, Decode};
use super::numbers::Kind;
use super::pack::Packed;
use super::params::{Params, pointer, word};
use super::roles::{Factor, Roles};
use super::scratch::ScratchLayout;
use super::variants::Variant;
use super::{Building, DECLARED, Refusal, model, reason};
use crate::{Access, DType};

/// A counter for each strip that several CTAs share.
const MOST_CTAS: usize = COUNTERS;
/// Bytes of `down` that a part of the sum should have: a ring of the adapter's warp.
const PART: usize = 8 << 10;
/// Bytes of all parts, which every CTA reads.
const PARTS: usize = 32 << 10;
/// Parts of the sum: a flag each.
const MOST_PARTS: usize = 32;
/// Elements of the sum of which a part is a multiple: a stage, whatever the rank.
const STAGE: usize = 64;

/// How the steps of all strips are split: each CTA has `each`, the first `extra` one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Split {
    ctas: usize,
    each: usize,
    extra: usize,
}

impl Split {
    /// Of `strips` of `steps`, among the CTAs that `multiprocessors` hold, one each, of `warps`
    /// that stream.
    fn new(strips: usize, steps: usize, multiprocessors: usize, warps: usize) -> Split {
        let total = strips * steps;
        let ctas = match strips >= multiprocessors {
            true => multiprocessors,
            false => {
                // Whole strips, or the same parts of each, where that fills the machine.
                let parts = (multiprocessors / strips).min(steps.div_ceil(warps)).max(1);
                let even = strips * parts;
                let full = 8 * even >= 7 * multiprocessors;
                let short = total < 2 * warps * multiprocessors;
                if full || short { even } else { multiprocessors }
            }
        };
        let ctas = ctas.clamp(1, MOST_CTAS);
        Split { ctas, each: total / ctas, extra: total % ctas }
    }

    fn start(&self, cta: usize) -> usize {
        cta * self.each + cta.min(self.extra)
    }

    /// Parts of strips that are less than the strip: each leaves its sums in a slot.
    fn partial(&self, steps: usize) -> usize {
        let of = |cta: usize| {
            let (first, last) = (self.start(cta), self.start(cta + 1));
            let begun = first % steps != 0;
            let open = last % steps != 0;
            // Begun before and left open may be one strip.
            match first / steps == last / steps {
                true => usize::from(begun || open),
                false => usize::from(begun) + usize::from(open),
            }
        };
        (0..self.ctas).map(of).sum()
    }
}

impl Building<'_> {
    /// The whole layer in one launch; bytes of workspace.
    pub(super) fn decode(&mut self, roles: &Roles) -> Result<usize, Refusal> {
        let (problem, cuda) = (self.problem, self.cuda);
        let (tokens, rank) = (problem.tokens(), problem.rank());
        let (depth, columns) = (roles.depth, roles.columns);
        if let Some(what) = roles.unaligned() {
            return Err(reason(format!(
                "{what}: not rows of 16-byte multiples at 16-byte addresses"
            )));
        }
        let (Some(w), Some(y)) = (roles.w, roles.y) else {
            return Err(reason("decode without w or y".to_owned()));
        };
        let variant = self.decode_variant(roles.w_k_major)?;
        let (strip, ring) = (variant.columns, variant.smem_bytes);
        // The adapter's warp has its own area and sums.
        let fixed = variant.aside_bytes;
        let room = (cuda.shared_bytes as usize).saturating_sub(fixed + DECLARED);
        let warps = (room / ring).min(variant.threads / 32 - 1);
        if warps == 0 {
            let (takes, grants) = (ring + fixed + DECLARED, cuda.shared_bytes);
            return Err(reason(format!(
                "{takes} bytes of shared memory, the device grants {grants}"
            )));
        }
        let (strips, steps) = (columns.div_ceil(strip), depth.div_ceil(variant.depth));
        let sizes = [strips.saturating_mul(steps), columns, depth];
        if let Some(size) = sizes.into_iter().find(|size| *size > i32::MAX as usize / 4) {
            return Err(reason(format!("a size of {size} leaves the kernel's 32-bit counts")));
        }
        let split = Split::new(strips, steps, cuda.multiprocessors.max(1) as usize, warps);
        let partial = split.partial(steps);

        let mut scratch = ScratchLayout::new(rank > 0 || partial > 0);
        let adapter = self.in_place_or_packed(roles, &mut scratch)?;
        let pitch = problem.shrunk_part();
        let (span, shrinks) = self.spans(depth, pitch);
        let partial_bytes = shrinks * tokens * pitch * 4;
        let slot_bytes = partial * tokens * strip * 4;

        let mut params = Params::<Decode>::default();
        params.bind(pointer!(Decode, x), roles.x.operand, Access::Read);
        params.bind(pointer!(Decode, w), w.operand, Access::Read);
        let access = if problem.beta() == 0.0 { Access::Write } else { Access::Update };
        params.bind(pointer!(Decode, y), y.operand, access);
        if let Some(bias) = roles.bias {
            params.bind(pointer!(Decode, bias), Some(bias), Access::Read);
        }
        if scratch.is_used() {
            params.bind(pointer!(Decode, header), None, Access::Update);
        }
        if let Some([down, up]) = &adapter {
            let (down, up) = (down.high, up.high);
            params.bind(pointer!(Decode, down), down.operand, Access::Read);
            params.bind(pointer!(Decode, up), up.operand, Access::Read);
            (params.block.down_offset, params.block.down_stride) = (down.offset, down.stride);
            (params.block.up_offset, params.block.up_stride) = (up.offset, up.stride);
            params.block.partials = scratch.take(partial_bytes);
        }
        if partial > 0 {
            params.block.slots = scratch.take(split.ctas * 2 * 16 * strip * 4);
        }
        if let Some(kept) = roles.kept {
            params.bind(pointer!(Decode, shrunk), kept.operand, Access::Write);
            params.block.shrunk_stride = kept.stride;
        }
        params.block = Decode {
            x_stride: roles.x.stride,
            w_stride: w.stride,
            y_stride: y.stride,
            tokens: word(tokens),
            depth: word(depth),
            columns: word(columns),
            rank: word(rank),
            padded_rank: word(pitch),
            precise: problem.is_precise().into(),
            scale: problem.scale(),
            beta: problem.beta(),
            steps: word(steps),
            split: word(split.each),
            extra: word(split.extra),
            shrinks: word(shrinks),
            span: word(span),
            y_bytes: word(problem.output().size()),
            ..params.block
        };

        // An f32 adapter is multiplied in two parts, a precise shrunk with one more.
        let again = usize::from(variant.adapter != variant.dtype);
        let border = again + usize::from(problem.is_precise());
        self.flops +=
            problem.flops() + 2 * (tokens * rank * (depth * again + columns * border)) as u64;
        let bytes = problem.bytes() + (partial_bytes + slot_bytes) as u64;
        self.bytes += bytes;
        self.micros += model::decode(bytes, split.ctas, rank > 0, cuda);
        let (threads, smem) = (32 * (warps + 1), warps * ring + fixed);
        self.push_sized(variant, [split.ctas as u32, 1, 1], threads, smem, params);
        Ok(scratch.finish())
    }

    fn decode_variant(&self, k_major: bool) -> Result<&'static Variant, Refusal> {
        let problem = self.problem;
        let dtype = problem.activation();
        // Without a rank any adapter does.
        let adapter = match (problem.rank(), dtype) {
            (0, _) | (_, DType::F32) => dtype,
            _ => problem.adapter(),
        };
        Variant::find(
            Kind::Decode,
            problem.rank(),
            |of| (of.dtype, of.adapter, of.k_major) == (dtype, adapter, k_major),
            || format!("no text of `decode` for {adapter} beside {dtype}"),
        )
    }

    /// The adapter where it lies, if the kernel's warp can read four elements at a time there,
    /// the way that w lies; else packed first.
    fn in_place_or_packed(
        &mut self,
        roles: &Roles,
        scratch: &mut ScratchLayout,
    ) -> Result<Option<[Packed; 2]>, Refusal> {
        let (Some(down), Some(up)) = (&roles.down, &roles.up) else { return Ok(None) };
        let mut jobs = Vec::new();
        let adapter = self.problem.adapter();
        let mut load = |factor: &Factor| {
            // 16-bit activations have a text for an adapter in f32, f32 ones for no other.
            let read = !factor.converts || factor.is_pair();
            if read && factor.k_major == roles.w_k_major && factor.in_fours(adapter) {
                return Ok(Packed { high: factor.place, low: None });
            }
            if factor.is_pair() {
                let operand = factor.operand;
                return Err(reason(format!(
                    "{operand}: {adapter} not the way w lies, or not in 16-byte multiples"
                )));
            }
            let (job, packed) = scratch.pack(factor, roles.w_k_major);
            jobs.push((job, packed));
            Ok(packed)
        };
        let places = [load(down)?, load(up)?];
        self.pack(&jobs)?;
        Ok(Some(places))
    }

    /// Elements of a partial sum of shrunk, and how many of these there are.
    fn spans(&self, depth: usize, pitch: usize) -> (usize, usize) {
        if pitch == 0 {
            return (0, 0);
        }
        let few = PART / (pitch * self.problem.adapter().size());
        let most = (PARTS / (self.problem.tokens() * pitch * 4)).clamp(1, MOST_PARTS);
        let parts = depth.div_ceil(few.max(STAGE)).clamp(1, most);
        let span = depth.div_ceil(parts).next_multiple_of(STAGE);
        (span, depth.div_ceil(span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_cover_every_step_once() {
        for (strips, steps) in [(1, 1), (3, 7), (128, 64), (344, 64), (40, 172), (17, 5)] {
            for multiprocessors in [1, 2, 7, 108, 132] {
                for warps in [1, 6, 8] {
                    let split = Split::new(strips, steps, multiprocessors, warps);
                    let what = format!("{strips} × {steps}, {multiprocessors}, {split:?}");
                    assert_eq!(split.start(0), 0, "{what}");
                    assert_eq!(split.start(split.ctas), strips * steps, "{what}");
                    assert!(split.each > 0 && split.ctas <= multiprocessors, "{what}");
                }
            }
        }
    }

    /// Whole strips where they fill the machine: nobody waits for another's sums.
    #[test]
    fn strips_stay_whole_where_that_fills_the_machine() {
        let llama = Split::new(128, 64, 132, 8);
        assert_eq!((llama.ctas, llama.partial(64)), (128, 0));
        // 64 strips of backward_input: halves.
        let turned = Split::new(64, 128, 132, 8);
        assert_eq!((turned.ctas, turned.partial(128)), (128, 128));
        // 344 strips on 132: two or three and a bit each.
        let many = Split::new(344, 64, 132, 8);
        assert_eq!(many.ctas, 132);
        assert!(many.partial(64) < 2 * 132);
    }
}

//! The launch of `decode`: how w's steps are shared among the CTAs, the sum of shrunk among
//! tickets, and where partial sums lie. Called by `draft` for at most 16 tokens.

use super::params::Params;
use super::roles::{Roles, Side};
use super::texts::{COUNTERS, DECODE_ASIDE, TEXTS, Text, decode_at};
use super::{Building, DECLARED, HEADER, Packed, Refusal, Workspace, model, reason};
use crate::{Access, DType};

/// Counters of strips that several CTAs share: no more CTAs than these.
const MOST_CTAS: usize = (HEADER - COUNTERS) / 4;
/// Bytes of `down` that a part of the sum should have: a ring of the adapter's warp.
const PART: usize = 8 << 10;
/// Bytes of all parts, which every CTA reads.
const PARTS: usize = 32 << 10;
/// Parts of the sum: a flag each.
const MOST_PARTS: usize = 32;
/// Elements of the sum of which a part is a multiple: a stage, whatever the rank.
const STAGE: usize = 64;

/// How the steps of all strips are shared: each CTA has `share`, the first `extra` one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shares {
    ctas: usize,
    share: usize,
    extra: usize,
}

impl Shares {
    /// Of `strips` of `steps`, among the CTAs that `multiprocessors` hold, one each, of `warps`
    /// that stream.
    fn new(strips: usize, steps: usize, multiprocessors: usize, warps: usize) -> Shares {
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
        Shares { ctas, share: total / ctas, extra: total % ctas }
    }

    fn start(&self, cta: usize) -> usize {
        cta * self.share + cta.min(self.extra)
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
        let (deep, wide) = (roles.deep, roles.wide);
        if let Some(what) = roles.unaligned() {
            return Err(reason(format!(
                "{what}: not rows of 16-byte multiples at 16-byte addresses"
            )));
        }
        let (Some(w), Some(y)) = (roles.w, roles.y) else {
            return Err(reason("decode without w or y".to_owned()));
        };
        let text = self.decode_text(roles.w_turned)?;
        let [_, strip, depth] = text.tile;
        // A warp that streams has its ring and its sums, the adapter's warp its own area and sums.
        let sums = text.shared_bytes - text.stages * stage(text);
        let fixed = DECODE_ASIDE + sums;
        let room = (cuda.shared_bytes as usize).saturating_sub(fixed + DECLARED);
        let warps = (room / text.shared_bytes).min(text.threads / 32 - 1);
        if warps == 0 {
            let (takes, grants) = (text.shared_bytes + fixed + DECLARED, cuda.shared_bytes);
            return Err(reason(format!(
                "{takes} bytes of shared memory, the device grants {grants}"
            )));
        }
        let (strips, steps) = (wide.div_ceil(strip), deep.div_ceil(depth));
        let sizes = [strips.saturating_mul(steps), wide, deep];
        if let Some(size) = sizes.into_iter().find(|size| *size > i32::MAX as usize / 4) {
            return Err(reason(format!("a size of {size} leaves the kernel's 32-bit counts")));
        }
        let shares = Shares::new(strips, steps, cuda.multiprocessors.max(1) as usize, warps);
        let partial = shares.partial(steps);

        let mut workspace = Workspace { len: HEADER, used: rank > 0 || partial > 0 };
        let adapter = self.borrowed(roles, &mut workspace)?;
        let pitch = problem.padded_rank();
        let (span, shrinks) = self.parts(deep, pitch);
        let part_bytes = shrinks * tokens * pitch * 4;
        let slot_bytes = partial * tokens * strip * 4;

        use decode_at as at;
        let mut params = Params::new(at::LEN);
        params.address(at::X, roles.x.operand, Access::Read);
        params.address(at::W, w.operand, Access::Read);
        let access = if problem.beta() == 0.0 { Access::Write } else { Access::Update };
        params.address(at::Y, y.operand, access);
        if let Some(bias) = roles.bias {
            params.address(at::BIAS, Some(bias), Access::Read);
        }
        if workspace.used {
            params.address(at::HEADER, None, Access::Update);
        }
        if let Some([down, up]) = &adapter {
            params.place([at::DOWN, at::DOWN_OFFSET, at::DOWN_STRIDE], down.high, Access::Read);
            params.place([at::UP, at::UP_OFFSET, at::UP_STRIDE], up.high, Access::Read);
            params.u64(at::PARTS, workspace.take(part_bytes));
        }
        if partial > 0 {
            params.u64(at::SLOTS, workspace.take(shares.ctas * 2 * 16 * strip * 4));
        }
        if let Some(kept) = roles.kept {
            params.address(at::SHRUNK, kept.operand, Access::Write);
            params.u32(at::SHRUNK_STRIDE, kept.stride as usize);
        }
        for (field, value) in [
            (at::X_STRIDE, roles.x.stride as usize),
            (at::W_STRIDE, w.stride as usize),
            (at::Y_STRIDE, y.stride as usize),
            (at::Y_BYTES, problem.output().size()),
            (at::TOKENS, tokens),
            (at::DEEP, deep),
            (at::WIDE, wide),
            (at::RANK, rank),
            (at::PART, pitch),
            (at::PRECISE, usize::from(problem.is_precise())),
            (at::STEPS, steps),
            (at::SHARE, shares.share),
            (at::EXTRA, shares.extra),
            (at::SHRINKS, shrinks),
            (at::SPAN, span),
        ] {
            params.u32(field, value);
        }
        params.f32(at::SCALE, problem.scale());
        params.f32(at::BETA, problem.beta());

        // An f32 adapter is multiplied in two parts, a precise shrunk with one more.
        let again = usize::from(text.tile_name != text.dtype);
        let border = again + usize::from(problem.is_precise());
        self.flops += problem.flops() + 2 * (tokens * rank * (deep * again + wide * border)) as u64;
        let bytes = problem.bytes() + (part_bytes + slot_bytes) as u64;
        self.bytes += bytes;
        self.micros += model::decode(bytes, shares.ctas, rank > 0, cuda);
        let shared = warps * text.shared_bytes + fixed;
        let threads = 32 * (warps + 1);
        self.push_sized(text, [shares.ctas as u32, 1, 1], threads, shared, params);
        Ok(workspace.finish())
    }

    fn decode_text(&self, turned: bool) -> Result<&'static Text, Refusal> {
        let problem = self.problem;
        let dtype = problem.activation().to_string();
        // Without a rank any adapter does.
        let adapter = match (problem.rank(), problem.activation()) {
            (0, _) | (_, DType::F32) => dtype.clone(),
            _ => problem.adapter().to_string(),
        };
        TEXTS
            .iter()
            .find(|of| {
                (of.kind, of.dtype, of.tile_name) == ("decode", dtype.as_str(), adapter.as_str())
                    && of.turned == turned
            })
            .ok_or_else(|| reason(format!("no text of `decode` for {adapter} beside {dtype}")))
    }

    /// The adapter where it lies, if the kernel's warp can read four elements at a time there,
    /// the way that w lies; else packed first.
    fn borrowed(
        &mut self,
        roles: &Roles,
        workspace: &mut Workspace,
    ) -> Result<Option<[Packed; 2]>, Refusal> {
        let (Some(down), Some(up)) = (&roles.down, &roles.up) else { return Ok(None) };
        let mut jobs = Vec::new();
        let adapter = self.problem.adapter();
        let mut load = |side: &Side| {
            // 16-bit activations have a text for an adapter in f32, f32 ones for no other.
            let read = !side.converts || side.splits();
            if read && side.turned == roles.w_turned && side.in_fours(adapter) {
                return Ok(Packed { high: side.place, low: None });
            }
            if side.splits() {
                let operand = side.operand;
                return Err(reason(format!(
                    "{operand}: {adapter} not the way w lies, or not in 16-byte multiples"
                )));
            }
            let (job, packed) = workspace.pack(side, roles.w_turned);
            jobs.push((job, packed));
            Ok(packed)
        };
        let places = [load(down)?, load(up)?];
        if !jobs.is_empty() {
            self.pack(&jobs)?;
        }
        Ok(Some(places))
    }

    /// Elements of a part of shrunk's sum, and how many parts there are.
    fn parts(&self, deep: usize, pitch: usize) -> (usize, usize) {
        if pitch == 0 {
            return (0, 0);
        }
        let few = PART / (pitch * self.problem.adapter().size());
        let most = (PARTS / (self.problem.tokens() * pitch * 4)).clamp(1, MOST_PARTS);
        let parts = deep.div_ceil(few.max(STAGE)).clamp(1, most);
        let span = deep.div_ceil(parts).next_multiple_of(STAGE);
        (span, deep.div_ceil(span))
    }
}

/// Bytes of a stage of one warp's ring: 4 KiB of w, and sixteen tokens of x.
fn stage(text: &Text) -> usize {
    (4 << 10) + 16 * text.tile[2] * if text.dtype == "f32" { 4 } else { 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_every_step_once() {
        for (strips, steps) in [(1, 1), (3, 7), (128, 64), (344, 64), (40, 172), (17, 5)] {
            for multiprocessors in [1, 2, 7, 108, 132] {
                for warps in [1, 6, 8] {
                    let shares = Shares::new(strips, steps, multiprocessors, warps);
                    let what = format!("{strips} × {steps}, {multiprocessors}, {shares:?}");
                    assert_eq!(shares.start(0), 0, "{what}");
                    assert_eq!(shares.start(shares.ctas), strips * steps, "{what}");
                    assert!(shares.share > 0 && shares.ctas <= multiprocessors, "{what}");
                }
            }
        }
    }

    /// Whole strips where they fill the machine: nobody waits for another's sums.
    #[test]
    fn strips_stay_whole_where_that_fills_the_machine() {
        let llama = Shares::new(128, 64, 132, 8);
        assert_eq!((llama.ctas, llama.partial(64)), (128, 0));
        // 64 strips of backward_input: halves.
        let turned = Shares::new(64, 128, 132, 8);
        assert_eq!((turned.ctas, turned.partial(128)), (128, 128));
        // 344 strips on 132: two or three and a bit each.
        let many = Shares::new(344, 64, 132, 8);
        assert_eq!(many.ctas, 132);
        assert!(many.partial(64) < 2 * 132);
    }
}

//! How the CTAs of `decode` split w: strips of columns, cut into steps along the sum, of which each
//! CTA gets as many. The kernel's half of it is `kernels/parts/split.ptx`.

use super::abi::COUNTERS;

/// A counter for each strip that several CTAs share.
const MOST_CTAS: usize = COUNTERS;

/// How the steps of all strips are split: each CTA has `each`, the first `extra` one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) ctas: usize,
    pub(super) each: usize,
    pub(super) extra: usize,
}

impl Split {
    /// Of `strips` of `steps`, among the CTAs that `multiprocessors` hold, one each, of `warps`
    /// that stream.
    pub(super) fn new(strips: usize, steps: usize, multiprocessors: usize, warps: usize) -> Split {
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
    pub(super) fn partial(&self, steps: usize) -> usize {
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
        let halves = Split::new(64, 128, 132, 8);
        assert_eq!((halves.ctas, halves.partial(128)), (128, 128));
        // 344 strips on 132: two or three and a bit each.
        let many = Split::new(344, 64, 132, 8);
        assert_eq!(many.ctas, 132);
        assert!(many.partial(64) < 2 * 132);
    }
}

//! What bounds a step of the main loop: the slots in which its instructions are issued, or the
//! tensor cores that its mma keep busy. One scheduler issues one instruction of a warp in a cycle,
//! and has one tensor core; the warps that share it take turns, so that the ratio is theirs, too.

use std::fmt;

/// Multiply-adds of one `mma.m16n8k16`.
const MMA: f64 = 16.0 * 8.0 * 16.0;
const SCHEDULERS: f64 = 4.0;

/// 16-bit multiply-adds with f32 sums of one multiprocessor in a cycle, through `mma.sync`: the
/// vendor's tables, as `plan::cuda::sm80` has them.
const RATES: [(&str, f64); 7] = [
    ("sm_80", 1024.0),
    ("sm_86", 512.0),
    ("GeForce", 256.0),
    ("sm_89", 512.0),
    ("sm_90", 1330.0),
    ("sm_100", 1024.0),
    ("sm_120", 512.0),
];

/// Once around the main loop: a warp's instructions, and the mma among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) instructions: u32,
    pub(crate) mma: u32,
}

impl Step {
    /// Cycles of issue for one of the tensor core; above 1 the loop is bound by issue.
    pub(crate) fn ratio(self, rate: f64) -> f64 {
        f64::from(self.instructions) / (f64::from(self.mma) * MMA * SCHEDULERS / rate)
    }
}

/// A loop without a branch that copies and multiplies: how its instructions lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interior {
    pub(crate) step: Step,
    /// Instructions from the barrier to the first mma behind it.
    pub(crate) wait: u32,
    /// Most copies to shared memory between two mma.
    pub(crate) copies: u32,
}

impl Interior {
    /// Most instructions from the barrier to an mma.
    pub(crate) const WAIT: u32 = 12;
    /// Most copies in a row.
    pub(crate) const COPIES: u32 = 4;
    /// Most instructions for each mma, by the beginning of a text's name.
    const DENSE: [(&str, f64); 2] = [("plain_large_", 2.0), ("leader_large_r16_", 2.2)];

    /// What is wrong with that of a text.
    pub(crate) fn refused(self, name: &str) -> Option<String> {
        let Interior { step, wait, copies } = self;
        let across = name.contains("_nmajor");
        let most = Interior::DENSE.iter().find(|(of, _)| name.starts_with(of) && !across);
        let each = f64::from(step.instructions) / f64::from(step.mma);
        match most {
            Some((_, most)) if each > *most => {
                Some(format!("{each:.2} instructions for each mma of its interior, at most {most}"))
            }
            _ if wait > Interior::WAIT => {
                Some(format!("{wait} instructions from its interior's barrier to an mma"))
            }
            _ if copies > Interior::COPIES => {
                Some(format!("{copies} copies of its interior in a row"))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Interior {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Interior { step, wait, copies } = self;
        write!(f, "{step}; {wait} from the barrier to an mma, {copies} copies in a row")
    }
}

/// `0.42 tensor` for each target: cycles of issue over those of the tensor core, and which is more.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} instructions, {} mma", self.instructions, self.mma)?;
        for (target, rate) in RATES.into_iter().filter(|_| self.mma > 0) {
            let ratio = self.ratio(rate);
            let bound = if ratio > 1.0 { "issue" } else { "tensor" };
            write!(f, ", {target} {ratio:.2} {bound}")?;
        }
        Ok(())
    }
}

#[test]
fn whichever_takes_longer_bounds() {
    // 32 mma keep the tensor core of an A100 busy for 256 cycles.
    let step = |instructions| Step { instructions, mma: 32 };
    assert_eq!(step(256).ratio(1024.0), 1.0);
    let said = step(300).to_string();
    assert!(said.contains("sm_80 1.17 issue") && said.contains("sm_86 0.59 tensor"), "{said}");
    assert_eq!(Step { instructions: 9, mma: 0 }.to_string(), "9 instructions, 0 mma");
}

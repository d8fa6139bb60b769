//! How a launch is simulated: chip, order, timing, arithmetic, checks. Shared by all that runs or
//! starts launches; knows none of them.

use crate::chip::Chip;
use crate::num::mma::MmaModel;

/// Who runs next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schedule {
    /// Every warp in turn, a few instructions each.
    #[default]
    RoundRobin,
    /// A random warp for a random while, by seed; CTAs start in random order.
    Random,
    /// One warp as far as it goes, then the next.
    OneFar,
    /// The same from the last CTA and warp backwards.
    Reverse,
}

/// When asynchronous copies land.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyTiming {
    /// When issued.
    Early,
    /// When waited for.
    #[default]
    Late,
    /// At issue, at a later commit or at the wait, by seed.
    Random,
}

/// How a launch is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The chip.
    pub chip: Chip,
    /// Multiprocessors in use; at least 1.
    pub sms: u32,
    /// Parts of the chip that the multiprocessors are spread over; a cluster lies in one.
    pub gpcs: u32,
    /// CTAs a multiprocessor holds at once, at most; the chip's limits apply too.
    pub blocks_per_sm: u32,
    /// Order of execution.
    pub schedule: Schedule,
    /// Timing of `cp.async`, bulk copies and `wgmma`.
    pub copies: CopyTiming,
    /// Arithmetic of `mma`.
    pub mma: MmaModel,
    /// Moves `.approx` results within their documented error.
    pub perturb: bool,
    /// Seed of everything random.
    pub seed: u64,
    /// Warp instructions after which a launch is ended.
    pub budget: u64,
    /// Report reads of bytes nobody wrote.
    pub check_init: bool,
    /// Report races and `.nc` reads of written bytes.
    pub check_races: bool,
    /// Count wavefronts and sectors.
    pub count: bool,
}

impl Options {
    /// Clusters of so many CTAs that run at once, when a multiprocessor holds `per_sm` of these.
    pub fn clusters(&self, size: u32, per_sm: u32) -> u32 {
        let fit = |gpc| self.sms_of(gpc).len() as u32 * per_sm / size.max(1);
        (0..self.gpcs).map(fit).sum()
    }

    /// The multiprocessors of a GPC.
    pub(crate) fn sms_of(&self, gpc: u32) -> std::ops::Range<usize> {
        let at =
            |g: u32| (u64::from(self.sms) * u64::from(g) / u64::from(self.gpcs.max(1))) as usize;
        at(gpc)..at(gpc + 1)
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            chip: Chip::SM_80,
            sms: 4,
            gpcs: 1,
            blocks_per_sm: 1,
            schedule: Schedule::default(),
            copies: CopyTiming::default(),
            mma: MmaModel::default(),
            perturb: false,
            seed: 0,
            budget: 1 << 32,
            check_init: true,
            check_races: true,
            count: true,
        }
    }
}

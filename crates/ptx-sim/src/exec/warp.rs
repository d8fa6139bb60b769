//! One warp: registers with their definedness, and its divergent fragments.
//!
//! Divergence is a short list of (pc, mask) fragments; the lowest pc runs, fragments that meet
//! merge. It needs no analysis of the control flow, reconverges structured code at the post-
//! dominator (which lies at a higher pc), and costs nothing while the warp is whole. A fragment
//! that loops while others wait is passed over after [`PATIENCE`] backward branches, since lanes of
//! one warp may wait for each other; one that stands at an instruction in which lanes come together waits
//! for those of them that stand elsewhere.

use super::hopper::state::State;
use super::trouble::{Res, trouble};
use crate::check::region::Region;
use crate::check::warp_clock::WarpClock;
use crate::isa::inst::{Inst, Meeting, PSlot, Slot};
use crate::report::FaultKind;

/// Backward branches after which another fragment gets its turn, and instructions that it gets.
const PATIENCE: u32 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) pc: u32,
    pub(crate) mask: u32,
}

/// Registers and predicates of a warp.
#[derive(Debug)]
pub(crate) struct Files {
    regs: Vec<[u64; 32]>,
    written: Vec<u32>,
    preds: Vec<u32>,
    preds_written: Vec<u32>,
}

impl Files {
    pub(crate) fn new(slots: usize, preds: usize) -> Self {
        Files {
            regs: vec![[0; 32]; slots],
            written: vec![0; slots],
            preds: vec![0; preds],
            preds_written: vec![0; preds],
        }
    }

    /// The slot's lanes; those of `mask` must have been written.
    #[inline]
    pub(crate) fn read(&self, slot: Slot, mask: u32) -> Res<&[u64; 32]> {
        let missing = mask & !self.written[slot as usize];
        if missing != 0 {
            return trouble(
                FaultKind::UnwrittenRegister,
                missing,
                "a register is read that was never written",
            );
        }
        Ok(&self.regs[slot as usize])
    }

    /// For writing in place: marks `mask` as written.
    #[inline]
    pub(crate) fn write(&mut self, slot: Slot, mask: u32) -> &mut [u64; 32] {
        self.written[slot as usize] |= mask;
        &mut self.regs[slot as usize]
    }

    #[inline]
    pub(crate) fn store(&mut self, slot: Slot, mask: u32, values: &[u64; 32]) {
        let to = self.write(slot, mask);
        if mask == u32::MAX {
            *to = *values;
        } else {
            for (lane, v) in to.iter_mut().enumerate() {
                if mask >> lane & 1 == 1 {
                    *v = values[lane];
                }
            }
        }
    }

    #[inline]
    pub(crate) fn pred(&self, slot: PSlot, mask: u32) -> Res<u32> {
        let missing = mask & !self.preds_written[slot as usize];
        if missing != 0 {
            return trouble(
                FaultKind::UnwrittenRegister,
                missing,
                "a predicate is read that was never written",
            );
        }
        Ok(self.preds[slot as usize])
    }

    #[inline]
    pub(crate) fn set_pred(&mut self, slot: PSlot, mask: u32, value: u32) {
        self.preds_written[slot as usize] |= mask;
        let p = &mut self.preds[slot as usize];
        *p = *p & !mask | value & mask;
    }

    /// A digest of everything, to see that a waiting loop goes round without change.
    fn digest(&self) -> u64 {
        let mut h = 0xCBF2_9CE4_8422_2325u64;
        let mut eat = |x: u64| h = (h ^ x).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(23);
        self.regs.iter().flatten().for_each(|&x| eat(x));
        self.preds.iter().for_each(|&x| eat(u64::from(x)));
        h
    }
}

/// An asynchronous copy that has not landed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copy {
    pub(crate) lane: u8,
    pub(crate) group: u32,
    pub(crate) to: u32,
    pub(crate) region: u32,
    pub(crate) from: u64,
    pub(crate) size: u8,
    /// Bytes read; the rest becomes zero.
    pub(crate) read: u8,
}

/// What a warp waits for. At a barrier it stands behind the instruction already; before all else it
/// stands still and tries again when woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    Barrier(u32),
    /// The phase of an mbarrier of its CTA.
    Mbarrier {
        at: u32,
        phase: u32,
    },
    /// The other warps of its warpgroup.
    Matrix,
    /// Registers for `setmaxnreg`.
    Registers(u32),
    /// The phase of the cluster's barrier.
    Cluster(u32),
    /// The launches before this one.
    Grids,
}

impl Waiting {
    /// The warp stands behind the instruction.
    pub(crate) fn passed(self) -> bool {
        matches!(self, Waiting::Barrier(_))
    }
}

#[derive(Debug)]
pub(crate) struct Warp {
    pub(crate) index: u32,
    pub(crate) files: Files,
    pub(crate) fragments: Vec<Fragment>,
    pub(crate) clock: WarpClock,
    pub(crate) copies: Vec<Copy>,
    pub(crate) waiting: Option<Waiting>,
    /// What Hopper's engines keep of the warp.
    pub(crate) hopper: Box<State>,
    /// Each thread's own memory, one lane's behind the other's.
    pub(crate) local: Region,
    /// Lanes that stand where others have to come, and were passed over for it.
    parked: u32,
    /// Backward branches since the last change of fragment.
    backs: u32,
    /// Instructions for which the last fragment runs instead of the first.
    favour: u32,
    rounds: u32,
    /// Digest and progress at the last look.
    look: (u64, u64),
    /// The progress count at which the warp was seen to spin.
    pub(crate) spins_at: Option<u64>,
}

impl Warp {
    pub(crate) fn new(
        index: u32,
        mask: u32,
        files: Files,
        clock: WarpClock,
        local: Region,
    ) -> Self {
        Warp {
            index,
            files,
            fragments: vec![Fragment { pc: 0, mask }],
            clock,
            copies: Vec::new(),
            waiting: None,
            hopper: Box::default(),
            local,
            parked: 0,
            backs: 0,
            favour: 0,
            rounds: 0,
            look: (0, u64::MAX),
            spins_at: None,
        }
    }

    /// Lanes that have not exited.
    pub(crate) fn live(&self) -> u32 {
        self.fragments.iter().fold(0, |m, f| m | f.mask)
    }

    pub(crate) fn runnable(&self) -> bool {
        self.waiting.is_none() && !self.fragments.is_empty()
    }

    /// Index of the fragment to run.
    #[inline]
    pub(crate) fn choose(&mut self, insts: &[Inst]) -> usize {
        if self.fragments.len() == 1 {
            return 0;
        }
        if self.backs > PATIENCE {
            self.backs = 0;
            self.favour = PATIENCE;
        }
        let last = self.fragments.len() - 1;
        if self.favour > 0 {
            self.favour -= 1;
            if self.missing(last, insts) == 0 {
                self.parked &= !self.fragments[last].mask;
                return last;
            }
        }
        // Where lanes must come together they wait for those that can still come; if nobody else can
        // go on, the instruction runs as it is, and says who is missing.
        let at = (0..=last).find(|&at| self.missing(at, insts) == 0).unwrap_or(0);
        self.parked |= self.fragments[..at].iter().fold(0, |m, f| m | f.mask);
        self.parked &= !self.fragments[at].mask;
        at
    }

    /// Lanes that somebody waits for who was passed over, when `exiting` will never come: where, and who.
    pub(crate) fn waits_for(&self, exiting: u32, insts: &[Inst]) -> Option<(u32, u32, u32)> {
        let waiting = |at: &usize| {
            self.fragments[*at].mask & self.parked != 0
                && self.fragments[*at].mask & exiting == 0
                && self.missing(*at, insts) & exiting != 0
        };
        let at = (0..self.fragments.len()).find(waiting)?;
        Some((self.fragments[at].pc, self.fragments[at].mask, self.missing(at, insts) & exiting))
    }

    /// The fragment stands where lanes come together: those of them that are in other fragments.
    fn missing(&self, at: usize, insts: &[Inst]) -> u32 {
        let Fragment { pc, mask } = self.fragments[at];
        let inst = &insts[pc as usize];
        let op = &inst.op;
        let Some(meeting) = op.meeting() else { return 0 };
        let mask = match inst.guard {
            None => mask,
            Some((p, negated)) => {
                let p = self.files.preds[p as usize];
                mask & if negated { !p } else { p }
            }
        };
        if mask == 0 {
            return 0;
        }
        let wanted = match meeting {
            Meeting::All => self.live(),
            Meeting::Members(slot) => {
                self.files.regs[slot as usize][mask.trailing_zeros() as usize] as u32
            }
        };
        wanted & self.live() & !self.fragments[at].mask
    }

    #[inline]
    pub(crate) fn advance(&mut self, at: usize) {
        self.fragments[at].pc += 1;
        if self.fragments.len() > 1 {
            self.settle();
        }
    }

    /// Lanes in `taken` go to `target`, the others of the fragment go on.
    pub(crate) fn branch(&mut self, at: usize, taken: u32, target: u32, progress: u64) {
        let Fragment { pc, mask } = self.fragments[at];
        if taken != 0 && target <= pc {
            self.backs += 1;
            self.look_around(progress);
        }
        let rest = mask & !taken;
        if taken == 0 {
            self.fragments[at].pc = pc + 1;
        } else {
            self.fragments[at] = Fragment { pc: target, mask: taken };
            if rest != 0 {
                self.fragments.push(Fragment { pc: pc + 1, mask: rest });
            }
        }
        if self.fragments.len() > 1 {
            self.settle();
        }
    }

    /// Lanes go to several targets, the others of the fragment go on.
    pub(crate) fn scatter(&mut self, at: usize, goes: &[(u32, u32)], progress: u64) {
        let Fragment { pc, mask } = self.fragments[at];
        if goes.iter().any(|&(_, target)| target <= pc) {
            self.backs += 1;
            self.look_around(progress);
        }
        let rest = goes.iter().fold(mask, |rest, (lanes, _)| rest & !lanes);
        self.fragments.remove(at);
        self.fragments.extend(goes.iter().map(|&(mask, pc)| Fragment { pc, mask }));
        if rest != 0 {
            self.fragments.push(Fragment { pc: pc + 1, mask: rest });
        }
        self.settle();
    }

    pub(crate) fn exit(&mut self, at: usize, lanes: u32) {
        self.fragments[at].mask &= !lanes;
        self.fragments[at].pc += 1;
        self.fragments.retain(|f| f.mask != 0);
        self.settle();
    }

    fn settle(&mut self) {
        self.fragments.sort_unstable_by_key(|f| f.pc);
        self.fragments.dedup_by(|b, a| {
            let same = a.pc == b.pc;
            if same {
                a.mask |= b.mask;
            }
            same
        });
    }

    /// Now and then compares all registers with the last look: nothing changed here and nothing
    /// changed anywhere means that the loop can only go on as before.
    fn look_around(&mut self, progress: u64) {
        self.rounds += 1;
        if !self.rounds.is_multiple_of(256) {
            return;
        }
        let digest = self.files.digest();
        if self.look == (digest, progress) {
            self.spins_at = Some(progress);
        }
        self.look = (digest, progress);
    }
}

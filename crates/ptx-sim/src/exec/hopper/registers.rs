//! The pool of registers of a CTA, as `setmaxnreg` moves them between its warps.

use crate::isa::Kernel;

/// Registers of a multiprocessor.
const FILE: u32 = 65_536;

#[derive(Debug, Default)]
pub(crate) struct Registers {
    /// Per thread, of each warp.
    pub(crate) held: Vec<u32>,
    /// Per thread, that no warp holds.
    pub(crate) free: u32,
    /// What each warp has asked for so far: those of a group must agree.
    asked: Vec<Vec<(bool, u32)>>,
}

impl Registers {
    pub(crate) fn new(warps: u32, at_entry: u32) -> Self {
        Registers {
            held: vec![at_entry; warps as usize],
            free: 0,
            asked: vec![Vec::new(); warps as usize],
        }
    }

    /// Registers per thread with which a kernel that uses `setmaxnreg` begins: all that its bounds
    /// leave it, as ptxas gives them.
    pub(crate) fn at_entry(kernel: &Kernel, threads: u32) -> u32 {
        if let Some(n) = kernel.maxnreg {
            return n.next_multiple_of(8);
        }
        let bound = kernel.reqntid.or(kernel.maxntid).map_or(threads, |n| n.iter().product());
        let each = FILE / (bound.next_multiple_of(32) * kernel.minnctapersm).max(1);
        (each / 8 * 8).min(256)
    }

    /// Asks for `count` registers a thread; false when the warp has to wait for others to give theirs.
    pub(crate) fn ask(&mut self, warp: usize, more: bool, count: u32) -> Result<bool, String> {
        let held = self.held[warp];
        if more && count < held {
            return Err(format!("setmaxnreg.inc to {count}, the warp holds {held}"));
        }
        if !more && count > held {
            return Err(format!("setmaxnreg.dec to {count}, the warp holds {held}"));
        }
        if more && count - held > self.free {
            return Ok(false);
        }
        self.free = self.free + held - count;
        self.held[warp] = count;
        self.asked[warp].push((more, count));
        let mine = &self.asked[warp];
        let group = warp / 4 * 4..(warp / 4 * 4 + 4).min(self.asked.len());
        let differs = |other: &Vec<(bool, u32)>| mine.iter().zip(other).any(|(a, b)| a != b);
        if self.asked[group].iter().any(differs) {
            return Err("the warps of a warpgroup ask for different registers".into());
        }
        Ok(true)
    }

    pub(crate) fn describe(&self, warp: usize, count: u32) -> String {
        format!(
            "waits for {count} registers a thread: it holds {}, {} are free, all hold {}",
            self.held[warp],
            self.free,
            self.held.iter().sum::<u32>() + self.free
        )
    }
}

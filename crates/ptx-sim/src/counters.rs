//! What a launch did, per PTX line: instructions, matrix work, shared-memory wavefronts and global
//! sectors against the ideal. Printable, so that a test can compare with a golden text.

use std::fmt;

#[derive(Clone, Copy, Debug, Default)]
struct PcCount {
    warps: u64,
    threads: u64,
    macs: u64,
    wavefronts: u64,
    wavefronts_ideal: u64,
    sectors: u64,
    sectors_ideal: u64,
}

/// Counts of one line of PTX.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineCount {
    /// The line.
    pub line: u32,
    /// Instructions executed, per warp.
    pub warps: u64,
    /// Instructions executed, per thread.
    pub threads: u64,
    /// Multiply-adds in `mma`.
    pub macs: u64,
    /// Passes over shared memory's 32 banks of 4 bytes.
    pub wavefronts: u64,
    /// Passes if no two lanes met in a bank.
    pub wavefronts_ideal: u64,
    /// Global sectors of 32 bytes.
    pub sectors: u64,
    /// Sectors if the lanes' bytes lay side by side.
    pub sectors_ideal: u64,
}

/// Counts of a launch.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    pcs: Vec<PcCount>,
    lines: Vec<u32>,
    first_touched: u64,
    on: bool,
}

impl Counters {
    pub(crate) fn new(lines: Vec<u32>, on: bool) -> Self {
        Counters { pcs: vec![PcCount::default(); lines.len()], lines, first_touched: 0, on }
    }

    #[inline]
    pub(crate) fn executed(&mut self, pc: u32, mask: u32) {
        let c = &mut self.pcs[pc as usize];
        c.warps += 1;
        c.threads += u64::from(mask.count_ones());
    }

    pub(crate) fn mma(&mut self, pc: u32, macs: u64) {
        self.pcs[pc as usize].macs += macs;
    }

    /// Lanes access `size` bytes each. Wide accesses go in halves or quarters of a warp.
    pub(crate) fn shared(&mut self, pc: u32, addresses: &[u64; 32], mask: u32, size: u32) {
        if !self.on {
            return;
        }
        let lanes = (128 / size.max(4)) as usize;
        for from in (0..32).step_by(lanes) {
            let phase = crate::lanes::lanes(mask).filter(|l| (from..from + lanes).contains(l));
            let mut words = [0; 32];
            let mut n = 0;
            for l in phase {
                for w in 0..u64::from(size.div_ceil(4)) {
                    words[n] = addresses[l] / 4 + w;
                    n += 1;
                }
            }
            self.phase(pc, &words[..n]);
        }
    }

    /// Each matrix of `ldmatrix` is one pass of eight rows of 16 bytes.
    pub(crate) fn ldmatrix(&mut self, pc: u32, addresses: &[u64; 32], rows: usize) {
        if !self.on {
            return;
        }
        for eight in addresses[..rows].chunks_exact(8) {
            let words: [u64; 32] = std::array::from_fn(|i| eight[i / 4] / 4 + i as u64 % 4);
            self.phase(pc, &words);
        }
    }

    fn phase(&mut self, pc: u32, words: &[u64]) {
        if words.is_empty() {
            return;
        }
        // Lanes that read the same word share it; the fullest bank decides. A bank that holds one
        // word only, the usual case, needs no list.
        let mut first = [u64::MAX; 32];
        let mut busy = [0u8; 32];
        let mut crowded = false;
        for &w in words {
            let bank = (w % 32) as usize;
            if busy[bank] == 0 {
                (first[bank], busy[bank]) = (w, 1);
            } else if first[bank] != w {
                crowded = true;
            }
        }
        let mut most = 1;
        if crowded {
            let mut sorted = [0; 32];
            let sorted = &mut sorted[..words.len()];
            sorted.copy_from_slice(words);
            sorted.sort_unstable();
            let mut depth = [0u64; 32];
            let mut last = u64::MAX;
            for &w in sorted.iter() {
                depth[(w % 32) as usize] += u64::from(w != last);
                last = w;
            }
            most = depth.into_iter().max().unwrap_or(1);
        }
        let c = &mut self.pcs[pc as usize];
        c.wavefronts += most;
        c.wavefronts_ideal += 1;
    }

    /// `touch` marks a sector and says whether it is new in this launch.
    pub(crate) fn global(
        &mut self,
        pc: u32,
        addresses: &[u64; 32],
        mask: u32,
        size: u32,
        mut touch: impl FnMut(u64) -> bool,
    ) {
        if !self.on || mask == 0 {
            return;
        }
        let mut sectors = [0; 32];
        let mut n = 0;
        for l in crate::lanes::lanes(mask) {
            sectors[n] = addresses[l] / 32;
            n += 1;
        }
        let sectors = &mut sectors[..n];
        // Neighbouring lanes mostly come in order already.
        if !sectors.is_sorted() {
            sectors.sort_unstable();
        }
        let (mut distinct, mut last) = (0, u64::MAX);
        for &s in sectors.iter() {
            if s != last {
                distinct += 1;
                last = s;
                self.first_touched += u64::from(touch(s));
            }
        }
        let c = &mut self.pcs[pc as usize];
        c.sectors += distinct;
        c.sectors_ideal += u64::from(mask.count_ones() * size).div_ceil(32).min(distinct);
    }

    /// Counts per line, in the order of the text; lines that never ran are left out.
    pub fn lines(&self) -> Vec<LineCount> {
        let mut out: Vec<LineCount> = Vec::new();
        for (c, &line) in self.pcs.iter().zip(&self.lines) {
            if c.warps == 0 {
                continue;
            }
            if out.last().is_none_or(|l| l.line != line) {
                out.push(LineCount { line, ..LineCount::default() });
            }
            if let Some(l) = out.last_mut() {
                add(l, c);
            }
        }
        out
    }

    /// The sum over all lines; its `line` is 0.
    pub fn total(&self) -> LineCount {
        let mut sum = LineCount::default();
        self.pcs.iter().for_each(|c| add(&mut sum, c));
        sum
    }

    /// Bytes of global memory touched at least once, in whole sectors of 32.
    pub fn bytes_first_touched(&self) -> u64 {
        32 * self.first_touched
    }
}

fn add(l: &mut LineCount, c: &PcCount) {
    l.warps += c.warps;
    l.threads += c.threads;
    l.macs += c.macs;
    l.wavefronts += c.wavefronts;
    l.wavefronts_ideal += c.wavefronts_ideal;
    l.sectors += c.sectors;
    l.sectors_ideal += c.sectors_ideal;
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = self.total();
        writeln!(
            f,
            "instructions {} warp, {} thread; mma {} multiply-adds",
            t.warps, t.threads, t.macs
        )?;
        writeln!(f, "shared wavefronts {} of {} ideal", t.wavefronts, t.wavefronts_ideal)?;
        writeln!(f, "global sectors {} of {} ideal", t.sectors, t.sectors_ideal)?;
        writeln!(f, "global bytes first touched {}", self.bytes_first_touched())?;
        for l in self.lines() {
            write!(f, "line {}: {} warp {} thread", l.line, l.warps, l.threads)?;
            if l.macs > 0 {
                write!(f, ", {} mac", l.macs)?;
            }
            if l.wavefronts > 0 {
                write!(f, ", wavefronts {}/{}", l.wavefronts, l.wavefronts_ideal)?;
            }
            if l.sectors > 0 {
                write!(f, ", sectors {}/{}", l.sectors, l.sectors_ideal)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

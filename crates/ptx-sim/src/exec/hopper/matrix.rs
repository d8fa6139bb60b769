//! `wgmma`: one queue for the four warps of a warpgroup. A multiplication is there when all four have
//! issued it; then its reads of shared memory are checked and noted with the number of its group. It is
//! carried out at once, or as late as the first wait for its group, which waits for all four warps.

use super::super::env::Reach;
use super::super::matrix::value;
use super::super::narrow::{begin, element, finish};
use super::super::trouble::{Res, trouble};
use super::super::warp::{Files, Warp};
use super::layout::Descriptor;
use super::queue::{Ask, Entry};
use crate::check::clock::{Stamp, WHOLE_WARP};
use crate::check::region::Mode;
use crate::check::shadow::{Who, Wide};
use crate::check::warp_clock::WarpClock;
use crate::isa::Kernel;
use crate::isa::hopper::{Hopper, ScaleD, Wgmma, WgmmaA};
use crate::isa::inst::{Element, MmaTy, Op, Space};
use crate::mem::SHARED_BASE;
use crate::num::wgmma::Product;
use crate::options::CopyTiming;
use crate::report::FaultKind;

/// The instruction of an entry.
fn wgmma(kernel: &Kernel, pc: u32) -> Option<&Wgmma> {
    match &kernel.insts.get(pc as usize)?.op {
        Op::Hopper(op) => match &**op {
            Hopper::Wgmma(w) => Some(w),
            _ => None,
        },
        _ => None,
    }
}

/// What a warp hands to its queue: descriptors alike in all lanes, registers free.
pub(super) fn prepare(warp: &mut Warp, w: &Wgmma, committed: u32) -> Res<Ask> {
    let all = u32::MAX;
    let uniform = |slot: u16, what: &str| -> Res<u64> {
        let values = warp.files.read(slot, all)?;
        if values.iter().any(|&v| v != values[0]) {
            return trouble(FaultKind::Warpgroup, all, format!("the lanes give different {what}"));
        }
        Ok(values[0])
    };
    let b = uniform(w.b, "descriptors of B")?;
    let a = match w.a {
        WgmmaA::Shared(slot) => uniform(slot, "descriptors of A")?,
        WgmmaA::Registers(_) => 0,
    };
    let add = match w.scale_d {
        ScaleD::Known(add) => add,
        ScaleD::Pred(p, negate) => {
            let p = warp.files.pred(p, all)? ^ if negate { all } else { 0 };
            if p != 0 && p != all {
                return trouble(FaultKind::Warpgroup, all, "the lanes give different scale-d");
            }
            p == all
        }
    };
    if add {
        // What an earlier wgmma will have written by then counts as written.
        for &slot in w.d.iter().filter(|&&slot| !warp.hopper.hazards.is_sum(slot)) {
            warp.files.read(slot, all)?;
        }
    }
    let operands: &[u16] = match &w.a {
        WgmmaA::Registers(a) => a,
        WgmmaA::Shared(_) => &[],
    };
    for &slot in operands {
        warp.files.read(slot, all)?;
    }
    let taken = warp.hopper.hazards.take(&w.d, (w.n, w.half), operands, committed + 1);
    taken.or_else(|message| trouble(FaultKind::MatrixRegister, all, message))?;
    Ok(Ask::Issue { a, b, add })
}

/// Enters what warp `index` asks; false when it has to wait for the others.
pub(super) fn enter(
    warps: &mut [Warp],
    index: usize,
    r: &mut Reach<'_, '_>,
    ask: Ask,
) -> Res<bool> {
    let (group, member) = (index / 4, index % 4);
    if 4 * group + 4 > warps.len() {
        return trouble(FaultKind::Warpgroup, u32::MAX, "the warpgroup has fewer than four warps");
    }
    let four = &mut warps[4 * group..4 * group + 4];
    match ask {
        Ask::Issue { a, b, add } => issue(four, (group, member), r, (a, b, add))?,
        Ask::Commit => {
            r.banks[r.rank].queues[group].committed[member] += 1;
            r.banks[r.rank].barriers.woken = true;
            r.env.progress += 1;
        }
        Ask::Wait { left } => {
            let queue = &r.banks[r.rank].queues[group];
            let upto = queue.committed[member].saturating_sub(left);
            if !queue.settled(member, upto) {
                return Ok(false);
            }
            carry_out(four, group, r, |e| e.group <= upto)?;
            four[member].hopper.hazards.release(upto);
            let agent = four[member].clock.agents.matrix(group as u32);
            four[member].clock.know(agent, upto);
        }
    }
    Ok(true)
}

fn issue(
    four: &mut [Warp],
    (group, member): (usize, usize),
    r: &mut Reach<'_, '_>,
    (a, b, add): (u64, u64, bool),
) -> Res<()> {
    let (pc, kernel) = (r.pc, r.env.kernel);
    let queue = &mut r.banks[r.rank].queues[group];
    let at = (queue.issued[member] - queue.first) as usize;
    let number = queue.committed[member] + 1;
    if at == queue.entries.len() {
        queue.entries.push_back(Entry { pc, a, b, add, group: number, by: 0, done: false });
    }
    queue.issued[member] += 1;
    let entry = &mut queue.entries[at];
    if (entry.pc, entry.a, entry.b, entry.add, entry.group) != (pc, a, b, add, number) {
        let line = |pc: u32| kernel.insts.get(pc as usize).map_or(0, |i| i.line);
        let message = format!(
            "the warps of a warpgroup issue different wgmma: another one issued line {} with descriptors \
             {:#x}, {:#x} in group {}, this one {:#x}, {:#x} in group {number}",
            line(entry.pc),
            entry.a,
            entry.b,
            entry.group,
            a,
            b
        );
        return trouble(FaultKind::Warpgroup, u32::MAX, message);
    }
    entry.by |= 1 << member;
    if entry.by != 0xF {
        return Ok(());
    }
    let entry = *entry;
    check(four, group, r, &entry)?;
    r.env.progress += 1;
    let now = match r.env.options.copies {
        CopyTiming::Early => true,
        CopyTiming::Late => false,
        CopyTiming::Random => r.env.draw() & 3 == 0,
    };
    if now {
        carry_out(four, group, r, |_| true)?;
    }
    Ok(())
}

/// The chunks of an operand: `rows` of M or N.
fn chunks(
    d: &Descriptor,
    rows: u32,
    k: u32,
    along_rows: bool,
) -> impl Iterator<Item = (u32, u32, u32)> + '_ {
    // (row or k, chunk, address)
    let (outer, inner) = if along_rows { (k, rows / 8) } else { (rows, 2) };
    (0..outer).flat_map(move |o| {
        (0..inner)
            .map(move |c| (o, c, if along_rows { d.along_rows(o, c) } else { d.along_k(o, c) }))
    })
}

fn descriptor(bits: u64) -> Res<Descriptor> {
    Descriptor::new(bits).or_else(|message| trouble(FaultKind::Misaligned, u32::MAX, message))
}

/// Notes the reads of all four warps, which must know what was written there.
fn check(four: &[Warp], group: usize, r: &mut Reach<'_, '_>, e: &Entry) -> Res<()> {
    let Some(w) = wgmma(r.env.kernel, e.pc) else { return Ok(()) };
    let clock = &four[0].clock;
    let others: [&WarpClock; 3] = [&four[1].clock, &four[2].clock, &four[3].clock];
    let stamp = Stamp {
        agent: clock.engine(clock.agents.matrix(group as u32)),
        epoch: e.group,
        lanes: u32::MAX,
        packed: Stamp::pack(e.pc, 0),
    };
    let wide = Wide::with(&others);
    let who = Who { clock, lane: WHOLE_WARP, stamp, proxy: Some(true), wide: Some(&wide) };
    let mut operand = |bits: u64, rows: u32, along_rows: bool| -> Res<()> {
        let d = descriptor(bits)?;
        for (_, _, address) in chunks(&d, rows, w.k(), along_rows) {
            r.bytes(Space::Shared, u64::from(address), (16, 16), Mode::Read, &who)?;
        }
        Ok(())
    };
    if matches!(w.a, WgmmaA::Shared(_)) {
        operand(e.a, 64, w.transpose_a)?;
    }
    operand(e.b, w.n, w.transpose_b)
}

/// Carries out those that `wanted` names and that all four warps have issued, in order.
fn carry_out(
    four: &mut [Warp],
    group: usize,
    r: &mut Reach<'_, '_>,
    wanted: impl Fn(&Entry) -> bool,
) -> Res<()> {
    let mut i = 0;
    while let Some(&entry) = r.banks[r.rank].queues[group].entries.get(i) {
        if entry.by != 0xF || !wanted(&entry) {
            break;
        }
        if !entry.done {
            multiply(four, r, &entry)?;
            r.banks[r.rank].queues[group].entries[i].done = true;
        }
        i += 1;
    }
    let queue = &mut r.banks[r.rank].queues[group];
    while queue.entries.front().is_some_and(|e| e.done) {
        queue.entries.pop_front();
        queue.first += 1;
    }
    Ok(())
}

/// Elements of 16 bytes as f32.
fn elements(ty: MmaTy, narrow: Option<Element>, bytes: &[u8], mut put: impl FnMut(usize, f32)) {
    if let Some(ty) = narrow {
        for (i, &byte) in bytes.iter().enumerate() {
            put(i, element(ty, byte.into(), 0) as f32);
        }
        return;
    }
    match ty {
        MmaTy::Tf32 => {
            for (i, b) in bytes.chunks_exact(4).enumerate() {
                put(i, value(ty, u32::from_le_bytes([b[0], b[1], b[2], b[3]]), 0));
            }
        }
        _ => {
            for (i, b) in bytes.chunks_exact(2).enumerate() {
                put(i, value(ty, u32::from(u16::from_le_bytes([b[0], b[1]])), 0));
            }
        }
    }
}

fn multiply(four: &mut [Warp], r: &mut Reach<'_, '_>, e: &Entry) -> Res<()> {
    let Some(w) = wgmma(r.env.kernel, e.pc) else { return Ok(()) };
    let (n, k) = (w.n as usize, w.k() as usize);
    let per = match w.narrow {
        Some(_) => 16,
        None if w.ty == MmaTy::Tf32 => 4,
        None => 8,
    };
    let mut p = Product::new(n, k);
    let shared = &mut r.banks[r.rank].shared;
    let types = w.narrow.map(|(a, b, _)| (a, b)).unzip();
    let mut load = |bits: u64,
                    rows: u32,
                    narrow: Option<Element>,
                    along_rows: bool,
                    negate: bool,
                    put: &mut dyn FnMut(usize, usize, f32)|
     -> Res<()> {
        let d = descriptor(bits)?;
        for (o, c, address) in chunks(&d, rows, w.k(), along_rows) {
            let at = (u64::from(address) - SHARED_BASE) as usize;
            elements(w.ty, narrow, shared.landed(at, 16), |i, x| {
                let x = if negate { -x } else { x };
                let (row, kk) = if along_rows {
                    (c as usize * per + i, o as usize)
                } else {
                    (o as usize, c as usize * per + i)
                };
                put(row, kk, x);
            });
        }
        Ok(())
    };
    if let WgmmaA::Shared(_) = w.a {
        load(e.a, 64, types.0, w.transpose_a, w.negate_a, &mut |row, kk, x| p.a[row * k + kk] = x)?;
    }
    load(e.b, w.n, types.1, w.transpose_b, w.negate_b, &mut |col, kk, x| p.b[kk * n + col] = x)?;
    if let WgmmaA::Registers(slots) = &w.a {
        for (i, warp) in four.iter().enumerate() {
            fragment(&warp.files, slots, w, &mut p.a[16 * i * k..], k)?;
        }
    }
    if e.add {
        for (i, warp) in four.iter().enumerate() {
            sums(&warp.files, w, &mut p.c[16 * i * n..], n)?;
        }
    }
    let seed = r.env.options.seed ^ r.env.ticks;
    let out = match w.narrow {
        Some((_, _, sums)) => p.exact().into_iter().map(|x| finish(sums, x) as u32).collect(),
        None => p.multiply(r.env.options.mma, w.ty, w.half, seed),
    };
    for (i, warp) in four.iter_mut().enumerate() {
        let rows = &out[16 * i * n..16 * (i + 1) * n];
        for (d, &slot) in w.d.iter().enumerate() {
            let to = warp.files.write(slot, u32::MAX);
            for (lane, to) in to.iter_mut().enumerate() {
                let (g, t) = (lane / 4, lane % 4);
                *to = if w.half {
                    let at = (g + 8 * (d % 2)) * n + 8 * (d / 2) + 2 * t;
                    u64::from(rows[at]) | u64::from(rows[at + 1]) << 16
                } else {
                    let at = (g + 8 * (d / 2 % 2)) * n + 8 * (d / 4) + 2 * t + d % 2;
                    u64::from(rows[at])
                };
            }
        }
    }
    r.env.counters.mma(e.pc, 64 * u64::from(w.n) * k as u64);
    Ok(())
}

/// A's 16 rows of one warp, from four registers: as `mma.sync` has them.
fn fragment(files: &Files, slots: &[u16; 4], w: &Wgmma, a: &mut [f32], k: usize) -> Res<()> {
    let pair = match w.narrow {
        Some(_) => 4,
        None if w.ty == MmaTy::Tf32 => 1,
        None => 2,
    };
    for (i, &slot) in slots.iter().enumerate() {
        let words = files.read(slot, u32::MAX)?;
        for (lane, &word) in words.iter().enumerate() {
            let (row, kk) = (lane / 4 + 8 * (i % 2), 4 * pair * (i / 2) + pair * (lane % 4));
            for e in 0..pair {
                let x = match w.narrow {
                    Some((ty, ..)) => element(ty, word, e as u32) as f32,
                    None => value(w.ty, word as u32, e),
                };
                a[row * k + kk + e] = if w.negate_a { -x } else { x };
            }
        }
    }
    Ok(())
}

/// The accumulators of one warp.
fn sums(files: &Files, w: &Wgmma, c: &mut [f64], n: usize) -> Res<()> {
    for (d, &slot) in w.d.iter().enumerate() {
        let words = files.read(slot, u32::MAX)?;
        for (lane, &word) in words.iter().enumerate() {
            let (g, t) = (lane / 4, lane % 4);
            if w.half {
                let at = (g + 8 * (d % 2)) * n + 8 * (d / 2) + 2 * t;
                c[at] = value(MmaTy::F16, word as u32, 0).into();
                c[at + 1] = value(MmaTy::F16, word as u32, 1).into();
            } else {
                let at = (g + 8 * (d / 2 % 2)) * n + 8 * (d / 4) + 2 * t + d % 2;
                c[at] = match w.narrow {
                    Some((_, _, sums)) => begin(sums, word, 0),
                    None => f32::from_bits(word as u32).into(),
                };
            }
        }
    }
    Ok(())
}

/// A warp ends, and nobody has waited for what it issued.
pub(super) fn leave(warp: &Warp) -> Res<()> {
    if warp.hopper.hazards.any_busy() {
        let message = "the warp ends with a wgmma that wgmma.wait_group has not waited for";
        return trouble(FaultKind::InFlight, warp.live(), message);
    }
    Ok(())
}

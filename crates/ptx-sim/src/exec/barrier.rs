//! The sixteen barriers of a CTA. They count warps, as the ISA says; a count in threads must be a
//! multiple of 32.

use super::trouble::{Res, trouble};
use super::warp::Warp;
use crate::check::clock::Clock;
use crate::isa::inst::{BarKind, PSlot, Slot};
use crate::lanes::lanes;
use crate::report::FaultKind;

/// A warp's arrival, evaluated.
pub(crate) struct Arrival {
    kind: BarKind,
    id: u32,
    /// Warps, when the instruction gives a count.
    count: Option<u32>,
    d: u16,
    mask: u32,
    /// The reduction's operand.
    value: u32,
}

#[derive(Default)]
struct State {
    expected: Option<u32>,
    arrived: u32,
    /// Warps that have arrived, one bit each.
    who: u64,
    /// Those among them that wait: warp, destination, mask.
    waiting: Vec<(usize, u16, u32)>,
    kind: Option<BarKind>,
    gathered: Option<Clock>,
    all: bool,
    any: bool,
    count: u32,
}

/// All barriers of a CTA.
#[derive(Default)]
pub(crate) struct Barriers {
    bars: [State; 16],
}

#[allow(clippy::too_many_arguments)]
pub(super) fn arrive(
    warp: &mut Warp,
    kind: BarKind,
    aligned: bool,
    id: Slot,
    count: Option<Slot>,
    d: u16,
    p: Option<(PSlot, bool)>,
    mask: u32,
) -> Res<Arrival> {
    if !aligned && mask != warp.live() {
        return trouble(
            FaultKind::NotSimulated,
            mask,
            "barrier without .aligned in a part of a warp is not simulated",
        );
    }
    let uniform = |slot: Slot, what: &str| -> Res<u64> {
        let v = warp.files.read(slot, mask)?;
        let first = v[mask.trailing_zeros() as usize];
        if lanes(mask).any(|l| v[l] != first) {
            return trouble(
                FaultKind::Barrier,
                mask,
                format!("the lanes give different barrier {what}"),
            );
        }
        Ok(first)
    };
    let id = uniform(id, "numbers")?;
    if id > 15 {
        return trouble(
            FaultKind::Barrier,
            mask,
            format!("barrier {id} does not exist: there are 16"),
        );
    }
    let count = match count {
        None => None,
        Some(slot) => {
            let threads = uniform(slot, "counts")?;
            if threads == 0 || threads % 32 != 0 {
                return trouble(
                    FaultKind::Barrier,
                    mask,
                    format!("a count of {threads} is no multiple of 32"),
                );
            }
            Some((threads / 32) as u32)
        }
    };
    let value = match p {
        Some((slot, negate)) => {
            (warp.files.pred(slot, mask)? ^ if negate { u32::MAX } else { 0 }) & mask
        }
        None => 0,
    };
    Ok(Arrival { kind, id: id as u32, count, d, mask, value })
}

impl Barriers {
    /// Enters an arrival of warp `index`; true when the barrier completes and warps go on.
    pub(crate) fn enter(&mut self, warps: &mut [Warp], index: usize, a: &Arrival) -> Res<bool> {
        let total = warps.len() as u32;
        let bar = &mut self.bars[a.id as usize];
        if bar.arrived > 0 && bar.expected != a.count {
            let message = format!("barrier {}: counts of the same use differ", a.id);
            return trouble(FaultKind::Barrier, a.mask, message);
        }
        if a.count.is_some_and(|c| c > total) {
            let message = format!(
                "barrier {} waits for {} threads, the CTA has fewer",
                a.id,
                a.count.unwrap_or(0) * 32
            );
            return trouble(FaultKind::Barrier, a.mask, message);
        }
        let is_red = |k: BarKind| matches!(k, BarKind::RedAnd | BarKind::RedOr | BarKind::RedPopc);
        if bar.kind.is_some_and(|k| (is_red(k) || is_red(a.kind)) && k != a.kind) {
            let message = format!("barrier {}: a reduction is mixed with another use", a.id);
            return trouble(FaultKind::Barrier, a.mask, message);
        }
        if bar.who >> index & 1 == 1 {
            let message =
                format!("barrier {}: the warp arrives twice before the barrier completes", a.id);
            return trouble(FaultKind::Barrier, a.mask, message);
        }
        if bar.arrived == 0 {
            (bar.all, bar.any, bar.count) = (true, false, 0);
        }
        bar.expected = a.count;
        bar.kind = Some(a.kind);
        bar.arrived += 1;
        bar.who |= 1 << index;
        bar.all &= a.value == a.mask;
        bar.any |= a.value != 0;
        bar.count += a.value.count_ones();
        let clock = &mut warps[index].clock;
        clock.meet();
        match &mut bar.gathered {
            Some(all) => all.join(clock.base()),
            None => bar.gathered = Some(clock.base().clone()),
        }
        if a.kind != BarKind::Arrive {
            bar.waiting.push((index, a.d, a.mask));
            warps[index].waiting = Some(super::warp::Waiting::Barrier(a.id));
        }
        Ok(self.complete(warps, a.id as usize))
    }

    /// Releases the waiters when enough have arrived; a count-less barrier waits for live warps.
    fn complete(&mut self, warps: &mut [Warp], id: usize) -> bool {
        let live = warps.iter().filter(|w| !w.fragments.is_empty()).count() as u32;
        let bar = &mut self.bars[id];
        if bar.arrived == 0 || bar.arrived < bar.expected.unwrap_or(live) {
            return false;
        }
        let bar = std::mem::take(bar);
        for (index, d, mask) in bar.waiting {
            let warp = &mut warps[index];
            warp.waiting = None;
            if let Some(all) = &bar.gathered {
                warp.clock.learn(all);
            }
            match bar.kind {
                Some(BarKind::RedPopc) => warp.files.store(d, mask, &[u64::from(bar.count); 32]),
                Some(BarKind::RedAnd) => {
                    warp.files.set_pred(d, mask, if bar.all { u32::MAX } else { 0 })
                }
                Some(BarKind::RedOr) => {
                    warp.files.set_pred(d, mask, if bar.any { u32::MAX } else { 0 })
                }
                _ => {}
            }
        }
        true
    }

    /// A warp has ended: barriers without a count need one arrival less.
    pub(crate) fn warp_ended(&mut self, warps: &mut [Warp]) -> bool {
        (0..16).filter(|&id| self.complete(warps, id)).count() > 0
    }

    /// How a waiting warp's state is described.
    pub(crate) fn describe(&self, id: u32, live: usize) -> String {
        let bar = &self.bars[id as usize];
        let expected = bar.expected.map_or(live, |e| e as usize);
        format!("waits at barrier {id} ({} of {expected} warps have arrived)", bar.arrived)
    }
}

//! Registers of `wgmma`: who else touches them while a multiplication may read or write them, and which
//! were touched since the last `wgmma.fence`. The decoder says which instructions touch such registers at
//! all (`Kernel::watch`), so nothing else pays.

use crate::isa::inst::Slot;

/// What a register is to the multiplications that have not been waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// An accumulator of so many columns; f16 or f32.
    Sum(u32, bool),
    Operand,
}

#[derive(Clone, Copy, Debug)]
struct Busy {
    slot: Slot,
    group: u32,
    used: Use,
}

#[derive(Debug, Default)]
pub(crate) struct Hazards {
    fenced: bool,
    touched: Vec<Slot>,
    busy: Vec<Busy>,
    /// Position in `busy`, plus one, by slot.
    place: Vec<u32>,
}

impl Hazards {
    fn busy(&self, slot: Slot) -> Option<&Busy> {
        let place = *self.place.get(slot as usize)?;
        self.busy.get((place as usize).wrapping_sub(1))
    }

    /// A multiplication that has been issued leaves its sums there.
    pub(crate) fn is_sum(&self, slot: Slot) -> bool {
        matches!(self.busy(slot), Some(Busy { used: Use::Sum(..), .. }))
    }

    /// An ordinary instruction touches watched registers.
    pub(crate) fn touch(&mut self, slots: &[(Slot, bool)]) -> Result<(), String> {
        for &(slot, write) in slots {
            if let Some(busy) = self.busy(slot) {
                let verb = if write { "written" } else { "read" };
                let what = match busy.used {
                    Use::Sum(..) => "an accumulator",
                    Use::Operand => "a register of A",
                };
                return Err(format!(
                    "{what} is {verb} before wgmma.wait_group has waited for its wgmma (group {})",
                    busy.group
                ));
            }
            if !self.touched.contains(&slot) {
                self.touched.push(slot);
            }
        }
        Ok(())
    }

    pub(crate) fn fence(&mut self) {
        self.fenced = true;
        self.touched.clear();
    }

    /// A multiplication takes its registers.
    pub(crate) fn take(
        &mut self,
        sums: &[Slot],
        shape: (u32, bool),
        operands: &[Slot],
        group: u32,
    ) -> Result<(), String> {
        if !self.fenced {
            return Err("the first wgmma.mma_async of a warp needs a wgmma.fence before it".into());
        }
        if !self.touched.is_empty()
            && let Some(slot) = sums.iter().chain(operands).find(|s| self.touched.contains(s))
        {
            let what = if sums.contains(slot) { "an accumulator" } else { "a register of A" };
            return Err(format!("{what} was touched since the last wgmma.fence"));
        }
        let used = Use::Sum(shape.0, shape.1);
        for (&slot, used) in
            sums.iter().map(|s| (s, used)).chain(operands.iter().map(|s| (s, Use::Operand)))
        {
            match self.busy(slot).copied() {
                // Sums of one shape chain in order; A may be read by several.
                Some(busy) if busy.used == used => {
                    let place = self.place[slot as usize] as usize - 1;
                    self.busy[place].group = group;
                }
                Some(_) => {
                    return Err(
                        "a register of a wgmma that has not been waited for is used by one of \
                                another shape, or in another place"
                            .into(),
                    );
                }
                None => {
                    if self.place.len() <= slot as usize {
                        self.place.resize(slot as usize + 1, 0);
                    }
                    self.busy.push(Busy { slot, group, used });
                    self.place[slot as usize] = self.busy.len() as u32;
                }
            }
        }
        Ok(())
    }

    /// Groups up to this one have been waited for.
    pub(crate) fn release(&mut self, upto: u32) {
        if self.busy.iter().all(|b| b.group > upto) {
            return;
        }
        self.busy.iter().for_each(|b| self.place[b.slot as usize] = 0);
        self.busy.retain(|b| b.group > upto);
        for (i, b) in self.busy.iter().enumerate() {
            self.place[b.slot as usize] = i as u32 + 1;
        }
    }

    pub(crate) fn any_busy(&self) -> bool {
        !self.busy.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_chain_and_nothing_else_touches_them() {
        let mut h = Hazards::default();
        assert!(h.take(&[1, 2], (8, false), &[], 1).is_err(), "no fence yet");
        h.fence();
        h.take(&[1, 2], (8, false), &[7], 1).unwrap();
        h.take(&[1, 2], (8, false), &[7], 1).unwrap();
        assert!(h.take(&[1, 2], (16, false), &[], 1).is_err(), "another shape");
        assert!(h.take(&[7], (8, false), &[], 1).is_err(), "A as an accumulator");
        assert!(h.touch(&[(1, false)]).is_err() && h.touch(&[(7, true)]).is_err());
        h.touch(&[(3, true)]).unwrap();
        h.release(0);
        assert!(h.any_busy());
        h.release(1);
        h.touch(&[(1, false)]).unwrap();
        assert!(h.take(&[1, 2], (8, false), &[], 2).is_err(), "read since the fence");
        h.fence();
        h.take(&[1, 2], (8, false), &[], 2).unwrap();
    }
}

//! Release and acquire through memory: what each flag's last releasing write published.

use std::collections::HashMap;

use crate::check::clock::{CLUSTER, Clock, GPU};
use crate::check::warp_clock::WarpClock;

/// A strong access: its strength as in a stamp, and whose it is.
#[derive(Clone, Copy)]
pub(crate) struct Strong {
    pub(crate) strength: u32,
    pub(crate) cta: u32,
    pub(crate) cluster: u32,
}

struct Published {
    clock: Clock,
    by: Strong,
}

/// Published clocks by address.
#[derive(Default)]
pub(crate) struct SyncTable {
    table: HashMap<u64, Published>,
}

impl SyncTable {
    pub(crate) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// A plain store ends what the address published.
    pub(crate) fn forget(&mut self, key: u64) {
        self.table.remove(&key);
    }

    /// A releasing write; `chain` when it is a read-modify-write, which carries earlier releases on.
    fn publish(&mut self, key: u64, clock: Clock, by: Strong, chain: bool) {
        match self.table.get_mut(&key) {
            Some(old) if chain => {
                old.clock.join(&clock);
                old.by.strength = old.by.strength.min(by.strength);
            }
            _ => {
                self.table.insert(key, Published { clock, by });
            }
        }
    }

    /// What a strong read of `key` may learn.
    fn observe(&self, key: u64, by: Strong) -> Option<&Clock> {
        let p = self.table.get(&key)?;
        let meets = p.by.cta == by.cta
            || match p.by.strength.min(by.strength) {
                GPU => true,
                CLUSTER => p.by.cluster == by.cluster,
                _ => false,
            };
        meets.then_some(&p.clock)
    }

    /// The ordering side of a strong read; `acquire` says whether it counts at once.
    pub(crate) fn read(
        &self,
        key: u64,
        by: Strong,
        acquire: bool,
        clock: &mut WarpClock,
        lane: u8,
    ) {
        if let Some(published) = self.observe(key, by) {
            if acquire {
                clock.acquire(lane, published);
            } else {
                clock.see(lane, published);
            }
        }
    }

    /// The ordering side of a strong write; `chain` as in [`publish`](Self::publish).
    pub(crate) fn write(
        &mut self,
        key: u64,
        by: Strong,
        release: bool,
        chain: bool,
        clock: &mut WarpClock,
        lane: u8,
    ) {
        if release {
            let published = clock.release(lane);
            self.publish(key, published, by, chain);
        } else if let Some((published, fence)) = clock.fenced(lane) {
            let by = Strong { strength: by.strength.min(*fence), ..by };
            let mut published = published.clone();
            if let Some(sc) = clock.sc_alone(lane) {
                published.join(&sc);
            }
            self.publish(key, published, by, chain);
        } else if let Some(sc) = clock.sc_alone(lane) {
            self.publish(key, sc, by, chain);
        } else if !chain {
            self.forget(key);
        }
    }
}

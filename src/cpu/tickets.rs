//! Shares tickets out among threads. Tickets are drawn in order, so a ticket may wait for a
//! strictly lower one: whoever drew that is at work on it, and the lowest never waits.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::plan::cpu::Schedule;

/// The threads of one run.
#[derive(Clone, Copy)]
pub(super) struct Team<'a> {
    pub(super) pool: Option<&'a rayon::ThreadPool>,
    pub(super) schedule: &'a Schedule,
}

impl Team<'_> {
    /// Lets every worker make its state (`worker` is its number, given out once) and then
    /// draw tickets until none is left.
    pub(super) fn run<S>(
        &self,
        state: impl Fn(usize) -> S + Sync,
        ticket: impl Fn(&mut S, usize) + Sync,
    ) {
        self.run_tickets(self.schedule.tickets, state, ticket);
    }

    /// The same with another number of tickets, for one of several rounds.
    pub(super) fn run_tickets<S>(
        &self,
        tickets: usize,
        state: impl Fn(usize) -> S + Sync,
        ticket: impl Fn(&mut S, usize) + Sync,
    ) {
        let Schedule { workers, .. } = *self.schedule;
        let next = AtomicUsize::new(0);
        let work = |worker: usize| {
            let mut drawn = next.fetch_add(1, Ordering::Relaxed);
            if drawn >= tickets {
                return;
            }
            let mut state = state(worker);
            while drawn < tickets {
                ticket(&mut state, drawn);
                drawn = next.fetch_add(1, Ordering::Relaxed);
            }
        };
        let workers = workers.min(tickets);
        let all = || (0..workers).into_par_iter().with_max_len(1).for_each(work);
        match self.pool {
            _ if workers <= 1 => work(0),
            Some(pool) => pool.install(all),
            None => all(),
        }
    }
}

/// Waits until `done` reaches `target`. The threads that will count it up hold lower
/// tickets and are running, so this ends.
pub(super) fn wait(done: &AtomicU32, target: usize) {
    let mut spins = 0u32;
    while (done.load(Ordering::Acquire) as usize) < target {
        spins += 1;
        if spins < 64 {
            core::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

/// Says, when it goes, that one more lower ticket is done, and with it all that it wrote.
/// On unwinding, too: a panic must not leave the others waiting.
pub(super) struct Publish<'a>(pub(super) &'a AtomicU32);

impl Drop for Publish<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

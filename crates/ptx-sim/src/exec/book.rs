//! Who is behind an agent's number: launches, copies, the host. Numbers go on through all of them,
//! so that two accesses are told apart whatever made them.

use std::sync::Arc;

use crate::check::clock::{ENGINES, Stamp};
use crate::isa::Kernel;
use crate::report::Other;

struct Page {
    first: u32,
    name: String,
    /// The kernel and the agents of one of its CTAs.
    kernel: Option<(Arc<Kernel>, u32)>,
}

/// All that have got numbers since everything was known to everybody.
#[derive(Default)]
pub(crate) struct Book {
    pages: Vec<Page>,
    next: u32,
}

impl Book {
    /// Numbers for a launch, or for something that needs but one; none when they are used up.
    pub(crate) fn open(
        &mut self,
        name: String,
        agents: u64,
        kernel: Option<(Arc<Kernel>, u32)>,
    ) -> Option<u32> {
        let first = self.next;
        // A CTA's engines are told apart by parity, and the flags' keys leave 31 bits.
        let end = (u64::from(first) + agents).next_multiple_of(u64::from(ENGINES));
        self.next = u32::try_from(end).ok().filter(|&end| end < 1 << 31)?;
        self.pages.push(Page { first, name, kernel });
        Some(first)
    }

    /// The first number not given out yet.
    pub(crate) fn next(&self) -> u32 {
        self.next
    }

    pub(crate) fn clear(&mut self) {
        *self = Book::default();
    }

    /// Describes the access of a stamp, seen from the launch whose first agent is `mine`.
    pub(crate) fn other(&self, stamp: &Stamp, write: bool, mine: u32) -> Other {
        let page = self.pages.partition_point(|p| p.first <= stamp.agent).checked_sub(1);
        let page = page.and_then(|i| self.pages.get(i));
        let mut other = Other {
            by: page.filter(|p| p.first != mine).map(|p| p.name.clone()),
            line: 0,
            cta: 0,
            warp: 0,
            lanes: stamp.lanes,
            asynchronous: false,
            write,
        };
        if let Some(Page { first, kernel: Some((kernel, agents)), .. }) = page {
            let agent = stamp.agent - first;
            other.line = kernel.insts.get(stamp.pc() as usize).map_or(0, |i| i.line);
            other.cta = agent / agents;
            other.warp = agent % agents / ENGINES;
            other.asynchronous = agent % ENGINES == 1;
        }
        other
    }
}

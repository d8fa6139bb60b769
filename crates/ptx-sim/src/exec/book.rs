//! Who is behind an agent's number: launches, copies, the host. Numbers go on through all of them,
//! so that two accesses are told apart whatever made them.

use std::sync::Arc;

use crate::check::agents::{Agents, Kind};
use crate::check::clock::Stamp;
use crate::isa::Kernel;
use crate::plan::Plan;
use crate::report::Other;

struct Page {
    first: u32,
    name: String,
    kernel: Option<Author>,
}

/// A launch as it is behind agents.
pub(crate) struct Author {
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) agents: Agents,
    pub(crate) plan: Plan,
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
        kernel: Option<Author>,
    ) -> Option<u32> {
        let first = self.next;
        // The flags' keys leave 31 bits; agents of a warp come in pairs.
        let end = (u64::from(first) + agents).next_multiple_of(2);
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
        if let Some(Page { first, kernel: Some(author), .. }) = page {
            let Author { kernel, agents, plan } = author;
            let agent = stamp.agent - first;
            other.line = kernel.insts.get(stamp.pc() as usize).map_or(0, |i| i.line);
            let (cta, size) = (agent / agents.count(), plan.cluster_size());
            other.cta = plan.linear(plan.cta(cta / size, cta % size));
            (other.warp, other.asynchronous) = match agents.kind(agent % agents.count()) {
                Kind::Warp(w) | Kind::Inits(w) | Kind::Proxied(w) => (w, false),
                Kind::Copies(w) | Kind::BulkReads(w) | Kind::BulkWrites(w) => (w, true),
                Kind::Matrix(group) => (4 * group, true),
                // Which warp asked for it is not kept; the line says where.
                Kind::Barrier(_) => (0, true),
            };
        }
        other
    }
}

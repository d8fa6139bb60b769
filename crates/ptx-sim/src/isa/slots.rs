//! Which registers an instruction reads and writes. Asked once per instruction, when a kernel has
//! `wgmma`, whose registers nobody else may touch while it runs.

use super::hopper::{BulkEnd, Hopper};
use super::inst::{Addr, BarKind, Op, Slot, VoteMode};

impl Op {
    /// Calls `see` with every register, and whether it is written.
    pub(super) fn slots(&self, see: &mut dyn FnMut(Slot, bool)) {
        let reads = |slots: &[Slot], see: &mut dyn FnMut(Slot, bool)| {
            slots.iter().for_each(|&s| see(s, false));
        };
        match self {
            Op::Mov { d, a }
            | Op::Unary { d, a, .. }
            | Op::Cvt { d, a, .. }
            | Op::Movmatrix { d, a }
            | Op::Cvta { d, a, .. } => {
                reads(&[*a], see);
                see(*d, true);
            }
            Op::MovPred { .. }
            | Op::SetPred { .. }
            | Op::LogicPred { .. }
            | Op::Bra { .. }
            | Op::Exit
            | Op::Trap
            | Op::Nanosleep
            | Op::Fence { .. }
            | Op::Prefetch
            | Op::CpCommit
            | Op::CpWait { .. } => {}
            Op::Clock { d, .. } | Op::Activemask { d } => see(*d, true),
            Op::Pack { d, s, .. } => {
                reads(s, see);
                see(*d, true);
            }
            Op::Unpack { d, s, .. } => {
                reads(&[*s], see);
                d.iter().flatten().for_each(|&d| see(d, true));
            }
            Op::Binary { d, a, b, .. }
            | Op::CvtPair { d, a, b, .. }
            | Op::CvtFp8 { d, a, b, .. }
            | Op::Selp { d, a, b, .. } => {
                reads(&[*a, *b], see);
                see(*d, true);
            }
            Op::Ternary { d, a, b, c, .. } | Op::Slct { d, a, b, c, .. } => {
                reads(&[*a, *b, *c], see);
                see(*d, true);
            }
            Op::Bfi { d, a, b, c, e, .. } => {
                reads(&[*a, *b, *c, *e], see);
                see(*d, true);
            }
            Op::Float { d, s, n, .. } => {
                reads(&s[..*n as usize], see);
                see(*d, true);
            }
            Op::Carry(c) => {
                reads(&[c.a, c.b], see);
                reads(c.c.as_slice(), see);
                see(c.d, true);
            }
            Op::Packed(p) => {
                reads(&[p.a, p.b, p.c], see);
                see(p.d, true);
            }
            Op::Lop3Pred { d, s, .. } => {
                reads(s, see);
                d.iter().for_each(|&d| see(d, true));
            }
            Op::Set { d, a, b, .. } => {
                reads(&[*a, *b], see);
                see(*d, true);
            }
            Op::Testp { a, .. } | Op::Isspacep { a, .. } => reads(&[*a], see),
            Op::BraTable { index, .. } => reads(&[*index], see),
            Op::Setp { a, b, .. } => reads(&[*a, *b], see),
            Op::Load(l) => {
                reads(&[l.addr.base], see);
                l.d.iter().flatten().for_each(|&d| see(d, true));
            }
            Op::Store(s) => {
                reads(&[s.addr.base], see);
                reads(&s.s, see);
            }
            Op::Atom(a) => {
                reads(&[a.addr.base], see);
                reads(&a.a, see);
                reads(a.b.as_slice(), see);
                a.d.iter().flatten().for_each(|&d| see(d, true));
            }
            Op::CpAsync(c) => {
                reads(&[c.dst.base, c.src.base], see);
                reads(c.src_size.as_slice(), see);
            }
            Op::Ldmatrix { addr, d, .. } => {
                reads(&[addr.base], see);
                d.iter().for_each(|&d| see(d, true));
            }
            Op::Mma(m) => {
                [&m.a, &m.b, &m.c].into_iter().for_each(|s| reads(s, see));
                m.d.iter().for_each(|&d| see(d, true));
            }
            Op::NarrowMma(m) => {
                [&m.a, &m.b, &m.c].into_iter().for_each(|s| reads(s, see));
                m.d.iter().for_each(|&d| see(d, true));
            }
            Op::Shfl { d, a, b, c, members, .. } => {
                reads(&[*a, *b, *c, *members], see);
                see(*d, true);
            }
            Op::Vote { mode, d, members, .. } => {
                reads(&[*members], see);
                if *mode == VoteMode::Ballot {
                    see(*d, true);
                }
            }
            Op::Redux { d, a, members, .. } | Op::Match { d, a, members, .. } => {
                reads(&[*a, *members], see);
                see(*d, true);
            }
            Op::WarpSync { members } => reads(&[*members], see),
            Op::Bar { id, count, kind, d, .. } => {
                if *kind == BarKind::RedPopc {
                    see(*d, true);
                }
                reads(&[*id], see);
                reads(count.as_slice(), see);
            }
            Op::Hopper(h) => hopper(h, see),
        }
    }
}

/// The operands of `wgmma` itself are its own affair.
fn hopper(op: &Hopper, see: &mut dyn FnMut(Slot, bool)) {
    let addr = |a: &Addr, see: &mut dyn FnMut(Slot, bool)| see(a.base, false);
    match op {
        Hopper::Mbarrier(m) => {
            addr(&m.addr, see);
            m.n.iter().for_each(|&n| see(n, false));
            m.d.iter().for_each(|&d| see(d, true));
        }
        Hopper::Wait(w) => {
            addr(&w.addr, see);
            see(w.phase, false);
        }
        Hopper::PendingCount { d, state } => {
            see(*state, false);
            see(*d, true);
        }
        Hopper::CopiesArrive { addr: a, .. } | Hopper::PrefetchMap { addr: a } => addr(a, see),
        Hopper::Bulk(b) => {
            for end in [&b.to, &b.from] {
                match end {
                    BulkEnd::Global(a) | BulkEnd::Shared(a) => addr(a, see),
                    BulkEnd::Tensor(a, coords) => {
                        addr(a, see);
                        coords.iter().for_each(|&c| see(c, false));
                    }
                }
            }
            b.barrier.iter().for_each(|a| addr(a, see));
            b.size.iter().chain(&b.multicast).for_each(|&s| see(s, false));
        }
        Hopper::Elect { d, members, .. } => {
            see(*members, false);
            d.iter().for_each(|&d| see(d, true));
        }
        Hopper::Stmatrix { addr: a, s, .. } => {
            addr(a, see);
            s.iter().for_each(|&s| see(s, false));
        }
        Hopper::Mapa { d, a, rank, .. } => {
            see(*a, false);
            see(*rank, false);
            see(*d, true);
        }
        Hopper::CtaRank { d, a, .. } => {
            see(*a, false);
            see(*d, true);
        }
        Hopper::StoreAsync { addr: a, barrier, s, .. } => {
            addr(a, see);
            addr(barrier, see);
            s.iter().for_each(|&s| see(s, false));
        }
        Hopper::Wgmma(_)
        | Hopper::WgmmaFence
        | Hopper::WgmmaCommit
        | Hopper::WgmmaWait { .. }
        | Hopper::BulkCommit
        | Hopper::BulkWait { .. }
        | Hopper::ProxyFence { .. }
        | Hopper::InitFence
        | Hopper::MaxRegisters { .. }
        | Hopper::GridWait
        | Hopper::GridLaunch
        | Hopper::ClusterArrive { .. }
        | Hopper::ClusterWait { .. } => {}
    }
}

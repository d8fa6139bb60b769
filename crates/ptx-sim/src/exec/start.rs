//! Fills a new warp's constant slots: immediates, addresses of shared variables, specials.

use super::warp::Files;
use crate::isa::{ConstInit, Kernel, Special};
use crate::mem::{SHARED_BASE, SMALL_BASE};
use crate::options::Options;
use crate::plan::Plan;

/// Where a CTA stands in its grid, its cluster, and on the chip.
pub(super) struct Standing {
    pub(super) ctaid: [u32; 3],
    /// Linear number of the cluster.
    pub(super) cluster: u32,
    pub(super) rank: u32,
    pub(super) sm: u32,
}

pub(super) fn fill(
    files: &mut Files,
    kernel: &Kernel,
    plan: &Plan,
    at: &Standing,
    warp: u32,
    options: &Options,
) {
    let threads: u32 = plan.block.iter().product();
    let [bx, by, _] = plan.block;
    for &(slot, init) in &kernel.inits {
        let values = std::array::from_fn(|lane| {
            let thread = 32 * warp + lane as u32;
            let lane = lane as u32;
            let v: u32 = match init {
                ConstInit::Bits(bits) => return bits,
                ConstInit::Shared(at) => return SHARED_BASE.wrapping_add(at),
                ConstInit::Local(at) | ConstInit::Const(at) => return SMALL_BASE.wrapping_add(at),
                ConstInit::Global(at) => return plan.globals.wrapping_add(at),
                ConstInit::Special(special) => match special {
                    Special::Tid(0) => thread % bx,
                    Special::Tid(1) => thread / bx % by,
                    Special::Tid(_) => thread / bx / by,
                    Special::Ntid(axis) => plan.block[axis as usize],
                    Special::Ctaid(axis) => at.ctaid[axis as usize],
                    Special::Nctaid(axis) => plan.grid[axis as usize],
                    Special::Clusterid(axis) => plan.cluster_id(at.cluster)[axis as usize],
                    Special::Nclusterid(axis) => plan.clusters()[axis as usize],
                    Special::ClusterCtaid(axis) => plan.within(at.rank)[axis as usize],
                    Special::ClusterNctaid(axis) => plan.cluster[axis as usize],
                    Special::ClusterCtarank => at.rank,
                    Special::ClusterNctarank => plan.cluster_size(),
                    Special::Laneid => lane,
                    Special::Warpid => warp,
                    Special::Nwarpid => threads.div_ceil(32),
                    Special::Smid => at.sm % options.sms,
                    Special::Nsmid => options.sms,
                    Special::MaskEq => 1 << lane,
                    Special::MaskLe => u32::MAX >> (31 - lane),
                    Special::MaskLt => (1 << lane) - 1,
                    Special::MaskGe => u32::MAX << lane,
                    Special::MaskGt => !(u32::MAX >> (31 - lane)),
                    Special::DynamicShared => plan.dynamic_shared,
                    Special::TotalShared => plan.shared as u32,
                    Special::Gridid => 1,
                },
            };
            u64::from(v)
        });
        files.store(slot, u32::MAX, &values);
    }
}

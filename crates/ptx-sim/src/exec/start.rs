//! Fills a new warp's constant slots: immediates, addresses of shared variables, specials.

use super::warp::Files;
use crate::isa::{ConstInit, Kernel, Special};
use crate::launch::{Options, Plan};
use crate::mem::{SHARED_BASE, SMALL_BASE};

pub(super) fn fill(
    files: &mut Files,
    kernel: &Kernel,
    plan: &Plan,
    ctaid: [u32; 3],
    warp: u32,
    sm: u32,
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
                    Special::Ctaid(axis) => ctaid[axis as usize],
                    Special::Nctaid(axis) => plan.grid[axis as usize],
                    Special::Laneid => lane,
                    Special::Warpid => warp,
                    Special::Nwarpid => threads.div_ceil(32),
                    Special::Smid => sm % options.sms,
                    Special::Nsmid => options.sms,
                    Special::MaskEq => 1 << lane,
                    Special::MaskLe => u32::MAX >> (31 - lane),
                    Special::MaskLt => (1 << lane) - 1,
                    Special::MaskGe => u32::MAX << lane,
                    Special::MaskGt => !(u32::MAX >> (31 - lane)),
                    Special::DynamicShared => plan.dynamic_shared,
                    Special::TotalShared => plan.shared as u32,
                },
            };
            u64::from(v)
        });
        files.store(slot, u32::MAX, &values);
    }
}

//! What the engines, and the other CTAs of a cluster, reach of a CTA: its shared memory, the
//! mbarriers in it, its matrix queues and its pool of registers.

use super::hopper::mbarrier::Mbarriers;
use super::hopper::queue::Queue;
use super::hopper::registers::Registers;
use crate::check::region::Region;

#[derive(Debug)]
pub(crate) struct Bank {
    pub(crate) shared: Region,
    pub(crate) barriers: Mbarriers,
    /// One for every four warps.
    pub(crate) queues: Vec<Queue>,
    pub(crate) registers: Registers,
    /// The CTA has ended.
    pub(crate) ended: bool,
}

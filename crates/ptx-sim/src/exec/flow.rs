//! What an instruction leaves to the scheduler. Returned by `step` and by the engines, acted on by `run`.

use super::barrier::Arrival;
use super::hopper::queue::Ask;
use super::warp::Waiting;

/// What the scheduler has to do next.
pub(crate) enum Flow {
    Next,
    /// The warp asks for others to run (`nanosleep`).
    Yield,
    Barrier(Arrival),
    /// The warp stands still until woken, then tries again.
    Retry(Waiting),
    /// For the queue of the warpgroup.
    Matrix(Ask),
    /// A half of the cluster's barrier.
    Cluster {
        arrive: bool,
        relaxed: bool,
        mask: u32,
    },
    /// Launches that depend on this one may begin.
    GridLaunch,
    Done,
}

impl Flow {
    /// The instruction is over, as far as its warp goes.
    pub(super) fn passes(&self) -> bool {
        match self {
            Flow::Retry(_) | Flow::Matrix(Ask::Wait { .. }) => false,
            Flow::Cluster { arrive, .. } => *arrive,
            _ => true,
        }
    }
}

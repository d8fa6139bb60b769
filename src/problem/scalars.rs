//! The numbers of a run on which no plan depends. Part of a [`Problem`](super::Problem), which a
//! caller writes with them; a product names them, and executors take them with every run.

use super::{Operation, Problem};
use crate::{Error, Result};

/// s and β.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scalars {
    pub(crate) scale: f32,
    pub(crate) beta: f32,
}

impl Scalars {
    pub(crate) fn of(problem: &Problem) -> Scalars {
        Scalars { scale: problem.scale(), beta: problem.beta() }
    }

    pub(super) fn validate(self) -> Result<()> {
        for (what, got) in [("scale", self.scale), ("beta", self.beta)] {
            if !got.is_finite() {
                return Err(Error::Scalar { what, got });
            }
        }
        Ok(())
    }
}

impl Problem {
    /// What a plan depends on: the same problem with scale 1, and β 1 where it is not 0. Keep plans
    /// by it, and give each run its numbers with [`Plan::with_scalars`](crate::Plan::with_scalars):
    /// adapters that differ in nothing but their scale then share one.
    ///
    /// ```
    /// use fused_lora::Problem;
    ///
    /// let problem = Problem::forward(8, 64, 32, 4);
    /// assert_eq!(problem.with_scale(0.5).identity(), problem.with_scale(2.0).identity());
    /// // Whether old values are read is another plan.
    /// assert_ne!(problem.with_beta(0.5).identity(), problem.identity());
    /// ```
    pub fn identity(&self) -> Problem {
        let beta = if self.updates() { 1.0 } else { 0.0 };
        self.with_scale(1.0).with_beta(beta)
    }

    /// The numbers of a run of this problem, others than its own.
    pub(crate) fn scalars(&self, scale: f32, beta: f32) -> Result<Scalars> {
        let scalars = Scalars { scale, beta };
        scalars.validate()?;
        if self.has_beta() && (beta != 0.0) != self.updates() {
            return Err(Error::Beta { planned: self.beta(), got: beta });
        }
        Ok(scalars)
    }

    /// Whether it adds β times old values.
    fn updates(&self) -> bool {
        self.has_beta() && self.beta() != 0.0
    }

    /// Whether β means something to the operation.
    fn has_beta(&self) -> bool {
        use Operation::{BackwardAdapter, BackwardGain, BackwardInput, Chain, Forward};
        let of = self.operation;
        matches!(of, Forward | BackwardInput | BackwardAdapter | Chain | BackwardGain)
    }
}

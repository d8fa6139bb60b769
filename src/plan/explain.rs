//! A plan in words: what `Plan::explain` prints.

use core::fmt;

use super::{Outcome, Plan};
use crate::Convolution;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problem = &self.problem;
        writeln!(
            f,
            "{}: tokens {}, in_features {}, out_features {}, rank {}, {}{}{} (adapter {}, gradient {})",
            problem.operation(),
            problem.tokens(),
            problem.in_features(),
            problem.out_features(),
            problem.rank(),
            problem.activation(),
            if problem.output() != problem.activation() { ", output f32" } else { "" },
            if problem.is_tf32() { ", may round to tf32" } else { "" },
            problem.adapter(),
            problem.gradient(),
        )?;
        if let Some(of) = problem.convolution() {
            let Convolution { images, size, kernel, stride, padding, dilation, channels } = of;
            writeln!(
                f,
                "convolution: {images} images of {size:?}, kernel {kernel:?}, stride {stride:?}, padding {padding:?}, \
                 dilation {dilation:?}, channels {channels:?}",
            )?;
        }
        writeln!(f, "device: {}", self.capabilities)?;
        for candidate in &self.candidates {
            let name = format!("{}/{}", candidate.strategy, candidate.preset);
            match &candidate.outcome {
                Outcome::Chosen(micros) => {
                    writeln!(f, "  {name:<18} chosen   {micros:.0} µs (model)")?
                }
                Outcome::Slower(micros) => {
                    writeln!(f, "  {name:<18} possible {micros:.0} µs (model)")?
                }
                Outcome::NotForced => writeln!(f, "  {name:<18} not the forced choice")?,
                Outcome::Refused(reason) => writeln!(f, "  {name:<18} refused: {reason}")?,
            }
        }
        for launch in &self.launches {
            writeln!(
                f,
                "launch {}: grid {:?}, block {:?}",
                launch.kernel, launch.grid, launch.block
            )?;
        }
        let giga = |of: u64| of as f64 / 1e9;
        write!(
            f,
            "cost: {:.3} GFLOP (floor {:.3} of the plain layer), {:.4} GB, workspace {} bytes",
            giga(self.flops),
            self.floor(),
            giga(self.bytes),
            self.workspace_len,
        )
    }
}

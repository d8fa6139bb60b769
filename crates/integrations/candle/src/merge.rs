//! Merging as one of candle's in-place ops. Called by `linear` and `peft`, on a tensor of their own.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, InplaceOp3, Layout, Result, bail};
use fused_lora::{Executor, Merge};

use crate::store::{Placed, Store, matrix, operand};

/// `w ± s·b·a`, in place.
pub(crate) struct MergeOp {
    pub(crate) scale: f32,
    pub(crate) unmerge: bool,
}

impl MergeOp {
    fn run<S: Store>(&self, w: (&mut S, &Layout), a: Placed<S>, b: Placed<S>) -> Result<()> {
        let (w, layout) = w;
        let Some(w) = matrix(w.write()?, layout) else { bail!("lora: w lies badly: {layout:?}") };
        let of = Merge::new(w).adapter(operand("a", a)?, operand("b", b)?).scale(self.scale);
        a.0.run(|executor, queue| match self.unmerge {
            false => executor.merge(queue, of),
            true => executor.unmerge(queue, of),
        })
    }
}

impl InplaceOp3 for MergeOp {
    fn name(&self) -> &'static str {
        "fused-lora-merge"
    }

    #[rustfmt::skip]
    fn cpu_fwd(
        &self,
        w: &mut CpuStorage, of_w: &Layout,
        a: &CpuStorage, of_a: &Layout,
        b: &CpuStorage, of_b: &Layout,
    ) -> Result<()> {
        self.run((w, of_w), (a, of_a), (b, of_b))
    }

    #[cfg(feature = "cuda")]
    #[rustfmt::skip]
    fn cuda_fwd(
        &self,
        w: &mut CudaStorage, of_w: &Layout,
        a: &CudaStorage, of_a: &Layout,
        b: &CudaStorage, of_b: &Layout,
    ) -> Result<()> {
        self.run((w, of_w), (a, of_a), (b, of_b))
    }
}

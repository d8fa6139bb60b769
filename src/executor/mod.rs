//! What the executors have in common: the trait that a host is written against once, the plans that an
//! executor keeps (`plans`), and what it keeps for runs to come (`pool`). Implemented by `cpu`, `cuda`
//! and `wgpu`, and over a host's own launches (`hosted`); `Device` is built on it.

mod hosted;
mod plans;
mod pool;

use std::sync::Arc;

pub use hosted::{Host, HostBinding, Hosted};
pub(crate) use plans::Plans;
pub(crate) use pool::{Pool, Taken};

use crate::{
    Backward, BackwardGain, Buffer, Capabilities, Forward, Merge, Norm, Plan, Problem, Result,
};

/// Somewhere layers run: operands in, done. An executor reads the problem off the operands, keeps the
/// plans of the problems it has met and the memory that they need, and may be used from any thread, one
/// of rayon's workers included.
///
/// ```
/// use fused_lora::{Executor, Forward, Matrix, Result};
///
/// /// A host that is written once.
/// fn layer<'a, E: Executor>(
///     executor: &E,
///     queue: E::Queue<'_>,
///     [x, w]: [Matrix<E::Slice<'a>>; 2],
///     y: Matrix<E::SliceMut<'a>>,
/// ) -> Result<()> {
///     executor.forward(queue, Forward::new(x, w, y))
/// }
///
/// use fused_lora::cpu::Cpu;
/// let (x, w, mut y) = ([1.0f32; 6], [1.0f32; 12], [0.0f32; 8]);
/// let [of_x, of_w] = [Matrix::new(x.as_slice().into(), 2, 3), Matrix::new(w.as_slice().into(), 4, 3)];
/// layer(&Cpu::new(), (), [of_x, of_w], Matrix::new(y.as_mut_slice().into(), 2, 4))?;
/// assert_eq!(y, [3.0; 8]);
/// # Ok::<(), fused_lora::Error>(())
/// ```
pub trait Executor {
    /// A buffer that is read.
    type Slice<'a>: Buffer;
    /// A buffer that is written.
    type SliceMut<'a>: Buffer;
    /// What runs in order: nothing on the CPU, a stream on CUDA, an open compute pass on wgpu.
    type Queue<'a>;

    /// What to plan for.
    fn capabilities(&self) -> Capabilities;

    /// The plan of `problem`, made now if it is not kept from before.
    ///
    /// # Errors
    /// As [`Plan::new`].
    fn plan(&self, problem: &Problem) -> Result<Arc<Plan>>;

    /// `y = x·wᵀ + shrunk·bᵀ (+ bias)`, `shrunk = s·x·aᵀ`.
    ///
    /// # Errors
    /// What the operands or the device do not allow; nothing has been written then.
    fn forward<'a>(
        &self,
        queue: Self::Queue<'_>,
        of: Forward<Self::Slice<'a>, Self::SliceMut<'a>>,
    ) -> Result<()>;

    /// `dx`, `da` and `db`, those that are wanted.
    ///
    /// # Errors
    /// As [`Executor::forward`].
    fn backward<'a>(
        &self,
        queue: Self::Queue<'_>,
        of: Backward<Self::Slice<'a>, Self::SliceMut<'a>>,
    ) -> Result<()>;

    /// `w += s·b·a`, in place.
    ///
    /// # Errors
    /// As [`Executor::forward`].
    fn merge<'a>(
        &self,
        queue: Self::Queue<'_>,
        of: Merge<Self::Slice<'a>, Self::SliceMut<'a>>,
    ) -> Result<()>;

    /// `w -= s·b·a`, in place.
    ///
    /// # Errors
    /// As [`Executor::forward`].
    fn unmerge<'a>(
        &self,
        queue: Self::Queue<'_>,
        of: Merge<Self::Slice<'a>, Self::SliceMut<'a>>,
    ) -> Result<()>;

    /// `gain = magnitude / ‖w + s·b·a‖`, row by row.
    ///
    /// # Errors
    /// As [`Executor::forward`].
    fn norm<'a>(
        &self,
        queue: Self::Queue<'_>,
        of: Norm<Self::Slice<'a>, Self::SliceMut<'a>>,
    ) -> Result<()>;

    /// `scaled_dy = gain∘dy` and `dmagnitude`.
    ///
    /// # Errors
    /// As [`Executor::forward`].
    fn backward_gain<'a>(
        &self,
        queue: Self::Queue<'_>,
        of: BackwardGain<Self::Slice<'a>, Self::SliceMut<'a>>,
    ) -> Result<()>;
}

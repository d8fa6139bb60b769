//! The embedded executor: runs CPU plans on slices, on all cores. Products go through the
//! `gemm` crate, one thread a call; who computes what, in which order, is the plan's.
//!
//! Called with a plan, the caller's slices and a workspace. `tickets` deals the work out; `linear`,
//! `transposed`, `decode`, `gradient`, `merge`, `contract`, `kronecker`, `norm` and `backward_gain` do it, on the operands that `bound` has taken by the plan's
//! product, with `microkernels`.

mod backward_gain;
mod bound;
mod call;
mod contract;
mod convert;
mod decode;
mod gather;
mod gradient;
mod kronecker;
mod linear;
mod merge;
mod merged;
mod microkernels;
mod norm;
mod panel;
mod shrunk;
mod slice;
mod source;
mod taps;
mod target;
mod tickets;
mod transposed;
mod workspace;

use std::sync::Arc;

pub use slice::{Slice, SliceMut};
pub use workspace::Workspace;

use self::call::Kept;
use crate::executor::{Plans, Pool};
use crate::plan::cpu::Tiles;
use crate::product::Product;
use crate::{Capabilities, CpuCapabilities, Error, Operands, Result, Scaled};

/// The CPU. Cheap to clone; clones share their threads, plans and scratch memory.
///
/// ```
/// use fused_lora::cpu::Cpu;
/// use fused_lora::{Forward, Matrix};
///
/// let (tokens, in_features, out_features, rank) = (3, 8, 4, 2);
/// let (x, w) = (vec![1.0f32; 24], vec![0.5f32; 32]);
/// let (a, b) = (vec![0.25f32; 16], vec![2.0f32; 8]);
/// let mut y = vec![0.0f32; 12];
///
/// let cpu = Cpu::new();
/// let (x, w) = (Matrix::new(&x, tokens, in_features), Matrix::new(&w, out_features, in_features));
/// let (a, b) = (Matrix::new(&a, rank, in_features), Matrix::new(&b, out_features, rank));
/// cpu.forward(
///     Forward::new(x, w, Matrix::new(&mut y, tokens, out_features)).adapter(a, b).scale(0.5),
/// )?;
/// // 8 · 1 · 0.5 + 2 · (0.5 · 8 · 0.25) · 2
/// assert_eq!(y, [8.0; 12]);
/// # Ok::<(), fused_lora::Error>(())
/// ```
///
/// A plan can be made beforehand, looked at and run with the caller's workspace ([`Cpu::run`]).
#[derive(Debug, Clone, Default)]
pub struct Cpu {
    inner: Arc<Inner>,
}

/// What clones share.
#[derive(Debug, Default)]
struct Inner {
    /// `None`: rayon's global threads, which frameworks share.
    threads: Option<rayon::ThreadPool>,
    plans: Plans,
    kept: Pool<Kept>,
}

impl Cpu {
    /// On the global threads of rayon.
    pub fn new() -> Cpu {
        Cpu::default()
    }

    /// On `threads` threads of its own; 0 means as many as the machine has.
    ///
    /// # Errors
    /// [`Error::Threads`] where they cannot be started.
    pub fn with_threads(threads: usize) -> Result<Cpu> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| Error::Threads { reason: error.to_string() })?;
        Ok(Cpu { inner: Arc::new(Inner { threads: Some(pool), ..Inner::default() }) })
    }

    /// As many workers as there are threads.
    pub fn capabilities(&self) -> Capabilities {
        let workers = match &self.inner.threads {
            Some(pool) => pool.current_num_threads(),
            None => rayon::current_num_threads(),
        };
        Capabilities::Cpu(CpuCapabilities { workers })
    }

    /// Runs `plan` on `operands`, and returns when it is done.
    ///
    /// ```
    /// use fused_lora::cpu::{Cpu, Workspace};
    /// use fused_lora::{Forward, Matrix, Plan, Problem};
    ///
    /// let cpu = Cpu::new();
    /// let plan = Plan::new(&Problem::forward(2, 3, 4, 0), &cpu.capabilities())?;
    /// let mut workspace = Workspace::for_plan(&plan)?;
    /// let (x, w, mut y) = ([1.0f32; 6], [1.0f32; 12], [0.0f32; 8]);
    /// let forward = Forward::new(Matrix::new(&x, 2, 3), Matrix::new(&w, 4, 3), Matrix::new(&mut y, 2, 4));
    /// cpu.run(&plan, forward, &mut workspace)?;
    /// assert_eq!(y, [3.0; 8]);
    /// # Ok::<(), fused_lora::Error>(())
    /// ```
    ///
    /// The bits of the result belong to the plan: they are the same run after run, with any
    /// number of threads. What the workspace held does not matter.
    ///
    /// # Errors
    /// A plan for another device, an operand that is not the plan's, a workspace that is
    /// too small; nothing has been written then.
    pub fn run<'a, 'p>(
        &self,
        plan: impl Into<Scaled<'p>>,
        operands: impl Into<Operands<Slice<'a>, SliceMut<'a>>>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        let mut operands = operands.into();
        let scaled = operands.on(plan)?;
        let (plan, scalars) = (scaled.plan(), scaled.scalars());
        let Capabilities::Cpu(_) = plan.capabilities() else {
            let got = plan.capabilities().executor();
            return Err(Error::Executor { expected: "cpu", got });
        };
        operands.checked(plan.problem().operation(), plan.specs())?;
        // Without a schedule there is nothing to do.
        let Some(schedule) = plan.schedule() else { return Ok(()) };
        let scratch = workspace.split(plan.workspace_len(), schedule)?;
        let team = tickets::Team { pool: self.inner.threads.as_ref(), schedule };
        match (&schedule.tiles, plan.product()) {
            (Tiles::Linear(tiles), Product::Layer(of) | Product::Shrink(of)) => {
                linear::run(of, scalars, tiles, &mut operands, team, scratch)
            }
            (Tiles::Transposed(tiles), Product::Transposed(of)) => {
                transposed::run(of, scalars, tiles, &mut operands, team, scratch)
            }
            (Tiles::Decode(tiles), Product::Layer(of)) => {
                decode::run(of, scalars, tiles, &mut operands, team, scratch)
            }
            (Tiles::Gradient(tiles), Product::Gradients(of)) => {
                gradient::run(of, scalars, tiles, &mut operands, team, scratch)
            }
            (Tiles::Merge(tiles), Product::Merge(of)) => {
                merge::run(of, scalars, tiles, &mut operands, team, scratch)
            }
            (Tiles::Merged(tiles), Product::Layer(_)) => {
                merged::run(scalars, tiles, &mut operands, team, scratch)
            }
            (Tiles::Contract(tiles), Product::Factors(_)) => {
                contract::run(scalars, tiles, &mut operands, team, scratch)
            }
            (Tiles::Kronecker(tiles), Product::Kronecker(of)) => {
                kronecker::run(of, scalars, tiles, &mut operands, team, scratch)
            }
            (Tiles::Norm(tiles), Product::Norm(of)) => {
                norm::run(of, scalars, tiles, &mut operands, team, scratch)
            }
            (Tiles::BackwardGain(tiles), Product::GainGradient(of)) => {
                backward_gain::run(of, scalars, tiles, &mut operands, team, scratch)
            }
            // A plan cuts its own product.
            _ => Ok(()),
        }
    }
}

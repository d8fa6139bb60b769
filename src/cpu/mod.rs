//! The embedded executor: runs CPU plans on slices, on all cores. Products go through the
//! `gemm` crate, one thread a call; who computes what, in which order, is the plan's.
//!
//! Called with a plan, the caller's slices and a workspace. `tickets` deals the work out; `linear`,
//! `decode`, `gradient` and `merge` do it, on the operands that `bound` has taken by the plan's
//! product, with `microkernels`.

mod bound;
mod convert;
mod decode;
mod gradient;
mod linear;
mod merge;
mod microkernels;
mod panel;
mod shrunk;
mod slice;
mod source;
mod target;
mod tickets;
mod workspace;

use std::sync::Arc;

pub use slice::{Slice, SliceMut};
pub use workspace::Workspace;

use crate::plan::cpu::Tiles;
use crate::product::Product;
use crate::{Capabilities, CpuCapabilities, Error, Operands, Result, Scaled};

/// The CPU. Cheap to clone; clones share their threads.
///
/// ```
/// use fused_lora::cpu::{Cpu, Slice, SliceMut, Workspace};
/// use fused_lora::{Adapter, Forward, Matrix, Plan, Problem};
///
/// let (tokens, in_features, out_features, rank) = (3, 8, 4, 2);
/// let problem = Problem::forward(tokens, in_features, out_features, rank)
///     .with_scale(0.5)
///     .with_keep_shrunk(false);
/// let cpu = Cpu::new();
/// let plan = Plan::new(&problem, &cpu.capabilities())?;
/// let mut workspace = Workspace::for_plan(&plan)?;
///
/// let (x, w) = (vec![1.0f32; 24], vec![0.5f32; 32]);
/// let (a, b) = (vec![0.25f32; 16], vec![2.0f32; 8]);
/// let mut y = vec![0.0f32; 12];
/// cpu.run(
///     &plan,
///     Forward {
///         x: Matrix::new(Slice::from(&x), tokens, in_features),
///         w: Matrix::new(Slice::from(&w), out_features, in_features),
///         bias: None,
///         adapter: Some(Adapter {
///             a: Matrix::new(Slice::from(&a), rank, in_features),
///             b: Matrix::new(Slice::from(&b), out_features, rank),
///         }),
///         y: Matrix::new(SliceMut::from(&mut y), tokens, out_features),
///         shrunk: None,
///     },
///     &mut workspace,
/// )?;
/// // 8 · 1 · 0.5 + 2 · (0.5 · 8 · 0.25) · 2
/// assert_eq!(y, [8.0; 12]);
/// # Ok::<(), fused_lora::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Cpu {
    /// `None`: rayon's global threads, which frameworks share.
    threads: Option<Arc<rayon::ThreadPool>>,
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
        Ok(Cpu { threads: Some(Arc::new(pool)) })
    }

    /// As many workers as there are threads.
    pub fn capabilities(&self) -> Capabilities {
        let workers = match &self.threads {
            Some(pool) => pool.current_num_threads(),
            None => rayon::current_num_threads(),
        };
        Capabilities::Cpu(CpuCapabilities { workers })
    }

    /// Runs `plan` on `operands`, and returns when it is done.
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
        let scaled = plan.into();
        let (plan, scalars) = (scaled.plan(), scaled.scalars());
        let mut operands = operands.into();
        let Capabilities::Cpu(_) = plan.capabilities() else {
            let got = plan.capabilities().executor();
            return Err(Error::Executor { expected: "cpu", got });
        };
        operands.checked(plan.problem().operation(), plan.specs())?;
        // Without a schedule there is nothing to do.
        let Some(schedule) = plan.schedule() else { return Ok(()) };
        let scratch = workspace.split(plan.workspace_len(), schedule)?;
        let team = tickets::Team { pool: self.threads.as_deref(), schedule };
        match (&schedule.tiles, plan.product()) {
            (Tiles::Linear(tiles), Product::Layer(of) | Product::Shrink(of)) => {
                linear::run(of, scalars, tiles, &mut operands, team, scratch)
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
            // A plan cuts its own product.
            _ => Ok(()),
        }
    }
}

//! A plan with the numbers of one run: scale and β, which belong to no plan. What executors run.

use std::sync::Arc;

use super::{Launch, Plan};
use crate::Result;
use crate::problem::Scalars;
use crate::product::Product;

/// A plan with the scale and the β of one run; made by [`Plan::with_scalars`], without allocation.
/// A [`Plan`] alone stands for itself with those of the problem that it was made for.
#[derive(Debug, Clone, Copy)]
pub struct Scaled<'a> {
    plan: &'a Plan,
    scalars: Scalars,
}

impl Plan {
    /// This plan with another scale and β, for a run. Plans kept by
    /// [`Problem::identity`](crate::Problem::identity) serve every adapter so.
    ///
    /// ```
    /// use fused_lora::cpu::{Cpu, Workspace};
    /// use fused_lora::{Forward, Matrix, Plan, Problem};
    ///
    /// let problem = Problem::forward(1, 2, 1, 1).with_keep_shrunk(false);
    /// let cpu = Cpu::new();
    /// let plan = Plan::new(&problem.identity(), &cpu.capabilities())?;
    /// let mut workspace = Workspace::for_plan(&plan)?;
    /// let (x, w, a, b) = ([1.0f32, 2.0], [3.0f32, 4.0], [1.0f32, 1.0], [1.0f32]);
    /// for (scale, want) in [(0.5, 12.5), (2.0, 17.0)] {
    ///     let mut y = [0.0f32];
    ///     let forward = Forward::new(Matrix::new(&x, 1, 2), Matrix::new(&w, 1, 2), Matrix::new(&mut y, 1, 1))
    ///         .adapter(Matrix::new(&a, 1, 2), Matrix::new(&b, 1, 1));
    ///     cpu.run(plan.with_scalars(scale, 0.0)?, forward, &mut workspace)?;
    ///     assert_eq!(y, [want]);
    /// }
    /// # Ok::<(), fused_lora::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Scalar`](crate::Error::Scalar) where one of them is not finite;
    /// [`Error::Beta`](crate::Error::Beta) where a β of 0 meets a plan with another, or the other
    /// way round: whether old values are read is the plan's. Operations without β take any.
    pub fn with_scalars(&self, scale: f32, beta: f32) -> Result<Scaled<'_>> {
        Ok(Scaled { plan: self, scalars: self.problem().scalars(scale, beta)? })
    }
}

impl<'a> Scaled<'a> {
    /// The plan.
    pub fn plan(&self) -> &'a Plan {
        self.plan
    }
    /// s.
    pub fn scale(&self) -> f32 {
        self.scalars.scale
    }
    /// β.
    pub fn beta(&self) -> f32 {
        self.scalars.beta
    }

    /// Writes scale and β into `params`, a copy of the parameter block of one of the plan's
    /// launches.
    pub fn write(&self, launch: &Launch, params: &mut [u8]) {
        for (at, number) in self.numbers(launch).into_iter().flatten() {
            if let Some(to) = params.get_mut(at..).and_then(|of| of.get_mut(..number.len())) {
                to.copy_from_slice(&number);
            }
        }
    }

    /// Where in a launch's parameter block which bytes go.
    pub(crate) fn numbers(&self, launch: &Launch) -> [Option<(usize, [u8; 4])>; 2] {
        let scale = match self.plan.product() {
            Product::Merge(of) => {
                of.body.map_or(0.0, |body| body.finish.factor.value(self.scalars))
            }
            Product::Factors(of) => of.factor().value(self.scalars),
            _ => self.scalars.scale,
        };
        let number = |at: Option<u32>, value: f32| Some((at? as usize, value.to_le_bytes()));
        [number(launch.scale_at, scale), number(launch.beta_at, self.scalars.beta)]
    }

    /// For executors that need no bytes.
    pub(crate) fn scalars(&self) -> Scalars {
        self.scalars
    }
}

impl<'a> From<&'a Plan> for Scaled<'a> {
    fn from(plan: &'a Plan) -> Scaled<'a> {
        Scaled { plan, scalars: Scalars::of(plan.problem()) }
    }
}

impl<'a> From<&'a Arc<Plan>> for Scaled<'a> {
    fn from(plan: &'a Arc<Plan>) -> Scaled<'a> {
        Scaled::from(&**plan)
    }
}

//! Plans for wgpu: what may run (`presets`), and for each candidate its launches.
//!
//! A launch is a job of its kernel's file (`linear`, `cooperative`, `bordered`, `decode`, `subgroup`, `shrink`,
//! `partial_shrink`, `subgroup_shrink`, `transposed`, `gradient`, `sum`, `merge`, `merged`, `contract`, `norm`, `backward_gain`): first priced (`cost`, `machine`) and
//! held against what the device grants (`limits`), and of the chosen candidate rendered (`shader`). `bands` puts those
//! of a layer in a row, `layer` holds its operands.

mod backward_gain;
mod bands;
mod bordered;
mod contract;
mod cooperative;
mod cost;
mod decode;
mod gradient;
mod job;
mod kronecker;
mod lanes;
mod layer;
mod limits;
mod linear;
mod machine;
mod matrix;
mod merge;
mod merged;
mod norm;
mod partial_shrink;
mod presets;
mod shader;
mod shrink;
mod subgroup;
mod subgroup_shrink;
mod sum;
mod transposed;

use self::backward_gain::BackwardGain;
use self::cost::Cost;
use self::gradient::Gradients;
use self::job::Job;
use self::layer::Layer;
use self::merge::Merges;
use self::norm::Norms;
pub(crate) use self::presets::PRESETS;
use self::presets::WgpuKernel;
use super::{AdapterKind, Build, Draft, Launch, Preset, Refusal, WgpuCapabilities};
use crate::problem::Scalars;
use crate::product::Product;
use crate::{Problem, Result};

/// Launches as they are gone through: priced, and if asked for, rendered.
struct Work<'a> {
    wgpu: &'a WgpuCapabilities,
    cost: Cost,
    /// Bytes of workspace.
    scratch: usize,
    count: u64,
    launches: Option<Vec<Launch>>,
}

impl Work<'_> {
    /// One launch more, where the device can run it.
    fn add(&mut self, job: &impl Job) -> Result<(), Refusal> {
        limits::check(job, self.wgpu)?;
        self.count += 1;
        limits::few_launches(self.count)?;
        self.cost.add(&job.step());
        let Some(launches) = &mut self.launches else { return Ok(()) };
        launches.push(job.render().map_err(Refusal::Limit)?);
        Ok(())
    }
}

/// A candidate, priced.
pub(crate) struct Priced<'a> {
    kernel: WgpuKernel,
    problem: &'a Problem,
    product: &'a Product,
    wgpu: &'a WgpuCapabilities,
    micros: f64,
}

impl Draft for Priced<'_> {
    fn micros(&self) -> f64 {
        self.micros
    }

    fn build(self) -> Result<Build, Refusal> {
        let work = work(self.kernel, self.problem, self.product, self.wgpu, Some(Vec::new()))?;
        Ok(Build {
            flops: work.cost.flops,
            bytes: work.cost.bytes,
            workspace_len: work.scratch,
            launches: work.launches.unwrap_or_default(),
            schedule: None,
        })
    }
}

pub(crate) fn draft<'a>(
    preset: &Preset<WgpuKernel>,
    problem: &'a Problem,
    product: &'a Product,
    wgpu: &'a WgpuCapabilities,
) -> Result<Priced<'a>, Refusal> {
    let work = work(preset.kernel, problem, product, wgpu, None)?;
    let micros = work.cost.micros;
    Ok(Priced { kernel: preset.kernel, problem, product, wgpu, micros })
}

fn work<'a>(
    kernel: WgpuKernel,
    problem: &Problem,
    product: &Product,
    wgpu: &'a WgpuCapabilities,
    launches: Option<Vec<Launch>>,
) -> Result<Work<'a>, Refusal> {
    limits::device(wgpu)?;
    let scalars = Scalars::of(problem);
    let mut work = Work { wgpu, cost: Cost::new(wgpu.adapter), scratch: 0, count: 0, launches };
    match (kernel, product) {
        (WgpuKernel::Gradient(most), Product::Gradients(gradients)) => {
            Gradients::new(most, gradients, scalars, wgpu).work(&mut work)?;
        }
        (WgpuKernel::Transposed(tile), Product::Transposed(of)) => {
            transposed::work(of, tile, problem, &mut work)?;
        }
        (WgpuKernel::Merge(tile), Product::Merge(product)) => {
            if let Some(merges) = Merges::new(tile, product, scalars, wgpu) {
                merges.work(&mut work)?;
            }
        }
        (WgpuKernel::Merged(_), Product::Layer(of)) => {
            merged::work(kernel, of, problem, &mut work)?;
        }
        (WgpuKernel::Contract, Product::Factors(of)) => contract::work(of, scalars, &mut work)?,
        (WgpuKernel::Kronecker, Product::Kronecker(of)) => kronecker::work(of, scalars, &mut work)?,
        (WgpuKernel::Norm, Product::Norm(of)) => Norms { of, scalars, wgpu }.work(&mut work)?,
        (WgpuKernel::BackwardGain, Product::GainGradient(of)) => {
            BackwardGain { of, scalars, wgpu }.work(&mut work)?;
        }
        (kernel, Product::Layer(product) | Product::Shrink(product)) => {
            bands::work(kernel, &Layer::new(problem, product, wgpu), &mut work)?;
        }
        // Nothing to launch, or not what the kernel serves.
        _ => {}
    }
    Ok(work)
}

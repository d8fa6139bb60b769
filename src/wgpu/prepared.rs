//! A plan bound to its operands: pipelines, bind groups and grids, and nothing left to do
//! but to record them.

use std::sync::Arc;

use super::bind::{Bound, Span, bind};
use super::kernels::{Kernel, read_write};
use super::{Shared, Slice, Workspace, planned, wgpu};
use crate::{Operands, Plan, Result};

/// A plan bound to its operands by [`Wgpu::prepare`](super::Wgpu::prepare). It keeps their
/// buffers alive; one that its host destroys makes wgpu refuse the submission.
#[derive(Debug, Clone)]
pub struct Prepared {
    shared: Arc<Shared>,
    steps: Vec<Step>,
}

#[derive(Debug, Clone)]
struct Step {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    grid: [u32; 3],
}

impl Prepared {
    /// Records the launches into an open pass; they run in order. No allocation, submit,
    /// poll or readback.
    ///
    /// # Errors
    /// [`Error::DeviceLost`](crate::Error::DeviceLost), where the host said so; nothing has
    /// been recorded then.
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>) -> Result<()> {
        self.shared.check_alive()?;
        for Step { pipeline, group, grid: [x, y, z] } in &self.steps {
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, group, &[]);
            pass.dispatch_workgroups(*x, *y, *z);
        }
        Ok(())
    }
}

pub(super) fn prepare<'a>(
    shared: &Arc<Shared>,
    plan: &Plan,
    operands: Operands<Slice<'a>, Slice<'a>>,
    workspace: Workspace<'a>,
) -> Result<Prepared> {
    // All that can be refused beforehand is, then all that the device could object to.
    let bound = bind(shared, plan, operands, workspace)?;
    let mut ready = Vec::with_capacity(bound.len());
    for (launch, Bound { spans, params }) in plan.launches().iter().zip(bound) {
        let params = shared.block(params, planned(plan)?.storage_params)?;
        ready.push((launch, shared.kernel(plan, launch)?, spans, params));
    }
    let mut steps = Vec::with_capacity(ready.len());
    for (launch, Kernel { pipeline, layout }, spans, params) in ready {
        let mut resources = Vec::with_capacity(spans.len() + 1);
        for (span, read_write) in spans.into_iter().zip(read_write(launch, planned(plan)?)) {
            resources.push(match span {
                Span::Bytes { buffer, start, len } => {
                    let size = wgpu::BufferSize::new(len);
                    wgpu::BufferBinding { buffer, offset: start, size }
                }
                Span::Nothing => shared.nothing(read_write)?.as_entire_buffer_binding(),
            });
        }
        resources.push(params.as_entire_buffer_binding());
        let resources = (0..).zip(resources.into_iter().map(wgpu::BindingResource::Buffer));
        let entries: Vec<_> = resources
            .map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource })
            .collect();
        let group = shared.attempt(launch.kernel, 0, |device| {
            device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(launch.kernel),
                layout: &layout,
                entries: &entries,
            })
        })?;
        steps.push(Step { pipeline, group, grid: launch.grid });
    }
    Ok(Prepared { shared: shared.clone(), steps })
}

impl Shared {
    /// What stands for an operand without elements: one buffer for those that are read and
    /// one for those that are written, because no buffer may be both in a dispatch.
    fn nothing(&self, read_write: bool) -> Result<&wgpu::Buffer> {
        let nothing = &self.nothing[usize::from(read_write)];
        if let Some(nothing) = nothing.get() {
            return Ok(nothing);
        }
        let made = self.filled("an empty operand", wgpu::BufferUsages::STORAGE, &[0; 256])?;
        // Another thread may have been faster; one of the two is enough.
        Ok(nothing.get_or_init(|| made))
    }
}

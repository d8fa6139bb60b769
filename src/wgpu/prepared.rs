//! A plan bound to its operands: pipelines, bind groups and grids, and nothing left to do
//! but to record them.

use std::sync::Arc;

use super::bind::{Bound, BoundLaunch, Span, bind};
use super::pipelines::Pipeline;
use super::{Inner, Slice, Workspace, planned, wgpu};
use crate::{Operands, Result, Scaled};

/// A plan bound to its operands by [`Wgpu::prepare`](super::Wgpu::prepare). It keeps their
/// buffers alive; one that its host destroys makes wgpu refuse the submission.
#[derive(Debug, Clone)]
pub struct Prepared {
    inner: Arc<Inner>,
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
        self.inner.check_alive()?;
        for Step { pipeline, group, grid: [x, y, z] } in &self.steps {
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, group, &[]);
            pass.dispatch_workgroups(*x, *y, *z);
        }
        Ok(())
    }
}

pub(super) fn prepare<'a>(
    inner: &Arc<Inner>,
    scaled: Scaled<'_>,
    operands: Operands<Slice<'a>, Slice<'a>>,
    workspace: Workspace<'a>,
) -> Result<Prepared> {
    // All that can be refused beforehand is, then all that the device could object to.
    let (plan, bound) = (scaled.plan(), bind(inner, scaled, operands, workspace)?);
    let storage_params = planned(plan)?.storage_params;
    let mut ready = Vec::with_capacity(bound.len());
    for (launch, BoundLaunch { bindings, params }) in plan.launches().iter().zip(bound) {
        let params = inner.block(params, storage_params)?;
        ready.push((launch, inner.pipeline(plan, launch)?, bindings, params));
    }
    let mut steps = Vec::with_capacity(ready.len());
    for (launch, Pipeline { pipeline, layout }, bindings, params) in ready {
        let mut entries = Vec::with_capacity(bindings.len() + 1);
        let mut entry = |resource| {
            let binding = entries.len() as u32;
            let resource = wgpu::BindingResource::Buffer(resource);
            entries.push(wgpu::BindGroupEntry { binding, resource });
        };
        for Bound { span, read_write } in bindings {
            entry(match span {
                Span::Bytes { buffer, start, len } => {
                    let size = wgpu::BufferSize::new(len);
                    wgpu::BufferBinding { buffer, offset: start, size }
                }
                Span::Placeholder => inner.placeholder(read_write)?.as_entire_buffer_binding(),
            });
        }
        entry(params.as_entire_buffer_binding());
        let group = inner.scoped(launch.kernel, 0, |device| {
            device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(launch.kernel),
                layout: &layout,
                entries: &entries,
            })
        })?;
        steps.push(Step { pipeline, group, grid: launch.grid });
    }
    Ok(Prepared { inner: inner.clone(), steps })
}

impl Inner {
    /// What stands for an operand without elements: one buffer for those that are read and
    /// one for those that are written, because no buffer may be both in a dispatch.
    fn placeholder(&self, read_write: bool) -> Result<&wgpu::Buffer> {
        let placeholder = &self.placeholder[usize::from(read_write)];
        if let Some(placeholder) = placeholder.get() {
            return Ok(placeholder);
        }
        let created = self.filled("an empty operand", wgpu::BufferUsages::STORAGE, &[0; 256])?;
        // Another thread may have been faster; one of the two is enough.
        Ok(placeholder.get_or_init(|| created))
    }
}

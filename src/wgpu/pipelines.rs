//! Compiled pipelines by their text, and the layouts of their bind groups by their shape.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::{Inner, planned, wgpu};
use crate::plan::read_write;
use crate::{Error, Launch, Plan, Result, Source};

/// A pipeline, and the layout of its one bind group.
#[derive(Debug, Clone)]
pub(super) struct Pipeline {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
}

/// Which bindings are `read_write`, and whether the parameters are a storage buffer.
type Shape = (Vec<bool>, bool);

#[derive(Debug, Default)]
pub(super) struct Pipelines {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    compiled: HashMap<Source, Pipeline>,
    layouts: HashMap<Shape, wgpu::BindGroupLayout>,
    created: usize,
}

impl Pipelines {
    pub(super) fn created(&self) -> usize {
        self.lock().created
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The pipeline of `launch`, compiled now if it was not before.
    pub(super) fn pipeline(&self, plan: &Plan, launch: &Launch) -> Result<Pipeline> {
        let planned = planned(plan)?;
        let Some(source) = &launch.source else {
            let reason = "the plan has no text for it".to_owned();
            return Err(Error::Rejected { what: launch.kernel.to_owned(), reason });
        };
        if let Some(pipeline) = self.pipelines.lock().compiled.get(source) {
            return Ok(pipeline.clone());
        }
        let bindings =
            launch.bindings.iter().map(|of| read_write(of.operand, of.access, planned)).collect();
        let layout = self.layout((bindings, planned.storage_params))?;
        let pipeline = self.compile(launch.kernel, source, &layout)?;
        self.probe()?;
        let mut state = self.pipelines.lock();
        // Another thread may have been faster; one of the two is enough.
        if let Some(pipeline) = state.compiled.get(source) {
            return Ok(pipeline.clone());
        }
        let pipeline = Pipeline { pipeline, layout };
        state.created += 1;
        state.compiled.insert(source.clone(), pipeline.clone());
        Ok(pipeline)
    }

    fn compile(
        &self,
        kernel: &str,
        source: &Source,
        layout: &wgpu::BindGroupLayout,
    ) -> Result<wgpu::ComputePipeline> {
        let checks = match self.checked {
            true => wgpu::ShaderRuntimeChecks::checked(),
            false => wgpu::ShaderRuntimeChecks::unchecked(),
        };
        self.scoped(kernel, 0, |device| {
            let text = wgpu::ShaderSource::Wgsl((&*source.text).into());
            let module = wgpu::ShaderModuleDescriptor { label: Some(kernel), source: text };
            // SAFETY: the text is a plan's, and only this crate makes plans. Its kernels guard
            // every access to a binding against the sizes that `bind` has checked, index their
            // own arrays within bounds, and end every loop; tests run them with checks as well.
            let module = unsafe { device.create_shader_module_trusted(module, checks) };
            let layouts = [Some(layout)];
            let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some(kernel),
                bind_group_layouts: &layouts,
                immediate_size: 0,
            });
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(kernel),
                layout: Some(&layout),
                module: &module,
                entry_point: Some(source.entry),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &[],
                    // Pipelines write workgroup memory before they read it.
                    zero_initialize_workgroup_memory: self.checked,
                },
                cache: self.cache.as_ref(),
            })
        })
    }

    /// The layout of bind group 0: the bindings in order, then the parameters.
    fn layout(&self, shape: Shape) -> Result<wgpu::BindGroupLayout> {
        if let Some(layout) = self.pipelines.lock().layouts.get(&shape) {
            return Ok(layout.clone());
        }
        let (bindings, storage_params) = &shape;
        let storage = |read_only| wgpu::BufferBindingType::Storage { read_only };
        let params = match storage_params {
            true => storage(true),
            false => wgpu::BufferBindingType::Uniform,
        };
        let types = bindings.iter().map(|read_write| storage(!read_write)).chain([params]);
        let entries: Vec<_> = (0..).zip(types).map(entry).collect();
        let layout = self.scoped("bind group layout", 0, |device| {
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some("fused-lora"),
                entries: &entries,
            })
        })?;
        self.pipelines.lock().layouts.insert(shape, layout.clone());
        Ok(layout)
    }
}

fn entry((binding, ty): (u32, wgpu::BufferBindingType)) -> wgpu::BindGroupLayoutEntry {
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    }
}

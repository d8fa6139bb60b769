//! Plans for wgpu: the presets, and for each the launches with their WGSL texts.

use super::{Draft, Preset, Refusal, WgpuCapabilities};
use crate::Problem;

pub(crate) const PRESETS: &[Preset] = &[];

pub(crate) fn draft(
    preset: &Preset,
    problem: &Problem,
    wgpu: &WgpuCapabilities,
) -> Result<Draft, Refusal> {
    let _ = (preset, problem, wgpu);
    Err(Refusal::Reason("no shaders yet".to_owned()))
}

//! What a device grants: how much of an operand one binding holds, how many buffers and
//! threads a launch may have. Called while kernels are laid out, and on every launch at the end.

use super::text::View;
use super::{Launch, Refusal, WgpuCapabilities};
use crate::{Error, Operand};

/// The limit that operands can exceed.
const BINDING: &str = "bytes of a storage binding";
/// Workgroups along the second dimension of a grid; what is more goes into the third.
const FOLD: usize = 1 << 15;

/// Bytes of an operand that one binding holds: its start is rounded down to the device's
/// alignment, and indices are 32 bits wide.
pub(super) fn binding(wgpu: &WgpuCapabilities) -> u64 {
    let most = wgpu.binding_bytes.min(u32::MAX.into());
    most.saturating_sub(wgpu.binding_align.max(256).into())
}

/// `view` has to fit one binding.
pub(super) fn whole(operand: Operand, view: &View, wgpu: &WgpuCapabilities) -> Result<(), Refusal> {
    let got = view.bytes_of_rows(view.rows);
    if got <= binding(wgpu) {
        return Ok(());
    }
    Err(too_large(operand, binding(wgpu), got))
}

/// Stored rows of `view` that fit one binding: at least one.
pub(super) fn rows(
    operand: Operand,
    view: &View,
    wgpu: &WgpuCapabilities,
) -> Result<usize, Refusal> {
    match view.rows_in(binding(wgpu)).min(view.rows) {
        0 => Err(too_large(operand, binding(wgpu), view.bytes_of_rows(1))),
        rows => Ok(rows),
    }
}

/// Windows that an operand is cut into, at most: each is a launch, or a binding. It is 512 GiB at
/// the least that WebGPU grants a binding; a plan of more would itself fill the host's memory.
pub(super) const MOST_WINDOWS: usize = 1 << 12;

/// `rows` stored rows (or tokens) in windows of `each` have to be few enough.
pub(super) fn few_windows(rows: usize, each: usize) -> Result<(), Refusal> {
    let windows = rows.div_ceil(each.max(1));
    if windows <= MOST_WINDOWS {
        return Ok(());
    }
    Err(Refusal::Reason(format!(
        "{rows} rows, {each} at a time, are {windows} launches, more than {MOST_WINDOWS}"
    )))
}

/// An operand of which only `limit` bytes can be bound.
pub(super) fn too_large(operand: Operand, limit: u64, got: u64) -> Refusal {
    Refusal::Limit(Error::Limit { operand, what: BINDING, limit, got })
}

/// `groups` workgroups along the second dimension, the rest along the third.
pub(super) fn fold(groups: usize) -> [u32; 2] {
    let second = groups.min(FOLD);
    [second as u32, u32::try_from(groups.div_ceil(second)).unwrap_or(u32::MAX)]
}

/// Whether the device can run `launch`.
pub(super) fn check(launch: &Launch, wgpu: &WgpuCapabilities) -> Result<(), Refusal> {
    let buffers = launch.bindings.len() as u32 + u32::from(wgpu.storage_params);
    let grid = launch.grid.into_iter().max().unwrap_or(0);
    let needs = [
        ("storage buffers", buffers, wgpu.storage_buffers),
        ("threads of a workgroup", launch.block.iter().product(), wgpu.workgroup_threads),
        ("bytes of workgroup memory", launch.shared_bytes, wgpu.workgroup_bytes),
        ("workgroups along one dimension", grid, wgpu.workgroups),
    ];
    match needs.into_iter().find(|(_, needs, has)| needs > has) {
        None => Ok(()),
        Some((what, needs, has)) => Err(Refusal::Reason(format!(
            "{} needs {needs} {what}, the device grants {has}",
            launch.kernel
        ))),
    }
}

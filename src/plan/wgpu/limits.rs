//! What a device grants: how much of an operand one binding holds, how many buffers, workgroups and
//! threads a launch may have. Called while launches are cut, and on every one of them at the end.

use super::job::Job;
use super::matrix::StoredMatrix;
use super::{Refusal, WgpuCapabilities};
use crate::{Error, Operand};

/// The limit that operands can exceed.
const BINDING: &str = "bytes of a storage binding";
/// Workgroups along one dimension of a grid, of those that are folded into two.
const FOLD: usize = 1 << 15;

/// Whether anything at all can run. No device is like this, but capabilities can be made by hand.
pub(super) fn device(wgpu: &WgpuCapabilities) -> Result<(), Refusal> {
    let grants = [
        ("workgroups along one dimension", wgpu.workgroups),
        ("bytes of alignment of a binding", wgpu.binding_align),
    ];
    match grants.into_iter().find(|(_, grants)| *grants == 0) {
        None => Ok(()),
        Some((what, _)) => Err(over(what, 0, 1)),
    }
}

/// Bytes of an operand that one binding holds: its start is rounded down to the device's
/// alignment, and indices are 32 bits wide.
pub(super) fn binding(wgpu: &WgpuCapabilities) -> u64 {
    let most = wgpu.binding_bytes.min(u32::MAX.into());
    most.saturating_sub(wgpu.binding_align.max(256).into())
}

/// `matrix` has to fit one binding.
pub(super) fn whole(
    operand: Operand,
    matrix: &StoredMatrix,
    wgpu: &WgpuCapabilities,
) -> Result<(), Refusal> {
    let got = matrix.bytes_of_rows(matrix.rows);
    if got <= binding(wgpu) {
        return Ok(());
    }
    Err(too_large(operand, binding(wgpu), got))
}

/// Stored rows of `matrix` that fit one binding: at least one.
pub(super) fn rows(
    operand: Operand,
    matrix: &StoredMatrix,
    wgpu: &WgpuCapabilities,
) -> Result<usize, Refusal> {
    match matrix.rows_in(binding(wgpu)).min(matrix.rows) {
        0 => Err(too_large(operand, binding(wgpu), matrix.bytes_of_rows(1))),
        rows => Ok(rows),
    }
}

/// Windows that an operand is cut into, at most: each is a launch, or a binding. It is 512 GiB at
/// the least that WebGPU grants a binding; a plan of more would itself fill the host's memory.
const MOST_WINDOWS: usize = 1 << 12;

/// Launches of a plan, at most: tokens and columns are each cut into few windows, and multiply.
const MOST_LAUNCHES: u64 = 1 << 14;

/// A plan of so many launches has to be one that a host can record.
pub(super) fn few_launches(got: u64) -> Result<(), Refusal> {
    if got <= MOST_LAUNCHES {
        return Ok(());
    }
    let (what, limit) = ("launches of a plan", MOST_LAUNCHES);
    Err(Refusal::Limit(Error::DeviceLimit { what, limit, got }))
}

/// [`rows`] of an operand whose windows all are bindings of one launch, which `bound` others has.
pub(super) fn windows(
    operand: Operand,
    matrix: &StoredMatrix,
    wgpu: &WgpuCapabilities,
    bound: u32,
) -> Result<usize, Refusal> {
    let rows = rows(operand, matrix, wgpu)?;
    let windows = matrix.rows.div_ceil(rows);
    let left = (wgpu.storage_buffers.saturating_sub(bound) as usize).min(MOST_WINDOWS);
    if windows > left && windows > 1 {
        // A window is of whole rows.
        let limit = if left == 0 { 0 } else { matrix.bytes_of_rows(left.saturating_mul(rows)) };
        return Err(too_large(operand, limit, matrix.bytes_of_rows(matrix.rows)));
    }
    Ok(rows)
}

/// `rows` stored rows (or tokens) of an operand, `each` a launch, have to be few enough launches.
pub(super) fn few_windows(operand: Operand, rows: usize, each: usize) -> Result<(), Refusal> {
    let got = rows.div_ceil(each.max(1));
    if got <= MOST_WINDOWS {
        return Ok(());
    }
    let (what, limit, got) = ("launches, each of a part of it", MOST_WINDOWS as u64, got as u64);
    Err(Refusal::Limit(Error::Limit { operand, what, limit, got }))
}

/// An operand of which only `limit` bytes can be bound.
pub(super) fn too_large(operand: Operand, limit: u64, got: u64) -> Refusal {
    Refusal::Limit(Error::Limit { operand, what: BINDING, limit, got })
}

/// A launch that needs more of something than the device grants.
fn over(what: &'static str, limit: u32, got: u32) -> Refusal {
    let (limit, got) = (limit.into(), got.into());
    Refusal::Limit(Error::DeviceLimit { what, limit, got })
}

/// `groups` workgroups along two dimensions of a grid.
pub(super) fn fold(groups: usize, wgpu: &WgpuCapabilities) -> [u32; 2] {
    let first = groups.min(FOLD).min(wgpu.workgroups as usize).max(1);
    [first as u32, uint(groups.div_ceil(first))]
}

/// Workgroups of a dimension; what does not fit is more than any device grants.
pub(super) fn uint(groups: usize) -> u32 {
    u32::try_from(groups).unwrap_or(u32::MAX)
}

/// Whether the device can run a launch.
pub(super) fn check(job: &impl Job, wgpu: &WgpuCapabilities) -> Result<(), Refusal> {
    let size = job.size();
    let grid = size.grid.into_iter().max().unwrap_or(0);
    let needs = [
        ("storage buffers", job.buffers(), wgpu.storage_buffers),
        ("threads of a workgroup", size.block.iter().product(), wgpu.workgroup_threads),
        ("bytes of workgroup memory", size.smem_bytes, wgpu.workgroup_bytes),
        ("workgroups along one dimension", grid, wgpu.workgroups),
    ];
    match needs.into_iter().find(|(_, needs, has)| needs > has) {
        None => Ok(()),
        Some((what, needs, has)) => Err(over(what, has, needs)),
    }
}

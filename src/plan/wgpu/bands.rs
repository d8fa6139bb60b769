//! Launches of forward, backward_input and backward_shrink: for each band of tokens that the
//! bindings and the grid hold, `shrink` or one of its like, and then the layer. Called by `work`.

use super::bordered::Bordered;
use super::cooperative::{self, Cooperative};
use super::decode::{Decode, Sums};
use super::layer::Layer;
use super::limits;
use super::linear::Linear;
use super::machine;
use super::matrix::StoredMatrix;
use super::partial_shrink::PartialShrink;
use super::presets::WgpuKernel;
use super::shrink::Shrink;
use super::subgroup::{self, Subgroup};
use super::subgroup_shrink::SubgroupShrink;
use super::{Refusal, Work};

/// A band has a multiple of so many tokens, where there is room for as many: whole tiles.
const WHOLE: usize = 64;

/// Bands that short ones may come to.
const FEW_BANDS: usize = 256;

/// What a plan of `kernel` runs before it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum First {
    Nothing,
    Shrink,
    PartialShrink,
    SubgroupShrink,
}

impl First {
    fn of(kernel: WgpuKernel, layer: &Layer<'_>) -> First {
        match kernel {
            _ if layer.rank() == 0 => First::Nothing,
            WgpuKernel::Bordered(_) => First::Nothing,
            WgpuKernel::Subgroup(_) => First::SubgroupShrink,
            WgpuKernel::Linear(_)
            | WgpuKernel::Cooperative
            | WgpuKernel::Decode(Sums::Shared { .. }) => First::PartialShrink,
            _ => First::Shrink,
        }
    }

    /// Tokens of a workgroup, where there are many.
    fn tile_tokens(self) -> Option<usize> {
        match self {
            First::Nothing => None,
            First::Shrink => Some(Shrink::tile_tokens()),
            First::PartialShrink => Some(PartialShrink::tile_tokens()),
            First::SubgroupShrink => Some(SubgroupShrink::tile_tokens()),
        }
    }
}

/// Tokens of a workgroup of the layer itself, where there are many.
fn tile_tokens(kernel: WgpuKernel, layer: &Layer<'_>) -> Option<usize> {
    match kernel {
        WgpuKernel::Cooperative => Some(Cooperative::tile_tokens(layer)),
        WgpuKernel::Linear(tile) | WgpuKernel::Bordered(tile) | WgpuKernel::Merged(tile) => {
            Some(tile.tokens)
        }
        WgpuKernel::Decode(sums) => Some(Decode::tile_tokens(sums)),
        WgpuKernel::Subgroup(_) => Some(subgroup::LEAST),
        WgpuKernel::Shrink
        | WgpuKernel::Transposed(_)
        | WgpuKernel::Gradient(_)
        | WgpuKernel::Merge(_)
        | WgpuKernel::Contract
        | WgpuKernel::Kronecker
        | WgpuKernel::Norm
        | WgpuKernel::BackwardGain => None,
    }
}

pub(super) fn work(
    kernel: WgpuKernel,
    layer: &Layer<'_>,
    work: &mut Work<'_>,
) -> Result<(), Refusal> {
    let wgpu = layer.wgpu;
    let border = layer.border.map(|border| [Some(border.a), border.b]);
    let finish = layer.body.map(|body| [body.gain, body.bias]);
    for load in border.into_iter().chain(finish).flatten().flatten() {
        limits::whole(load.operand, &load.matrix, wgpu)?;
    }
    let summand = layer.body.and_then(|body| body.summand);
    for load in summand.iter().flat_map(|of| of.loads()) {
        limits::whole(load.operand, &StoredMatrix::new(&load.spec), wgpu)?;
    }
    if let WgpuKernel::Subgroup(_) = kernel
        && let Some(refusal) = subgroup::refuses(wgpu)
    {
        return Err(refusal);
    }
    if kernel == WgpuKernel::Cooperative
        && let Some(refusal) = cooperative::refuses(layer)
    {
        return Err(refusal);
    }
    let first = First::of(kernel, layer);
    let band = band(kernel, first, layer)?;
    limits::few_windows(layer.x.operand, layer.tokens, band)?;
    let parts = layer.parts()?;
    let parts: Vec<Layer<'_>> = parts.into_iter().map(|part| layer.of_part(part)).collect();
    for start in (0..layer.tokens).step_by(band) {
        let rows = (start, band.min(layer.tokens - start));
        let scratch = match first {
            First::Nothing => 0,
            First::PartialShrink => PartialShrink::bytes(layer, rows),
            First::Shrink | First::SubgroupShrink => layer.t_bytes(rows.1),
        };
        work.scratch = work.scratch.max(scratch as usize);
        match first {
            First::Nothing => {}
            First::Shrink => work.add(&Shrink::new(layer, rows))?,
            First::PartialShrink => work.add(&PartialShrink::new(layer, rows))?,
            First::SubgroupShrink => work.add(&SubgroupShrink::new(layer, rows))?,
        }
        for layer in &parts {
            match kernel {
                WgpuKernel::Linear(tile) | WgpuKernel::Merged(tile) => {
                    work.add(&Linear::new(layer, tile, rows)?)?
                }
                WgpuKernel::Cooperative => work.add(&Cooperative::new(layer, rows)?)?,
                WgpuKernel::Bordered(tile) => work.add(&Bordered::new(layer, tile, rows)?)?,
                WgpuKernel::Decode(sums) => work.add(&Decode::new(layer, sums, rows)?)?,
                WgpuKernel::Subgroup(most) => work.add(&Subgroup::new(layer, most, rows)?)?,
                WgpuKernel::Shrink
                | WgpuKernel::Transposed(_)
                | WgpuKernel::Gradient(_)
                | WgpuKernel::Merge(_)
                | WgpuKernel::Contract
                | WgpuKernel::Kronecker
                | WgpuKernel::Norm
                | WgpuKernel::BackwardGain => {}
            }
        }
    }
    Ok(())
}

/// Tokens of a band: as many as the bindings hold, and as each launch has workgroups for.
fn band(kernel: WgpuKernel, first: First, layer: &Layer<'_>) -> Result<usize, Refusal> {
    let workgroups = layer.wgpu.workgroups as usize;
    let tiles = [tile_tokens(kernel, layer), first.tile_tokens()];
    let tile = tiles.into_iter().flatten().min().unwrap_or(1);
    let mut most = tile.saturating_mul(workgroups);
    let y = layer.body.map(|body| body.y);
    let kept = layer.border.and_then(|border| border.kept);
    let outputs = [y, kept].into_iter().flatten();
    // Of images no part is bound.
    let (planes, outputs): (Vec<_>, Vec<_>) = outputs.partition(|of| of.planes.is_some());
    let outputs = outputs.into_iter().map(|output| (output.operand, output.matrix));
    let x = (layer.x.operand, layer.x.matrix);
    let images = planes.iter().map(|of| (of.operand, of.matrix));
    for (operand, matrix) in images.chain((!layer.x.has_rows()).then_some(x)) {
        limits::whole(operand, &matrix, layer.wgpu)?;
    }
    let of_x = layer.x.has_rows().then_some(x);
    // shrunk in the workspace has a row for each of x.
    let t = layer.t(layer.tokens).map(|t| (x.0, t));
    for (operand, matrix) in of_x.into_iter().chain(outputs).chain(t) {
        most = most.min(limits::rows(operand, &matrix, layer.wgpu)?);
    }
    // What a driver's watchdog, or whoever draws on the same GPU, would wait for too long.
    if let Some(machine) = machine::of(layer.wgpu.adapter) {
        let each = layer.flops(1).max(2) / 2;
        let short = (machine.most_multiply_adds() / each as f64) as usize;
        // Not so short that there would be too many launches.
        most = most.min(short.max(layer.tokens.div_ceil(FEW_BANDS)).max(WHOLE));
    }
    Ok(match most {
        most if most >= layer.tokens => layer.tokens,
        most if most > WHOLE => most - most % WHOLE,
        most => most,
    })
}

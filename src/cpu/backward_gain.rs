//! backward_gain · CPU · f32, f16, bf16
//!
//! computes   scaled_dy = gain∘dy, rounded once, and dmagnitude = β·old + Σ dy∘(y − bias) / magnitude
//! serves     backward_gain
//! tile       a ticket is a range of columns; it walks all tokens, so dy and y are read once and every
//!            sum has one order
//! scratch    a worker: the columns' sums, the bias widened, dy scaled; dy and y widened

use super::source::Source;
use super::target::{Rounding, Target};
use super::tickets::Team;
use super::workspace::Scratch;
use super::{Slice, SliceMut};
use crate::plan::cpu::BackwardGainTiles;
use crate::problem::Scalars;
use crate::product::GainGradient;
use crate::{Operands, Result};

pub(super) fn run<'a>(
    product: &GainGradient,
    scalars: Scalars,
    tiles: &BackwardGainTiles,
    operands: &mut Operands<Slice<'a>, SliceMut<'a>>,
    team: Team<'_>,
    scratch: Scratch<'_>,
) -> Result<()> {
    let (tokens, width) = (product.tokens, product.columns);
    let [dy, y, gain, magnitude] = [&product.dy, &product.y, &product.gain, &product.magnitude]
        .map(|of| Source::take(of, operands));
    let (dy, y, gain, magnitude) = (dy?, y?, gain?, magnitude?);
    let bias = product.bias.map(|bias| Source::take(&bias, operands)).transpose()?;
    let scaled = Target::take(&product.scaled, operands)?;
    let gradient = Target::take(&product.gradient, operands)?;
    let beta = product.old.value(scalars);
    team.run(
        // SAFETY: `Team::run` gives each worker's number out once.
        |worker| unsafe { scratch.of_worker(worker) },
        |own, at| {
            let cols = at * tiles.columns..width.min((at + 1) * tiles.columns);
            let (sums, own) = own.split_at_mut(cols.len());
            let (of_bias, own) = own.split_at_mut(cols.len());
            sums.fill(0.0);
            // Both are f32, and lie where they are.
            let gain = gain.panel(0..1, cols.clone(), &mut []).row(0);
            let magnitude = magnitude.panel(0..1, cols.clone(), &mut []).row(0);
            let bias = match &bias {
                Some(bias) => bias.panel(0..1, cols.clone(), of_bias).row(0),
                None => {
                    of_bias.fill(0.0);
                    &*of_bias
                }
            };
            for start in (0..tokens).step_by(tiles.band) {
                let rows = start..tokens.min(start + tiles.band);
                let len = rows.len() * cols.len();
                let (tile, own) = own.split_at_mut(len);
                let planes = if dy.is_planar() { 2 * len } else { len };
                let (of_dy, of_y) = own.split_at_mut(if dy.is_f32() { 0 } else { planes });
                let dy = dy.row_by_row(rows.clone(), cols.clone(), of_dy);
                let y = y.row_by_row(rows.clone(), cols.clone(), of_y);
                for (row, tile) in tile.chunks_exact_mut(cols.len()).enumerate() {
                    row_of(tile, sums, [dy.row(row), y.row(row), gain, bias]);
                }
                let step = cols.len();
                // SAFETY: these columns are this ticket's.
                unsafe { scaled.finish(rows, cols.clone(), tile, step, Rounding::default()) };
            }
            for (sum, magnitude) in sums.iter_mut().zip(magnitude) {
                *sum /= magnitude;
            }
            let (step, rounding) = (cols.len(), Rounding { beta, ..Rounding::default() });
            // SAFETY: as above.
            unsafe { gradient.finish(0..1, cols, sums, step, rounding) };
        },
    );
    Ok(())
}

/// `scaled = gain∘dy` and `sums += dy∘(y − bias)`, of one token.
fn row_of(scaled: &mut [f32], sums: &mut [f32], [dy, y, gain, bias]: [&[f32]; 4]) {
    pulp::Arch::new().dispatch(|| {
        let len = scaled.len();
        let (sums, dy, y) = (&mut sums[..len], &dy[..len], &y[..len]);
        let (gain, bias) = (&gain[..len], &bias[..len]);
        for at in 0..len {
            scaled[at] = gain[at] * dy[at];
            sums[at] += dy[at] * (y[at] - bias[at]);
        }
    });
}

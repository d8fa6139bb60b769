//! decode · CPU · f32, f16, bf16
//!
//! computes   y = x·wᵀ + shrunk·bᵀ (+ bias) for up to 16 tokens
//! serves     forward and, with the roles turned, backward_input
//! tile       a ticket is a range of columns; w is streamed once, row by row where its rows
//!            are contiguous (dot products, eight at a time), else four columns at a time
//!            (scaled sums)
//! leader     the first tickets share the ranks of shrunk and count `done` up; the others
//!            wait for it only at their border
//! scratch    shared: shrunk in f32 and the counter; a worker: x and pieces of w widened,
//!            its tile

use core::ops::Range;

use super::linear::{Roles, round_shrunk, store_shrunk};
use super::panel::{Finish, Panel, Source};
use super::product::{Tile, dots, scaled_sums};
use super::tickets::{Publish, Team, wait};
use super::workspace::Scratch;
use super::{Slice, SliceMut};
use crate::plan::cpu::{COLUMNS, Decode, ROWS, wide_and_deep};
use crate::{Operands, Problem, Result};

pub(super) fn run<'a>(
    problem: &Problem,
    tiles: &Decode,
    operands: Operands<Slice<'a>, SliceMut<'a>>,
    team: Team<'_>,
    scratch: Scratch<'_>,
) -> Result<()> {
    let Roles { x, layer, down, up, bias, shrunk } = Roles::new(problem, operands)?;
    let Some((w, y)) = layer else { return Ok(()) };
    let (tokens, rank, part) = (problem.tokens(), problem.rank(), problem.shrunk_part());
    let (wide, deep) = wide_and_deep(problem);
    let led = tiles.leaders > 0;
    let shared = || scratch.shared(0, tokens * part);
    // SAFETY: the counter lies behind the shared shrunk, and nothing else uses it. No worker
    // runs yet, so shrunk, too, can be cleared: its pad stays zero.
    let done = unsafe {
        shared().write_bytes(0, tokens * part);
        scratch.counters(tokens * part, usize::from(led))
    };
    team.run(
        |worker| {
            // SAFETY: `Team::run` gives each worker's number out once.
            let own = unsafe { scratch.of_worker(worker) };
            let (room, own) = own.split_at_mut(if x.is_f32() { 0 } else { tokens * deep });
            (x.panel(0..tokens, 0..deep, room), own)
        },
        |(x, own), at| {
            if at < tiles.leaders {
                let _done = Publish(&done[0]);
                let Some(down) = down else { return };
                let ranks = at * tiles.lead..rank.min((at + 1) * tiles.lead);
                let (tile, own) = own.split_at_mut(tokens * ranks.len());
                stream(*x, down, ranks.clone(), tile, own);
                for (row, tile) in tile.chunks_exact_mut(ranks.len()).enumerate() {
                    tile.iter_mut().for_each(|value| *value *= problem.scale());
                    round_shrunk(problem, tile);
                    // SAFETY: these ranks are this ticket's alone until it publishes them.
                    let t = unsafe {
                        let start = shared().add(row * part + ranks.start);
                        core::slice::from_raw_parts_mut(start, ranks.len())
                    };
                    t.copy_from_slice(tile);
                }
                return;
            }
            let piece = at - tiles.leaders;
            let cols = piece * tiles.cols..wide.min((piece + 1) * tiles.cols);
            let (tile, own) = own.split_at_mut(tokens * cols.len());
            // ── multiply ──────────────────────────────────────────────────────
            stream(*x, w, cols.clone(), tile, own);
            // ── border: shrunk meets b ────────────────────────────────────────
            if let Some(up) = up {
                wait(&done[0], tiles.leaders);
                // SAFETY: the leaders have written these elements and published them
                // (acquired in `wait`); nobody writes them again.
                let t = unsafe { core::slice::from_raw_parts(shared(), tokens * part) };
                if let (Some(shrunk), 0) = (shrunk, piece) {
                    // SAFETY: this ticket alone writes shrunk.
                    unsafe { store_shrunk(problem, shrunk, 0..tokens, t) };
                }
                let b = up.panel(cols.clone(), 0..rank, own);
                let t = Panel::new(t, tokens, rank, part);
                match up.is_row_major() {
                    true => dots(t, b, tile, cols.len(), true),
                    false => scaled_sums(t, b, tile, cols.len()),
                }
            }
            // ── finish: bias, round once, store ───────────────────────────────
            let bias = bias.map(|bias| bias.panel(0..1, cols.clone(), own).row(0));
            let (step, finish) = (cols.len(), Finish { beta: problem.beta(), bias });
            // SAFETY: these columns are this ticket's.
            unsafe { y.finish(0..tokens, cols, tile, step, finish) };
        },
    );
    Ok(())
}

/// Columns of w from this length on come from memory fastest one after the other.
const LONG: usize = 256;

/// `tile[token][col] = x[token]·w[cols.start + col]`, w read from memory once.
fn stream(x: Panel<'_>, w: Source<'_>, cols: Range<usize>, tile: &mut [f32], own: &mut [f32]) {
    let stride = cols.len();
    if w.is_row_major() {
        // All at once where they are read in place for one token alone.
        let step = if w.is_f32() && x.rows == 1 { stride } else { ROWS };
        for start in cols.clone().step_by(step) {
            let rows = start..cols.end.min(start + step);
            let w = w.panel(rows, 0..x.cols, own);
            dots(x, w, &mut tile[start - cols.start..], stride, false);
        }
    } else if w.is_f32() && x.rows == 1 && stride >= LONG {
        // For a single token `gemm` packs nothing, and reads one column after the other.
        let w = w.panel(cols, 0..x.cols, own);
        Tile::in_scratch(tile, 1, stride).accumulate(0.0, 1.0, x, w);
    } else {
        tile.fill(0.0);
        for start in (0..x.cols).step_by(COLUMNS) {
            let sum = start..x.cols.min(start + COLUMNS);
            let w = w.panel(cols.clone(), sum.clone(), own);
            let x = Panel { elements: &x.elements[start..], cols: sum.len(), ..x };
            scaled_sums(x, w, tile, stride);
        }
    }
}

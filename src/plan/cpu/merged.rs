//! Cuts strategy `merged`: the merge, onto a copy of w in the common scratch, and the plain layer on that.

use super::presets::{LinearTile, MERGE};
use super::{CACHE_LINE, Cut, Refusal, Schedule, Storage, Tiles, contract, linear, merge};
use crate::product::{Bordered, Load, Product};
use crate::{Layout, Major, Operand, Operation, Problem};

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MergedTiles {
    /// w with its adapter, as the layer reads it: stored rows one behind the other.
    pub(crate) w: Load,
    /// Of the common scratch, in f32 elements.
    pub(crate) room: usize,
    pub(crate) merge: Part,
    pub(crate) layer: Part,
}

/// One of the two, which share their scratch but for w.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part {
    pub(crate) product: Product,
    pub(crate) schedule: Box<Schedule>,
}

pub(super) fn cut(
    tile: LinearTile,
    problem: &Problem,
    of: &Bordered,
    workers: usize,
) -> Result<Cut, Refusal> {
    let reason = |text: &str| Refusal::Reason(text.to_owned());
    if of.border.is_some_and(|border| border.shrunk.kept.is_some()) {
        return Err(reason("does not form the shrunk that is kept"));
    }
    if problem.is_batch_invariant() {
        return Err(reason("the bits of w' depend on how many share the work"));
    }
    let major = of.body.map_or(Major::Row, |body| body.right.spec.major);
    let with_w = |of: Problem| of.with_layout(Operand::W, Layout { major, ..Layout::default() });
    let of_merge = with_w(problem.with_operation(Operation::Merge));
    let plain = with_w(problem.plain());
    let product = |of: &Problem| Product::new(of, &of.all_specs());
    let (to_merge, to_run) = (product(&of_merge), product(&plain));
    let storage = Storage::new(&of_merge, &to_merge);
    let merge = match &to_merge {
        Product::Merge(of) => merge::cut(MERGE, of, storage, workers),
        Product::Factors(of) => contract::cut(of, storage, workers),
        _ => return Err(reason("there is no adapter")),
    };
    let Product::Layer(of) = &to_run else { return Err(reason("not a layer")) };
    let Some(w) = of.body.map(|body| body.right) else { return Err(reason("a layer without w")) };
    let layer = linear::layer(tile, of, Storage::new(&plain, &to_run), workers);
    let room = usize::try_from(w.spec.bytes()).unwrap_or(usize::MAX).div_ceil(size_of::<f32>());
    let room = room.checked_next_multiple_of(CACHE_LINE).unwrap_or(usize::MAX);
    let most = |f: fn(&Schedule) -> usize| f(&merge.schedule).max(f(&layer.schedule));
    let common = most(|of| of.common_scratch).next_multiple_of(CACHE_LINE);
    let (workers, worker_scratch) = (most(|of| of.workers), most(|of| of.worker_scratch));
    let (micros, reads_of_w) = (merge.micros + layer.micros, 1 + layer.reads_of_w);
    let tickets = layer.schedule.tickets;
    let part = |product, cut: Cut| Part { product, schedule: Box::new(cut.schedule) };
    let (merge, layer) = (part(to_merge.clone(), merge), part(to_run.clone(), layer));
    let tiles = Tiles::Merged(Box::new(MergedTiles { w, room, merge, layer }));
    let common_scratch = room.saturating_add(common);
    let schedule = Schedule { workers, tickets, common_scratch, worker_scratch, tiles };
    Ok(Cut { schedule, reads_of_w, micros })
}

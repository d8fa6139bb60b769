//! Cuts the sums over an adapter's factors for `contract`: tickets of rows and columns of each result.

use super::{CACHE_LINE, Cut, Schedule, Storage, Tiles, model};
use crate::DType;
use crate::product::{Contraction, Factors, Place};

/// Sums of a ticket, at most: half of a small L1.
const MOST_SUMS: usize = 1 << 12;
/// Columns of a ticket, at most.
const MOST_COLUMNS: usize = 1 << 10;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ContractTiles {
    /// Of each sum, in their order.
    pub(crate) cuts: Vec<ContractCut>,
    /// Common scratch of w1 where it is formed, and as much of its gradient.
    pub(crate) w1: usize,
}

/// One result as tickets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ContractCut {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) tickets: usize,
}

impl ContractCut {
    fn new(of: &Contraction, workers: usize) -> ContractCut {
        let (all_rows, all_columns) = (of.out.spec.rows, of.out.spec.cols);
        let columns = all_columns.min(MOST_COLUMNS);
        let column_tickets = all_columns.div_ceil(columns.max(1));
        // Four tickets a worker, where there are rows for them.
        let even = (all_rows * column_tickets).div_ceil(4 * workers);
        let rows = even.min(MOST_SUMS / columns.max(1)).clamp(1, all_rows.max(1));
        ContractCut { rows, columns, tickets: all_rows.div_ceil(rows) * column_tickets }
    }
}

pub(super) fn cut(of: &Factors, storage: Storage, workers: usize) -> Cut {
    let cuts: Vec<ContractCut> = of.sums.iter().map(|sum| ContractCut::new(sum, workers)).collect();
    let formed = of.sums.iter().find(|sum| !matches!(sum.out.place, Place::Operand(_)));
    let w1 = formed.map_or(0, |sum| sum.out.spec.rows.saturating_mul(sum.out.spec.cols));
    let w1 = w1.saturating_add(CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    // What is stored in 16 bits is widened as a whole, before the sum that reads it.
    let widened = |sum: &Contraction| {
        let halves = sum.reads().filter(|of| of.spec.dtype != DType::F32);
        halves.map(|of| of.spec.rows.saturating_mul(of.spec.cols)).fold(0, usize::saturating_add)
    };
    let widened = of.sums.iter().map(widened).max().unwrap_or(0);
    let work: u64 = of.sums.iter().map(Contraction::work).fold(0, u64::saturating_add);
    let largest = cuts.iter().map(|cut| cut.rows.saturating_mul(cut.columns)).max();
    Cut {
        schedule: Schedule {
            workers,
            tickets: cuts.iter().map(|cut| cut.tickets).max().unwrap_or(0),
            common_scratch: w1.saturating_mul(2).saturating_add(widened),
            worker_scratch: largest.unwrap_or(0),
            tiles: Tiles::Contract(ContractTiles { cuts, w1 }),
        },
        reads_of_w: 0,
        micros: 2.0 * work as f64 / model::SCALED_SUMS / workers as f64
            + storage.bytes as f64 / model::BYTES,
    }
}

//! Cuts the sums over an adapter's factors for `contract`: rounds of sums that do not wait for each other, each as tickets of rows
//! and columns of its result.

use super::{CACHE_LINE, Cut, Schedule, Storage, Tiles, model};
use crate::DType;
use crate::product::{Contraction, Factors, Place};

/// Sums of a ticket, at most: half of a small L1.
const MOST_SUMS: usize = 1 << 12;
/// Columns of a ticket, at most.
const MOST_COLUMNS: usize = 1 << 10;
/// Sums of a round, at most: every method's sums that do not wait for others.
pub(crate) const ROUND: usize = 8;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ContractTiles {
    /// One after the other. None of a round reads what another one of it writes.
    pub(crate) rounds: Vec<Vec<ContractCut>>,
    /// Common scratch of w1 where it is formed, and of that and its gradient.
    pub(crate) w1: usize,
    pub(crate) own: usize,
}

/// One result as tickets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ContractCut {
    pub(crate) sum: Contraction,
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
        let tickets = all_rows.div_ceil(rows) * column_tickets;
        ContractCut { sum: of.clone(), rows, columns, tickets }
    }

    /// Elements that are stored in 16 bits, and widened as a whole before the sum that reads them.
    fn widened_len(&self) -> usize {
        let halves = self.sum.reads().filter(|of| of.spec.dtype != DType::F32);
        halves.map(|of| of.spec.rows.saturating_mul(of.spec.cols)).fold(0, usize::saturating_add)
    }
}

/// The sums in their order, a new round wherever one reads what the one at hand writes, or it is full.
fn rounds(of: &Factors, workers: usize) -> Vec<Vec<ContractCut>> {
    let mut rounds: Vec<Vec<ContractCut>> = Vec::new();
    for sum in &of.sums {
        let cut = ContractCut::new(sum, workers);
        let waits = |round: &&mut Vec<ContractCut>| {
            let reads = |place: Place| sum.reads().any(|of| of.place == place);
            round.len() == ROUND || round.iter().any(|of| reads(of.sum.out.place))
        };
        match rounds.last_mut().filter(|round| !waits(round)) {
            Some(round) => round.push(cut),
            None => rounds.push(vec![cut]),
        }
    }
    rounds
}

pub(super) fn cut(of: &Factors, storage: Storage, workers: usize) -> Cut {
    let rounds = rounds(of, workers);
    let [w1, dw1] = [Place::W1, Place::Dw1].map(|place| {
        let formed = of.sums.iter().find(|sum| sum.out.place == place);
        let len = formed.map_or(0, |sum| sum.out.spec.rows.saturating_mul(sum.out.spec.cols));
        len.saturating_add(CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE
    });
    let own = w1.saturating_add(dw1);
    let most = |of: fn(&ContractCut) -> usize| {
        let of_round = |round: &Vec<_>| round.iter().map(of).fold(0usize, usize::saturating_add);
        rounds.iter().map(of_round).max().unwrap_or(0)
    };
    let widened = most(ContractCut::widened_len);
    let tickets = most(|cut| cut.tickets);
    let work: u64 = of.sums.iter().map(Contraction::work).fold(0, u64::saturating_add);
    let all = rounds.iter().flatten();
    let largest = all.map(|cut| cut.rows.saturating_mul(cut.columns)).max();
    Cut {
        schedule: Schedule {
            workers,
            tickets,
            common_scratch: own.saturating_add(widened),
            worker_scratch: largest.unwrap_or(0),
            tiles: Tiles::Contract(ContractTiles { rounds, w1, own }),
        },
        reads_of_w: 0,
        micros: 2.0 * work as f64 / model::SCALED_SUMS / workers as f64
            + storage.bytes as f64 / model::BYTES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::Product;
    use crate::{Kronecker, Method, Operation, Problem, Taps};

    fn factors(operation: Operation, method: Method) -> Factors {
        let problem = Problem::new(operation, 0, 18, 24, 3).with_method(method);
        match Product::new(&problem, &problem.all_specs()) {
            Product::Factors(of) => of,
            other => panic!("{operation}, {method:?}: {other:?}"),
        }
    }

    /// Workers run the sums of a round at the same time: none may wait for another one, and none is left out.
    #[test]
    fn sums_of_a_round_do_not_wait_for_each_other() {
        for (method, expected) in [
            (Method::Loha, [1, 1]),
            (Method::Tucker(Taps::new(9)), [1, 1]),
            (Method::Lokr(Kronecker::new(4, 3)), [1, 1]),
            // w1 comes first; of its factors' gradients that of w1 does.
            (Method::Lokr(Kronecker::low(4, 3)), [2, 2]),
            // That of a whole one is the sum of those of the taps.
            (Method::Lokr(Kronecker::new(4, 3).taps_first(2)), [1, 2]),
            (Method::Lokr(Kronecker::low(4, 3).taps_first(3)), [2, 2]),
        ] {
            for (operation, expected) in Operation::FACTORS.iter().zip(expected) {
                let of = factors(*operation, method);
                let rounds = rounds(&of, 2);
                let name = format!("{operation}, {method:?}");
                for (at, round) in rounds.iter().enumerate() {
                    for cut in round {
                        let mut reads = cut.sum.reads().map(|of| of.place);
                        let others = round.iter().map(|other| other.sum.out.place);
                        let mut all = others.filter(|place| *place != cut.sum.out.place);
                        assert!(all.all(|of| reads.all(|place| place != of)), "{name}: round {at}");
                    }
                    assert!(round.len() <= ROUND);
                }
                let sums: Vec<_> = rounds.iter().flatten().map(|cut| cut.sum.clone()).collect();
                assert_eq!(sums, of.sums, "{name}");
                assert_eq!(rounds.len(), expected, "{name}");
            }
        }
    }
}

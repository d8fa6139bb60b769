//! Results against the reference: within the tolerance, or exactly.

use std::collections::BTreeMap;

use fused_lora::reference::{Dense, Expected, Sums, expected, shrunk_value};
use fused_lora::{DType, Operand, Operation, Plan, Problem};

use crate::{Buffers, Case, Stored};

/// The reference's results for what `before` holds.
pub fn results(problem: &Problem, sums: Sums, before: &Buffers) -> Vec<(Operand, Expected)> {
    expected(problem, sums, |operand| before.at(operand).dense())
}

/// The reference's results, computed once for all candidates of one problem.
pub struct Reference<'a> {
    problem: &'a Problem,
    before: &'a Buffers,
    known: Option<(Sums, Vec<(Operand, Expected)>)>,
}

impl<'a> Reference<'a> {
    /// Nothing is computed yet.
    pub fn new(problem: &'a Problem, before: &'a Buffers) -> Reference<'a> {
        Reference { problem, before, known: None }
    }

    /// With the tolerance for sums of this kind.
    pub fn of(&mut self, sums: Sums) -> &[(Operand, Expected)] {
        if self.known.as_ref().is_none_or(|(known, _)| *known != sums) {
            self.known = Some((sums, results(self.problem, sums, self.before)));
        }
        self.known.as_ref().map_or(&[], |(_, results)| results)
    }
}

/// What an output holds, as numbers of the reference's shape.
pub fn value(problem: &Problem, after: &Buffers, operand: Operand) -> Dense {
    let dense = after.at(operand).dense();
    match operand {
        Operand::Shrunk | Operand::Dshrunk => shrunk_value(problem, &dense),
        _ => dense,
    }
}

/// The largest part of its tolerance that any element of an output uses: 1 is all of it.
/// Infinite where a number should be and is not.
pub fn largest_part(problem: &Problem, after: &Buffers, operand: Operand, of: &Expected) -> f64 {
    let got = value(problem, after, operand);
    assert_eq!((got.rows(), got.cols()), (of.value.rows(), of.value.cols()), "{operand}");
    let pairs = got.values().iter().zip(of.value.values()).zip(of.tolerance.values());
    pairs.fold(0.0, |largest, ((got, want), tolerance)| {
        assert!(tolerance.is_finite(), "{operand}: a tolerance of {tolerance}");
        let error = (got - want).abs();
        let part = match error {
            0.0 => 0.0,
            error if error.is_nan() => f64::INFINITY,
            error => error / tolerance,
        };
        largest.max(part)
    })
}

/// Parts of the tolerance by operand and dtype.
#[derive(Debug, Default)]
pub struct Usage {
    parts: BTreeMap<String, f64>,
}

impl Usage {
    /// Every output within its tolerance, and the pads of `shrunk` zero.
    pub fn check(
        &mut self,
        plan: &Plan,
        after: &Buffers,
        results: &[(Operand, Expected)],
        case: &Case,
    ) {
        let problem = plan.problem();
        for (operand, of) in results {
            let part = largest_part(problem, after, *operand, of);
            let dtype = after.at(*operand).spec.dtype;
            assert!(
                part <= 1.0,
                "{operand} uses {part} of its tolerance; {:?}, seed {}\n{problem:?}\n{}",
                case.fill,
                case.seed,
                plan.explain(),
            );
            let merges = matches!(problem.operation(), Operation::Merge | Operation::Unmerge);
            let precise = if problem.is_precise() && !merges { " precise" } else { "" };
            let key = format!("{} {operand} {dtype}{precise}", problem.operation());
            let largest = self.parts.entry(key).or_insert(0.0);
            *largest = largest.max(part);
        }
        assert_pads_are_zero(problem, after);
    }

    /// Prints the parts. With `least`, a tolerance of which no case used that much fails: it
    /// would let wrong results pass.
    pub fn report(&self, least: Option<f64>) {
        for (key, part) in &self.parts {
            println!("  {key:<40} uses {part:.3} of its tolerance");
            assert!(least.is_none_or(|least| *part >= least), "{key}: the tolerance is vacuous");
        }
    }
}

/// The columns of `shrunk` behind the rank are zero, in both parts.
pub fn assert_pads_are_zero(problem: &Problem, after: &Buffers) {
    let (rank, part) = (problem.rank(), problem.padded_rank());
    let kept = |of: &&Stored| matches!(of.operand, Operand::Shrunk | Operand::Dshrunk);
    for stored in after.outputs().filter(kept) {
        for row in 0..stored.spec.rows {
            for col in (0..stored.spec.cols).filter(|col| col % part >= rank) {
                assert_eq!(stored.get(row, col), 0.0, "{}: pad {row}, {col}", stored.operand);
            }
        }
    }
}

/// Every output is the reference's value rounded once. The sign of a zero is not promised.
pub fn assert_exact(plan: &Plan, after: &Buffers, results: &[(Operand, Expected)], case: &Case) {
    let problem = plan.problem();
    for (operand, of) in results {
        let stored = after.at(*operand);
        let (dtype, part) = (stored.spec.dtype, problem.padded_rank());
        let kept = matches!(operand, Operand::Shrunk | Operand::Dshrunk);
        for row in 0..of.value.rows() {
            for col in 0..of.value.cols() {
                let exact = of.value.at(row, col) as f32;
                assert_eq!(f64::from(exact), of.value.at(row, col), "the case is not exact");
                let high = dtype.round(exact);
                let mut wants = vec![(col, high)];
                if kept && problem.is_precise() {
                    wants.push((part + col, dtype.round(exact - high)));
                }
                for (col, want) in wants {
                    let got = stored.get(row, col);
                    assert!(
                        got == want,
                        "{operand}[{row}, {col}] is {got}, expected {want}; seed {}\n{problem:?}\n{}",
                        case.seed,
                        plan.explain(),
                    );
                }
            }
        }
    }
    assert_pads_are_zero(problem, after);
}

/// Whether `shrunk` is stored without rounding, which exact cases rest on.
pub fn shrunk_is_exact(problem: &Problem, results: &[(Operand, Expected)]) -> bool {
    let dtype: DType = problem.activation();
    let kept = |of: &&(Operand, Expected)| matches!(of.0, Operand::Shrunk | Operand::Dshrunk);
    results.iter().filter(kept).flat_map(|(_, of)| of.value.values()).all(|&exact| {
        let high = dtype.round(exact as f32);
        let low = if problem.is_precise() { dtype.round(exact as f32 - high) } else { 0.0 };
        f64::from(high) + f64::from(low) == exact
    })
}

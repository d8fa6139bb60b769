//! Medians of pairwise ratios and their intervals: what every timing here is reduced to.
//! Used by the benches, and by `examples/layer.rs` through `#[path]`.

use std::fmt;
use std::time::Instant;

/// A median with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// The median.
    pub median: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// Of `values`, without a word about how they are distributed: the interval runs between
    /// two order statistics that enclose the true median with a probability of at least
    /// 95 %. Fewer than six values cannot promise that; theirs runs from least to greatest.
    ///
    /// Panics where there are no values.
    pub fn of(mut values: Vec<f64>) -> Interval {
        values.sort_by(f64::total_cmp);
        let n = values.len();
        let outside = values_outside(n);
        Interval {
            low: values[outside],
            median: (values[(n - 1) / 2] + values[n / 2]) / 2.0,
            high: values[n - 1 - outside],
        }
    }

    /// `design.md` §7: the interval reaches 1.00 or lies below it, and the median is at
    /// most 1.03.
    pub fn not_slower(&self) -> bool {
        self.low <= 1.0 && self.median <= 1.03
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.3} [{:.3}, {:.3}]", self.median, self.low, self.high))
    }
}

/// How many of `n` sorted values may be left out at each end. The number of values below
/// the true median is Binomial(n, ½); at most 2.5 % of it may lie in either tail.
fn values_outside(n: usize) -> usize {
    let mut term = 0.5f64.powi(n as i32);
    let (mut tail, mut outside) = (term, 0);
    while tail <= 0.025 && 2 * (outside + 1) < n {
        outside += 1;
        term *= (n + 1 - outside) as f64 / outside as f64;
        tail += term;
    }
    // The last term took the tail past its share.
    if tail > 0.025 { outside.saturating_sub(1) } else { outside }
}

/// Time of `ours` over that of `theirs`, in pairs whose order alternates. Both have run
/// before: plans are made, caches as warm as they get.
pub fn pairwise<E>(
    pairs: usize,
    mut ours: impl FnMut() -> Result<(), E>,
    mut theirs: impl FnMut() -> Result<(), E>,
) -> Result<Interval, E> {
    let mut ratios = Vec::with_capacity(pairs);
    for pair in 0..pairs {
        let ours_first = pair % 2 == 0;
        let before = if ours_first { Some(seconds(&mut ours)?) } else { None };
        let theirs = seconds(&mut theirs)?;
        let ours = before.map_or_else(|| seconds(&mut ours), Ok)?;
        ratios.push(ours / theirs);
    }
    Ok(Interval::of(ratios))
}

/// How long `run` takes.
pub fn seconds<E>(run: &mut impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    let start = Instant::now();
    run()?;
    Ok(start.elapsed().as_secs_f64())
}

/// The median alone.
pub fn median(values: Vec<f64>) -> f64 {
    Interval::of(values).median
}

/// The geometric mean; `None` of nothing.
pub fn geometric_mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.into_iter().fold((0.0, 0), |(sum, n), value| (sum + value.ln(), n + 1));
    (n > 0).then(|| (sum / f64::from(n)).exp())
}

#[cfg(test)]
mod tests {
    // A bench without a harness has no use for it.
    #[allow(unused_imports)]
    use super::*;

    /// The ranks that textbooks tabulate for the 95 % interval of a median.
    #[test]
    fn the_interval_is_that_of_the_tables() {
        for (n, rank) in [(6, 1), (9, 2), (10, 2), (15, 4), (20, 6), (25, 8), (30, 10), (50, 18)] {
            let interval = Interval::of((1..=n).rev().map(f64::from).collect());
            let (low, high) = (f64::from(rank), f64::from(n + 1 - rank));
            assert_eq!((interval.low, interval.high), (low, high), "n = {n}");
            assert_eq!(interval.median, f64::from(n + 1) / 2.0, "n = {n}");
        }
    }

    #[test]
    fn few_values_span_their_range() {
        for n in 1..6 {
            let interval = Interval::of((1..=n).map(f64::from).collect());
            assert_eq!((interval.low, interval.high), (1.0, f64::from(n)), "n = {n}");
        }
    }

    #[test]
    fn not_slower_asks_for_both() {
        let verdict = |low, median| Interval { low, median, high: 2.0 }.not_slower();
        assert!(verdict(1.0, 1.03) && verdict(0.9, 0.95));
        assert!(!verdict(1.001, 1.01), "the interval lies above 1");
        assert!(!verdict(0.9, 1.04), "the median is too far above 1");
    }

    #[test]
    fn geometric_mean_of_a_ratio_and_its_inverse_is_one() {
        assert!((geometric_mean([4.0, 0.25]).unwrap() - 1.0).abs() < 1e-12);
        assert_eq!(geometric_mean([]), None);
    }
}

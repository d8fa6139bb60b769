//! One cell as it is kept: a line of a CSV file. Made by `main.rs`, shown by `report.rs`, `page.rs` and `plot.rs`.

use serde::{Deserialize, Serialize};

use super::common::Cost;
use super::common::shapes::Cell;
use super::common::statistics::Interval;

/// What was measured of a cell.
pub struct Measured {
    pub cell: Cell,
    /// The naive path that was the faster one.
    pub taken: &'static str,
    pub pairs: usize,
    /// fused / naive.
    pub over_naive: Interval,
    /// fused / plain.
    pub over_plain: Interval,
    /// What fused / plain would be if the adapter's arithmetic cost what the layer's does.
    pub floor: f64,
    pub fused: Cost,
    pub naive: Cost,
    /// Of a small adapter's effect, what reaches y (dx) fused, and in naive calls; of f32 nothing is asked.
    pub shares: Option<[f64; 2]>,
}

/// The same, with four digits behind the point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub layer: String,
    pub out_features: usize,
    pub in_features: usize,
    pub tokens: usize,
    pub rank: usize,
    pub dtype: String,
    pub direction: String,
    pub naive_path: String,
    pub pairs: usize,
    pub fused_over_naive: f64,
    pub naive_low: f64,
    pub naive_high: f64,
    pub fused_over_plain: f64,
    pub plain_low: f64,
    pub plain_high: f64,
    pub floor: f64,
    pub fused_launches: usize,
    pub naive_launches: usize,
    pub fused_bytes: u64,
    pub naive_bytes: u64,
    /// The fused path's bytes over the least that any kernel could move.
    pub bytes_over_least: f64,
    /// `None`: not measured.
    pub fused_share: Option<f64>,
    pub naive_share: Option<f64>,
    pub verdict: String,
}

impl From<&Measured> for Record {
    fn from(of: &Measured) -> Record {
        let Cell { shape, tokens, rank, dtype, direction } = of.cell;
        let digits = |value: f64| (value * 1e4).round() / 1e4;
        let (naive, plain) = (of.over_naive, of.over_plain);
        Record {
            layer: shape.name.to_owned(),
            out_features: shape.out_features,
            in_features: shape.in_features,
            tokens,
            rank,
            dtype: dtype.to_string(),
            direction: direction.to_string(),
            naive_path: of.taken.to_owned(),
            pairs: of.pairs,
            fused_over_naive: digits(naive.median),
            naive_low: digits(naive.low),
            naive_high: digits(naive.high),
            fused_over_plain: digits(plain.median),
            plain_low: digits(plain.low),
            plain_high: digits(plain.high),
            floor: digits(of.floor),
            fused_launches: of.fused.launches,
            naive_launches: of.naive.launches,
            fused_bytes: of.fused.bytes,
            naive_bytes: of.naive.bytes,
            bytes_over_least: digits(of.fused.bytes as f64 / of.fused.least as f64),
            fused_share: of.shares.map(|[fused, _]| digits(fused)),
            naive_share: of.shares.map(|[_, naive]| digits(naive)),
            verdict: if naive.not_slower() { "not slower" } else { "slower" }.to_owned(),
        }
    }
}

impl Record {
    pub fn over_naive(&self) -> Interval {
        Interval { low: self.naive_low, median: self.fused_over_naive, high: self.naive_high }
    }

    pub fn over_plain(&self) -> Interval {
        Interval { low: self.plain_low, median: self.fused_over_plain, high: self.plain_high }
    }

    pub fn is_not_slower(&self) -> bool {
        self.verdict == "not slower"
    }

    /// The shares of both paths, where they were measured.
    pub fn shares(&self) -> String {
        match (self.fused_share, self.naive_share) {
            (Some(fused), Some(naive)) => format!("{fused:.2} : {naive:.2}"),
            _ => String::new(),
        }
    }

    /// The cell in short, while the others are still to come.
    pub fn progress(&self) -> String {
        let shares = self.shares();
        let shares = if shares.is_empty() { shares } else { format!("  share {shares}") };
        format!(
            "naive ({}) {}  plain {}  {}{shares}",
            self.naive_path,
            self.over_naive(),
            self.over_plain(),
            self.verdict
        )
    }
}

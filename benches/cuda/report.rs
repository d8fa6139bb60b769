//! Rows and tables of a card's times: Markdown and CSV, written again with every row, so that
//! what was measured before a run was cut short is there. Called by `main.rs`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::cells::goal_of;
use super::common::shapes::Cell;
use super::common::statistics::{Interval, geometric_mean};
use super::common::{Cost, Result, machine};

/// The paths beside the fused one, in the order of their columns: cuBLAS's three ways, then
/// this crate's own kernels.
pub const RIVALS: [&str; 6] =
    ["cublas-plain", "cublas-naive3", "cublas-naive2", "plain", "naive3", "naive2"];

/// What was measured of one path beside the fused one.
#[derive(Debug, Clone)]
pub struct Rival {
    /// Fused over it, both in graphs.
    pub over: Interval,
    /// The same, when the host launches every kernel by itself. For few tokens.
    pub one_by_one: Option<f64>,
    /// Of one run in a graph.
    pub micros: f64,
    pub cost: Cost,
    /// Its kernels.
    pub choices: String,
}

/// One cell, measured.
pub struct Row {
    pub cell: Cell,
    pub pairs: usize,
    pub sets: usize,
    pub runs: usize,
    /// Of one run of the fused path in a graph.
    pub micros: f64,
    pub cost: Cost,
    /// Of the layer without its adapter.
    pub plain: Cost,
    pub choices: String,
    /// As [`RIVALS`]; `None` where there is no cuBLAS.
    pub rivals: [Option<Rival>; RIVALS.len()],
    /// What failed of cuBLAS.
    pub notes: Vec<String>,
}

/// A column: its head, and what a row has there.
type Column = (&'static str, fn(&Row) -> String);

const COLUMNS: &[Column] = &[
    ("layer", |row| row.cell.shape.name.into()),
    ("out x in", |row| format!("{}x{}", row.cell.shape.out_features, row.cell.shape.in_features)),
    ("M", |row| row.cell.tokens.to_string()),
    ("r", |row| row.cell.rank.to_string()),
    ("fused us", |row| format!("{:.2}", row.micros)),
    ("/ cuBLAS plain", |row| row.over(0)),
    ("/ cuBLAS naive3", |row| row.over(1)),
    ("/ cuBLAS naive2", |row| row.over(2)),
    ("/ plain", |row| row.over(3)),
    ("/ naive3", |row| row.over(4)),
    ("/ naive2", |row| row.over(5)),
    ("one by one", |row| row.one_by_one()),
    ("floor flops", |row| format!("{:.3}", ratio(row.cost.least_flops, row.plain.least_flops))),
    ("floor bytes", |row| format!("{:.3}", ratio(row.cost.least, row.plain.least))),
    ("launches", |row| row.launches()),
    ("MB", |row| format!("{:.2}", row.cost.bytes as f64 / 1e6)),
    ("/ least", |row| format!("{:.3}", ratio(row.cost.bytes, row.cost.least))),
    ("verdict", |row| row.verdict().into()),
    ("goal", |row| row.goal()),
    ("kernels", |row| row.choices.clone()),
    ("pairs", |row| row.pairs.to_string()),
    ("sets", |row| row.sets.to_string()),
];

fn ratio(over: u64, under: u64) -> f64 {
    over as f64 / under as f64
}

impl Row {
    fn over(&self, rival: usize) -> String {
        self.rivals[rival].as_ref().map_or(String::new(), |rival| rival.over.to_string())
    }

    /// Medians without graphs, over plain and the three or five calls, cuBLAS's where it is there.
    fn one_by_one(&self) -> String {
        let median = |rivals: [usize; 2]| {
            let mut found = rivals.into_iter().filter_map(|at| self.rivals[at].as_ref());
            found.next().and_then(|rival| rival.one_by_one)
        };
        match (median([0, 3]), median([1, 4])) {
            (Some(plain), Some(naive)) => format!("{plain:.3} : {naive:.3}"),
            _ => String::new(),
        }
    }

    /// Fused : three (five) calls : two (four) calls.
    fn launches(&self) -> String {
        let of = |rivals: [usize; 2]| {
            let mut found = rivals.into_iter().filter_map(|at| self.rivals[at].as_ref());
            found.next().map_or(0, |rival| rival.cost.launches)
        };
        format!("{} : {} : {}", self.cost.launches, of([1, 4]), of([2, 5]))
    }

    /// Against the best of the naive paths; cuBLAS's where it is there.
    fn verdict(&self) -> &'static str {
        let naive = |rivals: &[usize]| -> Vec<bool> {
            let found = rivals.iter().filter_map(|&at| self.rivals[at].as_ref());
            found.map(|rival| rival.over.not_slower()).collect()
        };
        let (cublas, ours) = (naive(&[1, 2]), naive(&[4, 5]));
        match (cublas.is_empty(), cublas.into_iter().all(|of| of), ours.into_iter().all(|of| of)) {
            (false, true, _) => "not slower",
            (false, false, _) => "slower",
            (true, _, true) => "not slower than ours",
            (true, _, false) => "slower than ours",
        }
    }

    fn goal(&self) -> String {
        let Some(goal) = goal_of(self.cell) else { return String::new() };
        let step = goal.step.map_or(String::new(), |step| format!(", first {step:.2}"));
        let met = match &self.rivals[0] {
            None => "",
            Some(plain) if plain.over.median <= goal.most => ": met",
            Some(plain) if goal.step.is_some_and(|step| plain.over.median <= step) => ": first met",
            Some(_) => ": not met",
        };
        format!("{} {:.2}{step}{met}", goal.name, goal.most)
    }

    /// The row in short, while the others are still to come.
    pub fn progress(&self) -> String {
        let mut text = format!("{:9.2} us", self.micros);
        for (name, rival) in RIVALS.iter().zip(&self.rivals) {
            if let Some(rival) = rival {
                let _ = write!(text, "  /{name} {:.3}", rival.over.median);
            }
        }
        format!("{text}  {}  {}", self.verdict(), self.goal())
    }

    fn csv(&self) -> String {
        let Cell { shape, tokens, rank, dtype, direction } = self.cell;
        let mut text = format!(
            "{},{},{},{tokens},{rank},{dtype},{direction},{},{},{},{:.3},{},{},{},{:.4},{:.4},{}",
            shape.name,
            shape.out_features,
            shape.in_features,
            self.pairs,
            self.sets,
            self.runs,
            self.micros,
            self.cost.launches,
            self.cost.bytes,
            self.cost.least,
            ratio(self.cost.least_flops, self.plain.least_flops),
            ratio(self.cost.least, self.plain.least),
            self.choices,
        );
        for rival in &self.rivals {
            let _ = match rival {
                None => write!(text, ",,,,,,,,"),
                Some(Rival { over, one_by_one, micros, cost, choices }) => write!(
                    text,
                    ",{micros:.3},{:.4},{:.4},{:.4},{},{},{},{choices}",
                    over.median,
                    over.low,
                    over.high,
                    one_by_one.map_or(String::new(), |median| format!("{median:.4}")),
                    cost.launches,
                    cost.bytes,
                ),
            };
        }
        let _ = writeln!(text, ",{},{}", self.verdict(), self.goal().replace(", ", " "));
        text
    }
}

fn csv_head() -> String {
    let mut text = String::from(
        "layer,out_features,in_features,tokens,rank,dtype,direction,pairs,sets,runs,fused_us,\
         fused_launches,fused_bytes,least_bytes,floor_flops,floor_bytes,fused_kernels",
    );
    for name in RIVALS {
        let name = name.replace('-', "_");
        let _ = write!(
            text,
            ",{name}_us,fused_over_{name},{name}_low,{name}_high,{name}_one_by_one,\
             {name}_launches,{name}_bytes,{name}_kernels"
        );
    }
    text + ",verdict,goal\n"
}

/// The rows of one table, and what was left out.
#[derive(Default)]
pub struct Table {
    pub title: String,
    /// Whether the card is the stand-in.
    pub simulated: bool,
    pub rows: Vec<Row>,
    /// Cells without a figure, each with the reason.
    pub left_out: Vec<String>,
}

impl Table {
    /// The table, its means, and what is missing.
    pub fn text(&self) -> String {
        let cells: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| COLUMNS.iter().map(|(_, cell)| cell(row)).collect())
            .collect();
        let width = |column: usize| {
            let widest = cells.iter().map(|row| row[column].len()).max().unwrap_or(0);
            widest.max(COLUMNS[column].0.len())
        };
        let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
        let line = |texts: &mut dyn Iterator<Item = &str>| {
            let padded: Vec<String> =
                texts.zip(&widths).map(|(text, &width)| format!("{text:<width$}")).collect();
            format!("| {} |\n", padded.join(" | "))
        };
        let dashes: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
        let mut text = format!("# {}\n\n", self.title);
        if self.simulated {
            text += "A simulated card: its times say nothing of a real one.\n\n";
        }
        text += &line(&mut COLUMNS.iter().map(|(head, _)| *head));
        text += &line(&mut dashes.iter().map(String::as_str));
        for row in &cells {
            text += &line(&mut row.iter().map(String::as_str));
        }
        text.push('\n');
        for (at, name) in RIVALS.iter().enumerate() {
            let medians =
                self.rows.iter().filter_map(|row| Some(row.rivals[at].as_ref()?.over.median));
            if let Some(mean) = geometric_mean(medians) {
                let _ = writeln!(text, "- geometric mean of fused over {name}: {mean:.3}");
            }
        }
        for cell in &self.left_out {
            let _ = writeln!(text, "- left out: {cell}");
        }
        text
    }

    /// Writes `stem`.md and `stem`.csv, over those of the row before; `card` is a card in words.
    pub fn write(&self, out: &Path, stem: &str, card: &str) -> Result<()> {
        fs::create_dir_all(out)?;
        let machine = machine::describe(card, "cuda_layer");
        let page = format!("{}\n{LEGEND}\n{machine}", self.text());
        fs::write(out.join(format!("{stem}.md")), page)?;
        let rows: String = self.rows.iter().map(Row::csv).collect();
        fs::write(out.join(format!("{stem}.csv")), csv_head() + &rows)?;
        Ok(())
    }
}

const LEGEND: &str = "\
Microseconds of one run of the fused path, and ratios of times, below 1 where fused is faster:
the median of the pairwise ratios of alternating timings, and its 95 % interval by order
statistics. Times are the card's own, between two events, within CUDA graphs.

- *plain* is the layer without its adapter (backward, the gradient of the input alone);
  *naive3* three products forward and five backward, *naive2* the two (four) in which the border
  is part of a longer sum. With *cuBLAS*: the fastest, for each product, of cuBLASLt's proposals
  and GemmEx, timed on this card; without: this crate's own plain kernels.
- *one by one*: the same ratios over plain and naive3 (of cuBLAS, if it is there) when the host
  launches every kernel by itself; for few tokens.
- *floor*: what fused / plain would be if only operations, or only the least bytes, took time.
- *launches* of fused : naive3 : naive2 (for cuBLAS calls, some of which launch two kernels);
  *MB* that the fused plans move, and that over the least that any kernel could: counted, not
  measured.
- *verdict*: not slower than the naive paths (of cuBLAS, if it is there): every interval reaches
  1.00 or lies below it, with a median of at most 1.03.
- *goal*: a row of the design, and its time over cuBLAS's plain layer.
- *kernels* are the plans' strategies and presets; *sets* the copies of all buffers that runs
  take in turns, so that what they read is out of the cache. Adapters are stored in the
  activations' type, for the fused path as PEFT lays them out, for the others with the rank rounded
  up to 8; their gradients are f32.
";

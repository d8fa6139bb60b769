//! Rows and tables of ratios, as aligned text (which is Markdown, too) and as CSV.
//! Called by `main.rs`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use fused_lora::{DType, Device};

use super::Result;
use super::common::shapes::{Cell, Direction};
use super::common::statistics::{Interval, geometric_mean};
use super::common::{Cost, machine};
use super::plot;

/// From here down a layer is bound by the bytes of its weight.
const FEW_TOKENS: usize = 64;

/// One cell, measured.
pub struct Row {
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
}

/// A column: its head, and what a row has there.
type Column = (&'static str, fn(&Row) -> String);

/// Rivals of one backend alone (cuBLAS) have a bench of their own: `cuda_layer`.
const COLUMNS: &[Column] = &[
    ("layer", |row| row.cell.shape.name.into()),
    ("out x in", |row| format!("{}x{}", row.cell.shape.out_features, row.cell.shape.in_features)),
    ("M", |row| row.cell.tokens.to_string()),
    ("r", |row| row.cell.rank.to_string()),
    ("fused/naive", |row| row.over_naive.to_string()),
    ("naive is", |row| row.taken.into()),
    ("verdict", |row| row.verdict().into()),
    ("fused/plain", |row| row.over_plain.to_string()),
    ("floor", |row| format!("{:.3}", row.floor)),
    ("launches", |row| format!("{} : {}", row.fused.launches, row.naive.launches)),
    ("bytes", |row| format!("{:.3}", row.fused.bytes as f64 / row.naive.bytes as f64)),
    ("bytes/least", |row| format!("{:.3}", row.fused.bytes as f64 / row.fused.least as f64)),
    ("pairs", |row| row.pairs.to_string()),
];

impl Row {
    fn verdict(&self) -> &'static str {
        if self.over_naive.not_slower() { "not slower" } else { "slower" }
    }

    /// The row in short, while the others are still to come.
    pub fn progress(&self) -> String {
        let Row { over_naive, taken, over_plain, .. } = self;
        format!("naive ({taken}) {over_naive}  plain {over_plain}  {}", self.verdict())
    }
}

/// The cells of one storage type and direction.
pub struct Table<'a> {
    pub device: &'a Device,
    pub direction: Direction,
    pub dtype: DType,
    /// Cells of more 10^9 multiply-adds were left out.
    pub most: Option<f64>,
    pub rows: Vec<Row>,
}

impl Table<'_> {
    pub fn title(&self) -> String {
        format!("{} {} {}", self.device.name(), self.direction, self.dtype)
    }

    /// The table and its means.
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
        let mut text = format!("# {}\n\n", self.title());
        text += &line(&mut COLUMNS.iter().map(|(head, _)| *head));
        text += &line(&mut dashes.iter().map(String::as_str));
        for row in &cells {
            text += &line(&mut row.iter().map(String::as_str));
        }
        text + "\n" + &self.means()
    }

    fn means(&self) -> String {
        let mut text = String::new();
        for (name, most) in
            [("all tokens".to_owned(), usize::MAX), (format!("M <= {FEW_TOKENS}"), FEW_TOKENS)]
        {
            let rows = || self.rows.iter().filter(|row| row.cell.tokens <= most);
            let mean = |of: fn(&Row) -> f64| geometric_mean(rows().map(of));
            let Some(naive) = mean(|row| row.over_naive.median) else { continue };
            let plain = mean(|row| row.over_plain.median).unwrap_or(f64::NAN);
            let floor = mean(|row| row.floor).unwrap_or(f64::NAN);
            let not_slower = rows().filter(|row| row.over_naive.not_slower()).count();
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "- geometric means, {name}: fused/naive {naive:.3}, fused/plain {plain:.3}, \
                 floor {floor:.3}; not slower in {not_slower} of {} cells",
                rows().count(),
            );
        }
        text
    }

    fn csv(&self) -> String {
        let mut text = String::from(
            "layer,out_features,in_features,tokens,rank,dtype,direction,naive_path,pairs,\
             fused_over_naive,naive_low,naive_high,fused_over_plain,plain_low,plain_high,floor,\
             fused_launches,naive_launches,fused_bytes,naive_bytes,verdict\n",
        );
        for row in &self.rows {
            let Cell { shape, tokens, rank, dtype, direction } = row.cell;
            let (naive, plain) = (row.over_naive, row.over_plain);
            let _ = writeln!(
                text,
                "{},{},{},{tokens},{rank},{dtype},{direction},{},{},{:.4},{:.4},{:.4},{:.4},{:.4},\
                 {:.4},{:.4},{},{},{},{},{}",
                shape.name,
                shape.out_features,
                shape.in_features,
                row.taken,
                row.pairs,
                naive.median,
                naive.low,
                naive.high,
                plain.median,
                plain.low,
                plain.high,
                row.floor,
                row.fused.launches,
                row.naive.launches,
                row.fused.bytes,
                row.naive.bytes,
                row.verdict(),
            );
        }
        text
    }

    /// Writes `<backend>-<direction>-<dtype>` as .md, .csv and .svg.
    pub fn write(&self, out: &Path) -> Result<()> {
        fs::create_dir_all(out)?;
        let stem = self.title().replace([' ', ':'], "-");
        let most = self.most.map_or(String::new(), |most| {
            format!(
                "- Left out are cells of more than {most}·10⁹ multiply-adds in the plain layer, for which \
                 this device takes too long.\n"
            )
        });
        let page = format!(
            "{}\n{LEGEND}{most}\n{}\n![the table as a plot]({stem}.svg)\n",
            self.text(),
            machine::describe(&self.device.description(), "ratios")
        );
        fs::write(out.join(format!("{stem}.md")), page)?;
        fs::write(out.join(format!("{stem}.csv")), self.csv())?;
        plot::draw(self, &out.join(format!("{stem}.svg")))?;
        eprintln!("wrote {stem}.md, .csv and .svg to {}", out.display());
        Ok(())
    }
}

const LEGEND: &str = "\
Ratios of times, below 1 where fused is faster: the median of the pairwise ratios of
alternating runs, and its 95 % interval by order statistics.

- *naive* is the faster of two unfused paths: `calls`, three calls forward and five backward
  of this crate's own plain products; on the CPU also `gemm`, the same products by the gemm
  crate on all threads (16-bit operands widened once a call).
- *plain* is the layer without its adapter; backward, the gradient of the input alone.
- *floor* is what fused/plain would be if the adapter's arithmetic ran as fast as the layer's.
- *not slower*: the interval reaches 1.00 or lies below it, and the median is at most 1.03. A cell that
  is found slower is measured on, for up to three times as long, and all its pairs count.
- *launches* and *bytes* (fused over naive, and fused over the least that any kernel could
  move) are counted by the plans, not measured.
- Every path reads the adapter in the activations' type; gradients are f32. Up to 64 tokens every run meets a weight that is out of the
  caches. The largest layers at M = 512 are measured with r = 16 alone.
";

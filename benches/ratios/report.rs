//! The cells of one device, direction and storage type, as aligned text (which is Markdown, too) and as a CSV file.
//! Called by `main.rs` and `page.rs`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::Result;
use super::common::records;
use super::common::statistics::geometric_mean;
use super::record::Record;

/// From here down a layer is bound by the bytes of its weight.
pub const FEW_TOKENS: usize = 64;

/// A column: its head, and what a cell has there.
type Column = (&'static str, fn(&Record) -> String);

/// Rivals of one backend alone (cuBLAS) have a bench of their own: `cuda_layer`.
const COLUMNS: &[Column] = &[
    ("layer", |of| of.layer.clone()),
    ("out x in", |of| format!("{}x{}", of.out_features, of.in_features)),
    ("M", |of| of.tokens.to_string()),
    ("r", |of| of.rank.to_string()),
    ("fused/naive", |of| of.over_naive().to_string()),
    ("naive is", |of| of.naive_path.clone()),
    ("verdict", |of| of.verdict.clone()),
    ("fused/plain", |of| of.over_plain().to_string()),
    ("floor", |of| format!("{:.3}", of.floor)),
    ("share", Record::shares),
    ("launches", |of| format!("{} : {}", of.fused_launches, of.naive_launches)),
    ("bytes", |of| format!("{:.3}", of.fused_bytes as f64 / of.naive_bytes as f64)),
    ("bytes/least", |of| format!("{:.3}", of.bytes_over_least)),
    ("pairs", |of| of.pairs.to_string()),
];

/// What the columns are.
pub const LEGEND: &str = "\
Ratios of times, below 1 where fused is faster: the median of the pairwise ratios of
alternating runs, and its 95 % interval by order statistics.

- *naive* is the faster of two unfused paths: `calls`, three calls forward and five backward
  of this crate's own plain products; on the CPU also `gemm`, the same products by the gemm
  crate on all threads (16-bit operands widened once a call).
- *plain* is the layer without its adapter; backward, the gradient of the input alone.
- *floor* is what fused/plain would be if the adapter's arithmetic ran as fast as the layer's.
- *share*, of 16-bit runs, fused : naive: the part of the effect of an adapter a thousandth of the weight's size that
  reaches y (dx), over 131,072 results or more ([what it is](docs/share.md)). `gemm` keeps y in f32 between its calls. Empty: not measured.
- *not slower*: the interval reaches 1.00 or lies below it, and the median is at most 1.03. A cell that
  is found slower is measured on, for up to three times as long, and all its pairs count.
- On a software driver the same kernel, compiled again, can be slower by half, by where its code comes to lie
  ([how that was found](docs/notes/noise.md)): there the device is opened several times, where a table says so, and the median of
  each opening counts as one ratio.
- *launches* and *bytes* (fused over naive, and fused over the least that any kernel could
  move) are counted by the plans, not measured.
- Every path reads the adapter in the activations' type; gradients are f32. Up to 64 tokens every run meets a weight that is out of the
  caches. The largest layers at M = 512 are measured with r = 16 alone.
";

/// The cells of one storage type and direction.
pub struct Table {
    /// Device, direction and storage type.
    pub title: String,
    /// Where and when it was measured, as lines of Markdown.
    pub head: String,
    pub rows: Vec<Record>,
}

impl Table {
    /// What [`Table::write`] wrote. The title stands in its name.
    pub fn read(file: &Path) -> Result<Table> {
        let (head, rows) = records::read::<Record>(file)?;
        let first = rows.first().ok_or_else(|| format!("{}: no rows", file.display()))?;
        let kind = format!("-{}-{}", first.direction, first.dtype);
        let stem = file.file_stem().map(|of| of.to_string_lossy().into_owned());
        let device = stem.as_deref().and_then(|stem| stem.strip_suffix(&kind));
        let device = device.ok_or_else(|| format!("{} does not end in {kind}", file.display()))?;
        let title = format!("{device} {} {}", first.direction, first.dtype);
        Ok(Table { title, head, rows })
    }

    /// Of its files.
    pub fn stem(&self) -> String {
        self.title.replace([' ', ':'], "-")
    }

    /// The table and its means.
    pub fn text(&self) -> String {
        let cells: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| COLUMNS.iter().map(|(_, cell)| cell(row)).collect())
            .collect();
        // A column that nobody has measured is left out.
        let shown: Vec<usize> =
            (0..COLUMNS.len()).filter(|&at| cells.iter().any(|row| !row[at].is_empty())).collect();
        let width = |column: usize| {
            let widest = cells.iter().map(|row| row[column].len()).max().unwrap_or(0);
            widest.max(COLUMNS[column].0.len())
        };
        let line = |text: &dyn Fn(usize) -> String| {
            let padded: Vec<String> = shown
                .iter()
                .map(|&column| format!("{:<width$}", text(column), width = width(column)))
                .collect();
            format!("| {} |\n", padded.join(" | "))
        };
        let mut text = line(&|column| COLUMNS[column].0.to_owned());
        text += &line(&|column| "-".repeat(width(column)));
        for row in &cells {
            text += &line(&|column| row[column].clone());
        }
        text + "\n" + &self.means_text()
    }

    /// The means of the cells of at most so many tokens, if there are any.
    pub fn means(&self, least: usize, most: usize) -> Option<Means> {
        let rows = || self.rows.iter().filter(|row| (least..=most).contains(&row.tokens));
        let mean = |of: fn(&Record) -> f64| geometric_mean(rows().map(of));
        Some(Means {
            over_naive: mean(|row| row.fused_over_naive)?,
            over_plain: mean(|row| row.fused_over_plain)?,
            floor: mean(|row| row.floor)?,
            not_slower: rows().filter(|row| row.is_not_slower()).count(),
            cells: rows().count(),
        })
    }

    fn means_text(&self) -> String {
        let mut text = String::new();
        let kinds =
            [("all tokens".to_owned(), usize::MAX), (format!("M <= {FEW_TOKENS}"), FEW_TOKENS)];
        for (name, most) in kinds {
            let Some(of) = self.means(0, most) else { continue };
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "- geometric means, {name}: fused/naive {:.3}, fused/plain {:.3}, floor {:.3}; not slower in {} of {} \
                 cells",
                of.over_naive, of.over_plain, of.floor, of.not_slower, of.cells,
            );
        }
        text
    }

    /// Writes `<backend>-<direction>-<dtype>.csv`.
    pub fn write(&self, out: &Path) -> Result<()> {
        fs::create_dir_all(out)?;
        let file = out.join(format!("{}.csv", self.stem()));
        records::write(&file, &self.head, &self.rows)?;
        eprintln!("wrote {}", file.display());
        Ok(())
    }
}

/// Geometric means.
pub struct Means {
    pub over_naive: f64,
    pub over_plain: f64,
    pub floor: f64,
    pub not_slower: usize,
    pub cells: usize,
}

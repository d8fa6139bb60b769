//! The measurements as a page of Markdown. Called by `main.rs`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use super::Row;
use super::inputs::{IN, OUT, RANK, SIZES, TOKENS};

const HEAD: &str = "\
<!-- Written by `cargo bench --bench share -- --draw`. -->
# All of it arrives

The part of an adapter's effect that reaches the result where activations and weights have 16 bits, by the size of the
adapter beside the weight:

```text
share = ⟨y − y₀, z⟩ / ⟨z, z⟩      y₀ = x·wᵀ, z = s·(x·aᵀ)·bᵀ in f64, of the operands as they are stored; dx alike
```

Separate calls store the plain layer's result in 16 bits before the adapter's term is added to it, so that what lies below
half a step of it is lost. Merged weights lose it in the weight. This crate adds in f32 and rounds once.
";

/// One line a column: who, how, and with which adapters.
type Column = [String; 3];

/// All tables, and where their figures are from.
pub fn page(rows: &[Row], heads: &[(PathBuf, String)]) -> String {
    let mut page = format!(
        "{HEAD}\n![shares by the size of the adapter](share.svg)\n\n{TOKENS} tokens, {IN} to {OUT} \
         features, rank {RANK}. Over so many results chance moves a share by about 0.0002 at 1e-2, 0.002 at 1e-3 and 0.02 at \
         1e-4 in bf16, by an eighth of that in f16.\n"
    );
    for dtype in ["bf16", "f16"] {
        for direction in ["forward", "backward_input"] {
            page += &table(rows, dtype, direction);
        }
    }
    page += "\n## Made by\n";
    for (file, head) in heads {
        let name = file.file_name().map(|of| of.to_string_lossy().into_owned()).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = write!(page, "\n`benches/share/{name}`:\n\n{head}");
    }
    page
}

fn table(rows: &[Row], dtype: &str, direction: &str) -> String {
    let rows = || rows.iter().filter(|of| of.dtype == dtype && of.direction == direction);
    let column = |of: &Row| -> Column { [of.by.clone(), of.path.clone(), of.adapter.clone()] };
    let columns: BTreeSet<Column> = rows().map(column).collect();
    // This crate first, and then in the order of what is lost.
    let mut columns: Vec<Column> = columns.into_iter().collect();
    columns.sort_by_key(|[by, path, adapter]| {
        (by != "fused-lora", path == "merged weights", path.clone(), adapter != "f32")
    });
    let mut text = format!("\n## {direction}, {dtype}\n\n| size of the adapter |");
    for [by, path, adapter] in &columns {
        let _ = write!(text, " {by}, {path}, adapter in {adapter} |");
    }
    let _ = writeln!(text, "\n|---|{}", "---|".repeat(columns.len()));
    for size in SIZES {
        let _ = write!(text, "| {size:e} |");
        for of in &columns {
            let found = rows().find(|row| row.size == size && &column(row) == of);
            let _ = match found {
                Some(row) => write!(text, " {:.2} |", row.share),
                None => write!(text, " |"),
            };
        }
        text.push('\n');
    }
    text
}

//! BENCHMARKS.md, of every table in `benches/results`. Called by `main.rs` with `--report`; measures nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::report::{FEW_TOKENS, LEGEND, Table};
use super::{RESULTS, Result, plot};

const PAGE: &str = "BENCHMARKS.md";

const HEAD: &str = "\
<!-- Written by `cargo bench --bench ratios -- --report` of the files in benches/results. -->
# Benchmarks

The fused layer beside separate calls and beside the layer without its adapter, on the same device in one run. There is no
GPU among them yet. `benches/README.md` says how to measure.
";

/// What is not a table of ratios.
const BESIDE: &str = "
## Beside these

| | |
|---|---|
| [docs/share.md](docs/share.md) | how much of a small adapter's effect reaches the result, beside PyTorch with PEFT |
| [benches/results/burn-llvmpipe.md](benches/results/burn-llvmpipe.md) | our plain product in WGSL over burn's |
| [benches/results/cpu-gemm.md](benches/results/cpu-gemm.md) | why the CPU executor stands on `gemm` |
| [docs/notes/noise.md](docs/notes/noise.md) | how far cells move from run to run |
| [docs/notes/cpu-ladder.md](docs/notes/cpu-ladder.md), [wgpu-ladder.md](docs/notes/wgpu-ladder.md) | what was tried to make it fast, and what it brought |
";

/// Reads the tables, draws a plot of each and writes the page.
pub fn write() -> Result<()> {
    let tables = tables()?;
    let plots = Path::new(RESULTS).join("plots");
    fs::create_dir_all(&plots)?;
    for table in tables.values().flatten() {
        plot::draw(table, &plots.join(format!("{}.svg", table.stem())))?;
    }
    fs::write(PAGE, page(&tables))?;
    eprintln!("wrote {PAGE} and {}/*.svg", plots.display());
    Ok(())
}

/// By device: in its name all but direction and storage type.
fn tables() -> Result<BTreeMap<String, Vec<Table>>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(RESULTS)? {
        let file = entry?.path();
        let name = file.file_name().map(|of| of.to_string_lossy().into_owned()).unwrap_or_default();
        // Those of `cuda_layer` have other columns, and a page of their own.
        if name.ends_with(".csv") && !name.starts_with("cuda-") {
            files.push(file);
        }
    }
    files.sort();
    let mut tables: BTreeMap<String, Vec<Table>> = BTreeMap::new();
    for file in files {
        let table = Table::read(&file)?;
        let device = table.title.split(' ').next().unwrap_or_default().to_owned();
        tables.entry(device).or_default().push(table);
    }
    // Forward first, f32 first.
    for tables in tables.values_mut() {
        tables.sort_by_key(|of| (of.title.contains("backward"), !of.title.ends_with("f32")));
    }
    Ok(tables)
}

fn page(tables: &BTreeMap<String, Vec<Table>>) -> String {
    let mut page = HEAD.to_owned() + &summary(tables) + "\n## How to read them\n\n" + LEGEND;
    for (device, tables) in tables {
        // Writing to a String cannot fail.
        let _ = writeln!(page, "\n## {device}");
        for table in tables {
            let kind = table.title.strip_prefix(device.as_str()).unwrap_or(&table.title).trim();
            let _ = write!(
                page,
                "\n### {device}: {kind}\n\n![the table as a plot]({RESULTS}/plots/{}.svg)\n\n<details>\n\
                 <summary>All {} cells, machine and command</summary>\n\n{}\n{}\n</details>\n",
                table.stem(),
                table.rows.len(),
                table.text(),
                table.head,
            );
        }
    }
    page + BESIDE
}

fn summary(tables: &BTreeMap<String, Vec<Table>>) -> String {
    let mut text = format!(
        "\n| device | | activations | cells | fused / naive, 1 to {FEW_TOKENS} tokens | more tokens | fused / plain \
         layer | floor | not slower in |\n|---|---|---|---|---|---|---|---|---|\n"
    );
    for (device, tables) in tables {
        for table in tables {
            let (Some(row), Some(all)) = (table.rows.first(), table.means(0, usize::MAX)) else {
                continue;
            };
            let over_naive = |least, most| {
                table.means(least, most).map_or(String::new(), |of| format!("{:.3}", of.over_naive))
            };
            let _ = writeln!(
                text,
                "| {device} | {} | {} | {} | {} | {} | {:.3} | {:.3} | {} |",
                row.direction,
                row.dtype,
                all.cells,
                over_naive(0, FEW_TOKENS),
                over_naive(FEW_TOKENS + 1, usize::MAX),
                all.over_plain,
                all.floor,
                all.not_slower,
            );
        }
    }
    text + "\nGeometric means over the cells.\n"
}

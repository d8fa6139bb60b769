//! A table as a picture: a line per cell, its ratios and its floor along it.
//! Called by `page.rs`.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::Result;
use super::record::Record;
use super::report::Table;

/// Height of a cell's line, and the width of the picture, in pixels.
const LINE: u32 = 18;
const WIDTH: u32 = 1000;
/// Room for the title and the legend.
const HEAD: u32 = 70;
/// Room for the cells' names.
const NAMES: u32 = 260;
/// Ratios beyond these are drawn at the edge.
const RANGE: (f64, f64) = (0.3, 2.0);

const FUSED_NAIVE: RGBColor = RGBColor(0x1f, 0x5f, 0xa8);
const FUSED_PLAIN: RGBColor = RGBColor(0x99, 0x99, 0x99);
const FLOOR: RGBColor = RGBColor(0xc0, 0x50, 0x10);

/// Draws `table` into an SVG file.
pub fn draw(table: &Table, file: &Path) -> Result<()> {
    let rows = &table.rows;
    let area =
        SVGBackend::new(file, (WIDTH, HEAD + 60 + LINE * rows.len() as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    let (head, body) = area.split_vertically(HEAD);
    legend(&head, &table.title)?;
    // Only what is there, but always with 1 inside.
    let all = || rows.iter().flat_map(|row| [row.over_naive(), row.over_plain()]);
    let least = all().map(|of| of.low).fold(0.9, f64::min).max(RANGE.0) - 0.02;
    let most = all().map(|of| of.high).fold(1.1, f64::max).min(RANGE.1) + 0.02;
    let mut chart = ChartBuilder::on(&body)
        .margin(12)
        .y_label_area_size(NAMES)
        .x_label_area_size(30)
        // Downwards, as in the table.
        .build_cartesian_2d(least..most, (rows.len() as f64 - 0.5)..-0.5)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(WHITE)
        .y_labels(0)
        .x_labels(12)
        .x_label_style(("sans-serif", 15))
        .x_label_formatter(&|ratio| format!("{ratio:.2}"))
        .draw()?;
    chart.draw_series([PathElement::new(
        vec![(1.0, -0.5), (1.0, rows.len() as f64 - 0.5)],
        BLACK,
    )])?;

    let clamp = |ratio: f64| ratio.clamp(least, most);
    let plain = |(at, row): (usize, &Record)| {
        Circle::new((clamp(row.fused_over_plain), at as f64), 4, FUSED_PLAIN.stroke_width(2))
    };
    let floor = |(at, row): (usize, &Record)| {
        let (x, y) = (clamp(row.floor), at as f64);
        PathElement::new(vec![(x, y - 0.35), (x, y + 0.35)], FLOOR.stroke_width(2))
    };
    let interval = |(at, row): (usize, &Record)| {
        let (low, high) = (clamp(row.naive_low), clamp(row.naive_high));
        PathElement::new(vec![(low, at as f64), (high, at as f64)], FUSED_NAIVE.stroke_width(2))
    };
    let naive = |(at, row): (usize, &Record)| {
        Circle::new((clamp(row.fused_over_naive), at as f64), 4, FUSED_NAIVE.filled())
    };
    chart.draw_series(rows.iter().enumerate().map(plain))?;
    chart.draw_series(rows.iter().enumerate().map(interval))?;
    chart.draw_series(rows.iter().enumerate().map(naive))?;
    chart.draw_series(rows.iter().enumerate().map(floor))?;
    // Every cell's own name: an axis would leave out what it thinks is crowded.
    let plot = chart.plotting_area();
    for (at, row) in rows.iter().enumerate() {
        let (_, y) = plot.map_coordinate(&(least, at as f64));
        area.draw(&Text::new(label(row), (16, y - 6), ("monospace", 15)))?;
    }
    area.present()?;
    Ok(())
}

/// What the marks mean, above the plot, where it hides none of them.
fn legend(head: &DrawingArea<SVGBackend<'_>, Shift>, title: &str) -> Result<()> {
    let text = |text: String, x, y, size| Text::new(text, (x, y), ("sans-serif", size));
    head.draw(&text(format!("{title}: time of the fused path over …"), 16, 12, 18))?;
    head.draw(&Circle::new((24, 50), 4, FUSED_NAIVE.filled()))?;
    head.draw(&text("the faster naive path, with its 95 % interval".into(), 36, 43, 15))?;
    head.draw(&Circle::new((354, 50), 4, FUSED_PLAIN.stroke_width(2)))?;
    head.draw(&text("the layer without its adapter".into(), 366, 44, 15))?;
    head.draw(&PathElement::new(vec![(594, 44), (594, 56)], FLOOR.stroke_width(2)))?;
    head.draw(&text("floor of that: the arithmetic's share".into(), 606, 44, 15))?;
    Ok(())
}

fn label(row: &Record) -> String {
    format!("{} M={} r={}", row.layer, row.tokens, row.rank)
}

//! The measurements of y in bf16 as a picture. Called by `main.rs`.

use std::path::Path;

use plotters::prelude::*;

use super::Row;
use super::common::Result;
use super::inputs::{IN, OUT, RANK, SIZES, TOKENS};

const SIZE: (u32, u32) = (760, 400);
const FUSED: RGBColor = RGBColor(0x1f, 0x5f, 0xa8);
const SEPARATE: RGBColor = RGBColor(0xc0, 0x50, 0x10);
const MERGED: RGBColor = RGBColor(0x80, 0x80, 0x80);

/// A line of the picture: by, path, adapter; what the legend says; its colour and width.
type Line = ([&'static str; 3], &'static str, RGBColor, u32);

/// PEFT's adapters in bf16 lie on those in f32, so they are wider.
const LINES: [Line; 4] = [
    (["PEFT", "separate calls", "bf16"], "PyTorch + PEFT, adapters in bf16", SEPARATE, 7),
    (["PEFT", "separate calls", "f32"], "PyTorch + PEFT, adapters in f32", SEPARATE, 2),
    (["PEFT", "merged weights", "f32"], "PyTorch, merged weights", MERGED, 2),
    (["fused-lora", "cpu", "f32"], "fused-lora", FUSED, 3),
];

/// Draws `rows` into an SVG file.
pub fn draw(rows: &[Row], file: &Path) -> Result<()> {
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let title = format!(
        "Share of the adapter's effect that reaches y (bf16, {TOKENS} x {OUT} x {IN}, rank {RANK})"
    );
    let (small, large) = (SIZES[SIZES.len() - 1], SIZES[0]);
    let mut chart = ChartBuilder::on(&area)
        .margin(14)
        .caption(title, ("sans-serif", 17))
        .x_label_area_size(44)
        .y_label_area_size(48)
        .build_cartesian_2d((small * 0.8..large * 1.25).log_scale(), 0.0..1.1)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc("size of the adapter, |s·b·a| / |w|")
        .y_desc("share")
        .x_label_formatter(&|size| format!("{size:e}"))
        .y_label_formatter(&|share| format!("{share:.1}"))
        .y_labels(6)
        .label_style(("sans-serif", 14))
        .draw()?;
    for (of, legend, colour, width) in LINES {
        let [by, path, adapter] = of;
        let mut points: Vec<(f64, f64)> = rows
            .iter()
            .filter(|row| (row.dtype.as_str(), row.direction.as_str()) == ("bf16", "forward"))
            .filter(|row| {
                [row.by.as_str(), row.path.as_str(), row.adapter.as_str()] == [by, path, adapter]
            })
            .map(|row| (row.size, row.share))
            .collect();
        points.sort_by(|left, right| left.0.total_cmp(&right.0));
        let colour = if width > 5 { colour.mix(0.3) } else { colour.mix(1.0) };
        let style = colour.stroke_width(width);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style))?
            .label(legend)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 22, y)], style));
        let dots =
            points.into_iter().map(|at| Circle::new(at, width.max(3) as i32, colour.filled()));
        chart.draw_series(dots)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .margin(12)
        .legend_area_size(30)
        .background_style(WHITE.mix(0.9))
        .border_style(RGBColor(0xcc, 0xcc, 0xcc))
        .label_font(("sans-serif", 15))
        .draw()?;
    area.present()?;
    Ok(())
}

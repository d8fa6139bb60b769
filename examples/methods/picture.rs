//! Held-out accuracy by the numbers that are trained, as an SVG. Called by `main`.

use std::path::Path;

use plotters::prelude::*;

use crate::Failure;
use crate::method::Method;

/// A method on a network.
pub struct Point {
    pub network: &'static str,
    pub method: Method,
    pub parameters: usize,
    pub accuracy: f64,
}

pub fn draw(path: &Path, points: &[Point]) -> Result<(), Failure> {
    let area = SVGBackend::new(path, (840, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let sizes = || points.iter().map(|of| of.parameters as f64);
    let (least, most) = (sizes().fold(f64::MAX, f64::min), sizes().fold(1.0, f64::max));
    let lowest = points.iter().map(|of| of.accuracy).fold(1.0, f64::min);
    let mut chart = ChartBuilder::on(&area)
        .caption("Accuracy by the numbers that are trained", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(60)
        .build_cartesian_2d((least / 2.0..most * 4.0).log_scale(), 100.0 * lowest - 5.0..101.0)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("trained numbers")
        .y_desc("held-out accuracy, %")
        .draw()?;
    for (network, color) in [("linear", BLUE), ("convolutional", RED)] {
        let of_network = || points.iter().filter(|of| of.network == network);
        let at = |of: &Point| (of.parameters as f64, 100.0 * of.accuracy);
        chart
            .draw_series(of_network().map(|of| Circle::new(at(of), 4, color.filled())))?
            .label(network)
            .legend(move |(x, y)| Circle::new((x + 9, y), 4, color.filled()));
        let text = |of: &Point| Text::new(of.method.file(), at(of), ("sans-serif", 12));
        chart.draw_series(of_network().map(text))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .border_style(BLACK.mix(0.3))
        .background_style(WHITE)
        .draw()?;
    area.present()?;
    Ok(())
}

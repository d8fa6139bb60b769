//! The course of the training as an SVG: loss by step, held-out accuracy by epoch.

use std::path::Path;

use plotters::prelude::*;

use crate::Failure;

/// Losses below are drawn as this: the axis is logarithmic.
const FLOOR: f32 = 1e-3;

/// What the training reports.
#[derive(Default)]
pub struct Course {
    /// Training loss of each step.
    pub losses: Vec<f32>,
    /// Held-out accuracy before the first and after each epoch.
    pub accuracies: Vec<f64>,
}

impl Course {
    /// An exponential mean over some twenty steps; of logarithms, as the axis is.
    fn smoothed(&self) -> Vec<f32> {
        let mut mean = self.losses.first().copied().unwrap_or(1.0).ln();
        let smooth = |&loss: &f32| {
            mean += 0.05 * (loss.max(FLOOR).ln() - mean);
            mean.exp()
        };
        self.losses.iter().map(smooth).collect()
    }

    pub fn draw(&self, path: &Path, title: &str) -> Result<(), Failure> {
        let area = SVGBackend::new(path, (840, 640)).into_drawing_area();
        area.fill(&WHITE)?;
        let area = area.titled(title, ("sans-serif", 20))?;
        let (above, below) = area.split_vertically(310);

        let top = self.losses.iter().copied().fold(0.1, f32::max);
        let mut chart = ChartBuilder::on(&above)
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(60)
            .build_cartesian_2d(0..self.losses.len().max(1), (FLOOR..top).log_scale())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc("step")
            .y_desc("training loss")
            .draw()?;
        let (faint, strong) = (BLUE.mix(0.25), BLUE.stroke_width(2));
        let floor = |loss: f32| loss.max(FLOOR);
        let by_step = |of: Vec<f32>| of.into_iter().map(floor).enumerate().collect::<Vec<_>>();
        chart
            .draw_series(LineSeries::new(by_step(self.losses.clone()), faint))?
            .label("each batch")
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], faint));
        chart
            .draw_series(LineSeries::new(by_step(self.smoothed()), strong))?
            .label("smoothed")
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], strong));
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .border_style(BLACK.mix(0.3))
            .background_style(WHITE)
            .draw()?;

        let mut chart = ChartBuilder::on(&below)
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(60)
            .build_cartesian_2d(0..(self.accuracies.len() - 1).max(1), 0f64..100.0)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc("epoch")
            .y_desc("held-out accuracy, %")
            .y_label_formatter(&|percent| format!("{percent:.0}"))
            .draw()?;
        let percent = self.accuracies.iter().map(|of| 100.0 * of).enumerate();
        let points: Vec<_> = percent.collect();
        chart.draw_series(LineSeries::new(points.iter().copied(), RED.stroke_width(2)))?;
        chart.draw_series(points.into_iter().map(|at| Circle::new(at, 3, RED.filled())))?;
        area.present()?;
        Ok(())
    }
}

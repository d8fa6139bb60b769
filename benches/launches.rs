//! Draws what fusing saves before any clock runs: launches and bytes of the separate calls of a layer beside
//! the fused ones, as the plans for an A100 count them. Nothing is measured, and no device is needed.
//!
//!     cargo bench --bench launches      writes docs/launches.svg, and the figures to the terminal

use std::error::Error;

use fused_lora::{Capabilities, CudaCapabilities, DType, Gradients, Operation, Plan, Problem};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const TOKENS: usize = 512;
const FEATURES: usize = 4096;
const RANK: usize = 16;
const FILE: &str = "docs/launches.svg";

/// One launch: its name, and the bytes that it moves.
type Launch = (&'static str, u64);

/// The launches of a path, one after the other.
struct Path {
    name: &'static str,
    launches: Vec<Launch>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let paths = paths()?;
    for Path { name, launches } in &paths {
        let bytes: u64 = launches.iter().map(|of| of.1).sum();
        println!("{name}: {} launches, {:.1} MB", launches.len(), megabytes(bytes));
    }
    draw(&paths)
}

fn paths() -> Result<Vec<Path>, fused_lora::Error> {
    let capabilities = Capabilities::Cuda(CudaCapabilities::default());
    let layer = |k, n, rank| Problem::forward(TOKENS, k, n, rank).with_dtype(DType::Bf16);
    // A plan may have more launches than one; what counts is the operation.
    let of = |name, problem: Problem| -> Result<Launch, fused_lora::Error> {
        Ok((name, Plan::new(&problem, &capabilities)?.bytes()))
    };
    let fused = layer(FEATURES, FEATURES, RANK);
    let (shrink, expand) = (layer(FEATURES, RANK, 0), layer(RANK, FEATURES, 0));
    let back = |problem: Problem| problem.with_operation(Operation::BackwardInput);
    let gradient = |of| fused.with_operation(Operation::BackwardAdapter).with_gradients(of);
    Ok(vec![
        Path {
            name: "forward, separate",
            launches: vec![
                of("x·wᵀ", fused.plain())?,
                of("x·aᵀ", shrink)?,
                of("+ ·bᵀ", expand.with_beta(1.0))?,
            ],
        },
        Path { name: "forward, fused", launches: vec![of("y", fused)?] },
        Path {
            name: "backward, separate",
            launches: vec![
                of("dy·w", back(fused.plain()))?,
                of("dy·b", back(expand))?,
                of("+ ·a", back(shrink).with_beta(1.0))?,
                of("da", gradient(Gradients::A))?,
                of("db", gradient(Gradients::B))?,
            ],
        },
        Path {
            name: "backward, fused",
            launches: vec![of("dx", back(fused))?, of("da, db", gradient(Gradients::Both))?],
        },
    ])
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn draw(paths: &[Path]) -> Result<(), Box<dyn Error>> {
    const SIZE: (u32, u32) = (760, 230);
    const LEFT: i32 = 170;
    const TOP: i32 = 34;
    const ROW: i32 = 46;
    let area = SVGBackend::new(FILE, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let total = |path: &Path| path.launches.iter().map(|of| of.1).sum::<u64>();
    let most = paths.iter().map(total).max().unwrap_or(1);
    let scale = f64::from(SIZE.0 as i32 - LEFT - 150) / most as f64;
    let font = |size: i32| ("sans-serif", size).into_font();
    let text = |of: String, size, at: (i32, i32), from| {
        let style = TextStyle::from(font(size)).pos(Pos::new(from, VPos::Center));
        area.draw(&Text::new(of, at, style))
    };
    let title = format!(
        "{TOKENS} tokens, {FEATURES} x {FEATURES}, rank {RANK}, bf16: launches and the bytes they move"
    );
    text(title, 15, (14, 16), HPos::Left)?;
    for (row, path) in paths.iter().enumerate() {
        let middle = TOP + ROW * row as i32 + ROW / 2;
        text(path.name.to_owned(), 14, (LEFT - 12, middle), HPos::Right)?;
        let is_fused = path.name.ends_with("fused");
        let mut left = f64::from(LEFT);
        for (at, (name, bytes)) in path.launches.iter().enumerate() {
            let right = left + *bytes as f64 * scale;
            let base = if is_fused { RGBColor(33, 102, 172) } else { RGBColor(178, 88, 43) };
            let color = base.mix(if at % 2 == 0 { 0.85 } else { 0.6 });
            let corners = [(left as i32, middle - 15), (right as i32 - 1, middle + 15)];
            area.draw(&Rectangle::new(corners, color.filled()))?;
            if right - left > 34.0 {
                let style = TextStyle::from(font(12)).color(&WHITE);
                let style = style.pos(Pos::new(HPos::Center, VPos::Center));
                let center = (((left + right) / 2.0) as i32, middle);
                area.draw(&Text::new((*name).to_owned(), center, style))?;
            }
            left = right;
        }
        let count = path.launches.len();
        let launches = if count == 1 { "launch" } else { "launches" };
        let sum = format!("{count} {launches}, {:.1} MB", megabytes(total(path)));
        text(sum, 14, (left as i32 + 10, middle), HPos::Left)?;
    }
    area.present()?;
    Ok(())
}

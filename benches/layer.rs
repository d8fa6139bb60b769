//! Distributions, for those who want more than a ratio: fused, naive and plain side by side
//! for a few layers, through criterion.
//!
//!     cargo bench --bench layer                 all of them
//!     cargo bench --bench layer -- decode       those whose name contains "decode"
//!
//! The summary with its verdicts is `ratios`; this bench keeps to the shapes that tell most.

// `pub` says here what another file of this program uses.
#![allow(unreachable_pub)]

mod common;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use fused_lora::{DType, Device};

use common::measure::{agree, fastest};
use common::shapes::{Cell, Direction, SHAPES};
use common::{Layer, Path, Result, Weights};

/// Name, index into [`SHAPES`], tokens, rank, direction.
const CASES: &[(&str, usize, usize, usize, Direction)] = &[
    ("decode", 0, 1, 16, Direction::Forward),
    ("few_tokens", 0, 8, 16, Direction::Forward),
    ("attention", 5, 512, 16, Direction::Forward),
    ("training", 1, 512, 16, Direction::Forward),
    ("training_backward", 1, 512, 16, Direction::Backward),
];

fn layers(criterion: &mut Criterion) {
    for dtype in [DType::F32, DType::Bf16] {
        for &(name, shape, tokens, rank, direction) in CASES {
            let cell = Cell { shape: SHAPES[shape], tokens, rank, dtype, direction };
            if let Err(error) = group(criterion, &format!("{name}/{dtype}"), cell) {
                panic!("{cell}: {error}");
            }
        }
    }
}

fn group(criterion: &mut Criterion, name: &str, cell: Cell) -> Result<()> {
    let device = Device::from_env()?;
    let weights = Weights::new(&device, cell.shape, cell.dtype)?;
    let layer = Layer::new(&device, &weights, cell)?;
    let mut fused = common::fused(&layer)?;
    let mut naive = common::naive(&layer)?;
    for naive in &mut naive {
        agree(&layer, &mut *fused, &mut **naive)?;
    }
    let mut turn = 0;
    let fastest = fastest(&mut naive, &mut turn)?;
    let naive = naive.swap_remove(fastest);

    let mut group = criterion.benchmark_group(name);
    let mut paths: [(&str, Box<dyn Path + '_>); 3] =
        [("fused", fused), ("naive", naive), ("plain", common::plain(&layer)?)];
    for (name, path) in &mut paths {
        group.bench_function(*name, |bencher| {
            bencher.iter(|| {
                path.run(black_box(turn)).expect("it ran a moment ago");
                path.wait().expect("it ran a moment ago");
                turn += 1;
            });
        });
    }
    group.finish();
    Ok(())
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4));
    targets = layers
}
criterion_main!(benches);

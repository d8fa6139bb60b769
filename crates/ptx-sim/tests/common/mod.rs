//! Runs the fixtures on given sizes; shared by the tests of clean kernels, seeded defects and speed.
#![allow(dead_code)] // every test file uses another part

pub(crate) mod hopper;
pub(crate) mod styles;

use half::bf16;
use ptx_sim::{
    CopyTiming, Counters, Launch, Memory, Module, Options, RunError, Schedule, run_launch,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub(crate) const GEMM_F32: &str = include_str!("../fixtures/gemm_f32.ptx");
pub(crate) const GEMV: &str = include_str!("../fixtures/gemv.ptx");
pub(crate) const GEMM_BF16: &str = include_str!("../fixtures/gemm_bf16.ptx");
pub(crate) const FLAGS: &str = include_str!("../fixtures/flags.ptx");

/// Every schedule with every timing of the copies.
pub(crate) fn all_orders() -> Vec<Options> {
    let mut out = Vec::new();
    for schedule in [Schedule::RoundRobin, Schedule::Random, Schedule::OneFar, Schedule::Reverse] {
        for copies in [CopyTiming::Early, CopyTiming::Late, CopyTiming::Random] {
            out.push(Options { schedule, copies, seed: out.len() as u64, ..Options::default() });
        }
    }
    out
}

pub(crate) fn module(source: &str) -> Module {
    Module::parse("fixture.ptx", source).unwrap_or_else(|e| panic!("{e}"))
}

pub(crate) fn f32s(memory: &mut Memory, at: u64, n: usize) -> Vec<f32> {
    let bytes = memory.read(at, 4 * n).unwrap();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

pub(crate) fn put(memory: &mut Memory, values: &[f32]) -> u64 {
    let at = memory.alloc(4 * values.len()).unwrap();
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    memory.write(at, &bytes).unwrap();
    at
}

pub(crate) fn put_bf16(memory: &mut Memory, values: &[f32]) -> u64 {
    let at = memory.alloc(2 * values.len()).unwrap();
    let bytes: Vec<u8> = values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect();
    memory.write(at, &bytes).unwrap();
    at
}

/// Small multiples of 1/8: every product and sum below is exact in f32, in any order.
pub(crate) fn values(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..n).map(|_| f32::from(rng.random_range(-16i8..=16)) / 8.0).collect()
}

/// `c[m,n] = a[m,k] · b`, `b` as [k,n] or, transposed, as [n,k].
pub(crate) fn product(
    a: &[f32],
    b: &[f32],
    m: usize,
    n: usize,
    k: usize,
    transposed: bool,
) -> Vec<f32> {
    let mut c = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            c[i * n + j] = (0..k)
                .map(|l| {
                    f64::from(a[i * k + l])
                        * f64::from(b[if transposed { j * k + l } else { l * n + j }])
                })
                .sum::<f64>() as f32;
        }
    }
    c
}

/// The result, or the first fault; a wrong number panics.
pub(crate) fn gemm_f32(
    source: &str,
    (m, n, k): (usize, usize, usize),
    options: &Options,
) -> Result<Counters, RunError> {
    let mut memory = Memory::new();
    let (a, b) = (values(m * k, 1), values(k * n, 2));
    let (pa, pb) = (put(&mut memory, &a), put(&mut memory, &b));
    let pc = memory.alloc(4 * m * n).unwrap();
    let grid = [n.div_ceil(16) as u32, m.div_ceil(16) as u32, 1];
    let launch = Launch::new("gemm_f32", grid, [16, 16, 1]).ptr(pa).ptr(pb).ptr(pc);
    let launch = launch.u32(m as u32).u32(n as u32).u32(k as u32);
    let counters = run_launch(&module(source), &mut memory, &launch, options)?;
    assert_eq!(
        f32s(&mut memory, pc, m * n),
        product(&a, &b, m, n, k, false),
        "{m}×{n}×{k} {options:?}"
    );
    Ok(counters)
}

pub(crate) fn gemv(
    source: &str,
    (m, k): (usize, usize),
    options: &Options,
) -> Result<Counters, RunError> {
    let mut memory = Memory::new();
    let (w, x) = (values(m * k, 3), values(k, 4));
    let (pw, px) = (put_bf16(&mut memory, &w), put(&mut memory, &x));
    let py = memory.alloc(4 * m).unwrap();
    let launch =
        Launch::new("gemv", [m.div_ceil(4) as u32, 1, 1], [128, 1, 1]).ptr(pw).ptr(px).ptr(py);
    let launch = launch.u32(m as u32).u32(k as u32);
    let counters = run_launch(&module(source), &mut memory, &launch, options)?;
    assert_eq!(f32s(&mut memory, py, m), product(&w, &x, m, 1, k, true), "{m}×{k} {options:?}");
    Ok(counters)
}

pub(crate) fn gemm_bf16(
    source: &str,
    (m, n, k): (usize, usize, usize),
    options: &Options,
) -> Result<Counters, RunError> {
    let mut memory = Memory::new();
    let (a, b) = (values(m * k, 5), values(n * k, 6));
    let (pa, pb) = (put_bf16(&mut memory, &a), put_bf16(&mut memory, &b));
    let pc = memory.alloc(4 * m * n).unwrap();
    let grid = [n.div_ceil(128) as u32, m.div_ceil(128) as u32, 1];
    let launch = Launch::new("gemm_bf16", grid, [256, 1, 1]).shared(49152).ptr(pa).ptr(pb).ptr(pc);
    let launch = launch.u32(m as u32).u32(n as u32).u32(k as u32);
    let counters = run_launch(&module(source), &mut memory, &launch, options)?;
    if m * n * k <= 1 << 24 {
        assert_eq!(
            f32s(&mut memory, pc, m * n),
            product(&a, &b, m, n, k, true),
            "{m}×{n}×{k} {options:?}"
        );
    }
    Ok(counters)
}

/// Three launches on one header, which nobody clears in between; its epoch starts anywhere.
pub(crate) fn flags(
    source: &str,
    shape: (usize, usize, u32),
    options: &Options,
) -> Result<(), RunError> {
    flags_from(source, shape, 0, options)
}

pub(crate) fn flags_from(
    source: &str,
    (rows, cols, ctas): (usize, usize, u32),
    epoch: u32,
    options: &Options,
) -> Result<(), RunError> {
    let mut memory = Memory::new();
    let module = module(source);
    let header = memory.alloc(384 + 4 * rows).unwrap();
    memory.write(header, &vec![0; 384 + 4 * rows]).unwrap();
    memory.write(header, &epoch.to_le_bytes()).unwrap();
    let shrunk = memory.alloc(256 * rows).unwrap();
    for round in 0..3 {
        let x = values(64 * rows, round);
        let px = put(&mut memory, &x);
        let py = memory.alloc(256 * rows * cols).unwrap();
        let launch =
            Launch::new("flags", [ctas, 1, 1], [64, 1, 1]).ptr(px).ptr(shrunk).ptr(py).ptr(header);
        run_launch(&module, &mut memory, &launch.u32(rows as u32).u32(cols as u32), options)?;
        let y = f32s(&mut memory, py, 64 * rows * cols);
        for (i, &y) in y.iter().enumerate() {
            let (row, col, t) = (i / 64 / cols, i / 64 % cols, i % 64);
            assert_eq!(y, 2.0 * x[row * 64 + t] + col as f32, "round {round} row {row} col {col}");
        }
    }
    Ok(())
}

//! Real kernels through cudarc and the stand-in, ragged shapes included: an f32 tile GEMM, a GEMV
//! with shuffles, a bf16 GEMM with a ring of asynchronous copies, and flags between CTAs.

mod common;

use common::*;
use cudarc::driver::{CudaFunction, LaunchConfig, PushKernelArg, sys};

/// Machines that differ in order of execution and timing.
const ORDERS: [[(&str, &str); 4]; 4] = [
    [("SCHEDULE", "round-robin"), ("COPIES", "late"), ("QUEUES", "late"), ("SEED", "1")],
    [("SCHEDULE", "random"), ("COPIES", "random"), ("QUEUES", "random"), ("SEED", "2")],
    [("SCHEDULE", "one-far"), ("COPIES", "early"), ("QUEUES", "early"), ("SEED", "3")],
    [("SCHEDULE", "reverse"), ("COPIES", "late"), ("QUEUES", "random"), ("SEED", "4")],
];

fn config(grid: (u32, u32, u32), block: (u32, u32, u32), shared: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: grid, block_dim: block, shared_mem_bytes: shared }
}

fn gemm_f32(stream: &Stream, f: &CudaFunction, (m, n, k): (usize, usize, usize)) {
    let (a, b) = (values(m * k, 1), values(k * n, 2));
    let da = stream.clone_htod(&a).unwrap();
    let db = stream.clone_htod(&b).unwrap();
    let mut dc = stream.clone_htod(&vec![f32::NAN; m * n]).unwrap();
    let grid = (n.div_ceil(16) as u32, m.div_ceil(16) as u32, 1);
    let mut launch = stream.launch_builder(f);
    let sizes = [m as u32, n as u32, k as u32];
    launch.arg(&da).arg(&db).arg(&mut dc).arg(&sizes[0]).arg(&sizes[1]).arg(&sizes[2]);
    // SAFETY: the arguments are the entry's.
    unsafe { launch.launch(config(grid, (16, 16, 1), 0)) }.unwrap();
    assert_eq!(stream.clone_dtoh(&dc).unwrap(), product(&a, &b, (m, n, k), false), "{m}×{n}×{k}");
}

fn gemv(stream: &Stream, f: &CudaFunction, (m, k): (usize, usize)) {
    let (w, x) = (values(m * k, 3), values(k, 4));
    let dw = stream.clone_htod(&bf16(&w)).unwrap();
    let dx = stream.clone_htod(&x).unwrap();
    let mut dy = stream.clone_htod(&vec![f32::NAN; m]).unwrap();
    let mut launch = stream.launch_builder(f);
    let sizes = [m as u32, k as u32];
    launch.arg(&dw).arg(&dx).arg(&mut dy).arg(&sizes[0]).arg(&sizes[1]);
    // SAFETY: the arguments are the entry's.
    unsafe { launch.launch(config((m.div_ceil(4) as u32, 1, 1), (128, 1, 1), 0)) }.unwrap();
    assert_eq!(stream.clone_dtoh(&dy).unwrap(), product(&w, &x, (m, 1, k), true), "{m}×{k}");
}

fn gemm_bf16(stream: &Stream, f: &CudaFunction, (m, n, k): (usize, usize, usize)) {
    let (a, b) = (values(m * k, 5), values(n * k, 6));
    let da = stream.clone_htod(&bf16(&a)).unwrap();
    let db = stream.clone_htod(&bf16(&b)).unwrap();
    let mut dc = stream.clone_htod(&vec![f32::NAN; m * n]).unwrap();
    let grid = (n.div_ceil(128) as u32, m.div_ceil(128) as u32, 1);
    let mut launch = stream.launch_builder(f);
    let sizes = [m as u32, n as u32, k as u32];
    launch.arg(&da).arg(&db).arg(&mut dc).arg(&sizes[0]).arg(&sizes[1]).arg(&sizes[2]);
    // SAFETY: the arguments are the entry's.
    unsafe { launch.launch(config(grid, (256, 1, 1), 49152)) }.unwrap();
    assert_eq!(stream.clone_dtoh(&dc).unwrap(), product(&a, &b, (m, n, k), true), "{m}×{n}×{k}");
}

/// Three launches on one header, which nobody clears in between.
fn flags(stream: &Stream, f: &CudaFunction, (rows, cols, ctas): (usize, usize, u32)) {
    let header = stream.alloc_zeros::<u32>(96 + rows).unwrap();
    // SAFETY: the kernel writes before it reads.
    let shrunk = unsafe { stream.alloc::<f32>(64 * rows) }.unwrap();
    for round in 0..3 {
        let x = values(64 * rows, round);
        let dx = stream.clone_htod(&x).unwrap();
        let mut dy = stream.clone_htod(&vec![f32::NAN; 64 * rows * cols]).unwrap();
        let mut launch = stream.launch_builder(f);
        let sizes = [rows as u32, cols as u32];
        launch.arg(&dx).arg(&shrunk).arg(&mut dy).arg(&header).arg(&sizes[0]).arg(&sizes[1]);
        // SAFETY: the arguments are the entry's.
        unsafe { launch.launch(config((ctas, 1, 1), (64, 1, 1), 0)) }.unwrap();
        for (i, y) in stream.clone_dtoh(&dy).unwrap().into_iter().enumerate() {
            let (row, col, t) = (i / 64 / cols, i / 64 % cols, i % 64);
            assert_eq!(y, 2.0 * x[row * 64 + t] + col as f32, "round {round} row {row} col {col}");
        }
    }
}

#[test]
fn gemm_f32_ragged() {
    for variables in ORDERS {
        let body = || {
            let ctx = device();
            let f = function(&ctx, GEMM_F32, "gemm_f32");
            for shape in [(16, 16, 16), (33, 17, 40), (1, 1, 1), (47, 50, 5)] {
                gemm_f32(&ctx.default_stream(), &f, shape);
            }
        };
        simulated("gemm_f32_ragged", "", &variables, body).well().clean();
    }
}

#[test]
fn gemv_ragged() {
    for variables in ORDERS {
        let body = || {
            let ctx = device();
            let f = function(&ctx, GEMV, "gemv");
            for shape in [(4, 256), (7, 8), (9, 264), (1, 1032)] {
                gemv(&ctx.new_stream().unwrap(), &f, shape);
            }
        };
        simulated("gemv_ragged", "", &variables, body).well().clean();
    }
}

#[test]
fn gemm_bf16_ragged() {
    for variables in ORDERS {
        let body = || {
            let ctx = device();
            let f = function(&ctx, GEMM_BF16, "gemm_bf16");
            let dynamic =
                sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            f.set_attribute(dynamic, 49152).unwrap();
            for shape in [(128, 128, 32), (128, 128, 96), (129, 70, 200), (3, 130, 8)] {
                gemm_bf16(&ctx.per_thread_stream(), &f, shape);
            }
        };
        simulated("gemm_bf16_ragged", "", &variables, body).well().clean();
    }
}

#[test]
fn flags_between_ctas() {
    for variables in ORDERS {
        for sms in ["1", "2", "3", "7"] {
            let variables = [variables[0], variables[2], variables[3], ("SMS", sms)];
            let body = || {
                let ctx = device();
                let f = function(&ctx, FLAGS, "flags");
                let count = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
                let sms = ctx.attribute(count).unwrap() as u32;
                // As many CTAs as there are multiprocessors, and more than can be resident.
                for ctas in [sms, 33 * sms] {
                    flags(&ctx.new_stream().unwrap(), &f, (5, 3, ctas));
                }
            };
            simulated("flags_between_ctas", "", &variables, body).well().clean();
        }
    }
}

#[test]
fn every_chip_runs_sm_80_text() {
    for chip in ["sm_80", "sm_86", "sm_89", "sm_90", "sm_120"] {
        let body = || {
            let ctx = device();
            let f = function(&ctx, GEMM_F32, "gemm_f32");
            gemm_f32(&ctx.default_stream(), &f, (20, 20, 20));
            let named = ctx.name().unwrap();
            let (major, minor) = ctx.compute_capability().unwrap();
            assert_eq!(named, format!("ptx-sim sm_{major}{minor}"));
        };
        simulated("every_chip_runs_sm_80_text", "", &[("CHIP", chip)], body).well().clean();
    }
}

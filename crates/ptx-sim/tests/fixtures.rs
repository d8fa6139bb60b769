//! Real kernels, clean and right under every schedule and every timing of the copies.

mod common;

use common::*;
use ptx_sim::{Chip, MmaModel, Options};

#[test]
fn gemm_f32_ragged() {
    for (i, options) in all_orders().iter().enumerate() {
        let shapes = [(16, 16, 16), (33, 17, 40), (1, 1, 1), (47, 50, 5)];
        gemm_f32(GEMM_F32, shapes[i % 4], options).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn gemv_ragged() {
    for options in all_orders() {
        for shape in [(4, 256), (7, 8), (9, 264), (1, 1032)] {
            gemv(GEMV, shape, &options).unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

#[test]
fn gemm_bf16_ragged() {
    for options in all_orders() {
        // Ring longer than the loop, as long, and longer; edges inside a chunk's row.
        for shape in [(128, 128, 32), (128, 128, 96), (129, 70, 200), (3, 130, 8)] {
            gemm_bf16(GEMM_BF16, shape, &options).unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

#[test]
fn gemm_bf16_in_every_model_of_the_tensor_core() {
    // The inputs are exact in all of them.
    for mma in [MmaModel::Exact, MmaModel::RandomOrder, MmaModel::Ampere, MmaModel::Hopper] {
        let options = Options { mma, seed: 3, ..Options::default() };
        gemm_bf16(GEMM_BF16, (128, 128, 64), &options).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn flags_between_ctas() {
    for options in all_orders() {
        for sms in [1, 2, 3, 7] {
            // As many CTAs as there are multiprocessors, and more than can be resident.
            for ctas in [sms, sms + 2] {
                let options = Options { sms, ..options };
                flags(FLAGS, (5, 3, ctas), &options).unwrap_or_else(|e| panic!("{sms} SMs: {e}"));
            }
        }
    }
}

#[test]
fn an_epoch_that_wraps_skips_zero() {
    for options in all_orders() {
        flags_from(FLAGS, (5, 3, 4), u32::MAX, &options).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn every_chip_runs_sm_80_text() {
    for chip in [Chip::SM_80, Chip::SM_86, Chip::SM_89, Chip::SM_120] {
        gemm_f32(GEMM_F32, (20, 20, 20), &Options { chip, ..Options::default() }).unwrap();
    }
}

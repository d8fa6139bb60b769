//! Kernels in other styles than the matrix products: compiled-looking text, tables, chained CTAs, one
//! word a register. Each against plain Rust, under every schedule and timing.

mod common;

use common::styles::*;
use common::*;
use ptx_sim::Options;

#[test]
fn softmax_as_a_compiler_writes_it() {
    for (i, options) in all_orders().into_iter().enumerate() {
        // The approximate functions may be off by what the ISA allows.
        let options = Options { perturb: i % 2 == 1, ..options };
        let shape = [(5, 70), (1, 1), (9, 32), (4, 31)][i % 4];
        softmax(SOFTMAX, shape, &options).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn histogram_with_a_leader_among_equal_lanes() {
    for (i, options) in all_orders().into_iter().enumerate() {
        let n = [16, 4096 + 48, 10_000 - 16, 2048][i % 4];
        histogram(HISTOGRAM, n, &options).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn philox_by_halves_and_wide_products() {
    // The generator's published known answer, for the Rust side.
    let known = [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8];
    assert_eq!(philox_rust([0; 4], [0; 2]), known);
    for options in all_orders() {
        philox(PHILOX, &options).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn scan_chained_from_cta_to_cta() {
    for (i, options) in all_orders().into_iter().enumerate() {
        for sms in [1, 3, 7] {
            let n = [1, 256, 1000, 1536][i % 4];
            scan(SCAN, n, &Options { sms, ..options }).unwrap_or_else(|e| panic!("{sms}: {e}"));
        }
    }
}

#[test]
fn gemm_f16_with_b_turned_by_ldmatrix() {
    for (i, options) in all_orders().into_iter().enumerate() {
        let shape = [(16, 8, 16), (32, 24, 48), (16, 16, 32), (48, 8, 80)][i % 4];
        gemm_f16(GEMM_F16, shape, &options).unwrap_or_else(|e| panic!("{e}"));
    }
}

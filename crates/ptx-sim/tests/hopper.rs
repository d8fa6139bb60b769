//! Clean kernels for sm_90a under every schedule and timing.

mod common;

use common::hopper::*;
use ptx_sim::Options;

#[test]
fn gemm_of_ragged_sizes() {
    for options in all_orders() {
        for shape in [(128, 128, 64), (128, 128, 512), (130, 70, 648), (1, 2, 8)] {
            for sms in [1, 3] {
                gemm(GEMM, shape, &Options { sms, ..options })
                    .unwrap_or_else(|e| panic!("{options:?}: {e}"));
            }
        }
    }
}

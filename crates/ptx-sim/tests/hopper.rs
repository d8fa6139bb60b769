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

#[test]
fn a_pair_with_multicast_and_tensor_stores() {
    for options in all_orders() {
        for shape in [(256, 128, 64), (256, 128, 512), (300, 72, 648), (1, 8, 8)] {
            for (sms, gpcs) in [(2, 1), (7, 3)] {
                let options = Options { sms, gpcs, ..options };
                gemm_pair(GEMM_PAIR, shape, &options)
                    .unwrap_or_else(|e| panic!("{options:?}: {e}"));
            }
        }
    }
}

#[test]
fn sums_split_over_distributed_shared_memory() {
    for options in all_orders() {
        for shape in [(128, 64), (1, 1), (300, 37)] {
            for sms in [1, 2, 3] {
                let options = Options { sms, blocks_per_sm: 2, ..options };
                split_pair(SPLIT_PAIR, shape, &options)
                    .unwrap_or_else(|e| panic!("{options:?}: {e}"));
            }
        }
    }
}

#[test]
fn a_tile_published_by_flag_is_loaded_by_another_ctas_tma() {
    for options in all_orders() {
        for (sms, ctas) in [(1, 1), (2, 5), (7, 7)] {
            let options = Options { sms, ..options };
            publish(PUBLISH, (3, 2, ctas), &options).unwrap_or_else(|e| panic!("{options:?}: {e}"));
        }
    }
}

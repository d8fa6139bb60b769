//! Other legal ways to write the kernels for sm_90a: each must stay clean under every schedule and timing.

mod common;

use common::hopper::*;
use ptx_sim::Options;

/// The text with every piece replaced, wherever it stands.
fn changed(source: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(source.to_owned(), |text, (find, replace)| {
        assert!(text.contains(find), "`{find}` is not in the kernel");
        text.replace(find, replace)
    })
}

fn clean_gemm(name: &str, changes: &[(&str, &str)]) {
    let text = changed(GEMM, changes);
    for options in all_orders() {
        for shape in [(200, 134, 584), (64, 8, 8), (128, 128, 320)] {
            gemm(&text, shape, &options).unwrap_or_else(|e| {
                panic!("{name} {:?} {:?}: {e}", options.schedule, options.copies)
            });
        }
    }
}

#[test]
fn one_arrival_of_every_warp() {
    clean_gemm(
        "per warp",
        &[
            ("[%r1+131104], 2;", "[%r1+131104], 8;"),
            ("[%r1+131112], 2;", "[%r1+131112], 8;"),
            ("[%r1+131120], 2;", "[%r1+131120], 8;"),
            ("[%r1+131128], 2;", "[%r1+131128], 8;"),
            ("setp.eq.u32 %p10, %r16, 0;", "and.b32 %r17, %r16, 31;  setp.eq.u32 %p10, %r17, 0;"),
        ],
    );
}

#[test]
fn every_thread_arrives() {
    clean_gemm(
        "per thread",
        &[
            ("[%r1+131104], 2;", "[%r1+131104], 256;"),
            ("[%r1+131112], 2;", "[%r1+131112], 256;"),
            ("[%r1+131120], 2;", "[%r1+131120], 256;"),
            ("[%r1+131128], 2;", "[%r1+131128], 256;"),
            ("@%p10 mbarrier.arrive", "mbarrier.arrive"),
        ],
    );
}

#[test]
fn a_group_stays_in_flight() {
    clean_gemm(
        "pipelined",
        &[
            (
                "wgmma.wait_group.sync.aligned 0;\n    @%p10 mbarrier.arrive.shared::cta.b64 _, [%r10+131104];",
                "wgmma.wait_group.sync.aligned 1;\n    setp.gt.u32 %p11, %t, 0;  and.pred %p11, %p11, %p10;\n    \
          add.u32 %r17, %t, 3;  and.b32 %r17, %r17, 3;  shl.b32 %r17, %r17, 3;  add.u32 %r17, %r17, %r1;\n    \
          @%p11 mbarrier.arrive.shared::cta.b64 _, [%r17+131104];",
            ),
            ("@%p5 bra NEXT;", "@%p5 bra NEXT;\n    wgmma.wait_group.sync.aligned 0;"),
        ],
    );
}

#[test]
fn waits_that_only_test() {
    clean_gemm("test_wait", &[("mbarrier.try_wait.parity", "mbarrier.test_wait.parity")]);
}

#[test]
fn other_fences_and_barriers_after_the_init() {
    clean_gemm(
        "fence.proxy.async",
        &[("fence.mbarrier_init.release.cluster;", "fence.proxy.async;")],
    );
    clean_gemm("barrier.cta", &[("bar.sync 0;", "barrier.cta.sync.aligned 0, 384;")]);
    clean_gemm(
        "cluster of one",
        &[(
            "bar.sync 0;",
            "barrier.cluster.arrive.relaxed.aligned; barrier.cluster.wait.acquire.aligned;",
        )],
    );
}

#[test]
fn the_whole_warp_goes_round_with_the_loader() {
    clean_gemm(
        "whole warp",
        &[
            ("@!%p3 bra DONE;", ""),
            ("    mbarrier.arrive.expect_tx.shared", "    @%p3 mbarrier.arrive.expect_tx.shared"),
            ("    cp.async.bulk.tensor", "    @%p3 cp.async.bulk.tensor"),
        ],
    );
}

#[test]
fn copies_before_their_bytes_are_announced() {
    let arrive = "    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r10+131072], 32768;\n";
    clean_gemm(
        "announced later",
        &[
            (arrive, ""),
            (
                "    add.u32 %t, %t, 1;  setp.lt.u32 %p5, %t, %steps;\n    @%p5 bra FILL;",
                "    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r10+131072], 32768;\n    add.u32 %t, %t, 1;  setp.lt.u32 %p5, %t, %steps;\n    @%p5 bra FILL;",
            ),
        ],
    );
}

#[test]
fn destinations_in_the_ctas_own_window() {
    clean_gemm(
        "shared::cta",
        &[(".version 8.0", ".version 8.6"), ("2d.shared::cluster.global", "2d.shared::cta.global")],
    );
}

#[test]
fn a_fence_in_a_thread_ordered_before_the_one_that_loads() {
    // Thread 0 polls and fences, a barrier, thread 32 loads.
    let text = changed(
        PUBLISH,
        &[
            ("    @%p0 bra LANDED;\nPOLL:", "    @%p0 bra.uni MET;\nPOLL:"),
            (
                "    fence.proxy.async.global;\n",
                "    fence.proxy.async.global;\nMET:\n    bar.sync 0;\n    setp.ne.u32 %p6, %r0, 32;\n    @%p6 bra LANDED;\n",
            ),
        ],
    );
    let text = text.replace("@%p0 bra.uni MET;", "@%p0 bra MET;");
    for options in all_orders() {
        publish(&text, (3, 2, 5), &Options { sms: 5, ..options })
            .unwrap_or_else(|e| panic!("{options:?}: {e}"));
    }
}

#[test]
fn bytes_announced_after_the_clusters_barrier() {
    let announce = "    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1], 256;\n";
    let text = changed(
        SPLIT_PAIR,
        &[
            (announce, ""),
            (
                "barrier.cluster.wait.aligned;\n",
                "barrier.cluster.wait.aligned;\n    @!%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1], 256;\n",
            ),
        ],
    );
    for options in all_orders() {
        split_pair(&text, (200, 37), &options).unwrap_or_else(|e| panic!("{options:?}: {e}"));
    }
}

//! One seeded defect each, put into a clean kernel for sm_90a by replacing one piece of its text. Each must
//! be caught under at least as many of the twelve orders as it says, by one of the kinds that it names;
//! most under all of them.

mod common;

use common::hopper::*;
use ptx_sim::{FaultKind, Options, RunError};

use FaultKind::*;

type Runner = fn(&str, &Options) -> Result<(), RunError>;

/// Name, text to replace, its replacement, the kinds that may be reported, orders that catch it.
type Defect = (&'static str, &'static str, &'static str, &'static [FaultKind], usize);

fn check(source: &str, run: Runner, defects: &[Defect]) {
    assert!(run(source, &hopper()).is_ok(), "the original is clean");
    let mut missed = Vec::new();
    for &(name, find, replace, kinds, least) in defects {
        assert!(source.contains(find), "{name}: `{find}` is not in the fixture");
        let broken = source.replacen(find, replace, 1);
        let (mut caught, mut told) = (0, Vec::new());
        for options in all_orders() {
            let options = Options { budget: 400_000, ..options };
            // A wrong number is noticed too, but what is asked for is a report.
            let outcome = std::panic::catch_unwind(|| run(&broken, &options));
            match outcome {
                Ok(Err(error)) => {
                    let fault = error.fault().unwrap_or_else(|| panic!("{name}: {error}")).clone();
                    if kinds.contains(&fault.kind) && fault.line > 0 {
                        caught += 1;
                    } else {
                        told.push(format!("{:?} {:?}: {fault}", options.schedule, options.copies));
                    }
                }
                Ok(Ok(())) => {}
                Err(_) => {
                    told.push(format!("{:?} {:?}: a number", options.schedule, options.copies))
                }
            }
        }
        if caught < least || told.iter().any(|t| !t.ends_with("a number")) {
            missed.push(format!(
                "{name}: caught under {caught} orders, {least} are needed\n  {}",
                told.join("\n  ")
            ));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn gemm_defects() {
    let run: Runner = |s, o| gemm(s, (200, 130, 648), o).map(drop);
    check(
        GEMM,
        run,
        &[
            ("no fence.mbarrier_init", "fence.mbarrier_init.release.cluster;", "", &[Proxy], 12),
            ("no barrier after the init", "bar.sync 0;", "", &[Mbarrier], 12),
            (
                "the loader's first parity",
                "shr.u32 %r9, %t, 2;  not.b32 %r9, %r9;",
                "shr.u32 %r9, %t, 2;",
                &[Deadlock],
                12,
            ),
            (
                "the multiplier's parity",
                "and.b32 %r8, %t, 3;  shr.u32 %r9, %t, 2;  and",
                "and.b32 %r8, %t, 3;  shr.u32 %r9, %t, 2;  not.b32 %r9, %r9;  and",
                &[Race, Deadlock, Mbarrier],
                12,
            ),
            (
                "the multiplier's data of another stage",
                "LANDED:",
                "xor.b32 %r8, %r8, 1;\nLANDED:",
                &[Race, UninitialisedMemory],
                12,
            ),
            (
                "half the bytes expected",
                "[%r10+131072], 32768;",
                "[%r10+131072], 16384;",
                &[Mbarrier, Deadlock, Race],
                12,
            ),
            (
                "too many bytes expected",
                "[%r10+131072], 32768;",
                "[%r10+131072], 32784;",
                &[Deadlock],
                12,
            ),
            (
                "bytes expected without arriving",
                "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r10+131072]",
                "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%r10+131072]",
                &[Deadlock],
                12,
            ),
            (
                "slot released before the wait",
                "wgmma.wait_group.sync.aligned 0;\n    @%p10 mbarrier.arrive.shared::cta.b64 _, [%r10+131104];",
                "@%p10 mbarrier.arrive.shared::cta.b64 _, [%r10+131104];\n    wgmma.wait_group.sync.aligned 0;",
                &[Race],
                12,
            ),
            (
                "a group too many left",
                "wait_group.sync.aligned 0",
                "wait_group.sync.aligned 1",
                &[Race, MatrixRegister],
                12,
            ),
            ("no wait_group", "wgmma.wait_group.sync.aligned 0;", "", &[Race, MatrixRegister], 12),
            (
                "no commit_group",
                "wgmma.commit_group.sync.aligned;",
                "",
                &[Race, MatrixRegister],
                12,
            ),
            ("no wgmma.fence", "wgmma.fence.sync.aligned;", "", &[MatrixRegister], 12),
            (
                "the slot is free after one multiplier",
                "[%r1+131104], 2;",
                "[%r1+131104], 1;",
                &[Mbarrier, Race],
                12,
            ),
            (
                "three multipliers are waited for",
                "[%r1+131112], 2;",
                "[%r1+131112], 3;",
                &[Deadlock],
                12,
            ),
            ("two loaders are waited for", "[%r1+131072], 1;", "[%r1+131072], 2;", &[Deadlock], 12),
            (
                "the loader does not wait",
                "mbarrier.try_wait.parity.shared::cta.b64 %p4, [%r10+131104], %r9;\n    @!%p4 bra VACANT;",
                "",
                &[Race, Mbarrier],
                12,
            ),
            ("the loader waits once", "@!%p4 bra VACANT;", "", &[Race, Mbarrier], 8),
            ("the multiplier waits once", "@!%p4 bra LANDED;", "", &[Race, UninitialisedMemory], 6),
            (
                "stages overlap",
                "shl.b32 %r11, %r8, 15;  add.u32 %r11, %r11, %r1;  add.u32 %r12, %r11, 16384;   // stage",
                "shl.b32 %r11, %r8, 14;  add.u32 %r11, %r11, %r1;  add.u32 %r12, %r11, 16384;   // stage",
                &[Race],
                12,
            ),
            ("more registers than there are", "u32 232", "u32 240", &[Deadlock], 12),
            (
                "registers are not given back",
                "setmaxnreg.dec.sync.aligned.u32 40;",
                "",
                &[Deadlock],
                12,
            ),
            ("every thread arrives", "@%p10 mbarrier.arrive", "mbarrier.arrive", &[Mbarrier], 12),
            ("every lane loads", "@!%p3 bra DONE;", "", &[Mbarrier, Race], 12),
            (
                "a matrix begins inside of an atom",
                "add.u32 %r12, %r11, 16384;\n    shl.b32 %r13, %r15, 13;",
                "add.u32 %r12, %r11, 16512;\n    shl.b32 %r13, %r15, 13;",
                &[Misaligned],
                12,
            ),
            (
                "a box begins inside of an atom",
                "add.u32 %r12, %r11, 16384;   // stage",
                "add.u32 %r12, %r11, 16512;   // stage",
                &[Misaligned],
                12,
            ),
            (
                "one stage too many is loaded",
                "setp.lt.u32 %p5, %t, %steps;\n    @%p5 bra FILL;",
                "setp.le.u32 %p5, %t, %steps;\n    @%p5 bra FILL;",
                &[InFlight],
                12,
            ),
            (
                "one warp multiplies less",
                "setp.lt.u32 %p5, %t, %steps;\n    @%p5 bra NEXT;",
                "setp.lt.u32 %p5, %t, %steps; setp.eq.u32 %p11, %r16, 0; @%p11 bra.uni NEXT;\n    @%p5 bra NEXT;",
                &[DivergentUniform],
                12,
            ),
            (
                "an accumulator is read in between",
                "wgmma.commit_group.sync.aligned;",
                "mov.f32 %c1, %c0; wgmma.commit_group.sync.aligned;",
                &[MatrixRegister],
                12,
            ),
            (
                "a plain load of an mbarrier",
                "prefetch.tensormap [%rd0];",
                "ld.shared.u32 %r9, [%r1+131072];",
                &[UninitialisedMemory],
                12,
            ),
            (
                "a plain store to an mbarrier",
                "fence.mbarrier_init.release.cluster;",
                "fence.mbarrier_init.release.cluster; st.shared.u32 [%r1+131128], 0;",
                &[Mbarrier],
                12,
            ),
            (
                "an mbarrier initialised twice",
                "[%r1+131080], 1;",
                "[%r1+131072], 1;",
                &[Mbarrier],
                12,
            ),
            (
                "a 3-dimensional load of a matrix",
                "tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r12], [%rd1, {%r13, %r3}]",
                "tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r12], [%rd1, {%r13, %r3, %t}]",
                &[AsyncCopy],
                12,
            ),
        ],
    );
}

#[test]
fn pair_defects() {
    let run: Runner = |s, o| gemm_pair(s, (300, 136, 648), &Options { sms: 4, ..*o }).map(drop);
    check(
        GEMM_PAIR,
        run,
        &[
            (
                "no cluster barrier after the init",
                "barrier.cluster.arrive.relaxed.aligned;  barrier.cluster.wait.acquire.aligned;",
                "bar.sync 0;",
                &[Mbarrier, Race],
                12,
            ),
            (
                "no fence before the relaxed arrival",
                "fence.mbarrier_init.release.cluster;",
                "",
                &[Proxy, Mbarrier],
                12,
            ),
            (
                "a wait without an arrival",
                "barrier.cluster.arrive.relaxed.aligned;  ",
                "",
                &[Cluster],
                12,
            ),
            ("slots are not drained", "@!%p4 bra FREE;", "", &[Cluster, Mbarrier], 8),
            ("the CTA ends at once", "mov.u32 %r17, 0;", "bra LEAVE;", &[Cluster], 12),
            (
                "multipliers of one CTA only",
                "[%r1+131104], 4;",
                "[%r1+131104], 2;",
                &[Mbarrier, Race],
                12,
            ),
            (
                "the other CTA is not told",
                "@%p10 mapa.shared::cluster.u32 %r18, %r18, %r16;",
                "",
                &[Race, Deadlock, Mbarrier],
                12,
            ),
            (
                "multicast to one",
                "mov.u16 %both, 3;",
                "mov.u16 %both, 1;",
                &[Deadlock, Race, UninitialisedMemory],
                12,
            ),
            ("multicast to three", "mov.u16 %both, 3;", "mov.u16 %both, 7;", &[Cluster], 12),
            ("both halves of b to one place", "add.u32 %r12, %r12, %r16;", "", &[Race], 12),
            ("no proxy fence before the store", "fence.proxy.async.shared::cta;", "", &[Proxy], 12),
            (
                "the proxy fence is for global memory",
                "fence.proxy.async.shared::cta;",
                "fence.proxy.async.global;",
                &[Proxy],
                12,
            ),
            (
                "the proxy fence comes after the barrier",
                "fence.proxy.async.shared::cta;\n    bar.sync 1, 256;",
                "bar.sync 1, 256;\n    fence.proxy.async.shared::cta;",
                &[Proxy],
                12,
            ),
            (
                "no barrier before the store",
                "fence.proxy.async.shared::cta;\n    bar.sync 1, 256;",
                "fence.proxy.async.shared::cta;",
                &[Race, UninitialisedMemory],
                12,
            ),
            (
                "the source is not waited for",
                "cp.async.bulk.wait_group.read 0;",
                "",
                &[InFlight],
                12,
            ),
            ("the group is not committed", "cp.async.bulk.commit_group;", "", &[InFlight], 12),
            (
                "the ring is written too early",
                "bar.sync 1, 256;\n    // Lane",
                "// Lane",
                &[Race],
                12,
            ),
        ],
    );
}

#[test]
fn split_defects() {
    let run: Runner = |s, o| split_pair(s, (200, 37), o);
    check(
        SPLIT_PAIR,
        run,
        &[
            (
                "no cluster barrier",
                "barrier.cluster.arrive.aligned;  barrier.cluster.wait.aligned;",
                "bar.sync 0;",
                &[Mbarrier, Race],
                12,
            ),
            (
                "too few bytes",
                "[%r1], 256;",
                "[%r1], 128;",
                &[Mbarrier, Race, UninitialisedMemory, InFlight],
                12,
            ),
            ("too many bytes", "[%r1], 256;", "[%r1], 260;", &[Deadlock], 12),
            ("the wait is tried once", "@!%p5 bra OWN;", "", &[Race, UninitialisedMemory], 8),
            (
                "the parity that is over",
                "[%r1], 0;\n    @!%p5",
                "[%r1], 1;\n    @!%p5",
                &[Race, UninitialisedMemory, Deadlock],
                12,
            ),
            (
                "the value goes to the wrong CTA",
                "mapa.shared::cluster.u32 %r9, %r8, %other;",
                "mov.u32 %r9, %r8;",
                &[AsyncCopy],
                12,
            ),
            (
                "a plain store instead",
                "st.async.shared::cluster.mbarrier::complete_tx::bytes.f32 [%r9], %f0, [%r10];",
                "st.shared::cluster.f32 [%r9], %f0;",
                &[Deadlock, Cluster, Race, InFlight],
                12,
            ),
            ("the receiver ends", "OWN:", "OWN: ret;", &[InFlight, Cluster], 12),
            (
                "a rank that is not there",
                "xor.b32 %other, %rank, 1;",
                "add.u32 %other, %rank, 1;",
                &[OutOfBounds],
                12,
            ),
            (
                "halves of k overlap and rows race",
                "setp.eq.u32 %p4, %r6, %rank;",
                "setp.eq.u32 %p4, %r6, 0;",
                &[Deadlock, Race, Cluster, InFlight, AsyncCopy, UninitialisedMemory],
                12,
            ),
        ],
    );
}

#[test]
fn publish_defects() {
    let run: Runner = |s, o| publish(s, (3, 2, 5), &Options { sms: 5, ..*o });
    check(
        PUBLISH,
        run,
        &[
            ("no proxy fence", "fence.proxy.async.global;", "", &[Proxy], 12),
            (
                "the proxy fence for shared memory",
                "fence.proxy.async.global;",
                "fence.proxy.async.shared::cta;",
                &[Proxy],
                12,
            ),
            (
                "the flag is read without order",
                "ld.acquire.gpu.global.u32 %r9",
                "ld.relaxed.gpu.global.u32 %r9",
                &[Race],
                12,
            ),
            (
                "the leader does not wait for its threads",
                "bar.sync 0;\n    @!%p0 fence.acq_rel.gpu;",
                "@!%p0 fence.acq_rel.gpu;",
                &[Race],
                12,
            ),
            (
                "the flag is raised without order",
                "@!%p0 fence.acq_rel.gpu;\n    @!%p0 st.release.gpu",
                "@!%p0 st.relaxed.gpu",
                &[Race],
                12,
            ),
            (
                "the tile is read before it has landed",
                "@!%p5 bra LANDED;",
                "",
                &[Race, UninitialisedMemory],
                8,
            ),
            ("the next load overtakes the readers", "DRAW:\n    bar.sync 0;", "DRAW:", &[Race], 6),
            ("half the bytes", "[%r1], 8192;", "[%r1], 4096;", &[Deadlock, Mbarrier, Race], 12),
            (
                "the phase stays",
                "xor.b32 %phase, %phase, 1;",
                "",
                &[Race, Deadlock, Mbarrier, PartialWarp],
                6,
            ),
        ],
    );
}

/// A fence that is there, but not where it counts: two changes at once.
#[test]
fn proxy_fences_in_the_wrong_place() {
    let run: Runner = |s, o| publish(s, (3, 2, 5), &Options { sms: 5, ..*o });
    let bare = PUBLISH.replace("fence.proxy.async.global;", "");
    for (name, find, replace) in [
        (
            "on the writer's side",
            "@!%p0 fence.acq_rel.gpu;",
            "fence.proxy.async.global; @!%p0 fence.acq_rel.gpu;",
        ),
        ("before the acquire", "POLL:", "fence.proxy.async.global;\nPOLL:"),
        (
            "in a thread that is not ordered before",
            "LANDED:\n",
            "LANDED:\n    @%p0 fence.proxy.async.global;\n",
        ),
    ] {
        assert!(bare.contains(find), "{name}");
        let broken = bare.replacen(find, replace, 1);
        for options in all_orders() {
            let error = run(&broken, &Options { budget: 400_000, ..options }).expect_err(name);
            assert_eq!(error.fault().map(|f| f.kind), Some(Proxy), "{name}: {error}");
        }
    }
}

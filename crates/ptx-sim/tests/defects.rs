//! One seeded defect each, put into a clean fixture by replacing one piece of its text. Each must be
//! caught under every schedule and timing; under the default one the report must name the kind, the
//! line and the other access.

mod common;

use common::*;
use ptx_sim::{FaultKind, Options, RunError};

type Runner = fn(&str, &Options) -> Result<(), RunError>;

/// A defect: name, text to replace (everywhere), its replacement, what is reported, a piece
/// of the line blamed, and of the other access's line (empty: none is named).
type Defect = (&'static str, &'static str, &'static str, FaultKind, &'static str, &'static str);

/// These need an unlucky order: where the flag happens to be up already, reading it orders, whether
/// it is compared or not. Some of the schedules must give that order.
const LUCKY: [&str; 2] = ["flag not compared", "epoch not stored"];

fn check(source: &str, run: Runner, defects: &[Defect]) {
    assert!(run(source, &Options::default()).is_ok(), "the original is clean");
    let mut missed = Vec::new();
    for &(name, find, replace, kind, at, other) in defects {
        assert!(source.contains(find), "{name}: `{find}` is not in the fixture");
        let broken = source.replace(find, replace);
        let line = |n: u32| broken.lines().nth(n as usize - 1).unwrap_or_default();
        let mut caught = false;
        for options in [Options::default()].iter().chain(&all_orders()) {
            let options = Options { budget: 300_000, ..*options };
            let fault = match run(&broken, &options) {
                Err(error) => error.fault().unwrap_or_else(|| panic!("{name}: {error}")).clone(),
                Ok(()) if LUCKY.contains(&name) => continue,
                Ok(()) => {
                    missed.push(format!(
                        "{name}: not caught under {:?} {:?}",
                        options.schedule, options.copies
                    ));
                    continue;
                }
            };
            if std::mem::replace(&mut caught, true) {
                continue;
            }
            let other_line = fault.other.as_ref().map_or("", |o| line(o.line));
            let told = fault.kind == kind
                && line(fault.line).contains(at)
                && (other.is_empty() == fault.other.is_none())
                && other_line.contains(other)
                && fault.lanes != 0;
            if !told {
                missed.push(format!(
                    "{name}: told {fault}\n   at `{}`, other `{other_line}`",
                    line(fault.line)
                ));
            }
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

use FaultKind::*;

#[test]
fn gemm_bf16_defects() {
    let run: Runner = |s, o| gemm_bf16(s, (100, 70, 136), o).map(|_| ());
    check(
        GEMM_BF16,
        run,
        &[
            ("no wait_group", "cp.async.wait_group 1;", "", Race, "ldmatrix", "cp.async.cg"),
            (
                "wait_group too loose",
                "wait_group 1",
                "wait_group 2",
                Race,
                "ldmatrix",
                "cp.async.cg",
            ),
            ("no barrier", "bar.sync 0;", "", Race, "ldmatrix", "cp.async.cg"),
            (
                "wrong stage read",
                "mov.u32 %r32, 0; ",
                "mov.u32 %r32, 16384; ",
                Race,
                "ldmatrix",
                "cp.async.cg",
            ),
            (
                "wrong stage filled",
                "mov.u32 %r27, 32768; ",
                "mov.u32 %r27, 0; ",
                Race,
                "ldmatrix",
                "cp.async.cg",
            ),
            (
                "a commit is missing",
                "cp.async.commit_group;              // stage 1",
                "",
                Race,
                "ldmatrix",
                "cp.async",
            ),
            (
                "a row too many is read",
                "and.pred %p3, %p2, %in2;",
                "mov.pred %p3, %p2;",
                OutOfBounds,
                "cp.async",
                "",
            ),
            (
                "k bound off by one",
                "setp.lt.u32 %p2, %r29",
                "setp.le.u32 %p2, %r29",
                OutOfBounds,
                "cp.async",
                "",
            ),
            (
                "a row too many is written",
                "setp.lt.u32 %p1, %r36",
                "setp.le.u32 %p1, %r36",
                OutOfBounds,
                "st.global",
                "",
            ),
            (
                "destination misaligned",
                "add.u32 %dst0, %r12, 0;",
                "add.u32 %dst0, %r12, 8;",
                Misaligned,
                "cp.async",
                "",
            ),
            ("ring runs over", "%p4, %r27, 49152", "%p4, %r27, 65536", OutOfBounds, "cp.async", ""),
            (
                "ldmatrix under a guard",
                "    ldmatrix",
                "    @%p2 ldmatrix",
                PartialWarp,
                "ldmatrix",
                "",
            ),
            (
                "accumulator not set",
                "mov.f32 %c5, 0f00000000;",
                "",
                UnwrittenRegister,
                "mma.sync",
                "",
            ),
            (
                "src-size above cp-size",
                "selp.u32 %r30, 16, 0",
                "selp.u32 %r30, 32, 0",
                AsyncCopy,
                "cp.async",
                "",
            ),
        ],
    );
}

#[test]
fn gemm_f32_defects() {
    let run: Runner = |s, o| gemm_f32(s, (33, 17, 40), o).map(|_| ());
    let first = "bar.sync 0;                         // tiles are complete";
    let second = "bar.sync 0;                         // tiles are free";
    check(
        GEMM_F32,
        run,
        &[
            ("no barrier before reading", first, "", Race, "ld.shared", "st.shared"),
            ("no barrier before writing", second, "", Race, "st.shared", "ld.shared"),
            (
                "barrier in a part of the warp",
                first,
                "setp.lt.u32 %p3, %r4, 8; @%p3 bar.sync 0;",
                PartialWarp,
                "bar.sync",
                "",
            ),
            (
                "barrier for half the threads",
                first,
                "bar.sync 0, 128;",
                Race,
                "ld.shared",
                "st.shared",
            ),
            ("count is no multiple of 32", first, "bar.sync 0, 100;", Barrier, "bar.sync", ""),
            ("more threads than the CTA has", first, "bar.sync 0, 512;", Barrier, "bar.sync", ""),
            ("barrier 16", first, "bar.sync 16;", Barrier, "bar.sync 16", ""),
            ("lanes name different barriers", first, "bar.sync %r5;", Barrier, "bar.sync", ""),
            (
                "halves at two barriers",
                first,
                "shr.u32 %r23, %r5, 3; bar.sync %r23;",
                Deadlock,
                "bar.sync",
                "",
            ),
            (
                "arrive without waiting",
                first,
                "bar.arrive 0, 256;",
                UninitialisedMemory,
                "ld.shared",
                "",
            ),
            (
                "tile not filled",
                "st.shared.f32 [%r13]",
                "@%p4 st.shared.f32 [%r13]",
                UninitialisedMemory,
                "ld.shared",
                "",
            ),
            ("sum not set", "mov.f32 %f1, 0f00000000;", "", UnwrittenRegister, "fma", ""),
            (
                "k bound off by one",
                "setp.lt.and.u32 %p4",
                "setp.le.and.u32 %p4",
                OutOfBounds,
                "ld.global",
                "",
            ),
            (
                "inner loop runs over",
                "setp.lt.u32 %p3, %r22, 16",
                "setp.le.u32 %p3, %r22, 16",
                OutOfBounds,
                "ld.shared",
                "",
            ),
            (
                "uniform branch diverges",
                "@%p3 bra DONE",
                "@%p2 bra.uni DONE",
                DivergentUniform,
                "bra.uni",
                "",
            ),
            (
                "shared address left out",
                "st.shared.f32 [%r13]",
                "st.shared.f32 [%r12]",
                OutOfBounds,
                "st.shared",
                "",
            ),
        ],
    );
}

#[test]
fn gemv_defects() {
    let run: Runner = |s, o| gemv(s, (7, 264), o).map(|_| ());
    let zero = "mov.f32 %f1, 0f00000000;";
    check(
        GEMV,
        run,
        &[
            (
                ".nc read of written bytes",
                zero,
                "mov.f32 %f1, 0f00000000; mad.wide.u32 %rd7, %r6, 4, %rd2; setp.eq.u32 %p3, %r5, 0;\n\
                 @%p3 st.global.f32 [%rd7], %f1;",
                NonCoherent,
                "ld.global.nc.v4.f32",
                "st.global",
            ),
            (
                "bytes written after .nc",
                "mad.wide.u32 %rd7, %r5, 4, %rd3",
                "mad.wide.u32 %rd7, %r5, 4, %rd2",
                NonCoherent,
                "st.global",
                "ld.global.nc",
            ),
            ("not in the member mask", "31, 0xFFFFFFFF", "31, 0x0000FFFF", PartialWarp, "shfl", ""),
            (
                "members missing",
                "    shfl.sync.bfly.b32 %r15, %r14, 16",
                "    @!%p1 bra GO; exit; GO: setp.lt.u32 %p3, %r6, 16;\n @%p3 shfl.sync.bfly.b32 %r15, %r14, 16",
                PartialWarp,
                "shfl",
                "",
            ),
            ("misaligned vector", "[%rd6+16]", "[%rd6+8]", Misaligned, "ld.global", ""),
            (
                "a row too many",
                "setp.ge.u32 %p1, %r5",
                "setp.gt.u32 %p1, %r5",
                OutOfBounds,
                "ld.global",
                "",
            ),
            (
                "all lanes store, and not the same",
                "@%p3 st.global.f32 [%rd7], %f1;",
                "st.global.f32 [%rd7], %f12;",
                Race,
                "st.global",
                "st.global",
            ),
            ("loop never ends", "add.u32 %r7, %r7, 256", "add.u32 %r7, %r7, 0", Budget, "", ""),
            ("sum not set", zero, "", UnwrittenRegister, "fma", ""),
        ],
    );
}

#[test]
fn flags_defects() {
    let run: Runner = |s, o| flags(s, (5, 3, 4), o);
    let fence = "fence.acq_rel.gpu;\n    st.release.gpu";
    check(
        FLAGS,
        run,
        &[
            (
                "relaxed where acquire is needed",
                "ld.acquire.gpu",
                "ld.relaxed.gpu",
                Race,
                "ld.global.f32 %f1, [%rd6]",
                "st.global",
            ),
            (
                "flag before the barrier",
                "bar.sync 0;                         // shrunk is stored",
                "",
                Race,
                "ld.global.f32 %f1, [%rd6]",
                "st.global.f32 [%rd6]",
            ),
            (
                "relaxed without a fence",
                fence,
                "st.relaxed.gpu",
                Race,
                "ld.global.f32 %f1, [%rd6]",
                "st.global.f32 [%rd6]",
            ),
            ("release at cta scope", fence, "st.release.cta", Race, "ld.acquire", "st.release.cta"),
            (
                "plain store of the flag",
                "st.release.gpu.global",
                "st.global",
                Race,
                "ld.acquire",
                "st.global.u32",
            ),
            (
                "plain load of the flag",
                "ld.acquire.gpu.global",
                "ld.global",
                Race,
                "ld.global.u32",
                "st.release",
            ),
            (
                "no barrier after the poll",
                "bar.sync 0;                         // the flag is raised",
                "",
                Race,
                "ld.global.f32 %f1, [%rd6]",
                "st.global.f32 [%rd6]",
            ),
            (
                "shrunk through .nc",
                "RAISED:\n    bar.sync 0;                         // the flag is raised\n    ld.global",
                "RAISED:\n    bar.sync 0;\n    ld.global.nc",
                NonCoherent,
                "ld.global.nc",
                "st.global.f32 [%rd6]",
            ),
            (
                "flag not compared",
                "setp.eq.u32 %p4, %r11, %r7",
                "setp.eq.u32 %p4, %r11, %r11",
                Race,
                "%rd6]",
                "%rd6]",
            ),
            (
                "header reset by the first to leave",
                "setp.ne.u32 %p5",
                "setp.eq.u32 %p5",
                Race,
                "ticket",
                "atom",
            ),
            (
                "relaxed count of those done",
                "atom.acq_rel.gpu",
                "atom.relaxed.gpu",
                Race,
                "// ticket",
                "atom",
            ),
            (
                "slot read without a barrier",
                "bar.sync 0;                         // the ticket is drawn",
                "",
                Race,
                "ld.shared",
                "st.shared",
            ),
            (
                "epoch not stored",
                "st.global.u32 [%rd4], %r7;          // epoch",
                "",
                Race,
                "%rd6]",
                "%rd6]",
            ),
            ("wrong flag raised", "[%rd7+384], %r7", "[%rd7+384], %r6", Deadlock, "", ""),
        ],
    );
}

#[test]
fn waiting_for_a_higher_ticket_needs_more_than_two_ctas() {
    let run: Runner = |s, o| flags(s, (5, 3, 2), &Options { sms: 1, ..*o });
    let defect = (
        "waits for a higher ticket",
        "setp.ne.u32 %p3, %r9, 0",
        "setp.ne.u32 %p3, %r9, 2",
        Deadlock,
        "",
        "",
    );
    check(FLAGS, run, &[defect]);
}

/// Not every deletion is a defect: a release carries its own fence.
#[test]
fn the_fence_before_a_release_is_not_needed_by_the_model() {
    let without = FLAGS.replace("fence.acq_rel.gpu;\n", "\n");
    assert_ne!(without, FLAGS);
    flags(&without, (5, 3, 4), &Options::default()).unwrap();
    let relaxed = FLAGS.replace("st.release.gpu", "st.relaxed.gpu");
    flags(&relaxed, (5, 3, 4), &Options::default()).unwrap();
}

#[test]
fn a_deadlock_names_every_warp_and_what_it_waits_for() {
    let broken = GEMM_F32.replace(
        "bar.sync 0;                         // tiles are complete",
        "shr.u32 %r23, %r5, 3; bar.sync %r23;",
    );
    let error = gemm_f32(&broken, (16, 16, 16), &Options::default()).unwrap_err();
    let fault = error.fault().unwrap();
    assert_eq!(fault.warps.len(), 8);
    for w in &fault.warps {
        assert!(broken.lines().nth(w.line as usize - 1).unwrap().contains("bar.sync %r23"));
        assert_eq!(w.waits, format!("waits at barrier {} (4 of 8 warps have arrived)", w.warp / 4));
    }
}

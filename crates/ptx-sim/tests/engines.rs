//! Hopper's instructions one by one, against what the ISA says of each: small kernels of one CTA, under
//! every timing.

mod common;

use common::hopper::all_orders;
use ptx_sim::{Fault, FaultKind, Launch, Memory, Module, Options, RunError, run_launch};

/// Runs a body with `%out` pointing at 4 words for each thread; `%t` is the thread, `%s` shared memory
/// (1024-aligned, 8 KiB), `bar` and `two` are mbarriers.
fn text(body: &str) -> String {
    format!(
        ".version 8.6\n.target sm_90a\n.address_size 64\n.extern .shared .align 1024 .b8 s[];\n\
         .visible .entry f(.param .u64 out, .param .u64 in) .maxntid 512, 1, 1 .minnctapersm 1 {{\n\
         .shared .align 8 .b64 bar; .shared .align 8 .b64 two;\n\
         .reg .pred %p<8>; .reg .b32 %t, %s, %b, %r<16>; .reg .b64 %out, %in, %x, %d<8>; .reg .f32 %f<8>;\n\
         mov.u32 %t, %tid.x; mov.u32 %s, s; mov.u32 %b, bar;\n\
         ld.param.u64 %out, [out]; ld.param.u64 %in, [in]; mad.wide.u32 %out, %t, 16, %out;\n\
         setp.eq.u32 %p7, %t, 0;\n{body}\nret; }}"
    )
}

const IN: usize = 4096;

fn try_run(body: &str, threads: u32, options: &Options) -> Result<Vec<u32>, RunError> {
    let module = Module::parse("t.ptx", &text(body)).unwrap_or_else(|e| panic!("{e}\n{body}"));
    let mut memory = Memory::new();
    let out = memory.alloc(16 * threads as usize).unwrap();
    memory.write(out, &vec![0; 16 * threads as usize]).unwrap();
    let input = memory.alloc(IN).unwrap();
    let bytes: Vec<u8> = (0..IN as u32 / 4).flat_map(|i| (1000 + i).to_le_bytes()).collect();
    memory.write(input, &bytes).unwrap();
    let launch = Launch::new("f", [1, 1, 1], [threads, 1, 1]).shared(8192).ptr(out).ptr(input);
    run_launch(&module, &mut memory, &launch, &Options { budget: 100_000, ..*options })?;
    let words = memory.read(out, 16 * threads as usize).unwrap();
    Ok(words.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect())
}

/// The words of every thread under every order; they must agree.
fn run(body: &str, threads: u32) -> Vec<u32> {
    let mut all = all_orders().into_iter().map(|o| {
        try_run(body, threads, &o)
            .unwrap_or_else(|e| panic!("{:?} {:?}: {e}\n{body}", o.schedule, o.copies))
    });
    let first = all.next().unwrap();
    all.for_each(|other| assert_eq!(first, other, "{body}"));
    first
}

/// The fault, under every order.
fn faults(body: &str, threads: u32, kind: FaultKind, words: &str) -> Fault {
    let mut last = None;
    for o in all_orders() {
        let Err(error) = try_run(body, threads, &o) else {
            panic!("not caught under {:?} {:?}\n{body}", o.schedule, o.copies)
        };
        let fault = error.fault().unwrap_or_else(|| panic!("{error}\n{body}")).clone();
        let told = format!("{fault}");
        assert!(
            fault.kind == kind && told.contains(words),
            "{:?} {:?}: {told}\n{body}",
            o.schedule,
            o.copies
        );
        last = Some(fault);
    }
    last.unwrap()
}

/// As a defect that needs an unlucky order: some must give it, and all report one of these kinds.
fn faults_somewhere(body: &str, threads: u32, kinds: &[FaultKind], least: usize) {
    let mut caught = 0;
    for o in all_orders() {
        if let Err(error) = try_run(body, threads, &o) {
            let fault = error.fault().unwrap_or_else(|| panic!("{error}\n{body}"));
            assert!(
                kinds.contains(&fault.kind),
                "{:?} {:?}: {fault}\n{body}",
                o.schedule,
                o.copies
            );
            caught += 1;
        }
    }
    assert!(caught >= least, "caught under {caught} orders\n{body}");
}

const INIT_1: &str = "@%p7 mbarrier.init.shared.b64 [bar], 1; @%p7 fence.mbarrier_init.release.cluster; bar.sync 0;\n";

#[test]
fn bfind_finds_the_highest_bit_that_is_not_the_sign() {
    let body = "mov.u32 %r0, 0x00012345; bfind.u32 %r1, %r0; st.global.u32 [%out], %r1;
        bfind.shiftamt.u32 %r1, %r0; st.global.u32 [%out+4], %r1;
        mov.u32 %r0, -2; bfind.s32 %r1, %r0; st.global.u32 [%out+8], %r1;
        mov.u64 %x, 0; bfind.u64 %r1, %x; st.global.u32 [%out+12], %r1;";
    assert_eq!(run(body, 1), [16, 15, 0, 0xFFFF_FFFF]);
    let body = "mov.s64 %x, -1; bfind.s64 %r1, %x; st.global.u32 [%out], %r1;
        mov.u64 %x, 0x8000000000000000; bfind.u64 %r1, %x; st.global.u32 [%out+4], %r1;
        bfind.shiftamt.s64 %r1, %x; st.global.u32 [%out+8], %r1;
        mov.s32 %r0, 1; bfind.s32 %r1, %r0; st.global.u32 [%out+12], %r1;";
    assert_eq!(run(body, 1), [0xFFFF_FFFF, 63, 1, 0]);
}

#[test]
fn one_lane_is_elected_and_all_know_which() {
    let body = "elect.sync %r0|%p0, 0xFFFFFFFF; selp.u32 %r1, 1, 0, %p0;
        mov.u32 %r2, %laneid; setp.eq.u32 %p1, %r0, %r2; selp.u32 %r3, 1, 0, %p1;
        st.global.u32 [%out], %r1; st.global.u32 [%out+4], %r3;";
    for o in all_orders() {
        let words = try_run(body, 64, &o).unwrap();
        for warp in words.chunks(128) {
            let chosen: u32 = warp.chunks(4).map(|w| w[0]).sum();
            assert_eq!(chosen, 1, "{:?}", o.schedule);
            assert!(warp.chunks(4).all(|w| w[0] == w[1]));
        }
    }
}

#[test]
fn stmatrix_is_the_reverse_of_ldmatrix() {
    // Lane l holds of matrix i the pair (100i + 2l, 100i + 2l + 1); row r of matrix i lies at 128i + 16r.
    for (trans, n) in [("", 4), (".trans", 4), ("", 1), (".trans", 2)] {
        let regs = ["%r4", "%r5", "%r6", "%r7"][..n].join(", ");
        let body = format!(
            "mov.u32 %r0, %laneid; shl.b32 %r1, %r0, 1; add.u32 %r2, %r1, 1; shl.b32 %r3, %r2, 16; or.b32 %r4, %r1, %r3;
             add.u32 %r5, %r4, 0x00640064; add.u32 %r6, %r5, 0x00640064; add.u32 %r7, %r6, 0x00640064;
             mad.lo.u32 %r8, %r0, 16, %s;
             stmatrix.sync.aligned.m8n8.x{n}{trans}.shared.b16 [%r8], {{{regs}}};
             bar.warp.sync -1; ld.shared.v4.u32 {{%r4, %r5, %r6, %r7}}, [%r8];
             st.global.v4.u32 [%out], {{%r4, %r5, %r6, %r7}};"
        );
        let body = if n == 4 {
            body
        } else {
            body.replace("ld.shared.v4", "setp.ge.u32 %p0, %r0, LIMIT; @%p0 ret; ld.shared.v4")
                .replace("LIMIT", &(8 * n).to_string())
        };
        let words = run(&body, 32);
        for lane in 0..8 * n {
            for half in 0..8 {
                let got = words[4 * lane + half / 2] >> (16 * (half % 2)) & 0xFFFF;
                let (matrix, row) = (lane / 8, lane % 8);
                let (r, c) = if trans.is_empty() { (row, half) } else { (half, row) };
                // Element (r, c) comes from lane 4r + c/2, its half c % 2.
                let want = 100 * matrix + 2 * (4 * r + c / 2) + c % 2;
                assert_eq!(got, want as u32, "x{n}{trans} lane {lane} half {half}");
            }
        }
    }
}

#[test]
fn a_phase_completes_when_all_have_arrived() {
    // Two warps; each thread arrives once, waits for phase 0, then reads what its neighbour wrote.
    let body = "@%p7 mbarrier.init.shared.b64 [bar], 64; bar.sync 0;
        shl.b32 %r0, %t, 2; add.u32 %r1, %s, %r0; st.shared.u32 [%r1], %t;
        mbarrier.arrive.shared.b64 %d0, [bar];
        W: mbarrier.test_wait.shared.b64 %p0, [bar], %d0; @!%p0 bra W;
        xor.b32 %r2, %t, 33; shl.b32 %r2, %r2, 2; add.u32 %r2, %r2, %s; ld.shared.u32 %r3, [%r2];
        st.global.u32 [%out], %r3;";
    let words = run(body, 64);
    assert!((0..64).all(|t| words[4 * t as usize] == t ^ 33));
    // The same by parity and with the waiting suspended; a second phase with the other parity.
    let body = body.replace(
        "test_wait.shared.b64 %p0, [bar], %d0",
        "try_wait.parity.shared.b64 %p0, [bar], 0",
    ) + "mbarrier.arrive.shared.b64 _, [bar];
           V: mbarrier.try_wait.parity.shared.b64 %p0, [bar], 1; @!%p0 bra V; st.shared.u32 [%r1], %r3;";
    assert_eq!(run(&body, 64)[0], 33);
    // Without the second phase nobody knows that its neighbour has read.
    faults_somewhere(&body.replace("@!%p0 bra V;", ""), 64, &[FaultKind::Race], 8);
}

#[test]
fn counts_states_and_drops() {
    let body = "@!%p7 ret;
        mbarrier.init.shared.b64 [bar], 5;
        mbarrier.arrive.shared.b64 %d0, [bar]; mbarrier.pending_count.b64 %r0, %d0; st.global.u32 [%out], %r0;
        mbarrier.arrive.shared.b64 %d1, [bar], 2; mbarrier.pending_count.b64 %r0, %d1; st.global.u32 [%out+4], %r0;
        mbarrier.arrive_drop.shared.b64 %d2, [bar]; mbarrier.arrive.noComplete.shared.b64 %d3, [two], 1;";
    // `two` was never initialised.
    faults(body, 1, FaultKind::Mbarrier, "there is no mbarrier");
    let body = "@!%p7 ret;
        mbarrier.init.shared.b64 [bar], 5;
        mbarrier.arrive.shared.b64 %d0, [bar]; mbarrier.pending_count.b64 %r0, %d0; st.global.u32 [%out], %r0;
        mbarrier.arrive.shared.b64 %d1, [bar], 2; mbarrier.pending_count.b64 %r0, %d1; st.global.u32 [%out+4], %r0;
        mbarrier.arrive_drop.shared.b64 %d2, [bar]; mbarrier.arrive.shared.b64 %d3, [bar];
        mbarrier.test_wait.shared.b64 %p0, [bar], %d0; selp.u32 %r1, 1, 0, %p0; st.global.u32 [%out+8], %r1;
        mbarrier.arrive.shared.b64 %d4, [bar]; mbarrier.pending_count.b64 %r0, %d4; st.global.u32 [%out+12], %r0;";
    // 5, then 4 left; phase 0 is over after 1 + 2 + 1 + 1; the dropped one is missing afterwards.
    assert_eq!(run(body, 1), [5, 4, 1, 4]);
}

#[test]
fn a_copy_lands_when_its_bytes_are_expected() {
    let body = format!(
        "{INIT_1} @!%p7 bra W;
         cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%s], [%in], 64, [%b];
         add.u32 %r0, %s, 64; add.u64 %x, %in, 128;
         cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r0], [%x], 64, [%b];
         mbarrier.arrive.expect_tx.shared.b64 _, [bar], 128;
         W: mbarrier.try_wait.parity.shared.b64 %p0, [bar], 0; @!%p0 bra W;
         shl.b32 %r1, %t, 2; add.u32 %r1, %r1, %s; ld.shared.u32 %r2, [%r1]; st.global.u32 [%out], %r2;"
    );
    let words = run(&body, 32);
    let want = |t: u32| if t < 16 { 1000 + t } else { 1000 + 16 + t };
    assert!((0..32).all(|t| words[4 * t as usize] == want(t)));
    // Too few bytes, too many, a parity that is over before anything began.
    let few = body.replace("[bar], 128;", "[bar], 64;");
    let kinds = [FaultKind::Mbarrier, FaultKind::Race, FaultKind::Deadlock];
    faults_somewhere(&few, 32, &kinds, 12);
    // Where both copies are under way when the first lands, the mbarrier itself says what is wrong.
    let late = all_orders().into_iter().find(|o| o.copies == ptx_sim::CopyTiming::Late).unwrap();
    let told = try_run(&few, 32, &late).unwrap_err().to_string();
    assert!(told.contains("fewer bytes are expected than come"), "{told}");
    faults(
        &body.replace("[bar], 128;", "[bar], 192;"),
        32,
        FaultKind::Deadlock,
        "64 bytes to come",
    );
    faults_somewhere(&body.replace("[bar], 0; @!%p0", "[bar], 1; @!%p0"), 32, &kinds, 12);
    // The wait may come back without success: it must be tried again.
    faults_somewhere(&body.replace("@!%p0 bra W;", ""), 32, &[FaultKind::Race], 8);
    faults(
        &body.replace("fence.mbarrier_init.release.cluster", "membar.cta"),
        32,
        FaultKind::Proxy,
        "fence.mbarrier_init",
    );
    faults(&body.replace("bar.sync 0;", ""), 64, FaultKind::Mbarrier, "mbarrier");
    faults(&body.replace("[%in], 64,", "[%in], 40,"), 32, FaultKind::AsyncCopy, "multiple of 16");
}

#[test]
fn bulk_groups_copy_out_and_add() {
    let body =
        "shl.b32 %r0, %t, 2; add.u32 %r1, %s, %r0; add.u32 %r2, %t, 7; st.shared.u32 [%r1], %r2;
        fence.proxy.async.shared::cta; bar.sync 0;
        @!%p7 ret;
        cp.async.bulk.global.shared::cta.bulk_group [%out], [%s], 64;
        cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;
        add.u32 %r3, %s, 64;
        cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32 [%out], [%r3], 64;
        cp.async.bulk.commit_group; cp.async.bulk.wait_group.read 0;";
    let words = run(body, 32);
    // The first sixteen words hold t + 7, and 16 more of the second half is added to them.
    assert!((0..16).all(|t| words[t] == 2 * t as u32 + 30), "{words:?}");
    faults(
        &body.replace("fence.proxy.async.shared::cta;", ""),
        32,
        FaultKind::Proxy,
        "no proxy fence",
    );
    faults(
        &body.replace("fence.proxy.async.shared::cta;", "fence.proxy.async.global;"),
        32,
        FaultKind::Proxy,
        "no proxy fence",
    );
    let late = body.replace(
        "fence.proxy.async.shared::cta; bar.sync 0;",
        "bar.sync 0; fence.proxy.async.shared::cta;",
    );
    faults(&late, 32, FaultKind::Proxy, "no proxy fence");
    faults(
        &body.replace("cp.async.bulk.wait_group.read 0;", ""),
        32,
        FaultKind::InFlight,
        "wait_group.read",
    );
    let reuse = body.replace("cp.async.bulk.wait_group 0;", "st.shared.u32 [%s], 1;");
    faults(&reuse, 32, FaultKind::Race, "asynchronous read");
    let read_back = body.replace(
        "cp.async.bulk.wait_group 0;",
        "cp.async.bulk.wait_group.read 0; ld.global.u32 %r5, [%out];",
    );
    faults(&read_back, 32, FaultKind::Race, "asynchronous write");
}

#[test]
fn arrivals_of_cp_async_come_when_it_has_landed() {
    let body = "@%p7 mbarrier.init.shared.b64 [bar], 32; bar.sync 0;
        setp.ge.u32 %p1, %t, 32; @%p1 bra W;
        shl.b32 %r0, %t, 4; add.u32 %r1, %s, %r0; cvt.u64.u32 %x, %r0; add.u64 %x, %x, %in;
        cp.async.cg.shared.global [%r1], [%x], 16;
        cp.async.mbarrier.arrive.noinc.shared.b64 [bar];
        bra E;
        W: mbarrier.try_wait.parity.shared.b64 %p0, [bar], 0; @!%p0 bra W;
        shl.b32 %r0, %t, 2; sub.u32 %r0, %r0, 128; add.u32 %r0, %r0, %s; ld.shared.u32 %r2, [%r0]; st.global.u32 [%out], %r2;
        E: ";
    let words = run(body, 64);
    assert!((32..64).all(|t| words[4 * t as usize] == 1000 + t - 32));
    // Without .noinc the arrival is one more than the phase waits for: it balances itself.
    faults(&body.replace(".noinc", ""), 64, FaultKind::Deadlock, "arrivals");
    // A copy after the arrival is not covered by it.
    let moved = body
        .replace("cp.async.cg.shared.global [%r1], [%x], 16;", "")
        .replace("bra E;", "cp.async.cg.shared.global [%r1], [%x], 16; bra E;");
    faults(&moved, 64, FaultKind::Race, "asynchronous write");
}

#[test]
fn registers_move_between_warpgroups() {
    // Bounds of 512 threads leave each 128 registers at the beginning.
    let body = "setp.ge.u32 %p0, %t, 128; @%p0 bra MORE; setmaxnreg.dec.sync.aligned.u32 40; bra E;
        MORE: setmaxnreg.inc.sync.aligned.u32 216; E: st.global.u32 [%out], %t;";
    run(body, 256);
    faults(&body.replace("216", "224"), 256, FaultKind::Deadlock, "waits for 224 registers");
    faults(&body.replace("216", "120"), 256, FaultKind::RegisterPool, "holds 128");
    faults(&body.replace("u32 40", "u32 136"), 256, FaultKind::RegisterPool, "holds 128");
    let mixed = body.replace(
        "@%p0 bra MORE;",
        "setp.lt.u32 %p1, %t, 32; @%p1 setmaxnreg.dec.sync.aligned.u32 64; @%p0 bra MORE;",
    );
    faults(&mixed, 256, FaultKind::RegisterPool, "different registers");
}

#[test]
fn what_cp_async_brought_is_fenced_before_an_engine_reads_it() {
    let body = "shl.b32 %r0, %t, 4; add.u32 %r1, %s, %r0; cvt.u64.u32 %x, %r0; add.u64 %x, %x, %in;
        cp.async.cg.shared.global [%r1], [%x], 16; cp.async.wait_all;
        fence.proxy.async.shared::cta; bar.sync 0;
        @!%p7 ret;
        cp.async.bulk.global.shared::cta.bulk_group [%out], [%s], 512;
        cp.async.bulk.commit_group; cp.async.bulk.wait_group.read 0;";
    let words = run(body, 32);
    assert!((0..128).all(|i| words[i] == 1000 + i as u32), "{words:?}");
    let fence = "fence.proxy.async.shared::cta;";
    faults(&body.replace(fence, ""), 32, FaultKind::Proxy, "no proxy fence");
    // Before the wait there is nothing yet to fence.
    let early = body
        .replace(fence, "")
        .replace("cp.async.wait_all;", &format!("{fence} cp.async.wait_all;"));
    faults(&early, 32, FaultKind::Proxy, "no proxy fence");
    faults(&body.replace("cp.async.wait_all;", ""), 32, FaultKind::Race, "asynchronous write");
}

#[test]
fn accumulators_and_registers_of_a_are_fenced_and_left_alone() {
    let mma = "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%f0, %f1, %f2, %f3}, {%r0, %r1, %r2, %r3}, %d0, 1, 1, 1, 0;";
    let body = format!(
        "shl.b32 %r4, %t, 2; add.u32 %r4, %r4, %s; st.shared.u32 [%r4], 0x3F803F80; st.shared.u32 [%r4+512], 0x3F803F80;
         fence.proxy.async; bar.sync 0;
         add.u32 %r5, %s, 0; bfe.u32 %r5, %r5, 4, 14; cvt.u64.u32 %d0, %r5; or.b64 %d0, %d0, 0x0000001000080000;
         mov.b32 %r0, 0x40004000; mov.b32 %r1, %r0; mov.b32 %r2, %r0; mov.b32 %r3, %r0;
         mov.f32 %f0, 0f3F800000; mov.f32 %f1, %f0; mov.f32 %f2, %f0; mov.f32 %f3, %f0;
         wgmma.fence.sync.aligned; {mma} {mma} wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;
         st.global.v4.f32 [%out], {{%f0, %f1, %f2, %f3}};"
    );
    // 1 + 2 · (16 · 2 · 1), everywhere.
    assert!(run(&body, 128).iter().all(|&w| f32::from_bits(w) == 65.0));
    let wrong = |from: &str, to: &str, words: &str| {
        faults(&body.replacen(from, to, 1), 128, FaultKind::MatrixRegister, words);
    };
    wrong("wgmma.fence.sync.aligned;", "", "needs a wgmma.fence");
    wrong(
        "wgmma.fence.sync.aligned;",
        "wgmma.fence.sync.aligned; mov.b32 %r0, 0x40004000;",
        "register of A was touched",
    );
    wrong("wgmma.commit_group", "mov.b32 %r9, %r0; wgmma.commit_group", "register of A is read");
    wrong("wgmma.commit_group", "add.f32 %f1, %f1, %f1; wgmma.commit_group", "accumulator is read");
    wrong(
        "wgmma.wait_group.sync.aligned 0;",
        "wgmma.wait_group.sync.aligned 1;",
        "accumulator is read",
    );
    let end = body.find("st.global.v4").unwrap();
    let gone = body[..end].replace("wgmma.wait_group.sync.aligned 0;", "");
    faults(&gone, 128, FaultKind::InFlight, "wait_group has not waited");
    // Three warps are not a warpgroup, and all four issue the same.
    faults(&body, 96, FaultKind::Warpgroup, "fewer than four");
    let differ = body.replacen("add.u32 %r5, %s, 0;", "and.b32 %r6, %t, 32; setp.eq.u32 %p1, %r6, 0; selp.u32 %r6, 0, 16, %p1; add.u32 %r5, %s, %r6;", 1);
    faults(&differ, 128, FaultKind::Warpgroup, "different wgmma");
}

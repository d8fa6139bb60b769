//! Clusters one instruction at a time: where a CTA stands, whose shared memory an address names, what crosses
//! the cluster's barrier, and what is wrong when it does not.

mod common;

use common::hopper::all_orders;
use ptx_sim::{
    Fault, FaultKind, Launch, LaunchError, Memory, Module, Options, RunError, run_launch,
};

/// `%out` is the CTA's own 16 words times its threads; `%rank` and `%other` are ranks of a pair.
fn text(body: &str) -> String {
    format!(
        ".version 8.1\n.target sm_90\n.address_size 64\n\
         .visible .entry f(.param .u64 out) .maxntid 64, 1, 1 {{\n\
         .shared .align 16 .b8 s[256]; .shared .align 8 .b64 bar;\n\
         .reg .pred %p<8>; .reg .b32 %t, %s, %b, %rank, %other, %r<16>; .reg .b64 %out, %x, %d<8>; .reg .f32 %f<4>;\n\
         mov.u32 %t, %tid.x; mov.u32 %s, s; mov.u32 %b, bar;\n\
         mov.u32 %rank, %cluster_ctarank; xor.b32 %other, %rank, 1; setp.eq.u32 %p7, %t, 0;\n\
         mov.u32 %r15, %ctaid.y; mov.u32 %r14, %nctaid.x; mov.u32 %r13, %ctaid.x; mad.lo.u32 %r15, %r15, %r14, %r13;\n\
         ld.param.u64 %out, [out]; mad.wide.u32 %out, %r15, 64, %out;\n{body}\nret; }}"
    )
}

const ALL: &str = "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;\n";

fn try_run(
    body: &str,
    (grid, cluster, threads): ([u32; 3], [u32; 3], u32),
    options: &Options,
) -> Result<Vec<u32>, RunError> {
    let module = Module::parse("t.ptx", &text(body)).unwrap_or_else(|e| panic!("{e}\n{body}"));
    let mut memory = Memory::new();
    let bytes = 64 * grid.iter().product::<u32>() as usize;
    let out = memory.alloc(bytes).unwrap();
    memory.write(out, &vec![0; bytes]).unwrap();
    let launch = Launch::new("f", grid, [threads, 1, 1]).cluster(cluster).ptr(out);
    run_launch(&module, &mut memory, &launch, &Options { budget: 100_000, ..*options })?;
    let words = memory.read(out, bytes).unwrap();
    Ok(words.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

const PAIR: ([u32; 3], [u32; 3], u32) = ([2, 1, 1], [2, 1, 1], 32);

/// The words of every CTA, 16 each, under every order.
fn run(body: &str, shape: ([u32; 3], [u32; 3], u32)) -> Vec<u32> {
    let mut all = all_orders().into_iter().map(|o| {
        try_run(body, shape, &Options { blocks_per_sm: 2, ..o })
            .unwrap_or_else(|e| panic!("{:?} {:?}: {e}\n{body}", o.schedule, o.copies))
    });
    let first = all.next().unwrap();
    all.for_each(|other| assert_eq!(first, other, "{body}"));
    first
}

fn faults(body: &str, kinds: &[FaultKind], least: usize) -> Option<Fault> {
    let (mut caught, mut last) = (0, None);
    for o in all_orders() {
        if let Err(error) = try_run(body, PAIR, &o) {
            let fault = error.fault().unwrap_or_else(|| panic!("{error}\n{body}")).clone();
            assert!(
                kinds.contains(&fault.kind),
                "{:?} {:?}: {fault}\n{body}",
                o.schedule,
                o.copies
            );
            caught += 1;
            last = Some(fault);
        }
    }
    assert!(caught >= least, "caught under {caught} orders\n{body}");
    last
}

#[test]
fn every_cta_knows_where_it_stands() {
    let body = "mov.u32 %r0, %cluster_ctaid.x; st.global.u32 [%out], %r0; mov.u32 %r0, %cluster_ctaid.y; st.global.u32 [%out+4], %r0;
        st.global.u32 [%out+8], %rank; mov.u32 %r0, %cluster_nctarank; st.global.u32 [%out+12], %r0;
        mov.u32 %r0, %clusterid.x; st.global.u32 [%out+16], %r0; mov.u32 %r0, %clusterid.y; st.global.u32 [%out+20], %r0;
        mov.u32 %r0, %nclusterid.x; st.global.u32 [%out+24], %r0; mov.u32 %r0, %cluster_nctaid.y; st.global.u32 [%out+28], %r0;";
    let words = run(body, ([4, 6, 1], [2, 3, 1], 1));
    for (at, cta) in words.chunks(16).enumerate() {
        let (x, y) = (at as u32 % 4, at as u32 / 4);
        let want = [x % 2, y % 3, y % 3 * 2 + x % 2, 6, x / 2, y / 3, 2, 3];
        assert_eq!(cta[..8], want, "CTA ({x}, {y})");
    }
}

#[test]
fn addresses_of_other_ctas() {
    let body = format!(
        "mad.lo.u32 %r0, %rank, 100, 7; @%p7 st.shared.u32 [%s], %r0; {ALL}
         mapa.shared::cluster.u32 %r1, %s, %other; ld.shared::cluster.u32 %r2, [%r1]; @%p7 st.global.u32 [%out], %r2;
         getctarank.shared::cluster.u32 %r3, %r1; @%p7 st.global.u32 [%out+4], %r3;
         cvt.u64.u32 %d0, %s; cvta.shared.u64 %d0, %d0; mapa.u64 %d1, %d0, %other; ld.u32 %r2, [%d1]; @%p7 st.global.u32 [%out+8], %r2;
         getctarank.u64 %r3, %d0; @%p7 st.global.u32 [%out+12], %r3;
         mapa.shared::cluster.u32 %r1, %s, %rank; ld.shared::cluster.u32 %r2, [%r1]; @%p7 st.global.u32 [%out+16], %r2;
         ld.shared::cluster.u32 %r2, [%s]; @%p7 st.global.u32 [%out+20], %r2; {ALL}"
    );
    let words = run(&body, PAIR);
    assert_eq!(words[..6], [107, 1, 107, 0, 7, 7]);
    assert_eq!(words[16..22], [7, 0, 7, 1, 107, 107]);
    // A rank that is not there; an address of the cluster's window through `.shared::cta`.
    faults(&body.replacen("%s, %other", "%s, 2", 1), &[FaultKind::OutOfBounds], 12);
    faults(
        &body.replacen("ld.shared::cluster.u32 %r2, [%r1]", "ld.shared.u32 %r2, [%r1]", 1),
        &[FaultKind::OutOfBounds],
        12,
    );
    // Nobody waits before the end: the other one's memory may be gone.
    let end = body.rfind(ALL).unwrap();
    faults(&body[..end], &[FaultKind::Cluster], 12);
    // Nobody waits before the read.
    faults(&body.replacen(ALL, "", 1), &[FaultKind::Race, FaultKind::UninitialisedMemory], 12);
}

#[test]
fn atomics_and_orders_cross_the_cluster() {
    let body = format!(
        "@%p7 st.shared.u32 [%s], 0; {ALL} mapa.shared::cluster.u32 %r1, %s, 0;
         atom.shared::cluster.add.u32 %r2, [%r1], 1; {ALL} ld.shared.u32 %r3, [%s]; @%p7 st.global.u32 [%out], %r3; {ALL}"
    );
    let words = run(&body, PAIR);
    assert_eq!((words[0], words[16]), (64, 0));
    // A flag with the cluster's scope hands on a plain store; with the CTA's it does not.
    let flag = format!(
        "@%p7 st.shared.u32 [%s+4], 0; {ALL} setp.eq.u32 %p1, %rank, 0; @!%p1 bra READ;
         mapa.shared::cluster.u32 %r1, %s, 1;
         @%p7 st.shared::cluster.u32 [%r1], 5; @%p7 st.release.cluster.shared::cluster.u32 [%r1+4], 1; bra END;
         READ: @!%p7 bra END;
         L: ld.acquire.cluster.shared.u32 %r2, [%s+4]; setp.eq.u32 %p2, %r2, 0; @%p2 bra L;
         ld.shared.u32 %r3, [%s]; st.global.u32 [%out], %r3;
         END: {ALL}"
    );
    assert_eq!(run(&flag, PAIR)[16], 5);
    faults(&flag.replace("st.release.cluster", "st.release.cta"), &[FaultKind::Race], 12);
    faults(&flag.replace("ld.acquire.cluster", "ld.relaxed.cluster"), &[FaultKind::Race], 12);
}

#[test]
fn values_sent_to_another_cta_complete_on_its_mbarrier() {
    let init = "@%p7 mbarrier.init.shared.b64 [bar], 1; @%p7 fence.mbarrier_init.release.cluster;
        @%p7 st.shared.u32 [%s], 40;\n";
    let body = format!(
        "{init} {ALL} mapa.shared::cluster.u32 %r1, %s, %other; mapa.shared::cluster.u32 %r2, %b, %other;
         @%p7 mbarrier.arrive.expect_tx.shared.b64 _, [bar], 20; add.u32 %r3, %rank, 1;
         @%p7 red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.add.u32 [%r1], %r3, [%r2];
         @%p7 st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%r1+16], {{%r3, %r3, %t, %r3}}, [%r2];
         W: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p0, [bar], 0; @!%p0 bra W;
         ld.shared.u32 %r4, [%s]; @%p7 st.global.u32 [%out], %r4; ld.shared.v4.u32 {{%r4, %r5, %r6, %r7}}, [%s+16];
         @%p7 st.global.v4.u32 [%out+16], {{%r4, %r5, %r6, %r7}}; {ALL}"
    );
    let words = run(&body, PAIR);
    assert_eq!((words[0], &words[4..8]), (42, &[2, 2, 0, 2][..]));
    assert_eq!((words[16], &words[20..24]), (41, &[1, 1, 0, 1][..]));
    faults(&body.replace("[bar], 20", "[bar], 24"), &[FaultKind::Deadlock], 12);
    faults(
        &body.replace("@!%p0 bra W;", ""),
        &[FaultKind::Race, FaultKind::UninitialisedMemory],
        8,
    );
    faults(&body.replacen(ALL, "", 1), &[FaultKind::Mbarrier, FaultKind::Race], 12);
}

#[test]
fn remote_arrivals() {
    let body = format!(
        "@%p7 mbarrier.init.shared.b64 [bar], 32; {ALL}
         st.shared.u32 [%s], 0; add.u32 %r9, %t, %rank;
         shl.b32 %r8, %t, 2; add.u32 %r8, %r8, %s; mapa.shared::cluster.u32 %r1, %r8, %other; mapa.shared::cluster.u32 %r2, %b, %other;
         st.shared::cluster.u32 [%r1+128], %r9; mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r2];
         W: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p0, [bar], 0; @!%p0 bra W;
         ld.shared.u32 %r3, [%r8+128]; @%p7 st.global.u32 [%out], %r3; {ALL}"
    )
    .replace("st.shared.u32 [%s], 0; ", "");
    let words = run(&body, PAIR);
    assert_eq!((words[0], words[16]), (1, 0));
    faults(
        &body.replace(", [bar], 0;", ", [bar], 1;"),
        &[FaultKind::Race, FaultKind::UninitialisedMemory, FaultKind::Deadlock],
        12,
    );
    // The last lane's store is not among those that the phase has waited for.
    let kinds = [FaultKind::Race, FaultKind::UninitialisedMemory, FaultKind::Cluster];
    faults(&body.replacen(", 32;", ", 31;", 1), &kinds, 12);
    // An arrival by one lane says nothing of what the others stored.
    let one = body
        .replacen(", 32;", ", 1;", 1)
        .replace("mbarrier.arrive.release", "@%p7 mbarrier.arrive.release");
    faults(&one, &[FaultKind::Race, FaultKind::UninitialisedMemory], 12);
    faults(
        &body
            .replace(
                "W: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p0",
                "mov.u32 %r2, %r2; mbarrier.test_wait.parity.shared.b64 %p0",
            )
            .replace("@!%p0 bra W;", "ret;"),
        &[FaultKind::Cluster],
        12,
    );
}

#[test]
fn clusters_that_cannot_be() {
    let options = Options { sms: 2, ..common::hopper::hopper() };
    for (grid, cluster, want) in [
        ([3, 1, 1], [2, 1, 1], "no multiple"),
        ([9, 1, 1], [9, 1, 1], "8 are portable"),
        ([4, 1, 1], [4, 1, 1], "on 2 multiprocessors"),
    ] {
        let error = try_run("", (grid, cluster, 32), &options).unwrap_err();
        let RunError::Launch(LaunchError::Cluster { message, .. }) = &error else {
            panic!("{error}")
        };
        assert!(message.contains(want), "{message}");
    }
    let old = Options::default();
    let module = Module::parse("t.ptx", &text("").replace("sm_90", "sm_90a")).unwrap();
    let launch = Launch::new("f", [1, 1, 1], [1, 1, 1]).ptr(0);
    let error = run_launch(&module, &mut Memory::new(), &launch, &old).unwrap_err();
    assert!(error.to_string().contains("cannot run on sm_80"), "{error}");
}

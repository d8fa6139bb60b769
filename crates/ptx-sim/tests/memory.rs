//! Bounds, initialised-ness, races to the byte and to the lane, launch limits: small kernels, each
//! clean in one form and wrong in another.

use ptx_sim::{
    Chip, Fault, FaultKind, Launch, LaunchError, Memory, Module, Options, RunError, run_launch,
};

/// Runs `body` with `%rd1` = 256 zeroed bytes, `%rd2` = 256 bytes nobody wrote, `%r1` = tid.
fn run(body: &str, grid: u32, block: u32) -> Result<Vec<u8>, RunError> {
    let source = format!(
        ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 a, .param .u64 b) {{
         .reg .b32 %r<8>; .reg .b64 %rd<8>; .reg .b16 %h<4>; .reg .pred %p<4>; .shared .align 16 .b8 tile[256];
         ld.param.u64 %rd1, [a]; ld.param.u64 %rd2, [b]; mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x;
         mov.u32 %r3, tile; mul.wide.u32 %rd3, %r1, 4; setp.eq.u32 %p0, %r1, 0;\n{body}\nret; }}"
    );
    let module = Module::parse("small.ptx", &source).unwrap_or_else(|e| panic!("{e}"));
    let mut memory = Memory::new();
    let (a, b) = (memory.alloc(256).unwrap(), memory.alloc(256).unwrap());
    memory.write(a, &[0; 256]).unwrap();
    let launch = Launch::new("k", [grid, 1, 1], [block, 1, 1]).ptr(a).ptr(b);
    run_launch(&module, &mut memory, &launch, &Options::default())?;
    Ok(memory.read(a, 256).unwrap())
}

fn fault(body: &str, grid: u32, block: u32) -> Fault {
    match run(body, grid, block) {
        Err(RunError::Fault(fault)) => *fault,
        other => panic!("`{body}` gave {other:?}"),
    }
}

#[test]
fn a_byte_behind_the_end_and_before_the_start() {
    assert!(run("@%p0 ld.global.u8 %h1, [%rd1+255];", 1, 32).is_ok());
    assert_eq!(fault("@%p0 ld.global.u8 %h1, [%rd1+256];", 1, 32).kind, FaultKind::OutOfBounds);
    assert_eq!(fault("@%p0 ld.global.u8 %h1, [%rd1+-1];", 1, 32).kind, FaultKind::OutOfBounds);
    assert_eq!(
        fault("mov.u64 %rd4, 0; @%p0 ld.global.u32 %r4, [%rd4];", 1, 32).kind,
        FaultKind::OutOfBounds
    );
    let f = fault("add.u64 %rd4, %rd1, %rd3; ld.global.u32 %r4, [%rd4+132];", 1, 32);
    assert_eq!((f.kind, f.lanes), (FaultKind::OutOfBounds, 1 << 31));
    assert_eq!(fault("@%p0 ld.global.u32 %r4, [%rd1+2];", 1, 32).kind, FaultKind::Misaligned);
}

#[test]
fn forgotten_address_conversion() {
    // A generic load of a shared address without cvta hits no allocation.
    let f = fault(
        "cvt.u64.u32 %rd4, %r3; @%p0 st.shared.u32 [%r3], %r1; @%p0 ld.u32 %r4, [%rd4];",
        1,
        32,
    );
    assert_eq!(f.kind, FaultKind::OutOfBounds);
    let right = "cvt.u64.u32 %rd4, %r3; cvta.shared.u64 %rd4, %rd4;
                 @%p0 st.u32 [%rd4], %r1; @%p0 ld.shared.u32 %r4, [%r3]; @%p0 st.global.u32 [%rd1], %r4;";
    assert!(run(right, 1, 32).is_ok());
}

#[test]
fn bytes_nobody_wrote() {
    assert_eq!(
        fault("@%p0 ld.global.u32 %r4, [%rd2];", 1, 32).kind,
        FaultKind::UninitialisedMemory
    );
    let half = "mov.u16 %h1, 5; @%p0 st.global.u16 [%rd2], %h1; @%p0 ld.global.u32 %r4, [%rd2];";
    assert_eq!(fault(half, 1, 32).kind, FaultKind::UninitialisedMemory);
    assert_eq!(fault("@%p0 ld.shared.u8 %h1, [%r3];", 1, 32).kind, FaultKind::UninitialisedMemory);
    let f = fault("setp.lt.u32 %p1, %r1, 4; @%p1 mov.u32 %r4, 1; add.u32 %r4, %r4, 1;", 1, 32);
    assert_eq!((f.kind, f.lanes), (FaultKind::UnwrittenRegister, 0xFFFF_FFF0));
}

#[test]
fn lanes_race_until_the_warp_synchronises() {
    let kernel = |between: &str| {
        format!(
            "mad.lo.u32 %r4, %r1, 4, %r3; st.shared.u32 [%r4], %r1; {between} xor.b32 %r5, %r1, 1;
             mad.lo.u32 %r5, %r5, 4, %r3; ld.shared.u32 %r6, [%r5];"
        )
    };
    let f = fault(&kernel(""), 1, 32);
    let other = f.other.unwrap();
    assert_eq!((f.kind, f.lanes, other.lanes, other.warp), (FaultKind::Race, 1, 2, 0));
    // A shuffle does not order memory.
    assert_eq!(
        fault(&kernel("shfl.sync.idx.b32 %r7, %r1, 0, 31, -1;"), 1, 32).kind,
        FaultKind::Race
    );
    assert!(run(&kernel("bar.warp.sync -1;"), 1, 32).is_ok());
    assert!(run(&kernel("bar.sync 0;"), 1, 32).is_ok());
    // Pairs that synchronise by themselves are enough here, halves of pairs are not.
    let pairs = "and.b32 %r7, %r1, 30; mov.u32 %r6, 3; shl.b32 %r6, %r6, %r7; bar.warp.sync %r6;";
    assert!(run(&kernel(pairs), 1, 32).is_ok());
    let alone = "mov.u32 %r6, 1; shl.b32 %r6, %r6, %r1; bar.warp.sync %r6;";
    assert_eq!(fault(&kernel(alone), 1, 32).kind, FaultKind::Race);
}

#[test]
fn neighbouring_bytes_are_strangers() {
    // 64 threads in two warps, a byte each: no race; the same byte from both: a race.
    let own = "cvt.u16.u32 %h1, %r1; cvt.u64.u32 %rd4, %r1; add.u64 %rd4, %rd4, %rd1; st.global.u8 [%rd4], %h1;";
    let bytes = run(own, 1, 64).unwrap();
    assert!((0..64).all(|i| bytes[i] == i as u8));
    // Interleaved between the warps.
    let woven = "cvt.u16.u32 %h1, %r1; and.b32 %r4, %r1, 31; shr.u32 %r5, %r1, 5; mad.lo.u32 %r4, %r4, 2, %r5;
                 cvt.u64.u32 %rd4, %r4; add.u64 %rd4, %rd4, %rd1; st.global.u8 [%rd4], %h1;";
    assert!(run(woven, 1, 64).is_ok());
    let same = "cvt.u16.u32 %h1, %r1; and.b32 %r4, %r1, 31; cvt.u64.u32 %rd4, %r4; add.u64 %rd4, %rd4, %rd1;
                st.global.u8 [%rd4], %h1;";
    let f = fault(same, 1, 64);
    assert_eq!((f.kind, f.warp, f.other.unwrap().warp), (FaultKind::Race, 1, 0));
}

#[test]
fn ctas_race_in_global_memory_and_atomics_do_not() {
    assert_eq!(fault("@%p0 st.global.u32 [%rd1], %r2;", 2, 32).kind, FaultKind::Race);
    assert_eq!(
        fault(
            "setp.eq.and.u32 %p1, %r2, 0, %p0; @%p1 st.global.u32 [%rd1], %r2;
                      setp.ne.and.u32 %p1, %r2, 0, %p0; @%p1 ld.global.u32 %r4, [%rd1];",
            2,
            32
        )
        .kind,
        FaultKind::Race
    );
    let bytes = run("mov.u32 %r4, 1; red.global.add.u32 [%rd1], %r4;", 5, 64).unwrap();
    assert_eq!(bytes[..4], 320u32.to_le_bytes());
    // Atomics of CTA scope do not reach across CTAs.
    assert_eq!(
        fault("mov.u32 %r4, 1; red.cta.global.add.u32 [%rd1], %r4;", 2, 32).kind,
        FaultKind::Race
    );
    // A plain read among atomics.
    assert_eq!(
        fault("@%p0 red.global.add.u32 [%rd1], 1; @%p0 ld.global.u32 %r4, [%rd1];", 2, 32).kind,
        FaultKind::Race
    );
}

#[test]
fn own_memory_has_bounds_and_is_nobody_elses() {
    let own = |body: &str| format!(".local .align 4 .b8 own[16]; {body}");
    // The same offset in every lane and warp: no race, each reads its own.
    let each = "st.local.u32 [own+4], %r1; bar.sync 0; ld.local.u32 %r4, [own+4]; add.u64 %rd4, %rd1, %rd3;
                sub.u32 %r4, %r4, %r1; st.global.u32 [%rd4], %r4;";
    assert_eq!(run(&own(each), 1, 64).unwrap(), [0; 256]);
    assert_eq!(fault(&own("ld.local.u32 %r4, [own];"), 1, 32).kind, FaultKind::UninitialisedMemory);
    assert_eq!(fault(&own("st.local.u32 [own+16], %r1;"), 1, 32).kind, FaultKind::OutOfBounds);
    assert_eq!(fault(&own("st.local.u32 [own+2], %r1;"), 1, 32).kind, FaultKind::Misaligned);
    let generic = "mov.u64 %rd4, own; cvta.local.u64 %rd4, %rd4; atom.add.u32 %r4, [%rd4], 1;";
    assert_eq!(fault(&own(generic), 1, 32).kind, FaultKind::OutOfBounds);
    let constant =
        ".const .u32 c = 5; mov.u64 %rd4, c; cvta.const.u64 %rd4, %rd4; st.u32 [%rd4], %r1;";
    assert_eq!(fault(constant, 1, 32).kind, FaultKind::OutOfBounds);
    assert_eq!(
        fault(".const .u32 c = 5; ld.const.u32 %r4, [c+4];", 1, 32).kind,
        FaultKind::OutOfBounds
    );
    // Global variables take part in everything that global memory does.
    let race = ".global .u32 g; @%p0 st.global.u32 [g], %r2;";
    assert_eq!(fault(race, 2, 32).kind, FaultKind::Race);
}

#[test]
fn global_variables_live_as_long_as_the_module() {
    let source = ".version 7.0\n.target sm_80\n.address_size 64\n.visible .global .u32 count = 7;
        .visible .entry k(.param .u64 o) { .reg .b64 %d; .reg .b32 %r; ld.param.u64 %d, [o];
        atom.global.add.u32 %r, [count], 1; st.global.u32 [%d], %r; ret; }";
    let (one, other) = (Module::parse("a", source).unwrap(), Module::parse("b", source).unwrap());
    let mut memory = Memory::new();
    let out = memory.alloc(4).unwrap();
    let mut count = |module: &Module| {
        let launch = Launch::new("k", [1; 3], [1; 3]).ptr(out);
        run_launch(module, &mut memory, &launch, &Options::default()).unwrap();
        memory.read(out, 4).unwrap()[0]
    };
    assert_eq!([count(&one), count(&one), count(&other), count(&one)], [7, 8, 7, 9]);
}

#[test]
fn named_barriers_hand_over() {
    // Warp 0 produces and arrives, warp 1 waits: clean; the reverse use is a race.
    let handover = |produce: &str, consume: &str| {
        format!(
            "shr.u32 %r4, %r1, 5; setp.eq.u32 %p1, %r4, 0; and.b32 %r5, %r1, 31; mad.lo.u32 %r5, %r5, 4, %r3;
             @!%p1 bra CONSUME; st.shared.u32 [%r5], %r1; {produce}; bra.uni END;
             CONSUME: {consume}; ld.shared.u32 %r6, [%r5]; END:"
        )
    };
    assert!(run(&handover("bar.arrive 3, 64", "bar.sync 3, 64"), 1, 64).is_ok());
    assert!(
        run(&handover("barrier.cta.arrive.aligned 3, 64", "barrier.cta.sync.aligned 3, 64"), 1, 64)
            .is_ok()
    );
    let f = fault(&handover("bar.arrive 3, 64", "bar.sync 4, 64"), 1, 64);
    assert_eq!(f.kind, FaultKind::Deadlock);
    let counted = "setp.lt.u32 %p1, %r1, 10; bar.red.popc.u32 %r4, 0, %p1; bar.red.or.pred %p2, 1, %p1;
                   selp.u32 %r5, 100, 0, %p2; add.u32 %r4, %r4, %r5; @%p0 st.global.u32 [%rd1], %r4;";
    assert_eq!(run(counted, 1, 96).unwrap()[0], 110);
}

#[test]
fn misbehaviour_of_single_instructions() {
    assert_eq!(
        fault("mov.u32 %r4, 0; div.u32 %r5, %r1, %r4;", 1, 32).kind,
        FaultKind::DivisionByZero
    );
    assert_eq!(fault("@%p0 trap;", 1, 32).kind, FaultKind::Trap);
    let f = fault("LOOP: bra LOOP;", 1, 32);
    assert_eq!((f.kind, f.warps.len()), (FaultKind::Deadlock, 1));
    // Half a warp cannot take part in what is aligned.
    let matrix = "st.shared.u32 [%r3], %r1; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r4}, [%r3];";
    assert_eq!(fault(&format!("@!%p0 bra END; {matrix} END:"), 1, 32).kind, FaultKind::PartialWarp);
    // A ragged last warp may use barriers.
    assert!(run("bar.sync 0;", 1, 48).is_ok());
}

#[test]
fn cp_async_in_all_its_sizes() {
    let copy = |op: &str| {
        format!(
            "@!%p0 bra END; cp.async.{op}; cp.async.commit_group; cp.async.wait_group 0;
             ld.shared.u32 %r4, [%r3]; END:"
        )
    };
    for op in [
        "ca.shared.global [%r3], [%rd1], 4",
        "ca.shared.global [%r3], [%rd1], 8",
        "cg.shared.global [%r3], [%rd1], 16",
    ] {
        assert!(run(&copy(op), 1, 32).is_ok(), "{op}");
    }
    // Nothing is read where src-size is 0, even from memory that nobody wrote.
    assert!(run(&copy("ca.shared.global [%r3], [%rd2], 4, 0"), 1, 32).is_ok());
    assert_eq!(
        fault(&copy("ca.shared.global [%r3], [%rd2], 4, 1"), 1, 32).kind,
        FaultKind::UninitialisedMemory
    );
    // Nor where the predicate in its place holds; the bytes become zero.
    let ignore =
        "@!%p0 bra END; setp.eq.u32 %p1, %r1, 0; cp.async.ca.shared.global [%r3], [%rd2], 4, %p1;
        cp.async.ca.shared.global [%r3+4], [%rd1], 4, !%p1; cp.async.wait_all;
        ld.shared.u32 %r4, [%r3]; st.global.u32 [%rd1+8], %r4; END:";
    assert_eq!(run(ignore, 1, 32).unwrap()[8..12], [0; 4]);
    assert_eq!(
        fault(&ignore.replace("4, %p1;", "4, !%p1;"), 1, 32).kind,
        FaultKind::UninitialisedMemory
    );
    // A thread may end before its copies, as long as nobody touches the bytes.
    let left = "@!%p0 bra END; cp.async.ca.shared.global [%r3], [%rd1], 4; END:";
    assert!(run(left, 1, 32).is_ok());
    let late =
        format!("{left} bar.sync 0; setp.eq.u32 %p1, %r1, 32; @%p1 ld.shared.u32 %r4, [%r3];");
    let f = fault(&late, 1, 64);
    assert_eq!((f.kind, f.other.unwrap().asynchronous), (FaultKind::Race, true));
    // The source may not change before the wait.
    let overwritten =
        "@!%p0 bra END; cp.async.ca.shared.global [%r3], [%rd1], 4; st.global.u32 [%rd1], %r1;
                       cp.async.wait_all; END:";
    let f = fault(overwritten, 1, 32);
    let other = f.other.unwrap();
    assert_eq!((f.kind, other.asynchronous, other.write), (FaultKind::Race, true, false));
    // Waiting is for one's own copies: another lane needs a synchronisation as well.
    let foreign = "mad.lo.u32 %r4, %r1, 4, %r3; add.u64 %rd4, %rd1, %rd3; cp.async.ca.shared.global [%r4], [%rd4], 4;
                   cp.async.wait_all; xor.b32 %r5, %r4, 4; ld.shared.u32 %r6, [%r5];";
    assert_eq!(fault(foreign, 1, 32).kind, FaultKind::Race);
}

#[test]
fn launches_the_chip_refuses() {
    let source =
        ".version 7.0\n.target sm_89\n.address_size 64\n.extern .shared .align 16 .b8 dynamic[];
        .visible .entry k(.param .u32 n) .reqntid 64, 1, 1 { ret; }";
    let module = Module::parse("k.ptx", source).unwrap();
    let refused = |launch: Launch, chip: Chip| {
        let options = Options { chip, ..Options::default() };
        match run_launch(&module, &mut Memory::new(), &launch, &options) {
            Err(RunError::Launch(e)) => e,
            other => panic!("{other:?}"),
        }
    };
    let fine = || Launch::new("k", [1; 3], [64, 1, 1]).u32(1);
    assert!(
        run_launch(
            &module,
            &mut Memory::new(),
            &fine(),
            &Options { chip: Chip::SM_89, ..Options::default() }
        )
        .is_ok()
    );
    assert!(matches!(refused(fine(), Chip::SM_80), LaunchError::Target { .. }));
    assert!(matches!(
        refused(fine().shared(100 << 10), Chip::SM_89),
        LaunchError::SharedMemory { .. }
    ));
    assert!(matches!(refused(fine().u32(2), Chip::SM_89), LaunchError::ParamCount { .. }));
    let wide = Launch::new("k", [1; 3], [64, 1, 1]).ptr(1);
    assert!(matches!(refused(wide, Chip::SM_89), LaunchError::ParamSize { .. }));
    let launch = |grid, block| Launch::new("k", grid, block).u32(1);
    assert!(matches!(
        refused(launch([0, 1, 1], [64, 1, 1]), Chip::SM_89),
        LaunchError::Dimension { .. }
    ));
    assert!(matches!(
        refused(launch([1; 3], [1025, 1, 1]), Chip::SM_89),
        LaunchError::Dimension { .. }
    ));
    assert!(matches!(refused(launch([1; 3], [32, 1, 1]), Chip::SM_89), LaunchError::Ntid { .. }));
    assert!(matches!(
        refused(Launch::new("other", [1; 3], [1; 3]), Chip::SM_89),
        LaunchError::NoEntry(_)
    ));
}

#[test]
fn cache_policies_change_nothing() {
    let body = "createpolicy.fractional.L2::evict_last.b64 %rd4, 0.5; mov.u32 %r5, 0;
        @!%p0 bra END; mov.u32 %r4, 7; st.global.L2::cache_hint.u32 [%rd2], %r4, %rd4;
        ld.global.L1::no_allocate.L2::cache_hint.L2::128B.u32 %r5, [%rd2], %rd4;
        cp.async.cg.shared.global.L2::cache_hint.L2::128B [%r3], [%rd1], 16, %rd4;
        cp.async.ca.shared.global.L2::cache_hint [%r3+16], [%rd1], 4, 4, %rd4;
        cp.async.wait_all; st.global.u32 [%rd1], %r5; END:";
    assert_eq!(run(body, 1, 32).unwrap()[0], 7);
}

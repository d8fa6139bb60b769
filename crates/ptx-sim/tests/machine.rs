//! Several launches on one machine: what runs side by side, and what races with what.

mod common;

use common::*;
use ptx_sim::{
    CopyTiming, FaultKind, Launch, LaunchId, Machine, Module, Options, Past, Progress, Schedule,
};

const ADD: &str = "
    .version 7.0
    .target sm_80
    .address_size 64
    .visible .entry add(.param .u64 x, .param .u64 y) {
        .reg .b64 %p, %q; .reg .b32 %i, %v;
        ld.param.u64 %p, [x];
        ld.param.u64 %q, [y];
        mov.u32 %i, %tid.x;
        mad.wide.u32 %p, %i, 4, %p;
        mad.wide.u32 %q, %i, 4, %q;
        ld.global.u32 %v, [%p];
        add.u32 %v, %v, 1;
        st.global.u32 [%q], %v;
        ret;
    }";

fn orders() -> impl Iterator<Item = Options> {
    [Schedule::RoundRobin, Schedule::Random, Schedule::OneFar, Schedule::Reverse].into_iter().map(
        |schedule| Options { schedule, copies: CopyTiming::Random, seed: 7, ..Options::default() },
    )
}

fn add(x: u64, y: u64) -> Launch {
    Launch::new("add", [1, 1, 1], [32, 1, 1]).ptr(x).ptr(y)
}

/// Steps until all launches have ended; what each knows then.
fn finish(machine: &mut Machine) -> Vec<(LaunchId, Past)> {
    let mut ended = Vec::new();
    loop {
        match machine.step().unwrap_or_else(|e| panic!("{e}")) {
            Progress::Ran => {}
            Progress::Finished { launch, past, .. } => ended.push((launch, past)),
            Progress::Empty => return ended,
            Progress::Stuck => panic!("{}", machine.deadlock()),
        }
    }
}

#[test]
fn launches_in_order_are_clean_and_others_race() {
    let module = Module::parse("add.ptx", ADD).unwrap();
    for options in orders() {
        let mut machine = Machine::new(&options);
        let [x, y, z] = [(); 3].map(|()| machine.alloc(128).unwrap());
        let host = machine.write("the host", x, &[0; 128], &Past::new()).unwrap();
        machine.start("first", &module, &add(x, y), &options, &host).unwrap();
        let (_, first) = finish(&mut machine).remove(0);
        machine.start("second", &module, &add(y, z), &options, &first).unwrap();
        let (_, second) = finish(&mut machine).remove(0);
        assert_eq!(machine.read("the host", z, 4, &second).unwrap().0, [2, 0, 0, 0]);
        // It read y, which `host` does not know to be written; and who knows `first` alone must
        // not write what the second reads.
        machine.start("third", &module, &add(y, z), &options, &host).unwrap();
        let fault = std::iter::from_fn(|| Some(machine.step())).find_map(Result::err).unwrap();
        assert_eq!((fault.kind, fault.entry.as_str()), (FaultKind::Race, "add"));
        let other = fault.other.unwrap();
        assert_eq!((other.by.as_deref(), other.line, other.write), (Some("first"), 14, true));
    }
}

#[test]
fn copies_fills_and_frees_are_held_to_the_same() {
    let module = Module::parse("add.ptx", ADD).unwrap();
    let options = Options::default();
    let mut machine = Machine::new(&options);
    let [x, y] = [(); 2].map(|()| machine.alloc(128).unwrap());
    let host = machine.write("the host", x, &[0; 128], &Past::new()).unwrap();
    machine.start("kernel", &module, &add(x, y), &options, &host).unwrap();
    let (_, kernel) = finish(&mut machine).remove(0);
    // The kernel read x and wrote y; `host` knows neither.
    for (fault, write) in [
        (machine.write("copy", x, &[1; 4], &host).unwrap_err(), false),
        (machine.read("copy", y, 4, &host).unwrap_err(), true),
        (machine.free("free", x, &host).unwrap_err(), false),
        (machine.free("free", y, &host).unwrap_err(), true),
        (machine.copy("copy", (x, y), 128, &host).unwrap_err(), true),
    ] {
        assert_eq!(fault.kind, FaultKind::Race, "{fault}");
        let other = fault.other.clone().unwrap();
        assert_eq!((other.by.as_deref(), other.write), (Some("kernel"), write), "{fault}");
    }
    assert!(!machine.all_known(&host));
    let after = machine.free("free", x, &kernel).unwrap();
    assert!(machine.read("copy", x, 4, &after).is_err(), "it is gone");
}

#[test]
fn an_allocation_in_order_is_there_for_those_after_it() {
    let module = Module::parse("add.ptx", ADD).unwrap();
    for known in [true, false] {
        let options = Options::default();
        let mut machine = Machine::new(&options);
        let x = machine.alloc(128).unwrap();
        let host = machine.write("the host", x, &[0; 128], &Past::new()).unwrap();
        let y = machine.reserve(128).unwrap();
        let born = machine.born("allocation", y, 128, &host).unwrap();
        let past = if known { &born } else { &host };
        machine.start("kernel", &module, &add(x, y), &options, past).unwrap();
        let end = std::iter::from_fn(|| Some(machine.step()))
            .find(|s| !matches!(s, Ok(Progress::Ran)))
            .unwrap();
        match end {
            Ok(_) => assert!(known),
            Err(fault) => {
                assert!(!known && fault.kind == FaultKind::Race, "{fault}");
                assert_eq!(fault.other.unwrap().by.as_deref(), Some("allocation"));
            }
        }
    }
}

#[test]
fn launches_share_the_multiprocessors() {
    // Two launches of kernels whose CTAs wait for one another, on one multiprocessor and on more.
    let module = module(FLAGS);
    for options in orders() {
        for sms in [1, 2, 3, 7] {
            let options = Options { sms, blocks_per_sm: 2, ..options };
            let mut machine = Machine::new(&options);
            let (rows, cols) = (4, 3);
            let mut results = Vec::new();
            for seed in 0..3 {
                let x = values(64 * rows, seed);
                let bytes: Vec<u8> = x.iter().flat_map(|v| v.to_le_bytes()).collect();
                let [px, ps, py, ph] = [256 * rows, 256 * rows, 256 * rows * cols, 384 + 4 * rows]
                    .map(|bytes| machine.alloc(bytes).unwrap());
                let past = machine.write("x", px, &bytes, &Past::new()).unwrap();
                let past = machine.write("header", ph, &vec![0; 384 + 4 * rows], &past).unwrap();
                let launch = Launch::new("flags", [sms + 1, 1, 1], [64, 1, 1]);
                let launch = launch.ptr(px).ptr(ps).ptr(py).ptr(ph).u32(rows as u32);
                let launch = launch.u32(cols as u32);
                let id = machine.start("flags", &module, &launch, &options, &past).unwrap();
                results.push((id, py, x));
            }
            let ended = finish(&mut machine);
            for (id, py, x) in results {
                let (_, past) = ended.iter().find(|e| e.0 == id).unwrap();
                let y = machine.read("y", py, 256 * rows * cols, past).unwrap().0;
                for (i, y) in y.chunks_exact(4).enumerate() {
                    let y = f32::from_le_bytes([y[0], y[1], y[2], y[3]]);
                    let want = 2.0 * x[i / 64 / cols * 64 + i % 64] + (i / 64 % cols) as f32;
                    assert_eq!(y, want, "{sms} SMs, {options:?}");
                }
            }
        }
    }
}

#[test]
fn what_all_know_is_forgotten() {
    let options = Options::default();
    let mut machine = Machine::new(&options);
    let x = machine.alloc(128).unwrap();
    let past = machine.write("the host", x, &[5; 128], &Past::new()).unwrap();
    assert!(!machine.all_known(&Past::new()) && machine.all_known(&past));
    machine.forget();
    // The bytes stay, and nobody can race with what was before.
    assert_eq!(machine.read("the host", x, 1, &Past::new()).unwrap().0, [5]);
    assert_eq!(machine.unwritten(x, 128), None);
}

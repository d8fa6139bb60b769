//! Stream capture and graph replay: what is recorded runs as often as one likes, and what CUDA
//! forbids during a capture is refused with CUDA's codes.

mod common;

use common::*;
use cudarc::driver::{CudaContext, DriverError, LaunchConfig, PushKernelArg, result, sys};
use std::sync::Arc;

use sys::CUresult as E;
use sys::CUstreamCaptureMode as Mode;

const GLOBAL: Mode = Mode::CU_STREAM_CAPTURE_MODE_GLOBAL;
const LOCAL: Mode = Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
const RELAXED: Mode = Mode::CU_STREAM_CAPTURE_MODE_RELAXED;
const NO_FLAGS: sys::CUgraphInstantiate_flags = sys::CUgraphInstantiate_flags(0);

const TIMINGS: [[(&str, &str); 3]; 3] = [
    [("QUEUES", "late"), ("SCHEDULE", "round-robin"), ("SEED", "1")],
    [("QUEUES", "random"), ("SCHEDULE", "random"), ("SEED", "2")],
    [("QUEUES", "early"), ("SCHEDULE", "reverse"), ("SEED", "3")],
];

fn clean(test: &str, body: fn(&Arc<CudaContext>, &Small)) {
    for variables in TIMINGS {
        simulated(test, "", &variables, || {
            let ctx = untracked();
            body(&ctx, &Small::new(&ctx));
        })
        .well()
        .clean();
    }
}

#[test]
fn a_graph_replays() {
    clean("a_graph_replays", |ctx, k| {
        let s = ctx.new_stream().unwrap();
        let mut x = s.alloc_zeros::<u32>(64).unwrap();
        let mut y = s.alloc_zeros::<u32>(64).unwrap();
        s.synchronize().unwrap();
        s.begin_capture(LOCAL).unwrap();
        let active = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE;
        assert_eq!(s.capture_status().unwrap(), active);
        // y = x + 1; x = y; and something filled on the way.
        let config =
            LaunchConfig { grid_dim: (1, 1, 1), block_dim: (64, 1, 1), shared_mem_bytes: 0 };
        s.memset_zeros(&mut y).unwrap();
        // SAFETY: the arguments are the entry's.
        unsafe { s.launch_builder(&k.next).arg(&mut y).arg(&x).launch(config) }.unwrap();
        s.memcpy_dtod(&y, &mut x).unwrap();
        let graph = s.end_capture(NO_FLAGS).unwrap().expect("there is work in it");
        // Nothing has been done so far.
        assert_eq!(s.clone_dtoh(&x).unwrap(), [0; 64]);
        graph.upload().unwrap();
        for round in 1..=3 {
            graph.launch().unwrap();
            if round != 2 {
                assert_eq!(s.clone_dtoh(&x).unwrap(), [round; 64]);
            }
        }
    });
}

/// The real kernel of a graph: the header is zeroed once, and no host value changes.
#[test]
fn flags_replay() {
    let test = "flags_replay";
    for sms in ["1", "3"] {
        simulated(test, "", &[("SMS", sms), ("QUEUES", "random")], || {
            let ctx = untracked();
            let s = ctx.new_stream().unwrap();
            let f = function(&ctx, FLAGS, "flags");
            let (rows, cols) = (3u32, 2u32);
            let header = s.alloc_zeros::<u32>(99).unwrap();
            // SAFETY: the kernel writes before it reads.
            let shrunk = unsafe { s.alloc::<f32>(64 * 3) }.unwrap();
            let mut dx = s.clone_htod(&values(64 * 3, 0)).unwrap();
            let mut dy = s.alloc_zeros::<f32>(64 * 6).unwrap();
            s.begin_capture(GLOBAL).unwrap();
            let config =
                LaunchConfig { grid_dim: (9, 1, 1), block_dim: (64, 1, 1), shared_mem_bytes: 0 };
            let mut launch = s.launch_builder(&f);
            launch.arg(&dx).arg(&shrunk).arg(&mut dy).arg(&header).arg(&rows).arg(&cols);
            // SAFETY: the arguments are the entry's.
            unsafe { launch.launch(config) }.unwrap();
            let graph = s.end_capture(NO_FLAGS).unwrap().unwrap();
            for round in 0..4 {
                let x = values(64 * 3, round);
                s.memcpy_htod(&x, &mut dx).unwrap();
                graph.launch().unwrap();
                for (i, y) in s.clone_dtoh(&dy).unwrap().into_iter().enumerate() {
                    assert_eq!(y, 2.0 * x[i / 128 * 64 + i % 64] + (i / 64 % 2) as f32, "{round}");
                }
            }
        })
        .well()
        .clean();
    }
}

#[test]
fn streams_fork_and_join_in_a_capture() {
    clean("streams_fork_and_join_in_a_capture", |ctx, k| {
        let (s, t) = (ctx.new_stream().unwrap(), ctx.new_stream().unwrap());
        let (x, y) = (zeros(), words());
        s.begin_capture(GLOBAL).unwrap();
        launch(&k.fill, 64, s.cu_stream(), &[x, 4]).unwrap();
        t.join(&s).unwrap();
        launch(&k.next, 64, t.cu_stream(), &[y, x]).unwrap();
        s.join(&t).unwrap();
        launch(&k.next, 64, s.cu_stream(), &[x, y]).unwrap();
        let graph = s.end_capture(NO_FLAGS).unwrap().unwrap();
        let none = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        assert_eq!(t.capture_status().unwrap(), none);
        for _ in 0..2 {
            graph.launch().unwrap();
        }
        s.synchronize().unwrap();
        assert_eq!(read(x, 64).unwrap(), count(6, 64));
    });
}

#[test]
fn branches_of_a_graph_are_not_ordered() {
    for variables in TIMINGS {
        let said = simulated("branches_of_a_graph_are_not_ordered", "", &variables, || {
            let ctx = untracked();
            let k = Small::new(&ctx);
            let (s, t) = (ctx.new_stream().unwrap(), ctx.new_stream().unwrap());
            let (x, y) = (zeros(), words());
            s.begin_capture(GLOBAL).unwrap();
            t.join(&s).unwrap();
            launch(&k.fill, 64, s.cu_stream(), &[x, 4]).unwrap();
            launch(&k.next, 64, t.cu_stream(), &[y, x]).unwrap();
            s.join(&t).unwrap();
            let graph = s.end_capture(NO_FLAGS).unwrap().unwrap();
            let end = graph.launch().err().or_else(|| s.synchronize().err());
            assert_eq!(end.map(|e| e.0), Some(E::CUDA_ERROR_LAUNCH_FAILED));
        });
        if !is_child() {
            said.well().reports(&["Race", "fill.ptx:", "of launch"]);
        }
    }
}

#[test]
fn copies_with_page_locked_memory_replay() {
    simulated("copies_with_page_locked_memory_replay", "", &[], || {
        let ctx = untracked();
        let s = ctx.new_stream().unwrap();
        let x = zeros();
        // SAFETY: the memory is freed at the end, and written between launches that are over.
        unsafe {
            let host = result::malloc_host(512, 0).unwrap().cast::<u32>();
            let from = std::slice::from_raw_parts_mut(host, 64);
            let to = std::slice::from_raw_parts_mut(host.add(64), 64);
            s.begin_capture(LOCAL).unwrap();
            result::memcpy_htod_async(x, from, s.cu_stream()).unwrap();
            result::memcpy_dtoh_async(to, x, s.cu_stream()).unwrap();
            let graph = s.end_capture(NO_FLAGS).unwrap().unwrap();
            for round in 0..3 {
                from.copy_from_slice(&count(round, 64));
                graph.launch().unwrap();
                s.synchronize().unwrap();
                assert_eq!(to, count(round, 64));
            }
            result::free_host(host.cast()).unwrap();
        }
    })
    .well()
    .clean();
}

/// What a test does on the captured stream `s`, with memory at `x`.
type Step = fn(&Arc<CudaContext>, u64, &Stream) -> Result<(), DriverError>;

/// Begins a capture in `mode`, takes a step that must fail with `code`, and then the end of the
/// capture must say that it was spoilt, or, with `survives`, end well.
fn forbidden(test: &str, case: &str, mode: Mode, code: E, survives: bool, step: Step) {
    let said = simulated(test, case, &[], || {
        let ctx = untracked();
        let k = Small::new(&ctx);
        let (s, x) = (ctx.new_stream().unwrap(), zeros());
        s.begin_capture(mode).unwrap();
        assert_eq!(common::code(step(&ctx, x, &s)), code, "{case}");
        let end = s.end_capture(NO_FLAGS);
        if survives {
            end.unwrap();
        } else {
            assert_eq!(common::code(end), E::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "{case}");
        }
        // Either way the stream works again.
        launch(&k.fill, 64, s.cu_stream(), &[x, 1]).unwrap();
        s.synchronize().unwrap();
        assert_eq!(read(x, 64).unwrap(), count(1, 64));
    });
    if !is_child() {
        said.well();
    }
}

#[test]
fn what_a_capture_forbids() {
    let unsupported = E::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    let check = |case, mode, code, step| {
        forbidden("what_a_capture_forbids", case, mode, code, false, step);
    };
    check("wait for the stream", RELAXED, unsupported, |_, _, s| s.synchronize());
    check("ask the stream", RELAXED, unsupported, |_, _, s| {
        // SAFETY: the stream is alive.
        raw(unsafe { sys::cuStreamQuery(s.cu_stream()) })
    });
    check("wait for the context", RELAXED, unsupported, |ctx, _, _| ctx.synchronize());
    check("allocate", GLOBAL, unsupported, |_, _, _| {
        // SAFETY: a context is current.
        unsafe { result::malloc_sync(256) }.map(drop)
    });
    check("allocate, this thread", LOCAL, unsupported, |_, _, _| {
        // SAFETY: a context is current.
        unsafe { result::malloc_sync(256) }.map(drop)
    });
    check("allocate, another thread", GLOBAL, unsupported, |ctx, _, _| {
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                ctx.bind_to_thread()?;
                // SAFETY: a context is current.
                unsafe { result::malloc_sync(256) }.map(drop)
            });
            other.join().expect("the thread ends")
        })
    });
    check("load a module", GLOBAL, unsupported, |ctx, _, _| {
        ctx.load_module(cudarc::nvrtc::Ptx::from_src(SMALL)).map(drop)
    });
    check("synchronous copy", GLOBAL, unsupported, |_, x, _| read(x, 1).map(drop));
    check("pageable memory", RELAXED, unsupported, |_, x, s| {
        // SAFETY: the length is the source's; the address is live.
        unsafe { result::memcpy_htod_async(x, &[1u32], s.cu_stream()) }
    });
    check("wait for an event of outside", RELAXED, E::CUDA_ERROR_STREAM_CAPTURE_ISOLATION, {
        |ctx, _, s| {
            let other = ctx.new_stream()?;
            s.wait(&other.record_event(None)?)
        }
    });
    check("ask a captured event", RELAXED, E::CUDA_ERROR_CAPTURED_EVENT, |_, _, s| {
        s.record_event(None)?.try_is_complete().map(drop)
    });
    check("merge", RELAXED, E::CUDA_ERROR_STREAM_CAPTURE_MERGE, |ctx, _, s| {
        let other = ctx.new_stream()?;
        other.begin_capture(RELAXED)?;
        let joined = s.join(&other);
        assert_eq!(
            code(other.end_capture(NO_FLAGS)),
            E::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
            "both are spoilt"
        );
        joined
    });
    check("allocate in the graph", RELAXED, unsupported, |_, _, s| {
        // SAFETY: a context is current.
        unsafe { result::malloc_async(s.cu_stream(), 256) }.map(drop)
    });
}

#[test]
fn what_a_capture_survives() {
    let check = |case, mode, code, step| {
        forbidden("what_a_capture_survives", case, mode, code, true, step);
    };
    check("begin again", GLOBAL, E::CUDA_ERROR_ILLEGAL_STATE, |_, _, s| s.begin_capture(GLOBAL));
    check("the legacy stream captured", GLOBAL, E::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, {
        |ctx, _, _| ctx.default_stream().begin_capture(GLOBAL)
    });
    check("bad pointer", GLOBAL, E::CUDA_ERROR_INVALID_VALUE, |_, _, s| {
        // SAFETY: the address is refused.
        unsafe { result::memset_d8_async(0x1234, 0, 4, s.cu_stream()) }
    });
    check("end of a stream that is not captured", GLOBAL, E::CUDA_ERROR_ILLEGAL_STATE, {
        |ctx, _, _| ctx.new_stream()?.end_capture(NO_FLAGS).map(drop)
    });
    check("end in another thread", LOCAL, E::CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, |_, _, s| {
        std::thread::scope(|scope| {
            scope.spawn(|| s.end_capture(NO_FLAGS).map(drop)).join().expect("the thread ends")
        })
    });
}

#[test]
fn modes_permit_what_they_say() {
    simulated("modes_permit_what_they_say", "", &[], || {
        let ctx = untracked();
        let s = ctx.new_stream().unwrap();
        // Relaxed: anything that does not conflict with the capture itself.
        s.begin_capture(RELAXED).unwrap();
        let x = words();
        // SAFETY: nobody uses the memory.
        unsafe { result::free_sync(x) }.unwrap();
        s.end_capture(NO_FLAGS).unwrap();
        // Thread-local: other threads may.
        s.begin_capture(LOCAL).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                ctx.bind_to_thread().unwrap();
                words();
            });
        });
        s.end_capture(NO_FLAGS).unwrap();
        // A thread may ask to be left alone.
        let mut mode = RELAXED;
        // SAFETY: the pointer is a live variable's.
        raw(unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut mode) }).unwrap();
        assert_eq!(mode, GLOBAL);
        s.begin_capture(GLOBAL).unwrap();
        words();
        s.end_capture(NO_FLAGS).unwrap();
    })
    .well()
    .clean();
}

#[test]
fn blocking_streams_and_the_legacy_one() {
    let said = simulated("blocking_streams_and_the_legacy_one", "", &[], || {
        let ctx = untracked();
        let k = Small::new(&ctx);
        let x = words();
        let blocking = result::stream::create(result::stream::StreamKind::Default).unwrap();
        // SAFETY: the stream is alive throughout.
        unsafe {
            result::stream::begin_capture(blocking, RELAXED).unwrap();
            let implicit = launch(&k.fill, 64, LEGACY, &[x, 1]);
            assert_eq!(code(implicit), E::CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
            let end = result::stream::end_capture(blocking);
            assert_eq!(code(end), E::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        }
        // Beside a captured non-blocking stream the legacy one may work.
        let s = ctx.new_stream().unwrap();
        s.begin_capture(RELAXED).unwrap();
        launch(&k.fill, 64, LEGACY, &[x, 1]).unwrap();
        s.end_capture(NO_FLAGS).unwrap();
        assert_eq!(read(x, 64).unwrap(), count(1, 64));
    });
    if !is_child() {
        said.well();
    }
}

#[test]
fn captures_must_be_joined_and_ended_where_they_began() {
    let said = simulated("captures_must_be_joined_and_ended_where_they_began", "", &[], || {
        let ctx = untracked();
        let k = Small::new(&ctx);
        let (s, t) = (ctx.new_stream().unwrap(), ctx.new_stream().unwrap());
        let x = words();
        s.begin_capture(GLOBAL).unwrap();
        t.join(&s).unwrap();
        launch(&k.fill, 64, t.cu_stream(), &[x, 1]).unwrap();
        assert_eq!(code(s.end_capture(NO_FLAGS)), E::CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
        s.begin_capture(GLOBAL).unwrap();
        t.join(&s).unwrap();
        assert_eq!(code(t.end_capture(NO_FLAGS)), E::CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
        assert_eq!(code(s.end_capture(NO_FLAGS)), E::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        // Bad handles, and flags that are not simulated.
        s.begin_capture(GLOBAL).unwrap();
        let device = sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH;
        assert_eq!(code(s.end_capture(device)), E::CUDA_ERROR_INVALID_VALUE);
        let stranger = 0x4242 as sys::CUgraphExec;
        // SAFETY: the handle is refused.
        let launched = unsafe { result::graph::launch(stranger, s.cu_stream()) };
        assert_eq!(code(launched), E::CUDA_ERROR_INVALID_HANDLE);
    });
    if !is_child() {
        said.well();
    }
}

/// cudarc's own tracking waits for events of before the capture: the reason why a host must turn
/// it off, or use raw pointers.
#[test]
fn event_tracking_does_not_go_with_capture() {
    let said = simulated("event_tracking_does_not_go_with_capture", "", &[], || {
        let ctx = device();
        let (s, t) = (ctx.new_stream().unwrap(), ctx.new_stream().unwrap());
        let x = t.clone_htod(&count(0, 64)).unwrap();
        let mut y = t.alloc_zeros::<u32>(64).unwrap();
        s.begin_capture(RELAXED).unwrap();
        let copied = s.memcpy_dtod(&x, &mut y);
        // cudarc keeps the error of the wait for the next call that can return one.
        let told = copied.err().or_else(|| ctx.check_err().err());
        assert!(told.is_some(), "the capture should have been refused");
        let end = s.end_capture(NO_FLAGS);
        assert!(end.is_err(), "the capture is spoilt");
    });
    if !is_child() {
        said.well().reports(&["STREAM_CAPTURE_ISOLATION"]);
    }
}

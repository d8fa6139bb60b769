//! Order between streams, events, copies, frees and the host: what is ordered is clean under every
//! timing, and what is not is reported, whether or not the numbers came out right.

mod common;

use common::*;
use cudarc::driver::{CudaContext, result, sys};
use std::sync::Arc;

use sys::CUresult as E;

const TIMINGS: [[(&str, &str); 3]; 3] = [
    [("QUEUES", "late"), ("SCHEDULE", "round-robin"), ("SEED", "1")],
    [("QUEUES", "random"), ("SCHEDULE", "random"), ("SEED", "2")],
    [("QUEUES", "early"), ("SCHEDULE", "reverse"), ("SEED", "3")],
];

type Body = fn(&Arc<CudaContext>, &Small);

/// Runs a body under every timing; nothing may be reported.
fn clean(test: &str, case: &str, body: Body) {
    for variables in TIMINGS {
        simulated(test, case, &variables, || {
            let ctx = untracked();
            body(&ctx, &Small::new(&ctx));
        })
        .well()
        .clean();
    }
}

/// Runs a body under every timing; it must end well (it checks the codes itself), and a line with
/// all of `words` be said.
fn caught(test: &str, case: &str, words: &[&str], body: Body) {
    for variables in TIMINGS {
        let said = simulated(test, case, &variables, || {
            let ctx = untracked();
            body(&ctx, &Small::new(&ctx));
        });
        if !is_child() {
            said.well().reports(words);
        }
    }
}

fn blocking() -> sys::CUstream {
    result::stream::create(result::stream::StreamKind::Default).unwrap()
}

fn free_stream() -> sys::CUstream {
    result::stream::create(result::stream::StreamKind::NonBlocking).unwrap()
}

fn event() -> sys::CUevent {
    result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING).unwrap()
}

fn sync(stream: sys::CUstream) -> Result<(), cudarc::driver::DriverError> {
    // SAFETY: the stream is alive.
    unsafe { result::stream::synchronize(stream) }
}

fn record(event: sys::CUevent, stream: sys::CUstream) {
    // SAFETY: both are alive.
    unsafe { result::event::record(event, stream) }.unwrap();
}

fn wait(stream: sys::CUstream, event: sys::CUevent) {
    let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
    // SAFETY: both are alive.
    unsafe { result::stream::wait_event(stream, event, flags) }.unwrap();
}

#[test]
fn host_reads_after_it_synchronises() {
    clean("host_reads_after_it_synchronises", "", |_, k| {
        let (x, s) = (words(), free_stream());
        launch(&k.fill, 64, s, &[x, 5]).unwrap();
        sync(s).unwrap();
        assert_eq!(read(x, 64).unwrap(), count(5, 64));
        // By an event, and by the context.
        let e = event();
        launch(&k.fill, 64, s, &[x, 6]).unwrap();
        record(e, s);
        // SAFETY: the event is alive.
        unsafe { result::event::synchronize(e) }.unwrap();
        assert_eq!(read(x, 64).unwrap(), count(6, 64));
        launch(&k.fill, 64, s, &[x, 7]).unwrap();
        result::ctx::synchronize().unwrap();
        assert_eq!(read(x, 64).unwrap(), count(7, 64));
    });
}

#[test]
fn host_reads_before_it_synchronises() {
    let test = "host_reads_before_it_synchronises";
    // The synchronous copy goes over the legacy stream, which a non-blocking stream does not know.
    caught(test, "read", &["Race", "cuMemcpyDtoH_v2", "fill"], |_, k| {
        let (x, s) = (words(), free_stream());
        launch(&k.fill, 64, s, &[x, 5]).unwrap();
        sync(s).unwrap();
        let other = free_stream();
        launch(&k.fill, 64, other, &[x, 6]).unwrap();
        sync(s).unwrap();
        // Late, the copy comes first and the kernel is found out later.
        let end = read(x, 64).err().or_else(|| sync(other).err());
        assert_eq!(end.map(|e| e.0), Some(E::CUDA_ERROR_LAUNCH_FAILED));
    });
    caught(test, "write", &["Race", "next", "cuMemcpyHtoD_v2"], |_, k| {
        let (x, y, s) = (words(), words(), free_stream());
        // SAFETY: the copy is as long as its source.
        unsafe { result::memcpy_htod_sync(x, &count(0, 64)) }.unwrap();
        result::ctx::synchronize().unwrap();
        launch(&k.next, 64, s, &[y, x]).unwrap();
        // SAFETY: the copy is as long as its source.
        let wrote = unsafe { result::memcpy_htod_sync(x, &count(9, 64)) };
        let end = wrote.err().or_else(|| result::ctx::synchronize().err());
        assert_eq!(end.map(|e| e.0), Some(E::CUDA_ERROR_LAUNCH_FAILED));
    });
    // From pageable memory the synchronous copy returns before its bytes have arrived.
    caught(test, "staged", &["Race", "cuMemcpyHtoD_v2"], |_, k| {
        let (x, y, s) = (words(), words(), free_stream());
        // SAFETY: the copy is as long as its source.
        unsafe { result::memcpy_htod_sync(x, &count(0, 64)) }.unwrap();
        let launched = launch(&k.next, 64, s, &[y, x]);
        let end = launched.err().or_else(|| result::ctx::synchronize().err());
        assert_eq!(end.map(|e| e.0), Some(E::CUDA_ERROR_LAUNCH_FAILED));
    });
}

#[test]
fn events_order_streams() {
    clean("events_order_streams", "", |_, k| {
        let (x, y, s, t, e) = (words(), words(), free_stream(), free_stream(), event());
        for round in 0..3 {
            launch(&k.fill, 64, s, &[x, round]).unwrap();
            record(e, s);
            wait(t, e);
            launch(&k.next, 64, t, &[y, x]).unwrap();
            // The next round must not overwrite what is still read.
            record(e, t);
            wait(s, e);
        }
        sync(t).unwrap();
        assert_eq!(read(y, 64).unwrap(), count(3, 64));
    });
}

#[test]
fn streams_without_order_race() {
    let test = "streams_without_order_race";
    caught(test, "missing event", &["Race", "fill.ptx:", "of launch"], |_, k| {
        let (x, y, s, t) = (words(), words(), free_stream(), free_stream());
        launch(&k.fill, 64, s, &[x, 1]).unwrap();
        sync(s).unwrap();
        let _ = launch(&k.fill, 64, s, &[x, 2]);
        let _ = launch(&k.next, 64, t, &[y, x]);
        assert_eq!(code(result::ctx::synchronize()), E::CUDA_ERROR_LAUNCH_FAILED);
    });
    caught(test, "recorded too early", &["Race"], |_, k| {
        let (x, y, s, t, e) = (zeros(), words(), free_stream(), free_stream(), event());
        record(e, s);
        let _ = launch(&k.fill, 64, s, &[x, 2]);
        wait(t, e);
        let _ = launch(&k.next, 64, t, &[y, x]);
        assert_eq!(code(result::ctx::synchronize()), E::CUDA_ERROR_LAUNCH_FAILED);
    });
    caught(test, "copy beside a kernel", &["Race", "cuMemcpyDtoDAsync_v2"], |_, k| {
        let (x, y, s, t) = (words(), words(), free_stream(), free_stream());
        launch(&k.fill, 64, s, &[x, 1]).unwrap();
        sync(s).unwrap();
        let _ = launch(&k.fill, 64, s, &[x, 2]);
        // SAFETY: both ranges are allocated.
        let _ = unsafe { result::memcpy_dtod_async(y, x, 256, t) };
        assert_eq!(code(result::ctx::synchronize()), E::CUDA_ERROR_LAUNCH_FAILED);
    });
    caught(test, "fill beside a kernel", &["Race", "cuMemsetD8Async"], |_, k| {
        let (x, s, t) = (words(), free_stream(), free_stream());
        let _ = launch(&k.fill, 64, s, &[x, 2]);
        // SAFETY: the range is allocated.
        let _ = unsafe { result::memset_d8_async(x + 252, 0, 4, t) };
        assert_eq!(code(result::ctx::synchronize()), E::CUDA_ERROR_LAUNCH_FAILED);
    });
}

#[test]
fn neighbours_do_not_race() {
    // Byte-precise: two streams write two halves of a word.
    clean("neighbours_do_not_race", "", |_, _| {
        let (x, s, t) = (words(), free_stream(), free_stream());
        // SAFETY: the ranges are allocated.
        unsafe {
            result::memset_d8_async(x, 1, 2, s).unwrap();
            result::memset_d8_async(x + 2, 2, 2, t).unwrap();
        }
        result::ctx::synchronize().unwrap();
        assert_eq!(read(x, 1).unwrap(), [0x0202_0101]);
    });
}

#[test]
fn the_legacy_stream_waits_for_blocking_ones() {
    let test = "the_legacy_stream_waits_for_blocking_ones";
    clean(test, "ordered", |_, k| {
        let (x, y, s, t) = (words(), words(), blocking(), blocking());
        launch(&k.fill, 64, s, &[x, 3]).unwrap();
        launch(&k.next, 64, LEGACY, &[y, x]).unwrap();
        launch(&k.next, 64, t, &[x, y]).unwrap();
        // The per-thread default stream is a blocking one.
        let own = 2 as sys::CUstream;
        launch(&k.next, 64, LEGACY, &[y, x]).unwrap();
        launch(&k.next, 64, own, &[x, y]).unwrap();
        assert_eq!(read(x, 64).unwrap(), count(7, 64));
    });
    caught(test, "non-blocking", &["Race"], |_, k| {
        let (x, y, s) = (zeros(), words(), free_stream());
        let _ = launch(&k.fill, 64, s, &[x, 3]);
        let _ = launch(&k.next, 64, LEGACY, &[y, x]);
        assert_eq!(code(result::ctx::synchronize()), E::CUDA_ERROR_LAUNCH_FAILED);
    });
    caught(test, "two blocking ones", &["Race"], |_, k| {
        let (x, y, s, t) = (zeros(), words(), blocking(), blocking());
        let _ = launch(&k.fill, 64, s, &[x, 3]);
        let _ = launch(&k.next, 64, t, &[y, x]);
        assert_eq!(code(result::ctx::synchronize()), E::CUDA_ERROR_LAUNCH_FAILED);
    });
}

#[test]
fn per_thread_streams_differ_by_thread() {
    let test = "per_thread_streams_differ_by_thread";
    clean(test, "apart", |ctx, k| {
        let buffers: Vec<(u64, u64)> = (0..4).map(|_| (words(), words())).collect();
        std::thread::scope(|scope| {
            for (i, &(x, y)) in buffers.iter().enumerate() {
                scope.spawn(move || {
                    ctx.bind_to_thread().unwrap();
                    let own = 2 as sys::CUstream;
                    launch(&k.fill, 64, own, &[x, i as u64]).unwrap();
                    launch(&k.next, 64, own, &[y, x]).unwrap();
                    sync(own).unwrap();
                });
            }
        });
        for (i, &(_, y)) in buffers.iter().enumerate() {
            assert_eq!(read(y, 64).unwrap(), count(i as u32 + 1, 64));
        }
    });
    caught(test, "shared", &["Race"], |ctx, k| {
        let (x, y) = (zeros(), words());
        let _ = launch(&k.fill, 64, 2 as sys::CUstream, &[x, 1]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // The same handle, another stream.
                let _ = ctx.bind_to_thread();
                let _ = launch(&k.next, 64, 2 as sys::CUstream, &[y, x]);
            });
        });
        assert_eq!(code(result::ctx::synchronize()), E::CUDA_ERROR_LAUNCH_FAILED);
    });
}

#[test]
fn four_streams_at_once() {
    clean("four_streams_at_once", "", |ctx, k| {
        std::thread::scope(|scope| {
            for i in 0..4u64 {
                scope.spawn(move || {
                    ctx.bind_to_thread().unwrap();
                    let s = ctx.new_stream().unwrap();
                    let mut x = s.clone_htod(&count(i as u32, 64)).unwrap();
                    for _ in 0..5 {
                        let mut y = s.alloc_zeros::<u32>(64).unwrap();
                        let mut builder = s.launch_builder(&k.next);
                        use cudarc::driver::PushKernelArg;
                        builder.arg(&mut y).arg(&x);
                        let config = cudarc::driver::LaunchConfig {
                            grid_dim: (2, 1, 1),
                            block_dim: (32, 1, 1),
                            shared_mem_bytes: 0,
                        };
                        // SAFETY: the arguments are the entry's.
                        unsafe { builder.launch(config) }.unwrap();
                        x = y;
                    }
                    assert_eq!(s.clone_dtoh(&x).unwrap(), count(i as u32 + 5, 64));
                });
            }
        });
    });
}

#[test]
fn kernels_on_two_streams_run_side_by_side() {
    let test = "kernels_on_two_streams_run_side_by_side";
    // The one that waits is asked for first, and it alone is waited for.
    clean(test, "flag", |_, k| {
        let (flag, x, y) = (words(), words(), words());
        // SAFETY: the range is allocated.
        unsafe { result::memset_d8_sync(flag, 0, 4) }.unwrap();
        result::ctx::synchronize().unwrap();
        let (s, t) = (free_stream(), free_stream());
        launch(&k.wait, 1, s, &[flag, 7, y, x]).unwrap();
        launch(&k.raise, 1, t, &[flag, 7, x]).unwrap();
        sync(s).unwrap();
        assert_eq!(read(y, 1).unwrap(), [7]);
        sync(t).unwrap();
    });
    // The same with an ordinary store for a flag: seen, and not waited for.
    caught(test, "nobody raises", &["LAUNCH_TIMEOUT", "Deadlock", "fill.ptx:"], |_, k| {
        let (flag, x, y) = (words(), words(), words());
        // SAFETY: the range is allocated.
        unsafe { result::memset_d8_sync(flag, 0, 4) }.unwrap();
        let _ = launch(&k.wait, 1, LEGACY, &[flag, 7, y, x]);
        assert_eq!(code(result::ctx::synchronize()), E::CUDA_ERROR_LAUNCH_TIMEOUT);
    });
}

#[test]
fn non_coherent_loads_know_earlier_launches() {
    let test = "non_coherent_loads_know_earlier_launches";
    clean(test, "ordered", |_, k| {
        let (x, y, s) = (words(), words(), free_stream());
        for round in 0..2 {
            launch(&k.fill, 64, s, &[x, round]).unwrap();
            launch(&k.next_nc, 64, s, &[y, x]).unwrap();
        }
        sync(s).unwrap();
        assert_eq!(read(y, 64).unwrap(), count(2, 64));
    });
    caught(test, "beside", &["NonCoherent"], |_, k| {
        let (x, y, s, t) = (zeros(), words(), free_stream(), free_stream());
        let _ = launch(&k.fill, 64, s, &[x, 1]);
        let _ = launch(&k.next_nc, 64, t, &[y, x]);
        assert_eq!(code(result::ctx::synchronize()), E::CUDA_ERROR_LAUNCH_FAILED);
    });
}

#[test]
fn freed_memory_is_gone() {
    let test = "freed_memory_is_gone";
    clean(test, "in order", |_, k| {
        let s = free_stream();
        // SAFETY: the stream is alive, and the memory is used in its order.
        unsafe {
            let x = result::malloc_async(s, 256).unwrap();
            launch(&k.fill, 64, s, &[x, 1]).unwrap();
            result::free_async(x, s).unwrap();
            sync(s).unwrap();
            // Plainly: allocated, used, waited for, freed.
            let y = words();
            launch(&k.fill, 64, s, &[y, 1]).unwrap();
            sync(s).unwrap();
            result::free_sync(y).unwrap();
        }
    });
    caught(test, "used after", &["ILLEGAL_ADDRESS", "no live allocation"], |_, k| {
        let s = free_stream();
        // SAFETY: the mistake is what the test is about.
        let x = unsafe { result::malloc_async(s, 256) }.unwrap();
        // SAFETY: as above.
        let _ = unsafe { result::free_async(x, s) };
        let _ = launch(&k.fill, 64, s, &[x, 1]);
        assert_eq!(code(sync(s)), E::CUDA_ERROR_ILLEGAL_ADDRESS);
    });
    caught(test, "used before it is there", &["CUDA_ERROR_"], |_, k| {
        let (s, t) = (free_stream(), free_stream());
        // SAFETY: the mistake is what the test is about.
        let x = unsafe { result::malloc_async(s, 256) }.unwrap();
        let _ = launch(&k.fill, 64, t, &[x, 1]);
        let end = sync(t).err().or_else(|| result::ctx::synchronize().err()).map(|e| e.0);
        // Not alive yet, or alive and not waited for.
        assert!(
            matches!(end, Some(E::CUDA_ERROR_ILLEGAL_ADDRESS | E::CUDA_ERROR_LAUNCH_FAILED)),
            "{end:?}"
        );
    });
    caught(test, "freed too early on another stream", &["CUDA_ERROR_"], |_, k| {
        let (s, t) = (free_stream(), free_stream());
        // SAFETY: the mistake is what the test is about.
        let x = unsafe { result::malloc_async(s, 256) }.unwrap();
        sync(s).unwrap();
        let _ = launch(&k.fill, 64, s, &[x, 1]);
        // SAFETY: as above.
        let _ = unsafe { result::free_async(x, t) };
        let end = result::ctx::synchronize().err().map(|e| e.0);
        assert!(
            matches!(end, Some(E::CUDA_ERROR_ILLEGAL_ADDRESS | E::CUDA_ERROR_LAUNCH_FAILED)),
            "{end:?}"
        );
    });
    caught(test, "freed while it is used", &["Race", "cuMemFree_v2", "freed"], |_, k| {
        let (x, s) = (words(), free_stream());
        let launched = launch(&k.fill, 64, s, &[x, 1]);
        // SAFETY: the mistake is what the test is about.
        let end = launched.and_then(|()| unsafe { result::free_sync(x) });
        assert_eq!(code(end), E::CUDA_ERROR_LAUNCH_FAILED);
    });
}

#[test]
fn double_frees_and_foreign_pointers() {
    let test = "double_frees_and_foreign_pointers";
    caught(test, "", &["cuMemFree_v2", "INVALID_VALUE", "freed before"], |_, k| {
        let (x, s) = (words(), free_stream());
        // SAFETY: nobody uses the memory; the second free is refused.
        unsafe {
            result::free_sync(x).unwrap();
            assert_eq!(code(result::free_sync(x)), E::CUDA_ERROR_INVALID_VALUE);
            assert_eq!(code(result::free_async(x, s)), E::CUDA_ERROR_INVALID_VALUE);
            let y = words();
            assert_eq!(code(result::free_sync(y + 4)), E::CUDA_ERROR_INVALID_VALUE);
            assert_eq!(code(result::free_sync(0x1234)), E::CUDA_ERROR_INVALID_VALUE);
            // Copies and fills to what is freed, foreign or too short.
            for (at, bytes) in [(x, 4), (0x1234, 4), (y + 252, 8), (y, 260)] {
                let source = vec![0u8; bytes];
                let copied = result::memcpy_htod_async(at, &source, s);
                assert_eq!(code(copied), E::CUDA_ERROR_INVALID_VALUE, "{at:#x}");
                let filled = result::memset_d8_async(at, 0, bytes, s);
                assert_eq!(code(filled), E::CUDA_ERROR_INVALID_VALUE, "{at:#x}");
            }
            // None of this is sticky.
            launch(&k.fill, 64, s, &[y, 1]).unwrap();
            sync(s).unwrap();
        }
    });
    // A kernel given a foreign pointer fails when it runs.
    caught(test, "kernel", &["ILLEGAL_ADDRESS", "OutOfBounds", "fill.ptx:", "CTA"], |_, k| {
        let _ = launch(&k.fill, 64, LEGACY, &[0x1234_0000_0000, 1]);
        assert_eq!(code(result::ctx::synchronize()), E::CUDA_ERROR_ILLEGAL_ADDRESS);
    });
    caught(test, "one too many", &["ILLEGAL_ADDRESS", "leaves its 256 bytes"], |_, k| {
        let _ = launch(&k.fill, 65, LEGACY, &[words(), 1]);
        assert_eq!(code(result::ctx::synchronize()), E::CUDA_ERROR_ILLEGAL_ADDRESS);
    });
}

#[test]
fn a_failed_check_stays() {
    caught("a_failed_check_stays", "", &["LAUNCH_SEED="], |ctx, k| {
        let (x, s) = (words(), free_stream());
        let _ = launch(&k.fill, 65, s, &[x, 1]);
        let bad = E::CUDA_ERROR_ILLEGAL_ADDRESS;
        assert_eq!(code(result::ctx::synchronize()), bad);
        // Every later call says the same.
        assert_eq!(code(launch(&k.fill, 64, s, &[x, 1])), bad);
        assert_eq!(code(sync(s)), bad);
        assert_eq!(code(read(x, 1)), bad);
        // SAFETY: the memory is this test's.
        assert_eq!(code(unsafe { result::free_sync(x) }), bad);
        assert_eq!(code(ctx.mem_get_info()), bad);
        // SAFETY: the test owns the primary context alone.
        raw(unsafe { sys::cuDevicePrimaryCtxReset_v2(0) }).unwrap();
        assert_eq!(code(launch(&k.fill, 64, s, &[x, 1])), E::CUDA_ERROR_INVALID_HANDLE);
        let k = Small::new(ctx);
        let x = words();
        launch(&k.fill, 64, LEGACY, &[x, 1]).unwrap();
        assert_eq!(read(x, 64).unwrap(), count(1, 64));
    });
}

#[test]
fn unwritten_bytes_are_reported() {
    let test = "unwritten_bytes_are_reported";
    caught(test, "kernel", &["UninitialisedMemory", "fill.ptx:"], |_, k| {
        let _ = launch(&k.next, 64, LEGACY, &[words(), words()]);
        assert_eq!(code(result::ctx::synchronize()), E::CUDA_ERROR_LAUNCH_FAILED);
    });
    caught(test, "host", &["UninitialisedMemory", "byte 252 of 256"], |_, k| {
        let x = words();
        let _ = launch(&k.fill, 63, LEGACY, &[x, 1]);
        assert_eq!(code(read(x, 64)), E::CUDA_ERROR_LAUNCH_FAILED);
    });
    // A copy within the device carries it along.
    caught(test, "copied", &["UninitialisedMemory", "byte 252 of 256"], |_, k| {
        let (x, y) = (words(), words());
        launch(&k.fill, 63, LEGACY, &[x, 1]).unwrap();
        // SAFETY: both ranges are allocated.
        unsafe { result::memcpy_dtod_sync(y, x, 256) }.unwrap();
        assert_eq!(code(read(y, 64)), E::CUDA_ERROR_LAUNCH_FAILED);
    });
}

#[test]
fn page_locked_memory_is_read_and_written_late() {
    let test = "page_locked_memory_is_read_and_written_late";
    let said = simulated(test, "", &[("QUEUES", "late")], || {
        let ctx = untracked();
        let k = Small::new(&ctx);
        let (x, s) = (words(), free_stream());
        // SAFETY: the memory is freed at the end, and looked at between as the test says.
        unsafe {
            let host = result::malloc_host(256, 0).unwrap().cast::<u32>();
            let seen = || std::slice::from_raw_parts(host, 64).to_vec();
            launch(&k.fill, 64, s, &[x, 1]).unwrap();
            let bytes = std::slice::from_raw_parts_mut(host, 64);
            result::memcpy_dtoh_async(bytes, x, s).unwrap();
            assert_ne!(seen(), count(1, 64), "not before it is waited for");
            sync(s).unwrap();
            assert_eq!(seen(), count(1, 64));
            // A source that changes before the copy is done.
            result::memcpy_htod_async(x, bytes, s).unwrap();
            bytes.copy_from_slice(&count(50, 64));
            sync(s).unwrap();
            assert_eq!(read(x, 64).unwrap(), count(50, 64));
            result::free_host(host.cast()).unwrap();
            assert_eq!(code(result::free_host(host.cast())), E::CUDA_ERROR_INVALID_VALUE);
        }
    });
    if !is_child() {
        said.well();
    }
}

#[test]
fn who_asks_gets_an_answer_in_the_end() {
    clean("who_asks_gets_an_answer_in_the_end", "", |ctx, k| {
        let (x, s) = (words(), free_stream());
        let timed = ctx.new_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT)).unwrap();
        let start = ctx.new_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT)).unwrap();
        record(start.cu_event(), s);
        launch(&k.fill, 64, s, &[x, 1]).unwrap();
        record(timed.cu_event(), s);
        while !timed.try_is_complete().unwrap() {}
        assert!(start.elapsed_ms(&timed).unwrap() >= 0.0);
        launch(&k.fill, 64, s, &[x, 2]).unwrap();
        // SAFETY: the stream is alive.
        while unsafe { sys::cuStreamQuery(s) } == E::CUDA_ERROR_NOT_READY {}
        assert_eq!(read(x, 64).unwrap(), count(2, 64));
    });
}

#[test]
fn host_functions_run_in_order_and_must_not_call_back() {
    clean("host_functions_run_in_order_and_must_not_call_back", "order", |_, k| {
        let (x, s) = (words(), free_stream());
        static DONE: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        unsafe extern "C" fn note(_: *mut std::ffi::c_void) {
            DONE.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
        launch(&k.fill, 64, s, &[x, 1]).unwrap();
        // SAFETY: the function outlives the stream.
        raw(unsafe { sys::cuLaunchHostFunc(s, Some(note), std::ptr::null_mut()) }).unwrap();
        launch(&k.fill, 64, s, &[x, 2]).unwrap();
        sync(s).unwrap();
        assert_eq!(DONE.load(std::sync::atomic::Ordering::SeqCst), 1);
    });
    caught(
        "host_functions_run_in_order_and_must_not_call_back",
        "call back",
        &["NOT_PERMITTED", "host function"],
        |_, _| {
            unsafe extern "C" fn call(told: *mut std::ffi::c_void) {
                // SAFETY: the pointer is the test's own variable.
                unsafe { *told.cast::<E>() = sys::cuCtxSynchronize() };
            }
            let s = free_stream();
            let mut told = E::CUDA_SUCCESS;
            // SAFETY: `told` lives until the stream has been waited for.
            raw(unsafe { sys::cuLaunchHostFunc(s, Some(call), (&raw mut told).cast()) }).unwrap();
            sync(s).unwrap();
            assert_eq!(told, E::CUDA_ERROR_NOT_PERMITTED);
        },
    );
}

#[test]
fn a_destroyed_stream_finishes_its_work() {
    clean("a_destroyed_stream_finishes_its_work", "", |_, k| {
        for s in [free_stream(), blocking()] {
            let x = words();
            launch(&k.fill, 64, s, &[x, 1]).unwrap();
            // SAFETY: the handle is not used again.
            unsafe { result::stream::destroy(s) }.unwrap();
            result::ctx::synchronize().unwrap();
            assert_eq!(read(x, 64).unwrap(), count(1, 64));
        }
    });
}

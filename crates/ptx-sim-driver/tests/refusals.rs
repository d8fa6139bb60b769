//! Bad input: the driver's code and one clear line, never a panic, and never sticky.

mod common;

use common::*;
use cudarc::driver::{CudaContext, result, sys};
use std::ffi::{CString, c_void};
use std::sync::Arc;

use sys::CUresult as E;

/// Runs a body on a machine of four multiprocessors; it must end well and each of `lines` be said.
fn refused(test: &str, case: &str, lines: &[&[&str]], body: fn(&Arc<CudaContext>, &Small)) {
    let mut said = simulated(test, case, &[], || {
        let ctx = untracked();
        let k = Small::new(&ctx);
        body(&ctx, &k);
        // None of it is sticky.
        let x = words();
        launch(&k.fill, 64, LEGACY, &[x, 1]).unwrap();
        assert_eq!(read(x, 64).unwrap(), count(1, 64));
    });
    if !is_child() {
        said = said.well();
        for words in lines {
            said = said.reports(words);
        }
        assert!(!said.stderr.contains("panicked"), "{}", said.stderr);
    }
}

fn load(ptx: &str) -> Result<sys::CUmodule, cudarc::driver::DriverError> {
    let text = CString::new(ptx).unwrap();
    // SAFETY: the text ends with NUL.
    unsafe { result::module::load_data(text.as_ptr().cast()) }
}

#[test]
fn texts() {
    let lines: [&[&str]; 6] = [
        &["cuModuleLoadData", "INVALID_PTX", "fill.ptx:14:17"],
        &["INVALID_PTX", "frobnicate"],
        &["NO_BINARY_FOR_GPU", "sm_90a"],
        &["NO_BINARY_FOR_GPU", "sm_89", "sm_80"],
        &["INVALID_IMAGE"],
        &["cuModuleLoadData", "INVALID_VALUE", "null"],
    ];
    refused("texts", "", &lines, |_, _| {
        let bad = SMALL.replacen("mov.u32 %r3, %ntid.x;", "mov.u32 %r3 %ntid.x;", 1);
        assert_eq!(code(load(&bad)), E::CUDA_ERROR_INVALID_PTX);
        let unknown = SMALL.replacen("mov.u32 %r3", "frobnicate.u32 %r3", 1);
        assert_eq!(code(load(&unknown)), E::CUDA_ERROR_INVALID_PTX);
        for target in ["sm_90a", "sm_89"] {
            let other = SMALL.replacen(".target sm_80", &format!(".target {target}"), 1);
            assert_eq!(code(load(&other)), E::CUDA_ERROR_NO_BINARY_FOR_GPU);
        }
        assert_eq!(code(load("\u{7f}ELF and so on")), E::CUDA_ERROR_INVALID_IMAGE);
        assert_eq!(code(load("")), E::CUDA_ERROR_INVALID_PTX);
        // SAFETY: null is refused.
        let null = unsafe { result::module::load_data(std::ptr::null()) };
        assert_eq!(code(null), E::CUDA_ERROR_INVALID_VALUE);
        let missing = result::module::load(CString::new("/no/such/file.ptx").unwrap());
        assert_eq!(code(missing), E::CUDA_ERROR_FILE_NOT_FOUND);
    });
}

#[test]
fn the_compilers_log() {
    refused("the_compilers_log", "", &[&["cuModuleLoadDataEx", "INVALID_PTX"]], |_, _| {
        let load = |ptx: &str, room: usize| {
            let text = CString::new(ptx).unwrap();
            let (mut module, mut log) = (std::ptr::null_mut(), vec![b'?'; 200]);
            let mut options = [
                sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
                sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
            ];
            let mut values = [log.as_mut_ptr().cast::<c_void>(), room as *mut c_void];
            // SAFETY: all pointers are live variables', and the log is longer than `room`.
            let result = unsafe {
                sys::cuModuleLoadDataEx(
                    &mut module,
                    text.as_ptr().cast(),
                    2,
                    options.as_mut_ptr(),
                    values.as_mut_ptr(),
                )
            };
            (result, log, values[1] as usize)
        };
        let bad = SMALL.replacen("mov.u32 %r3", "frobnicate.u32 %r3", 1);
        let (result, log, filled) = load(&bad, 200);
        assert_eq!(result, E::CUDA_ERROR_INVALID_PTX);
        let end = log.iter().position(|&b| b == 0).expect("the log ends with NUL");
        let text = String::from_utf8(log[..end].to_vec()).unwrap();
        assert!(text.starts_with("fill.ptx:14:") && text.contains("frobnicate"), "{text}");
        assert_eq!(filled, end);
        // Short room: cut, and never written past.
        let (_, log, _) = load(&bad, 8);
        assert_eq!(&log[..9], b"fill.pt\0?");
        let (result, log, filled) = load(SMALL, 200);
        assert_eq!((result, log[0], filled), (E::CUDA_SUCCESS, 0, 0));
    });
}

#[test]
fn handles_and_names() {
    let lines: [&[&str]; 4] = [
        &["cuModuleGetFunction", "NOT_FOUND", "no entry `fil`", "fill, next"],
        &["cuLaunchKernel", "INVALID_HANDLE", "no function"],
        &["cuLaunchKernel", "INVALID_HANDLE", "no stream"],
        &["cuEventRecord", "INVALID_HANDLE", "no event"],
    ];
    refused("handles_and_names", "", &lines, |ctx, k| {
        let module = load(SMALL).unwrap();
        // SAFETY: whatever is wrong is refused; what is unloaded is not used again.
        unsafe {
            let missing = result::module::get_function(module, CString::new("fil").unwrap());
            assert_eq!(code(missing), E::CUDA_ERROR_NOT_FOUND);
            let f = result::module::get_function(module, CString::new("fill").unwrap()).unwrap();
            result::module::unload(module).unwrap();
            assert_eq!(code(result::module::unload(module)), E::CUDA_ERROR_INVALID_HANDLE);
            let (mut x, mut v) = (words(), 1u32);
            let mut params = [(&raw mut x).cast(), (&raw mut v).cast()];
            let launch =
                |f, s, p: &mut [_]| result::launch_kernel(f, (1, 1, 1), (1, 1, 1), 0, s, p);
            assert_eq!(code(launch(f, LEGACY, &mut params)), E::CUDA_ERROR_INVALID_HANDLE);
            let stranger = 0x7777_7777 as sys::CUfunction;
            assert_eq!(code(launch(stranger, LEGACY, &mut params)), E::CUDA_ERROR_INVALID_HANDLE);
            let f = k.fill.cu_function();
            let nowhere = 0x7777_7777 as sys::CUstream;
            assert_eq!(code(launch(f, nowhere, &mut params)), E::CUDA_ERROR_INVALID_HANDLE);
            let s = result::stream::create(result::stream::StreamKind::NonBlocking).unwrap();
            result::stream::destroy(s).unwrap();
            assert_eq!(code(launch(f, s, &mut params)), E::CUDA_ERROR_INVALID_HANDLE);
            assert_eq!(code(result::stream::destroy(s)), E::CUDA_ERROR_INVALID_HANDLE);
            let e = ctx.new_event(None).unwrap();
            result::event::record(e.cu_event(), LEGACY).unwrap();
            let none = 0x7777_7777 as sys::CUevent;
            assert_eq!(code(result::event::record(none, LEGACY)), E::CUDA_ERROR_INVALID_HANDLE);
            assert_eq!(code(result::event::destroy(none)), E::CUDA_ERROR_INVALID_HANDLE);
            // Null where a parameter, or a result, should be.
            let mut null = [std::ptr::null_mut::<c_void>(); 2];
            assert_eq!(code(launch(f, LEGACY, &mut null)), E::CUDA_ERROR_INVALID_VALUE);
            let nothing = sys::cuStreamCreate(std::ptr::null_mut(), 0);
            assert_eq!(nothing, E::CUDA_ERROR_INVALID_VALUE);
        }
        assert_eq!(code(CudaContext::new(1)), E::CUDA_ERROR_INVALID_DEVICE);
    });
}

#[test]
fn shapes() {
    let lines: [&[&str]; 5] = [
        &["cuLaunchKernel", "INVALID_VALUE", "grid x: 0"],
        &["INVALID_VALUE", "block y: 0"],
        &["INVALID_VALUE", "threads of a block: 2048"],
        &["INVALID_VALUE", ".maxntid"],
        &["INVALID_VALUE", "MAX_DYNAMIC_SHARED_SIZE_BYTES", "49153"],
    ];
    refused("shapes", "", &lines, |ctx, k| {
        let try_it = |f: &cudarc::driver::CudaFunction, grid, block, shared| {
            let (mut x, mut v) = (words(), [1u64; 2]);
            let mut params =
                [(&raw mut x).cast::<c_void>(), (&raw mut v[0]).cast(), (&raw mut v[1]).cast()];
            // SAFETY: the parameters are at least as long as the entry's.
            unsafe {
                result::launch_kernel(f.cu_function(), grid, block, shared, LEGACY, &mut params)
            }
        };
        let bad = E::CUDA_ERROR_INVALID_VALUE;
        assert_eq!(code(try_it(&k.fill, (0, 1, 1), (1, 1, 1), 0)), bad);
        assert_eq!(code(try_it(&k.fill, (1, 1, 1), (1, 0, 1), 0)), bad);
        assert_eq!(code(try_it(&k.fill, (1, 65_536, 1), (1, 1, 1), 0)), bad);
        assert_eq!(code(try_it(&k.fill, (1, 1, 1), (1024, 2, 1), 0)), bad);
        assert_eq!(code(try_it(&k.fill, (1, 1, 1), (32, 1, 128), 0)), bad);
        let mixed = function(ctx, SMALL, "mixed");
        assert_eq!(code(try_it(&mixed, (1, 1, 1), (65, 1, 1), 0)), bad);
        let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK;
        assert_eq!(mixed.get_attribute(most).unwrap(), 64);
        // Shared memory: 48 KiB by default, the chip's limit after opting in, never more.
        let room = function(ctx, SMALL, "last_word");
        assert_eq!(code(try_it(&room, (1, 1, 1), (1, 1, 1), 49_153)), bad);
        try_it(&room, (1, 1, 1), (1, 1, 1), 49_152).unwrap();
        let dynamic = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        assert_eq!(code(room.set_attribute(dynamic, (163 << 10) + 1)), bad);
        room.set_attribute(dynamic, 163 << 10).unwrap();
        try_it(&room, (1, 1, 1), (1, 1, 1), 163 << 10).unwrap();
        assert_eq!(code(try_it(&room, (1, 1, 1), (1, 1, 1), (163 << 10) + 4)), bad);
        assert_eq!(room.get_attribute(dynamic).unwrap(), 163 << 10);
        assert_eq!(room.num_regs().unwrap(), 64, "what 1024 threads leave each");
        // A smaller block fits: twice, once, not at all.
        let fit = |bytes| room.occupancy_max_active_blocks_per_multiprocessor(64, bytes, None);
        assert_eq!([fit(80 << 10).unwrap(), fit(100 << 10).unwrap()], [2, 1]);
        assert_eq!(fit(164 << 10).unwrap(), 0);
        assert_eq!(room.occupancy_available_dynamic_smem_per_block(2, 64).unwrap(), 81 << 10);
    });
}

#[test]
fn parameters_in_one_buffer() {
    let lines: [&[&str]; 2] = [
        &["cuLaunchKernel", "INVALID_VALUE", "takes 20 bytes of parameters, got 16"],
        &["both kernelParams and extra"],
    ];
    refused("parameters_in_one_buffer", "", &lines, |ctx, _| {
        let mixed = function(ctx, SMALL, "mixed");
        let x = words();
        let mut buffer = [0u8; 20];
        buffer[..4].copy_from_slice(&30u32.to_le_bytes());
        buffer[8..16].copy_from_slice(&x.to_le_bytes());
        buffer[16..].copy_from_slice(&12u32.to_le_bytes());
        let launch = |mut size: usize, params: *mut *mut c_void| {
            // CU_LAUNCH_PARAM_BUFFER_POINTER, CU_LAUNCH_PARAM_BUFFER_SIZE, CU_LAUNCH_PARAM_END.
            let name = std::ptr::without_provenance_mut::<c_void>;
            let mut extra = [
                name(1),
                buffer.as_ptr().cast_mut().cast(),
                name(2),
                (&raw mut size).cast(),
                std::ptr::null_mut(),
            ];
            let (f, extra) = (mixed.cu_function(), extra.as_mut_ptr());
            // SAFETY: the buffer is as long as its size says, or longer.
            raw(unsafe { sys::cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, LEGACY, params, extra) })
        };
        let none = std::ptr::null_mut();
        assert_eq!(code(launch(16, none)), E::CUDA_ERROR_INVALID_VALUE);
        let mut both = [none.cast::<c_void>(); 3];
        assert_eq!(code(launch(20, both.as_mut_ptr())), E::CUDA_ERROR_INVALID_VALUE);
        launch(20, none).unwrap();
        assert_eq!(read(x, 1).unwrap(), [42]);
        // SAFETY: no parameters at all are refused.
        let nothing = unsafe {
            sys::cuLaunchKernel(mixed.cu_function(), 1, 1, 1, 1, 1, 1, 0, LEGACY, none, none)
        };
        assert_eq!(nothing, E::CUDA_ERROR_INVALID_VALUE);
    });
}

#[test]
fn extended_launches() {
    let lines: [&[&str]; 2] = [
        &["cuLaunchKernelEx", "INVALID_VALUE", "CLUSTER_DIMENSION"],
        &["COOPERATIVE_LAUNCH_TOO_LARGE", "fit at once"],
    ];
    refused("extended_launches", "", &lines, |_, k| {
        let x = words();
        let launch = |grid: u32, attributes: &mut [sys::CUlaunchAttribute]| {
            let (mut x, mut v) = (x, 3u32);
            let mut params = [(&raw mut x).cast::<c_void>(), (&raw mut v).cast()];
            let config = sys::CUlaunchConfig {
                gridDimX: grid,
                gridDimY: 1,
                gridDimZ: 1,
                blockDimX: 64,
                blockDimY: 1,
                blockDimZ: 1,
                sharedMemBytes: 0,
                hStream: LEGACY,
                attrs: attributes.as_mut_ptr(),
                numAttrs: attributes.len() as u32,
            };
            let f = k.fill.cu_function();
            // SAFETY: all pointers are live variables'.
            raw(unsafe {
                sys::cuLaunchKernelEx(&config, f, params.as_mut_ptr(), std::ptr::null_mut())
            })
        };
        let attribute = |id, value: i32| {
            let mut attribute = sys::CUlaunchAttribute {
                id,
                pad: [0; 4],
                value: sys::CUlaunchAttributeValue { pad: [0; 64] },
            };
            attribute.value.cooperative = value;
            attribute
        };
        use sys::CUlaunchAttributeID as Id;
        launch(1, &mut []).unwrap();
        launch(1, &mut [attribute(Id::CU_LAUNCH_ATTRIBUTE_COOPERATIVE, 1)]).unwrap();
        launch(1, &mut [attribute(Id::CU_LAUNCH_ATTRIBUTE_PRIORITY, -1)]).unwrap();
        let cluster = launch(1, &mut [attribute(Id::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, 2)]);
        assert_eq!(code(cluster), E::CUDA_ERROR_INVALID_VALUE, "no height and depth");
        let large = launch(129, &mut [attribute(Id::CU_LAUNCH_ATTRIBUTE_COOPERATIVE, 1)]);
        assert_eq!(code(large), E::CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
        assert_eq!(read(x, 64).unwrap(), count(3, 64));
    });
}

#[test]
fn sizes_and_functions_that_are_not_simulated() {
    let lines: [&[&str]; 3] = [
        &["cuMemAlloc_v2", "INVALID_VALUE", "0 bytes"],
        &["cuMemAllocManaged", "NOT_SUPPORTED", "not simulated"],
        &["cuMemsetD32Async", "INVALID_VALUE", "aligned"],
    ];
    refused("sizes_and_functions_that_are_not_simulated", "", &lines, |_, _| {
        // SAFETY: what is wrong is refused.
        unsafe {
            assert_eq!(code(result::malloc_sync(0)), E::CUDA_ERROR_INVALID_VALUE);
            assert_eq!(code(result::malloc_sync(1 << 50)), E::CUDA_ERROR_OUT_OF_MEMORY);
            let flags = sys::CUmemAttach_flags::CU_MEM_ATTACH_GLOBAL;
            for _ in 0..2 {
                let managed = result::malloc_managed(64, flags);
                assert_eq!(code(managed), E::CUDA_ERROR_NOT_SUPPORTED);
            }
            let x = words();
            let odd = sys::cuMemsetD32Async(x + 2, 0, 1, LEGACY);
            assert_eq!(odd, E::CUDA_ERROR_INVALID_VALUE);
            assert_eq!(sys::cuMemsetD32Async(x, 7, 64, LEGACY), E::CUDA_SUCCESS);
            assert_eq!(sys::cuMemsetD16Async(x, 8, 1, LEGACY), E::CUDA_SUCCESS);
            assert_eq!(read(x, 2).unwrap(), [8, 7]);
        }
    });
}

#[test]
fn contexts() {
    let lines: [&[&str]; 2] = [&["INVALID_CONTEXT", "no context is current"], &["is destroyed"]];
    refused("contexts", "", &lines, |ctx, _| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // A new thread has no context.
                assert_eq!(code(result::ctx::synchronize()), E::CUDA_ERROR_INVALID_CONTEXT);
            });
        });
        let mut made = std::ptr::null_mut();
        // SAFETY: all pointers are live variables', and what is destroyed is not used but to be
        // refused.
        unsafe {
            raw(sys::cuCtxCreate_v4(&mut made, std::ptr::null_mut(), 0, 0)).unwrap();
            assert_eq!(result::ctx::get_current().unwrap(), Some(made));
            let x = words();
            let mut popped = std::ptr::null_mut();
            raw(sys::cuCtxPopCurrent_v2(&mut popped)).unwrap();
            assert_eq!(popped, made);
            assert_eq!(result::ctx::get_current().unwrap(), Some(ctx.cu_ctx()));
            raw(sys::cuCtxPushCurrent_v2(made)).unwrap();
            raw(sys::cuCtxSetCurrent(ctx.cu_ctx())).unwrap();
            raw(sys::cuCtxDestroy_v2(made)).unwrap();
            assert_eq!(sys::cuCtxDestroy_v2(made), E::CUDA_ERROR_INVALID_CONTEXT);
            assert_eq!(sys::cuCtxSetCurrent(made), E::CUDA_ERROR_INVALID_CONTEXT);
            assert_eq!(code(result::free_sync(x)), E::CUDA_ERROR_INVALID_VALUE, "it went along");
            assert_eq!(sys::cuCtxDestroy_v2(ctx.cu_ctx()), E::CUDA_ERROR_INVALID_CONTEXT);
            // Destroyed while another thread has it current.
            raw(sys::cuCtxCreate_v4(&mut made, std::ptr::null_mut(), 0, 0)).unwrap();
            let made = made as usize;
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    raw(sys::cuCtxSetCurrent(made as sys::CUcontext)).unwrap();
                    raw(sys::cuCtxDestroy_v2(made as sys::CUcontext)).unwrap();
                });
            });
            assert_eq!(code(result::malloc_sync(4)), E::CUDA_ERROR_CONTEXT_IS_DESTROYED);
            raw(sys::cuCtxSetCurrent(ctx.cu_ctx())).unwrap();
        }
        // The primary context lives as long as somebody holds it.
        let again = CudaContext::new(0).unwrap();
        assert_eq!(again.cu_ctx(), ctx.cu_ctx());
    });
}

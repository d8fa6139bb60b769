//! What the environment sets: faults on demand, the chip, counters, seeds; and that every symbol is
//! there.

mod common;

use common::*;
use cudarc::driver::{CudaContext, result, sys};

use sys::CUresult as E;

#[test]
fn a_driver_that_refuses() {
    let test = "a_driver_that_refuses";
    for name in ["NO_DEVICE", "803", "CUDA_ERROR_UNKNOWN"] {
        let said = simulated(test, "init", &[("INIT", name)], || {
            let got = code(CudaContext::new(0));
            let named = std::env::var("PTX_SIM_INIT").unwrap();
            assert!(named == (got as u32).to_string() || format!("{got:?}").ends_with(&named));
            assert_eq!(code(CudaContext::device_count()), got);
        });
        if !is_child() {
            said.well().reports(&["cuInit", "PTX_SIM_INIT says so"]);
        }
    }
    // A typing mistake in the environment is no default.
    let said = simulated(test, "typing mistake", &[("SM", "4")], || {
        assert_eq!(code(CudaContext::new(0)), E::CUDA_ERROR_INVALID_VALUE);
    });
    if !is_child() {
        said.well().reports(&["cuInit", "PTX_SIM_SM=4: no such variable"]);
    }
}

/// Each line is an edit of its own; what a text has not, stays.
#[test]
fn texts_are_edited() {
    let edits = "st.global.u32=>add.u32 %r1, %r1, %r1; st.global.u32\nnowhere=>";
    let said = simulated("texts_are_edited", "", &[("EDIT", edits)], || {
        let ctx = untracked();
        let k = Small::new(&ctx);
        let x = words();
        launch(&k.fill, 64, LEGACY, &[x, 1]).unwrap();
        assert_eq!(read(x, 3).unwrap(), [2, 4, 6]);
    });
    if !is_child() {
        said.well().clean();
    }
}

#[test]
fn a_driver_that_is_too_old() {
    let said = simulated("a_driver_that_is_too_old", "", &[("DRIVER_VERSION", "11040")], || {
        let ctx = device();
        let mut version = 0;
        // SAFETY: the pointer is a live variable's.
        raw(unsafe { sys::cuDriverGetVersion(&mut version) }).unwrap();
        assert_eq!(version, 11_040);
        let newer = SMALL.replacen(".version 7.0", ".version 7.8", 1);
        let loaded = ctx.load_module(cudarc::nvrtc::Ptx::from_src(newer));
        assert_eq!(code(loaded), E::CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
        Small::new(&ctx);
    });
    if !is_child() {
        said.well().reports(&["cuModuleLoadData", "UNSUPPORTED_PTX_VERSION", "7.8", "7.4"]);
    }
}

#[test]
fn a_device_that_is_lost() {
    let said = simulated("a_device_that_is_lost", "", &[("LOSE_AT", "3")], || {
        let ctx = untracked();
        let k = Small::new(&ctx);
        let x = words();
        launch(&k.fill, 64, LEGACY, &[x, 1]).unwrap();
        launch(&k.fill, 64, LEGACY, &[x, 2]).unwrap();
        assert_eq!(read(x, 64).unwrap(), count(2, 64));
        let lost = E::CUDA_ERROR_UNKNOWN;
        assert_eq!(code(launch(&k.fill, 64, LEGACY, &[x, 3])), lost);
        assert_eq!(code(read(x, 1)), lost);
        assert_eq!(code(result::ctx::synchronize()), lost);
        // SAFETY: refused.
        assert_eq!(code(unsafe { result::malloc_sync(4) }), lost);
        assert_eq!(code(CudaContext::new(0)), lost);
        // Dropping what there is must not panic.
    });
    if !is_child() {
        said.well().reports(&["cuLaunchKernel", "LOSE_AT=3", "lost"]);
    }
}

#[test]
fn memory_that_runs_out() {
    let said = simulated("memory_that_runs_out", "", &[("MEMORY", "1000")], || {
        let ctx = untracked();
        let s = ctx.new_stream().unwrap();
        let kept = s.alloc_zeros::<u8>(600).unwrap();
        assert_eq!(ctx.mem_get_info().unwrap(), (400, 1000));
        assert_eq!(code(s.alloc_zeros::<u8>(401)), E::CUDA_ERROR_OUT_OF_MEMORY);
        // SAFETY: refused.
        assert_eq!(code(unsafe { result::malloc_sync(401) }), E::CUDA_ERROR_OUT_OF_MEMORY);
        let more = s.alloc_zeros::<u8>(400).unwrap();
        drop((kept, more));
        assert_eq!(s.alloc_zeros::<u8>(1000).unwrap().len(), 1000);
        assert_eq!(ctx.total_mem().unwrap(), 1000);
    });
    if !is_child() {
        said.well().reports(&["OUT_OF_MEMORY", "401 bytes, 400 are free"]);
    }
}

#[test]
fn a_device_without_pools() {
    simulated("a_device_without_pools", "", &[("POOLS", "0")], || {
        let ctx = device();
        assert!(!ctx.has_async_alloc());
        let s = ctx.new_stream().unwrap();
        let x = s.clone_htod(&count(3, 64)).unwrap();
        assert_eq!(s.clone_dtoh(&x).unwrap(), count(3, 64));
    })
    .well()
    .clean();
}

#[test]
fn a_chip_with_less() {
    let variables = [("CHIP", "sm_86"), ("SMS", "2"), ("SHARED", "65536"), ("BLOCKS_PER_SM", "1")];
    simulated("a_chip_with_less", "", &variables, || {
        let ctx = device();
        use sys::CUdevice_attribute as A;
        let get = |attribute| ctx.attribute(attribute).unwrap();
        assert_eq!(get(A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT), 2);
        assert_eq!(get(A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN), 65_536);
        assert_eq!(get(A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK), 49_152);
        assert_eq!(get(A::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR), 1536);
        assert_eq!(get(A::CU_DEVICE_ATTRIBUTE_WARP_SIZE), 32);
        assert_eq!(ctx.compute_capability().unwrap(), (8, 6));
        let f = function(&ctx, SMALL, "last_word");
        let blocks = f.occupancy_max_active_blocks_per_multiprocessor(32, 0, None);
        assert_eq!(blocks.unwrap(), 1);
    })
    .well()
    .clean();
}

#[test]
fn counters_are_written() {
    let test = "counters_are_written";
    let path = std::env::temp_dir().join(format!("ptx-sim-counters-{}", std::process::id()));
    let name = path.to_str().expect("the path is a text");
    let said = simulated(test, "", &[("COUNTERS", name)], || {
        let ctx = device();
        let k = Small::new(&ctx);
        let (x, y) = (words(), words());
        launch(&k.fill, 64, LEGACY, &[x, 1]).unwrap();
        launch(&k.next, 64, LEGACY, &[y, x]).unwrap();
        ctx.synchronize().unwrap();
    });
    if is_child() {
        return;
    }
    said.well().clean();
    let text = std::fs::read_to_string(&path).expect("the file is there");
    std::fs::remove_file(&path).expect("the file can go");
    let launches: Vec<&str> = text.split("== launch ").skip(1).collect();
    assert_eq!(launches.len(), 2, "{text}");
    assert!(launches[0].starts_with("1 (fill, grid 1x1x1, block 64x1x1, 0 B shared)"), "{text}");
    assert!(launches[0].contains("global bytes first touched 256\n"), "{text}");
    // The counts of one launch do not know of the other's touches.
    assert!(launches[1].contains("global bytes first touched 512\n"), "{text}");
    assert!(launches[1].contains("instructions 24 warp, 768 thread"), "{text}");
}

#[test]
fn a_report_replays_by_its_seed() {
    let test = "a_report_replays_by_its_seed";
    let seed_of = |text: &str| {
        let (_, seed) = text.split_once("PTX_SIM_LAUNCH_SEED=").expect("a report names its seed");
        seed.split_whitespace().next().unwrap_or_default().to_owned()
    };
    let broken = || {
        let ctx = untracked();
        let k = Small::new(&ctx);
        let x = words();
        let _ = launch(&k.fill, 65, LEGACY, &[x, 1]);
        assert!(ctx.synchronize().is_err());
    };
    let run = |variables: &[(&str, &str)]| simulated(test, "", variables, broken).stderr;
    let (first, again) = (run(&[("SEED", "5")]), run(&[("SEED", "5")]));
    if is_child() {
        return;
    }
    assert_eq!(first, again);
    let seed = seed_of(&first);
    assert_ne!(seed, seed_of(&run(&[("SEED", "6")])));
    assert_eq!(seed_of(&run(&[("SEED", "6"), ("LAUNCH_SEED", &seed)])), seed);
}

#[test]
fn checks_can_be_switched_off() {
    simulated("checks_can_be_switched_off", "", &[("CHECKS", "none")], || {
        let ctx = untracked();
        let k = Small::new(&ctx);
        let (x, y) = (words(), words());
        let (s, t) = (ctx.new_stream().unwrap(), ctx.new_stream().unwrap());
        launch(&k.next, 64, s.cu_stream(), &[y, x]).unwrap();
        launch(&k.next, 64, t.cu_stream(), &[y, x]).unwrap();
        ctx.synchronize().unwrap();
        read(y, 64).unwrap();
    })
    .well()
    .clean();
}

#[test]
fn what_fresh_memory_holds_depends_on_the_seed() {
    let test = "what_fresh_memory_holds_depends_on_the_seed";
    let variables = |seed| [("CHECKS", "none"), ("SEED", seed)];
    let run = |seed| {
        simulated(test, "", &variables(seed), || {
            let _ctx = device();
            eprintln!("fresh: {:?}", read(words(), 2).unwrap());
        })
        .stderr
    };
    let (one, again, other) = (run("1"), run("1"), run("2"));
    if !is_child() {
        assert!(one.contains("fresh: ["), "{one}");
        assert_eq!(one, again);
        assert_ne!(one, other);
    }
}

#[test]
fn every_symbol_is_there() {
    simulated("every_symbol_is_there", "", &[], || {
        // SAFETY: the stand-in's initialiser does nothing.
        let library = unsafe { libloading::Library::new("libcuda.so.1") }.expect("it is found");
        let names = include_str!("symbols.txt");
        let missing: Vec<&str> = names
            .split_whitespace()
            .filter(|name| {
                // SAFETY: the symbol is looked up, not called.
                unsafe { library.get::<*const std::ffi::c_void>(name.as_bytes()) }.is_err()
            })
            .collect();
        assert!(names.split_whitespace().count() > 500, "the list is whole");
        assert_eq!(missing, [""; 0]);
    })
    .well()
    .clean();
}

/// What `older` makes of the stand-in: the exports of a driver of CUDA 12.0, and nothing else changed.
#[test]
fn a_driver_of_cuda_12_0() {
    let test = "a_driver_of_cuda_12_0";
    let folder = std::env::temp_dir().join(format!("ptx-sim-{test}-{}", std::process::id()));
    if !is_child() {
        let older = concat!(env!("CARGO_MANIFEST_DIR"), "/older");
        let made =
            std::process::Command::new(older).arg("12000").arg(driver()).arg(&folder).status();
        assert!(made.expect("the script starts").success());
    }
    let said = in_folder(&folder, test, "", &[("DRIVER_VERSION", "12000")], || {
        // SAFETY: the stand-in's initialiser does nothing.
        let library = unsafe { libloading::Library::new("libcuda.so.1") }.expect("it is found");
        let newer: Vec<&str> = include_str!("../newer.txt")
            .lines()
            .filter(|line| !line.starts_with('#'))
            .flat_map(|line| line.split(' ').skip(1))
            .collect();
        let names: Vec<&str> = include_str!("symbols.txt").split_whitespace().collect();
        assert!(newer.len() > 100 && newer.iter().all(|name| names.contains(name)));
        for name in names {
            // SAFETY: the symbol is looked up, not called.
            let found = unsafe { library.get::<*const std::ffi::c_void>(name.as_bytes()) };
            assert_eq!(found.is_ok(), !newer.contains(&name), "{name}");
        }
        // It works, and gives what came later in no other way.
        let ctx = device();
        let (x, k) = (words(), Small::new(&ctx));
        launch(&k.fill, 64, LEGACY, &[x, 7]).unwrap();
        assert_eq!(read(x, 64).unwrap(), count(7, 64));
        for (name, is_there) in [(c"cuEventElapsedTime", true), (c"cuLogsCurrent", false)] {
            let mut address = std::ptr::null_mut();
            let (pointer, status) = (&raw mut address, std::ptr::null_mut());
            // SAFETY: the name ends with NUL, the result is live; no status is asked for.
            let code =
                unsafe { sys::cuGetProcAddress_v2(name.as_ptr(), pointer, 12_000, 0, status) };
            assert_eq!((code == E::CUDA_SUCCESS, !address.is_null()), (is_there, is_there));
        }
    });
    if !is_child() {
        std::fs::remove_dir_all(&folder).expect("the folder can go");
        said.well().reports(&["cuGetProcAddress_v2", "cuLogsCurrent"]);
    }
}

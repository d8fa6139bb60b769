//! Kernels for sm_90a through cudarc: tensor maps by the driver, clusters by text and by attribute,
//! dependent launches, on chips of several sizes.

mod common;

use std::ffi::c_void;
use std::sync::Arc;

use common::*;
use cudarc::driver::{CudaContext, CudaFunction, DevicePtr, DriverError, PushKernelArg, sys};
use half::bf16 as half_bf16;

const GEMM: &str = include_str!("../../ptx-sim/tests/fixtures/gemm_sm90a.ptx");
const PAIR: &str = include_str!("../../ptx-sim/tests/fixtures/gemm_pair_sm90a.ptx");
const SPLIT: &str = include_str!("../../ptx-sim/tests/fixtures/split_pair_sm90.ptx");
const PUBLISH: &str = include_str!("../../ptx-sim/tests/fixtures/publish_sm90.ptx");

/// Orders with multiprocessors and the parts they lie in; two CTAs of a cluster need two.
const MACHINES: [[(&str, &str); 6]; 5] = [
    machine("1", "1", "round-robin", "late", "1"),
    machine("2", "1", "random", "random", "2"),
    machine("3", "1", "one-far", "early", "3"),
    machine("7", "3", "reverse", "late", "4"),
    machine("132", "8", "random", "random", "5"),
];

const fn machine(
    sms: &'static str,
    gpcs: &'static str,
    schedule: &'static str,
    copies: &'static str,
    seed: &'static str,
) -> [(&'static str, &'static str); 6] {
    [
        ("CHIP", "sm_90"),
        ("SMS", sms),
        ("GPCS", gpcs),
        ("SCHEDULE", schedule),
        ("COPIES", copies),
        ("SEED", seed),
    ]
}

/// By value, as a kernel takes it.
#[repr(C, align(128))]
#[derive(Clone, Copy)]
struct Map([u8; 128]);

/// A matrix of bf16 in boxes of `box_rows` × 64, swizzled by 128 bytes.
fn tiles(address: u64, rows: usize, columns: usize, box_rows: u32) -> Map {
    let dims = [columns as u64, rows as u64];
    let strides = [2 * columns as u64];
    encode(address, &dims, &strides, &[64, box_rows]).expect("the limits are kept")
}

fn encode(address: u64, dims: &[u64], strides: &[u64], boxes: &[u32]) -> Result<Map, DriverError> {
    let mut map = Map([0; 128]);
    let steps = vec![1u32; dims.len()];
    // SAFETY: the arrays have as many elements as the rank says; the map is aligned and large enough.
    let code = unsafe {
        sys::cuTensorMapEncodeTiled(
            (&raw mut map).cast(),
            sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            dims.len() as u32,
            address as *mut c_void,
            dims.as_ptr(),
            strides.as_ptr(),
            boxes.as_ptr(),
            steps.as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    raw(code).map(|()| map)
}

fn pointer<T>(value: &T) -> *mut c_void {
    std::ptr::from_ref(value).cast_mut().cast()
}

/// `cuLaunchKernelEx` with a cluster and as a dependent of what comes before it.
fn launch_ex(
    f: &CudaFunction,
    stream: &Stream,
    (grid, block, shared): ([u32; 3], u32, u32),
    (cluster, early): (Option<[u32; 3]>, bool),
    params: &mut [*mut c_void],
) -> Result<(), DriverError> {
    use sys::CUlaunchAttributeID as Id;
    let attribute = |id| sys::CUlaunchAttribute {
        id,
        pad: [0; 4],
        value: sys::CUlaunchAttributeValue { pad: [0; 64] },
    };
    let mut attributes = Vec::new();
    if let Some([x, y, z]) = cluster {
        let mut a = attribute(Id::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION);
        a.value.clusterDim = sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x, y, z };
        attributes.push(a);
    }
    if early {
        let mut a = attribute(Id::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION);
        a.value.programmaticStreamSerializationAllowed = 1;
        attributes.push(a);
    }
    let config = sys::CUlaunchConfig {
        gridDimX: grid[0],
        gridDimY: grid[1],
        gridDimZ: grid[2],
        blockDimX: block,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: shared,
        hStream: stream.cu_stream(),
        attrs: attributes.as_mut_ptr(),
        numAttrs: attributes.len() as u32,
    };
    // SAFETY: all pointers are those of live variables.
    raw(unsafe {
        sys::cuLaunchKernelEx(&config, f.cu_function(), params.as_mut_ptr(), std::ptr::null_mut())
    })
}

fn room(f: &CudaFunction, bytes: i32) {
    let dynamic = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    f.set_attribute(dynamic, bytes).unwrap();
}

fn f32s_of(words: &[u16]) -> Vec<f32> {
    words.iter().map(|&w| half_bf16::from_bits(w).to_f32()).collect()
}

const SHARED: u32 = 131_136;

fn gemm(ctx: &Arc<CudaContext>, (m, n, k): (usize, usize, usize)) {
    let (stream, f) = (ctx.default_stream(), function(ctx, GEMM, "gemm"));
    room(&f, SHARED as i32);
    let (a, b) = (values(m * k, 5), values(n * k, 6));
    let (da, db) = (stream.clone_htod(&bf16(&a)).unwrap(), stream.clone_htod(&bf16(&b)).unwrap());
    let dc = stream.clone_htod(&vec![f32::NAN; m * n]).unwrap();
    let (pa, pb, pc) =
        (da.device_ptr(&stream).0, db.device_ptr(&stream).0, dc.device_ptr(&stream).0);
    let (ma, mb) = (tiles(pa, m, k, 128), tiles(pb, n, k, 128));
    let sizes = [m as u32, n as u32, k as u32];
    let mut params = [
        pointer(&ma),
        pointer(&mb),
        pointer(&pc),
        pointer(&sizes[0]),
        pointer(&sizes[1]),
        pointer(&sizes[2]),
    ];
    let grid = [n.div_ceil(128) as u32, m.div_ceil(128) as u32, 1];
    launch_ex(&f, &stream, (grid, 384, SHARED), (None, false), &mut params).unwrap();
    assert_eq!(stream.clone_dtoh(&dc).unwrap(), product(&a, &b, (m, n, k), true), "{m}×{n}×{k}");
}

fn pair(ctx: &Arc<CudaContext>, (m, n, k): (usize, usize, usize)) {
    let (stream, f) = (ctx.new_stream().unwrap(), function(ctx, PAIR, "gemm_pair"));
    room(&f, SHARED as i32);
    let (a, b) = (values(m * k, 7), values(n * k, 8));
    let (da, db) = (stream.clone_htod(&bf16(&a)).unwrap(), stream.clone_htod(&bf16(&b)).unwrap());
    let dc = stream.clone_htod(&vec![0x7FC0u16; m * n]).unwrap();
    let (pa, pb, pc) =
        (da.device_ptr(&stream).0, db.device_ptr(&stream).0, dc.device_ptr(&stream).0);
    let (ma, mb, mc) = (tiles(pa, m, k, 128), tiles(pb, n, k, 64), tiles(pc, m, n, 128));
    let steps = k as u32;
    let mut params = [pointer(&ma), pointer(&mb), pointer(&mc), pointer(&steps)];
    let grid = [n.div_ceil(128) as u32, m.div_ceil(256) as u32 * 2, 1];
    launch_ex(&f, &stream, (grid, 384, SHARED), (Some([1, 2, 1]), false), &mut params).unwrap();
    let want: Vec<f32> = product(&a, &b, (m, n, k), true)
        .into_iter()
        .map(|x| half_bf16::from_f32(x).to_f32())
        .collect();
    assert_eq!(f32s_of(&stream.clone_dtoh(&dc).unwrap()), want, "{m}×{n}×{k}");
}

#[test]
fn a_ring_of_tensor_loads() {
    for variables in MACHINES {
        let body = || {
            let ctx = device();
            for shape in [(128, 128, 64), (130, 72, 648), (1, 2, 8)] {
                gemm(&ctx, shape);
            }
        };
        simulated("a_ring_of_tensor_loads", "", &variables, body).well().clean();
    }
}

#[test]
fn clusters_with_multicast_and_tensor_stores() {
    for variables in &MACHINES[1..] {
        let body = || {
            let ctx = device();
            for shape in [(256, 128, 512), (300, 72, 136)] {
                pair(&ctx, shape);
            }
        };
        simulated("clusters_with_multicast_and_tensor_stores", "", variables, body).well().clean();
    }
}

#[test]
fn sums_over_distributed_shared_memory() {
    for variables in MACHINES {
        let body = || {
            let ctx = device();
            let (stream, f) = (ctx.default_stream(), function(&ctx, SPLIT, "split_pair"));
            let (rows, k) = (300usize, 37usize);
            let (w, x) = (values(rows * k, 3), values(k, 4));
            let (dw, dx) = (stream.clone_htod(&w).unwrap(), stream.clone_htod(&x).unwrap());
            let mut dy = stream.clone_htod(&vec![f32::NAN; rows]).unwrap();
            let mut launch = stream.launch_builder(&f);
            let sizes = [rows as u32, k as u32];
            launch.arg(&dw).arg(&dx).arg(&mut dy).arg(&sizes[0]).arg(&sizes[1]);
            // The text fixes the cluster: a plain launch will do.
            let config = cudarc::driver::LaunchConfig {
                grid_dim: (2 * rows.div_ceil(128) as u32, 1, 1),
                block_dim: (128, 1, 1),
                shared_mem_bytes: 0,
            };
            // SAFETY: the arguments are the entry's.
            unsafe { launch.launch(config) }.unwrap();
            assert_eq!(stream.clone_dtoh(&dy).unwrap(), product(&w, &x, (rows, 1, k), true));
        };
        simulated("sums_over_distributed_shared_memory", "", &variables, body).well().clean();
    }
}

#[test]
fn a_published_tile_reaches_another_ctas_tensor_load() {
    for variables in MACHINES {
        let body = || {
            let ctx = device();
            let (stream, f) = (ctx.default_stream(), function(&ctx, PUBLISH, "publish"));
            let count = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
            let ctas = (ctx.attribute(count).unwrap() as u32).min(9);
            let (rows, copies) = (3usize, 2usize);
            let header = stream.alloc_zeros::<u32>(96 + rows).unwrap();
            // SAFETY: the kernel writes before it reads.
            let t = unsafe { stream.alloc::<u16>(4096 * rows) }.unwrap();
            let pt = t.device_ptr(&stream).0;
            let map = tiles(pt, 64 * rows, 64, 64);
            for round in 0..2 {
                let x = values(4096 * rows, round);
                let dx = stream.clone_htod(&bf16(&x)).unwrap();
                let dy = stream.clone_htod(&vec![0x7FC0u16; 4096 * rows * copies]).unwrap();
                let (px, py, ph) = (
                    dx.device_ptr(&stream).0,
                    dy.device_ptr(&stream).0,
                    header.device_ptr(&stream).0,
                );
                let sizes = [rows as u32, copies as u32];
                let mut params = [
                    pointer(&map),
                    pointer(&px),
                    pointer(&pt),
                    pointer(&py),
                    pointer(&ph),
                    pointer(&sizes[0]),
                    pointer(&sizes[1]),
                ];
                launch_ex(&f, &stream, ([ctas, 1, 1], 128, 0), (None, false), &mut params).unwrap();
                let y = f32s_of(&stream.clone_dtoh(&dy).unwrap());
                for (i, &y) in y.iter().enumerate() {
                    assert_eq!(
                        y,
                        2.0 * x[i / 4096 / copies * 4096 + i % 4096],
                        "round {round} {i}"
                    );
                }
            }
        };
        simulated("a_published_tile_reaches_another_ctas_tensor_load", "", &variables, body)
            .well()
            .clean();
    }
}

/// A first kernel writes, a second one that may begin early reads: behind `griddepcontrol.wait`, or not.
const CHAIN: &str = "
    .version 8.0
    .target sm_90
    .address_size 64
    .visible .entry first(.param .u64 x) {
        .reg .b64 %p; .reg .b32 %i;
        griddepcontrol.launch_dependents;
        ld.param.u64 %p, [x]; mov.u32 %i, %tid.x; mad.wide.u32 %p, %i, 4, %p;
        st.global.u32 [%p], %i;
        ret;
    }
    .visible .entry second(.param .u64 x, .param .u64 y) {
        .reg .b64 %p, %q; .reg .b32 %i, %v;
        griddepcontrol.wait;
        ld.param.u64 %p, [x]; ld.param.u64 %q, [y]; mov.u32 %i, %tid.x;
        mad.wide.u32 %p, %i, 4, %p; mad.wide.u32 %q, %i, 4, %q;
        ld.global.u32 %v, [%p]; add.u32 %v, %v, 1; st.global.u32 [%q], %v;
        ret;
    }";

fn chain(text: &str, early: bool) {
    let ctx = untracked();
    let stream = ctx.new_stream().unwrap();
    let (first, second) = (function(&ctx, text, "first"), function(&ctx, text, "second"));
    let (x, y) = (words(), words());
    for _ in 0..3 {
        let shape = ([1, 1, 1], 64, 0);
        let of_first = launch_ex(&first, &stream, shape, (None, false), &mut [pointer(&x)]);
        let mut params = [pointer(&x), pointer(&y)];
        let of_second = launch_ex(&second, &stream, shape, (None, early), &mut params);
        // Once a check has failed every call says so.
        if of_first.and(of_second).is_err() {
            return;
        }
    }
    if stream.synchronize().is_ok() {
        assert_eq!(read(y, 64).unwrap(), count(1, 64));
    }
}

#[test]
fn dependent_launches_wait_for_what_they_read() {
    for (queues, seed) in [("early", "1"), ("late", "2"), ("random", "3"), ("random", "4")] {
        let variables = [("CHIP", "sm_90"), ("QUEUES", queues), ("SEED", seed)];
        let body = || chain(CHAIN, true);
        simulated("dependent_launches_wait_for_what_they_read", "waits", &variables, body)
            .well()
            .clean();
        let without = CHAIN.replace("griddepcontrol.wait;", "");
        let body = || chain(&without, true);
        let said =
            simulated("dependent_launches_wait_for_what_they_read", "does not", &variables, body);
        if !is_child() {
            said.well().reports(&["Race", "second", "first"]);
        }
        // Without the attribute the stream's order is enough.
        let body = || chain(&without, false);
        simulated("dependent_launches_wait_for_what_they_read", "in order", &variables, body)
            .well()
            .clean();
    }
}

#[test]
fn limits_of_tensor_maps_and_clusters() {
    let lines: [&[&str]; 9] = [
        &["cuTensorMapEncodeTiled", "INVALID_VALUE", "globalAddress"],
        &["cuTensorMapEncodeTiled", "globalStrides[0] 264"],
        &["cuTensorMapEncodeTiled", "boxDim[1] 257"],
        &["cuTensorMapEncodeTiled", "swizzle spans 128"],
        &["cuTensorMapEncodeTiled", "tensorRank 6"],
        &["cuLaunchKernelEx", "INVALID_CLUSTER_SIZE", "reqnctapercluster"],
        &["cuLaunchKernelEx", "INVALID_CLUSTER_SIZE", "no multiple"],
        &["cuLaunchKernelEx", "INVALID_CLUSTER_SIZE", "8 are portable"],
        &["cuTensorMapReplaceAddress", "INVALID_VALUE", "no tensor map"],
    ];
    let body = || {
        let ctx = device();
        let stream = ctx.default_stream();
        let buffer = words();
        let bad = sys::CUresult::CUDA_ERROR_INVALID_VALUE;
        assert!(encode(buffer, &[64, 8], &[128], &[64, 8]).is_ok());
        assert_eq!(code(encode(buffer + 8, &[64, 8], &[128], &[64, 8])), bad);
        assert_eq!(code(encode(buffer, &[64, 8], &[264], &[64, 8])), bad);
        assert_eq!(code(encode(buffer, &[64, 8], &[128], &[64, 257])), bad);
        assert_eq!(code(encode(buffer, &[128, 8], &[256], &[128, 8])), bad);
        assert_eq!(code(encode(buffer, &[64; 6], &[128; 5], &[64; 6])), bad);
        let mut map = encode(buffer, &[64, 8], &[128], &[64, 8]).unwrap();
        // SAFETY: the map is live and aligned.
        let moved = unsafe {
            sys::cuTensorMapReplaceAddress((&raw mut map).cast(), words() as *mut c_void)
        };
        raw(moved).unwrap();
        map.0[9] ^= 1;
        // SAFETY: as before; what is wrong is refused.
        let spoilt = unsafe {
            sys::cuTensorMapReplaceAddress((&raw mut map).cast(), words() as *mut c_void)
        };
        assert_eq!(spoilt, bad);
        let f = function(&ctx, SPLIT, "split_pair");
        let cluster = |grid: u32, cluster| {
            let zero = 0u64;
            let mut params = [pointer(&zero); 5];
            launch_ex(&f, &stream, ([grid, 1, 1], 128, 0), (cluster, false), &mut params)
        };
        let wrong = sys::CUresult::CUDA_ERROR_INVALID_CLUSTER_SIZE;
        assert_eq!(code(cluster(4, Some([4, 1, 1]))), wrong, "the text says two");
        assert_eq!(code(cluster(3, None)), wrong);
        let free = function(&ctx, CHAIN, "first");
        let mut params = [pointer(&buffer)];
        let nine =
            launch_ex(&free, &stream, ([9, 1, 1], 32, 0), (Some([9, 1, 1]), false), &mut params);
        assert_eq!(code(nine), wrong);
        launch_ex(&free, &stream, ([8, 1, 1], 32, 0), (Some([4, 1, 1]), false), &mut params)
            .unwrap_or(());
    };
    let variables = [("CHIP", "sm_90"), ("SMS", "8"), ("GPCS", "2")];
    let said = simulated("limits_of_tensor_maps_and_clusters", "", &variables, body).well();
    if !is_child() {
        lines.iter().fold(said, |said, words| said.reports(words));
    }
}

#[test]
fn occupancy_of_clusters() {
    let variables = [("CHIP", "sm_90"), ("SMS", "7"), ("GPCS", "2")];
    let body = || {
        let ctx = device();
        let f = function(&ctx, PAIR, "gemm_pair");
        room(&f, SHARED as i32);
        let config = sys::CUlaunchConfig {
            gridDimX: 1,
            gridDimY: 2,
            gridDimZ: 1,
            blockDimX: 384,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: SHARED,
            hStream: LEGACY,
            attrs: std::ptr::null_mut(),
            numAttrs: 0,
        };
        let mut clusters = 0;
        // SAFETY: the structure and the result are live.
        let asked = unsafe {
            sys::cuOccupancyMaxActiveClusters(&raw mut clusters, f.cu_function(), &config)
        };
        raw(asked).unwrap();
        // Three and four multiprocessors, one CTA on each: one pair and two.
        assert_eq!(clusters, 3);
    };
    simulated("occupancy_of_clusters", "", &variables, body).well().clean();
}

#[test]
fn what_a_framework_asks_on_its_way() {
    let body = || {
        let ctx = device();
        let at = words();
        let mut kind = 0u32;
        let attribute = sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE;
        // SAFETY: the result is live and as large as the attribute.
        raw(unsafe { sys::cuPointerGetAttribute((&raw mut kind).cast(), attribute, at + 4) })
            .unwrap();
        assert_eq!(kind, 2, "device memory");
        // Three rows of 8 bytes out of rows of 16, to the host.
        let bytes: Vec<u8> = (0..64).collect();
        // SAFETY: the range is allocated.
        unsafe { cudarc::driver::result::memcpy_htod_sync(at, &bytes) }.unwrap();
        let mut out = [0u8; 24];
        let copy = sys::CUDA_MEMCPY2D {
            srcXInBytes: 4,
            srcY: 1,
            srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
            srcHost: std::ptr::null(),
            srcDevice: at,
            srcArray: std::ptr::null_mut(),
            srcPitch: 16,
            dstXInBytes: 0,
            dstY: 0,
            dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_HOST,
            dstHost: out.as_mut_ptr().cast(),
            dstDevice: 0,
            dstArray: std::ptr::null_mut(),
            dstPitch: 8,
            WidthInBytes: 8,
            Height: 3,
        };
        // SAFETY: both sides hold what is copied.
        raw(unsafe { sys::cuMemcpy2D_v2(&copy) }).unwrap();
        let want: Vec<u8> = (1..4).flat_map(|row| 16 * row + 4..16 * row + 12).collect();
        assert_eq!(out[..], want[..]);
        // A name without its suffix leads to the newest function.
        let (mut address, mut status) = (
            std::ptr::null_mut(),
            sys::CUdriverProcAddressQueryResult::CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND,
        );
        // SAFETY: the name ends with NUL, the results are live.
        let found = unsafe {
            sys::cuGetProcAddress_v2(
                c"cuMemGetInfo".as_ptr(),
                &raw mut address,
                12_000,
                0,
                &raw mut status,
            )
        };
        raw(found).unwrap();
        assert_eq!(status, sys::CUdriverProcAddressQueryResult::CU_GET_PROC_ADDRESS_SUCCESS);
        // SAFETY: this is the signature of cuMemGetInfo_v2.
        let info: extern "C" fn(*mut usize, *mut usize) -> i32 =
            unsafe { std::mem::transmute(address) };
        let (mut free, mut total) = (0, 0);
        assert_eq!(info(&raw mut free, &raw mut total), 0);
        assert!(free > 0 && total >= free);
        // SAFETY: as before.
        let none = unsafe {
            sys::cuGetProcAddress_v2(
                c"cuNoSuchThing".as_ptr(),
                &raw mut address,
                12_000,
                0,
                &raw mut status,
            )
        };
        assert_eq!(none, sys::CUresult::CUDA_ERROR_NOT_FOUND);
        assert!(address.is_null());
        drop(ctx);
    };
    simulated("what_a_framework_asks_on_its_way", "", &[("CHIP", "sm_90")], body)
        .well()
        .reports(&["cuGetProcAddress_v2", "cuNoSuchThing"]);
}

//! Kernels in other styles than the matrix products: compiled-looking text, tables, chained CTAs, one
//! word a register. Each against plain Rust, under every schedule and timing.

mod common;

use common::*;
use half::f16;
use ptx_sim::{Launch, Memory, Options, run_launch};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

fn u32s(memory: &mut Memory, at: u64, n: usize) -> Vec<u32> {
    let bytes = memory.read(at, 4 * n).unwrap();
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn put_bytes(memory: &mut Memory, bytes: &[u8]) -> u64 {
    let at = memory.alloc(bytes.len()).unwrap();
    memory.write(at, bytes).unwrap();
    at
}

#[test]
fn softmax_as_a_compiler_writes_it() {
    let module = module(include_str!("fixtures/softmax.ptx"));
    for (i, options) in all_orders().into_iter().enumerate() {
        let (rows, columns): (usize, usize) = [(5, 70), (1, 1), (9, 32), (4, 31)][i % 4];
        let mut rng = StdRng::seed_from_u64(i as u64);
        let x: Vec<f32> = (0..rows * columns).map(|_| rng.random_range(-8.0..8.0)).collect();
        let mut memory = Memory::new();
        let (px, py) = (put(&mut memory, &x), memory.alloc(4 * x.len()).unwrap());
        let launch = Launch::new("softmax", [rows.div_ceil(4) as u32, 1, 1], [128, 1, 1]);
        let launch = launch.ptr(px).ptr(py).u32(rows as u32).u32(columns as u32);
        // The approximate functions may be off by what the ISA allows.
        let options = Options { perturb: i % 2 == 1, ..options };
        run_launch(&module, &mut memory, &launch, &options).unwrap_or_else(|e| panic!("{e}"));
        for (x, y) in x.chunks(columns).zip(f32s(&mut memory, py, x.len()).chunks(columns)) {
            let sum: f64 = x.iter().map(|&x| f64::from(x).exp()).sum();
            for (&x, &y) in x.iter().zip(y) {
                let want = f64::from(x).exp() / sum;
                assert!((f64::from(y) - want).abs() <= 1e-5 * want, "{y} for {want}");
            }
        }
    }
}

#[test]
fn histogram_with_a_leader_among_equal_lanes() {
    let module = module(include_str!("fixtures/histogram.ptx"));
    for (i, options) in all_orders().into_iter().enumerate() {
        let n = [16, 4096 + 48, 10_000 - 16, 2048][i % 4];
        let mut rng = StdRng::seed_from_u64(i as u64);
        // Few values, so that lanes collide.
        let x: Vec<u8> =
            (0..n).map(|_| rng.random_range(0u8..40) * rng.random_range(1u8..6)).collect();
        let mut memory = Memory::new();
        let (px, counts) = (put_bytes(&mut memory, &x), put_bytes(&mut memory, &[0; 1024]));
        let launch =
            Launch::new("histogram", [3, 1, 1], [128, 1, 1]).ptr(px).ptr(counts).u32(n as u32);
        run_launch(&module, &mut memory, &launch, &options).unwrap_or_else(|e| panic!("{e}"));
        let mut want = vec![0; 256];
        x.iter().for_each(|&byte| want[byte as usize] += 1);
        assert_eq!(u32s(&mut memory, counts, 256), want);
    }
}

/// The paper's loop (Salmon and others, 2011), ten rounds.
fn philox(mut c: [u32; 4], mut k: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let (a, b) = (0xD251_1F53u64 * u64::from(c[0]), 0xCD9E_8D57u64 * u64::from(c[2]));
        c = [(b >> 32) as u32 ^ c[1] ^ k[0], b as u32, (a >> 32) as u32 ^ c[3] ^ k[1], a as u32];
        k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
    }
    c
}

#[test]
fn philox_by_halves_and_wide_products() {
    // The generator's published known answer, for the Rust side.
    assert_eq!(philox([0; 4], [0; 2]), [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8]);
    let module = module(include_str!("fixtures/philox.ptx"));
    let key = [0xA409_3822u32, 0x299F_31D0];
    let mut memory = Memory::new();
    let out = memory.alloc(16 * 100).unwrap();
    let launch = Launch::new("philox", [2, 1, 1], [64, 1, 1]).ptr(out).u32(100);
    let launch = launch.bytes(&key.map(u32::to_le_bytes).concat());
    run_launch(&module, &mut memory, &launch, &Options::default())
        .unwrap_or_else(|e| panic!("{e}"));
    let want: Vec<u32> = (0..100).flat_map(|i| philox([i, 0, 0, 0], key)).collect();
    assert_eq!(u32s(&mut memory, out, 400), want);
}

#[test]
fn scan_chained_from_cta_to_cta() {
    for (i, options) in all_orders().into_iter().enumerate() {
        for sms in [1, 3, 7] {
            let n: u32 = [1, 256, 1000, 1536][i % 4];
            let x: Vec<u32> = (0..n).map(|j: u32| j.wrapping_mul(0x9E37_79B9) >> 20).collect();
            let ctas = n.div_ceil(256);
            let mut memory = Memory::new();
            let px =
                put_bytes(&mut memory, &x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>());
            let py = memory.alloc(4 * n as usize).unwrap();
            let state = put_bytes(&mut memory, &vec![0; 8 * ctas as usize]);
            let launch =
                Launch::new("scan", [ctas, 1, 1], [256, 1, 1]).ptr(px).ptr(py).ptr(state).u32(n);
            let options = Options { sms, ..options };
            let module = module(include_str!("fixtures/scan.ptx"));
            run_launch(&module, &mut memory, &launch, &options).unwrap_or_else(|e| panic!("{e}"));
            let want: Vec<u32> = x
                .iter()
                .scan(0, |s, &x| {
                    *s += x;
                    Some(*s)
                })
                .collect();
            assert_eq!(u32s(&mut memory, py, n as usize), want);
        }
    }
}

#[test]
fn gemm_f16_with_b_turned_by_ldmatrix() {
    let module = module(include_str!("fixtures/gemm_f16.ptx"));
    for (i, options) in all_orders().into_iter().enumerate() {
        let (m, n, k): (usize, usize, usize) =
            [(16, 8, 16), (32, 24, 48), (16, 16, 32), (48, 8, 80)][i % 4];
        let mut rng = StdRng::seed_from_u64(i as u64);
        // Integers: every sum is exact in f16.
        let mut some = |len: usize| {
            (0..len).map(|_| f32::from(rng.random_range(-2i8..=2))).collect::<Vec<_>>()
        };
        let (a, b) = (some(m * k), some(k * n));
        let mut memory = Memory::new();
        let half =
            |v: &[f32]| v.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect::<Vec<_>>();
        let (pa, pb) = (put_bytes(&mut memory, &half(&a)), put_bytes(&mut memory, &half(&b)));
        let pc = memory.alloc(2 * m * n).unwrap();
        let launch = Launch::new("gemm_f16", [n as u32 / 8, m as u32 / 16, 1], [32, 1, 1]);
        let launch = launch.ptr(pa).ptr(pb).ptr(pc).u32(n as u32).u32(k as u32);
        run_launch(&module, &mut memory, &launch, &options).unwrap_or_else(|e| panic!("{e}"));
        let got: Vec<f32> = memory
            .read(pc, 2 * m * n)
            .unwrap()
            .chunks_exact(2)
            .map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32())
            .collect();
        assert_eq!(got, product(&a, &b, m, n, k, false), "{m}×{n}×{k}");
    }
}

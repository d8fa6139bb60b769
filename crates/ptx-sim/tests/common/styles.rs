//! Runs the kernels of other styles than the matrix products: the result is right, or the first fault; a
//! wrong number panics. Shared by their tests and by the mutants.

use half::f16;
use ptx_sim::{Launch, Memory, Options, RunError, run_launch};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{f32s, module, product, put};

pub(crate) const SOFTMAX: &str = include_str!("../fixtures/softmax.ptx");
pub(crate) const HISTOGRAM: &str = include_str!("../fixtures/histogram.ptx");
pub(crate) const PHILOX: &str = include_str!("../fixtures/philox.ptx");
pub(crate) const SCAN: &str = include_str!("../fixtures/scan.ptx");
pub(crate) const GEMM_F16: &str = include_str!("../fixtures/gemm_f16.ptx");

fn u32s(memory: &mut Memory, at: u64, n: usize) -> Vec<u32> {
    let bytes = memory.read(at, 4 * n).unwrap();
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn put_bytes(memory: &mut Memory, bytes: &[u8]) -> u64 {
    let at = memory.alloc(bytes.len()).unwrap();
    memory.write(at, bytes).unwrap();
    at
}

pub(crate) fn softmax(
    source: &str,
    (rows, columns): (usize, usize),
    options: &Options,
) -> Result<(), RunError> {
    let mut rng = StdRng::seed_from_u64(options.seed);
    let x: Vec<f32> = (0..rows * columns).map(|_| rng.random_range(-8.0..8.0)).collect();
    let mut memory = Memory::new();
    let (px, py) = (put(&mut memory, &x), memory.alloc(4 * x.len()).unwrap());
    let launch = Launch::new("softmax", [rows.div_ceil(4) as u32, 1, 1], [128, 1, 1]);
    let launch = launch.ptr(px).ptr(py).u32(rows as u32).u32(columns as u32);
    run_launch(&module(source), &mut memory, &launch, options)?;
    for (x, y) in x.chunks(columns).zip(f32s(&mut memory, py, x.len()).chunks(columns)) {
        let sum: f64 = x.iter().map(|&x| f64::from(x).exp()).sum();
        for (&x, &y) in x.iter().zip(y) {
            let want = f64::from(x).exp() / sum;
            assert!((f64::from(y) - want).abs() <= 1e-5 * want, "{y} for {want}");
        }
    }
    Ok(())
}

pub(crate) fn histogram(source: &str, n: usize, options: &Options) -> Result<(), RunError> {
    let mut rng = StdRng::seed_from_u64(options.seed);
    // Few values, so that lanes collide; one at the end of the table.
    let mut x: Vec<u8> =
        (0..n).map(|_| rng.random_range(0u8..40) * rng.random_range(1u8..6)).collect();
    x[n / 2] = 255;
    let mut memory = Memory::new();
    let (px, counts) = (put_bytes(&mut memory, &x), put_bytes(&mut memory, &[0; 1024]));
    let launch = Launch::new("histogram", [3, 1, 1], [128, 1, 1]).ptr(px).ptr(counts).u32(n as u32);
    run_launch(&module(source), &mut memory, &launch, options)?;
    let mut want = vec![0; 256];
    x.iter().for_each(|&byte| want[byte as usize] += 1);
    assert_eq!(u32s(&mut memory, counts, 256), want);
    Ok(())
}

/// The paper's loop (Salmon and others, 2011), ten rounds.
pub(crate) fn philox_rust(mut c: [u32; 4], mut k: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let (a, b) = (0xD251_1F53u64 * u64::from(c[0]), 0xCD9E_8D57u64 * u64::from(c[2]));
        c = [(b >> 32) as u32 ^ c[1] ^ k[0], b as u32, (a >> 32) as u32 ^ c[3] ^ k[1], a as u32];
        k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
    }
    c
}

pub(crate) fn philox(source: &str, options: &Options) -> Result<(), RunError> {
    let key = [0xA409_3822u32, 0x299F_31D0];
    let mut memory = Memory::new();
    let out = memory.alloc(16 * 100).unwrap();
    let launch = Launch::new("philox", [2, 1, 1], [64, 1, 1]).ptr(out).u32(100);
    let launch = launch.bytes(&key.map(u32::to_le_bytes).concat());
    run_launch(&module(source), &mut memory, &launch, options)?;
    let want: Vec<u32> = (0..100).flat_map(|i| philox_rust([i, 0, 0, 0], key)).collect();
    assert_eq!(u32s(&mut memory, out, 400), want);
    Ok(())
}

pub(crate) fn scan(source: &str, n: u32, options: &Options) -> Result<(), RunError> {
    let x: Vec<u32> = (0..n).map(|j: u32| j.wrapping_mul(0x9E37_79B9) >> 20).collect();
    let ctas = n.div_ceil(256);
    let mut memory = Memory::new();
    let px = put_bytes(&mut memory, &x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>());
    let py = memory.alloc(4 * n as usize).unwrap();
    let state = put_bytes(&mut memory, &vec![0; 8 * ctas as usize]);
    let launch = Launch::new("scan", [ctas, 1, 1], [256, 1, 1]).ptr(px).ptr(py).ptr(state).u32(n);
    run_launch(&module(source), &mut memory, &launch, options)?;
    let sums = x.iter().scan(0, |s, &x| {
        *s += x;
        Some(*s)
    });
    assert_eq!(u32s(&mut memory, py, n as usize), sums.collect::<Vec<_>>());
    Ok(())
}

pub(crate) fn gemm_f16(
    source: &str,
    (m, n, k): (usize, usize, usize),
    options: &Options,
) -> Result<(), RunError> {
    let mut rng = StdRng::seed_from_u64(options.seed);
    // Integers: every sum is exact in f16.
    let mut some =
        |len: usize| (0..len).map(|_| f32::from(rng.random_range(-2i8..=2))).collect::<Vec<_>>();
    let (a, b) = (some(m * k), some(k * n));
    let mut memory = Memory::new();
    let half =
        |v: &[f32]| v.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect::<Vec<_>>();
    let (pa, pb) = (put_bytes(&mut memory, &half(&a)), put_bytes(&mut memory, &half(&b)));
    let pc = memory.alloc(2 * m * n).unwrap();
    let launch = Launch::new("gemm_f16", [n as u32 / 8, m as u32 / 16, 1], [32, 1, 1]);
    let launch = launch.ptr(pa).ptr(pb).ptr(pc).u32(n as u32).u32(k as u32);
    run_launch(&module(source), &mut memory, &launch, options)?;
    let bytes = memory.read(pc, 2 * m * n).unwrap();
    let got: Vec<f32> =
        bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect();
    assert_eq!(got, product(&a, &b, m, n, k, false), "{m}×{n}×{k}");
    Ok(())
}

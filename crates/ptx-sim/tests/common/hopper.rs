//! Runs the kernels of sm_90a on given sizes: the result is right, or the first fault; a wrong number
//! panics. Shared by the tests of clean kernels, seeded defects, mutants and speed.

use ptx_sim::{
    Chip, Counters, Launch, Memory, Options, RunError, Swizzle, TensorMap, TensorType, run_launch,
};

use half::bf16;

use super::{f32s, module, product, put, put_bf16, values};

pub(crate) const GEMM: &str = include_str!("../fixtures/gemm_sm90a.ptx");

/// The default on a chip that has the engines.
pub(crate) fn hopper() -> Options {
    Options { chip: Chip::SM_90, ..Options::default() }
}

/// Every schedule with every timing, on that chip.
pub(crate) fn all_orders() -> Vec<Options> {
    super::all_orders().into_iter().map(|o| Options { chip: Chip::SM_90, ..o }).collect()
}

/// A matrix of bf16 with `columns` in each row, in boxes of `box_rows` × 64 with a swizzle of 128 bytes.
pub(crate) fn tiles(address: u64, rows: usize, columns: usize, box_rows: u32) -> [u8; 128] {
    let dims = [columns as u64, rows as u64];
    let map = TensorMap::dense(TensorType::Bf16, address, &dims, &[64, box_rows]);
    map.swizzled(Swizzle::B128).encode().unwrap()
}

pub(crate) fn gemm(
    source: &str,
    (m, n, k): (usize, usize, usize),
    options: &Options,
) -> Result<Counters, RunError> {
    let mut memory = Memory::new();
    let (a, b) = (values(m * k, 5), values(n * k, 6));
    let (pa, pb) = (put_bf16(&mut memory, &a), put_bf16(&mut memory, &b));
    let pc = memory.alloc(4 * m * n).unwrap();
    let grid = [n.div_ceil(128) as u32, m.div_ceil(128) as u32, 1];
    let launch = Launch::new("gemm", grid, [384, 1, 1]).shared(131_136);
    let launch = launch.bytes(&tiles(pa, m, k, 128)).bytes(&tiles(pb, n, k, 128)).ptr(pc);
    let launch = launch.u32(m as u32).u32(n as u32).u32(k as u32);
    let counters = run_launch(&module(source), &mut memory, &launch, options)?;
    if m * n * k <= 1 << 24 {
        let want = product(&a, &b, m, n, k, true);
        assert_eq!(f32s(&mut memory, pc, m * n), want, "{m}×{n}×{k} {options:?}");
    }
    Ok(counters)
}

pub(crate) const GEMM_PAIR: &str = include_str!("../fixtures/gemm_pair_sm90a.ptx");
pub(crate) const SPLIT_PAIR: &str = include_str!("../fixtures/split_pair_sm90.ptx");
pub(crate) const PUBLISH: &str = include_str!("../fixtures/publish_sm90.ptx");

/// bf16 to nearest, as `cvt.rn` has it.
fn rounded(x: f32) -> f32 {
    bf16::from_f32(x).to_f32()
}

fn bf16s(memory: &mut Memory, at: u64, n: usize) -> Vec<f32> {
    let bytes = memory.read(at, 2 * n).unwrap();
    bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
}

pub(crate) fn gemm_pair(
    source: &str,
    (m, n, k): (usize, usize, usize),
    options: &Options,
) -> Result<Counters, RunError> {
    let mut memory = Memory::new();
    let (a, b) = (values(m * k, 5), values(n * k, 6));
    let (pa, pb) = (put_bf16(&mut memory, &a), put_bf16(&mut memory, &b));
    let pc = memory.alloc(2 * m * n).unwrap();
    let grid = [n.div_ceil(128) as u32, m.div_ceil(256) as u32 * 2, 1];
    let launch = Launch::new("gemm_pair", grid, [384, 1, 1]).shared(131_136);
    let launch = launch.bytes(&tiles(pa, m, k, 128)).bytes(&tiles(pb, n, k, 64));
    let launch = launch.bytes(&tiles(pc, m, n, 128)).u32(k as u32);
    let counters = run_launch(&module(source), &mut memory, &launch, options)?;
    let want: Vec<f32> = product(&a, &b, m, n, k, true).into_iter().map(rounded).collect();
    assert_eq!(bf16s(&mut memory, pc, m * n), want, "{m}×{n}×{k} {options:?}");
    Ok(counters)
}

pub(crate) fn split_pair(
    source: &str,
    (rows, k): (usize, usize),
    options: &Options,
) -> Result<(), RunError> {
    let mut memory = Memory::new();
    let (w, x) = (values(rows * k, 3), values(k, 4));
    let (pw, px) = (put(&mut memory, &w), put(&mut memory, &x));
    let py = memory.alloc(4 * rows).unwrap();
    let launch = Launch::new("split_pair", [2 * rows.div_ceil(128) as u32, 1, 1], [128, 1, 1]);
    let launch = launch.ptr(pw).ptr(px).ptr(py).u32(rows as u32).u32(k as u32);
    run_launch(&module(source), &mut memory, &launch, options)?;
    assert_eq!(f32s(&mut memory, py, rows), product(&w, &x, rows, 1, k, true), "{options:?}");
    Ok(())
}

/// Three launches on one header, which nobody clears in between.
pub(crate) fn publish(
    source: &str,
    (rows, copies, ctas): (usize, usize, u32),
    options: &Options,
) -> Result<(), RunError> {
    let mut memory = Memory::new();
    let module = module(source);
    let header = memory.alloc(384 + 4 * rows).unwrap();
    memory.write(header, &vec![0; 384 + 4 * rows]).unwrap();
    let t = memory.alloc(8192 * rows).unwrap();
    for round in 0..3 {
        let x = values(4096 * rows, round);
        let px = put_bf16(&mut memory, &x);
        let py = memory.alloc(8192 * rows * copies).unwrap();
        let launch = Launch::new("publish", [ctas, 1, 1], [128, 1, 1]);
        let launch = launch.bytes(&tiles(t, 64 * rows, 64, 64)).ptr(px).ptr(t).ptr(py).ptr(header);
        let launch = launch.u32(rows as u32).u32(copies as u32);
        run_launch(&module, &mut memory, &launch, options)?;
        let y = bf16s(&mut memory, py, 4096 * rows * copies);
        for (i, &y) in y.iter().enumerate() {
            let (tile, at) = (i / 4096, i % 4096);
            assert_eq!(
                y,
                2.0 * x[tile / copies * 4096 + at],
                "round {round} tile {tile} {options:?}"
            );
        }
    }
    Ok(())
}

//! Runs the kernels of sm_90a on given sizes: the result is right, or the first fault; a wrong number
//! panics. Shared by the tests of clean kernels, seeded defects, mutants and speed.

use ptx_sim::{
    Chip, Counters, Launch, Memory, Options, RunError, Swizzle, TensorMap, TensorType, run_launch,
};

use super::{f32s, module, product, put_bf16, values};

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

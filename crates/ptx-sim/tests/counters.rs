//! Counters against numbers worked out by hand, and a golden text.

mod common;

use common::*;
use ptx_sim::{Launch, Memory, Options, run_launch};

#[test]
fn the_swizzle_of_the_bf16_gemm_meets_no_bank_twice() {
    let clean = gemm_bf16(GEMM_BF16, (128, 128, 128), &Options::default()).unwrap().total();
    assert_eq!(clean.macs, 128 * 128 * 128);
    assert_eq!(clean.wavefronts, clean.wavefronts_ideal);
    // Without the XOR on both sides results stay right and the reads pile up.
    let plain = GEMM_BF16
        .replace("xor.b32 %r12, %r12, %r9;", "mov.b32 %r12, %r9;")
        .replace("xor.b32 %r20, %r20, %r21;", "")
        .replace("xor.b32 %r23, %r23, %r24;", "");
    let plain = gemm_bf16(&plain, (128, 128, 128), &Options::default()).unwrap().total();
    assert_eq!(plain.wavefronts_ideal, clean.wavefronts_ideal);
    // 24 matrices a warp and k16 step, 8 warps, 8 steps: rows 0, 2, 4, 6 of each now share banks.
    // The copies' 768 passes stay: four lanes fill a row of 64 bytes.
    let matrices = 24 * 8 * 8;
    assert_eq!((clean.wavefronts, plain.wavefronts), (matrices + 768, 4 * matrices + 768));
}

#[test]
fn bytes_and_sectors_of_a_gemv() {
    let counters = gemv(GEMV, (8, 256), &Options::default()).unwrap();
    // 8 rows of 512 bytes, 1 KiB of x, 32 bytes of y.
    assert_eq!(counters.bytes_first_touched(), 8 * 512 + 1024 + 32);
    let lines = counters.lines();
    let line = |text: &str| {
        let at = GEMV.lines().position(|l| l.contains(text)).unwrap() as u32 + 1;
        lines.iter().find(|l| l.line == at).unwrap()
    };
    // A row is 16 sectors, read side by side; x's halves are read 16 bytes of every 32.
    let w = line("{%r8, %r9, %r10, %r11}");
    assert_eq!((w.warps, w.sectors, w.sectors_ideal), (8, 128, 128));
    let x = line("{%f2, %f3, %f4, %f5}");
    assert_eq!((x.sectors, x.sectors_ideal), (8 * 32, 8 * 16));
}

#[test]
fn atomics_touch_sectors_too() {
    let source = ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 x) {
        .reg .b64 %p; .reg .b32 %t; ld.param.u64 %p, [x]; mov.u32 %t, %tid.x; mad.wide.u32 %p, %t, 8, %p;
        red.global.add.u32 [%p], 1; ret; }";
    let mut memory = Memory::new();
    let x = put(&mut memory, &[0.0; 64]);
    let launch = Launch::new("k", [1; 3], [32, 1, 1]).ptr(x);
    let counters = run_launch(&module(source), &mut memory, &launch, &Options::default()).unwrap();
    // 32 words, every other one of 256 bytes.
    let total = counters.total();
    assert_eq!((total.sectors, total.sectors_ideal, counters.bytes_first_touched()), (8, 4, 256));
}

#[test]
fn golden_text() {
    let text = gemm_f32(GEMM_F32, (16, 16, 16), &Options::default()).unwrap().to_string();
    let golden = include_str!("golden/gemm_f32_16.txt");
    if std::env::var_os("PTX_SIM_BLESS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/gemm_f32_16.txt");
        std::fs::write(path, &text).unwrap();
        return;
    }
    assert_eq!(text, golden, "if the change is meant, run once with PTX_SIM_BLESS=1");
}

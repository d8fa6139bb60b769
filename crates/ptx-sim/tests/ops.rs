//! One row an opcode form: operands and the result, both written out by hand from the ISA's text.

use ptx_sim::{Chip, Launch, Memory, Module, Options, run_launch};

/// Runs `body` in one thread with a, b, c in `%r1..3`, `%d1..3`, `%h1..3`, `%f1..3`; the result is
/// whichever of `%r0 %d0 %h0 %f0` the body writes.
fn run(body: &str, operands: [u64; 3]) -> u64 {
    run_on(body, operands, "sm_80", &Options::default())
}

/// The same for another target and chip.
fn run_on(body: &str, operands: [u64; 3], target: &str, options: &Options) -> u64 {
    let (store, size) =
        [("%r0", ("st.global.b32 [%out], %r0;", 4)), ("%d0", ("st.global.b64 [%out], %d0;", 8))]
            .into_iter()
            .chain([
                ("%h0", ("st.global.b16 [%out], %h0;", 2)),
                ("%f0", ("st.global.f32 [%out], %f0;", 4)),
            ])
            .find(|(name, _)| body.contains(name))
            .unwrap_or_else(|| panic!("`{body}` has no result"))
            .1;
    let loads: String = (1..=3)
        .map(|i| {
            let at = 8 * (i - 1);
            format!(
                "ld.global.b32 %r{i}, [%in+{at}]; ld.global.b64 %d{i}, [%in+{at}];
                 ld.global.b16 %h{i}, [%in+{at}]; ld.global.f32 %f{i}, [%in+{at}];\n"
            )
        })
        .collect();
    let source = format!(
        ".version 7.0\n.target {target}\n.address_size 64\n.visible .entry k(.param .u64 i, .param .u64 o) {{
         .reg .b32 %r<8>; .reg .b64 %d<8>, %in, %out; .reg .b16 %h<8>; .reg .f32 %f<8>; .reg .pred %p<8>;
         ld.param.u64 %in, [i]; ld.param.u64 %out, [o];\n{loads}{body}\n{store} ret; }}"
    );
    let module = Module::parse(body, &source).unwrap_or_else(|e| panic!("{e}"));
    let mut memory = Memory::new();
    let (input, output) = (memory.alloc(32).unwrap(), memory.alloc(8).unwrap());
    memory.write(input, &[0; 32]).unwrap();
    memory.write(input, &operands.map(u64::to_le_bytes).concat()).unwrap();
    let launch = Launch::new("k", [1, 1, 1], [1, 1, 1]).ptr(input).ptr(output);
    run_launch(&module, &mut memory, &launch, options).unwrap_or_else(|e| panic!("{body}: {e}"));
    let bytes = memory.read(output, size).unwrap();
    bytes.iter().rev().fold(0, |v, &b| v << 8 | u64::from(b))
}

fn table(rows: &[(&str, [u64; 3], u64)]) {
    let wrong: Vec<String> = rows
        .iter()
        .filter_map(|&(body, operands, want)| {
            let got = run(body, operands);
            (got != want).then(|| format!("{body} of {operands:x?}: {got:#x}, expected {want:#x}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const MINUS: u64 = 0xFFFF_FFFF;

#[test]
fn integers() {
    table(&[
        ("add.u32 %r0, %r1, %r2;", [MINUS, 2, 0], 1),
        ("add.s64 %d0, %d1, %d2;", [u64::MAX, 2, 0], 1),
        ("sub.u16 %h0, %h1, %h2;", [0, 1, 0], 0xFFFF),
        ("sub.s32 %r0, %r1, -7;", [3, 0, 0], 10),
        ("mul.lo.u32 %r0, %r1, %r2;", [0x1_0001, 0x1_0001, 0], 0x2_0001),
        ("mul.hi.u32 %r0, %r1, %r2;", [MINUS, MINUS, 0], 0xFFFF_FFFE),
        ("mul.hi.s32 %r0, %r1, %r2;", [MINUS, 2, 0], MINUS),
        ("mul.hi.u64 %d0, %d1, %d2;", [1 << 63, 6, 0], 3),
        ("mul.wide.s32 %d0, %r1, %r2;", [0xFFFF_FFFD, 5, 0], (-15i64) as u64),
        ("mul.wide.u32 %d0, %r1, %r2;", [MINUS, 2, 0], 0x1_FFFF_FFFE),
        ("mul.wide.u16 %r0, %h1, %h2;", [0xFFFF, 0xFFFF, 0], 0xFFFE_0001),
        ("mad.lo.s32 %r0, %r1, %r2, %r3;", [0xFFFF_FFFD, 5, 20], 5),
        ("mad.hi.u32 %r0, %r1, %r2, %r3;", [1 << 31, 4, 7], 9),
        ("mad.wide.u32 %d0, %r1, %r2, %d3;", [MINUS, 2, 1], 0x1_FFFF_FFFF),
        ("div.s32 %r0, %r1, %r2;", [0xFFFF_FFF9, 2, 0], 0xFFFF_FFFD),
        ("rem.s32 %r0, %r1, %r2;", [0xFFFF_FFF9, 2, 0], MINUS),
        ("div.u32 %r0, %r1, %r2;", [0xFFFF_FFF9, 2, 0], 0x7FFF_FFFC),
        ("rem.u64 %d0, %d1, %d2;", [1_000_000_000_007, 10, 0], 7),
        ("min.s32 %r0, %r1, %r2;", [MINUS, 1, 0], MINUS),
        ("min.u32 %r0, %r1, %r2;", [MINUS, 1, 0], 1),
        ("max.s32 %r0, %r1, %r2;", [MINUS, 1, 0], 1),
        ("max.u16 %h0, %h1, %h2;", [0xFFFF, 1, 0], 0xFFFF),
        ("abs.s32 %r0, %r1;", [0xFFFF_FFFB, 0, 0], 5),
        ("neg.s32 %r0, %r1;", [5, 0, 0], 0xFFFF_FFFB),
        ("abs.s32 %r0, %r1;", [1 << 31, 0, 0], 1 << 31),
        ("add.sat.s32 %r0, %r1, %r2;", [0x7FFF_FFFF, 5, 0], 0x7FFF_FFFF),
        ("sub.sat.s32 %r0, %r1, %r2;", [1 << 31, 5, 0], 1 << 31),
        ("add.sat.s32 %r0, %r1, %r2;", [MINUS, 5, 0], 4),
        ("mad.hi.sat.s32 %r0, %r1, %r2, %r3;", [0x4000_0000, 4, 0x7FFF_FFFF], 0x7FFF_FFFF),
        ("mul.hi.s64 %d0, %d1, %d2;", [u64::MAX, 3, 0], u64::MAX),
        ("div.s64 %d0, %d1, %d2;", [(-7i64) as u64, 2, 0], (-3i64) as u64),
        ("rem.s16 %h0, %h1, %h2;", [0xFFF9, 2, 0], 0xFFFF),
    ]);
}

#[test]
fn bits() {
    let shf = [0x1234_5678, 0x9ABC_DEF0, 8];
    let far = [0x1234_5678, 0x9ABC_DEF0, 40];
    // The truth table's own columns: the result repeats the table.
    let columns = [0xF0F0_F0F0, 0xCCCC_CCCC, 0xAAAA_AAAA];
    table(&[
        ("and.b32 %r0, %r1, %r2;", [0xFF00, 0x0FF0, 0], 0x0F00),
        ("or.b16 %h0, %h1, %h2;", [0xFF00, 0x0FF0, 0], 0xFFF0),
        ("xor.b64 %d0, %d1, %d2;", [0xFF00, 0x0FF0, 0], 0xF0F0),
        ("not.b32 %r0, %r1;", [0xFF, 0, 0], 0xFFFF_FF00),
        ("shl.b32 %r0, %r1, %r2;", [1, 31, 0], 1 << 31),
        ("shl.b32 %r0, %r1, %r2;", [1, 32, 0], 0),
        ("shl.b64 %d0, %d1, %r2;", [1, 63, 0], 1 << 63),
        ("shr.u32 %r0, %r1, %r2;", [1 << 31, 31, 0], 1),
        ("shr.u32 %r0, %r1, %r2;", [1 << 31, 32, 0], 0),
        ("shr.s32 %r0, %r1, %r2;", [1 << 31, 31, 0], MINUS),
        ("shr.s32 %r0, %r1, %r2;", [1 << 31, 40, 0], MINUS),
        ("shf.l.wrap.b32 %r0, %r1, %r2, %r3;", shf, 0xBCDE_F012),
        ("shf.r.wrap.b32 %r0, %r1, %r2, %r3;", shf, 0xF012_3456),
        ("shf.l.wrap.b32 %r0, %r1, %r2, %r3;", far, 0xBCDE_F012),
        ("shf.l.clamp.b32 %r0, %r1, %r2, %r3;", far, 0x1234_5678),
        ("shf.r.clamp.b32 %r0, %r1, %r2, %r3;", far, 0x9ABC_DEF0),
        ("lop3.b32 %r0, %r1, %r2, %r3, 0x96;", columns, 0x9696_9696),
        ("lop3.b32 %r0, %r1, %r2, %r3, 0xE8;", columns, 0xE8E8_E8E8),
        ("lop3.b32 %r0, %r1, %r2, %r3, 0x1B;", columns, 0x1B1B_1B1B),
        ("prmt.b32 %r0, %r1, %r2, %r3;", [0x3322_1100, 0x7766_5544, 0x7531], 0x7755_3311),
        ("prmt.b32 %r0, %r1, %r2, 0x0008;", [0xF0, 0, 0], 0xF0F0_F0FF),
        // The modes select among the bytes 0..3 of a and 4..7 of b.
        ("prmt.b32.f4e %r0, %r1, %r2, 1;", [0x3322_1100, 0x7766_5544, 0], 0x4433_2211),
        ("prmt.b32.b4e %r0, %r1, %r2, 1;", [0x3322_1100, 0x7766_5544, 0], 0x6677_0011),
        ("prmt.b32.rc8 %r0, %r1, %r2, 2;", [0x3322_1100, 0x7766_5544, 0], 0x2222_2222),
        ("prmt.b32.ecl %r0, %r1, %r2, 1;", [0x3322_1100, 0x7766_5544, 0], 0x3322_1111),
        ("prmt.b32.ecr %r0, %r1, %r2, 2;", [0x3322_1100, 0x7766_5544, 0], 0x2222_1100),
        ("prmt.b32.rc16 %r0, %r1, %r2, 1;", [0x3322_1100, 0x7766_5544, 0], 0x3322_3322),
        ("bfe.s64 %d0, %d1, 60, 8;", [0x8000_0000_0000_0000, 0, 0], (-8i64) as u64),
        ("bfe.s32 %r0, %r1, 40, 4;", [1 << 31, 0, 0], MINUS),
        ("bfi.b32 %r0, %r1, %r2, 28, 8;", [0xAB, 0, 0], 0xB000_0000),
        ("bfi.b32 %r0, %r1, %r2, 32, 8;", [0xAB, 7, 0], 7),
        ("shr.s16 %h0, %h1, 20;", [0x8000, 0, 0], 0xFFFF),
        ("shl.b16 %h0, %h1, 15;", [3, 0, 0], 0x8000),
        ("add.u32 %r0, %r1, WARP_SZ;", [1, 0, 0], 33),
        // Constant expressions, by C's precedence.
        ("mov.u32 %r0, 2+3*4-(1<<3|1)/2;", [0, 0, 0], 10),
        ("mov.u32 %r0, ~0xFF & 0xFFFF ^ 1;", [0, 0, 0], 0xFF01),
        ("mov.s32 %r0, -(2-7)*-2;", [0, 0, 0], 0xFFFF_FFF6),
        ("ld.global.u32 %r0, [%in+4*4-8];", [0, 7, 0], 7),
        ("ld.global.u32 %r0, [%in+-(4-12)];", [0, 7, 0], 7),
        ("bfe.u32 %r0, %r1, 8, 12;", [0x1234_5678, 0, 0], 0x456),
        ("bfe.s32 %r0, %r1, 8, 4;", [0xF00, 0, 0], MINUS),
        ("bfe.s32 %r0, %r1, 8, 0;", [0xF00, 0, 0], 0),
        ("bfe.u32 %r0, %r1, 28, 8;", [0xF234_5678, 0, 0], 0xF),
        ("bfe.s32 %r0, %r1, 28, 8;", [0x8234_5678, 0, 0], 0xFFFF_FFF8),
        ("bfi.b32 %r0, %r1, %r2, 8, 8;", [0xAB, 0x1122_3344, 0], 0x1122_AB44),
        ("bfi.b64 %d0, %d1, %d2, 32, 8;", [0xAB, 0, 0], 0xAB_0000_0000),
        ("popc.b32 %r0, %r1;", [0xF0F0, 0, 0], 8),
        ("popc.b64 %r0, %d1;", [u64::MAX, 0, 0], 64),
        ("clz.b32 %r0, %r1;", [0x1_0000, 0, 0], 15),
        ("clz.b32 %r0, %r1;", [0, 0, 0], 32),
        ("clz.b64 %r0, %d1;", [1, 0, 0], 63),
        ("brev.b32 %r0, %r1;", [1, 0, 0], 1 << 31),
        ("mov.b64 %d0, {%r1, %r2};", [1, 2, 0], 0x2_0000_0001),
        ("mov.b32 {%h0, _}, %r1;", [0x1234_5678, 0, 0], 0x5678),
        ("mov.b32 {_, %h0}, %r1;", [0x1234_5678, 0, 0], 0x1234),
    ]);
}

#[test]
fn predicates_and_selection() {
    let one = 0x3F80_0000;
    let nan = 0x7FC0_0000;
    let ask =
        |cmp: &str, r: &str| format!("setp.{cmp} %p1, %{r}1, %{r}2; selp.u32 %r0, 1, 0, %p1;");
    for (cmp, r, operands, want) in [
        ("lt.s32", "r", [MINUS, 1, 0], 1),
        ("lt.u32", "r", [MINUS, 1, 0], 0),
        ("hi.u32", "r", [MINUS, 1, 0], 1),
        ("ge.s32", "r", [1, 1, 0], 1),
        ("eq.b64", "d", [1 << 40, 0, 0], 0),
        ("ne.s16", "h", [1, 0x1_0001, 0], 0),
        ("lt.f32", "f", [one, 0x4000_0000, 0], 1),
        ("eq.f32", "f", [0, 0x8000_0000, 0], 1),
        ("ne.f32", "f", [nan, one, 0], 0),
        ("neu.f32", "f", [nan, one, 0], 1),
        ("ge.f32", "f", [nan, one, 0], 0),
        ("geu.f32", "f", [nan, one, 0], 1),
        ("num.f32", "f", [nan, one, 0], 0),
        ("nan.f32", "f", [nan, one, 0], 1),
        ("eq.ftz.f32", "f", [1, 2, 0], 1),
        ("gt.f16", "h", [0x3C01, 0x3C00, 0], 1),
    ] {
        assert_eq!(run(&ask(cmp, r), operands), want, "{cmp} {operands:x?}");
    }
    table(&[
        (
            "setp.eq.u32 %p2, %r3, 0; setp.lt.and.s32 %p1|%p3, %r1, %r2, !%p2;
             selp.u32 %r4, 1, 0, %p1; selp.u32 %r5, 2, 0, %p3; add.u32 %r0, %r4, %r5;",
            [1, 2, 9],
            1,
        ),
        (
            "setp.eq.u32 %p1, %r1, %r2; not.pred %p2, %p1; xor.pred %p3, %p1, %p2; selp.b32 %r0, 5, 6, %p3;",
            [1, 2, 0],
            5,
        ),
        ("mov.pred %p1, 1; @!%p1 mov.u32 %r1, 9; mov.u32 %r0, %r1;", [4, 0, 0], 4),
        // Both halves at once: p is of the lower, q of the upper.
        (
            "setp.lt.f16x2 %p1|%p2, %r1, %r2; selp.u32 %r4, 1, 0, %p1; selp.u32 %r5, 2, 0, %p2; or.b32 %r0, %r4, %r5;",
            [0x3C00_4000, 0x4000_3C00, 0],
            2,
        ),
        ("setp.eq.u32 _|%p1, %r1, %r2; selp.b32 %r0, 5, 6, %p1;", [1, 2, 0], 5),
        (
            "setp.eq.u32 %p1, %r1, %r2; and.pred %p2, %p1, !%p1; selp.b32 %r0, 5, 6, !%p2;",
            [1, 1, 0],
            5,
        ),
        ("setp.eq.u32 %p1, %r1, %r2; mov.pred %p2, !%p1; selp.b32 %r0, 5, 6, %p2;", [1, 1, 0], 6),
        ("slct.u32.f32 %r0, %r1, %r2, %f3;", [7, 8, 0x7FC0_0000], 8),
        ("slct.u32.s32 %r0, %r1, %r2, %r3;", [7, 8, MINUS], 8),
        ("slct.u32.f32 %r0, %r1, %r2, %f3;", [7, 8, 0x8000_0000], 7),
    ]);
}

#[test]
fn conversions() {
    let f = |x: f32| u64::from(x.to_bits());
    table(&[
        ("cvt.u8.u32 %r0, %r1;", [0x1FF, 0, 0], 0xFF),
        ("cvt.s8.s32 %r0, %r1;", [0x80, 0, 0], 0xFFFF_FF80),
        ("cvt.sat.u8.s32 %r0, %r1;", [0xFFFF_FFFB, 0, 0], 0),
        ("cvt.sat.s8.s32 %r0, %r1;", [300, 0, 0], 127),
        ("cvt.s64.s32 %d0, %r1;", [MINUS, 0, 0], u64::MAX),
        ("cvt.u64.u32 %d0, %r1;", [MINUS, 0, 0], MINUS),
        ("cvt.u32.u64 %r0, %d1;", [0x1_2345_6789, 0, 0], 0x2345_6789),
        ("cvt.rn.f32.u32 %f0, %r1;", [MINUS, 0, 0], 0x4F80_0000),
        ("cvt.rz.f32.u32 %f0, %r1;", [MINUS, 0, 0], 0x4F7F_FFFF),
        ("cvt.rn.f32.s32 %f0, %r1;", [MINUS, 0, 0], 0xBF80_0000),
        ("cvt.rni.s32.f32 %r0, %f1;", [f(2.5), 0, 0], 2),
        ("cvt.rni.s32.f32 %r0, %f1;", [f(3.5), 0, 0], 4),
        ("cvt.rzi.s32.f32 %r0, %f1;", [f(-2.7), 0, 0], 0xFFFF_FFFE),
        ("cvt.rmi.s32.f32 %r0, %f1;", [f(-2.1), 0, 0], 0xFFFF_FFFD),
        ("cvt.rpi.s32.f32 %r0, %f1;", [f(2.1), 0, 0], 3),
        ("cvt.rzi.s32.f32 %r0, %f1;", [f(3e9), 0, 0], 0x7FFF_FFFF),
        ("cvt.rzi.u32.f32 %r0, %f1;", [f(-3.0), 0, 0], 0),
        ("cvt.rzi.s32.f32 %r0, %f1;", [0x7FC0_0000, 0, 0], 0),
        ("cvt.rzi.s64.f32 %d0, %f1;", [0x7FC0_0000, 0, 0], 1 << 63),
        ("cvt.rzi.u64.f32 %d0, %f1;", [f(3.9), 0, 0], 3),
        ("cvt.rn.f16.f32 %h0, %f1;", [f(1.5), 0, 0], 0x3E00),
        ("cvt.rn.bf16.f32 %h0, %f1;", [f(1.5), 0, 0], 0x3FC0),
        // Halfway between 1 and the next bf16: to even.
        ("cvt.rn.bf16.f32 %h0, %f1;", [0x3F80_8000, 0, 0], 0x3F80),
        ("cvt.rn.bf16.f32 %h0, %f1;", [0x3F81_8000, 0, 0], 0x3F82),
        ("cvt.rn.f16x2.f32 %r0, %f1, %f2;", [f(1.0), f(2.0), 0], 0x3C00_4000),
        ("cvt.rn.bf16x2.f32 %r0, %f1, %f2;", [f(1.0), f(2.0), 0], 0x3F80_4000),
        ("cvt.rn.relu.bf16x2.f32 %r0, %f1, %f2;", [f(-1.0), f(2.0), 0], 0x0000_4000),
        ("cvt.rna.tf32.f32 %r0, %f1;", [0x3F80_1000, 0, 0], 0x3F80_2000),
        ("cvt.f32.f16 %f0, %h1;", [0x3C01, 0, 0], 0x3F80_2000),
        ("cvt.f32.f16 %f0, %h1;", [0x0001, 0, 0], 0x3380_0000),
        ("cvt.rni.f32.f32 %f0, %f1;", [f(2.5), 0, 0], 0x4000_0000),
        ("cvt.sat.f32.f32 %f0, %f1;", [f(-2.5), 0, 0], 0),
        ("cvt.rn.satfinite.f16.f32 %h0, %f1;", [f(1e9), 0, 0], 0x7BFF),
        ("cvt.rn.f16.f32 %h0, %f1;", [f(1e9), 0, 0], 0x7C00),
        ("cvt.rz.bf16.f32 %h0, %f1;", [0x3F81_FFFF, 0, 0], 0x3F81),
        ("cvt.rn.satfinite.bf16x2.f32 %r0, %f1, %f2;", [0xFF7F_FFFF, f(1.0), 0], 0xFF7F_3F80),
        ("cvt.rna.satfinite.tf32.f32 %r0, %f1;", [0x7F7F_FFFF, 0, 0], 0x7F7F_E000),
        ("cvt.rmi.s32.f32 %r0, %f1;", [f(-0.5), 0, 0], MINUS),
        ("cvt.rni.ftz.s32.f32 %r0, %f1;", [1, 0, 0], 0),
        ("cvt.rpi.u32.f32 %r0, %f1;", [1, 0, 0], 1),
        ("cvt.rpi.ftz.u32.f32 %r0, %f1;", [1, 0, 0], 0),
        ("cvt.rzi.u8.f32 %r0, %f1;", [f(300.0), 0, 0], 255),
        ("cvt.u32.u32 %r0, 5;", [0, 0, 0], 5),
        ("cvt.f32.f16 %f0, %r1;", [0xFFFF_3C00, 0, 0], f(1.0)),
    ]);
    // Formats of eight bits need sm_89; the first operand is the upper byte.
    let newer = Options { chip: Chip::SM_89, ..Options::default() };
    for (body, operands, want) in [
        ("cvt.rn.satfinite.e4m3x2.f32 %h0, %f1, %f2;", [f(1.0), f(-500.0), 0], 0x38FE),
        ("cvt.rn.satfinite.e5m2x2.f32 %h0, %f1, %f2;", [f(1.0), f(1e9), 0], 0x3C7B),
        ("cvt.rn.satfinite.relu.e4m3x2.f32 %h0, %f1, %f2;", [f(-1.0), f(1.5), 0], 0x003C),
        ("cvt.rn.satfinite.e4m3x2.f16x2 %h0, %r1;", [0x3C00_3E00, 0, 0], 0x383C),
        ("cvt.rn.f16x2.e4m3x2 %r0, %h1;", [0x387F, 0, 0], 0x3C00_7FFF),
        ("cvt.rn.f16x2.e5m2x2 %r0, %h1;", [0xBC7C, 0, 0], 0xBC00_7C00),
        ("cvt.rn.relu.f16x2.e4m3x2 %r0, %h1;", [0xB83C, 0, 0], 0x0000_3E00),
    ] {
        assert_eq!(run_on(body, operands, "sm_89", &newer), want, "{body} {operands:x?}");
    }
}

#[test]
fn floats() {
    let f = |x: f32| u64::from(x.to_bits());
    let tiny = 0x33C0_0000; // 0.75 · 2^-23
    table(&[
        ("add.f32 %f0, %f1, %f2;", [f(1.0), tiny, 0], 0x3F80_0001),
        ("add.rz.f32 %f0, %f1, %f2;", [f(1.0), tiny, 0], 0x3F80_0000),
        ("add.rm.f32 %f0, %f1, %f2;", [f(1.0), tiny, 0], 0x3F80_0000),
        ("add.rp.f32 %f0, %f1, %f2;", [f(1.0), tiny, 0], 0x3F80_0001),
        ("sub.f32 %f0, %f1, %f2;", [f(1.0), f(3.0), 0], f(-2.0)),
        ("add.ftz.f32 %f0, %f1, %f2;", [1, 0, 0], 0),
        ("add.f32 %f0, %f1, %f2;", [1, 1, 0], 2),
        ("mul.f32 %f0, %f1, %f2;", [f(1.5), f(2.5), 0], f(3.75)),
        ("mul.sat.f32 %f0, %f1, %f2;", [f(2.0), f(3.0), 0], f(1.0)),
        // (1 + 2^-12)² - 1 = 2^-11 + 2^-24: lost if the product were rounded.
        ("fma.rn.f32 %f0, %f1, %f1, %f2;", [0x3F80_0800, f(-1.0), 0], 0x3A00_0400),
        ("min.f32 %f0, %f1, %f2;", [0x7FC0_0000, f(2.0), 0], f(2.0)),
        ("max.NaN.f32 %f0, %f1, %f2;", [0x7FC0_0000, f(2.0), 0], 0x7FFF_FFFF),
        ("neg.f32 %f0, %f1;", [f(2.0), 0, 0], f(-2.0)),
        ("abs.f32 %f0, %f1;", [f(-2.0), 0, 0], f(2.0)),
        ("div.rn.f32 %f0, %f1, %f2;", [f(1.0), f(3.0), 0], 0x3EAA_AAAB),
        ("div.full.f32 %f0, %f1, %f2;", [f(1.0), f(4.0), 0], f(0.25)),
        ("sqrt.rn.f32 %f0, %f1;", [f(2.0), 0, 0], 0x3FB5_04F3),
        ("rcp.rz.f32 %f0, %f1;", [f(3.0), 0, 0], 0x3EAA_AAAA),
        ("rsqrt.approx.f32 %f0, %f1;", [f(4.0), 0, 0], f(0.5)),
        ("ex2.approx.ftz.f32 %f0, %f1;", [f(3.0), 0, 0], f(8.0)),
        ("lg2.approx.f32 %f0, %f1;", [f(8.0), 0, 0], f(3.0)),
        ("sin.approx.f32 %f0, %f1;", [0, 0, 0], 0),
        ("cos.approx.f32 %f0, %f1;", [0, 0, 0], f(1.0)),
        ("tanh.approx.f32 %f0, %f1;", [0, 0, 0], 0),
        ("add.f16x2 %r0, %r1, %r2;", [0x3C00_3C00, 0x4000_3C00, 0], 0x4200_4000),
        ("mul.f16 %h0, %h1, %h2;", [0x4000, 0x4200, 0], 0x4600),
        ("fma.rn.bf16x2 %r0, %r1, %r2, %r3;", [0x3F80_3F80, 0x4000_4000, 0x3F80_3F80], 0x4040_4040),
        ("fma.rn.relu.f16 %h0, %h1, %h2, %h3;", [0x3C00, 0xBC00, 0], 0),
        ("max.NaN.bf16 %h0, %h1, %h2;", [0x7FC0, 0x3F80, 0], 0x7FFF),
        ("neg.bf16x2 %r0, %r1;", [0x3F80_BF80, 0, 0], 0xBF80_3F80),
        ("mad.rn.f32 %f0, %f1, %f1, %f2;", [0x3F80_0800, f(-1.0), 0], 0x3A00_0400),
        ("fma.rz.f32 %f0, %f1, %f2, %f3;", [0x3F80_0001, 0x3F80_0001, f(-1.0)], 0x3480_0000),
        ("fma.rp.f32 %f0, %f1, %f2, %f3;", [0x3F80_0001, 0x3F80_0001, 0], 0x3F80_0003),
        ("fma.rn.ftz.f32 %f0, %f1, %f2, %f3;", [0x0080_0000, 0x3F00_0000, 0x0000_0001], 0),
        ("fma.rn.f32 %f0, %f1, %f2, %f3;", [0x0080_0000, 0x3F00_0000, 0x0000_0001], 0x0040_0001),
        ("min.ftz.f32 %f0, %f1, %f2;", [0x8000_0001, f(2.0), 0], 0x8000_0000),
        ("add.f32 %f0, %f1, %f2;", [0x7F80_0000, 0xFF80_0000, 0], 0x7FFF_FFFF),
        ("add.f16 %h0, %h1, %h2;", [0x7BFF, 0x7BFF, 0], 0x7C00),
        ("add.sat.f16x2 %r0, %r1, %r2;", [0xBC00_3C00, 0, 0], 0x0000_3C00),
        ("ex2.approx.f16x2 %r0, %r1;", [0x4200_3C00, 0, 0], 0x4800_4000),
        ("tanh.approx.f16 %h0, %h1;", [0x7C00, 0, 0], 0x3C00),
        ("tanh.approx.f32 %f0, %f1;", [0xFF80_0000, 0, 0], f(-1.0)),
        ("div.approx.f32 %f0, %f1, %f2;", [f(6.0), f(1.5), 0], f(4.0)),
        // Above 2^126 the reciprocal is lost.
        ("div.approx.f32 %f0, %f1, %f2;", [0x7F00_0000, 0x7F00_0000, 0], 0),
        ("div.approx.f32 %f0, %f1, %f2;", [0x7F80_0000, 0x7F00_0000, 0], 0x7FFF_FFFF),
        ("div.full.f32 %f0, %f1, %f2;", [0x7F00_0000, 0x7F00_0000, 0], f(1.0)),
        ("rcp.approx.ftz.f32 %f0, %f1;", [0x0000_0001, 0, 0], 0x7F80_0000),
        ("sqrt.rn.f32 %f0, %f1;", [f(-1.0), 0, 0], 0x7FFF_FFFF),
        ("lg2.approx.f32 %f0, %f1;", [0, 0, 0], 0xFF80_0000),
    ]);
}

#[test]
fn atomics_return_the_old_value_and_leave_the_new() {
    // The word starts as a, the operands are b and c.
    let atom = |op: &str| {
        format!(
            "st.global.b64 [%in], %d1; atom.global.{op}; ld.global.b32 %r5, [%in];
             mov.b64 %d0, {{%r5, %r4}};"
        )
    };
    for (op, operands, new) in [
        ("add.u32 %r4, [%in], %r2", [5, 3, 0], 8),
        ("min.s32 %r4, [%in], %r2", [5, MINUS, 0], MINUS),
        ("min.u32 %r4, [%in], %r2", [5, MINUS, 0], 5),
        ("max.u32 %r4, [%in], %r2", [5, MINUS, 0], MINUS),
        ("and.b32 %r4, [%in], %r2", [6, 3, 0], 2),
        ("or.b32 %r4, [%in], %r2", [6, 3, 0], 7),
        ("xor.b32 %r4, [%in], %r2", [6, 3, 0], 5),
        ("exch.b32 %r4, [%in], %r2", [6, 3, 0], 3),
        ("cas.b32 %r4, [%in], %r2, %r3", [6, 6, 9], 9),
        ("cas.b32 %r4, [%in], %r2, %r3", [6, 5, 9], 6),
        ("inc.u32 %r4, [%in], %r2", [6, 6, 0], 0),
        ("inc.u32 %r4, [%in], %r2", [5, 6, 0], 6),
        ("dec.u32 %r4, [%in], %r2", [0, 6, 0], 6),
        ("dec.u32 %r4, [%in], %r2", [5, 6, 0], 4),
        ("dec.u32 %r4, [%in], %r2", [7, 6, 0], 6),
        // 1.0 + 2.0 in both halves.
        ("add.noftz.f16x2 %r4, [%in], %r2", [0x3C00_3C00, 0x4000_4000, 0], 0x4200_4200),
        // A subnormal is flushed in global memory.
        ("add.f32 %r4, [%in], %f2", [1, 0, 0], 0),
    ] {
        let body = atom(op);
        // The old value of an f32 comes in a register of that type.
        let body = if op.contains(".f32") {
            body.replacen("%r4, [%in]", "%f4, [%in]", 1)
                .replace("mov.b64", "mov.b32 %r4, %f4; mov.b64")
        } else {
            body
        };
        assert_eq!(run(&body, operands), operands[0] << 32 | new, "{op} {operands:x?}");
    }
    // Shared memory keeps the subnormal.
    let shared = ".shared .align 16 .b8 tile[16]; mov.u32 %r5, tile; st.shared.b32 [%r5], %r1;
                  red.shared.add.f32 [%r5], %f2; ld.shared.b32 %r0, [%r5];";
    assert_eq!(run(shared, [1, 2, 0]), 3);
    assert_eq!(
        run(
            "st.global.b64 [%in], %d1; atom.global.cas.b16 %h4, [%in], %h2, %h3; ld.global.b32 %r0, [%in];",
            [0x7_0005, 5, 9]
        ),
        0x7_0009
    );
}

#[test]
fn every_threads_own_memory_constants_and_global_variables() {
    table(&[
        (
            ".local .align 8 .b8 own[32]; st.local.u32 [own+8], %r1; mov.u64 %d4, own;
             st.local.v2.u32 [%d4+16], {%r2, %r3}; cvta.local.u64 %d5, %d4; ld.u32 %r4, [%d5+8];
             ld.local.u32 %r5, [%d4+20]; add.u32 %r0, %r4, %r5;",
            [5, 6, 7],
            12,
        ),
        (
            ".const .align 8 .u16 steps[4] = {1, 20, 300}; mov.u64 %d4, steps; ld.const.u16 %r4, [%d4+2];
             cvta.const.u64 %d5, %d4; ld.u16 %r5, [%d5+4]; ld.const.u16 %r6, [steps+6];
             add.u32 %r4, %r4, %r5; add.u32 %r0, %r4, %r6;",
            [0, 0, 0],
            320,
        ),
        (".const .f32 pi = 3.140625; ld.const.f32 %f0, [pi];", [0, 0, 0], 0x4049_0000),
        (".const .s8 x[2] = {-1, 2}; ld.const.s8 %r0, [x];", [0, 0, 0], 0xFFFF_FFFF),
        (
            ".global .align 4 .u32 seen[2] = {40}; atom.global.add.u32 %r4, [seen], %r1;
             ld.global.u32 %r5, [seen]; ld.global.u32 %r6, [seen+4]; sub.u32 %r0, %r5, %r6;",
            [2, 0, 0],
            42,
        ),
    ]);
}

#[test]
fn vectors_of_atomics_and_wide_loads_on_newer_chips() {
    let newest = Options { chip: Chip::SM_120, ..Options::default() };
    let f = |x: f32| u64::from(x.to_bits());
    // Two at once: 1 + 2 and 3 + 4, the old pair comes back.
    let body = "mov.b64 %d4, {%r1, %r2}; st.global.b64 [%in], %d4;
        atom.global.add.v2.f32 {%f4, %f5}, [%in], {%f2, %f3}; ld.global.v2.f32 {%f6, %f7}, [%in];
        add.f32 %f6, %f6, %f7; add.f32 %f0, %f6, %f4;";
    assert_eq!(
        run_on(body, [f(1.0), f(2.0), f(4.0)], "sm_90", &newest),
        f(1.0 + 2.0 + 2.0 + 4.0 + 1.0)
    );
    let body = "mov.u32 %r4, 1; st.global.v8.b32 [%in], {%r1, %r2, %r3, %r4, %r4, %r4, %r4, %r1};
        .reg .b32 %w<8>; ld.global.v8.b32 {%w0, %w1, %w2, %w3, %w4, %w5, %w6, %w7}, [%in]; add.u32 %r0, %w0, %w7;";
    assert_eq!(run_on(body, [20, 0, 0], "sm_120", &newest), 40);
}

#[test]
fn approximate_results_move_when_asked() {
    let source = ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 o) {
        .reg .f32 %f<3>; .reg .b64 %d; ld.param.u64 %d, [o]; mov.f32 %f1, 0f40400000;
        ex2.approx.f32 %f2, %f1; st.global.f32 [%d], %f2; ret; }";
    let module = Module::parse("k", source).unwrap();
    let mut seen = std::collections::HashSet::new();
    for seed in 0..20 {
        let mut memory = Memory::new();
        let o = memory.alloc(4).unwrap();
        let options = Options { perturb: true, seed, ..Options::default() };
        run_launch(&module, &mut memory, &Launch::new("k", [1; 3], [1; 3]).ptr(o), &options)
            .unwrap();
        let y = f32::from_le_bytes(memory.read(o, 4).unwrap().try_into().unwrap());
        assert!((y - 8.0).abs() <= 8.0 * 2e-7, "{y}");
        seen.insert(y.to_bits());
    }
    assert!(seen.len() > 1);
}

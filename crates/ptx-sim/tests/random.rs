//! Integer and bit operations on random and extreme operands against plain Rust that says the same in
//! another way: loops over bits where the ISA gives a formula, wide integers where it speaks of halves.

use ptx_sim::{Launch, Memory, Module, Options, run_launch};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const N: usize = 1024;

/// Runs `body` on 1024 triples of 64-bit words: `%a %b %c` whole, `%r1..3` their low halves; the result is
/// `%d0`, or `%r0` widened.
fn run(body: &str, input: &[[u64; 3]]) -> Vec<u64> {
    let widen = if body.contains("%d0") { "" } else { "cvt.u64.u32 %d0, %r0;" };
    let source = format!(
        ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 i, .param .u64 o) {{
         .reg .b32 %r<8>, %t; .reg .b64 %d<8>, %a, %b, %c, %in, %out; .reg .pred %p;
         ld.param.u64 %in, [i]; ld.param.u64 %out, [o]; mov.u32 %t, %tid.x; mad.wide.u32 %in, %t, 24, %in;
         mad.wide.u32 %out, %t, 8, %out; ld.global.b64 %a, [%in]; ld.global.b64 %b, [%in+8]; ld.global.b64 %c, [%in+16];
         cvt.u32.u64 %r1, %a; cvt.u32.u64 %r2, %b; cvt.u32.u64 %r3, %c;\n{body}\n{widen} st.global.b64 [%out], %d0; ret; }}"
    );
    let module = Module::parse(body, &source).unwrap_or_else(|e| panic!("{e}"));
    let mut memory = Memory::new();
    let (i, o) = (memory.alloc(24 * N).unwrap(), memory.alloc(8 * N).unwrap());
    let bytes: Vec<u8> = input.iter().flatten().flat_map(|w| w.to_le_bytes()).collect();
    memory.write(i, &bytes).unwrap();
    let launch = Launch::new("k", [1; 3], [N as u32, 1, 1]).ptr(i).ptr(o);
    run_launch(&module, &mut memory, &launch, &Options::default())
        .unwrap_or_else(|e| panic!("{body}: {e}"));
    let bytes = memory.read(o, 8 * N).unwrap();
    bytes.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap())).collect()
}

fn operands(seed: u64) -> Vec<[u64; 3]> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut one = || match rng.random_range(0..6) {
        0 => [0, 1, 31, 32, 33, 63, 64, 255, 256][rng.random_range(0usize..9)],
        1 => [u64::MAX, 1 << 63, (1 << 63) - 1, 1 << 31, (1 << 31) - 1, 0xFFFF_FFFF]
            [rng.random_range(0usize..6)],
        2 => rng.random_range(0..80),
        _ => rng.random(),
    };
    (0..N).map(|_| [one(), one(), one()]).collect()
}

fn bit(x: u64, i: u32) -> u64 {
    x >> i & 1
}

/// The ISA's loop over the bits of a field.
fn bfe(a: u64, pos: u64, len: u64, width: u32, signed: bool) -> u64 {
    let (pos, len) = (pos as u8 as u32, len as u8 as u32);
    let msb = width - 1;
    let sign = if signed && len > 0 { bit(a, (pos + len - 1).min(msb)) } else { 0 };
    (0..width)
        .fold(0, |d, i| d | (if i < len && pos + i <= msb { bit(a, pos + i) } else { sign }) << i)
}

fn bfi(a: u64, b: u64, pos: u64, len: u64, width: u32) -> u64 {
    let (pos, len) = (pos as u8 as u32, len as u8 as u32);
    (0..width).fold(0, |f, i| {
        let inside = i >= pos && i - pos < len;
        f | (if inside { bit(a, i - pos) } else { bit(b, i) }) << i
    })
}

fn prmt(a: u64, b: u64, c: u64) -> u64 {
    let bytes = [(a as u32).to_le_bytes(), (b as u32).to_le_bytes()].concat();
    let pick = |n: u32| {
        let select = (c >> (4 * n)) as usize & 15;
        let byte = bytes[select & 7];
        if select > 7 { if byte > 127 { 0xFF } else { 0 } } else { byte }
    };
    u64::from(u32::from_le_bytes([pick(0), pick(1), pick(2), pick(3)]))
}

type Expected = fn(u64, u64, u64) -> u64;

#[test]
fn integers_and_bits() {
    let table: Vec<(&str, Expected)> = vec![
        ("add.s32 %r0, %r1, %r2;", |a, b, _| (a as u32).wrapping_add(b as u32).into()),
        ("sub.u64 %d0, %a, %b;", |a, b, _| a.wrapping_sub(b)),
        ("mul.lo.s64 %d0, %a, %b;", |a, b, _| (i128::from(a as i64) * i128::from(b as i64)) as u64),
        ("mul.hi.s64 %d0, %a, %b;", |a, b, _| {
            ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64
        }),
        ("mul.hi.u64 %d0, %a, %b;", |a, b, _| ((u128::from(a) * u128::from(b)) >> 64) as u64),
        ("mul.hi.s32 %r0, %r1, %r2;", |a, b, _| {
            ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32 as u64
        }),
        ("mul.wide.s32 %d0, %r1, %r2;", |a, b, _| {
            (i64::from(a as i32) * i64::from(b as i32)) as u64
        }),
        ("mad.wide.u32 %d0, %r1, %r2, %c;", |a, b, c| {
            (a & 0xFFFF_FFFF).wrapping_mul(b & 0xFFFF_FFFF).wrapping_add(c)
        }),
        ("mad.lo.u32 %r0, %r1, %r2, %r3;", |a, b, c| {
            (a as u32).wrapping_mul(b as u32).wrapping_add(c as u32).into()
        }),
        ("mad.hi.s32 %r0, %r1, %r2, %r3;", |a, b, c| {
            let high = ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as i32;
            high.wrapping_add(c as i32) as u32 as u64
        }),
        ("add.sat.s32 %r0, %r1, %r2;", |a, b, _| (a as i32).saturating_add(b as i32) as u32 as u64),
        ("sub.sat.s32 %r0, %r1, %r2;", |a, b, _| (a as i32).saturating_sub(b as i32) as u32 as u64),
        ("or.b64 %d1, %b, 1; div.s64 %d0, %a, %d1;", |a, b, _| {
            (a as i64).wrapping_div((b | 1) as i64) as u64
        }),
        ("or.b64 %d1, %b, 1; rem.u64 %d0, %a, %d1;", |a, b, _| a % (b | 1)),
        ("or.b32 %r2, %r2, 1; rem.s32 %r0, %r1, %r2;", |a, b, _| {
            (a as i32).wrapping_rem((b | 1) as i32) as u32 as u64
        }),
        ("min.s64 %d0, %a, %b;", |a, b, _| if (a as i64) < b as i64 { a } else { b }),
        ("max.u32 %r0, %r1, %r2;", |a, b, _| u64::from((a as u32).max(b as u32))),
        ("abs.s64 %d0, %a;", |a, _, _| (a as i64).wrapping_abs() as u64),
        ("neg.s32 %r0, %r1;", |a, _, _| (a as i32).wrapping_neg() as u32 as u64),
        ("popc.b64 %r0, %a;", |a, _, _| (0..64).map(|i| bit(a, i)).sum()),
        ("clz.b32 %r0, %r1;", |a, _, _| {
            (0..32).rev().take_while(|&i| bit(a, i) == 0).count() as u64
        }),
        ("brev.b64 %d0, %a;", |a, _, _| (0..64).fold(0, |r, i| r | bit(a, i) << (63 - i))),
        ("shl.b64 %d0, %a, %r2;", |a, b, _| a.checked_shl(b as u32).unwrap_or(0)),
        ("shr.u32 %r0, %r1, %r2;", |a, b, _| (a as u32).checked_shr(b as u32).unwrap_or(0).into()),
        ("shr.s64 %d0, %a, %r2;", |a, b, _| ((a as i64) >> (b as u32).min(63)) as u64),
        ("shf.l.wrap.b32 %r0, %r1, %r2, %r3;", |a, b, c| {
            (0..c as u32 % 32).fold(b << 32 | a & 0xFFFF_FFFF, |x, _| x << 1) >> 32
        }),
        ("shf.r.clamp.b32 %r0, %r1, %r2, %r3;", |a, b, c| {
            (0..(c as u32).min(32)).fold((b & 0xFFFF_FFFF) << 32 | a & 0xFFFF_FFFF, |x, _| x >> 1)
                & 0xFFFF_FFFF
        }),
        ("lop3.b32 %r0, %r1, %r2, %r3, 0xCA;", |a, b, c| {
            u64::from((a as u32 & b as u32) | (!(a as u32) & c as u32))
        }),
        ("lop3.b32 %r0, %r1, %r2, %r3, 0x2D;", |a, b, c| {
            (0..32).fold(0, |r, i| {
                r | (0x2D >> (bit(a, i) << 2 | bit(b, i) << 1 | bit(c, i)) & 1) << i
            })
        }),
        ("prmt.b32 %r0, %r1, %r2, %r3;", prmt),
        ("bfe.u32 %r0, %r1, %r2, %r3;", |a, b, c| bfe(a & 0xFFFF_FFFF, b, c, 32, false)),
        ("bfe.s32 %r0, %r1, %r2, %r3;", |a, b, c| bfe(a & 0xFFFF_FFFF, b, c, 32, true)),
        ("bfe.s64 %d0, %a, %r2, %r3;", |a, b, c| bfe(a, b, c, 64, true)),
        ("bfi.b32 %r0, %r1, %r2, %r3, 9;", |a, b, c| {
            bfi(a & 0xFFFF_FFFF, b & 0xFFFF_FFFF, c, 9, 32)
        }),
        ("bfi.b64 %d0, %a, %b, 5, %r3;", |a, b, c| bfi(a, b, 5, c, 64)),
        ("setp.lt.s64 %p, %a, %b; selp.u32 %r0, 1, 0, %p;", |a, b, _| {
            u64::from((a as i64) < b as i64)
        }),
        ("setp.hs.u32 %p, %r1, %r2; selp.u32 %r0, 1, 0, %p;", |a, b, _| {
            u64::from(a as u32 >= b as u32)
        }),
        ("setp.le.s16 %p, %h1, %h2; selp.u32 %r0, 1, 0, %p;", |a, b, _| {
            u64::from(a as i16 <= b as i16)
        }),
        ("cvt.s64.s8 %d0, %r1;", |a, _, _| i64::from(a as i8) as u64),
        ("cvt.sat.s16.s64 %d0, %a;", |a, _, _| {
            (a as i64).clamp(i16::MIN.into(), i16::MAX.into()) as u64
        }),
        ("cvt.sat.u32.s64 %r0, %a;", |a, _, _| (a as i64).clamp(0, u32::MAX.into()) as u64),
        ("cvt.rn.f32.u64 %f0, %a; mov.b32 %r0, %f0;", |a, _, _| u64::from((a as f32).to_bits())),
        ("cvt.rn.f32.s32 %f0, %r1; mov.b32 %r0, %f0;", |a, _, _| {
            u64::from((a as i32 as f32).to_bits())
        }),
        ("mov.b32 %f0, %r1; cvt.rzi.s32.f32 %r0, %f0;", |a, _, _| {
            f32::from_bits(a as u32) as i32 as u32 as u64
        }),
        ("mov.b64 %g0, %a; cvt.rzi.u64.f64 %d0, %g0;", |a, _, _| {
            let x = f64::from_bits(a);
            if x.is_nan() { 1 << 63 } else { x as u64 }
        }),
        ("mov.b64 %g0, %a; cvt.rn.f32.f64 %f0, %g0; mov.b32 %r0, %f0;", |a, _, _| {
            let x = f64::from_bits(a) as f32;
            u64::from(if x.is_nan() { 0x7FFF_FFFF } else { x.to_bits() })
        }),
    ];
    let mut wrong = Vec::new();
    for (seed, (body, expected)) in table.into_iter().enumerate() {
        let input = operands(seed as u64);
        let body = format!(
            ".reg .b16 %h<4>; .reg .f32 %f<4>; .reg .f64 %g<4>; cvt.u16.u64 %h1, %a; cvt.u16.u64 %h2, %b;\n{body}"
        );
        let got = run(&body, &input);
        if let Some((i, got)) = got.iter().enumerate().find(|(i, got)| {
            let [a, b, c] = input[*i];
            **got != expected(a, b, c)
        }) {
            let [a, b, c] = input[i];
            wrong.push(format!(
                "{body} of {a:#x} {b:#x} {c:#x}: {got:#x}, expected {:#x}",
                expected(a, b, c)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

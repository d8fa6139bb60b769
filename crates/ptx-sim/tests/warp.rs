//! What a warp does together, against layouts written out from the ISA's text (sections "Matrix
//! fragments for mma" and "ldmatrix", "shfl.sync", "vote.sync", "redux.sync").

use half::{bf16, f16};
use ptx_sim::{Launch, Memory, MmaModel, Module, Options, run_launch};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const LANES: std::ops::Range<usize> = 0..32;

/// Runs a warp on 32-bit words: `n` in and `m` out per lane, in `%i0..` and `%o0..`.
fn warp(body: &str, n: usize, m: usize, input: &[[u32; 32]], options: &Options) -> Vec<[u32; 32]> {
    let loads: String =
        (0..n).map(|i| format!("ld.global.b32 %i{i}, [%in+{}];\n", 128 * i)).collect();
    let stores: String =
        (0..m).map(|i| format!("st.global.b32 [%out+{}], %o{i};\n", 128 * i)).collect();
    let source = format!(
        ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 i, .param .u64 o) {{
         .reg .b32 %i<12>, %o<12>, %t<4>; .reg .b64 %in, %out, %l; .reg .pred %p<4>; .reg .f32 %c<4>, %e<4>;
         .shared .align 16 .b8 tile[512];
         ld.param.u64 %in, [i]; ld.param.u64 %out, [o]; mov.u32 %t0, %laneid; mul.wide.u32 %l, %t0, 4;
         add.u64 %in, %in, %l; add.u64 %out, %out, %l;\n{loads}{body}\n{stores} ret; }}"
    );
    let module = Module::parse(body, &source).unwrap_or_else(|e| panic!("{e}\n{source}"));
    let mut memory = Memory::new();
    let (i, o) = (memory.alloc(128 * n.max(1)).unwrap(), memory.alloc(128 * m).unwrap());
    let bytes: Vec<u8> = input.iter().flatten().flat_map(|w| w.to_le_bytes()).collect();
    memory.write(i, &bytes).unwrap();
    let launch = Launch::new("k", [1; 3], [32, 1, 1]).ptr(i).ptr(o);
    run_launch(&module, &mut memory, &launch, options).unwrap_or_else(|e| panic!("{body}: {e}"));
    let bytes = memory.read(o, 128 * m).unwrap();
    let words: Vec<u32> =
        bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    words.chunks_exact(32).map(|w| w.try_into().unwrap()).collect()
}

#[derive(Clone, Copy, PartialEq)]
enum Type {
    F16,
    Bf16,
    Tf32,
}

impl Type {
    fn bits(self, x: f32) -> u32 {
        match self {
            Type::F16 => f16::from_f32(x).to_bits().into(),
            Type::Bf16 => bf16::from_f32(x).to_bits().into(),
            Type::Tf32 => x.to_bits(),
        }
    }
}

/// (row, k) of element `i` of A in a lane.
fn a_place(ty: Type, k: usize, lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    match (ty, k) {
        // row = groupID for a0, a1, a4, a5, else groupID + 8;
        // col = threadID·2 + (i & 1) for i < 4, else + 8.
        (Type::F16 | Type::Bf16, 16) => (
            if i < 2 || (4..6).contains(&i) { group } else { group + 8 },
            if i < 4 { thread * 2 + (i & 1) } else { thread * 2 + (i & 1) + 8 },
        ),
        // row = groupID for a0, a1, groupID + 8 for a2, a3; col = threadID·2 + (i & 1).
        (Type::F16 | Type::Bf16, _) => {
            (if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1))
        }
        // row = groupID for a0 and a2, groupID + 8 for a1 and a3; col = threadID for a0, a1, else + 4.
        (Type::Tf32, _) => (
            if i.is_multiple_of(2) { group } else { group + 8 },
            if i < 2 { thread } else { thread + 4 },
        ),
    }
}

/// (k, column) of element `i` of B.
fn b_place(ty: Type, k: usize, lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    match (ty, k) {
        (Type::F16 | Type::Bf16, 16) => (thread * 2 + (i & 1) + if i < 2 { 0 } else { 8 }, group),
        (Type::F16 | Type::Bf16, _) => (thread * 2 + i, group),
        (Type::Tf32, _) => (thread + if i == 0 { 0 } else { 4 }, group),
    }
}

/// (row, column) of element `i` of C and D, in all shapes.
fn c_place(lane: usize, i: usize) -> (usize, usize) {
    (if i < 2 { lane >> 2 } else { (lane >> 2) + 8 }, (lane % 4) * 2 + (i & 1))
}

fn words(per: usize, n: usize, of: impl Fn(usize, usize) -> u32) -> Vec<[u32; 32]> {
    (0..n / per)
        .map(|r| {
            std::array::from_fn(|lane| {
                (0..per).fold(0, |w, e| w | of(lane, r * per + e) << (16 * e))
            })
        })
        .collect()
}

fn mma(ty: Type, k: usize, half: bool, model: MmaModel) {
    let mut rng = StdRng::seed_from_u64(k as u64);
    // Multiples of 1/8 up to 2: exact in every type, and sums exact in f32.
    let mut value = || f32::from(rng.random_range(-16i8..=16)) / 8.0;
    let a: Vec<f32> = (0..16 * k).map(|_| value()).collect();
    let b: Vec<f32> = (0..k * 8).map(|_| value()).collect();
    let c: Vec<f32> = (0..16 * 8).map(|_| value()).collect();
    let per = if ty == Type::Tf32 { 1 } else { 2 };
    let mut input = words(per, 16 * k / 32, |lane, i| {
        let (row, col) = a_place(ty, k, lane, i);
        ty.bits(a[row * k + col])
    });
    let na = input.len();
    input.extend(words(per, 8 * k / 32, |lane, i| {
        let (row, col) = b_place(ty, k, lane, i);
        ty.bits(b[row * 8 + col])
    }));
    let nb = input.len() - na;
    let c_bits = |lane, i| {
        let (row, col) = c_place(lane, i);
        if half { Type::F16.bits(c[row * 8 + col]) } else { c[row * 8 + col].to_bits() }
    };
    input.extend(words(if half { 2 } else { 1 }, 4, c_bits));
    let nc = input.len() - na - nb;
    let names = |prefix: &str, from: usize, n: usize| {
        (from..from + n).map(|i| format!("%{prefix}{i}")).collect::<Vec<_>>().join(", ")
    };
    let name = match ty {
        Type::F16 => "f16",
        Type::Bf16 => "bf16",
        Type::Tf32 => "tf32",
    };
    let acc = if half { "f16" } else { "f32" };
    let op = format!("mma.sync.aligned.m16n8k{k}.row.col.{acc}.{name}.{name}.{acc}");
    let (ra, rb) = (names("i", 0, na), names("i", na, nb));
    let body = if half {
        format!(
            "{op} {{{}}}, {{{ra}}}, {{{rb}}}, {{{}}};",
            names("o", 0, 2),
            names("i", na + nb, 2)
        )
    } else {
        let moves: String =
            (0..4).map(|i| format!("mov.b32 %c{i}, %i{};\n", na + nb + i)).collect();
        let back: String = (0..4).map(|i| format!("mov.b32 %o{i}, %e{i};\n")).collect();
        format!(
            "{moves}{op} {{{}}}, {{{ra}}}, {{{rb}}}, {{{}}};\n{back}",
            names("e", 0, 4),
            names("c", 0, 4)
        )
    };
    let options = Options { mma: model, seed: 11, ..Options::default() };
    let out = warp(&body, input.len(), nc, &input, &options);
    for lane in LANES {
        for i in 0..4 {
            let (row, col) = c_place(lane, i);
            let want = (0..k).fold(c[row * 8 + col], |s, l| s + a[row * k + l] * b[l * 8 + col]);
            let got = if half {
                f16::from_bits((out[i / 2][lane] >> (16 * (i % 2))) as u16).to_f32()
            } else {
                f32::from_bits(out[i][lane])
            };
            let want = if half { f16::from_f32(want).to_f32() } else { want };
            assert_eq!(got, want, "{op}, {model:?}: row {row} column {col}");
        }
    }
}

#[test]
fn every_mma_against_a_plain_product() {
    for model in [MmaModel::Exact, MmaModel::RandomOrder, MmaModel::Ampere, MmaModel::Hopper] {
        mma(Type::F16, 16, false, model);
        mma(Type::F16, 8, false, model);
        mma(Type::F16, 16, true, model);
        mma(Type::F16, 8, true, model);
        mma(Type::Bf16, 16, false, model);
        mma(Type::Bf16, 8, false, model);
        mma(Type::Tf32, 8, false, model);
        mma(Type::Tf32, 4, false, model);
    }
}

#[test]
fn ldmatrix_in_all_sizes() {
    // The tile holds its own element numbers: matrix m, row r, column c is 64·m + 8·r + c.
    let fill = "mov.u32 %t1, tile; mad.lo.u32 %t1, %t0, 16, %t1;
                st.shared.v4.b32 [%t1], {%i0, %i1, %i2, %i3}; bar.warp.sync 0xFFFFFFFF;\n";
    let element = |m: usize, r: usize, c: usize| (64 * m + 8 * r + c) as u32;
    let input: Vec<[u32; 32]> = (0..4)
        .map(|w| {
            std::array::from_fn(|lane| {
                let e = |x| element(lane / 8, lane % 8, x);
                e(2 * w) | e(2 * w + 1) << 16
            })
        })
        .collect();
    for n in [1, 2, 4] {
        for trans in [false, true] {
            let names = (0..n).map(|i| format!("%o{i}")).collect::<Vec<_>>().join(", ");
            let t = if trans { ".trans" } else { "" };
            let body =
                format!("{fill}ldmatrix.sync.aligned.m8n8.x{n}{t}.shared.b16 {{{names}}}, [%t1];");
            let out = warp(&body, 4, n, &input, &Options::default());
            for (m, words) in out.iter().enumerate() {
                for (lane, &word) in words.iter().enumerate() {
                    let (row, col) = (lane / 4, 2 * (lane % 4));
                    let want = if trans {
                        element(m, col, row) | element(m, col + 1, row) << 16
                    } else {
                        element(m, row, col) | element(m, row, col + 1) << 16
                    };
                    assert_eq!(word, want, "x{n}{t} matrix {m} lane {lane}");
                }
            }
        }
    }
}

#[test]
fn shuffles() {
    let input = [std::array::from_fn(|l| 100 + l as u32)];
    /// Lane to (source lane, predicate).
    type Source = fn(usize) -> (usize, bool);
    let cases: [(&str, Source); 6] = [
        // Clamp 0: the first lane of the segment is the end.
        ("up.b32 %o0|%p1, %i0, 3, 0", |l| if l >= 3 { (l - 3, true) } else { (l, false) }),
        ("down.b32 %o0|%p1, %i0, 3, 31", |l| if l + 3 < 32 { (l + 3, true) } else { (l, false) }),
        ("bfly.b32 %o0|%p1, %i0, 5, 31", |l| (l ^ 5, true)),
        ("idx.b32 %o0|%p1, %i0, 7, 31", |_| (7, true)),
        // Segments of 8: mask 0x18 above the clamp 7.
        ("idx.b32 %o0|%p1, %i0, 2, 0x1807", |l| (l / 8 * 8 + 2, true)),
        (
            "down.b32 %o0|%p1, %i0, 1, 0x1807",
            |l| if l % 8 < 7 { (l + 1, true) } else { (l, false) },
        ),
    ];
    for (text, want) in cases {
        let body = format!("shfl.sync.{text}, 0xFFFFFFFF; selp.u32 %o1, 1, 0, %p1;");
        let out = warp(&body, 1, 2, &input, &Options::default());
        for lane in LANES {
            let (from, inside) = want(lane);
            assert_eq!(
                (out[0][lane], out[1][lane]),
                (100 + from as u32, inside.into()),
                "{text} lane {lane}"
            );
        }
    }
}

#[test]
fn votes_and_reductions() {
    let input = [std::array::from_fn(|l| l as u32)];
    let one = |body: &str| warp(body, 1, 1, &input, &Options::default())[0];
    let ask = "setp.lt.u32 %p1, %i0, 5;";
    assert_eq!(one(&format!("{ask} vote.sync.ballot.b32 %o0, %p1, 0xFFFFFFFF;")), [0x1F; 32]);
    assert_eq!(
        one(&format!("{ask} vote.sync.any.pred %p2, %p1, -1; selp.u32 %o0, 1, 0, %p2;")),
        [1; 32]
    );
    assert_eq!(
        one(&format!("{ask} vote.sync.all.pred %p2, !%p1, -1; selp.u32 %o0, 1, 0, %p2;")),
        [0; 32]
    );
    assert_eq!(one("redux.sync.add.u32 %o0, %i0, -1;"), [496; 32]);
    assert_eq!(one("redux.sync.max.s32 %o0, %i0, -1;"), [31; 32]);
    assert_eq!(one("redux.sync.xor.b32 %o0, %i0, -1;"), [0; 32]);
    assert_eq!(one("activemask.b32 %o0;"), [u32::MAX; 32]);
    // Who holds the same value: lanes l and l + 16 here.
    let pairs = "and.b32 %t1, %i0, 15;";
    let out = one(&format!("{pairs} match.any.sync.b32 %o0, %t1, -1;"));
    assert_eq!(out, std::array::from_fn(|l| 0x1_0001 << (l % 16)));
    let ask =
        "match.all.sync.b32 %o0|%p1, %t1, -1; selp.u32 %t2, 1, 0, %p1; add.u32 %o0, %o0, %t2;";
    assert_eq!(one(&format!("{pairs} {ask}")), [0; 32]);
    assert_eq!(
        one(&format!("mov.u32 %t1, 7; {ask}")),
        [0; 32],
        "all lanes and a true predicate: 2^32 - 1 + 1"
    );
    // Two halves with masks of their own.
    let halves = "setp.lt.u32 %p1, %i0, 16; selp.u32 %t1, 0xFFFF, 0xFFFF0000, %p1;";
    let out = one(&format!("{halves} redux.sync.min.u32 %o0, %i0, %t1;"));
    assert_eq!((out[0], out[31]), (0, 16));
    // A part of the warp alone.
    let out =
        one("mov.u32 %o0, 7; setp.lt.u32 %p1, %i0, 4; @%p1 redux.sync.add.u32 %o0, %i0, 0xF;");
    assert_eq!((out[3], out[4]), (6, 7));
    let out = one("mov.u32 %o0, %lanemask_lt; mov.u32 %t1, %lanemask_ge; or.b32 %o0, %o0, %t1;");
    assert_eq!(out, [u32::MAX; 32]);
}

#[test]
fn lanes_that_have_exited_drop_out_of_their_groups() {
    // The upper half leaves; the full mask still names it.
    let body =
        |op: &str| format!("mov.u32 %o0, 9; setp.ge.u32 %p1, %i0, 16; @%p1 bra STORE; {op} STORE:");
    let leave = |op: &str| {
        format!("setp.ge.u32 %p1, %i0, 16; @%p1 st.global.b32 [%out], %i0; @%p1 exit; {op}")
    };
    let input = [std::array::from_fn(|l| l as u32)];
    let run = |text: &str| warp(text, 1, 1, &input, &Options::default())[0];
    assert_eq!(run(&leave("redux.sync.add.u32 %o0, %i0, -1;"))[..16], [120; 16]);
    assert_eq!(run(&leave("vote.sync.ballot.b32 %o0, %p1, -1;"))[..16], [0; 16]);
    assert_eq!(
        run(&leave("vote.sync.all.pred %p2, !%p1, -1; selp.u32 %o0, 1, 0, %p2;"))[..16],
        [1; 16]
    );
    assert_eq!(
        run(&leave("bar.warp.sync -1; shfl.sync.bfly.b32 %o0, %i0, 8, 31, -1;"))[..2],
        [8, 9]
    );
    // Without an exit they are missed, and a value of an exited lane is nobody's.
    for text in [
        body("redux.sync.add.u32 %o0, %i0, -1;"),
        leave("shfl.sync.bfly.b32 %o0, %i0, 16, 31, -1;"),
    ] {
        let text = std::panic::AssertUnwindSafe(|| run(&text));
        let said = *std::panic::catch_unwind(text).unwrap_err().downcast::<String>().unwrap();
        assert!(said.contains("PartialWarp"), "{said}");
    }
}

#[test]
fn divergent_lanes_meet_again() {
    // Lane l loops l times; the sums meet in one shuffle-free vote afterwards.
    let body = "mov.u32 %o0, 0; mov.u32 %t1, 0;
        LOOP: setp.ge.u32 %p1, %t1, %i0; @%p1 bra OUT; add.u32 %t1, %t1, 1; add.u32 %o0, %o0, 2; bra LOOP;
        OUT: setp.eq.u32 %p2, %t1, %i0; vote.sync.ballot.b32 %o1, %p2, 0xFFFFFFFF;";
    let input = [std::array::from_fn(|l| l as u32)];
    let out = warp(body, 1, 2, &input, &Options::default());
    assert_eq!(out[0], std::array::from_fn(|l| 2 * l as u32));
    assert_eq!(out[1], [u32::MAX; 32]);
}

#[test]
fn lanes_of_a_warp_may_wait_for_each_other() {
    // Lane 31 raises the word that the others poll: lowest-pc order alone would never get there.
    let body = "mov.u32 %t1, tile; mov.u32 %t2, 0; setp.eq.u32 %p1, %t0, 0; @%p1 st.shared.u32 [%t1], %t2;
        bar.warp.sync -1; setp.eq.u32 %p2, %t0, 31; @%p2 bra RAISE;
        POLL: ld.relaxed.cta.shared.u32 %t3, [%t1]; setp.eq.u32 %p3, %t3, 0; @%p3 bra POLL; bra.uni END;
        RAISE: mov.u32 %t3, 1; st.relaxed.cta.shared.u32 [%t1], %t3;
        END: mov.u32 %o0, %t3;";
    assert_eq!(warp(body, 0, 1, &[], &Options::default())[0], [1; 32]);
}

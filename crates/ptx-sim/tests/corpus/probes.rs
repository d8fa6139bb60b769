//! The conformance corpus: small kernels that each show one form of an instruction, or where one layout puts
//! its elements. Every one is a launch of one block, `f(out, in, map)`. Recorded on a real GPU by the
//! `corpus` example of `ptx-sim-driver`, replayed by `tests/corpus.rs`.

/// A tensor over the input, as the kernel's map describes it: element bytes (2: bf16, 4: f32), the numbers
/// of elements and of a box, innermost first, and the swizzle's bytes.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) element: u32,
    pub(crate) dims: Vec<u64>,
    pub(crate) boxes: Vec<u32>,
    pub(crate) swizzle: u32,
    /// It lies over the output instead.
    pub(crate) out: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Probe {
    /// Unique; the form it shows comes first.
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) threads: u32,
    /// Dynamic shared memory.
    pub(crate) shared: u32,
    /// Words of 32 bits that it leaves.
    pub(crate) words: usize,
    pub(crate) input: Vec<u8>,
    pub(crate) tensor: Option<Tensor>,
}

/// Bytes by number, all different from their neighbours.
fn noise(n: usize, salt: u64) -> Vec<u8> {
    let mut state = salt.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

/// Integers from -4 to 4 as f16, bf16 or f32: every sum of a few of them is exact.
fn integers(n: usize, ty: &str) -> Vec<u8> {
    noise(n, 7)
        .iter()
        .flat_map(|&b| {
            let x = f32::from(b % 9) - 4.0;
            match ty {
                "tf32" => x.to_bits().to_le_bytes().to_vec(),
                "bf16" => ((x.to_bits() >> 16) as u16).to_le_bytes().to_vec(),
                _ => half(x).to_le_bytes().to_vec(),
            }
        })
        .collect()
}

/// f16 of a small integer.
fn half(x: f32) -> u16 {
    let bits = x.to_bits();
    if x == 0.0 {
        return 0;
    }
    let exponent = (bits >> 23 & 0xFF) - 127 + 15;
    (bits >> 16 & 0x8000 | exponent << 10 | bits >> 13 & 0x3FF) as u16
}

fn kernel(target: &str, threads: u32, body: &str) -> String {
    format!(
        ".version 8.0\n.target {target}\n.address_size 64\n.extern .shared .align 1024 .b8 s[];\n\
         .visible .entry f(.param .u64 out, .param .u64 in, .param .align 64 .b8 map[128])\n\
         .maxntid {threads}, 1, 1\n.minnctapersm 1\n{{\n\
         .shared .align 8 .b64 bar; .reg .pred %p<8>; .reg .b16 %h<8>; .reg .b32 %t, %s, %b, %r<96>;\n\
         .reg .b64 %out, %in, %map, %x, %d<8>; .reg .f32 %f<136>;\n\
         mov.u32 %t, %tid.x; mov.u32 %s, s; mov.u32 %b, bar; setp.ne.u32 %p7, %t, 0;\n\
         ld.param.u64 %out, [out]; ld.param.u64 %in, [in]; mov.b64 %map, map; cvta.param.u64 %map, %map;\n\
         {body}\nret;\n}}\n"
    )
}

/// A loop in which all threads move `bytes` a word at a time; the body has `%r91` (offset) and `%x`.
fn each_word(label: &str, bytes: u32, threads: u32, from: &str, body: &str) -> String {
    format!(
        "shl.b32 %r91, %t, 2;\n{label}: setp.ge.u32 %p6, %r91, {bytes}; @%p6 bra {label}_END;\n\
         cvt.u64.u32 %x, %r91; add.u64 %x, %x, {from}; add.u32 %r92, %s, %r91;\n\
         {body}\nadd.u32 %r91, %r91, {}; bra {label};\n{label}_END:\n",
        4 * threads
    )
}

const TO_SHARED: &str = "ld.global.u32 %r93, [%x]; st.shared.u32 [%r92], %r93;";
const FROM_SHARED: &str = "ld.shared.u32 %r93, [%r92]; st.global.u32 [%x], %r93;";

pub(crate) fn all() -> Vec<Probe> {
    let mut out = scalar();
    out.extend(fragments());
    out.extend(tensors());
    out.extend(wgmma());
    out.extend(engines());
    out
}

/// One instruction on three words of every thread.
fn scalar() -> Vec<Probe> {
    let forms = [
        "bfind.u32 %r0, %r1;",
        "bfind.s32 %r0, %r1;",
        "bfind.shiftamt.u32 %r0, %r1;",
        "bfind.shiftamt.s32 %r0, %r1;",
        "clz.b32 %r0, %r1;",
        "popc.b32 %r0, %r1;",
        "brev.b32 %r0, %r1;",
        "bfe.u32 %r0, %r1, 5, 9;",
        "bfe.s32 %r0, %r1, %r2, %r3;",
        "bfi.b32 %r0, %r1, %r2, 7, 11;",
        "prmt.b32 %r0, %r1, %r2, 0x7531;",
        "prmt.b32.f4e %r0, %r1, %r2, %r3;",
        "lop3.b32 %r0, %r1, %r2, %r3, 0x96;",
        "shf.l.wrap.b32 %r0, %r1, %r2, %r3;",
        "shf.r.clamp.b32 %r0, %r1, %r2, %r3;",
        "mul.hi.u32 %r0, %r1, %r2;",
        "mad.lo.s32 %r0, %r1, %r2, %r3;",
        "mad.hi.sat.s32 %r0, %r1, %r2, %r3;",
        "add.sat.s32 %r0, %r1, %r2;",
        "rem.u32 %r0, %r1, 7;",
        "div.s32 %r0, %r1, 9;",
        "fma.rn.f32 %f0, %f1, %f2, %f3; mov.b32 %r0, %f0;",
        "fma.rz.f32 %f0, %f1, %f2, %f3; mov.b32 %r0, %f0;",
        "fma.rn.ftz.f32 %f0, %f1, %f2, %f3; mov.b32 %r0, %f0;",
        "add.rm.f32 %f0, %f1, %f2; mov.b32 %r0, %f0;",
        "mul.rp.f32 %f0, %f1, %f2; mov.b32 %r0, %f0;",
        "div.rn.f32 %f0, %f1, %f2; mov.b32 %r0, %f0;",
        "sqrt.rn.f32 %f0, %f1; mov.b32 %r0, %f0;",
        "max.NaN.f32 %f0, %f1, %f2; mov.b32 %r0, %f0;",
        "fma.rn.f16x2 %r0, %r1, %r2, %r3;",
        "fma.rn.bf16x2 %r0, %r1, %r2, %r3;",
        "fma.rn.relu.f16x2 %r0, %r1, %r2, %r3;",
        "max.f16x2 %r0, %r1, %r2;",
        "cvt.rn.f16x2.f32 %r0, %f1, %f2;",
        "cvt.rn.bf16x2.f32 %r0, %f1, %f2;",
        "cvt.rz.bf16x2.f32 %r0, %f1, %f2;",
        "cvt.rna.tf32.f32 %r0, %f1;",
        "cvt.rni.s32.f32 %r0, %f1;",
        "cvt.rzi.u32.f32 %r0, %f1;",
        "cvt.rn.f32.s32 %f0, %r1; mov.b32 %r0, %f0;",
        "cvt.sat.s8.s32 %r0, %r1;",
        "ex2.approx.f32 %f0, 0f40400000; mov.b32 %r0, %f0;",
        "redux.sync.add.s32 %r0, %r1, 0xFFFFFFFF;",
        "redux.sync.max.u32 %r0, %r1, 0xFFFFFFFF;",
        "shfl.sync.bfly.b32 %r0, %r1, 5, 31, 0xFFFFFFFF;",
        "shfl.sync.up.b32 %r0|%p0, %r1, 3, 0, 0xFFFFFFFF; @!%p0 xor.b32 %r0, %r0, 1;",
        "and.b32 %r2, %r1, 3; match.any.sync.b32 %r0, %r2, 0xFFFFFFFF;",
    ];
    forms
        .iter()
        .map(|form| {
            let body = format!(
                "mad.wide.u32 %in, %t, 12, %in; mad.wide.u32 %out, %t, 4, %out;\n\
                 ld.global.u32 %r1, [%in]; ld.global.u32 %r2, [%in+4]; ld.global.u32 %r3, [%in+8];\n\
                 mov.b32 %f1, %r1; mov.b32 %f2, %r2; mov.b32 %f3, %r3;\n{form}\nst.global.u32 [%out], %r0;"
            );
            probe(form, "sm_80", 32, 0, 32, noise(12 * 32, form.len() as u64), &body)
        })
        .collect()
}

fn probe(
    name: &str,
    target: &str,
    threads: u32,
    shared: u32,
    words: usize,
    input: Vec<u8>,
    body: &str,
) -> Probe {
    Probe {
        name: name.replace(['\n', '='], " "),
        text: kernel(target, threads, body),
        threads,
        shared,
        words,
        input,
        tensor: None,
    }
}

/// `ldmatrix`, `stmatrix` and `mma.sync`: which lane holds what.
fn fragments() -> Vec<Probe> {
    let mut out = Vec::new();
    for trans in ["", ".trans"] {
        let load = format!(
            "{}bar.sync 0; mad.lo.u32 %r0, %t, 16, %s;\n\
             ldmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 {{%r4, %r5, %r6, %r7}}, [%r0];\n\
             mad.wide.u32 %out, %t, 16, %out; st.global.v4.u32 [%out], {{%r4, %r5, %r6, %r7}};",
            each_word("A", 512, 32, "%in", TO_SHARED)
        );
        let name = format!("ldmatrix.sync.aligned.m8n8.x4{trans}.shared.b16");
        out.push(probe(&name, "sm_80", 32, 512, 128, noise(512, 3), &load));
        let store = format!(
            "mad.wide.u32 %in, %t, 16, %in; ld.global.v4.u32 {{%r4, %r5, %r6, %r7}}, [%in]; mad.lo.u32 %r0, %t, 16, %s;\n\
             stmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 [%r0], {{%r4, %r5, %r6, %r7}}; bar.sync 0;\n{}",
            each_word("B", 512, 32, "%out", FROM_SHARED)
        );
        let name = format!("stmatrix.sync.aligned.m8n8.x4{trans}.shared.b16");
        out.push(probe(&name, "sm_90", 32, 512, 128, noise(512, 4), &store));
    }
    for (shape, ty, k) in [("m16n8k16", "f16", 4), ("m16n8k16", "bf16", 4), ("m16n8k8", "tf32", 4)]
    {
        for exact in [true, false] {
            let body = format!(
                "mad.wide.u32 %in, %t, 40, %in; mad.wide.u32 %out, %t, 16, %out;\n\
                 ld.global.v2.u32 {{%r0, %r1}}, [%in]; ld.global.v2.u32 {{%r2, %r3}}, [%in+8];\n\
                 ld.global.v2.u32 {{%r4, %r5}}, [%in+16];\n\
                 mov.f32 %f0, 0f3F800000; mov.f32 %f1, 0f40000000; mov.f32 %f2, 0f40400000; mov.f32 %f3, 0f40800000;\n\
                 mma.sync.aligned.{shape}.row.col.f32.{ty}.{ty}.f32 {{%f0, %f1, %f2, %f3}}, {{%r0, %r1, %r2, %r3}}, \
                 {{%r4, %r5}}, {{%f0, %f1, %f2, %f3}};\n\
                 st.global.v4.f32 [%out], {{%f0, %f1, %f2, %f3}};"
            );
            let input = if exact { integers(40 * 32 / 2, ty) } else { mantissas(40 * 32 / k, ty) };
            let kind = if exact { "layout" } else { "rounding" };
            let name = format!("mma.sync.aligned.{shape}.row.col.f32.{ty}.{ty}.f32 {kind}");
            out.push(probe(&name, "sm_80", 32, 0, 128, input, &body));
        }
    }
    out
}

/// Values near one with all bits of the fraction in use: their sums are rounded.
fn mantissas(words: usize, ty: &str) -> Vec<u8> {
    let bytes = noise(4 * words, 11);
    let words = bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    words
        .flat_map(|w| {
            let word = match ty {
                "tf32" => w & 0x81FF_E000 | 0x3E00_0000,
                "bf16" => w & 0x81FF_81FF | 0x3E00_3E00,
                _ => w & 0x8FFF_8FFF | 0x3000_3000,
            };
            word.to_le_bytes()
        })
        .collect()
}

/// Boxes of every swizzle, inside and over the edges; loads, stores and sums.
fn tensors() -> Vec<Probe> {
    let mut out = Vec::new();
    for swizzle in [0u32, 32, 64, 128] {
        for (element, rank) in [(2u32, 1usize), (2, 2), (4, 2), (2, 3)] {
            let inner = if swizzle == 0 { 64 } else { swizzle } / element;
            let dims = [u64::from(inner) + 16 / u64::from(element), 13, 4][..rank].to_vec();
            let boxes = [inner, 8, 2][..rank].to_vec();
            let bytes = boxes.iter().product::<u32>() * element;
            let tensor = Tensor { element, dims: dims.clone(), boxes, swizzle, out: false };
            let size = dims.iter().product::<u64>() as usize * element as usize;
            for (place, at) in
                [("inside", [4, 2, 1]), ("edge", [-3, 9, 3]), ("before", [1, -2, -1])]
            {
                let coords: Vec<String> = at[..rank].iter().map(i32::to_string).collect();
                let coords = coords.join(", ");
                let load = format!(
                    "@%p7 bra W; mbarrier.init.shared.b64 [bar], 1; fence.mbarrier_init.release.cluster;\n\
                     mbarrier.arrive.expect_tx.shared.b64 _, [bar], {bytes};\n\
                     cp.async.bulk.tensor.{rank}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%s], [%map, {{{coords}}}], [%b];\n\
                     W: bar.sync 0;\nT: mbarrier.try_wait.parity.shared.b64 %p0, [bar], 0; @!%p0 bra T;\n{}",
                    each_word("B", bytes, 32, "%out", FROM_SHARED)
                );
                let name = format!(
                    "cp.async.bulk.tensor.{rank}d load of {element} bytes, swizzle {swizzle}, {place}"
                );
                let mut p = probe(
                    &name,
                    "sm_90",
                    32,
                    bytes.max(1024),
                    bytes as usize / 4,
                    noise(size, 5),
                    &load,
                );
                p.tensor = Some(tensor.clone());
                out.push(p);
                // Into an output that is all of the tensor; only whole words of it are compared.
                for (how, op) in [("store", ""), ("add", ".add")] {
                    if op == ".add" && element != 4 {
                        continue;
                    }
                    let verb = if op.is_empty() { "cp.async.bulk" } else { "cp.reduce.async.bulk" };
                    let body = format!(
                        "{}{}fence.proxy.async; bar.sync 0; @%p7 bra E;\n\
                         {verb}.tensor.{rank}d.global.shared::cta{op}.tile.bulk_group [%map, {{{coords}}}], [%s];\n\
                         cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;\nE: ",
                        each_word("A", bytes, 32, "%in", TO_SHARED),
                        each_word("C", size as u32, 32, "%out", "st.global.u32 [%x], 0x3F800000;"),
                    );
                    let name = format!(
                        "{verb}.tensor.{rank}d{op} {how} of {element} bytes, swizzle {swizzle}, {place}"
                    );
                    let input = if op.is_empty() {
                        noise(bytes as usize, 6)
                    } else {
                        integers(bytes as usize / 4, "tf32")
                    };
                    let mut p = probe(&name, "sm_90", 32, bytes.max(1024), size / 4, input, &body);
                    p.tensor = Some(Tensor { out: true, ..tensor.clone() });
                    out.push(p);
                }
            }
        }
    }
    out
}

/// Every layout of A and of B for every type; all of shared memory is filled, so that whatever an address
/// means some integer lies there.
fn wgmma() -> Vec<Probe> {
    let mut out = Vec::new();
    let (a_bytes, all, n) = (8192u32, 24_576u32, 64);
    for (ty, sum, k) in
        [("f16", "f32", 16), ("f16", "f16", 16), ("bf16", "f32", 16), ("tf32", "f32", 8)]
    {
        let mut layouts = vec![];
        for swizzle in [0u32, 32, 64, 128] {
            layouts.extend([(swizzle, false), (swizzle, true)]);
        }
        layouts.retain(|l| ty != "tf32" || !l.1);
        let standard = (128, false);
        let pairs = layouts.iter().map(|&l| (Some(l), standard)).chain([(None, standard)]);
        let pairs: Vec<_> = pairs.chain(layouts.iter().map(|&l| (Some(standard), l))).collect();
        for (i, (a, b)) in pairs.into_iter().enumerate() {
            // Bits above the address: leading and stride offsets in units of 16 bytes, and the mode.
            let rest = |(swizzle, rows): (u32, bool)| {
                let (leading, stride) = match (swizzle, rows) {
                    (0, false) => (8u64, 16u64),
                    (0, true) => (128, 8),
                    (s, false) => (1, u64::from(s) / 2),
                    (s, true) => (u64::from(s), u64::from(s) / 2),
                };
                let mode = [(0, 0u64), (128, 1), (64, 2), (32, 3)]
                    .iter()
                    .find(|m| m.0 == swizzle)
                    .map_or(0, |m| m.1);
                leading << 16 | stride << 32 | mode << 62
            };
            let half_sums = sum == "f16";
            let parts = if half_sums { n / 4 } else { n / 2 };
            let name_of = |j: usize| if half_sums { format!("%r{j}") } else { format!("%f{j}") };
            let regs: Vec<String> = (0..parts).map(name_of).collect();
            let first = match a {
                Some(_) => "%d0".to_owned(),
                None => "{%r80, %r81, %r82, %r83}".to_owned(),
            };
            let majors = match (ty, a) {
                ("tf32", _) => String::new(),
                (_, None) => format!(", {}", u8::from(b.1)),
                (_, Some(a)) => format!(", {}, {}", u8::from(a.1), u8::from(b.1)),
            };
            let zero = if half_sums { "mov.b32" } else { "mov.f32" };
            let zeros: String = regs
                .iter()
                .map(|r| format!("{zero} {r}, {}; ", if half_sums { "0" } else { "0f00000000" }))
                .collect();
            let stores: String = regs
                .iter()
                .enumerate()
                .map(|(j, r)| format!("st.global.b32 [%out+{}], {r}; ", 4 * j))
                .collect();
            let address = |to: &str, at: u32, rest: u64| {
                format!(
                    "add.u32 %r84, %s, {at}; bfe.u32 %r84, %r84, 4, 14; cvt.u64.u32 {to}, %r84; or.b64 {to}, {to}, {rest:#x};\n"
                )
            };
            let body = format!(
                "{fill}mad.wide.u32 %d2, %t, 16, %in; ld.global.v4.u32 {{%r80, %r81, %r82, %r83}}, [%d2];\n\
                 {da}{db}{zeros}\nfence.proxy.async; bar.sync 0; wgmma.fence.sync.aligned;\n\
                 wgmma.mma_async.sync.aligned.m64n{n}k{k}.{sum}.{ty}.{ty} {{{list}}}, {first}, %d1, 0, 1, 1{majors};\n\
                 wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;\n\
                 mad.wide.u32 %out, %t, {row}, %out; {stores}",
                fill = each_word("A", all, 128, "%in", TO_SHARED),
                da = address("%d0", 0, a.map_or(0, rest)),
                db = address("%d1", a_bytes, rest(b)),
                list = regs.join(", "),
                row = 4 * parts,
            );
            let told = a.map_or("registers".to_owned(), |a| format!("{a:?}"));
            let name =
                format!("wgmma.mma_async.m64n{n}k{k}.{sum}.{ty}.{ty} A {told} B {b:?} ({i})");
            let count = all as usize / if ty == "tf32" { 4 } else { 2 };
            out.push(probe(&name, "sm_90a", 128, all, 128 * parts, integers(count, ty), &body));
        }
    }
    out
}

/// mbarriers, bulk copies, elections: what they return.
fn engines() -> Vec<Probe> {
    let counts = "@%p7 bra E; mbarrier.init.shared.b64 [bar], 5;\n\
        mbarrier.arrive.shared.b64 %d0, [bar]; mbarrier.pending_count.b64 %r0, %d0; st.global.u32 [%out], %r0;\n\
        mbarrier.arrive.shared.b64 %d1, [bar], 2; mbarrier.pending_count.b64 %r0, %d1; st.global.u32 [%out+4], %r0;\n\
        mbarrier.arrive_drop.shared.b64 %d2, [bar]; mbarrier.arrive.shared.b64 %d3, [bar];\n\
        mbarrier.test_wait.shared.b64 %p0, [bar], %d0; selp.u32 %r1, 1, 0, %p0; st.global.u32 [%out+8], %r1;\n\
        mbarrier.arrive.shared.b64 %d4, [bar]; mbarrier.pending_count.b64 %r0, %d4; st.global.u32 [%out+12], %r0;\nE: ";
    let parity = "@%p7 bra E; mbarrier.init.shared.b64 [bar], 1;\n\
        mbarrier.test_wait.parity.shared.b64 %p0, [bar], 1; selp.u32 %r0, 1, 0, %p0; st.global.u32 [%out], %r0;\n\
        mbarrier.test_wait.parity.shared.b64 %p0, [bar], 0; selp.u32 %r0, 1, 0, %p0; st.global.u32 [%out+4], %r0;\n\
        mbarrier.arrive.shared.b64 %d0, [bar];\n\
        mbarrier.test_wait.parity.shared.b64 %p0, [bar], 0; selp.u32 %r0, 1, 0, %p0; st.global.u32 [%out+8], %r0;\n\
        mbarrier.test_wait.parity.shared.b64 %p0, [bar], 1; selp.u32 %r0, 1, 0, %p0; st.global.u32 [%out+12], %r0;\nE: ";
    let bulk = format!(
        "@%p7 bra W; mbarrier.init.shared.b64 [bar], 1; fence.mbarrier_init.release.cluster;\n\
         mbarrier.arrive.expect_tx.shared.b64 _, [bar], 128;\n\
         cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%s], [%in], 128, [%b];\n\
         W: bar.sync 0;\nT: mbarrier.try_wait.parity.shared.b64 %p0, [bar], 0; @!%p0 bra T;\n{}",
        each_word("B", 128, 32, "%out", FROM_SHARED)
    );
    let elect = "elect.sync %r0|%p0, 0xFFFFFFFF; selp.u32 %r1, 1, 0, %p0; setp.eq.u32 %p1, %r0, %t; selp.u32 %r2, 1, 0, %p1;\n\
        xor.b32 %r1, %r1, %r2; mad.wide.u32 %out, %t, 4, %out; st.global.u32 [%out], %r1;";
    let input = || noise(1024, 9);
    vec![
        probe("mbarrier.arrive counts, drops and states", "sm_90", 32, 0, 4, input(), counts),
        probe("mbarrier.test_wait.parity of a fresh barrier", "sm_90", 32, 0, 4, input(), parity),
        probe("cp.async.bulk.shared::cluster.global", "sm_90", 32, 128, 32, input(), &bulk),
        probe("elect.sync agrees with itself", "sm_90", 32, 0, 32, input(), elect),
    ]
}

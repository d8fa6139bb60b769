//! `wgmma` against plain expectations: where the ISA's text puts each element of A and B in shared
//! memory, for every type, major and swizzle, and of D in the registers, written out here once more.

use half::{bf16, f16};
use ptx_sim::{Chip, CopyTiming, Launch, Memory, MmaModel, Module, Options, run_launch};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Type {
    F16,
    F16Sum,
    Bf16,
    Tf32,
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Type::F16 => "f32.f16.f16",
            Type::F16Sum => "f16.f16.f16",
            Type::Bf16 => "f32.bf16.bf16",
            Type::Tf32 => "f32.tf32.tf32",
        }
    }

    fn bytes(self) -> usize {
        if self == Type::Tf32 { 4 } else { 2 }
    }

    fn k(self) -> usize {
        32 / self.bytes()
    }

    fn encode(self, x: f32) -> Vec<u8> {
        match self {
            Type::F16 | Type::F16Sum => f16::from_f32(x).to_le_bytes().into(),
            Type::Bf16 => bf16::from_f32(x).to_le_bytes().into(),
            Type::Tf32 => x.to_le_bytes().into(),
        }
    }
}

/// How an operand lies: bytes of the swizzle (0: none), and whether its rows lie together.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Layout {
    swizzle: usize,
    along_rows: bool,
}

const LAYOUTS: [Layout; 8] = {
    let mut all = [Layout { swizzle: 0, along_rows: false }; 8];
    let mut i = 0;
    while i < 8 {
        all[i] = Layout { swizzle: [0, 32, 64, 128][i / 2], along_rows: i % 2 == 1 };
        i += 1;
    }
    all
};

impl Layout {
    /// Leading and stride offsets, with room between what need not touch.
    fn offsets(self) -> (usize, usize) {
        match (self.swizzle, self.along_rows) {
            // Eight rows of 16 bytes are a core matrix; 8 of k and 8 rows further lies the next.
            (0, false) => (128 + 16, 2 * 144 + 32),
            // The same, k and rows exchanged: the stride leads along the rows.
            (0, true) => (40 * 144, 144),
            // Rows of the swizzle's width, eight to an atom; further along k only within the row.
            (128, false) => (16, 8 * 128),
            (s, false) => (16, 16 * s),
            // Atoms of `s` bytes of rows and 8 of k: two of them for 16 of k, then the next rows.
            (s, true) => (3 * 8 * s, 8 * s),
        }
    }

    /// Byte at which element (row, k) lies.
    fn place(self, bytes: usize, row: usize, k: usize) -> usize {
        let (leading, stride) = self.offsets();
        let s = self.swizzle;
        let at = if self.along_rows {
            // 16-bit elements alone: eight rows are 16 bytes.
            match s {
                0 => row / 8 * stride + k / 8 * leading + k % 8 * 16 + row % 8 * 2,
                _ => {
                    let wide = s / 2;
                    row / wide * leading + k / 8 * stride + k % 8 * s + row % wide * 2
                }
            }
        } else {
            let per = 16 / bytes;
            match s {
                0 => row / 8 * stride + k / per * leading + row % 8 * 16 + k % per * bytes,
                _ => row / 8 * stride + row % 8 * s + k * bytes,
            }
        };
        // 16-byte units are exchanged: bits 4.. by bits 7.., as many as the width has.
        match s {
            32 => at ^ (at >> 3 & 0x10),
            64 => at ^ (at >> 3 & 0x30),
            128 => at ^ (at >> 3 & 0x70),
            _ => at,
        }
    }

    fn descriptor(self, at: usize) -> u64 {
        let (leading, stride) = self.offsets();
        let mode = match self.swizzle {
            0 => 0,
            128 => 1,
            64 => 2,
            _ => 3u64,
        };
        let field = |x: usize| (x as u64 & 0x3FFFF) >> 4;
        field(at) | field(leading) << 16 | field(stride) << 32 | mode << 62
    }
}

/// Bytes for A's image, and for both.
const A_BYTES: usize = 16 << 10;
const ALL: usize = A_BYTES + (48 << 10);
/// Where dynamic shared memory begins here.
const BASE: usize = 0x400;

struct Case {
    ty: Type,
    n: usize,
    /// `None`: from registers.
    a: Option<Layout>,
    b: Layout,
    signs: (bool, bool),
    /// D's old value is added: never, always, or by a predicate.
    add: (bool, bool),
}

fn list(prefix: &str, n: usize) -> String {
    (0..n).map(|i| format!("{prefix}{i}")).collect::<Vec<_>>().join(", ")
}

fn text(c: &Case, all: usize) -> String {
    let half = c.ty == Type::F16Sum;
    let (n, k) = (c.n, c.ty.k());
    let parts = if half { n / 4 } else { n / 2 };
    let (kind, prefix) = if half { ("b32", "%h") } else { ("f32", "%d") };
    let sign = |negative: bool| if negative { -1 } else { 1 };
    let majors = match (c.ty, c.a) {
        (Type::Tf32, _) => String::new(),
        (_, None) => format!(", {}", u8::from(c.b.along_rows)),
        (_, Some(a)) => format!(", {}, {}", u8::from(a.along_rows), u8::from(c.b.along_rows)),
    };
    let (add, by_predicate) = c.add;
    let scale = if by_predicate { "%p1".to_owned() } else { u8::from(add).to_string() };
    let a = if c.a.is_some() { "%da".to_owned() } else { format!("{{{}}}", list("%a", 4)) };
    let load = |i: usize| format!("ld.global.{kind} {prefix}{i}, [%old+{}];\n", 4 * i);
    let store = |i: usize| format!("st.global.{kind} [%new+{}], {prefix}{i};\n", 4 * i);
    format!(
        ".version 8.0\n.target sm_90a\n.address_size 64\n\
         .extern .shared .align 1024 .b8 s[];\n\
         .visible .entry f(.param .u64 image, .param .u64 frag, .param .u64 sums, .param .u64 out,\n\
           .param .u64 desc_a, .param .u64 desc_b) .maxntid 128, 1, 1 {{\n\
         .reg .pred %p<2>; .reg .b32 %t, %i, %at, %v, %a<4>, %h<64>; .reg .f32 %d<128>;\n\
         .reg .b64 %from, %old, %new, %x, %da, %db;\n\
         mov.u32 %t, %tid.x; ld.param.u64 %from, [image]; shl.b32 %i, %t, 2;\n\
         L: cvt.u64.u32 %x, %i; add.u64 %x, %x, %from; ld.global.u32 %v, [%x];\n\
         mov.u32 %at, s; add.u32 %at, %at, %i; st.shared.u32 [%at], %v;\n\
         add.u32 %i, %i, 512; setp.lt.u32 %p0, %i, {all}; @%p0 bra L;\n\
         ld.param.u64 %old, [sums]; mad.wide.u32 %old, %t, {row}, %old;\n\
         ld.param.u64 %new, [out]; mad.wide.u32 %new, %t, {row}, %new;\n\
         ld.param.u64 %from, [frag]; mad.wide.u32 %from, %t, 16, %from;\n\
         ld.global.v4.u32 {{{frag}}}, [%from];\n\
         ld.param.u64 %da, [desc_a]; ld.param.u64 %db, [desc_b];\n\
         setp.{pred}.u32 %p1, %t, %t;\n\
         {loads}\
         fence.proxy.async; bar.sync 0; wgmma.fence.sync.aligned;\n\
         wgmma.mma_async.sync.aligned.m64n{n}k{k}.{ty} {{{regs}}}, {a}, %db, {scale}, {sa}, {sb}{majors};\n\
         wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;\n\
         {stores} ret; }}",
        row = 4 * parts,
        frag = list("%a", 4),
        pred = if add { "eq" } else { "ne" },
        loads = (0..parts).map(load).collect::<String>(),
        stores = (0..parts).map(store).collect::<String>(),
        regs = list(prefix, parts),
        ty = c.ty.name(),
        sa = sign(c.signs.0),
        sb = sign(c.signs.1),
    )
}

/// Small integers: every sum is exact in every model.
fn integer(i: usize, j: usize, salt: usize) -> f32 {
    ((i * 7 + j * 13 + salt * 5 + i * j) % 9) as f32 - 4.0
}

fn check(c: &Case, options: &Options) {
    let (k, n, half) = (c.ty.k(), c.n, c.ty == Type::F16Sum);
    let mut image = vec![0u8; ALL];
    let mut last = 0;
    let mut put = |at: usize, x: f32| {
        let bytes = c.ty.encode(x);
        image[at..at + bytes.len()].copy_from_slice(&bytes);
        last = last.max(at + bytes.len());
    };
    let (a, b) = (|i, kk| integer(i, kk, 1), |j, kk| integer(j, kk, 2));
    for kk in 0..k {
        if let Some(layout) = c.a {
            (0..64).for_each(|i| put(layout.place(c.ty.bytes(), i, kk), a(i, kk)));
        }
        (0..n).for_each(|j| put(A_BYTES + c.b.place(c.ty.bytes(), j, kk), b(j, kk)));
    }
    // What lies behind the last element is not copied.
    let all = last.next_multiple_of(512);
    // A in registers: lane l of warp w holds rows 16w + l/4 and 8 below, in pairs of k (single tf32).
    let mut frag = Vec::new();
    for t in 0..128 {
        let (w, l) = (t / 32, t % 32);
        for r in 0..4 {
            let row = 16 * w + l / 4 + 8 * (r % 2);
            let per = 4 / c.ty.bytes();
            let first = per * (l % 4) + 4 * per * (r / 2);
            (first..first + per).for_each(|kk| frag.extend(c.ty.encode(a(row, kk))));
        }
    }
    // D: register 4j + r of f32 is row 16w + l/4 + 8(r/2), column 8j + 2(l%4) + r%2; f16 in pairs.
    let parts = if half { n / 4 } else { n / 2 };
    let place = |t: usize, i: usize, e: usize| {
        let (w, l) = (t / 32, t % 32);
        let (j, lower, odd) = if half { (i / 2, i % 2, e) } else { (i / 4, i / 2 % 2, i % 2) };
        (16 * w + l / 4 + 8 * lower, 8 * j + 2 * (l % 4) + odd)
    };
    let encode = |value: &dyn Fn(usize, usize) -> f32| -> Vec<u8> {
        let mut out = Vec::new();
        for t in 0..128 {
            for i in 0..parts {
                if half {
                    for e in 0..2 {
                        let (row, col) = place(t, i, e);
                        out.extend(f16::from_f32(value(row, col)).to_le_bytes());
                    }
                } else {
                    let (row, col) = place(t, i, 0);
                    out.extend(value(row, col).to_le_bytes());
                }
            }
        }
        out
    };
    let old = |i: usize, j: usize| integer(i, j, 3);
    let sign = if c.signs.0 == c.signs.1 { 1.0 } else { -1.0 };
    let want = encode(&|i, j| {
        let product: f32 = (0..k).map(|kk| a(i, kk) * b(j, kk)).sum();
        sign * product + if c.add.0 { old(i, j) } else { 0.0 }
    });
    let mut memory = Memory::new();
    let mut upload = |bytes: &[u8]| {
        let at = memory.alloc(bytes.len()).unwrap();
        memory.write(at, bytes).unwrap();
        at
    };
    let (image, frag, sums) = (upload(&image), upload(&frag), upload(&encode(&old)));
    let out = memory.alloc(want.len()).unwrap();
    let module = Module::parse("wgmma.ptx", &text(c, all)).unwrap_or_else(|e| panic!("{e}"));
    let launch = Launch::new("f", [1, 1, 1], [128, 1, 1]).shared(ALL as u32);
    let launch = launch.ptr(image).ptr(frag).ptr(sums).ptr(out);
    let launch =
        launch.ptr(c.a.map_or(0, |a| a.descriptor(BASE))).ptr(c.b.descriptor(BASE + A_BYTES));
    let name = format!("{:?} n{n} A {:?} B {:?} {:?} {:?}", c.ty, c.a, c.b, c.signs, c.add);
    run_launch(&module, &mut memory, &launch, options).unwrap_or_else(|e| panic!("{name}: {e}"));
    let got = memory.read(out, want.len()).unwrap();
    let differs = got.iter().zip(&want).position(|(g, w)| g != w);
    assert!(differs.is_none(), "{name}: byte {differs:?}");
}

/// The layouts that a type may have.
fn layouts(ty: Type) -> impl Iterator<Item = Layout> {
    LAYOUTS.into_iter().filter(move |l| ty != Type::Tf32 || !l.along_rows)
}

fn options(i: usize) -> Options {
    Options {
        chip: Chip::SM_90,
        copies: [CopyTiming::Early, CopyTiming::Late, CopyTiming::Random][i % 3],
        mma: [MmaModel::Exact, MmaModel::Exact, MmaModel::Hopper, MmaModel::RandomOrder][i % 4],
        seed: i as u64,
        ..Options::default()
    }
}

#[test]
fn every_width_of_every_type_and_layout_of_b() {
    let mut i = 0;
    for ty in [Type::F16, Type::F16Sum, Type::Bf16, Type::Tf32] {
        for b in layouts(ty) {
            for n in (8..=256).step_by(8) {
                let mut sources: Vec<Option<Layout>> = layouts(ty).map(Some).collect();
                sources.push(None);
                let a = sources[i % sources.len()];
                let signs = (i % 5 == 1, i % 3 == 1);
                check(&Case { ty, n, a, b, signs, add: (i % 2 == 0, i % 4 < 2) }, &options(i));
                i += 1;
            }
        }
    }
    assert_eq!(i, 32 * (3 * 8 + 4));
}

#[test]
fn every_layout_of_a_with_every_one_of_b() {
    let mut i = 0;
    for ty in [Type::F16, Type::F16Sum, Type::Bf16, Type::Tf32] {
        for b in layouts(ty) {
            for a in layouts(ty).map(Some).chain([None]) {
                for n in [8, 72, 256] {
                    let add = (i % 2 == 1, i % 3 == 0);
                    check(&Case { ty, n, a, b, signs: (false, false), add }, &options(i));
                    i += 1;
                }
            }
        }
    }
    assert_eq!(i, 3 * (3 * 8 * 9 + 4 * 5));
}

//! TMA against plain expectations: for boxes of one to three dimensions, every element size and swizzle,
//! inside the tensor and over each of its edges: what lies where in shared memory after a load, and in
//! global memory after a store or a reduction.

use ptx_sim::{
    Chip, CopyTiming, Launch, Memory, Module, Options, Swizzle, TensorMap, TensorType, run_launch,
};

/// Loads, or stores what it was given; the whole of shared memory goes out, or comes in.
fn text(rank: usize, store: Option<&str>) -> String {
    let coords = ["%c0", "%c1", "%c2"][..rank].join(", ");
    let params = ".param .align 64 .b8 map[128], .param .u64 image, .param .u32 bytes, .param .u32 c0, \
                  .param .u32 c1, .param .u32 c2, .param .u32 all";
    let copy = |body: &str, label: &str| {
        format!(
            "mov.u32 %i, %tid.x; shl.b32 %i, %i, 2;\n{label}: cvt.u64.u32 %x, %i; add.u64 %x, %x, %img;\n\
             add.u32 %at, %s, %i; {body}\nadd.u32 %i, %i, 128; setp.lt.u32 %p0, %i, %n; @%p0 bra {label};"
        )
    };
    let fill = copy("mov.u32 %v, 0xEEEEEEEE; st.shared.u32 [%at], %v;", "A");
    let give = copy("ld.global.u32 %v, [%x]; st.shared.u32 [%at], %v;", "A");
    let take = copy("ld.shared.u32 %v, [%at]; st.global.u32 [%x], %v;", "B");
    let body = match store {
        None => format!(
            "{fill} fence.proxy.async; bar.sync 0;\n\
             setp.ne.u32 %p1, %t, 0; @%p1 bra W;\n\
             mbarrier.init.shared.b64 [bar], 1; fence.mbarrier_init.release.cluster;\n\
             mbarrier.arrive.expect_tx.shared.b64 _, [bar], %n1;\n\
             mov.u32 %b, bar;\n\
             cp.async.bulk.tensor.{rank}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes \
             [%s], [%m, {{{coords}}}], [%b];\n\
             W: bar.sync 0;\n\
             T: mbarrier.try_wait.parity.shared.b64 %p1, [bar], 0; @!%p1 bra T;\n{take}"
        ),
        Some(op) => format!(
            "{give} fence.proxy.async; bar.sync 0;\n\
             setp.ne.u32 %p1, %t, 0; @%p1 bra W;\n\
             {op}.bulk_group [%m, {{{coords}}}], [%s];\n\
             cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;\nW: bar.sync 0;"
        ),
    };
    format!(
        ".version 8.0\n.target sm_90a\n.address_size 64\n.extern .shared .align 1024 .b8 s[];\n\
         .visible .entry f({params}) {{\n.shared .align 8 .b64 bar;\n\
         .reg .pred %p<2>; .reg .b32 %t, %i, %at, %v, %s, %b, %n, %n1, %c<3>; .reg .b64 %x, %img, %m;\n\
         mov.u32 %t, %tid.x; mov.u32 %s, s; ld.param.u64 %img, [image]; ld.param.u32 %n1, [bytes];\n\
         ld.param.u32 %n, [all]; ld.param.u32 %c0, [c0]; ld.param.u32 %c1, [c1]; ld.param.u32 %c2, [c2];\n\
         mov.b64 %m, map; cvta.param.u64 %m, %m;\n{body}\nret; }}"
    )
}

fn options(i: usize) -> Options {
    let copies = [CopyTiming::Early, CopyTiming::Late, CopyTiming::Random][i % 3];
    Options { chip: Chip::SM_90, copies, seed: i as u64, ..Options::default() }
}

/// Byte `at` of a box in shared memory, after the swizzle of `span` bytes.
fn swizzled(at: usize, span: u32) -> usize {
    match span {
        32 => at ^ (at >> 3 & 0x10),
        64 => at ^ (at >> 3 & 0x30),
        128 => at ^ (at >> 3 & 0x70),
        _ => at,
    }
}

/// Takes a limit away.
type Change<'a> = &'a dyn Fn(&mut TensorMap);

struct Case {
    map: TensorMap,
    from: [i32; 3],
}

impl Case {
    fn size(&self) -> usize {
        self.map.ty.bytes() as usize
    }

    /// Every element of the box: its byte in shared memory, and its byte in the tensor if it is in it.
    fn elements(&self) -> Vec<(usize, Option<usize>)> {
        let (rank, size) = (self.map.dims.len(), self.size());
        let mut at = vec![0u32; rank];
        let mut out = Vec::new();
        loop {
            let mut linear = 0;
            for d in (0..rank).rev() {
                linear = linear * self.map.box_dims[d] as usize + at[d] as usize;
            }
            let mut offset = Some(0);
            for (d, &index) in at.iter().enumerate() {
                let x = i64::from(self.from[d]) + i64::from(index);
                let stride = if d == 0 { size as u64 } else { self.map.strides[d - 1] };
                let inside = x >= 0 && (x as u64) < self.map.dims[d];
                offset = offset.filter(|_| inside).map(|o| o + x as usize * stride as usize);
            }
            out.push((swizzled(linear * size, self.map.swizzle.span()), offset));
            let mut d = 0;
            while d < rank {
                at[d] += 1;
                if at[d] < self.map.box_dims[d] {
                    break;
                }
                at[d] = 0;
                d += 1;
            }
            if d == rank {
                return out;
            }
        }
    }

    fn bytes(&self) -> usize {
        self.map.box_dims.iter().product::<u32>() as usize * self.size()
    }
}

/// Bytes of a tensor, none like its neighbours.
fn ramp(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 31 + i / 256 * 7 + 1) as u8).collect()
}

/// Boxes of all ranks, sizes and swizzles, inside and over every edge.
fn cases(address: u64) -> Vec<Case> {
    let mut out = Vec::new();
    let types = [TensorType::U8, TensorType::Bf16, TensorType::F32, TensorType::U64];
    for (ty, swizzle) in types
        .into_iter()
        .flat_map(|t| [Swizzle::None, Swizzle::B32, Swizzle::B64, Swizzle::B128].map(|s| (t, s)))
    {
        let size = ty.bytes();
        let inner = if swizzle == Swizzle::None { 48 / size } else { swizzle.span() / size };
        let row = u64::from(inner) * 2 + 16 / u64::from(size);
        for rank in 1..=3 {
            let dims = &[row, 21, 5][..rank];
            let map = TensorMap::dense(ty, address, dims, &[inner, 9, 3][..rank]).swizzled(swizzle);
            let right = row as i32 - 3;
            let mut places =
                vec![[0, 0, 0], [5, 2, 1], [-3, 0, 0], [right, 0, 0], [row as i32, 0, 0]];
            if rank > 1 {
                places.extend([[1, -4, 0], [0, 17, 0], [-2, 20, 0], [0, -9, 0]]);
            }
            if rank > 2 {
                places.extend([[0, 0, -1], [2, 3, 4], [-1, -1, -1], [0, 0, -3]]);
            }
            out.extend(places.into_iter().map(|from| Case { map: map.clone(), from }));
        }
    }
    out
}

fn launch(case: &Case, image: u64, all: usize) -> Launch {
    let launch = Launch::new("f", [1, 1, 1], [32, 1, 1]).shared(all as u32);
    let launch = launch.bytes(&case.map.encode().unwrap()).ptr(image).u32(case.bytes() as u32);
    let launch = case.from.iter().fold(launch, |l, &c| l.u32(c as u32));
    launch.u32(all as u32)
}

#[test]
fn loads_of_every_box_swizzle_and_edge() {
    let mut memory = Memory::new();
    let bytes = ramp(64 << 10);
    let tensor = memory.alloc(bytes.len()).unwrap();
    memory.write(tensor, &bytes).unwrap();
    let modules: Vec<Module> =
        (1..=3).map(|r| Module::parse("load.ptx", &text(r, None)).unwrap()).collect();
    for (i, case) in cases(tensor).into_iter().enumerate() {
        let all = case.bytes().next_multiple_of(1024);
        let image = memory.alloc(all).unwrap();
        let module = &modules[case.map.dims.len() - 1];
        run_launch(module, &mut memory, &launch(&case, image, all), &options(i))
            .unwrap_or_else(|e| panic!("{:?} at {:?}: {e}", case.map, case.from));
        let mut want = vec![0xEE; all];
        for (at, from) in case.elements() {
            let to = &mut want[at..at + case.size()];
            match from {
                Some(from) => to.copy_from_slice(&bytes[from..from + case.size()]),
                None => to.fill(0),
            }
        }
        let got = memory.read(image, all).unwrap();
        assert!(got == want, "{:?} at {:?}", case.map, case.from);
    }
}

#[test]
fn stores_of_every_box_swizzle_and_edge() {
    let op = |r: usize| format!("cp.async.bulk.tensor.{r}d.global.shared::cta.tile");
    let modules: Vec<Module> =
        (1..=3).map(|r| Module::parse("store.ptx", &text(r, Some(&op(r)))).unwrap()).collect();
    let before = vec![0x11; 64 << 10];
    let mut memory = Memory::new();
    let tensor = memory.alloc(before.len()).unwrap();
    for (i, case) in cases(tensor).into_iter().enumerate() {
        memory.write(tensor, &before).unwrap();
        let all = case.bytes().next_multiple_of(1024);
        let shared = ramp(all);
        let image = memory.alloc(all).unwrap();
        memory.write(image, &shared).unwrap();
        let module = &modules[case.map.dims.len() - 1];
        run_launch(module, &mut memory, &launch(&case, image, all), &options(i))
            .unwrap_or_else(|e| panic!("{:?} at {:?}: {e}", case.map, case.from));
        let mut want = before.clone();
        for (at, to) in case.elements() {
            if let Some(to) = to {
                want[to..to + case.size()].copy_from_slice(&shared[at..at + case.size()]);
            }
        }
        let got = memory.read(tensor, want.len()).unwrap();
        assert!(got == want, "{:?} at {:?}", case.map, case.from);
    }
}

#[test]
fn reductions_add_in_the_tensors_type() {
    let op = |r: usize| format!("cp.reduce.async.bulk.tensor.{r}d.global.shared::cta.add.tile");
    let modules: Vec<Module> =
        (1..=3).map(|r| Module::parse("reduce.ptx", &text(r, Some(&op(r)))).unwrap()).collect();
    let before: Vec<u8> = (0..16u32 << 10).flat_map(|i| (i as f32 / 4.0).to_le_bytes()).collect();
    let mut memory = Memory::new();
    let tensor = memory.alloc(before.len()).unwrap();
    let float = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
    let mut seen = 0;
    for (i, case) in cases(tensor).into_iter().enumerate() {
        if case.map.ty != TensorType::F32 {
            continue;
        }
        seen += 1;
        memory.write(tensor, &before).unwrap();
        let all = case.bytes().next_multiple_of(1024);
        let shared: Vec<u8> = (0..all / 4).flat_map(|i| (i as f32 * 0.5).to_le_bytes()).collect();
        let image = memory.alloc(all).unwrap();
        memory.write(image, &shared).unwrap();
        let module = &modules[case.map.dims.len() - 1];
        run_launch(module, &mut memory, &launch(&case, image, all), &options(i))
            .unwrap_or_else(|e| panic!("{:?} at {:?}: {e}", case.map, case.from));
        let mut want = before.clone();
        for (at, to) in case.elements() {
            if let Some(to) = to {
                let sum = float(&want[to..to + 4]) + float(&shared[at..at + 4]);
                want[to..to + 4].copy_from_slice(&sum.to_le_bytes());
            }
        }
        let got = memory.read(tensor, want.len()).unwrap();
        assert!(got == want, "{:?} at {:?}", case.map, case.from);
    }
    assert!(seen >= 100, "{seen}");
}

#[test]
fn a_fill_of_nan() {
    let module = Module::parse("load.ptx", &text(1, None)).unwrap();
    for (ty, nan) in
        [(TensorType::F32, vec![0xFF, 0xFF, 0xFF, 0x7F]), (TensorType::Bf16, vec![0xFF, 0x7F])]
    {
        let mut memory = Memory::new();
        let tensor = memory.alloc(256).unwrap();
        memory.write(tensor, &[0; 256]).unwrap();
        let mut map = TensorMap::dense(ty, tensor, &[8], &[16]);
        map.nan_fill = true;
        let case = Case { map, from: [0; 3] };
        let image = memory.alloc(1024).unwrap();
        run_launch(&module, &mut memory, &launch(&case, image, 1024), &options(0)).unwrap();
        let size = case.size();
        let got = memory.read(image, 16 * size).unwrap();
        assert!(got[..8 * size].iter().all(|&b| b == 0));
        assert!(got[8 * size..].chunks_exact(size).all(|e| e == nan), "{got:?}");
    }
}

#[test]
fn every_documented_limit_is_named() {
    let good = TensorMap::dense(TensorType::F32, 0x1000, &[64, 64, 4], &[16, 8, 2]);
    assert!(good.check().is_ok());
    let say = |change: &dyn Fn(&mut TensorMap)| {
        let mut map = good.clone();
        change(&mut map);
        let error = map.check().unwrap_err().to_string();
        assert!(map.encode().is_err());
        error
    };
    let cases: [(&str, Change); 17] = [
        ("globalAddress", &|m| m.address = 0x1008),
        ("globalAddress", &|m| m.address = 0),
        ("tensorRank", &|m| {
            *m = TensorMap::dense(TensorType::U8, 0x1000, &[16; 6], &[16; 6]);
        }),
        ("tensorRank 2", &|m| {
            *m = TensorMap::dense(TensorType::U8, 0x1000, &[16; 2], &[16; 2]);
            m.interleave = 16;
        }),
        ("globalDim[1]", &|m| m.dims[1] = 0),
        ("globalDim[0]", &|m| m.dims[0] = (1 << 32) + 1),
        ("globalStrides[0]", &|m| m.strides[0] = 264),
        ("globalStrides[1]", &|m| m.strides[1] = 1 << 40),
        ("boxDim[1]", &|m| m.box_dims[1] = 257),
        ("boxDim[2]", &|m| m.box_dims[2] = 0),
        ("no multiple of 16", &|m| m.box_dims[0] = 15),
        ("the swizzle spans 32", &|m| m.swizzle = Swizzle::B32),
        ("elementStrides[1]", &|m| m.element_strides[1] = 9),
        ("elementStrides[2]", &|m| m.element_strides[2] = 0),
        ("SWIZZLE_32B", &|m| m.interleave = 32),
        ("oobFill", &|m| {
            m.ty = TensorType::I32;
            m.nan_fill = true;
        }),
        ("strides", &|m| m.strides.truncate(1)),
    ];
    for (want, change) in cases {
        let said = say(change);
        assert!(said.contains(want), "{said} for {want}");
    }
    // The limits themselves are legal.
    let mut edge = good.clone();
    edge.dims[0] = 1 << 32;
    edge.strides[1] = (1 << 40) - 16;
    edge.box_dims = vec![256, 256, 256];
    edge.element_strides = vec![8, 8, 8];
    assert_eq!(TensorMap::decode(&edge.encode().unwrap()), Some(edge));
    let mut bytes = good.encode().unwrap();
    bytes[40] ^= 1;
    assert_eq!(TensorMap::decode(&bytes), None, "a map that was tampered with");
}

//! Kernels for sm_90 and sm_90a.

use ptx_sim::{FaultKind, Launch, Memory, Module, Options, Swizzle, TensorMap, TensorType};

use super::case::*;

pub(crate) fn cases() -> Vec<Case> {
    use FaultKind::*;
    vec![
        Case {
            name: "persistent",
            text: include_str!("persistent.ptx"),
            run: persistent,
            defects: vec![
                Defect {
                    what: "the number of the next tile comes before the last one was read",
                    from: "\tmbarrier.try_wait.parity.shared::cta.b64 %p2, [%bars+40], %turn;\n\t@!%p2 bra DRAW;\n",
                    to: "",
                    kinds: &[Race, Mbarrier],
                },
                Defect {
                    what: "a stage announces less than lands in it",
                    from: "%d9, [%r2], 6144;",
                    to: "%d9, [%r2], 4096;",
                    kinds: &[Race, Mbarrier, UninitialisedMemory],
                },
                Defect {
                    what: "the stage is given back while it is multiplied",
                    from: "\twgmma.wait_group.sync.aligned 0;\n\t@%p3 mbarrier.arrive.shared::cta.b64 _, [%r2+16];\n",
                    to: "\t@%p3 mbarrier.arrive.shared::cta.b64 _, [%r2+16];\n\twgmma.wait_group.sync.aligned 0;\n",
                    kinds: &[Race],
                },
                Defect {
                    what: "the consumers' parity never changes",
                    from: "\t@%p5 xor.b32 %phase, %phase, 1;\n\tadd.u32 %i, %i, 1;\n\tsetp.lt.u32 %p5, %i, %steps;\n\t@%p5 bra STEP;",
                    to: "\tadd.u32 %i, %i, 1;\n\tsetp.lt.u32 %p5, %i, %steps;\n\t@%p5 bra STEP;",
                    kinds: &[Race, Mbarrier, Deadlock, UninitialisedMemory],
                },
            ],
        },
        Case {
            name: "exchange",
            text: include_str!("exchange.ptx"),
            run: exchange,
            defects: vec![
                Defect {
                    what: "nobody waits for the others' barriers to be there",
                    from: "\tbarrier.cluster.wait.acquire.aligned;\n",
                    to: "",
                    kinds: &[Mbarrier, Cluster, Race, UninitialisedMemory],
                },
                Defect {
                    what: "the phase is over with a quarter missing",
                    from: "[bar], 16;",
                    to: "[bar], 12;",
                    kinds: &[Mbarrier, Race, UninitialisedMemory],
                },
                Defect {
                    what: "every rank sends to the same place",
                    from: "mad.lo.u32 %r11, %r1, 4, %r11;",
                    to: "",
                    kinds: &[Race],
                },
            ],
        },
        Case {
            name: "scatter_add",
            text: include_str!("scatter_add.ptx"),
            run: scatter_add,
            defects: vec![
                Defect {
                    what: "what was doubled is not fenced",
                    from: "\tfence.proxy.async.shared::cta;\n",
                    to: "",
                    kinds: &[Proxy],
                },
                Defect {
                    what: "a buffer is filled while it is still read",
                    from: "cp.async.bulk.wait_group.read 1;",
                    to: "cp.async.bulk.wait_group.read 2;",
                    kinds: &[Race],
                },
                Defect {
                    what: "the CTA ends with its sums under way",
                    from: "\t@!%p0 cp.async.bulk.wait_group 0;\n",
                    to: "",
                    kinds: &[InFlight],
                },
                Defect {
                    what: "rows are stored instead of added",
                    from: "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%d5], [%at], 1024;",
                    to: "cp.async.bulk.global.shared::cta.bulk_group [%d5], [%at], 1024;",
                    kinds: &[Race],
                },
            ],
        },
        Case {
            name: "attention",
            text: include_str!("attention.ptx"),
            run: attention,
            defects: vec![
                Defect {
                    what: "the scores are read before they are there",
                    from: "\twgmma.wait_group.sync.aligned 0;\n\tmov.f32 %m2, %m0;\n",
                    to: "\tmov.f32 %m2, %m0;\n",
                    kinds: &[MatrixRegister],
                },
                Defect {
                    what: "the probabilities are not fenced",
                    from: "\tmul.f32 %o31, %o31, %t1;\n\twgmma.fence.sync.aligned;\n",
                    to: "\tmul.f32 %o31, %o31, %t1;\n",
                    kinds: &[MatrixRegister],
                },
                Defect {
                    what: "v is overwritten while it is multiplied",
                    from: "\twgmma.wait_group.sync.aligned 0;\n\tbar.sync 1, 128;\n",
                    to: "\twgmma.wait_group.sync.aligned 1;\n\tbar.sync 1, 128;\n",
                    kinds: &[Race],
                },
                Defect {
                    what: "v as if it lay along k, which leads beyond the tile",
                    from: "{%a12, %a13, %a14, %a15}, %v3, 1, 1, 1, 1;",
                    to: "{%a12, %a13, %a14, %a15}, %v3, 1, 1, 1, 0;",
                    kinds: &[Mbarrier, OutOfBounds],
                },
                Defect {
                    what: "the wrong keys of v",
                    from: "add.s64 %v1, %q0, 1152;",
                    to: "add.s64 %v1, %q0, 1280;",
                    kinds: &[],
                },
            ],
        },
        Case {
            name: "quantise",
            text: include_str!("quantise.ptx"),
            run: quantise,
            defects: vec![
                Defect {
                    what: "the storing thread alone fences",
                    from: "\tfence.proxy.async.shared::cta;\n\tbar.sync 0;\n",
                    to: "\tbar.sync 0;\n\t@%p2 fence.proxy.async.shared::cta;\n",
                    kinds: &[Proxy],
                },
                Defect {
                    what: "a buffer is written while it is still read",
                    from: "cp.async.bulk.wait_group.read 1;",
                    to: "cp.async.bulk.wait_group.read 2;",
                    kinds: &[Race],
                },
                Defect {
                    what: "the values of a pair change places",
                    from: "%h2, %f5, %f4;",
                    to: "%h2, %f4, %f5;",
                    kinds: &[],
                },
            ],
        },
        Case {
            name: "multicast",
            text: include_str!("multicast.ptx"),
            run: multicast,
            defects: vec![
                Defect {
                    what: "the peer is not asked",
                    from: "mapa.shared::cluster.u32 %r11, %r10, %r7;\n\t@%p2",
                    to: "mapa.shared::cluster.u32 %r11, %r10, %rank;\n\t@%p2",
                    kinds: &[Race, Mbarrier],
                },
                Defect {
                    what: "the peer's half is not announced",
                    from: "[%r3], 2560;",
                    to: "[%r3], 2304;",
                    kinds: &[Mbarrier, Race, UninitialisedMemory],
                },
                Defect {
                    what: "a CTA leaves while the other one sends",
                    from: "\tbarrier.cluster.wait;\n",
                    to: "",
                    kinds: &[Cluster, InFlight, Mbarrier],
                },
                Defect {
                    what: "a half reaches its own CTA alone",
                    from: "mov.u16 %mask, 3;",
                    to: "cvt.u16.u32 %mask, %rank; add.u16 %mask, %mask, 1;",
                    kinds: &[Mbarrier, Deadlock, UninitialisedMemory],
                },
            ],
        },
        Case {
            name: "transpose",
            text: include_str!("transpose.ptx"),
            run: transpose,
            defects: vec![
                Defect {
                    what: "arrivals that the count does not know",
                    from: "cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%r3];",
                    to: "cp.async.mbarrier.arrive.shared::cta.b64 [%r3];",
                    kinds: &[Deadlock],
                },
                Defect {
                    what: "nobody waits for the copies",
                    from: "\tcp.async.mbarrier.arrive.noinc.shared::cta.b64 [%r3];\n",
                    to: "\tmbarrier.arrive.shared::cta.b64 _, [%r3];\n",
                    kinds: &[Race],
                },
                Defect {
                    what: "the rows are not fenced",
                    from: "\tfence.proxy.async;\n",
                    to: "",
                    kinds: &[Proxy],
                },
                Defect {
                    what: "one matrix is not turned",
                    from: "\tmovmatrix.sync.aligned.m8n8.trans.b16 %r16, %r16;\n",
                    to: "",
                    kinds: &[],
                },
            ],
        },
        Case {
            name: "bytes",
            text: include_str!("bytes.ptx"),
            run: bytes,
            defects: vec![
                Defect {
                    what: "unsigned bytes of b as signed",
                    from: "m64n32k32.s32.s8.u8 {",
                    to: "m64n32k32.s32.s8.s8 {",
                    kinds: &[],
                },
                Defect {
                    what: "one format for the other",
                    from: "%d8, %d9, 1, 1, 1;",
                    to: "%d8, %d9, 1, 1, -1;",
                    kinds: &[],
                },
                Defect {
                    what: "a is loaded over while it is multiplied",
                    from: "\twgmma.commit_group.sync.aligned;\n",
                    to: "\tmov.b32 %a7, 0;\n\twgmma.commit_group.sync.aligned;\n",
                    kinds: &[MatrixRegister],
                },
            ],
        },
    ]
}

/// The value of an eight-bit float by its definition: `m` bits of fraction, exponents from `-bias` on.
fn float8(byte: u8, m: u32, bias: i32) -> f64 {
    let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
    let (e, f) = (i32::from(byte & 0x7F) >> m, f64::from(byte & ((1 << m) - 1)));
    let one = f64::from(1 << m);
    sign * if e == 0 {
        f / one * 2f64.powi(1 - bias)
    } else {
        (1.0 + f / one) * 2f64.powi(e - bias)
    }
}

fn bytes(module: &Module, o: &Options) -> Outcome {
    // No infinities and no NaN in either format, and exponents that keep the sums exact.
    let some =
        |n: usize, seed| (0..n).map(|i| (noise(i, seed) as u8 & 0x8F) | 0x30).collect::<Vec<u8>>();
    let (a, b) = (some(64 * 64, 31), some(32 * 64, 32));
    let mut memory = Memory::new();
    let (pa, pb) = (put(&mut memory, &a), put(&mut memory, &b));
    let (pi, pf) = (memory.alloc(4 * 64 * 32).unwrap(), memory.alloc(4 * 64 * 32).unwrap());
    let launch = Launch::new("bytes", [1, 1, 1], [128, 1, 1]).shared(6152);
    let launch = launch.bytes(&map(TensorType::U8, pa, [64, 64], [64, 64], Swizzle::B64));
    let launch = launch.bytes(&map(TensorType::U8, pb, [64, 32], [64, 32], Swizzle::B64));
    let launch = launch.ptr(pa).ptr(pi).ptr(pf);
    let sum = |i: usize, term: &dyn Fn(u8, u8) -> f64| -> f64 {
        let (row, column) = (i / 32, i % 32);
        (0..64).map(|k| term(a[64 * row + k], b[64 * column + k])).sum()
    };
    let integers: Vec<u32> = (0..64 * 32)
        .map(|i| sum(i, &|x, y| f64::from(x as i8) * f64::from(y)) as i32 as u32)
        .collect();
    let floats: Vec<f32> =
        (0..64 * 32).map(|i| sum(i, &|x, y| float8(x, 3, 7) * float8(y, 2, 15)) as f32).collect();
    check(module, &mut memory, &launch, o, |m| {
        same(&u32s(m, pi, 64 * 32), &integers)?;
        same(&f32s(m, pf, 64 * 32), &floats)
    })
}

fn map(ty: TensorType, at: u64, dims: [usize; 2], tile: [u32; 2], swizzle: Swizzle) -> [u8; 128] {
    let dims = dims.map(|d| d as u64);
    TensorMap::dense(ty, at, &dims, &tile).swizzled(swizzle).encode().unwrap()
}

fn persistent(module: &Module, o: &Options) -> Outcome {
    // One step of k: nothing but the tile's own mbarriers keeps the loader from running ahead.
    for k in [32, 96usize] {
        let (m, n) = (128usize, 96usize);
        let (a, b) = (values(m * k, 11), values(n * k, 12));
        let mut memory = Memory::new();
        let (pa, pb) = (put_bf16(&mut memory, &a), put_bf16(&mut memory, &b));
        let pc = memory.alloc(4 * m * n).unwrap();
        let tickets = put_u32(&mut memory, &[0]);
        let launch = Launch::new("persistent", [2, 1, 1], [160, 1, 1]).shared(12_352);
        let launch = launch.bytes(&map(TensorType::Bf16, pa, [k, m], [32, 64], Swizzle::B64));
        let launch = launch.bytes(&map(TensorType::Bf16, pb, [k, n], [32, 32], Swizzle::B64));
        let launch = launch.ptr(pc).ptr(tickets);
        let launch = launch.u32(k as u32 / 32).u32(n as u32 / 32).u32((m / 64 * n / 32) as u32);
        let want = product(&a, &b, (m, n, k));
        let out = check(module, &mut memory, &launch, o, |mem| same(&f32s(mem, pc, m * n), &want));
        if !matches!(out, Outcome::Right) {
            return out;
        }
    }
    Outcome::Right
}

fn exchange(module: &Module, o: &Options) -> Outcome {
    let (rows, quarter) = (2, 150);
    let x: Vec<u32> = (0..rows * 4 * quarter).map(|i| noise(i, 13)).collect();
    let mut memory = Memory::new();
    let px = put_u32(&mut memory, &x);
    let py = memory.alloc(16 * rows).unwrap();
    let launch = Launch::new("exchange", [4 * rows as u32, 1, 1], [64, 1, 1]);
    let launch = launch.ptr(px).ptr(py).u32(quarter as u32);
    let sum = |row: &[u32]| row.iter().fold(0u32, |s, &v| s.wrapping_add(v));
    let want: Vec<u32> = x.chunks(4 * quarter).flat_map(|row| [sum(row); 4]).collect();
    check(module, &mut memory, &launch, o, |m| same(&u32s(m, py, 4 * rows), &want))
}

fn scatter_add(module: &Module, o: &Options) -> Outcome {
    let (rows, places) = (13usize, 5usize);
    let x = values(256 * rows, 14);
    let index: Vec<u32> = (0..rows).map(|i| noise(i, 15) % places as u32).collect();
    let mut want = values(256 * places, 16);
    let mut memory = Memory::new();
    let (px, pi) = (put_f32(&mut memory, &x), put_u32(&mut memory, &index));
    let py = put_f32(&mut memory, &want);
    for (row, &at) in x.chunks(256).zip(&index) {
        row.iter().enumerate().for_each(|(i, v)| want[256 * at as usize + i] += 2.0 * v);
    }
    let launch = Launch::new("scatter_add", [2, 1, 1], [64, 1, 1]);
    let launch = launch.ptr(px).ptr(pi).ptr(py).u32(rows as u32);
    check(module, &mut memory, &launch, o, |m| same(&f32s(m, py, 256 * places), &want))
}

fn attention(module: &Module, o: &Options) -> Outcome {
    let blocks = 2;
    let keys = 64 * blocks;
    let (q, k, v) = (values(64 * 64, 17), values(keys * 64, 18), values(keys * 64, 19));
    let mut memory = Memory::new();
    let [pq, pk, pv] = [&q, &k, &v].map(|x| put_bf16(&mut memory, x));
    let po = memory.alloc(4 * 64 * 64).unwrap();
    let tile = |at, rows| map(TensorType::Bf16, at, [64, rows], [64, 64], Swizzle::B128);
    let launch = Launch::new("attention", [1, 1, 1], [128, 1, 1]).shared(24_584);
    let launch = launch.bytes(&tile(pq, 64)).bytes(&tile(pk, keys)).bytes(&tile(pv, keys));
    let launch = launch.ptr(po).u32(blocks as u32);
    let scores = product(&q, &k, (64, keys, 64));
    check(module, &mut memory, &launch, o, |m| {
        let got = f32s(m, po, 64 * 64);
        for (row, scores) in scores.chunks(keys).enumerate() {
            let e: Vec<f64> = scores.iter().map(|&s| (f64::from(s) / 8.0).exp()).collect();
            let sum: f64 = e.iter().sum();
            for column in 0..64 {
                let want =
                    (0..keys).map(|i| e[i] * f64::from(v[64 * i + column])).sum::<f64>() / sum;
                let got = f64::from(got[64 * row + column]);
                // The probabilities have eight bits.
                if (got - want).abs() > 0.01 {
                    return Err(format!("[{row}][{column}] is {got}, not {want}"));
                }
            }
        }
        Ok(())
    })
}

/// e4m3 by its definition: the nearest of all its finite values, the even one of two.
fn e4m3(x: f32) -> u8 {
    let value = |b: u8| {
        let (e, m) = (i32::from(b >> 3), f64::from(b & 7));
        if e == 0 { m * 2f64.powi(-9) } else { (8.0 + m) * 2f64.powi(e - 10) }
    };
    let size = f64::from(x.abs());
    let off = |b: &u8| (value(*b) - size).abs();
    let nearest = (0..=0x7Eu8)
        .min_by(|a, b| off(a).total_cmp(&off(b)).then((a & 1).cmp(&(b & 1))))
        .unwrap_or(0);
    nearest | if x.is_sign_negative() { 0x80 } else { 0 }
}

fn quantise(module: &Module, o: &Options) -> Outcome {
    let rows = 93usize;
    let x: Vec<f32> = (0..64 * rows)
        .map(|i| (noise(i, 20) % 4001) as f32 / 7.0 * 0.5f32.powi(noise(i, 21) as i32 & 15) - 20.0)
        .collect();
    let mut memory = Memory::new();
    let (px, py) = (put_f32(&mut memory, &x), memory.alloc(64 * rows).unwrap());
    let launch = Launch::new("quantise", [2, 1, 1], [128, 1, 1]).ptr(px);
    let tile = map(TensorType::U8, py, [64, rows], [64, 16], Swizzle::None);
    let launch = launch.bytes(&tile).u32(rows as u32);
    let want: Vec<u8> = x.iter().map(|&x| e4m3(x)).collect();
    check(module, &mut memory, &launch, o, |m| {
        same(&m.read(py, 64 * rows).map_err(|e| e.to_string())?, &want)
    })
}

fn multicast(module: &Module, o: &Options) -> Outcome {
    let (m, n, k) = (128usize, 32usize, 112usize);
    let (a, b) = (values(m * k, 22), values(n * k, 23));
    let mut memory = Memory::new();
    let (pa, pb) = (put_f16(&mut memory, &a), put_f16(&mut memory, &b));
    let pc = memory.alloc(4 * m * n).unwrap();
    let launch = Launch::new("multicast", [2, 2, 1], [160, 1, 1]).cluster([1, 2, 1]).shared(7728);
    let launch = launch.bytes(&map(TensorType::F16, pa, [k, m], [16, 64], Swizzle::B32));
    let launch = launch.bytes(&map(TensorType::F16, pb, [k, n], [16, 8], Swizzle::B32));
    let launch = launch.ptr(pc).u32(n as u32).u32(k as u32 / 16);
    let want = product(&a, &b, (m, n, k));
    check(module, &mut memory, &launch, o, |mem| same(&f32s(mem, pc, m * n), &want))
}

fn transpose(module: &Module, o: &Options) -> Outcome {
    let (rows, columns) = (64usize, 96usize);
    let x: Vec<f32> = (0..rows * columns).map(|i| (i % 2048) as f32).collect();
    let mut memory = Memory::new();
    let (px, py) = (put_f16(&mut memory, &x), memory.alloc(2 * x.len()).unwrap());
    let launch = Launch::new("transpose", [3, 2, 1], [128, 1, 1]).ptr(px).ptr(py);
    let launch = launch.u32(rows as u32).u32(columns as u32);
    let want: Vec<u16> = (0..x.len())
        .map(|i| half::f16::from_f32(x[i % rows * columns + i / rows]).to_bits())
        .collect();
    check(module, &mut memory, &launch, o, |m| {
        let bytes = m.read(py, 2 * x.len()).map_err(|e| e.to_string())?;
        let got: Vec<u16> = bytes.chunks(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
        same(&got, &want)
    })
}

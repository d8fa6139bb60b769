//! Kernels for sm_80.

use ptx_sim::{FaultKind, Launch, Memory, Module, Options};

use super::case::*;

pub(crate) fn cases() -> Vec<Case> {
    use FaultKind::*;
    vec![
        Case {
            name: "layernorm",
            text: include_str!("layernorm.ptx"),
            run: layernorm,
            defects: vec![
                Defect {
                    what: "the buffer is written again while others read it",
                    from: "\tbar.sync \t1;\n",
                    to: "",
                    kinds: &[Race],
                },
                Defect {
                    what: "a part that no warp has written",
                    from: "[parts+12]",
                    to: "[parts+16]",
                    kinds: &[OutOfBounds, UninitialisedMemory],
                },
                Defect {
                    what: "the function's result is never stored",
                    from: "\tst.param.f32 \t[total], %v;\n",
                    to: "",
                    kinds: &[UninitialisedMemory],
                },
            ],
        },
        Case {
            name: "gemv_s8",
            text: include_str!("gemv_s8.ptx"),
            run: gemv_s8,
            defects: vec![
                Defect {
                    what: "bytes of x as unsigned",
                    from: "dp4a.s32.s32 %r7, %r9, %r13, %r7;",
                    to: "dp4a.s32.u32 %r7, %r9, %r13, %r7;",
                    kinds: &[],
                },
                Defect {
                    what: "the splits store instead of adding",
                    from: "@%p1 red.global.gpu.add.s32 [%d9], %r7;",
                    to: "@%p1 st.global.u32 [%d9], %r7;",
                    kinds: &[Race],
                },
                Defect {
                    what: "the rest of a row is not masked",
                    from: "and.b32 %r8, %r8, %r18;",
                    to: "",
                    kinds: &[],
                },
            ],
        },
        Case {
            name: "gemm_ring",
            text: include_str!("gemm_ring.ptx"),
            run: gemm_ring,
            defects: vec![
                Defect {
                    what: "one group too many may be under way",
                    from: "cp.async.wait_group 1;",
                    to: "cp.async.wait_group 2;",
                    kinds: &[Race],
                },
                Defect {
                    what: "no barrier before the stage is filled again",
                    from: "\tbar.sync 0;\n",
                    to: "",
                    kinds: &[Race],
                },
                Defect {
                    what: "the halves are not swapped for b",
                    from: "\txor.b32 %r18, %r18, %r17;\n",
                    to: "\tmov.b32 %r18, %r17;\n",
                    kinds: &[],
                },
            ],
        },
        Case {
            name: "stream_k",
            text: include_str!("stream_k.ptx"),
            run: stream_k,
            defects: vec![
                Defect {
                    what: "the flag does not release",
                    from: "st.release.gpu.global.u32 [%rd11], 1;",
                    to: "st.relaxed.gpu.global.u32 [%rd11], 1;",
                    kinds: &[Race],
                },
                Defect {
                    what: "the flag is released in the CTA alone",
                    from: "st.release.gpu.global.u32 [%rd11], 1;",
                    to: "st.release.cta.global.u32 [%rd11], 1;",
                    kinds: &[Race],
                },
                Defect {
                    what: "the wait is a plain load",
                    from: "ld.acquire.gpu.global.u32",
                    to: "ld.global.u32",
                    kinds: &[Race],
                },
            ],
        },
        Case {
            name: "partition",
            text: include_str!("partition.ptx"),
            run: partition,
            defects: vec![
                Defect {
                    what: "counts are read before all warps have counted",
                    from: "\tbarrier.sync 0, 128;\n",
                    to: "",
                    kinds: &[Race, UninitialisedMemory],
                },
                Defect {
                    what: "a bin beyond the table",
                    from: "same, flipped, counted, swapped;",
                    to: "same, flipped, counted;",
                    kinds: &[OutOfBounds],
                },
                Defect {
                    what: "starts are read before they are there",
                    from: "\tbar.cta.sync 0;\n",
                    to: "",
                    kinds: &[Race, UninitialisedMemory],
                },
            ],
        },
        Case {
            name: "softmax_local",
            text: include_str!("softmax_local.ptx"),
            run: softmax_local,
            defects: vec![
                Defect {
                    what: "less local memory than a row needs",
                    from: "__local_depot0[32]",
                    to: "__local_depot0[24]",
                    kinds: &[OutOfBounds],
                },
                Defect {
                    what: "the sum misses half of the warp",
                    from: "\tmov.u32 \t%r12, 16;\n",
                    to: "\tmov.u32 \t%r12, 8;\n",
                    kinds: &[],
                },
            ],
        },
        Case {
            name: "last_block",
            text: include_str!("last_block.ptx"),
            run: last_block,
            defects: vec![
                Defect {
                    what: "no fence before the count",
                    from: "\tmembar.gl;\n",
                    to: "",
                    kinds: &[Race],
                },
                Defect {
                    what: "no fence after it",
                    from: "\tfence.acq_rel.gpu;\n",
                    to: "",
                    kinds: &[Race],
                },
                Defect {
                    what: "nobody is the last",
                    from: "\tsub.u32 %w, %w, 1;\n",
                    to: "",
                    kinds: &[],
                },
            ],
        },
        Case {
            name: "handover",
            text: include_str!("handover.ptx"),
            run: handover,
            defects: vec![
                Defect {
                    what: "nobody fences before the flag",
                    from: "\tmembar.gl;\n",
                    to: "",
                    kinds: &[Race],
                },
                Defect {
                    what: "a fence that orders what its own thread does alone",
                    from: "\tmembar.gl;\n",
                    to: "\tfence.acq_rel.gpu;\n",
                    kinds: &[Race],
                },
                Defect {
                    what: "the takers do not fence",
                    from: "\tfence.sc.gpu;\n",
                    to: "",
                    kinds: &[Race],
                },
                Defect {
                    what: "nobody waits for the flag",
                    from: "\t@%p2 bra POLL;\n",
                    to: "",
                    kinds: &[Race, UninitialisedMemory],
                },
            ],
        },
    ]
}

fn handover(module: &Module, o: &Options) -> Outcome {
    let mut memory = Memory::new();
    let (x, y) = (memory.alloc(256).unwrap(), memory.alloc(256).unwrap());
    let flag = put_u32(&mut memory, &[0]);
    let launch = Launch::new("handover", [2, 1, 1], [64, 1, 1]).ptr(x).ptr(flag).ptr(y);
    let want: Vec<u32> = (0..64).map(|i| 3 * (63 - i)).collect();
    check(module, &mut memory, &launch, o, |m| same(&u32s(m, y, 64), &want))
}

fn layernorm(module: &Module, o: &Options) -> Outcome {
    let (rows, eps) = (3, 1e-5f32);
    let x: Vec<f32> = (0..rows * 512).map(|i| (noise(i, 1) % 1000) as f32 / 100.0).collect();
    let mut memory = Memory::new();
    let (px, py) = (put_f32(&mut memory, &x), memory.alloc(2 * x.len()).unwrap());
    let launch = Launch::new("layernorm", [rows as u32, 1, 1], [128, 1, 1]).ptr(px).ptr(py);
    let launch = launch.bytes(&eps.to_le_bytes());
    check(module, &mut memory, &launch, o, |memory| {
        let got = memory.read(py, 2 * x.len()).map_err(|e| e.to_string())?;
        for (row, x) in x.chunks(512).enumerate() {
            let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / 512.0;
            let var = x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / 512.0;
            for (i, &v) in x.iter().enumerate() {
                let at = 2 * (row * 512 + i);
                let got = half::bf16::from_le_bytes([got[at], got[at + 1]]).to_f64();
                let want = (f64::from(v) - mean) / (var + f64::from(eps)).sqrt();
                if (got - want).abs() > 0.004 * want.abs() + 1e-4 {
                    return Err(format!("row {row} [{i}] is {got}, not {want}"));
                }
            }
        }
        Ok(())
    })
}

fn gemv_s8(module: &Module, o: &Options) -> Outcome {
    // Rows are padded to 16 bytes with what must not count; the last split ends in the midst of a lane's.
    let (m, k, stride) = (8, 1201, 1216);
    let some = |n: usize, seed| (0..n).map(|i| noise(i, seed) as u8).collect::<Vec<u8>>();
    let (a, x) = (some(m * stride, 2), some(stride, 3));
    let mut memory = Memory::new();
    let (pa, px) = (put(&mut memory, &a), put(&mut memory, &x));
    let py = put_u32(&mut memory, &[7; 8]);
    let launch = Launch::new("gemv_s8", [2, 3, 1], [128, 1, 1]).ptr(pa).ptr(px).ptr(py);
    let launch = launch.u32(k as u32).u32(416).u32(stride as u32);
    let dot = |row: &[u8]| -> i32 {
        row[..k].iter().zip(&x).map(|(&a, &x)| i32::from(a as i8) * i32::from(x as i8)).sum()
    };
    let want: Vec<u32> = a.chunks(stride).map(|row| (dot(row) + 7) as u32).collect();
    check(module, &mut memory, &launch, o, |memory| same(&u32s(memory, py, m), &want))
}

fn gemm_ring(module: &Module, o: &Options) -> Outcome {
    for k in [16, 32, 112] {
        let (a, b) = (values(32 * k, 4), values(16 * k, 5));
        let mut memory = Memory::new();
        let (pa, pb) = (put_f16(&mut memory, &a), put_f16(&mut memory, &b));
        let pc = memory.alloc(4 * 32 * 16).unwrap();
        let launch = Launch::new("gemm_ring", [1, 1, 1], [64, 1, 1]).shared(4608);
        let launch = launch.ptr(pa).ptr(pb).ptr(pc).u32(k as u32);
        let want = product(&a, &b, (32, 16, k));
        let out = check(module, &mut memory, &launch, o, |m| same(&f32s(m, pc, 512), &want));
        if !matches!(out, Outcome::Right) {
            return out;
        }
    }
    Outcome::Right
}

fn stream_k(module: &Module, o: &Options) -> Outcome {
    let (rows, k, ctas) = (5usize, 300usize, 7usize);
    let x: Vec<u32> = (0..rows * k).map(|i| noise(i, 6)).collect();
    let mut memory = Memory::new();
    let px = put_u32(&mut memory, &x);
    let py = memory.alloc(4 * rows).unwrap();
    let part = memory.alloc(4 * ctas).unwrap();
    let flag = put_u32(&mut memory, &vec![0; ctas]);
    let piece = (rows * k).div_ceil(ctas);
    let launch = Launch::new("stream_k", [ctas as u32, 1, 1], [32, 1, 1]);
    let launch = launch.ptr(px).ptr(py).ptr(part).ptr(flag);
    let launch = launch.u32(k as u32).u32(piece as u32).u32((rows * k) as u32);
    let want: Vec<u32> =
        x.chunks(k).map(|row| row.iter().fold(0u32, |s, &v| s.wrapping_add(v))).collect();
    // All are there at once: who waits must not keep others from starting.
    let o = Options { sms: 7, ..*o };
    check(module, &mut memory, &launch, &o, |m| same(&u32s(m, py, rows), &want))
}

fn partition(module: &Module, o: &Options) -> Outcome {
    let x: Vec<u32> = (0..128).map(|i| noise(i, 7)).collect();
    let mut memory = Memory::new();
    let (px, py) = (put_u32(&mut memory, &x), memory.alloc(512).unwrap());
    let launch = Launch::new("partition", [1, 1, 1], [128, 1, 1]).ptr(px).ptr(py);
    let mut want = Vec::new();
    for bin in 0..4 {
        want.extend(x.iter().filter(|&&w| w >> 7 & 3 == bin).map(|&w| match bin {
            0 => w,
            1 => !w,
            // Bytes 1, zero, zero, zero of the permutation 0x4140: byte 0, 4, 1, 4.
            2 => ((w & 0xFF) | (w >> 8 & 0xFF) << 16).count_ones(),
            _ => w.swap_bytes(),
        }));
    }
    check(module, &mut memory, &launch, o, |m| same(&u32s(m, py, 128), &want))
}

fn softmax_local(module: &Module, o: &Options) -> Outcome {
    for columns in [256usize, 1, 45] {
        let x: Vec<f32> = (0..2 * columns).map(|i| (noise(i, 8) % 64) as f32 / 8.0 - 4.0).collect();
        let mut memory = Memory::new();
        let (px, py) = (put_f16(&mut memory, &x), memory.alloc(4 * x.len()).unwrap());
        let launch = Launch::new("softmax_local", [2, 1, 1], [32, 1, 1]);
        let launch = launch.ptr(px).ptr(py).u32(columns as u32);
        let out = check(module, &mut memory, &launch, o, |m| {
            let got = f32s(m, py, x.len());
            for (x, got) in x.chunks(columns).zip(got.chunks(columns)) {
                let sum: f64 = x.iter().map(|&v| f64::from(v).exp()).sum();
                for (&v, &g) in x.iter().zip(got) {
                    let want = f64::from(v).exp() / sum;
                    if (f64::from(g) - want).abs() > 1e-5 * want {
                        return Err(format!("{g}, not {want}"));
                    }
                }
            }
            Ok(())
        });
        if !matches!(out, Outcome::Right) {
            return out;
        }
    }
    Outcome::Right
}

fn last_block(module: &Module, o: &Options) -> Outcome {
    let x: Vec<u32> = (0..1000).map(|i| noise(i, 9)).collect();
    let mut memory = Memory::new();
    let px = put_u32(&mut memory, &x);
    let parts = memory.alloc(4 * 6).unwrap();
    let sums = put_u32(&mut memory, &[0, 0]);
    let want = x.iter().fold(0u32, |s, &v| s.wrapping_add(v));
    // The counter is the module's own and must be back at zero the second time.
    for round in 0..2 {
        let launch = Launch::new("last_block", [6, 1, 1], [64, 1, 1]);
        let launch = launch.ptr(px).ptr(parts).ptr(sums + 4 * round).u32(1000);
        let out = check(module, &mut memory, &launch, o, |m| {
            same(&u32s(m, sums + 4 * round, 1), &[want])
        });
        if !matches!(out, Outcome::Right) {
            return out;
        }
    }
    Outcome::Right
}

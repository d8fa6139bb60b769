//! Single forms with results worked out in Rust from the ISA's text, and forms that are refused. Run by
//! `probes`.

/// What a lane is given: all lanes' words, and which lane it is.
pub(crate) struct At<'a> {
    pub(crate) l: usize,
    pub(crate) xs: &'a [u32; 32],
    pub(crate) ys: &'a [u32; 32],
    pub(crate) zs: &'a [u32; 32],
}

impl At<'_> {
    fn x(&self) -> u32 {
        self.xs[self.l]
    }
    fn y(&self) -> u32 {
        self.ys[self.l]
    }
    fn z(&self) -> u32 {
        self.zs[self.l]
    }
    /// `{x, y}` and `{y, z}` as 64 bits, the first lowest.
    fn xy(&self) -> u64 {
        u64::from(self.y()) << 32 | u64::from(self.x())
    }
    fn yz(&self) -> u64 {
        u64::from(self.z()) << 32 | u64::from(self.y())
    }
    fn fx(&self) -> f32 {
        f32::from_bits(self.x())
    }
    fn fy(&self) -> f32 {
        f32::from_bits(self.y())
    }
}

pub(crate) struct Probe {
    pub(crate) target: &'static str,
    /// What stands before the entry.
    pub(crate) before: &'static str,
    /// Leaves 32 bits in `%o` or, where it names it, 64 in `%w`. `%d0` is `{x, y}`, `%d1` is `{y, z}`,
    /// `%f0` and `%f1` are x and y.
    pub(crate) body: &'static str,
    pub(crate) want: fn(&At<'_>) -> u64,
}

fn on80(body: &'static str, want: fn(&At<'_>) -> u64) -> Probe {
    Probe { target: "sm_80", before: "", body, want }
}

fn with(before: &'static str, body: &'static str, want: fn(&At<'_>) -> u64) -> Probe {
    Probe { target: "sm_80", before, body, want }
}

fn on90(body: &'static str, want: fn(&At<'_>) -> u64) -> Probe {
    Probe { target: "sm_90a", before: "", body, want }
}

/// Byte `i`, with its sign.
fn sbyte(x: u32, i: u32) -> i64 {
    i64::from((x >> (8 * i)) as u8 as i8)
}

fn ubyte(x: u32, i: u32) -> i64 {
    i64::from((x >> (8 * i)) as u8)
}

/// The low 24 bits, with their sign.
fn s24(x: u32) -> i64 {
    i64::from((x << 8) as i32 >> 8)
}

fn bits(x: f32) -> u64 {
    u64::from(if x.is_nan() { 0x7FFF_FFFF } else { x.to_bits() })
}

fn low(x: i64) -> u64 {
    x as u64 & 0xFFFF_FFFF
}

fn half(x: u32, i: u32) -> f32 {
    half::f16::from_bits((x >> (16 * i)) as u16).to_f32()
}

fn brain(x: u32, i: u32) -> f32 {
    f32::from_bits(x >> (16 * i) << 16)
}

#[allow(clippy::too_many_lines)] // a table
pub(crate) fn probes() -> Vec<Probe> {
    vec![
        // ── integers ──
        on80("dp4a.s32.s32 %o, %x, %y, %z;", |a| {
            low((0..4).map(|i| sbyte(a.x(), i) * sbyte(a.y(), i)).sum::<i64>() + i64::from(a.z()))
        }),
        on80("dp4a.u32.s32 %o, %x, %y, %z;", |a| {
            low((0..4).map(|i| ubyte(a.x(), i) * sbyte(a.y(), i)).sum::<i64>() + i64::from(a.z()))
        }),
        on80("dp2a.hi.s32.u32 %o, %x, %y, %z;", |a| {
            let h = |i: u32| i64::from((a.x() >> (16 * i)) as i16);
            low(h(0) * ubyte(a.y(), 2) + h(1) * ubyte(a.y(), 3) + i64::from(a.z()))
        }),
        on80("dp2a.lo.u32.u32 %o, %x, %y, %z;", |a| {
            let h = |i: u32| i64::from((a.x() >> (16 * i)) as u16);
            low(h(0) * ubyte(a.y(), 0) + h(1) * ubyte(a.y(), 1) + i64::from(a.z()))
        }),
        on80("sad.s32 %o, %x, %y, %z;", |a| {
            u64::from(a.z().wrapping_add((a.x() as i32).abs_diff(a.y() as i32)))
        }),
        on80("sad.u64 %w, %d0, %d1, 7;", |a| a.xy().abs_diff(a.yz()).wrapping_add(7)),
        on80("mul24.hi.s32 %o, %x, %y;", |a| low((s24(a.x()) * s24(a.y())) >> 16)),
        on80("mad24.lo.u32 %o, %x, %y, %z;", |a| {
            u64::from((a.x() & 0xFF_FFFF).wrapping_mul(a.y() & 0xFF_FFFF).wrapping_add(a.z()))
        }),
        on80("mad24.hi.sat.s32 %o, %x, %y, %z;", |a| {
            let product = ((s24(a.x()) * s24(a.y())) >> 16) as i32;
            u64::from(product.saturating_add(a.z() as i32) as u32)
        }),
        on80("add.cc.u32 %r0, %x, %z; addc.u32 %r1, %y, %x; mov.b64 %w, {%r0, %r1};", |a| {
            a.xy().wrapping_add(u64::from(a.x()) << 32 | u64::from(a.z()))
        }),
        on80("sub.cc.u32 %r0, %x, %z; subc.cc.u32 %r1, %y, %x; subc.u32 %o, 0, 0;", |a| {
            let (m, s) = (u128::from(a.xy()), u128::from(a.x()) << 32 | u128::from(a.z()));
            if m < s { 0xFFFF_FFFF } else { 0 }
        }),
        on80(
            "mad.lo.cc.u32 %r0, %x, %y, %z; madc.hi.u32 %r1, %x, %y, %x; mov.b64 %w, {%r0, %r1};",
            |a| {
                let sum = u64::from(a.x()) << 32 | u64::from(a.z());
                (u64::from(a.x()) * u64::from(a.y())).wrapping_add(sum)
            },
        ),
        on80("add.cc.s64 %d2, %d0, %d1; addc.cc.s64 %d3, %d1, 0; addc.s64 %w, 0, 0;", |a| {
            let carry = (u128::from(a.xy()) + u128::from(a.yz())) >> 64;
            u64::from(u128::from(a.yz()) + carry > u128::from(u64::MAX))
        }),
        on80("and.b32 %r0, %y, 63; and.b32 %r1, %z, 63; bmsk.clamp.b32 %o, %r0, %r1;", |a| {
            let (from, n) = (a.y() & 63, a.z() & 63);
            (0..32).filter(|&i| i >= from && i - from < n).fold(0, |m, i| m | 1u64 << i)
        }),
        on80("bmsk.wrap.b32 %o, %y, %z;", |a| {
            let (from, n) = (a.y() & 31, a.z() & 31);
            (0..32).filter(|&i| i >= from && i - from < n).fold(0, |m, i| m | 1u64 << i)
        }),
        on80("and.b32 %r0, %y, 63; szext.clamp.s32 %o, %x, %r0;", |a| match a.y() & 63 {
            0 => 0,
            n @ 1..=31 => u64::from(((a.x() << (32 - n)) as i32 >> (32 - n)) as u32),
            _ => u64::from(a.x()),
        }),
        on80("szext.wrap.u32 %o, %x, %y;", |a| {
            u64::from(a.x() & ((1u64 << (a.y() & 31)) - 1) as u32)
        }),
        on80("fns.b32 %o, %x, %lane, 3;", |a| {
            (a.l as u64..32).filter(|i| a.x() >> i & 1 == 1).nth(2).unwrap_or(0xFFFF_FFFF)
        }),
        on80("fns.b32 %o, %x, %lane, -2;", |a| {
            (0..=a.l as u64).rev().filter(|i| a.x() >> i & 1 == 1).nth(1).unwrap_or(0xFFFF_FFFF)
        }),
        on80("fns.b32 %o, %x, %lane, 0;", |a| {
            if a.x() >> a.l & 1 == 1 { a.l as u64 } else { 0xFFFF_FFFF }
        }),
        on80("and.b64 %d2, %d0, 1; cnot.b64 %w, %d2;", |a| u64::from(a.xy() & 1 == 0)),
        on80("lop3.b32 %o, %x, %y, %z, 0xE8;", |a| {
            u64::from(a.x() & a.y() | a.x() & a.z() | a.y() & a.z())
        }),
        on80(
            "setp.lt.u32 %p1, %lane, 16; lop3.or.b32 %r0|%p0, %x, %y, 1, 0x80, %p1; selp.u32 %o, 1, 0, %p0;",
            |a| u64::from(a.x() & a.y() & 1 != 0 || a.l < 16),
        ),
        on80("shf.l.wrap.b32 %o, %x, %y, %z;", |a| (a.xy() << (a.z() & 31)) >> 32 & 0xFFFF_FFFF),
        on80("and.b32 %r0, %z, 63; shf.r.clamp.b32 %o, %x, %y, %r0;", |a| {
            (u128::from(a.xy()) >> (a.z() & 63).min(32)) as u64 & 0xFFFF_FFFF
        }),
        on80("prmt.b32 %o, %x, %y, 0xC370;", |a| {
            let both = a.xy();
            let byte = |i: u64| both >> (8 * i) & 0xFF;
            let sign = if byte(4) & 0x80 != 0 { 0xFF } else { 0 };
            byte(0) | byte(7) << 8 | byte(3) << 16 | sign << 24
        }),
        on80("and.b32 %r0, %z, 3; prmt.b32.b4e %o, %x, %y, %r0;", |a| {
            let n = u64::from(a.z() & 3);
            (0..4).fold(0, |o, i| o | (a.xy() >> (8 * ((n + 8 - i) % 8)) & 0xFF) << (8 * i))
        }),
        on80("bfe.s64 %w, %d0, 20, 30;", |a| ((a.xy() << 14) as i64 >> 34) as u64),
        on80("bfi.b64 %w, %d0, %d1, 40, 12;", |a| {
            a.yz() & !(0xFFFu64 << 40) | (a.xy() & 0xFFF) << 40
        }),
        on80("bfind.shiftamt.s32 %o, %x;", |a| {
            let x = if (a.x() as i32) < 0 { !a.x() } else { a.x() };
            if x == 0 { 0xFFFF_FFFF } else { u64::from(x.leading_zeros()) }
        }),
        on80(
            "brev.b64 %d2, %d0; clz.b64 %r0, %d2; popc.b64 %r1, %d0; mad.lo.u32 %o, %r0, 100, %r1;",
            |a| u64::from(a.xy().trailing_zeros() * 100 + a.xy().count_ones()),
        ),
        on80("mul.hi.s64 %w, %d0, %d1;", |a| {
            ((i128::from(a.xy() as i64) * i128::from(a.yz() as i64)) >> 64) as u64
        }),
        on80("cvt.u16.u32 %h0, %x; cvt.u16.u32 %h1, %y; mad.wide.s16 %o, %h0, %h1, %z;", |a| {
            low(i64::from(a.x() as i16) * i64::from(a.y() as i16) + i64::from(a.z()))
        }),
        on80("mad.hi.sat.s32 %o, %x, %y, %z;", |a| {
            let high = ((i64::from(a.x() as i32) * i64::from(a.y() as i32)) >> 32) as i32;
            u64::from(high.saturating_add(a.z() as i32) as u32)
        }),
        on80("or.b64 %d2, %d1, 1; rem.s64 %d3, %d0, %d2; abs.s64 %w, %d3;", |a| {
            (a.xy() as i64).wrapping_rem((a.yz() | 1) as i64).unsigned_abs()
        }),
        on80("vabsdiff4.u32.u32.u32.add %o, %x, %y, %z;", |a| {
            let sum: i64 = (0..4).map(|i| (ubyte(a.x(), i) - ubyte(a.y(), i)).abs()).sum();
            low(sum + i64::from(a.z()))
        }),
        on80("vadd4.s32.s32.s32.sat %o, %x, %y, %z;", |a| {
            (0..4).fold(0, |o, i| {
                let s = (sbyte(a.x(), i) + sbyte(a.y(), i)).clamp(-128, 127);
                o | (s as u64 & 0xFF) << (8 * i)
            })
        }),
        on80("vset2.u32.u32.ge %o, %x, %y, %z;", |a| {
            let h = |x: u32, i: u32| x >> (16 * i) & 0xFFFF;
            (0..2).fold(0, |o, i| o | u64::from(h(a.x(), i) >= h(a.y(), i)) << (16 * i))
        }),
        on80("cvt.pack.sat.u8.s32.b32 %o, %x, %y, %z;", |a| {
            let c = |x: u32| (x as i32).clamp(0, 255) as u64;
            (u64::from(a.z()) << 16 | c(a.x()) << 8 | c(a.y())) & 0xFFFF_FFFF
        }),
        on80("cvt.pack.sat.s16.s32 %o, %x, %y;", |a| {
            let c = |x: u32| (x as i32).clamp(-0x8000, 0x7FFF) as u64 & 0xFFFF;
            c(a.x()) << 16 | c(a.y())
        }),
        // ── floats ──
        on80("copysign.f32 %f2, %f0, %f1; mov.b32 %o, %f2;", |a| {
            u64::from(a.x() & 0x8000_0000 | a.y() & 0x7FFF_FFFF)
        }),
        on80(
            "testp.subnormal.f32 %p0, %f0; testp.finite.f32 %p1, %f0; testp.number.f32 %p2, %f0;\
             selp.u32 %r0, 1, 0, %p0; @%p1 or.b32 %r0, %r0, 2; @%p2 or.b32 %r0, %r0, 4; mov.u32 %o, %r0;",
            |a| {
                let x = a.fx();
                u64::from(x.is_subnormal())
                    | u64::from(x.is_finite()) << 1
                    | u64::from(!x.is_nan()) << 2
            },
        ),
        on80("set.ltu.u32.f32 %o, %f0, %f1;", |a| if a.fx() >= a.fy() { 0 } else { 0xFFFF_FFFF }),
        on80(
            "setp.ne.u32 %p0, %z, 0; set.gt.and.f32.s32 %f2, %x, %y, !%p0; mov.b32 %o, %f2;",
            |a| {
                if a.x() as i32 > a.y() as i32 && a.z() == 0 { 0x3F80_0000 } else { 0 }
            },
        ),
        on80("set.le.f16x2.f16x2 %o, %x, %y;", |a| {
            (0..2).fold(0, |o, i| {
                let yes = half(a.x(), i) <= half(a.y(), i);
                o | if yes { 0x3C00u64 << (16 * i) } else { 0 }
            })
        }),
        on80("min.NaN.f32 %f2, %f0, %f1; mov.b32 %o, %f2;", |a| match (a.fx(), a.fy()) {
            (x, y) if x.is_nan() || y.is_nan() => 0x7FFF_FFFF,
            (x, y) if x == y => u64::from(a.x() | a.y()),
            (x, y) => bits(x.min(y)),
        }),
        on80("cvt.rmi.s32.f32 %o, %f0;", |a| {
            u64::from(if a.fx().is_nan() { 0 } else { a.fx().floor() as i32 as u32 })
        }),
        on80("cvt.rzi.u8.f32 %o, %f0;", |a| u64::from(a.fx() as u8)),
        on80("cvt.sat.s8.s32 %o, %x;", |a| u64::from((a.x() as i32).clamp(-128, 127) as u32)),
        on80("cvt.rn.f32.u64 %f2, %d0; mov.b32 %o, %f2;", |a| bits(a.xy() as f32)),
        on80("cvt.rn.f64.s64 %g0, %d0; cvt.rzi.s64.f64 %w, %g0;", |a| {
            (a.xy() as i64 as f64) as i64 as u64
        }),
        on80(
            "mul.wide.u32 %d2, %x, %y; cvt.rn.f64.u64 %g0, %d2; sqrt.rn.f64 %g0, %g0; mov.b64 %w, %g0;",
            |a| ((u64::from(a.x()) * u64::from(a.y())) as f64).sqrt().to_bits(),
        ),
        on80("cvt.rn.relu.bf16x2.f32 %o, %f0, %f1;", |a| {
            let b = |x: f32| match x {
                x if x.is_nan() => 0x7FFFu64,
                x if x <= 0.0 => 0,
                x => u64::from(half::bf16::from_f32(x).to_bits()),
            };
            b(a.fx()) << 16 | b(a.fy())
        }),
        on80("cvt.rz.f32.f64 %f2, %g0; mov.b32 %o, %f2;", |_| 0x3DCC_CCCC),
        on80("rcp.approx.ftz.f64 %g1, 0d4008000000000000; mov.b64 %w, %g1;", |_| {
            (1.0f64 / 3.0).to_bits() & !0xFFFF_FFFF
        }),
        // ── warps ──
        on80("redux.sync.xor.b32 %o, %x, -1;", |a| u64::from(a.xs.iter().fold(0, |s, x| s ^ x))),
        on80("redux.sync.min.s32 %o, %x, -1;", |a| {
            u64::from(a.xs.iter().map(|&x| x as i32).min().unwrap_or(0) as u32)
        }),
        on80("and.b32 %r0, %x, 3; match.any.sync.b32 %o, %r0, -1;", |a| {
            (0..32).filter(|&i| a.xs[i] & 3 == a.x() & 3).fold(0, |m, i| m | 1 << i)
        }),
        on80(
            "setp.lt.u32 %p0, %lane, 16; @%p0 bra LOW; mov.u32 %r1, 5; match.all.sync.b32 %r0|%p1, %r1, 0xFFFF0000; \
             bra ON; LOW: match.all.sync.b32 %r0|%p1, %x, 0xFFFF; ON: selp.u32 %r1, 1, 0, %p1; add.u32 %o, %r0, %r1;",
            |a| if a.l < 16 { 0 } else { 0xFFFF_0001 },
        ),
        on80("setp.gt.s32 %p0, %x, 0; vote.sync.ballot.b32 %o, !%p0, -1;", |a| {
            (0..32).filter(|&i| a.xs[i] as i32 <= 0).fold(0, |m, i| m | 1 << i)
        }),
        on80("shfl.sync.up.b32 %o|%p0, %x, 3, 0x1800, -1; @!%p0 mov.u32 %o, 77;", |a| {
            if a.l % 8 < 3 { 77 } else { u64::from(a.xs[a.l - 3]) }
        }),
        on80("shfl.sync.down.b32 %o, %x, 5, 0x181F, -1;", |a| {
            u64::from(a.xs[if a.l % 8 + 5 < 8 { a.l + 5 } else { a.l }])
        }),
        on80("setp.gt.s32 %p0, %x, 0; bar.red.popc.u32 %o, 0, %p0;", |a| {
            a.xs.iter().filter(|&&x| x as i32 > 0).count() as u64
        }),
        on80(
            "setp.gt.s32 %p0, %x, 0; barrier.red.and.pred %p1, 3, 32, %p0; selp.u32 %o, 1, 2, %p1;",
            |_| 2,
        ),
        on80("movmatrix.sync.aligned.m8n8.trans.b16 %o, %x;", |a| {
            let at = |row: usize, column: usize| {
                u64::from(a.xs[4 * row + column / 2] >> (16 * (column % 2)) & 0xFFFF)
            };
            let (row, column) = (a.l / 4, 2 * (a.l % 4));
            at(column, row) | at(column + 1, row) << 16
        }),
        // A lane that comes back to where the others wait for it.
        on80(
            "mov.u32 %r0, 0; AGAIN: add.u32 %r0, %r0, 1; setp.eq.u32 %p0, %lane, 5; setp.eq.and.u32 %p0, %r0, 1, %p0; \
             @%p0 bra FAR; shfl.sync.idx.b32 %o, %r0, 5, 31, -1; bra END; FAR: bra AGAIN; END: nanosleep.u32 0;",
            |_| 2,
        ),
        // ── matrices ──
        on80(
            "mma.sync.aligned.m16n8k32.row.col.s32.s8.u8.s32 {%r0, %r1, %r2, %r3}, {%x, %y, %z, %x}, {%y, %z}, {%z, %x, %y, %z}; \
             xor.b32 %r0, %r0, %r2; xor.b32 %r1, %r1, %r3; mov.b64 %w, {%r0, %r1};",
            |a| {
                let regs = [a.xs, a.ys, a.zs, a.xs];
                let left = |row: usize, k: usize| {
                    let word = regs[2 * (k / 16) + row / 8][row % 8 * 4 + k % 16 / 4];
                    sbyte(word, k as u32 % 4)
                };
                let right = |k: usize, column: usize| {
                    let word = [a.ys, a.zs][k / 16][4 * column + k % 16 / 4];
                    ubyte(word, k as u32 % 4)
                };
                let old = [a.zs, a.xs, a.ys, a.zs];
                let (g, t) = (a.l / 4, a.l % 4);
                let d = |i: usize| {
                    let (row, column) = (g + 8 * (i / 2), 2 * t + i % 2);
                    let sum: i64 = (0..32).map(|k| left(row, k) * right(k, column)).sum();
                    (sum + i64::from(old[i][a.l] as i32)) as u32
                };
                u64::from(d(1) ^ d(3)) << 32 | u64::from(d(0) ^ d(2))
            },
        ),
        on80(
            "mma.sync.aligned.m8n8k16.row.col.satfinite.s32.u8.u8.s32 {%r0, %r1}, {%x}, {%y}, {%z, %z}; mov.b64 %w, {%r0, %r1};",
            |a| {
                let (g, t) = (a.l / 4, a.l % 4);
                let d = |column: usize| {
                    let sum: i64 = (0..16)
                        .map(|k| {
                            let at = |words: &[u32; 32], row: usize| {
                                ubyte(words[4 * row + k / 4], k as u32 % 4)
                            };
                            at(a.xs, g) * at(a.ys, column)
                        })
                        .sum();
                    let sum = sum + i64::from(a.z() as i32);
                    sum.clamp(i32::MIN.into(), i32::MAX.into()) as u32
                };
                u64::from(d(2 * t + 1)) << 32 | u64::from(d(2 * t))
            },
        ),
        on80(
            "mma.sync.aligned.m16n8k32.row.col.s32.s4.u4.s32 {%r0, %r1, %r2, %r3}, {%x, %y}, {%z}, {0, 0, 0, 0}; \
             mov.b64 %w, {%r0, %r3};",
            |a| {
                let (g, t) = (a.l / 4, a.l % 4);
                let d = |row: usize, column: usize| -> u64 {
                    let sum: i64 = (0..32)
                        .map(|k| {
                            let word = [a.xs, a.ys][row / 8][row % 8 * 4 + k / 8];
                            let left = i64::from((word << (28 - 4 * (k % 8))) as i32 >> 28);
                            left * i64::from(a.zs[4 * column + k / 8] >> (4 * (k % 8)) & 15)
                        })
                        .sum();
                    low(sum)
                };
                d(g + 8, 2 * t + 1) << 32 | d(g, 2 * t)
            },
        ),
        on80(
            "cvt.rn.f64.s32 %g0, %x; cvt.rn.f64.s32 %g1, %y; mov.f64 %g2, 0d3FF0000000000000; \
             mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%g2, %g3}, {%g0}, {%g1}, {%g2, %g2}; \
             add.f64 %g2, %g2, %g3; mov.b64 %w, %g2;",
            |a| {
                let (g, t) = (a.l / 4, a.l % 4);
                let at = |words: &[u32; 32], i: usize| f64::from(words[i] as i32);
                let d = |column: usize| {
                    (0..4)
                        .fold(1.0, |s, k| at(a.xs, 4 * g + k).mul_add(at(a.ys, 4 * column + k), s))
                };
                (d(2 * t) + d(2 * t + 1)).to_bits()
            },
        ),
        on90(
            "and.b32 %r0, %x, 0xB7B7B7B7; and.b32 %r1, %y, 0xBBBBBBBB; mov.b32 %f0, 0; \
             mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e5m2.f32 {%f2, %f3, %f4, %f5}, {%r0, %r0, %r0, %r0}, {%r1, %r1}, {%f0, %f0, %f0, %f0}; \
             mov.b32 %o, %f3;",
            |a| {
                let (g, t) = (a.l / 4, a.l % 4);
                let v = |b: u32, m: u32, bias: i32| {
                    let (e, f) = ((b as i32 & 0x7F) >> m, f64::from(b & ((1 << m) - 1)));
                    let one = f64::from(1 << m);
                    let x = if e == 0 {
                        f / one * 2f64.powi(1 - bias)
                    } else {
                        (1.0 + f / one) * 2f64.powi(e - bias)
                    };
                    if b & 0x80 == 0 { x } else { -x }
                };
                let sum: f64 = (0..32)
                    .map(|k| {
                        let x = a.xs[4 * g + k % 16 / 4] & 0xB7B7_B7B7;
                        let y = a.ys[4 * (2 * t + 1) + k % 16 / 4] & 0xBBBB_BBBB;
                        v(x >> (8 * (k % 4)) & 0xFF, 3, 7) * v(y >> (8 * (k % 4)) & 0xFF, 2, 15)
                    })
                    .sum();
                bits(sum as f32)
            },
        ),
        // A wait that asks a clock: late copies come in the end.
        on80(
            "mov.u32 %r0, tile; setp.eq.u32 %p0, %lane, 0; @%p0 mbarrier.init.shared.b64 [%r0+512], 32; bar.sync 0; \
             mad.lo.u32 %r1, %lane, 4, %r0; add.u32 %r2, %r0, 512; cp.async.ca.shared.global [%r1], [%in], 4; \
             cp.async.mbarrier.arrive.noinc.shared.b64 [%r2]; \
             ASK: mov.u64 %d2, %globaltimer; mbarrier.test_wait.parity.shared.b64 %p1, [%r2], 0; @!%p1 bra ASK; \
             ld.shared.b32 %o, [%r1];",
            |a| u64::from(a.xs[0]),
        ),
        // ── memory ──
        on80(
            "mov.u32 %r0, tile; mad.lo.u32 %r1, %lane, 4, %r0; st.volatile.shared.u32 [%r1], %x; bar.warp.sync -1; \
             xor.b32 %r2, %lane, 9; mad.lo.u32 %r1, %r2, 4, %r0; ld.volatile.shared.u32 %o, [%r1];",
            |a| u64::from(a.xs[a.l ^ 9]),
        ),
        on80(
            "mov.u64 %d2, mine; cvta.local.u64 %d2, %d2; st.v4.u8 [%d2+4], {%h0, %h1, %h2, %h3}; \
             ld.local.s8 %o, [mine+6]; ",
            |_| 0xFFFF_FF83,
        ),
        on80(
            "and.b32 %r0, %x, 15; mul.wide.u32 %d2, %r0, 4; mov.u64 %d3, mine; add.u64 %d3, %d3, %d2; \
             mov.u32 %r1, 0; FILL: mul.wide.u32 %d4, %r1, 4; mov.u64 %d5, mine; add.u64 %d4, %d4, %d5; \
             mul.lo.u32 %r2, %r1, %r1; st.local.b32 [%d4], %r2; add.u32 %r1, %r1, 1; setp.lt.u32 %p0, %r1, 16; \
             @%p0 bra FILL; ld.local.b32 %o, [%d3];",
            |a| u64::from((a.x() & 15) * (a.x() & 15)),
        ),
        with(
            ".const .align 8 .b64 table[3] = {5, 0x8000000000000001, 7};\n",
            "rem.u32 %r0, %lane, 3; mul.wide.u32 %d2, %r0, 8; mov.u64 %d3, table; add.u64 %d2, %d2, %d3; ld.const.b64 %w, [%d2];",
            |a| [5, 0x8000_0000_0000_0001, 7][a.l % 3],
        ),
        on80(
            "ld.global.nc.L1::no_allocate.L2::128B.v4.s8 {%r0, %r1, %r2, %r3}, [%in]; add.s32 %o, %r0, %r3;",
            |a| low(sbyte(a.xs[0], 0) + sbyte(a.xs[0], 3)),
        ),
        on80(
            "createpolicy.fractional.L2::evict_last.b64 %d2, 0.25; ld.global.L2::cache_hint.v2.u16 {%h0, %h1}, [%in+4], %d2; \
             prefetch.global.L2::evict_last [%in]; mov.b32 %o, {%h1, %h0};",
            |a| u64::from(a.xs[1].rotate_left(16)),
        ),
        on80(
            "mov.u32 %r0, tile; setp.eq.u32 %p0, %lane, 0; @%p0 st.shared.b64 [%r0], 0; bar.warp.sync -1; \
             RETRY: ld.relaxed.cta.shared.b64 %d2, [%r0]; add.u64 %d3, %d2, %d0; \
             atom.relaxed.cta.shared.cas.b64 %d4, [%r0], %d2, %d3; setp.ne.u64 %p1, %d4, %d2; @%p1 bra RETRY; \
             bar.warp.sync -1; ld.shared.b64 %w, [%r0];",
            |a| {
                (0..32).fold(0u64, |s, i| {
                    s.wrapping_add(u64::from(a.ys[i]) << 32 | u64::from(a.xs[i]))
                })
            },
        ),
        on80(
            "setp.eq.u32 %p0, %lane, 0; @%p0 st.shared.b32 [tile], 0; bar.warp.sync -1; \
             atom.shared.cta.inc.u32 %r0, [tile], 6; bar.warp.sync -1; ld.shared.u32 %o, [tile];",
            |_| 32 % 7,
        ),
        on80(
            "setp.eq.u32 %p0, %lane, 0; mov.s64 %d2, -9; @%p0 st.shared.b64 [tile+8], %d2; bar.warp.sync -1; \
             atom.shared.gpu.acq_rel.max.s64 %d3, [tile+8], %d0; bar.warp.sync -1; ld.shared.s64 %w, [tile+8];",
            |a| {
                let all = (0..32).map(|i| (u64::from(a.ys[i]) << 32 | u64::from(a.xs[i])) as i64);
                all.chain([-9]).max().unwrap_or(0) as u64
            },
        ),
        on80(
            "setp.eq.u32 %p0, %lane, 0; @%p0 st.shared.b32 [tile], 0; bar.sync 0; mov.b32 %r1, 0x3C003800; \
             red.shared.add.noftz.f16x2 [tile], %r1; bar.sync 0; ld.shared.b32 %o, [tile];",
            // 32 · 1 above, 32 · 0.5 below.
            |_| 0x5000_4C00,
        ),
        on80(
            "mov.u32 %r0, tile; mad.lo.u32 %r1, %lane, 16, %r0; and.b32 %r2, %lane, 7; \
             cp.async.ca.shared.global [%r1], [%in], 8, %r2; cp.async.wait_all; ld.shared.b64 %w, [%r1];",
            |a| {
                let both = u64::from(a.xs[1]) << 32 | u64::from(a.xs[0]);
                both & ((1u64 << (8 * (a.l & 7))) - 1)
            },
        ),
        on80(
            "mov.u32 %r0, tile; mad.lo.u32 %r1, %lane, 4, %r0; st.shared.b32 [%r1], %x; bar.sync 0; \
             and.b32 %r2, %lane, 7; mad.lo.u32 %r2, %r2, 16, %r0; \
             ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%o}, [%r2];",
            |a| {
                let at = |row: usize, column: usize| {
                    u64::from(a.xs[4 * row + column / 2] >> (16 * (column % 2)) & 0xFFFF)
                };
                let (row, column) = (a.l / 4, 2 * (a.l % 4));
                at(column, row) | at(column + 1, row) << 16
            },
        ),
        on80(
            "mov.u32 %r0, tile; cvt.u64.u32 %d2, %r0; cvta.shared.u64 %d2, %d2; mov.u64 %d3, mine; cvta.local.u64 %d3, %d3; \
             isspacep.shared %p0, %d2; isspacep.local %p1, %d2; isspacep.local %p2, %d3; isspacep.global %p3, %in; \
             selp.u32 %r0, 1, 0, %p0; @%p1 or.b32 %r0, %r0, 2; @%p2 or.b32 %r0, %r0, 4; @%p3 or.b32 %r0, %r0, 8; \
             mov.u32 %o, %r0;",
            |_| 13,
        ),
        on80(
            "ldu.global.u32 %r0, [%in+8]; atom.global.cta.add.u32 %r1, [%out+256], 1; add.u32 %o, %r0, 0;",
            |a| u64::from(a.xs[2]),
        ),
        on80(
            "mov.u32 %r0, WARP_SZ*2-1; mov.b64 {%h0, %h1, %h2, %h3}, %d0; mov.b32 %r1, {%h3, %h0}; add.u32 %o, %r1, %r0;",
            |a| {
                let word = u32::from(a.x() as u16) << 16 | a.y() >> 16;
                u64::from(word.wrapping_add(63))
            },
        ),
        // All lanes store the same: who comes last does not matter.
        on80(
            "redux.sync.add.u32 %r0, %x, -1; st.shared.u32 [tile], %r0; bar.sync 0; ld.shared.u32 %o, [tile];",
            |a| u64::from(a.xs.iter().fold(0u32, |s, &x| s.wrapping_add(x))),
        ),
        // ── control ──
        with(
            ".func (.param .align 8 .b8 back[16]) swap(.param .align 8 .b8 pair[16], .reg .b32 n)\n{\n\t.reg .b64 %a, %b;\n\
             \tld.param.b64 %a, [pair];\n\tld.param.b64 %b, [pair+8];\n\t.reg .pred %odd;\n\t.reg .b32 %n;\n\tand.b32 %n, n, 1;\n\
             \tsetp.ne.u32 %odd, %n, 0;\n\t@%odd bra CROSS;\n\tst.param.v2.b64 [back], {%a, %b};\n\tret;\nCROSS:\n\
             \tst.param.b64 [back], %b;\n\tst.param.b64 [back+8], %a;\n\tret;\n}\n",
            "{ .param .align 8 .b8 p0[16]; .param .align 8 .b8 q0[16]; st.param.b64 [p0], %d0; st.param.b64 [p0+8], %d1; \
             call (q0), swap, (p0, %lane); ld.param.b64 %w, [q0]; }",
            |a| if a.l % 2 == 1 { a.yz() } else { a.xy() },
        ),
        with(
            ".func (.reg .b32 r) twice(.reg .b32 a) { add.u32 r, a, a; ret; }\n\
             .func (.reg .b32 r) fourfold(.reg .b32 a) { call (r), twice, (a); call (r), twice, (r); ret; }\n",
            "setp.lt.u32 %p0, %lane, 7; mov.u32 %o, %x; @%p0 call (%o), fourfold, (%o); @!%p0 call (%o), twice, (%o);",
            |a| u64::from(a.x().wrapping_mul(if a.l < 7 { 4 } else { 2 })),
        ),
        on80(
            "rem.u32 %r0, %lane, 4; list: .branchtargets A, B, A, C; mov.u32 %o, 1; setp.ne.u32 %p0, %lane, 31; \
             @%p0 brx.idx %r0, list; mov.u32 %o, 50; bra END; A: mov.u32 %o, 10; bra END; B: mov.u32 %o, 20; C: add.u32 %o, %o, 5; END: ret_not_here:",
            |a| match (a.l, a.l % 4) {
                (31, _) => 50,
                (_, 0 | 2) => 10,
                (_, 1) => 25,
                _ => 6,
            },
        ),
        on80(
            "mov.pred %p0, -1; mov.pred %p1, 0; and.pred %p2, %p0, !%p1; selp.u32 %o, %x, %y, %p2;",
            |a| u64::from(a.x()),
        ),
        on80(
            ".loc 1 2 3\n .pragma \"nounroll\"; setp.gt.s32 %p0|%p1, %x, %y; selp.u32 %r0, 1, 0, %p0; selp.u32 %r1, 2, 0, %p1; or.b32 %o, %r0, %r1;",
            |a| {
                if a.x() as i32 > a.y() as i32 { 1 } else { 2 }
            },
        ),
        // ── sm_90 ──
        on90("add.s16x2 %r0, %x, %y; min.u16x2 %r1, %x, %y; mov.b64 %w, {%r0, %r1};", |a| {
            let h = |x: u32, i: u32| (x >> (16 * i)) as u16;
            (0..2).fold(0, |o, i| {
                let (x, y) = (h(a.x(), i), h(a.y(), i));
                o | u64::from(x.wrapping_add(y)) << (16 * i) | u64::from(x.min(y)) << (32 + 16 * i)
            })
        }),
        on90("max.relu.s16x2 %o, %x, %y;", |a| {
            let h = |x: u32, i: u32| (x >> (16 * i)) as i16;
            (0..2).fold(0, |o, i| o | (h(a.x(), i).max(h(a.y(), i)).max(0) as u64) << (16 * i))
        }),
        on90(
            "fma.rn.bf16x2 %r0, %x, %y, %z; mov.u32 %r1, 0; setp.gt.bf16x2 %p0|%p1, %x, %y; selp.u32 %r1, 1, 0, %p0; @%p1 or.b32 %r1, %r1, 2; mov.u32 %o, %r1;",
            |a| {
                u64::from(brain(a.x(), 0) > brain(a.y(), 0))
                    | u64::from(brain(a.x(), 1) > brain(a.y(), 1)) << 1
            },
        ),
        on90(
            "mov.b32 %r0, 0x4248C500; cvt.rn.satfinite.e4m3x2.f16x2 %h0, %r0; cvt.rn.f16x2.e4m3x2 %r1, %h0; mov.u32 %o, %r1;",
            // 3.140625 goes to 3.25, -5 stays.
            |_| 0x4280_C500,
        ),
        on90(
            "mov.u32 %r0, tile; cvt.u64.u32 %d2, %r0; cvta.shared.u64 %d2, %d2; mapa.u64 %d3, %d2, 0; getctarank.u64 %r1, %d3; \
             isspacep.shared::cluster %p0, %d3; mov.u32 %r2, %cluster_nctarank; selp.u32 %r3, 4, 0, %p0; \
             mad.lo.u32 %o, %r1, 100, %r2; add.u32 %o, %o, %r3;",
            |_| 5,
        ),
        on90(
            "elect.sync %r0|%p0, 0xFFFFFFFF; vote.sync.ballot.b32 %r1, %p0, -1; popc.b32 %r1, %r1; setp.lt.u32 %p1, %r0, 32; selp.u32 %r2, 10, 0, %p1; add.u32 %o, %r1, %r2;",
            |_| 11,
        ),
        on90(
            "mov.u32 %r0, tile; setp.eq.u32 %p0, %lane, 0; @%p0 mbarrier.init.shared.b64 [%r0], 40; bar.sync 0; \
             mbarrier.arrive.noComplete.shared.b64 %d2, [%r0], 1; mbarrier.pending_count.b64 %r1, %d2; \
             redux.sync.min.u32 %r2, %r1, -1; redux.sync.max.u32 %r3, %r1, -1; sub.u32 %o, %r3, %r2;",
            |_| 31,
        ),
        on90(
            "mov.u32 %r0, tile; mad.lo.u32 %r1, %lane, 4, %r0; setp.eq.u32 %p0, %lane, 0; \
             st.shared.u32 [%r1+512], %x; @%p0 mbarrier.init.shared.b64 [%r0+1016], 1; fence.proxy.async; bar.sync 0; \
             add.u32 %r2, %r0, 512; add.u32 %r3, %r0, 1016; \
             @%p0 mbarrier.arrive.expect_tx.shared.b64 _, [%r3], 128; \
             @%p0 cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%r0], [%r2], 128, [%r3]; \
             WAIT: mbarrier.try_wait.parity.shared.b64 %p1, [%r3], 0, 1000; @!%p1 bra WAIT; ld.shared.u32 %o, [%r1];",
            |a| u64::from(a.x()),
        ),
        on90(
            "mov.u32 %r0, tile; mad.lo.u32 %r1, %lane, 4, %r0; setp.eq.u32 %p0, %lane, 0; \
             st.shared.u32 [%r1], %x; st.shared.u32 [%r1+512], %y; @%p0 mbarrier.init.shared.b64 [%r0+1016], 1; \
             fence.proxy.async; bar.sync 0; add.u32 %r2, %r0, 512; add.u32 %r3, %r0, 1016; \
             @%p0 mbarrier.arrive.expect_tx.shared.b64 _, [%r3], 128; \
             @%p0 cp.reduce.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes.max.s32 [%r0], [%r2], 128, [%r3]; \
             WAIT: mbarrier.try_wait.parity.shared.b64 %p1, [%r3], 0; @!%p1 bra WAIT; ld.shared.u32 %o, [%r1];",
            |a| u64::from((a.x() as i32).max(a.y() as i32) as u32),
        ),
        on90(
            "mov.u32 %r0, tile; mad.lo.u32 %r1, %lane, 16, %r0; stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%r1], {%x}; \
             bar.warp.sync -1; and.b32 %r2, %lane, 7; mad.lo.u32 %r2, %r2, 16, %r0; \
             ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r3}, [%r2]; movmatrix.sync.aligned.m8n8.trans.b16 %o, %r3;",
            |a| u64::from(a.x()),
        ),
        // Out by a bulk copy and back by loads; then in by a bulk copy what stores have left behind.
        on90(
            "mov.u32 %r0, tile; mad.lo.u32 %r1, %lane, 4, %r0; st.shared.u32 [%r1], %y; setp.eq.u32 %p0, %lane, 0; \
             @%p0 mbarrier.init.shared::cta.b64 [%r0+1008], 1; fence.proxy.async; bar.sync 0; \
             @%p0 cp.async.bulk.global.shared::cta.bulk_group [%out], [%r0], 128; @%p0 cp.async.bulk.commit_group; \
             @%p0 cp.async.bulk.wait_group 0; bar.sync 0; mad.wide.u32 %d2, %lane, 4, %out; ld.global.u32 %r2, [%d2]; \
             add.u32 %r2, %r2, 1; st.global.u32 [%d2], %r2; fence.proxy.async; bar.sync 0; add.u32 %r3, %r0, 1008; \
             @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r3], 128; add.u32 %r4, %r0, 512; \
             @%p0 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r4], [%out], 128, [%r3]; \
             WAIT: mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r3], 0; @!%p1 bra WAIT; ld.shared.u32 %o, [%r1+512]; bar.sync 0;",
            |a| u64::from(a.y().wrapping_add(1)),
        ),
        on90(
            "mov.u32 %r0, tile; setp.eq.u32 %p0, %lane, 0; @%p0 mbarrier.init.shared.b64 [%r0+1008], 1; \
             @%p0 fence.mbarrier_init.release.cluster; mad.lo.u32 %r1, %lane, 16, %r0; add.u32 %r2, %r0, 1008; bar.sync 0; \
             @%p0 mbarrier.arrive.expect_tx.shared.b64 _, [%r2], 512; bar.sync 0; \
             mapa.shared::cluster.u32 %r3, %r1, 0; mapa.shared::cluster.u32 %r4, %r2, 0; \
             st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%r3], {%x, %y, %z, %lane}, [%r4]; \
             WAIT: mbarrier.test_wait.parity.shared.b64 %p1, [%r2], 0; @!%p1 bra WAIT; \
             xor.b32 %r5, %lane, 31; mad.lo.u32 %r5, %r5, 16, %r0; ld.shared.v2.u32 {%o, %r6}, [%r5+8];",
            |a| u64::from(a.zs[31 - a.l]),
        ),
        on90(
            "barrier.cluster.arrive.release; barrier.cluster.wait.acquire; griddepcontrol.wait; griddepcontrol.launch_dependents; \
             fence.proxy.alias; fence.acq_rel.cluster; mov.u32 %r0, %clusterid.x; mov.u32 %r1, %nclusterid.x; mad.lo.u32 %o, %r0, 8, %r1;",
            |_| 1,
        ),
        on90(
            "mov.u32 %r0, tile; mapa.shared::cluster.u32 %r1, %r0, 0; setp.eq.u32 %p0, %lane, 0; @%p0 st.shared::cluster.u32 [%r1], 3; \
             bar.sync 0; atom.relaxed.cluster.shared::cluster.add.u32 %r2, [%r1], %lane; bar.sync 0; ld.shared.u32 %o, [tile];",
            |_| 3 + 496,
        ),
    ]
}

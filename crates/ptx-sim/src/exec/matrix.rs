//! `ldmatrix` and `mma.sync`: the fragments' layouts, as the ISA's figures give them.

use super::Reach;
use super::memory::{reach, resolve};
use super::trouble::{Res, trouble};
use super::warp::{Files, Warp};
use crate::check::clock::Stamp;
use crate::check::region::Mode;
use crate::isa::inst::{Addr, Float, Mma, MmaTy, Slot, Space};
use crate::num::mma::Tile;
use crate::num::round::decode;
use crate::report::FaultKind;

/// Lane `8i + r` gives the address of row `r` of matrix `i`; lane `l` receives from row `l / 4`
/// the elements `2(l % 4)` and the next, transposed: from column `l / 4`.
pub(super) fn ldmatrix(
    warp: &mut Warp,
    r: &mut Reach<'_, '_>,
    addr: &Addr,
    transpose: bool,
    d: &[Slot],
) -> Res<()> {
    let rows = 8 * d.len();
    let mask = if rows == 32 { u32::MAX } else { (1 << rows) - 1 };
    let at = warp.files.read(addr.base, mask)?.map(|x| x.wrapping_add_signed(addr.offset));
    let packed = Stamp::pack(r.pc, 0);
    let mut matrices = [[[0u16; 8]; 8]; 4];
    let mut flat = [0; 32];
    for lane in 0..rows {
        let (space, address) = resolve(addr.space, at[lane]);
        if space != Space::Shared {
            return trouble(
                FaultKind::OutOfBounds,
                1 << lane,
                format!("{address:#x} is not in shared memory"),
            );
        }
        flat[lane] = address;
        // The row goes to several lanes: all of the warp must know the bytes.
        let mut who = r.who(warp, 0, packed);
        who.lane = crate::check::clock::WHOLE_WARP;
        who.stamp.lanes = u32::MAX;
        let bytes =
            reach(r.env.memory, r.shared, space, address, (16, 16), Mode::Read, r.env.checks, &who)
                .map_err(|mut t| {
                    t.lanes = 1 << lane;
                    t
                })?;
        for (x, pair) in matrices[lane / 8][lane % 8].iter_mut().zip(bytes.chunks_exact(2)) {
            *x = u16::from_le_bytes([pair[0], pair[1]]);
        }
    }
    for (m, &slot) in matrices.iter().zip(d) {
        let v = std::array::from_fn(|l| {
            let (row, column) = (l / 4, 2 * (l % 4));
            let (low, high) = if transpose {
                (m[column][row], m[column + 1][row])
            } else {
                (m[row][column], m[row][column + 1])
            };
            u64::from(low) | u64::from(high) << 16
        });
        warp.files.store(slot, u32::MAX, &v);
    }
    r.env.counters.ldmatrix(r.pc, &flat, rows);
    Ok(())
}

/// Value of element `i` of a register.
#[inline]
fn value(ty: MmaTy, word: u64, i: usize) -> f64 {
    match ty {
        // The hardware ignores the low 13 bits.
        MmaTy::Tf32 => f64::from(f32::from_bits(word as u32 & 0xFFFF_E000)),
        MmaTy::Bf16 => f64::from(f32::from_bits((word as u32 >> (16 * i)) << 16)),
        MmaTy::F16 => half(word >> (16 * i) & 0xFFFF),
    }
}

/// f16 by moving its bits into an f32 and scaling by 2^112; exact for all but infinity and NaN.
#[inline]
fn half(bits: u64) -> f64 {
    if bits & 0x7C00 == 0x7C00 {
        return decode(bits, Float::F16);
    }
    let magnitude = f32::from_bits((bits as u32 & 0x7FFF) << 13) * f32::from_bits(0x7780_0000);
    f64::from(if bits & 0x8000 == 0 { magnitude } else { -magnitude })
}

pub(super) fn mma(files: &mut Files, r: &mut Reach<'_, '_>, m: &Mma) -> Res<()> {
    let k = m.k as usize;
    let mut tile = Tile { a: [[0.0; 16]; 16], b: [[0.0; 8]; 16], c: [[0.0; 8]; 16] };
    // With g = lane / 4 and t = lane % 4, register i of A holds row g, or g + 8 when i is odd;
    // registers 2 and 3 hold the second half of k. A register holds two elements of 16 bits (k =
    // 2t, 2t + 1) or one of tf32 (k = t). B likewise, without the odd rows.
    let per = if m.ty == MmaTy::Tf32 { 1 } else { 2 };
    let step = 4 * per;
    for (i, &slot) in m.a.iter().enumerate() {
        let word = files.read(slot, u32::MAX)?;
        for (lane, &word) in word.iter().enumerate() {
            let (g, t) = (lane / 4, lane % 4);
            for e in 0..per {
                tile.a[g + 8 * (i % 2)][step * (i / 2) + per * t + e] = value(m.ty, word, e);
            }
        }
    }
    for (i, &slot) in m.b.iter().enumerate() {
        let word = files.read(slot, u32::MAX)?;
        for (lane, &word) in word.iter().enumerate() {
            let (g, t) = (lane / 4, lane % 4);
            for e in 0..per {
                tile.b[step * i + per * t + e][g] = value(m.ty, word, e);
            }
        }
    }
    // C and D: registers 0 and 1 are row g, columns 2t and 2t + 1; 2 and 3 are row g + 8.
    for (i, &slot) in m.c.iter().enumerate() {
        let word = files.read(slot, u32::MAX)?;
        for (lane, &word) in word.iter().enumerate() {
            let (g, t) = (lane / 4, lane % 4);
            if m.half {
                tile.c[g + 8 * i][2 * t] = half(word & 0xFFFF);
                tile.c[g + 8 * i][2 * t + 1] = half(word >> 16);
            } else {
                tile.c[g + 8 * (i / 2)][2 * t + i % 2] = f64::from(f32::from_bits(word as u32));
            }
        }
    }
    let mut out = [[0; 8]; 16];
    let seed = r.env.options.seed ^ r.env.ticks;
    tile.multiply(r.env.options.mma, k, m.ty == MmaTy::Tf32, m.half, seed, &mut out);
    for (i, &slot) in m.d.iter().enumerate() {
        let v = std::array::from_fn(|lane| {
            let (g, t) = (lane / 4, lane % 4);
            if m.half {
                let row = &out[g + 8 * i];
                u64::from(row[2 * t]) | u64::from(row[2 * t + 1]) << 16
            } else {
                u64::from(out[g + 8 * (i / 2)][2 * t + i % 2])
            }
        });
        files.store(slot, u32::MAX, &v);
    }
    r.env.counters.mma(r.pc, 16 * 8 * u64::from(m.k));
    Ok(())
}

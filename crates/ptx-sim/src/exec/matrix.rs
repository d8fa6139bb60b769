//! `ldmatrix` and `mma.sync`: the fragments' layouts, as the ISA's figures give them.

use super::access::resolve;
use super::env::Reach;
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
        let bytes = r.bytes(space, address, (16, 16), Mode::Read, &who).map_err(|mut t| {
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

/// Lane `l` holds two elements of row `l / 4`, and gets two of column `l / 4`.
pub(super) fn movmatrix(files: &mut Files, d: Slot, a: Slot) -> Res<()> {
    let a = *files.read(a, u32::MAX)?;
    let at = |row: usize, column: usize| a[4 * row + column / 2] >> (16 * (column % 2)) & 0xFFFF;
    let v = std::array::from_fn(|l| {
        let (row, column) = (l / 4, 2 * (l % 4));
        at(column, row) | at(column + 1, row) << 16
    });
    files.store(d, u32::MAX, &v);
    Ok(())
}

/// Value of element `i` of a register; every operand format fits an f32.
#[inline(always)]
pub(super) fn value(ty: MmaTy, word: u32, i: usize) -> f32 {
    match ty {
        // The hardware ignores the low 13 bits.
        MmaTy::Tf32 => f32::from_bits(word & 0xFFFF_E000),
        MmaTy::Bf16 => f32::from_bits(word >> (16 * i) << 16),
        MmaTy::F16 => half(word >> (16 * i) & 0xFFFF),
    }
}

/// f16 by moving its bits into an f32 and scaling by 2^112; exact for all but infinity and NaN.
#[inline(always)]
fn half(bits: u32) -> f32 {
    if bits & 0x7C00 == 0x7C00 {
        return decode(u64::from(bits), Float::F16) as f32;
    }
    let magnitude = f32::from_bits((bits & 0x7FFF) << 13) * f32::from_bits(0x7780_0000);
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}

pub(super) fn mma(files: &mut Files, r: &mut Reach<'_, '_>, m: &Mma) -> Res<()> {
    let tile = match m.ty {
        MmaTy::F16 => gather::<2>(files, m, |word, e| value(MmaTy::F16, word, e)),
        MmaTy::Bf16 => gather::<2>(files, m, |word, e| value(MmaTy::Bf16, word, e)),
        MmaTy::Tf32 => gather::<1>(files, m, |word, e| value(MmaTy::Tf32, word, e)),
    }?;
    let mut out = [[0; 8]; 16];
    let seed = r.env.options.seed ^ r.env.ticks;
    let model = r.env.options.mma;
    tile.multiply(model, m.k as usize, m.ty, m.half, seed, &mut out);
    for (i, &slot) in m.d.iter().enumerate() {
        let to = files.write(slot, u32::MAX);
        for (lane, to) in to.iter_mut().enumerate() {
            let (g, t) = (lane / 4, lane % 4);
            *to = if m.half {
                let row = &out[g + 8 * i];
                u64::from(row[2 * t]) | u64::from(row[2 * t + 1]) << 16
            } else {
                u64::from(out[g + 8 * (i / 2)][2 * t + i % 2])
            };
        }
    }
    r.env.counters.mma(r.pc, 16 * 8 * u64::from(m.k));
    Ok(())
}

/// The operands by row and column. With g = lane / 4 and t = lane % 4, register i of A holds row g,
/// or g + 8 when i is odd; registers 2 and 3 hold the second half of k. A register holds `PER`
/// elements: two of 16 bits (k = 2t, 2t + 1) or one of tf32 (k = t). B likewise, without the odd
/// rows. C: registers 0 and 1 are row g, columns 2t and 2t + 1; 2 and 3 are row g + 8.
#[inline(always)]
fn gather<const PER: usize>(
    files: &Files,
    m: &Mma,
    value: impl Fn(u32, usize) -> f32,
) -> Res<Tile> {
    let mut tile = Tile { a: [[0.0; 16]; 16], b: [[0.0; 8]; 16], c: [[0.0; 8]; 16] };
    for (i, &slot) in m.a.iter().enumerate() {
        let words = files.read(slot, u32::MAX)?;
        let (row, k) = (8 * (i % 2), 4 * PER * (i / 2));
        for (g, four) in words.chunks_exact(4).enumerate() {
            let row = &mut tile.a[row + g][k..k + 4 * PER];
            for (pair, &word) in row.chunks_exact_mut(PER).zip(four) {
                for (e, x) in pair.iter_mut().enumerate() {
                    *x = value(word as u32, e);
                }
            }
        }
    }
    for (i, &slot) in m.b.iter().enumerate() {
        let words = files.read(slot, u32::MAX)?;
        let rows = &mut tile.b[4 * PER * i..4 * PER * (i + 1)];
        for (g, four) in words.chunks_exact(4).enumerate() {
            for (t, &word) in four.iter().enumerate() {
                for e in 0..PER {
                    rows[PER * t + e][g] = value(word as u32, e);
                }
            }
        }
    }
    for (i, &slot) in m.c.iter().enumerate() {
        let words = files.read(slot, u32::MAX)?;
        for (g, four) in words.chunks_exact(4).enumerate() {
            for (t, &word) in four.iter().enumerate() {
                let word = word as u32;
                if m.half {
                    tile.c[g + 8 * i][2 * t] = half(word & 0xFFFF);
                    tile.c[g + 8 * i][2 * t + 1] = half(word >> 16);
                } else {
                    tile.c[g + 8 * (i / 2)][2 * t + i % 2] = f32::from_bits(word);
                }
            }
        }
    }
    Ok(tile)
}

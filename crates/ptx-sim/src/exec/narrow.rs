//! `mma.sync` of bytes, half bytes, eight-bit floats and f64. Integer sums wrap or saturate once, at the end;
//! floats are summed exactly and rounded once, whatever the model, since none is published; f64 is fused step
//! by step along k.

use super::env::Reach;
use super::int::sign_extend;
use super::trouble::Res;
use super::warp::Files;
use crate::isa::inst::{Element, Float, NarrowMma, Round, Slot, Sums};
use crate::num::fp8;
use crate::num::round::{decode, encode};

/// Element `i` of a register.
pub(super) fn element(ty: Element, word: u64, i: u32) -> f64 {
    match ty {
        Element::Int(bits, signed) => {
            let part = word >> (bits * i) & ((1 << bits) - 1);
            if signed { sign_extend(part, bits) as f64 } else { part as f64 }
        }
        Element::Fp8(fp8) => fp8::decode(word >> (8 * i) & 0xFF, fp8),
        Element::F64 => f64::from_bits(word),
    }
}

/// A sum as its register has it; two to a register in f16.
pub(super) fn finish(sums: Sums, x: f64) -> u64 {
    match sums {
        // Sums of products of bytes and a word are exact in f64.
        Sums::Int { saturate: true } => {
            u64::from((x as i64).clamp(i32::MIN.into(), i32::MAX.into()) as u32)
        }
        Sums::Int { saturate: false } => u64::from(x as i64 as u32),
        Sums::F32 => encode(x, Float::F32, Round::Nearest),
        Sums::F16 => encode(x, Float::F16, Round::Nearest),
        Sums::F64 => encode(x, Float::F64, Round::Nearest),
    }
}

/// What `finish` left, `i` choosing the half of an f16 pair.
pub(super) fn begin(sums: Sums, word: u64, i: usize) -> f64 {
    match sums {
        Sums::Int { .. } => f64::from(word as u32 as i32),
        Sums::F32 => decode(word, Float::F32),
        Sums::F16 => decode(word >> (16 * i) & 0xFFFF, Float::F16),
        Sums::F64 => f64::from_bits(word),
    }
}

/// Row and column of part `i` (of two) of register `n` of C or D.
fn place(sums: Sums, n: usize, lane: usize, i: usize) -> (usize, usize) {
    let (g, t) = (lane / 4, lane % 4);
    match sums {
        Sums::F16 => (g + 8 * n, 2 * t + i),
        _ => (g + 8 * (n / 2), 2 * t + n % 2),
    }
}

pub(super) fn mma(files: &mut Files, r: &mut Reach<'_, '_>, m: &NarrowMma) -> Res<()> {
    let per = m.types.0.per_register();
    let mut a = [[0.0; 64]; 16];
    let mut b = [[0.0; 8]; 64];
    let mut c = [[0.0; 8]; 16];
    let split = usize::from(m.rows == 16);
    // Register i of A has row g, with 16 rows g + 8 in every other one; each further one or two the next
    // four registers' worth of k. B likewise, without rows.
    let fill =
        |slots: &[Slot], ty: Element, put: &mut dyn FnMut(usize, usize, usize, f64)| -> Res<()> {
            for (n, &slot) in slots.iter().enumerate() {
                for (lane, &word) in files.read(slot, u32::MAX)?.iter().enumerate() {
                    for e in 0..per {
                        let within = per as usize * (lane % 4) + e as usize;
                        put(n, lane / 4, within, element(ty, word, e));
                    }
                }
            }
            Ok(())
        };
    let step = 4 * per as usize;
    fill(&m.a, m.types.0, &mut |n, g, within, x| {
        a[g + 8 * (n & split)][step * (n >> split) + within] = x;
    })?;
    fill(&m.b, m.types.1, &mut |n, g, within, x| b[step * n + within][g] = x)?;
    let parts = if m.sums == Sums::F16 { 2 } else { 1 };
    for (n, &slot) in m.c.iter().enumerate() {
        for (lane, &word) in files.read(slot, u32::MAX)?.iter().enumerate() {
            for i in 0..parts {
                let (row, column) = place(m.sums, n, lane, i);
                c[row][column] = begin(m.sums, word, i);
            }
        }
    }
    for (row, sums) in c.iter_mut().enumerate().take(m.rows as usize) {
        for (column, sum) in sums.iter_mut().enumerate() {
            for k in 0..m.k as usize {
                *sum = a[row][k].mul_add(b[k][column], *sum);
            }
        }
    }
    for (n, &slot) in m.d.iter().enumerate() {
        let to = files.write(slot, u32::MAX);
        for (lane, to) in to.iter_mut().enumerate() {
            *to = 0;
            for i in 0..parts {
                let (row, column) = place(m.sums, n, lane, i);
                *to |= finish(m.sums, c[row][column]) << (16 * i);
            }
        }
    }
    r.env.counters.mma(r.pc, u64::from(m.rows) * 8 * u64::from(m.k));
    Ok(())
}

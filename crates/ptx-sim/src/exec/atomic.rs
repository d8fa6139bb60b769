//! The arithmetic of atomics and reductions. Called by `memory` and when a reducing copy lands.

use crate::isa::inst::{AtomOp, AtomTy, Float, FloatFlags, FloatOp, Round, Space};
use crate::isa::types::mask as ones;
use crate::num::float::scalar;

pub(super) fn float_add(float: Float, ftz: bool, a: u64, b: u64) -> u64 {
    let flags = FloatFlags {
        float,
        packed: false,
        round: Round::Nearest,
        ftz,
        sat: false,
        relu: false,
        approx: false,
    };
    scalar(FloatOp::Add, &flags, [a, b, 0])
}

pub(super) fn apply(op: AtomOp, ty: AtomTy, space: Space, old: u64, x: u64, y: u64) -> u64 {
    let bits = ty.bits();
    let m = ones(bits);
    let signed = matches!(ty, AtomTy::Signed(_));
    let less = if signed {
        super::int::sign_extend(x, bits) < super::int::sign_extend(old, bits)
    } else {
        x < old
    };
    match op {
        AtomOp::Add => match ty {
            AtomTy::Float(float) => {
                // By the ISA f32 is flushed in global memory and not in shared memory.
                float_add(float, float == Float::F32 && space == Space::Global, old, x)
            }
            AtomTy::Pair(float) => {
                let part = |n: u32| float_add(float, false, old >> n & 0xFFFF, x >> n & 0xFFFF);
                part(0) | part(16) << 16
            }
            _ => old.wrapping_add(x) & m,
        },
        AtomOp::Min => {
            if less {
                x
            } else {
                old
            }
        }
        AtomOp::Max => {
            if less {
                old
            } else {
                x
            }
        }
        AtomOp::And => old & x,
        AtomOp::Or => old | x,
        AtomOp::Xor => old ^ x,
        AtomOp::Inc => {
            if old >= x {
                0
            } else {
                old + 1
            }
        }
        AtomOp::Dec => {
            if old == 0 || old > x {
                x
            } else {
                old - 1
            }
        }
        AtomOp::Exch => x,
        AtomOp::Cas => {
            if old == x {
                y
            } else {
                old
            }
        }
    }
}

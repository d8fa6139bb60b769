//! The launches of `contract`: compose and chain, one for each sum over an adapter's factors.

use core::mem::offset_of;

use super::abi::{Contract, STORED_BF16, STORED_F16, STORED_F32};
use super::numbers::Kind;
use super::params::{pointer, word};
use super::scratch::ScratchLayout;
use super::variants::Variant;
use super::{Building, Refusal, check_sizes, sm80};
use crate::product::{Contraction, Factors, INDICES, Indexed, Place};
use crate::{Access, DType, Error, Major, Operand};

/// Terms from which on a warp shares a sum.
const SHARED: usize = 32;

/// Where w1 and its gradient begin in the workspace.
#[derive(Clone, Copy)]
struct Own {
    w1: u64,
    dw1: u64,
}

impl Own {
    /// The operand, or the workspace, and bytes from its start.
    fn of(self, place: Place) -> (Option<Operand>, u64) {
        match place {
            Place::Operand(operand) => (Some(operand), 0),
            Place::W1 => (None, self.w1),
            Place::Dw1 => (None, self.dw1),
        }
    }
}

impl Building<'_> {
    /// All sums of `of`, whose factors are stored as `dtype`; bytes of workspace.
    pub(super) fn contract(&mut self, of: &Factors, dtype: DType) -> Result<usize, Refusal> {
        let mut scratch = ScratchLayout::new(false);
        let formed = of.sums.iter().find(|sum| sum.out.store().is_none());
        let own =
            match formed.map(|sum| 4usize.saturating_mul(sum.out.spec.rows * sum.out.spec.cols)) {
                Some(bytes) => Own { w1: scratch.take(bytes), dw1: scratch.take(bytes) },
                None => Own { w1: 0, dw1: 0 },
            };
        for sum in &of.sums {
            self.contract_one(sum, own, dtype)?;
        }
        Ok(scratch.finish())
    }

    fn contract_one(&mut self, sum: &Contraction, own: Own, dtype: DType) -> Result<(), Refusal> {
        let variant = Variant::find(
            Kind::Contract,
            0,
            |of| of.dtype == dtype,
            || format!("no text of `contract` for {dtype}"),
        )?;
        let spec = &sum.out.spec;
        let [_, x2, _, y2, s, t] = sum.sizes;
        let terms = s.saturating_mul(t);
        check_sizes(&[spec.rows, spec.cols, terms], 1 << 29)?;
        let elements = spec.rows as u64 * spec.cols as u64;
        let is_shared = terms >= SHARED;
        let threads = elements.saturating_mul(if is_shared { 32 } else { 1 });
        let blocks = threads.div_ceil(variant.threads as u64);
        let (limit, got) = (i32::MAX as u64, blocks);
        if got > limit {
            let (operand, _) = own.of(sum.out.place);
            let (operand, what) = (operand.unwrap_or(Operand::W1a), "blocks of `contract`");
            return Err(Refusal::Limit(Error::Limit { operand, what, limit, got }));
        }
        let mut params = self.params::<Contract>();
        let sides =
            [(&sum.left, pointer!(Contract, left)), (&sum.right, pointer!(Contract, right))];
        for (side, at) in sides {
            if let Some(of) = side {
                params.bind(at, own.of(of.place).0, Access::Read);
            }
        }
        let (operand, out_offset) = own.of(sum.out.place);
        params.bind(pointer!(Contract, out), operand, spec.access);
        let (out_row, out_column) = match spec.major {
            Major::Row => (spec.stride as u64, 1),
            Major::Col => (1, spec.stride as u64),
        };
        let side = |of: &Option<Indexed>| {
            let strides = of.as_ref().map_or([0; INDICES], |of| of.strides(of.spec.stride));
            let offset = of.as_ref().map_or(0, |of| own.of(of.place).1);
            let is_f32 = of.as_ref().is_some_and(|of| of.spec.dtype == DType::F32);
            (strides.map(|of| of as u64), offset, u32::from(of.is_some()), u32::from(is_f32))
        };
        let (left, left_offset, has_left, left_f32) = side(&sum.left);
        let (right, right_offset, has_right, right_f32) = side(&sum.right);
        params.block = Contract {
            left_offset,
            right_offset,
            out_offset,
            left_x1: left[0],
            left_x2: left[1],
            left_y1: left[2],
            left_y2: left[3],
            left_s: left[4],
            left_t: left[5],
            right_x1: right[0],
            right_x2: right[1],
            right_y1: right[2],
            right_y2: right[3],
            right_s: right[4],
            right_t: right[5],
            out_row,
            out_column,
            elements,
            columns: word(spec.cols),
            x2: word(x2),
            y2: word(y2),
            terms: word(terms),
            inner: word(t),
            has_left,
            has_right,
            left_f32,
            right_f32,
            diagonal: sum.diagonal.into(),
            shared: is_shared.into(),
            stored_as: match spec.dtype {
                DType::F32 => STORED_F32,
                DType::Bf16 => STORED_BF16,
                DType::F16 => STORED_F16,
            },
            beta: params.beta(offset_of!(Contract, beta), sum.out.old, self.scalars),
            ..Contract::default()
        };
        let read: u64 = sum.reads().map(|of| of.spec.bytes()).sum();
        let bytes = read.saturating_add(spec.bytes());
        self.bytes += bytes;
        self.flops += 2 * sum.work();
        self.micros += sm80::streamed(bytes, self.cuda);
        // Below 2³¹ blocks.
        self.push(variant, [blocks as u32, 1, 1], params);
        Ok(())
    }
}

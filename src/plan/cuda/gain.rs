//! The launches of `norm`, a magnitude over the norms of w's rows, and of `backward_gain`, which scales dy and forms the
//! magnitude's gradient.

use core::mem::offset_of;

use super::abi::{BackwardGain, Norm};
use super::contract::{self, stored_as};
use super::numbers::Kind;
use super::params::{pointer, word};
use super::scratch::ScratchLayout;
use super::variants::Variant;
use super::{Building, Refusal, check_sizes, sm80};
use crate::product::{self, GainGradient};
use crate::{Access, DType, Problem, Spec};

/// Columns of a CTA of `backward_gain`.
const COLUMNS: usize = 32;

/// Elements from one to the next along rows and columns of the shape.
fn steps(spec: &Spec) -> [u64; 2] {
    contract::steps(spec).map(|of| of as u64)
}

impl Building<'_> {
    /// Bytes of workspace: w in f32 where something is added to it first, else none.
    pub(super) fn norm(&mut self, problem: &Problem, of: &product::Norm) -> Result<usize, Refusal> {
        let variant = only(Kind::Norm)?;
        let mut scratch = ScratchLayout::new(false);
        let merged = match &of.summand {
            None => None,
            Some(summand) => Some(self.with_summand(&of.w, summand, DType::F32, &mut scratch)?),
        };
        check_sizes(&[of.rows, of.columns, of.rank], i32::MAX as usize)?;
        let mut params = self.params::<Norm>();
        let w = merged.map_or(Some(of.w.operand), |_| None);
        params.bind(pointer!(Norm, w), w, Access::Read);
        if let Some([b, a]) = &of.adapter {
            params.bind(pointer!(Norm, a), Some(a.operand), Access::Read);
            params.bind(pointer!(Norm, b), Some(b.operand), Access::Read);
        }
        params.bind(pointer!(Norm, magnitude), Some(of.magnitude.operand), Access::Read);
        params.bind(pointer!(Norm, gain), Some(of.out.operand), Access::Write);
        let [w_row, w_column] = match &merged {
            None => steps(&of.w.spec),
            // Its stored rows are those of w.
            Some(at) if of.w.k_major => [u64::from(at.stride) / 4, 1],
            Some(at) => [1, u64::from(at.stride) / 4],
        };
        let adapter = of.adapter.as_ref();
        let [[b_row, b_column], [a_row, a_column]] =
            adapter.map_or([[0; 2]; 2], |of| of.each_ref().map(|of| steps(&of.spec)));
        params.block = Norm {
            w_offset: merged.map_or(0, |at| at.offset),
            w_row,
            w_column,
            a_row,
            a_column,
            b_row,
            b_column,
            columns: word(of.columns),
            rank: word(of.rank),
            w_as: stored_as(merged.map_or(of.w.spec.dtype, |_| DType::F32)),
            adapter_as: stored_as(problem.adapter()),
            scale: params.scale(offset_of!(Norm, scale), of.factor, self.scalars),
            ..params.block
        };
        let bytes = problem.bytes();
        self.bytes += bytes;
        self.flops += problem.flops();
        self.micros += sm80::streamed(bytes, self.cuda);
        self.push(variant, [word(of.rows), 1, 1], params);
        Ok(scratch.finish())
    }

    /// Bytes of workspace: none.
    pub(super) fn backward_gain(
        &mut self,
        problem: &Problem,
        of: &GainGradient,
    ) -> Result<usize, Refusal> {
        let variant = only(Kind::BackwardGain)?;
        check_sizes(&[of.tokens, of.columns], i32::MAX as usize)?;
        let mut params = self.params::<BackwardGain>();
        let loads = [
            (pointer!(BackwardGain, dy), Some(&of.dy)),
            (pointer!(BackwardGain, y), Some(&of.y)),
            (pointer!(BackwardGain, bias), of.bias.as_ref()),
            (pointer!(BackwardGain, gain), Some(&of.gain)),
            (pointer!(BackwardGain, magnitude), Some(&of.magnitude)),
        ];
        for (at, load) in loads {
            if let Some(load) = load {
                params.bind(at, Some(load.operand), Access::Read);
            }
        }
        for (at, store) in [
            (pointer!(BackwardGain, scaled), &of.scaled),
            (pointer!(BackwardGain, gradient), &of.gradient),
        ] {
            params.bind(at, Some(store.operand), store.spec.access);
        }
        params.block = BackwardGain {
            dy_stride: of.dy.spec.stride as u64,
            y_stride: of.y.spec.stride as u64,
            scaled_stride: of.scaled.spec.stride as u64,
            tokens: word(of.tokens),
            columns: word(of.columns),
            stored_as: stored_as(of.dy.spec.dtype),
            y_as: stored_as(of.y.spec.dtype),
            gradient_as: stored_as(of.gradient.spec.dtype),
            beta: params.beta(offset_of!(BackwardGain, beta), of.old, self.scalars),
            ..params.block
        };
        let bytes = problem.bytes();
        self.bytes += bytes;
        self.flops += problem.flops();
        self.micros += sm80::streamed(bytes, self.cuda);
        self.push(variant, [word(of.columns.div_ceil(COLUMNS)), 1, 1], params);
        Ok(0)
    }
}

fn only(kind: Kind) -> Result<&'static Variant, Refusal> {
    Variant::find(kind, 0, |_| true, || format!("no text of `{}`", kind.name()))
}

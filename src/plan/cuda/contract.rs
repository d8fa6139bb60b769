//! The launches of `contract`: compose and chain, one for each sum over an adapter's factors; and the sums of a LoKr with a
//! whole w2, which `kronecker` and `merged` put together.

use core::mem::offset_of;

use super::abi::{Contract, STORED_BF16, STORED_F16, STORED_F32};
use super::numbers::Kind;
use super::params::{pointer, word};
use super::scratch::ScratchLayout;
use super::variants::Variant;
use super::{Building, Refusal, check_sizes, sm80};
use crate::product::{Contraction, Factors, INDICES, Indexed, Load, Multiplier, Old, Place};
use crate::{Access, DType, Error, Major, Operand, Spec};

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

/// Elements somewhere, and from one to the next along each of `N` indices.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strided<const N: usize> {
    /// `None`: the workspace.
    pub(super) operand: Option<Operand>,
    /// Bytes from its start.
    pub(super) offset: u64,
    pub(super) dtype: DType,
    pub(super) steps: [usize; N],
}

impl<const N: usize> Strided<N> {
    pub(super) fn of_operand(load: &Load, steps: [usize; N]) -> Strided<N> {
        Strided { operand: Some(load.operand), offset: 0, dtype: load.spec.dtype, steps }
    }

    pub(super) fn in_scratch(offset: u64, dtype: DType, steps: [usize; N]) -> Strided<N> {
        Strided { operand: None, offset, dtype, steps }
    }

    /// The same, `elements` further on.
    pub(super) fn later(self, elements: usize) -> Strided<N> {
        let bytes = elements.saturating_mul(self.dtype.size());
        Strided { offset: self.offset.saturating_add(bytes as u64), ..self }
    }
}

/// `out[x, y] = gain[y]·(factor·Σ left·right (+ addend[x, y])) (+ bias[y]) (+ β·old)`, as one launch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sum<'a> {
    /// How many values each index takes: x1, x2, y1, y2, y3, s, t. Without terms the sum is 0.
    pub(super) sizes: [usize; INDICES],
    /// `None` stands for 1.
    pub(super) left: Option<Strided<INDICES>>,
    pub(super) right: Option<Strided<INDICES>>,
    pub(super) diagonal: bool,
    pub(super) factor: Multiplier,
    pub(super) addend: Option<Strided<2>>,
    pub(super) gain: Option<&'a Load>,
    pub(super) bias: Option<&'a Load>,
    pub(super) old: Old,
    pub(super) out: Strided<2>,
    /// Bytes from a high part of `out` to its low one; 0: there is one part.
    pub(super) low_offset: u64,
    /// A warp may share each sum: its lanes then read along t.
    pub(super) shares: bool,
    /// Bytes that it touches.
    pub(super) bytes: u64,
}

impl Sum<'_> {
    /// `out = left`, whose indices x and y are; rounded where `out` is narrower.
    pub(super) fn copy(left: Strided<INDICES>, out: Strided<2>, sizes: [usize; 4]) -> Sum<'static> {
        let [x1, x2, y2, y3] = sizes;
        let elements = sizes.iter().fold(1u64, |all, &of| all.saturating_mul(of as u64));
        Sum {
            sizes: [x1, x2, 1, y2, y3, 1, 1],
            left: Some(left),
            right: None,
            diagonal: false,
            factor: Multiplier::One,
            addend: None,
            gain: None,
            bias: None,
            old: Old::Replaced,
            out,
            low_offset: 0,
            shares: false,
            bytes: elements.saturating_mul((left.dtype.size() + out.dtype.size()) as u64),
        }
    }
}

/// Elements from one to the next along rows and columns of the shape.
pub(super) fn steps(spec: &Spec) -> [usize; 2] {
    match spec.major {
        Major::Row => [spec.stride, 1],
        Major::Col => [1, spec.stride],
    }
}

/// The same along rows and depth of a load, as its product has them.
pub(super) fn steps_of(load: &Load) -> [usize; 2] {
    if load.k_major { [load.spec.stride, 1] } else { [1, load.spec.stride] }
}

pub(super) fn stored_as(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => STORED_F32,
        DType::Bf16 => STORED_BF16,
        DType::F16 => STORED_F16,
    }
}

impl Building<'_> {
    /// All sums of `of`; bytes of workspace.
    pub(super) fn contract(&mut self, of: &Factors) -> Result<usize, Refusal> {
        let mut scratch = ScratchLayout::new(false);
        let [w1, dw1] = [Place::W1, Place::Dw1].map(|place| {
            let formed = of.sums.iter().find(|sum| sum.out.place == place);
            let elements = |spec: &Spec| spec.rows.saturating_mul(spec.cols);
            formed.map_or(0, |sum| scratch.take(elements(&sum.out.spec).saturating_mul(4)))
        });
        let own = Own { w1, dw1 };
        for sum in &of.sums {
            self.contract_one(sum, own)?;
        }
        Ok(scratch.finish())
    }

    /// A sum of which what lies in the workspace begins at `at`.
    pub(super) fn contract_at(&mut self, sum: &Contraction, at: u64) -> Result<(), Refusal> {
        self.contract_one(sum, Own { w1: at, dw1: at })
    }

    fn contract_one(&mut self, sum: &Contraction, own: Own) -> Result<(), Refusal> {
        let side = |of: &Indexed| {
            let (operand, offset) = own.of(of.place);
            let steps = of.strides(of.spec.stride);
            Strided { operand, offset, dtype: of.spec.dtype, steps }
        };
        let spec = &sum.out.spec;
        let (operand, offset) = own.of(sum.out.place);
        let read: u64 = sum.reads().map(|of| of.spec.bytes()).sum();
        self.sum(&Sum {
            sizes: sum.sizes,
            left: sum.left.as_ref().map(side),
            right: sum.right.as_ref().map(side),
            diagonal: sum.diagonal,
            factor: sum.factor,
            addend: None,
            gain: None,
            bias: None,
            old: sum.out.old,
            out: Strided { operand, offset, dtype: spec.dtype, steps: steps(spec) },
            low_offset: 0,
            shares: true,
            bytes: read.saturating_add(spec.bytes()),
        })
    }

    pub(super) fn sum(&mut self, sum: &Sum<'_>) -> Result<(), Refusal> {
        let variant =
            Variant::find(Kind::Contract, 0, |_| true, || "no text of `contract`".to_owned())?;
        let [x1, x2, y1, y2, y3, s, t] = sum.sizes;
        let rows = x1.saturating_mul(x2);
        let columns = y1.saturating_mul(y2).saturating_mul(y3);
        let has_terms = sum.left.is_some() || sum.right.is_some();
        let terms = if has_terms { s.saturating_mul(t) } else { 0 };
        check_sizes(&[rows, columns, terms], 1 << 29)?;
        let elements = rows as u64 * columns as u64;
        let is_shared = sum.shares && terms >= SHARED;
        let threads = elements.saturating_mul(if is_shared { 32 } else { 1 });
        let blocks = threads.div_ceil(variant.threads as u64);
        let (limit, got) = (i32::MAX as u64, blocks);
        if got > limit {
            let (operand, what) = (sum.out.operand.unwrap_or(Operand::W1), "blocks of `contract`");
            return Err(Refusal::Limit(Error::Limit { operand, what, limit, got }));
        }
        let mut params = self.params::<Contract>();
        let sides =
            [(&sum.left, pointer!(Contract, left)), (&sum.right, pointer!(Contract, right))];
        for (side, at) in sides {
            if let Some(of) = side {
                params.bind(at, of.operand, Access::Read);
            }
        }
        if let Some(of) = &sum.addend {
            params.bind(pointer!(Contract, addend), of.operand, Access::Read);
        }
        if let Some(of) = sum.gain {
            params.bind(pointer!(Contract, gain), Some(of.operand), Access::Read);
        }
        if let Some(of) = sum.bias {
            params.bind(pointer!(Contract, bias), Some(of.operand), Access::Read);
        }
        let access = if sum.old == Old::Replaced { Access::Write } else { Access::Update };
        params.bind(pointer!(Contract, out), sum.out.operand, access);
        let side = |of: &Option<Strided<INDICES>>| match of {
            None => ([0; INDICES], 0, 0, 0),
            Some(of) => (of.steps.map(|of| of as u64), of.offset, 1, stored_as(of.dtype)),
        };
        let (left, left_offset, has_left, left_as) = side(&sum.left);
        let (right, right_offset, has_right, right_as) = side(&sum.right);
        let addend = sum.addend.map_or([0; 2], |of| of.steps.map(|of| of as u64));
        let [out_row, out_column] = sum.out.steps.map(|of| of as u64);
        params.block = Contract {
            left_offset,
            right_offset,
            out_offset: sum.out.offset,
            left_x1: left[0],
            left_x2: left[1],
            left_y1: left[2],
            left_y2: left[3],
            left_y3: left[4],
            left_s: left[5],
            left_t: left[6],
            right_x1: right[0],
            right_x2: right[1],
            right_y1: right[2],
            right_y2: right[3],
            right_y3: right[4],
            right_s: right[5],
            right_t: right[6],
            addend_offset: sum.addend.map_or(0, |of| of.offset),
            addend_row: addend[0],
            addend_column: addend[1],
            out_row,
            out_column,
            elements,
            low_offset: sum.low_offset,
            columns: word(columns),
            x2: word(x2),
            y2: word(y2),
            y3: word(y3),
            terms: word(terms),
            inner: word(t),
            has_left,
            has_right,
            has_addend: sum.addend.is_some().into(),
            left_as,
            right_as,
            addend_as: sum.addend.map_or(0, |of| stored_as(of.dtype)),
            bias_as: sum.bias.map_or(0, |of| stored_as(of.spec.dtype)),
            diagonal: sum.diagonal.into(),
            shared: is_shared.into(),
            stored_as: stored_as(sum.out.dtype),
            scale: params.scale(offset_of!(Contract, scale), sum.factor, self.scalars),
            beta: params.beta(offset_of!(Contract, beta), sum.old, self.scalars),
            ..Contract::default()
        };
        let work = elements.saturating_mul(terms as u64);
        self.bytes += sum.bytes;
        self.flops += work.saturating_mul(2);
        self.micros += sm80::contract(threads, work, sum.bytes, self.cuda);
        // Below 2³¹ blocks.
        self.push(variant, [blocks as u32, 1, 1], params);
        Ok(())
    }
}

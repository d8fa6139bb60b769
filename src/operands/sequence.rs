//! A call of several operations, for executors whose buffers are handles that read and write alike: the memory that
//! goes from one to the next, and the operands of each once that is there. Called by `cuda`, `wgpu` and `hosted`.

use super::{Compose, Matrix, Operands, Steps};
use crate::DType;

/// Operations of a call, at most.
pub(crate) const MOST_STEPS: usize = 5;

/// Memory between them: shrunk, dshrunk, a, b, da, db. Rows and columns of what is needed, without gaps.
pub(crate) const BETWEEN: usize = 6;
pub(crate) type Between<T> = [Option<T>; BETWEEN];

/// What a call consists of.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "moved once a call, on which nothing is allocated")]
pub(crate) enum Sequence<B> {
    /// A backward pass.
    Pass(Steps<B, B>),
    /// `a` and `b` for another call.
    Composed(Compose<B>, Operands<B, B>),
}

impl<B: Clone> Sequence<B> {
    pub(crate) fn between(&self) -> Between<([usize; 2], DType)> {
        let in_f32 = |of: Option<[usize; 2]>| of.map(|shape| (shape, DType::F32));
        let shapes = |of: &Compose<B>| of.shapes().map(in_f32);
        match self {
            Sequence::Pass(steps) => {
                let of = &steps.temporaries;
                let shrunk = ([of.rows, of.cols], of.dtype);
                let [a, b] = steps.compose.as_ref().map_or([None; 2], shapes);
                let [da, db] = steps.chain.as_ref().map_or([None; 2], |of| of.shapes().map(in_f32));
                [of.shrunk.then_some(shrunk), of.dshrunk.then_some(shrunk), a, b, da, db]
            }
            Sequence::Composed(compose, _) => {
                let [a, b] = shapes(compose);
                [None, None, a, b, None, None]
            }
        }
    }

    /// The operands of each operation, in order.
    pub(crate) fn with(
        self,
        [shrunk, dshrunk, a, b, da, db]: Between<Matrix<B>>,
    ) -> [Option<Operands<B, B>>; MOST_STEPS] {
        let composed = || [a.clone(), b.clone()];
        match self {
            Sequence::Pass(steps) => {
                let Steps { compose, recompute, down, gradients, of_factors, chain, .. } = steps;
                let recompute = recompute.zip(shrunk.clone());
                let recompute = recompute.map(|(step, shrunk)| step.with(composed(), shrunk));
                // Of a call either `shrunk` is worked out and taken on, or the gradients of w1 and w2.
                let [of_w1, of_w2] = of_factors;
                let of_w1 = of_w1.map(|step| step.with(a.clone(), da.clone()));
                let of_w2 = of_w2.map(|step| step.with(a.clone(), None));
                let between = [da.clone(), db.clone()];
                [
                    compose.map(|step| step.with(composed())),
                    recompute.or(of_w1),
                    down.map(|step| step.with(composed(), dshrunk.clone())),
                    gradients.map(|step| step.with(shrunk, dshrunk, between)).or(of_w2),
                    chain.map(|step| step.with([da, db])),
                ]
            }
            Sequence::Composed(mut first, layer) => {
                let rest = first.take_rest();
                let first = first.with(composed());
                [Some(first), Some(layer.on_composed([a, b], rest)), None, None, None]
            }
        }
    }
}

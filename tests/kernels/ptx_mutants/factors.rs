//! Small kernels beside a layer, whole: `norm`, `backward_gain`, and three texts of `pack`. Few elements of every type and
//! major, odd everywhere, in more than one CTA.

use fused_lora::{DType, Kronecker, Layout, Major, Method, Operand, Operation, Plan, Problem};
use test_support::sim::gpu;
use test_support::{Case, Fill};

use super::layers::Data::{self, InfiniteDown, InfiniteUp, Integers, Uniform};
use super::layers::{Layer, Loop, Place, loops};
use DType::{Bf16, F16, F32};

pub(super) const WHOLE: [Place; 1] = [("{", "END:")];

/// Rows `apart` elements and more further apart than they are long, every other operand across where it may be.
pub(super) fn odd(problem: Problem, apart: usize) -> Problem {
    Operand::ALL.iter().enumerate().fold(problem, |problem, (at, operand)| {
        let across = operand.either_major() && (at + apart).is_multiple_of(2);
        let major = if across { Major::Col } else { Major::Row };
        let problem = problem.with_layout(*operand, Layout { major, ..Layout::default() });
        let Some(spec) = problem.spec(*operand) else { return problem };
        let stride = Some(spec.stored().1 + apart + at % 5);
        problem.with_layout(*operand, Layout { major, stride, align: spec.dtype.size() })
    })
}

pub(super) fn layer(problem: Problem, choice: &str, data: Data) -> Layer {
    let plan = Plan::choose(&problem, &gpu(3), &choice.parse().unwrap()).unwrap();
    let fill = if data == Integers { Fill::Integers } else { Fill::Uniform };
    Layer { plan, case: Case::new(problem, fill, 7), data }
}

/// Fewer columns than threads, as many, and more; no rank and several; a type each.
fn norm() -> Vec<Layer> {
    let whole = Method::Lokr(Kronecker::new(4, 5).whole());
    let all = [
        (Problem::new(Operation::Norm, 0, 300, 3, 3), F32, F32),
        (Problem::new(Operation::Norm, 0, 40, 5, 4), Bf16, F16),
        (Problem::new(Operation::Norm, 0, 515, 2, 2), F16, Bf16),
        (Problem::new(Operation::Norm, 0, 256, 2, 0), Bf16, Bf16),
        // Of w + s·w1 ⊗ w2, which lies in the workspace.
        (Problem::new(Operation::Norm, 0, 35, 12, 0).with_method(whole), Bf16, F32),
    ];
    let all = all.into_iter().enumerate();
    let of = |(at, (of, activation, adapter)): (usize, (Problem, _, _))| {
        let of = of.with_activation(activation).with_adapter(adapter).with_scale(0.75);
        layer(odd(of, at), "direct/norm", Uniform)
    };
    all.map(of).collect()
}

/// More columns than a CTA has, fewer tokens than warps, and more, and none.
fn backward_gain() -> Vec<Layer> {
    let all = [
        ([19, 40], F32, F32, F16, Uniform),
        ([21, 33], Bf16, F32, F32, Integers),
        ([3, 70], F16, F16, Bf16, Uniform),
        ([0, 9], Bf16, Bf16, F32, Uniform),
        ([9, 5], Bf16, Bf16, F32, Uniform),
    ];
    let of =
        |(at, ([tokens, n], activation, y, gradient, data)): (usize, ([usize; 2], _, _, _, _))| {
            let of = Problem::new(Operation::BackwardGain, tokens, 8, n, 0)
                .with_activation(activation)
                .with_output(y)
                .with_gradient(gradient)
                .with_bias(at != 4)
                .with_beta(if at == 1 { 0.0 } else { 0.5 });
            layer(odd(of, at), "direct/backward_gain", data)
        };
    all.into_iter().enumerate().map(of).collect()
}

/// Both of a layer's matrices at once, of other sizes, to either major, rounded, in two parts, and as they are.
fn pack([from, to]: [DType; 2]) -> Vec<Layer> {
    let of = |at: usize, [m, k, n, rank]: [usize; 4], data| {
        let precise = !matches!(data, Integers | InfiniteDown(_) | InfiniteUp(_));
        let problem = Problem::forward(m, k, n, rank)
            .with_activation(to)
            .with_adapter(from)
            .with_output(F32)
            .with_scale(0.5)
            .with_precise(precise && to != F32);
        let problem = odd(problem, at);
        // All else lies as `linear` loads and stores it.
        let plain = [Operand::X, Operand::W, Operand::Y, Operand::Shrunk].into_iter();
        let problem = plain.fold(problem, |of, operand| of.with_layout(operand, Layout::default()));
        layer(problem, "two_pass/small", data)
    };
    // Its pair as ranks of one text, beside each other or below: rows and pitches that are not the factor's.
    let ranks = |major| {
        let problem = Problem::forward(9, 40, 24, 5)
            .with_activation(to)
            .with_adapter(from)
            .with_output(F32)
            .with_scale(0.5)
            .with_precise(to != F32)
            .with_layout(Operand::W, Layout { major, ..Layout::default() });
        layer(problem, "leader/small", Uniform)
    };
    vec![
        of(1, [9, 40, 24, 5], Uniform),
        of(2, [9, 24, 72, 11], Uniform),
        of(3, [5, 16, 16, 8], InfiniteDown(0)),
        of(4, [5, 16, 16, 8], InfiniteUp(1)),
        ranks(Major::Row),
        ranks(Major::Col),
    ]
}

pub(super) fn all() -> Vec<Loop> {
    let mut all = loops("norm", "norm", &norm(), &WHOLE);
    all.extend(loops("backward_gain", "backward_gain", &backward_gain(), &WHOLE));
    for types in [[F32, Bf16], [Bf16, F16], [Bf16, F32]] {
        all.extend(loops("pack", "pack", &pack(types), &WHOLE));
    }
    all
}

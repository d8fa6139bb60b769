//! LoKr whose columns count taps first, as those of a weight on images do whose channels lie last: composed, taken back and
//! merged. Small integers, so every result is the definition rounded once, bit for bit, by every candidate on every executor.

use fused_lora::{DType, Gradients, Kronecker, Layout, Major, Method, Operation, Problem};
use test_support::{Case, Fill, Harness, Reference, assert_exact, launch};

use DType::{Bf16, F16, F32};

/// w1, taps, and channels of w2; rows of w2 and the rank; the types of factors and gradients. More columns than a ticket
/// has and one, sums that a warp shares and those that it does not, one channel of either factor, taps alone.
type Shape = (Kronecker, [usize; 2], [usize; 2], [DType; 2]);
const SHAPES: [Shape; 8] = [
    (Kronecker::new(2, 3), [4, 5], [3, 2], [F32, F32]),
    (Kronecker::low(3, 2), [9, 7], [2, 5], [F32, Bf16]),
    (Kronecker::new(4, 2), [6, 1], [3, 4], [Bf16, F16]),
    (Kronecker::low(2, 5), [3, 40], [1, 3], [F16, F32]),
    (Kronecker::new(1, 1), [9, 3], [5, 2], [F16, Bf16]),
    (Kronecker::new(5, 130), [9, 2], [2, 1], [F32, F16]),
    (Kronecker::low(3, 1), [2, 600], [1, 8], [Bf16, F32]),
    (Kronecker::low(4, 4), [4, 1], [3, 1], [F32, F32]),
];

fn problem((of, [taps, width], [height, rank], [adapter, gradient]): Shape) -> Problem {
    let (k, n) = (of.columns * taps * width, of.rows * height);
    Problem::new(Operation::Compose, 0, k, n, rank)
        .with_method(Method::Lokr(of.taps_first(taps)))
        .with_adapter(adapter)
        .with_gradient(gradient)
}

/// Every operand in the other order of its elements, in rows with gaps, every second one.
fn turned(problem: Problem, every: usize) -> Problem {
    let all: Vec<_> = problem.specs().collect();
    all.into_iter().enumerate().fold(problem, |problem, (at, (operand, spec))| {
        let major = if (at + every).is_multiple_of(2) { Major::Col } else { Major::Row };
        let (outer, inner) =
            if major == Major::Row { (spec.rows, spec.cols) } else { (spec.cols, spec.rows) };
        let stride = Some(if outer > 1 { inner + 3 } else { inner });
        let layout = Layout { major, stride, align: spec.dtype.size() };
        problem.with_layout(operand, layout)
    })
}

fn exactly(harness: &mut Harness, problem: Problem) {
    problem.validate().unwrap();
    let case = Case::new(problem, Fill::Integers, 3);
    let before = case.buffers();
    let mut reference = Reference::new(&problem, &before);
    harness.each(&problem, None, |executor, plan| {
        let after = launch(executor, plan, &before, &case);
        assert_exact(plan, &after, reference.of(executor.sums(&problem)), &case);
    });
}

#[test]
fn sums_go_tap_by_tap() {
    let mut harness = Harness::new("taps of factors");
    for (at, shape) in SHAPES.into_iter().enumerate() {
        let compose = problem(shape);
        exactly(&mut harness, compose);
        exactly(&mut harness, turned(compose, at));
        let beta = if at % 2 == 0 { -0.5 } else { 0.0 };
        let chain = compose.with_operation(Operation::Chain).with_beta(beta);
        exactly(&mut harness, chain);
        exactly(&mut harness, turned(chain, at));
        exactly(&mut harness, chain.with_gradients(Gradients::A));
    }
    harness.report();
}

/// `w ± s·w1 ⊗ w2`, and the norm of that.
#[test]
fn a_whole_w2_is_merged_tap_by_tap() {
    let mut harness = Harness::new("taps of a whole w2");
    for (at, (of, sizes, [height, _], [dtype, adapter])) in SHAPES.into_iter().enumerate() {
        // w1 of two factors is composed before, in f32.
        let shape = (of, sizes, [height, 0], [adapter, adapter]);
        let of_factors = problem(shape);
        let Method::Lokr(of) = of_factors.method() else { unreachable!("LoKr") };
        let merge = of_factors
            .with_operation(if at % 2 == 0 { Operation::Merge } else { Operation::Unmerge })
            .with_method(Method::Lokr(of.whole()))
            .with_dtype(dtype)
            .with_adapter(adapter)
            .with_scale(0.5);
        exactly(&mut harness, merge);
        exactly(&mut harness, turned(merge, at));
        exactly(&mut harness, turned(merge, at + 1));
    }
    harness.report();
}

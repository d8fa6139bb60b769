//! LoKr with a whole w2 on images: ΔW = s·w1 ⊗ w2 added to w as taps see it, forward and on the way back, and the gradients of
//! both factors, drawn at random against the definition; small integers bit for bit; a term less is seen; what is refused.

use fused_lora::reference::{Dense, expected};
use fused_lora::{
    Capabilities, Channels, Convolution, CudaCapabilities, DType, Device, Error, Factor, Forward,
    Kronecker, Method, Operand, Operation, Plan, Problem,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use test_support::{
    Case, Fill, Harness, Rows, draw_kronecker_images, executors, largest_part, launch,
};

use super::super::definition::{candidates_match, integers_come_out_exactly};
use super::calls::tensor;
use super::{BOTH, gathers, is_linear, through};

const LAYER: [Operation; 3] =
    [Operation::Forward, Operation::BackwardInput, Operation::BackwardAdapter];

/// w1 beside a whole w2 whose columns are in the order of such images.
fn lokr([rows, columns]: [usize; 2], of: &Convolution) -> Method {
    let taps = if of.channels == Channels::Last { of.taps() } else { 1 };
    Method::Lokr(Kronecker::new(rows, columns).whole().taps_first(taps))
}

/// Of eight channels to ten, 3 × 3 of stride 2 on two images.
fn usual(operation: Operation, channels: Channels) -> Problem {
    let of = Convolution::new(2, [6, 7], [3, 3]).padding([1, 1]).stride([2, 1]);
    let of = of.channels(channels);
    Problem::new(operation, of.tokens(), 8 * of.taps(), 10, 0)
        .with_method(lokr([5, 4], &of))
        .with_convolution(of)
}

/// Every operation of a layer on images, in both orders of channels.
fn layers() -> impl Iterator<Item = (Operation, Channels)> {
    BOTH.into_iter().flat_map(|channels| LAYER.map(|operation| (operation, channels)))
}

#[test]
fn every_candidate_matches_the_definition() {
    let mut harness = through("whole w2 of convolutions").rarer(2);
    let fills = [Fill::Uniform, Fill::Uniform, Fill::Outliers, Fill::Tiny];
    let usage = candidates_match(&mut harness, 400, &fills, draw_kronecker_images);
    let whole = executors().iter().any(|of| of.one_in(Rows::Drawn) == 1);
    usage.report((harness.is_free() && whole).then_some(0.01));
}

#[test]
fn small_integers_come_out_exactly() {
    let mut harness = through("whole w2 of convolutions, exact").rarer(2);
    integers_come_out_exactly(&mut harness, 200, draw_kronecker_images);
}

/// Every output is outside its tolerance of a ΔW that lacks a row or a column of w1, a row of w2, or a tap of one of its
/// channels; gradients of a pass that lacks a pixel.
#[test]
fn a_term_less_is_seen() {
    let mut harness = through("a term of w1 ⊗ w2 less");
    for (at, dtype) in [DType::F32, DType::Bf16].into_iter().enumerate() {
        for (operation, channels) in layers() {
            let problem = usual(operation, channels).with_dtype(dtype).with_scale(1.5);
            let case = Case::new(problem, Fill::Uniform, 3);
            let before = case.buffers();
            let dense = |of: Operand| before.at(of).dense();
            harness.each(&problem, Some(at as u64), |executor, plan| {
                let after = launch(executor, plan, &before, &case);
                let sums = executor.sums(&problem);
                let whole = expected(&problem, sums, dense);
                // Operand, and the row or the column that it loses.
                let less = [
                    (Operand::W1, [Some(4), None]),
                    (Operand::W1, [None, Some(3)]),
                    (Operand::W2, [Some(1), None]),
                    (Operand::W2, [None, Some(17)]),
                    (Operand::X, [None, Some(23)]),
                    (Operand::Dy, [None, Some(0)]),
                ];
                for (of, [row_less, col_less]) in less {
                    let of_image = [Operand::X, Operand::Dy].contains(&of);
                    if problem.spec(of).is_none()
                        || of_image && operation != Operation::BackwardAdapter
                    {
                        continue;
                    }
                    let without = |of: &Dense| {
                        Dense::from_fn(of.rows(), of.cols(), |row, col| {
                            let lost = Some(row) == row_less || Some(col) == col_less;
                            if lost { 0.0 } else { of.at(row, col) }
                        })
                    };
                    let less = expected(&problem, sums, |operand| {
                        if operand == of { without(&dense(operand)) } else { dense(operand) }
                    });
                    for ((out, mut want), (_, less)) in whole.clone().into_iter().zip(less) {
                        // dw1 does not depend on w1, nor dw2 on w2.
                        if want.value == less.value {
                            continue;
                        }
                        want.value = less.value;
                        let used = largest_part(&problem, &after, out, &want);
                        assert!(used > 1.0, "{operation} {out} without a part of {of} uses {used}");
                    }
                }
            });
        }
    }
    harness.report();
}

/// The bits belong to the plan, whoever runs it.
#[test]
fn the_schedule_changes_no_bit() {
    let mut harness = through("schedules of w1 ⊗ w2 on images");
    for (operation, channels) in layers() {
        for &dtype in DType::ALL {
            let of = Convolution::new(3, [14, 13], [3, 3]).padding([1, 1]).channels(channels);
            let problem = Problem::new(operation, of.tokens(), 12 * of.taps(), 70, 0)
                .with_method(lokr([7, 4], &of))
                .with_dtype(dtype)
                .with_beta(0.5)
                .with_convolution(of);
            let case = Case::new(problem, Fill::Uniform, 4);
            let before = case.buffers();
            harness.each(&problem, None, |executor, plan| {
                let first = launch(executor, plan, &before, &case);
                for (name, sibling) in executor.siblings() {
                    let other = launch(sibling.as_ref(), plan, &before, &case);
                    other.assert_same_bits(&first, &format!("{name}, {}", plan.choice()));
                }
            });
        }
    }
    harness.report();
}

/// One tap of each pixel, side by side: on every executor, CUDA too, the same plan, and the same bits.
#[test]
fn one_by_one_is_the_linear_layer() {
    let mut harness = Harness::new("whole w2, 1 × 1");
    for (at, operation) in LAYER.into_iter().enumerate() {
        for dtype in [DType::F32, DType::Bf16] {
            let of = Convolution::new(3, [4, 5], [1, 1]).channels(Channels::Last);
            let linear = Problem::new(operation, 60, 24, 15, 0)
                .with_method(Method::Lokr(Kronecker::new(5, 4).whole()))
                .with_dtype(dtype)
                .with_scale(0.7);
            is_linear(&mut harness, at as u64, linear, linear.with_convolution(of));
        }
    }
    harness.report();
}

/// By name: factors that are in the order of other images; and what no kernel of CUDA gathers.
#[test]
fn what_is_not_served_is_refused_by_name() {
    for (operation, channels) in layers() {
        let problem = usual(operation, channels);
        let other = match channels {
            Channels::First => Channels::Last,
            Channels::Last => Channels::First,
        };
        let of = problem.convolution().unwrap().channels(other);
        let apart = Plan::new(&problem.with_convolution(of), &Capabilities::cpu()).unwrap_err();
        let taps = if channels == Channels::Last { [9, 1] } else { [1, 9] };
        assert!(
            matches!(apart, Error::Convolution { what, got, .. } if what.contains("LoKr") && got == taps),
            "{apart}"
        );
    }
    for operation in LAYER {
        // A linear layer has no taps.
        let linear = Problem::new(operation, 4, 72, 10, 0)
            .with_method(usual(operation, Channels::Last).method());
        let error = linear.validate().unwrap_err();
        assert!(matches!(error, Error::Convolution { got: [9, 1], .. }), "{error}");
        let problem = usual(operation, Channels::First);
        let cuda = Capabilities::Cuda(CudaCapabilities::default());
        // Of one tap that is not the linear layer, too.
        let strided = Convolution::new(2, [6, 7], [1, 1]).stride([2, 1]);
        let strided = Problem::new(operation, strided.tokens(), 8, 10, 0)
            .with_method(problem.method())
            .with_convolution(strided);
        for problem in [strided, problem] {
            match Plan::new(&problem, &cuda) {
                Err(Error::NoStrategy { reasons, .. }) => {
                    assert!(reasons.contains("does not load"), "{reasons}");
                }
                other => panic!("{operation}: {other:?}"),
            }
        }
    }
}

/// Of a call, too, whose w2 is whole or of two factors: channels first CUDA refuses by name.
#[test]
fn calls_are_refused_by_name_where_planes_are() {
    for executor in executors().iter().filter(|of| !gathers(of.name(), Channels::First)) {
        let device = Device::open(executor.name()).unwrap();
        let mut random = StdRng::seed_from_u64(8);
        let mut drawn = |rows, cols| tensor(&device, [rows, cols], &mut random);
        let of = usual(Operation::Forward, Channels::First).convolution().unwrap();
        let [height, width] = of.output();
        let (x, w) = (drawn(2 * 8, 6 * 7), drawn(10, 72));
        let (w1, w2, w2a, w2b) = (drawn(5, 4), drawn(2, 18), drawn(2, 2), drawn(2, 18));
        for w2 in [Factor::whole(&w2), Factor::low(&w2a, &w2b)] {
            let mut y = device
                .tensor(20, height * width, DType::F32, &vec![7.0; 20 * height * width])
                .unwrap();
            let forward = Forward::new(&x, &w, &mut y).lokr(Factor::whole(&w1), w2);
            let error = device.forward(forward.convolution(of)).unwrap_err();
            match error.cause() {
                Error::NoStrategy { reasons, .. } => {
                    assert!(reasons.contains("does not load gathered x"), "{reasons}");
                }
                other => panic!("{other:?}"),
            }
            assert!(y.to_f32().unwrap().iter().all(|of| *of == 7.0), "nothing is written");
        }
    }
}

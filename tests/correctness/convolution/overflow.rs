//! A `shrunk` of images that f16 does not hold is infinite, and makes every output that sees it under a tap infinite, forward and
//! on the way back: never clamped, and no NaN, neither of the low parts beside it nor of what lies around an image.

use fused_lora::{Channels, Convolution, DType, Operand, Operation, Problem};
use test_support::{Case, Fill, launch};

use super::{BOTH, meets, through};

#[test]
fn reaches_what_sees_it_and_nothing_else() {
    let mut harness = through("overflow of convolutions");
    let types = DType::ALL.iter().flat_map(|of| [(*of, false), (*of, true)]);
    for (channels, (dtype, precise)) in BOTH.iter().flat_map(|of| types.clone().map(|t| (*of, t))) {
        for (operation, stride) in [
            (Operation::Forward, [1, 2]),
            (Operation::BackwardInput, [1, 1]),
            (Operation::BackwardInput, [2, 1]),
        ] {
            let of = Convolution::new(2, [6, 5], [3, 2]).padding([1, 1]).stride(stride);
            let of = of.channels(channels);
            let problem = Problem::new(operation, of.tokens(), 64 * of.taps(), 64, 3)
                .with_activation(dtype)
                .with_adapter(DType::F32)
                .with_precise(precise)
                .with_convolution(of);
            let forward = operation == Operation::Forward;
            let (input, output, shrunk, [down, up]) = match forward {
                true => (Operand::X, Operand::Y, Operand::Shrunk, [Operand::A, Operand::B]),
                false => (Operand::Dy, Operand::Dx, Operand::Dshrunk, [Operand::B, Operand::A]),
            };
            let (of_input, of_output) =
                if forward { (of.size, of.output()) } else { (of.output(), of.size) };
            // Where channel `c` of pixel (p, q) of an image lies.
            let place = |size: [usize; 2], [image, c, p, q]: [usize; 4]| match channels {
                Channels::First => (image * 64 + c, p * size[1] + q),
                Channels::Last => ((image * size[0] + p) * size[1] + q, c),
            };
            let case = Case::new(problem, Fill::Uniform, 9);
            let mut before = case.buffers();
            // A pixel of the second image: 64 · 100 · 100 = 640 000 for each rank, and 1920 of it where b (a) is 0.001.
            let at = [2, 3];
            before.at_mut(input).fill(|_, _| 0.0);
            for c in 0..64 {
                let (row, col) = place(of_input, [1, c, at[0], at[1]]);
                before.at_mut(input).set(row, col, 100.0);
            }
            before.at_mut(Operand::W).fill(|_, _| 0.0);
            before.at_mut(down).fill(|_, _| 100.0);
            before.at_mut(up).fill(|_, _| 0.001);
            harness.each(&problem, None, |executor, plan| {
                let after = launch(executor, plan, &before, &case);
                let y = after.at(output);
                let [height, width] = of_output;
                let pixels = (0..2 * height * width).map(|at| {
                    let pixel = at % (height * width);
                    (at / (height * width), [pixel / width, pixel % width])
                });
                for (image, pixel) in pixels {
                    let sees = match forward {
                        true => meets(&of, pixel, at),
                        false => meets(&of, at, pixel),
                    };
                    for c in 0..64 {
                        let (row, col) = place(of_output, [image, c, pixel[0], pixel[1]]);
                        let got = y.get(row, col);
                        let is_right = match (image == 1 && sees, dtype) {
                            (false, _) => got == 0.0,
                            (true, DType::F16) => got == f32::INFINITY,
                            (true, _) => (got - 1920.0).abs() < 16.0,
                        };
                        assert!(is_right, "{pixel:?} of {image}: {got}\n{}", plan.explain());
                    }
                }
                let shrunk = after.at(shrunk);
                let infinite =
                    (0..shrunk.spec.rows).filter(|row| shrunk.get(*row, 0).is_infinite());
                assert_eq!(infinite.count() > 0, dtype == DType::F16, "{}", plan.choice());
                if precise && dtype == DType::F16 {
                    let low = |row: usize| shrunk.get(row, problem.padded_rank());
                    assert!((0..shrunk.spec.rows).all(|row| low(row) == 0.0), "{}", plan.choice());
                }
            });
        }
    }
    harness.report();
}

//! A convolution by its definition: loops over images, outputs, channels and the kernel's elements. What they visit is unfolded
//! into rows for the formulas of a layer, and the gradient of the input is what is scattered along the same loops.

use super::Dense;
use crate::{Channels, Convolution};

/// Calls `f` with each output pixel, column of the weight, and the row and column in which the element that meets it is
/// stored, of images with so many channels; not with what lies outside an image.
fn each(of: &Convolution, channels: usize, mut f: impl FnMut(usize, usize, [usize; 2])) {
    let ([height, width], [rows, columns]) = (of.size, of.output());
    let place = |axis: usize, output: usize, element: usize, size: usize| {
        let (forth, back) =
            (output * of.stride[axis] + element * of.dilation[axis], of.padding[axis]);
        (forth >= back && forth - back < size).then(|| forth - back)
    };
    let mut token = 0;
    for image in 0..of.images {
        for (p, q) in (0..rows).flat_map(|p| (0..columns).map(move |q| (p, q))) {
            for channel in 0..channels {
                for (u, v) in (0..of.kernel[0]).flat_map(|u| (0..of.kernel[1]).map(move |v| (u, v)))
                {
                    let (Some(y), Some(x)) = (place(0, p, u, height), place(1, q, v, width)) else {
                        continue;
                    };
                    let tap = u * of.kernel[1] + v;
                    let (column, stored) = match of.channels {
                        Channels::First => (
                            channel * of.kernel[0] * of.kernel[1] + tap,
                            [image * channels + channel, y * width + x],
                        ),
                        Channels::Last => {
                            (tap * channels + channel, [(image * height + y) * width + x, channel])
                        }
                    };
                    f(token, column, stored);
                }
            }
            token += 1;
        }
    }
}

/// `[tokens, in_features]`: what each output meets of `x`, 0 around the images.
pub(super) fn unfold(of: &Convolution, in_features: usize, x: &Dense) -> Dense {
    let mut values = vec![0.0; of.tokens() * in_features];
    each(of, in_features / of.taps(), |token, column, [row, col]| {
        values[token * in_features + column] = x.at(row, col);
    });
    Dense::new(of.tokens(), in_features, values)
}

/// What reaches each element of the images of what each output met: the sum over `[tokens, in_features]`.
pub(super) fn fold(of: &Convolution, met: &Dense) -> Dense {
    let channels = met.cols() / of.taps();
    let [rows, cols] = match of.channels {
        Channels::First => [of.images * channels, of.planes()[0]],
        Channels::Last => [of.pixels(), channels],
    };
    let mut values = vec![0.0; rows * cols];
    each(of, channels, |token, column, [row, col]| {
        values[row * cols + col] += met.at(token, column);
    });
    Dense::new(rows, cols, values)
}

/// `[tokens, out_features]` of `y` as it is stored.
pub(super) fn from_stored(of: &Convolution, features: usize, y: Dense) -> Dense {
    if of.channels == Channels::Last {
        return y;
    }
    let pixels = of.planes()[1];
    Dense::from_fn(of.tokens(), features, |token, feature| {
        y.at(token / pixels * features + feature, token % pixels)
    })
}

/// The other way.
pub(super) fn to_stored(of: &Convolution, y: Dense) -> Dense {
    if of.channels == Channels::Last {
        return y;
    }
    let (pixels, features) = (of.planes()[1], y.cols());
    Dense::from_fn(of.images * features, pixels, |row, pixel| {
        y.at(row / features * pixels + pixel, row % features)
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Dense, Sums, expected};
    use crate::{Channels, Convolution, Operand, Operation, Problem};

    const CHANNELS: usize = 2;
    const FEATURES: usize = 3;
    const RANK: usize = 2;

    fn problems() -> impl Iterator<Item = Problem> {
        let all = [Channels::First, Channels::Last].into_iter().flat_map(|channels| {
            let of = Convolution::new(2, [4, 5], [3, 2]).channels(channels);
            [
                of,
                of.padding([1, 2]),
                of.padding([2, 1]).stride([2, 3]),
                of.dilation([1, 3]).padding([0, 1]),
            ]
        });
        all.map(|of| {
            Problem::forward(of.tokens(), CHANNELS * of.taps(), FEATURES, RANK)
                .with_convolution(of)
                .with_scale(-0.5)
        })
    }

    /// Numbers without a pattern, the same ones for the same name.
    fn drawn(problem: &Problem, operand: Operand) -> Dense {
        let spec = problem.spec(operand).unwrap();
        Dense::from_fn(spec.rows, spec.cols, |row, col| {
            ((operand as usize * 7919 + row * 131 + col * 17 + 3) as f64 * 0.7391).sin()
        })
    }

    fn value(results: &[(Operand, super::super::Expected)], of: Operand) -> &Dense {
        &results.iter().find(|(operand, _)| *operand == of).unwrap().1.value
    }

    /// `Σ g∘y`, with y by seven loops and ΔW = s·up∘down written out: element by element of the tensors of PyTorch.
    fn loss(problem: &Problem, g: &Dense, operand: &dyn Fn(Operand) -> Dense) -> f64 {
        let of = problem.convolution().unwrap();
        let (x, w, down, up) =
            (operand(Operand::X), operand(Operand::W), operand(Operand::A), operand(Operand::B));
        let ([height, width], [rows, cols], [kh, kw]) = (of.size, of.output(), of.kernel);
        let column = |i: usize, u: usize, v: usize| match of.channels {
            Channels::First => (i * kh + u) * kw + v,
            Channels::Last => (u * kw + v) * CHANNELS + i,
        };
        let element = |m: &Dense, channels: usize, size: [usize; 2], at: [usize; 4]| {
            let [n, i, p, q] = at;
            match of.channels {
                Channels::First => m.at(n * channels + i, p * size[1] + q),
                Channels::Last => m.at((n * size[0] + p) * size[1] + q, i),
            }
        };
        let mut sum = 0.0;
        for n in 0..of.images {
            for o in 0..FEATURES {
                for p in 0..rows {
                    for q in 0..cols {
                        for i in 0..CHANNELS {
                            for u in 0..kh {
                                for v in 0..kw {
                                    let at = [(p, u, 0, height), (q, v, 1, width)].map(
                                        |(p, u, axis, size)| {
                                            let at = (p * of.stride[axis] + u * of.dilation[axis])
                                                as i64
                                                - of.padding[axis] as i64;
                                            (0..size as i64).contains(&at).then_some(at as usize)
                                        },
                                    );
                                    let [Some(y), Some(x_at)] = at else { continue };
                                    let k = column(i, u, v);
                                    let delta: f64 =
                                        (0..RANK).map(|r| up.at(o, r) * down.at(r, k)).sum();
                                    let weight = w.at(o, k) + f64::from(problem.scale()) * delta;
                                    sum += element(g, FEATURES, of.output(), [n, o, p, q])
                                        * weight
                                        * element(&x, CHANNELS, of.size, [n, i, y, x_at]);
                                }
                            }
                        }
                    }
                }
            }
        }
        sum
    }

    #[test]
    fn every_operation_is_the_definition_and_its_derivatives() {
        for problem in problems() {
            problem.validate().unwrap();
            let of = problem.convolution().unwrap();
            let g = drawn(&problem.with_operation(Operation::BackwardInput), Operand::Dy);
            let all = |operand: Operand| drawn(&problem, operand);
            let forward = expected(&problem, Sums::F32, all);
            let by_forward: f64 = value(&forward, Operand::Y)
                .values()
                .iter()
                .zip(g.values())
                .map(|(y, g)| y * g)
                .sum();
            let by_loops = loss(&problem, &g, &all);
            assert!((by_forward - by_loops).abs() < 1e-9, "{of:?}: {by_forward} for {by_loops}");

            let back = problem.with_operation(Operation::BackwardInput);
            let input = expected(&back, Sums::F32, |operand| match operand {
                Operand::Dy => g.clone(),
                other => all(other),
            });
            let padded = |operand: Operand, from: &[(Operand, super::super::Expected)]| {
                let of = value(from, operand);
                Dense::from_fn(
                    of.rows(),
                    8,
                    |row, col| if col < RANK { of.at(row, col) } else { 0.0 },
                )
            };
            let gradients = expected(
                &problem.with_operation(Operation::BackwardAdapter),
                Sums::F32,
                |operand| match operand {
                    Operand::Dy => g.clone(),
                    Operand::Shrunk => padded(operand, &forward),
                    Operand::Dshrunk => padded(operand, &input),
                    other => all(other),
                },
            );
            for (factor, gradient) in [
                (Operand::X, value(&input, Operand::Dx)),
                (Operand::A, value(&gradients, Operand::Da)),
                (Operand::B, value(&gradients, Operand::Db)),
            ] {
                for at in 0..gradient.values().len() {
                    let moved = |by: f64| {
                        loss(&problem, &g, &|operand| {
                            let of = all(operand);
                            Dense::from_fn(of.rows(), of.cols(), |row, col| {
                                let here = operand == factor && row * of.cols() + col == at;
                                of.at(row, col) + if here { by } else { 0.0 }
                            })
                        })
                    };
                    let difference = (moved(0.5) - moved(-0.5)) / 1.0;
                    let got = gradient.values()[at];
                    assert!(
                        (difference - got).abs() < 1e-9,
                        "{of:?} {factor} {at}: {got} for {difference}"
                    );
                }
            }
        }
    }
}

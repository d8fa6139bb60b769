//! Layers on images: every operation of convolutions drawn at random against the definition, in numbers and in small integers;
//! 1 × 1 on channels that lie side by side is the linear layer, bit for bit; a missing tap or border is seen; a NaN stays in
//! its receptive field; an image has the bits that it has among others; all of a small adapter arrives; what is
//! refused. `calls` has whole calls, `merges` what sees the weight alone, `kronecker` LoKr with a whole w2, `strips` large images,
//! `gains` the gradient of a magnitude, `overflow` a shrunk that f16 does not hold.
//!
//! Around every operand and in its gaps lie NaNs, so that a pixel read outside its image shows.

mod calls;
mod gains;
mod kronecker;
mod merges;
mod overflow;
mod strips;

use fused_lora::cpu::Cpu;
use fused_lora::reference::Dense;
use fused_lora::{
    Capabilities, Channels, Convolution, CudaCapabilities, DType, Error, Factor, Forward, Matrix,
    Operand, Operation, Plan, Problem,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use test_support::{
    Case, Executor, Fill, Harness, Reference, Rows, Usage, assert_exact, draw_aligned_images,
    draw_images, executors, largest_part, launch, shrunk_is_exact, value,
};

use super::definition::candidates_match;

/// CUDA's kernels gather pixels whose channels lie side by side, and no planes.
fn gathers(executor: &str, channels: Channels) -> bool {
    executor != "cuda" || channels == Channels::Last
}

fn is_served(executor: &str, problem: &Problem) -> bool {
    problem.convolution().is_none_or(|of| gathers(executor, of.channels))
}

/// Those that gather planes, too.
fn serving() -> Vec<Box<dyn Executor>> {
    executors().into_iter().filter(|of| gathers(of.name(), Channels::First)).collect()
}

fn through(test: &'static str) -> Harness {
    Harness::new(test).where_served(is_served)
}

/// Of eight channels to five, 3 × 3 on two images.
fn usual(operation: Operation, channels: Channels) -> Problem {
    let of = Convolution::new(2, [6, 7], [3, 3]).padding([1, 1]).channels(channels);
    Problem::new(operation, of.tokens(), 8 * of.taps(), 5, 4).with_convolution(of)
}

const BOTH: [Channels; 2] = [Channels::First, Channels::Last];
const OPERATIONS: [Operation; 4] = [
    Operation::Forward,
    Operation::BackwardInput,
    Operation::BackwardShrink,
    Operation::BackwardAdapter,
];

#[test]
fn every_candidate_matches_the_definition() {
    let mut harness = through("convolutions").rarer(2);
    let fills = [Fill::Uniform, Fill::Uniform, Fill::Outliers, Fill::Tiny];
    let usage = candidates_match(&mut harness, 700, &fills, draw_images);
    let aligned = candidates_match(&mut harness, 150, &fills, draw_aligned_images);
    aligned.report(None);
    let whole = executors().iter().any(|of| of.one_in(Rows::Drawn) == 1);
    usage.report((harness.is_free() && whole).then_some(0.01));
}

#[test]
fn small_integers_come_out_exactly() {
    let mut harness = through("exact convolutions").rarer(2);
    for seed in 0..600 {
        let mut rng = StdRng::seed_from_u64(seed);
        let scale = [0.5, 1.0, 2.0, -0.25][rng.random_range(0..4)];
        let beta = [0.0, 0.0, 1.0, -0.5][rng.random_range(0..4)];
        let drawn = if seed < 500 { draw_images(&mut rng) } else { draw_aligned_images(&mut rng) };
        let problem = drawn.with_scale(scale).with_beta(beta);
        let case = Case::new(problem, Fill::Integers, seed);
        let before = case.buffers();
        let mut reference = Reference::new(&problem, &before);
        harness.each(&problem, Some(seed), |executor, plan| {
            let expected = reference.of(executor.sums(&problem));
            assert!(shrunk_is_exact(&problem, expected), "seed {seed} draws no exact case");
            let after = launch(executor, plan, &before, &case);
            assert_exact(plan, &after, expected, &case);
        });
    }
    harness.report();
}

/// Taps of several steps of a kernel each, the last of them ragged: without an adapter exactly, with ranks of one step and of
/// two by the definition.
#[test]
fn taps_of_many_steps_match_the_definition() {
    let mut harness = through("long taps");
    let mut usage = Usage::default();
    for (at, operation) in OPERATIONS.into_iter().enumerate() {
        for &dtype in DType::ALL {
            for (rank, adapter, precise) in
                [(0, dtype, false), (5, DType::F32, false), (5, dtype, true), (40, dtype, true)]
            {
                if rank == 0 && at > 1 {
                    continue;
                }
                let of = Convolution::new(2, [7, 6], [3, 2]).padding([1, 1]).stride([2, 1]);
                let of = of.channels(Channels::Last);
                let problem = Problem::new(operation, of.tokens(), 104 * of.taps(), 136, rank)
                    .with_dtype(dtype)
                    .with_adapter(adapter)
                    .with_precise(precise)
                    .with_convolution(of);
                let fill = if rank == 0 { Fill::Integers } else { Fill::Uniform };
                let case = Case::new(problem, fill, 11);
                let before = case.aligned_buffers();
                let mut reference = Reference::new(&problem, &before);
                harness.each(&problem, Some(0), |executor, plan| {
                    let after = launch(executor, plan, &before, &case);
                    let expected = reference.of(executor.sums(&problem));
                    match rank {
                        0 => assert_exact(plan, &after, expected, &case),
                        _ => usage.check(plan, &after, expected, &case),
                    }
                });
            }
        }
    }
    harness.report();
}

/// Runs a problem of images on every executor: its plan is the linear one's, and gives the same bits.
fn is_linear(harness: &mut Harness, seed: u64, linear: Problem, problem: Problem) {
    let (case, of_linear) =
        (Case::new(problem, Fill::Uniform, 9), Case::new(linear, Fill::Uniform, 9));
    let (before, before_linear) = (case.aligned_buffers(), of_linear.aligned_buffers());
    harness.each(&problem, Some(seed), |executor, plan| {
        let same = Plan::choose(&linear, plan.capabilities(), &plan.choice()).unwrap();
        let after = launch(executor, plan, &before, &case);
        let want = launch(executor, &same, &before_linear, &of_linear);
        after.assert_same_bits(&want, "images, and what is linear");
    });
}

/// One tap of each pixel, side by side: on every executor the same plan, and the same bits.
#[test]
fn one_by_one_is_the_linear_layer() {
    let mut harness = Harness::new("1 × 1");
    for (at, operation) in OPERATIONS.into_iter().enumerate() {
        for dtype in [DType::F32, DType::Bf16] {
            let of = Convolution::new(3, [4, 5], [1, 1]).dilation([2, 3]).channels(Channels::Last);
            let linear = Problem::new(operation, 60, 24, 17, 5)
                .with_dtype(dtype)
                .with_scale(0.7)
                .with_bias(true);
            is_linear(&mut harness, at as u64, linear, linear.with_convolution(of));
        }
    }
    harness.report();
}

/// Whether an element is one of those.
type Elements<'a> = &'a dyn Fn(usize, usize) -> bool;

/// What is taken from an operand before a run, and what its absence must be seen in.
#[test]
fn a_missing_tap_or_border_exceeds_the_tolerance() {
    let mut harness = through("mistakes of convolutions");
    for channels in BOTH {
        for operation in OPERATIONS {
            for &dtype in DType::ALL {
                let problem = usual(operation, channels).with_dtype(dtype).with_scale(2.0);
                let of = problem.convolution().unwrap();
                let case = Case::new(problem, Fill::Uniform, 7);
                let right = case.buffers();
                let mut reference = Reference::new(&problem, &right);
                // The columns of the last tap of every channel; the first row of pixels of every image.
                let is_tap = |col: usize| match channels {
                    Channels::First => col % of.taps() == of.taps() - 1,
                    Channels::Last => col / 8 == of.taps() - 1,
                };
                let [height, width] = of.size;
                let is_border = |row: usize, col: usize| match channels {
                    Channels::First => col < width,
                    Channels::Last => row % (height * width) < width,
                };
                let mistakes: [(&str, Operand, Elements<'_>); 4] = [
                    ("a tap of w", Operand::W, &|_, col| is_tap(col)),
                    ("a tap of a", Operand::A, &|_, col| is_tap(col)),
                    ("a border of x", Operand::X, &is_border),
                    ("a border of dy", Operand::Dy, &is_border),
                ];
                for (what, operand, is_missing) in mistakes {
                    if problem.spec(operand).is_none() {
                        continue;
                    }
                    let mut wrong = right.clone();
                    for row in 0..wrong.at(operand).spec.rows {
                        for col in
                            (0..wrong.at(operand).spec.cols).filter(|col| is_missing(row, *col))
                        {
                            wrong.at_mut(operand).set(row, col, 0.0);
                        }
                    }
                    harness.each(&problem, Some(1), |executor, plan| {
                        let after = launch(executor, plan, &wrong, &case);
                        let all = reference.of(executor.sums(&problem));
                        let parts = all
                            .iter()
                            .map(|(operand, of)| largest_part(&problem, &after, *operand, of));
                        let part = parts.fold(0.0, f64::max);
                        assert!(
                            part > 1.0,
                            "{what}: {operation} {dtype} {channels:?} uses only {part}"
                        );
                    });
                }
            }
        }
    }
    harness.report();
}

/// Whether some tap leads from a pixel of an output to one of its input.
fn meets(of: &Convolution, output: [usize; 2], input: [usize; 2]) -> bool {
    [0, 1].into_iter().all(|axis| {
        let first = (output[axis] * of.stride[axis]) as i64 - of.padding[axis] as i64;
        (first..first + of.kernel[axis] as i64).contains(&(input[axis] as i64))
    })
}

/// A NaN in a pixel of `x` reaches the outputs that see it, and a NaN in `dy` the pixels that it comes of; no others.
#[test]
fn a_nan_stays_in_its_receptive_field() {
    let mut harness = through("NaNs of images");
    for channels in BOTH {
        for stride in [1, 2] {
            for operation in [Operation::Forward, Operation::BackwardInput] {
                let of = Convolution::new(2, [7, 6], [3, 2])
                    .padding([1, 1])
                    .stride([stride, 1])
                    .channels(channels);
                let problem =
                    Problem::new(operation, of.tokens(), 3 * of.taps(), 4, 2).with_convolution(of);
                let forward = operation == Operation::Forward;
                let (input, output) =
                    if forward { (Operand::X, Operand::Y) } else { (Operand::Dy, Operand::Dx) };
                let (of_input, of_output) = match forward {
                    true => ((of.size, 3), (of.output(), 4)),
                    false => ((of.output(), 4), (of.size, 3)),
                };
                // Where channel `c` of pixel (p, q) of an image lies.
                let place = |(size, features): ([usize; 2], usize),
                             [image, c, p, q]: [usize; 4]| {
                    match channels {
                        Channels::First => (image * features + c, p * size[1] + q),
                        Channels::Last => ((image * size[0] + p) * size[1] + q, c),
                    }
                };
                let case = Case::new(problem, Fill::Uniform, 3);
                let clean = case.buffers();
                for at in [[0, 0], [of_input.0[0] - 1, of_input.0[1] - 1], [1, 2]] {
                    let mut before = clean.clone();
                    let (row, col) = place(of_input, [1, 1, at[0], at[1]]);
                    before.at_mut(input).set(row, col, f32::NAN);
                    harness.each(&problem, Some(0), |executor, plan| {
                        let y = value(&problem, &launch(executor, plan, &before, &case), output);
                        let ([height, width], features) = of_output;
                        for image in 0..2 {
                            for (p, q) in (0..height).flat_map(|p| (0..width).map(move |q| (p, q)))
                            {
                                let reached = match forward {
                                    true => meets(&of, [p, q], at),
                                    false => meets(&of, at, [p, q]),
                                };
                                for c in 0..features {
                                    let (row, col) = place(of_output, [image, c, p, q]);
                                    assert_eq!(
                                        y.at(row, col).is_nan(),
                                        image == 1 && reached,
                                        "{problem:?}: [{image}, {c}, {p}, {q}] of a NaN at {at:?}"
                                    );
                                }
                            }
                        }
                    });
                }
            }
        }
    }
    harness.report();
}

/// The bits belong to the plan, whoever runs it.
#[test]
fn the_schedule_changes_no_bit() {
    let mut harness = through("schedules of convolutions");
    for channels in BOTH {
        for operation in OPERATIONS {
            for &dtype in DType::ALL {
                let of = Convolution::new(3, [24, 23], [3, 3]).padding([1, 1]).channels(channels);
                let problem = Problem::new(operation, of.tokens(), 12 * of.taps(), 70, 9)
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
    }
    harness.report();
}

/// Under `batch_invariant` an image has the bits that it has among others.
#[test]
fn an_image_is_alone() {
    let mut harness = through("images alone");
    for channels in BOTH {
        for operation in [Operation::Forward, Operation::BackwardInput, Operation::BackwardShrink] {
            for dtype in [DType::F32, DType::Bf16] {
                let images = 5;
                let of = Convolution::new(images, [9, 10], [3, 3])
                    .padding([1, 1])
                    .stride([2, 1])
                    .channels(channels);
                let of_images = |images| {
                    let of = Convolution::new(images, of.size, of.kernel).padding(of.padding);
                    let of = of.stride([2, 1]).channels(channels);
                    Problem::new(operation, of.tokens(), 4 * of.taps(), 11, 3)
                        .with_dtype(dtype)
                        .with_batch_invariant(true)
                        .with_convolution(of)
                };
                let (problem, alone) = (of_images(images), of_images(1));
                let (case, of_alone) =
                    (Case::new(problem, Fill::Uniform, 6), Case::new(alone, Fill::Uniform, 6));
                let before = case.aligned_buffers();
                harness.each(&problem, None, |executor, plan| {
                    let batch = launch(executor, plan, &before, &case);
                    let by_itself =
                        Plan::choose(&alone, plan.capabilities(), &plan.choice()).unwrap();
                    for image in [0, 3] {
                        let mut part = of_alone.aligned_buffers();
                        for stored in &mut part.stored {
                            let of = before.at(stored.operand);
                            // Rows of images; weights are whole.
                            let first = if of.spec.rows == stored.spec.rows {
                                0
                            } else {
                                image * stored.spec.rows
                            };
                            for row in 0..stored.spec.rows {
                                (0..stored.spec.cols)
                                    .for_each(|col| stored.set(row, col, of.get(first + row, col)));
                            }
                        }
                        let after = launch(executor, &by_itself, &part, &of_alone);
                        for stored in after.outputs() {
                            let of = batch.at(stored.operand);
                            let first = image * stored.spec.rows;
                            for row in 0..stored.spec.rows {
                                for col in 0..stored.spec.cols {
                                    let got = stored.data.bits(stored.index(row, col));
                                    let want = of.data.bits(of.index(first + row, col));
                                    assert_eq!(
                                        got,
                                        want,
                                        "{} {row} {col}\n{}",
                                        stored.operand,
                                        plan.explain()
                                    );
                                }
                            }
                        }
                    }
                });
            }
        }
    }
    harness.report();
}

/// ⟨y − y₀, z⟩ / ⟨z, z⟩ with an adapter of a thousandth of w, as `share` has it of linear layers.
#[test]
fn all_of_it_arrives() {
    let mut harness = through("share of convolutions");
    for channels in BOTH {
        for operation in [Operation::Forward, Operation::BackwardInput] {
            for dtype in [DType::Bf16, DType::F16] {
                let of = Convolution::new(3, [18, 18], [3, 3]).padding([1, 1]).channels(channels);
                let problem = Problem::new(operation, of.tokens(), 32 * of.taps(), 112, 8)
                    .with_dtype(dtype)
                    .with_convolution(of);
                let before = Case::new(problem, Fill::Uniform, 2).buffers();
                let norm = |of: &Dense| of.values().iter().map(|of| of * of).sum::<f64>().sqrt();
                let delta = before
                    .at(Operand::B)
                    .dense()
                    .times_transposed(&before.at(Operand::A).dense().transposed());
                let scale = 1e-3 * norm(&before.at(Operand::W).dense()) / norm(&delta);
                let problem = problem.with_scale(scale as f32);
                let output = if operation == Operation::Forward { Operand::Y } else { Operand::Dx };
                // Exactly, with the adapter and without.
                let exact = |problem: &Problem| {
                    let all =
                        test_support::results(problem, fused_lora::reference::Sums::F32, &before);
                    all.into_iter().find(|of| of.0 == output).unwrap().1.value
                };
                let (y, base) = (exact(&problem), exact(&problem.plain()));
                let case = Case::new(problem, Fill::Uniform, 2);
                harness.each(&problem, Some(1), |executor, plan| {
                    let got = launch(executor, plan, &before, &case).at(output).dense();
                    let (mut along, mut size) = (0.0, 0.0);
                    for ((got, y), base) in got.values().iter().zip(y.values()).zip(base.values()) {
                        along += (got - base) * (y - base);
                        size += (y - base) * (y - base);
                    }
                    let share = along / size;
                    println!("  {} {operation} {dtype} {channels:?}: {share:.3}", executor.name());
                    assert!(
                        (0.98..=1.02).contains(&share),
                        "{share} of it arrives\n{}",
                        plan.explain()
                    );
                });
            }
        }
    }
    harness.report();
}

#[test]
fn what_is_no_convolution_is_refused() {
    let of = Convolution::new(2, [5, 7], [3, 3]);
    let problem = |of: Convolution| Problem::forward(of.tokens(), 9 * 4, 6, 2).with_convolution(of);
    let error = |problem: Problem| Plan::new(&problem, &Capabilities::cpu()).unwrap_err();
    let refused = |what, expected, got| Error::Convolution { what, expected, got };
    let larger = "no larger than the padded image";
    for (of, want) in [
        (of.stride([1, 0]), refused("stride", "at least 1", [1, 0])),
        (of.dilation([0, 1]), refused("dilation", "at least 1", [0, 1])),
        (of.dilation([1, 4]), refused("kernel and padded image", larger, [9, 7])),
        (Convolution::new(2, [1, 9], [3, 3]), refused("kernel and padded image", larger, [3, 1])),
        (Convolution::new(2, [5, 7], [0, 3]), refused("kernel", "at least 1", [0, 3])),
        (Convolution::new(2, [0, 7], [1, 1]), refused("size", "at least 1", [0, 7])),
        (
            of.padding([usize::MAX, 0]),
            refused("size with padding", "fewer than 2^31 along each axis", [5, 7]),
        ),
    ] {
        assert_eq!(error(problem(of)), want);
    }
    let what = "tokens and pixels of all outputs";
    assert_eq!(error(problem(of).with_tokens(29)), refused(what, "the same number", [29, 30]));
    let wide = Problem::forward(of.tokens(), 10, 6, 2).with_convolution(of);
    let expected = "columns of w that elements of the kernel divide";
    assert_eq!(error(wide), refused("in_features and kernel", expected, [10, 9]));
    let gain = problem(of).with_operation(Operation::BackwardGain).with_tokens(29);
    assert_eq!(error(gain), refused(what, "the same number", [29, 30]));

    // Columns of LoKr's w1 divide channels, of which each tap has all.
    let last = of.channels(Channels::Last);
    let (x, w, w1, w2a, w2b) =
        ([0.0f32; 4 * 70], [0.0f32; 6 * 36], [0.0f32; 6], [0.0f32; 3], [0.0f32; 12]);
    let mut y = [1.0f32; 6 * 30];
    let factor = Factor::whole(Matrix::new(&w1, 2, 3));
    let forward =
        Forward::new(Matrix::new(&x, 70, 4), Matrix::new(&w, 6, 36), Matrix::new(&mut y, 30, 6))
            .lokr(factor, Factor::low(Matrix::new(&w2a, 3, 1), Matrix::new(&w2b, 1, 12)))
            .convolution(last);
    let error = Cpu::new().forward(forward).unwrap_err();
    let expected = "taps that divide its columns";
    assert_eq!(error.cause(), &Error::Factor { operand: Operand::W2, expected, got: [9, 12] });

    // Operands of other images than the convolution's.
    let (x, w, mut y) = ([0.0f32; 4 * 35], [0.0f32; 6 * 36], [1.0f32; 12 * 15]);
    let forward =
        Forward::new(Matrix::new(&x, 4, 35), Matrix::new(&w, 6, 36), Matrix::new(&mut y, 12, 15));
    let error = Cpu::new().forward(forward.convolution(of)).unwrap_err();
    assert_eq!(
        error.cause(),
        &Error::Shape { operand: Operand::X, expected: [8, 35], got: [4, 35] }
    );
    assert_eq!(y, [1.0; 12 * 15], "nothing is written");
}

/// What no kernel of a backend gathers it refuses, by name.
#[test]
fn what_is_not_served_is_refused_by_name() {
    let cuda = Capabilities::Cuda(CudaCapabilities::default());
    for operation in OPERATIONS {
        let operand = if operation == Operation::Forward { "x" } else { "dy" };
        let operand = if operation == Operation::BackwardAdapter { "x" } else { operand };
        let reason = format!("does not load gathered {operand} of images stored channels first");
        match Plan::new(&usual(operation, Channels::First), &cuda) {
            Err(Error::NoStrategy { reasons, .. }) => {
                assert!(reasons.contains(&reason), "{reasons}")
            }
            other => panic!("{operation}: {other:?}"),
        }
    }
    for operation in OPERATIONS {
        assert!(Plan::new(&usual(operation, Channels::Last), &cuda).is_ok(), "{operation}");
    }
}
